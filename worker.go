package rebeca

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"rebeca/consumer"
	"rebeca/schemas"
	"rebeca/table"
)

// worker folds what the fetch loops bring into the table: feedback to facts
// and intents, requests to intents, items to the catalogue. Its handlers run
// on the partition's goroutine, one at a time per partition.
type worker struct {
	topics     TopicConfig
	generate   GenerateConfig
	dim        int
	partitions int
	samples    bool // false in a process that only trains: it makes no intents
	decodes    bool // a decoder is there: requests may ask for images

	table     *table.Table
	registry  *registry // nil without one
	progress  *progress
	generator *generator // nil when samples is false
	pictures  *pictures  // nil without a decoder
	room      *outboxRoom
	pace      *pace
	overload  *overload
	door      *door
	metrics   *metrics
	log       *slog.Logger
}

// judge turns a record of the feedback topic into what the table folds: a
// feedback, a forget mark, or a dead letter with the reason. The trainer reads
// the same log through the same judge. f takes the feedback, so that a batch
// needs one allocation for all of its own. An error is ctx's, see
// [registry.content].
func judge(ctx context.Context, r consumer.Record, partitions int, reg *registry, f *schemas.Feedback) (table.Record, error) {
	out := table.Record{Offset: r.Offset, Time: r.Time, Key: r.Key, Value: r.Value, Headers: r.Headers, Fingerprint: r.Fingerprint()}
	out.Dead = misplaced(r, partitions)
	switch {
	case out.Dead != nil:
	case r.Value == nil:
		out.Forget = true
	default:
		content, err := reg.content(ctx, r)
		if err == nil {
			*f, err = content.Feedback(r.Key, r.Time)
		}
		if out.Dead, err = rejected(err); err != nil {
			return out, err
		}
		if out.Dead == nil {
			out.Feedback = f
		}
	}
	return out, nil
}

// rejected parts what is wrong with a record from the end of a context.
func rejected(err error) (*schemas.Rejection, error) {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return nil, err
	}
	return rejection(err), nil
}

// rejection returns the reason within a decoder's error; decoders give no other.
func rejection(err error) *schemas.Rejection {
	var r *schemas.Rejection
	if !errors.As(err, &r) {
		panic("rebeca: a decoder's error without a reason: " + err.Error())
	}
	return r
}

// misplaced rejects a key that would split a user: an empty one, or one in a
// partition that murmur2 does not give it.
func misplaced(r consumer.Record, partitions int) *schemas.Rejection {
	if len(r.Key) == 0 {
		return &schemas.Rejection{Reason: schemas.ReasonEmptyKey, Message: "the record has no key: set it to the user_id"}
	}
	if want := schemas.Partition(r.Key, partitions); want != r.Partition {
		return &schemas.Rejection{
			Reason:  schemas.ReasonWrongPartition,
			Message: fmt.Sprintf("the key belongs in partition %d of %d: produce with the murmur2 partitioner", want, partitions),
		}
	}
	return nil
}

// foldBatch is how many records a fold takes at once. A user's row is written
// once a batch, so large ones make a fold that is behind faster: of four
// partitions with 200,000 skewed users, 1,000 events are of 675 users and 16,000
// of 5,800. A fold that keeps up gets what has come and waits for no more.
const foldBatch = 1 << 14

// foldFeedback is the handler of a feedback partition.
func (w *worker) foldFeedback(partition int32) handler {
	var memory judged
	return func(ctx context.Context, records []consumer.Record, next int64) error {
		if err := w.room.wait(ctx, partition); err != nil {
			return err
		}
		if err := w.pace.wait(ctx, len(records)); err != nil {
			return err
		}
		b := table.Batch{Topic: w.topics.Feedback, Partition: partition, Next: next}
		shed := w.overload.sheds()
		if w.samples && !shed {
			b.IntentCount = w.generate.Count
		}
		var err error
		defer memory.clear()
		if b.Records, err = w.judge(ctx, records, &memory); err != nil {
			return err
		}
		b.FreshAfter = time.Now().Add(-w.generate.MaxAge) // now: the schema registry may have been waited for
		folded, err := w.table.Fold(b)
		if err != nil {
			return fmt.Errorf("folding %s[%d] up to %d: %w", w.topics.Feedback, partition, next, err)
		}
		w.metrics.folded(folded, records, time.Now())
		w.overload.count(folded, shed && w.generate.Count > 0)
		w.progress.set(partition, folded.Next)
		w.door.folded(b.Records)
		if w.pictures != nil {
			w.pictures.forget(b.Records)
		}
		if w.generator != nil {
			w.generator.offer(partition, folded.Intents, folded.Superseded)
		}
		return nil
	}
}

// judged is the memory of a batch, kept from one to the next.
type judged struct {
	records  []table.Record
	feedback []schemas.Feedback
}

// clear lets go of what the last batch refers to.
func (m *judged) clear() {
	clear(m.records)
	clear(m.feedback)
}

