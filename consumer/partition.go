package consumer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"
)

// Places to start from when there is no stored offset.
const (
	Earliest int64 = -2 // the first record that the log still holds
	Latest   int64 = -1 // the next record to come
)

const (
	defaultMaxBatch = 1000
	defaultMaxWait  = 100 * time.Millisecond
	defaultMaxBytes = 1 << 20

	// endEvery is how old the known end of the log may get while the handler holds up the fetches.
	endEvery = 150 * time.Millisecond
	// emptyLimit is how many answers in a row may hold nothing although the log goes on.
	emptyLimit = 10

	backoffMin = 100 * time.Millisecond
	backoffMax = 2 * time.Second
)

// Partition reads one partition into a handler. Set the exported fields, then Run it once.
type Partition struct {
	Client   *Client
	Topic    string
	ID       int32
	Start    int64         // offset of the first record to read, Earliest or Latest
	MaxBatch int           // records in one call of Handle; 0 means 1000
	MaxWait  time.Duration // of an idle fetch and so of the end of Run; 0 means 100 ms
	MaxBytes int           // of one fetch and one call of Handle; larger records come alone; 0 means 1 MiB
	Handler  Handler
	Logger   *slog.Logger // nil discards

	// Dense says that the topic is not compacted: an offset of which the log holds nothing, no marker and no aborted
	// record either, is a gap.
	Dense bool
	// Applied is the record that was applied last, below Start; nil compares nothing.
	Applied *Applied
	// OnGap decides about a gap: nil accepts it, and reading goes on at its First; an error ends Run with it. It is
	// called before the first record and, from the handler's goroutine, where the gap lies. It also hears of GapBegin.
	// Without it every gap but GapBegin ends Run.
	OnGap func(*GapError) error

	mu       sync.Mutex
	position int64     // guarded by mu; next offset to be handled
	end      int64     // guarded by mu
	endAt    time.Time // guarded by mu
	lost     error     // guarded by mu; why the broker cannot be read, nil while it can
}

// batch is one call of Handle.
type batch struct {
	records []Record
	next    int64
	gap     *GapError // in place of the rest
}

// Run reads until ctx ends, which returns nil, or the handler fails, which returns its error, or the log does not hold
// the offset to continue from and OnGap does not accept that, which returns a [*GapError]. A broker that is away is waited for. Handle is not called
// after Run returned; a call under way when ctx ends is waited for.
func (p *Partition) Run(ctx context.Context) error {
	p.setDefaults()
	offset, err := p.begin(ctx)
	if err != nil {
		return orEnded(ctx, err)
	}
	return p.runFrom(ctx, offset)
}

// runFrom is Run once it is settled where it begins.
func (p *Partition) runFrom(ctx context.Context, offset int64) error {
	group, ctx := errgroup.WithContext(ctx)
	ahead := make(chan batch, 1) // one batch is fetched while another is handled
	group.Go(func() error { return p.fetchLoop(ctx, offset, ahead) })
	group.Go(func() error { return p.handleLoop(ctx, ahead) })
	return group.Wait()
}

func (p *Partition) setDefaults() {
	if p.MaxBatch <= 0 {
		p.MaxBatch = defaultMaxBatch
	}
	if p.MaxWait <= 0 {
		p.MaxWait = defaultMaxWait
	}
	if p.MaxBytes <= 0 {
		p.MaxBytes = defaultMaxBytes
	}
	if p.Logger == nil {
		p.Logger = slog.New(slog.DiscardHandler)
	}
}

// orEnded turns the errors that the end of ctx causes into nil.
func orEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return nil
	}
	return err
}

// End returns the offset that the partition's next record will get and when a broker said so; the time is zero before
// the first answer. While Run runs and the broker answers, it is at most 200 ms old.
func (p *Partition) End() (logEnd int64, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.end, p.endAt
}

// Position returns the offset after the last one that was handled; before, the offset that Run starts from, and 0
// before that is known.
func (p *Partition) Position() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.position
}

// Connected reports whether the last request to the broker succeeded, and the error if not.
func (p *Partition) Connected() (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.endAt.IsZero() && p.lost == nil {
		return false, errors.New("not asked yet")
	}
	return p.lost == nil, p.lost
}

func (p *Partition) setEnd(end int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end, p.endAt = end, time.Now()
}

func (p *Partition) setPosition(next int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.position = next
}

// heard notes how the last request went and logs only what changed.
func (p *Partition) heard(err error) {
	p.mu.Lock()
	changed := (err == nil) != (p.lost == nil)
	p.lost = err
	p.mu.Unlock()
	switch {
	case !changed:
	case err != nil:
		p.Logger.Warn("partition cannot be read; trying again", "topic", p.Topic, "partition", p.ID, "err", err)
	default:
		p.Logger.Info("partition is read again", "topic", p.Topic, "partition", p.ID)
	}
}

// start asks for the log's bounds until a broker answers and resolves Start within them.
func (p *Partition) start(ctx context.Context) (int64, error) {
	for wait := backoffMin; ; wait = min(2*wait, backoffMax) {
		offset, err := p.resolve(ctx, p.Start, true)
		var gap *GapError
		if err == nil || errors.As(err, &gap) {
			p.setPosition(offset)
			return offset, err
		}
		if err := p.retreat(ctx, err, wait); err != nil {
			return 0, err
		}
	}
}

