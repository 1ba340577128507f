package rebeca

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"rebeca/consumer"
	"rebeca/schemas"
	"rebeca/table"
	"rebeca/web"
)

const (
	// feedCapacity bounds a gallery's subscription; what it cannot take is dropped.
	feedCapacity = 1024
)

// door adapts the service to what package web needs: it produces to the
// topics as any client does, and answers from what was folded and published.
type door struct {
	guard      *guard
	client     *consumer.Client
	topics     TopicConfig
	partitions int
	decodes    bool
	table      *table.Table
	rules      table.Rules
	progress   *progress
	pictures   *pictures // nil without a decoder
	hasPrior   func() bool
	answering  func(partition int32) error // nil where this process answers for the partition's users, else a *[web.Error]

	mu          sync.Mutex
	subscribers map[chan web.Event]struct{} // guarded by mu
	answers     answers                     // guarded by mu
}

// Feedback implements [web.Producer]: one produce call per partition. What was
// acknowledged before an error counts.
func (d *door) Feedback(ctx context.Context, records []schemas.Feedback) ([]schemas.Position, []error) {
	positions, errs := make([]schemas.Position, len(records)), make([]error, len(records))
	if low := d.guard.low(); low != nil {
		for i := range errs {
			errs[i] = low
		}
		return positions, errs
	}
	byPartition := map[int32][]int{}
	messages := make([]consumer.Message, len(records))
	for i, f := range records {
		value, err := f.Encode()
		if err != nil {
			errs[i] = fmt.Errorf("encoding feedback %q: %w", f.EventID, err)
			continue
		}
		messages[i] = consumer.Message{Key: []byte(f.UserID), Value: value, Time: time.Now()}
		p := schemas.Partition(messages[i].Key, d.partitions)
		byPartition[p] = append(byPartition[p], i)
	}
	var wg sync.WaitGroup
	for p, indices := range byPartition {
		wg.Go(func() {
			batch := make([]consumer.Message, len(indices))
			for k, i := range indices {
				batch[k] = messages[i]
			}
			offsets, err := d.client.ProduceEach(ctx, d.topics.Feedback, p, batch)
			for k, i := range indices {
				if k < len(offsets) {
					positions[i] = schemas.Position{Partition: p, Offset: offsets[k]}
				} else {
					errs[i] = err
				}
			}
		})
	}
	wg.Wait()
	return positions, errs
}

// Request implements [web.Producer].
func (d *door) Request(ctx context.Context, r schemas.Request) (schemas.Position, error) {
	if err := d.mayAsk(r.UserID); err != nil {
		return schemas.Position{}, err
	}
	if low := d.guard.low(); low != nil {
		return schemas.Position{}, low
	}
	if !d.hasPrior() {
		return schemas.Position{}, &web.Error{Code: web.CodeNoPrior, Message: "no version of the prior exists yet: it is announced after the first feedback"}
	}
	key := []byte(r.UserID)
	p := schemas.Partition(key, d.partitions)
	if rejection := checkRequest(r, p, d.decodes); rejection != nil {
		return schemas.Position{}, rejection
	}
	if a := r.After; a != nil && a.Offset >= d.progress.get(p) {
		// Asked now: what was acknowledged a moment ago lies behind any end heard before.
		_, end, err := d.client.Offsets(ctx, d.topics.Feedback, p)
		if err != nil {
			return schemas.Position{}, err
		}
		if a.Offset >= end {
			return schemas.Position{}, &schemas.Rejection{
				Reason:  schemas.ReasonBadAfter,
				Message: fmt.Sprintf("after.offset %d is beyond the end %d of partition %d", a.Offset, end, p),
			}
		}
	}
	d.expect(requestKey(r.UserID, r.RequestID))
	value, err := r.Encode()
	if err != nil {
		return schemas.Position{}, fmt.Errorf("encoding request %q: %w", r.RequestID, err)
	}
	offset, err := d.client.Produce(ctx, d.topics.Requests, p, []consumer.Message{{Key: key, Value: value, Time: time.Now()}})
	return schemas.Position{Partition: p, Offset: offset}, err
}

// mayAsk returns why nobody should ask this process about a user.
func (d *door) mayAsk(userID string) error {
	return d.answering(schemas.Partition([]byte(userID), d.partitions))
}