// judge turns records of the feedback topic into what the table folds. The
// result is valid until memory is cleared.
func (w *worker) judge(ctx context.Context, records []consumer.Record, memory *judged) ([]table.Record, error) {
	memory.records = slices.Grow(memory.records[:0], len(records))
	memory.feedback = slices.Grow(memory.feedback[:0], len(records))[:len(records)]
	for i, r := range records {
		j, err := judge(ctx, r, w.partitions, w.registry, &memory.feedback[i])
		if err != nil {
			return nil, err
		}
		j.Dead = again(r, j.Dead)
		if j.Dead != nil && !w.samples {
			continue // the worker of this partition sends the dead letter
		}
		memory.records = append(memory.records, j)
	}
	return memory.records, nil
}

// acceptRequests is the handler of a requests partition.
func (w *worker) acceptRequests(partition int32) handler {
	return func(ctx context.Context, records []consumer.Record, next int64) error {
		if err := w.room.wait(ctx, partition); err != nil {
			return err
		}
		if err := w.overload.wait(ctx); err != nil {
			return err
		}
		asked := make([]table.Asked, len(records))
		for i, r := range records {
			var err error
			if asked[i], err = w.judgeRequest(ctx, r); err != nil {
				return err
			}
			asked[i].Dead = again(r, asked[i].Dead)
			w.metrics.dead(asked[i].Dead)
		}
		intents, err := w.table.Accept(w.topics.Requests, partition, asked, next)
		if err != nil {
			return fmt.Errorf("accepting %s[%d] up to %d: %w", w.topics.Requests, partition, next, err)
		}
		w.generator.offer(partition, intents, nil)
		return nil
	}
}

func (w *worker) judgeRequest(ctx context.Context, r consumer.Record) (table.Asked, error) {
	a := table.Asked{Fingerprint: r.Fingerprint(), Offset: r.Offset, Time: r.Time, Key: r.Key, Value: r.Value, Headers: r.Headers}
	if a.Dead = misplaced(r, w.partitions); a.Dead != nil {
		return a, nil
	}
	var req schemas.Request
	content, err := w.registry.content(ctx, r)
	if err == nil {
		req, err = content.Request(r.Key)
	}
	if a.Dead, err = rejected(err); err != nil || a.Dead != nil {
		return a, err
	}
	if a.Dead = checkRequest(req, r.Partition, w.decodes); a.Dead == nil {
		a.Request = &req
	}
	return a, nil
}

// checkRequest rejects what this service cannot do for a well-formed request
// of a user in the given partition.
func checkRequest(req schemas.Request, partition int32, decodes bool) *schemas.Rejection {
	if req.Images != nil && *req.Images && !decodes {
		return &schemas.Rejection{Reason: schemas.ReasonNoDecoder, Message: "images are asked for and no decoder is configured"}
	}
	if req.After != nil && req.After.Partition != partition {
		return &schemas.Rejection{
			Reason:  schemas.ReasonBadAfter,
			Message: fmt.Sprintf("after.partition is %d, the user's own is %d", req.After.Partition, partition),
		}
	}
	return nil
}

func (w *worker) judgeItem(ctx context.Context, r consumer.Record) (table.Listed, error) {
	l := table.Listed{Fingerprint: r.Fingerprint(), Offset: r.Offset, Time: r.Time, Key: r.Key, Value: r.Value, Headers: r.Headers}
	if len(r.Key) == 0 {
		l.Dead = &schemas.Rejection{Reason: schemas.ReasonEmptyKey, Message: "the record has no key: set it to the item_id"}
		return l, nil
	}
	if len(r.Value) == 0 {
		l.Delete = true
		return l, nil
	}
	var item schemas.Item
	content, err := w.registry.content(ctx, r)
	if err == nil {
		item, err = content.Item(r.Key, w.dim)
	}
	if l.Dead, err = rejected(err); err != nil || l.Dead != nil {
		return l, err
	}
	l.Item = &item
	return l, nil
}

// handler adapts a function to [consumer.Handler].
type handler func(ctx context.Context, records []consumer.Record, next int64) error

func (h handler) Handle(ctx context.Context, records []consumer.Record, next int64) error {
	return h(ctx, records, next)
}

// progress is how far each feedback partition is folded; readers wait on it.
type progress struct {
	mu      sync.Mutex
	next    []int64       // guarded by mu
	changed chan struct{} // guarded by mu; closed and replaced at each change
}

func newProgress(partitions int) *progress {
	return &progress{next: make([]int64, partitions), changed: make(chan struct{})}
}

func (p *progress) set(partition int32, next int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next[partition] = next
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *progress) get(partition int32) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.next[partition]
}

// wait blocks until everything below next of the partition is folded.
func (p *progress) wait(ctx context.Context, partition int32, next int64) error {
	for {
		p.mu.Lock()
		at, changed := p.next[partition], p.changed
		p.mu.Unlock()
		if at >= next {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