// resolve returns the offset to read from, or a GapError when the log does not hold it or, where check is set, not the
// record applied last.
func (p *Partition) resolve(ctx context.Context, offset int64, check bool) (int64, error) {
	first, last, err := p.Client.Offsets(ctx, p.Topic, p.ID)
	if err != nil {
		return 0, err
	}
	p.heard(nil)
	p.setEnd(last)
	switch {
	case offset == Earliest:
		return first, nil
	case offset == Latest:
		return last, nil
	case offset < first:
		return offset, &GapError{Kind: GapLost, Topic: p.Topic, Partition: p.ID, Stored: offset, First: first, Last: last}
	case offset > last:
		return offset, &GapError{Kind: GapRecreated, Topic: p.Topic, Partition: p.ID, Stored: offset, First: first, Last: last}
	}
	if check {
		return offset, p.compare(ctx, first, last)
	}
	return offset, nil
}

// retreat notes a failed request and waits before the next.
func (p *Partition) retreat(ctx context.Context, err error, wait time.Duration) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	p.heard(err)
	p.Client.refresh(false)
	return sleep(ctx, wait)
}

func (p *Partition) fetchLoop(ctx context.Context, offset int64, ahead chan<- batch) error {
	wait, empty, expect := backoffMin, 0, 0
	appetite := newAppetite(p.MaxBytes)
	for {
		asked := time.Now()
		f, err := p.Client.fetch(ctx, p.Topic, p.ID, offset, appetite.ask, p.MaxWait, expect)
		switch {
		case errors.Is(err, kafka.OffsetOutOfRange):
			// The bounds say whether it is a gap; a broker that lags behind itself is asked again.
			if _, err = p.resolve(ctx, offset, false); err == nil {
				err = kafka.OffsetOutOfRange
			}
			var gap *GapError
			if errors.As(err, &gap) {
				if err := p.send(ctx, batch{gap: gap}, ahead); err != nil {
					return orEnded(ctx, err)
				}
				offset = gap.First // unless it is refused, which ends ctx
				continue
			}
			fallthrough
		case err != nil:
			if err := p.retreat(ctx, p.Client.explain(err), wait); err != nil {
				return orEnded(ctx, err)
			}
			wait = min(2*wait, backoffMax)
			continue
		}
		wait = backoffMin
		p.heard(nil)
		p.setEnd(f.end)
		appetite.ate(f.memory, f.next < f.stable)
		next := f.next
		if next == offset && offset < f.stable {
			if next, empty = p.pastNothing(f, offset, empty); next == offset {
				// Not at once again: an answer that should have waited did not.
				if err := sleep(ctx, min(p.MaxWait-time.Since(asked), 10*time.Millisecond)); err != nil {
					return nil
				}
				continue
			}
			f.holes = append(f.holes, hole{offset, next})
		}
		if next == offset {
			continue
		}
		empty, expect = 0, len(f.records)
		f.next = next
		if err := p.passFetched(ctx, &f, ahead); err != nil {
			return orEnded(ctx, err)
		}
		offset = next
	}
}

// pastNothing decides where to go on when the log goes on and an answer brought nothing new. If batches came, the rest
// of the last one was compacted away (kafka-go hides how far it reaches): one step leads on or to the next batch. If
// none came, again and again and not for a quota's sake, there are none up to the stable end.
func (p *Partition) pastNothing(f fetched, offset int64, empty int) (next int64, emptyNow int) {
	switch {
	case f.seen:
		return offset + 1, 0
	case f.throttled || empty+1 < emptyLimit:
		return offset, empty + 1
	}
	p.Logger.Warn("the log holds no records in a range; passing it", "topic", p.Topic, "partition", p.ID, "from", offset, "to", f.stable)
	return f.stable, 0
}

// pass cuts what was fetched into batches for the handler.
func (p *Partition) pass(ctx context.Context, records []Record, next int64, ahead chan<- batch) error {
	for len(records) > 0 {
		n, bytes := 0, 0
		for n < len(records) && n < p.MaxBatch {
			size := len(records[n].Key) + len(records[n].Value)
			if n > 0 && bytes+size > p.MaxBytes {
				break
			}
			bytes += size
			n++
		}
		b := batch{records: records[:n:n], next: next}
		if records = records[n:]; len(records) > 0 {
			b.next = records[0].Offset
		} else {
			return p.send(ctx, b, ahead)
		}
		if err := p.send(ctx, b, ahead); err != nil {
			return err
		}
	}
	return p.send(ctx, batch{next: next}, ahead)
}

// send waits for the handler and keeps the known end of the log fresh meanwhile.
func (p *Partition) send(ctx context.Context, b batch, ahead chan<- batch) error {
	for {
		timer := time.NewTimer(endEvery)
		select {
		case ahead <- b:
			timer.Stop()
			return nil
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
		if end, err := p.Client.end(ctx, p.Topic, p.ID); err == nil {
			p.setEnd(end)
		}
	}
}

func (p *Partition) handleLoop(ctx context.Context, ahead <-chan batch) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case b := <-ahead:
			if b.gap != nil {
				if err := p.accept(b.gap); err != nil {
					return err
				}
				p.setPosition(b.gap.First)
				continue
			}
			if err := p.Handler.Handle(ctx, b.records, b.next); err != nil {
				return orEnded(ctx, fmt.Errorf("handling %s[%d] up to %d: %w", p.Topic, p.ID, b.next, err))
			}
			p.setPosition(b.next)
		}
	}
}

// sleep waits and returns ctx's error if it ends first.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
