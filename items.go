package rebeca

import (
	"context"
	"fmt"
	"sync"

	"rebeca/consumer"
	"rebeca/table"
)

// catalogueReader keeps the whole catalogue in step with the items topic,
// whatever partitions this process owns. The dead letters of a partition of
// items are sent by the owner of that partition alone, from a position of their
// own, so that none is sent twice or forgotten when the owner changes.
type catalogueReader struct {
	mu     sync.Mutex
	loops  []*consumer.Partition // guarded by mu; by partition
	ends   []int64               // guarded by mu; the end that each heard of first, -1 before
	duties []duty                // guarded by mu; by partition
	read   bool                  // guarded by mu; all loops have reached those ends
}

// duty is whether this process sends the dead letters of a partition of items.
type duty struct {
	ours    bool
	changed chan struct{} // closed when that changes
}

func newCatalogueReader(partitions int) *catalogueReader {
	r := &catalogueReader{loops: make([]*consumer.Partition, partitions), ends: make([]int64, partitions), duties: make([]duty, partitions)}
	for p := range partitions {
		r.ends[p], r.duties[p].changed = -1, make(chan struct{})
	}
	return r
}

func (s *Service) setDuty(partition int32, ours bool) {
	r := s.items
	r.mu.Lock()
	defer r.mu.Unlock()
	if d := &r.duties[partition]; d.ours != ours {
		close(d.changed)
		*d = duty{ours, make(chan struct{})}
	}
}

func (r *catalogueReader) duty(partition int32) duty {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.duties[partition]
}

func (r *catalogueReader) set(partition int32, l *consumer.Partition) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.loops[partition] = l
}

// all returns the loops that have begun.
func (r *catalogueReader) all() []*consumer.Partition {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*consumer.Partition
	for _, l := range r.loops {
		if l != nil {
			out = append(out, l)
		}
	}
	return out
}

// catalogueRead reports whether the catalogue has been read to the end seen at
// the start. A partition that stopped is not waited for: it has its reason.
func (s *Service) catalogueRead() bool {
	r := s.items
	r.mu.Lock()
	defer r.mu.Unlock()
	for p, l := range r.loops {
		if r.read {
			return true
		}
		if l == nil {
			return false
		}
		if s.hasStopped(l) {
			continue
		}
		if end, at := l.End(); at.IsZero() {
			return false
		} else if r.ends[p] < 0 {
			r.ends[p] = end
		}
		if l.Position() < r.ends[p] {
			return false
		}
	}
	r.read = true
	return true
}

// readItems reads one partition of items until ctx ends.
func (s *Service) readItems(ctx context.Context, p int32) error {
	for ctx.Err() == nil {
		d := s.items.duty(p)
		loop, err := s.itemsLoop(p, d.ours)
		if err != nil {
			return err
		}
		s.items.set(p, loop)
		if err := s.readItemsUntil(ctx, loop, d.changed); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) readItemsUntil(ctx context.Context, loop *consumer.Partition, changed <-chan struct{}) error {
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() {
		select {
		case <-changed:
			cancel()
		case <-ctx.Done():
		}
	})
	return s.fetch(ctx, loop)
}

// itemsLoop reads from the catalogue's position, or, where this process sends
// the dead letters, from theirs when that is lower.
func (s *Service) itemsLoop(p int32, ours bool) (*consumer.Partition, error) {
	topic := s.config.Kafka.Topics.Items
	loop, err := s.loop(topic, p, nil)
	if err != nil {
		return nil, err
	}
	listed := max(loop.Start, 0)
	if ours && loop.Start != consumer.Earliest {
		buried, err := s.table.BuriedOffset(topic, p)
		if err != nil {
			return nil, fmt.Errorf("reading the offset of dead letters of %s[%d]: %w", topic, p, err)
		}
		if buried < loop.Start {
			if loop.Start = buried; buried == 0 {
				loop.Start = consumer.Earliest
			}
		}
	}
	loop.Handler = s.guard.before(s.worker.listItems(p, listed, ours))
	return loop, nil
}

// listItems is the handler of a partition of the catalogue; what lies below
// listed is in the catalogue already.
func (w *worker) listItems(partition int32, listed int64, ours bool) handler {
	return func(ctx context.Context, records []consumer.Record, next int64) error {
		if ours {
			if err := w.room.wait(ctx, partition); err != nil {
				return err
			}
		}
		var items, dead []table.Listed
		for _, r := range records {
			l, err := w.judgeItem(ctx, r)
			if err != nil {
				return err
			}
			l.Dead = again(r, l.Dead)
			switch {
			case l.Dead != nil:
				dead = append(dead, l)
			case r.Offset >= listed:
				items = append(items, l)
			}
		}
		if ours {
			var err error
			if dead, err = w.table.Bury(w.topics.Items, partition, dead, next); err != nil {
				return err
			}
		}
		for _, l := range dead {
			if ours || w.generator == nil { // a worker that serves leaves those of others to them
				w.metrics.dead(l.Dead)
			}
		}
		if next <= listed {
			return nil
		}
		if err := w.table.List(w.topics.Items, partition, items, next); err != nil {
			return fmt.Errorf("listing %s[%d] up to %d: %w", w.topics.Items, partition, next, err)
		}
		listed = next
		return nil
	}
}

// buries reports whether the state has the duty to send the dead letters of a
// partition of items.
func (w *worker) buries(partition int32) bool {
	_, held, err := w.table.ClaimOf(partition)
	return w.samples && held && err == nil
}