// Recall implements [web.Results] from the user's generated memory.
func (d *door) Recall(_ context.Context, userID, requestID string) ([]json.RawMessage, bool, error) {
	if err := d.mayAsk(userID); err != nil {
		return nil, false, err
	}
	memories, err := d.table.GeneratedOf(userID, math.MaxInt32)
	if err != nil {
		return nil, false, fmt.Errorf("reading what %q was given: %w", userID, err)
	}
	var out []json.RawMessage
	for _, m := range slices.Backward(memories) {
		var head struct {
			RequestID string `json:"request_id"`
		}
		if err := json.Unmarshal(m.Record, &head); err != nil {
			return nil, false, fmt.Errorf("reading generated record %s: %w", m.ID, err)
		}
		if head.RequestID == requestID {
			out = append(out, m.Record)
		}
	}
	return out, len(out) > 0, nil
}

// Reached implements [web.Results].
func (d *door) Reached(after schemas.Position) bool {
	return after.Partition >= 0 && int(after.Partition) < d.partitions && d.progress.get(after.Partition) > after.Offset
}

// User implements [web.Users].
func (d *door) User(_ context.Context, userID string) (web.User, bool, error) {
	if err := d.mayAsk(userID); err != nil {
		return web.User{}, false, err
	}
	row, ok, err := d.table.User(userID)
	if err != nil || !ok {
		return web.User{}, ok, err
	}
	u := web.User{UserID: row.UserID, Partition: row.Partition, Events: row.Events, Positives: row.Positives, Negatives: row.Negatives}
	for _, e := range slices.Backward(row.Window) {
		if e.Older {
			u.OlderLikes = append(u.OlderLikes, webEntry(e))
		} else {
			u.LastEvents = append(u.LastEvents, webEntry(e))
		}
	}
	v, ok, err := d.table.VectorOf(userID)
	if err != nil {
		return u, true, err
	}
	if ok {
		norm := vectorNorm(v.Values)
		u.VectorNorm, u.PriorVersion = &norm, v.PriorVersion
	}
	return u, true, nil
}

func webEntry(e table.Entry) web.Entry {
	return web.Entry{ItemID: e.ItemID, Kind: e.Kind, Class: e.Class.String(), Offset: e.Offset, OccurredAt: e.OccurredAt}
}

func vectorNorm(v []float32) float64 {
	var sum float64
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	return math.Sqrt(sum)
}

// Generated implements [web.Users].
func (d *door) Generated(_ context.Context, userID string, limit int) ([]json.RawMessage, error) {
	if err := d.mayAsk(userID); err != nil {
		return nil, err
	}
	memories, err := d.table.GeneratedOf(userID, limit)
	if err != nil {
		return nil, err
	}
	out := make([]json.RawMessage, len(memories))
	for i, m := range memories {
		out[i] = m.Record
	}
	return out, nil
}

// Subscribe implements [web.Feed].
func (d *door) Subscribe(ctx context.Context) <-chan web.Event {
	ch := make(chan web.Event, feedCapacity)
	d.mu.Lock()
	d.subscribers[ch] = struct{}{}
	d.mu.Unlock()
	context.AfterFunc(ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.subscribers, ch)
		close(ch)
	})
	return ch
}

// tell gives an event to every subscriber that has room; d.mu is held.
func (d *door) tell(e web.Event) {
	for ch := range d.subscribers {
		select {
		case ch <- e:
		default:
		}
	}
}

// maxTold is how many events of one batch the gallery is told: more is history, and nobody can watch it.
const maxTold = 64

// folded tells the gallery of a batch that the table holds now.
func (d *door) folded(records []table.Record) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.subscribers) == 0 {
		return
	}
	for _, r := range records[max(0, len(records)-maxTold):] {
		f := r.Feedback
		if f == nil {
			continue
		}
		d.tell(web.Event{UserID: f.UserID, Feedback: &web.Entry{
			ItemID: f.ItemID, Kind: f.Kind, Class: d.rules.Classes.Of(*f).String(), Offset: r.Offset, OccurredAt: f.OccurredAt,
		}})
	}
}

// published hands acknowledged records to whoever waits for them.
func (d *door) published(out []table.Outgoing) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range out {
		if m.Role != table.RoleGenerated {
			continue
		}
		var head struct {
			ID        string         `json:"id"`
			RequestID string         `json:"request_id"`
			Image     *schemas.Image `json:"image"`
		}
		if err := json.Unmarshal(m.Value, &head); err != nil {
			panic("rebeca: a published record is not JSON: " + err.Error())
		}
		user := string(m.Key)
		d.answers.add(requestKey(user, head.RequestID), head.ID, m.Value)
		d.tell(web.Event{UserID: user, Generated: m.Value})
		if d.pictures != nil {
			d.pictures.published(user, head.Image)
		}
	}
}
