package rebeca

import (
	"context"
	"errors"
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
		if err := s.readItemsWith(ctx, p, s.items.duty(p)); err != nil {
			return err
		}
	}
	return nil
}

// readItemsWith reads from the catalogue's position until the duty changes or
// ctx ends.
func (s *Service) readItemsWith(ctx context.Context, p int32, d duty) error {
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() {
		select {
		case <-d.changed:
			cancel()
		case <-ctx.Done():
		}
	})
	if d.ours {
		if err := s.worker.buryBehind(ctx, s.client, p, s.guard.before); err != nil {
			return orEnded(ctx, err)
		}
	}
	loop, err := s.loop(s.config.Kafka.Topics.Items, p, s.worker.listItems(p, d.ours))
	if err != nil {
		return err
	}
	s.items.set(p, loop)
	return s.fetch(ctx, loop)
}

// listItems is the handler of a partition of the catalogue.
func (w *worker) listItems(partition int32, ours bool) handler {
	return func(ctx context.Context, records []consumer.Record, next int64) error {
		if ours {
			if err := w.room.wait(ctx, partition); err != nil {
				return err
			}
		}
		items, dead, err := w.judgeItems(ctx, records)
		if err != nil {
			return err
		}
		if ours {
			if dead, err = w.table.Bury(w.topics.Items, partition, dead, next); err != nil {
				return err
			}
		}
		if ours || w.generator == nil { // a worker that serves leaves those of others to them
			w.countDead(dead)
		}
		if err := w.table.List(w.topics.Items, partition, items, next); err != nil {
			return fmt.Errorf("listing %s[%d] up to %d: %w", w.topics.Items, partition, next, err)
		}
		return nil
	}
}

// judgeItems parts records into items and dead letters.
func (w *worker) judgeItems(ctx context.Context, records []consumer.Record) (items, dead []table.Listed, err error) {
	for _, r := range records {
		l, err := w.judgeItem(ctx, r)
		if err != nil {
			return nil, nil, err
		}
		if l.Dead = again(r, l.Dead); l.Dead != nil {
			dead = append(dead, l)
		} else {
			items = append(items, l)
		}
	}
	return items, dead, nil
}

func (w *worker) countDead(dead []table.Listed) {
	for _, l := range dead {
		w.metrics.dead(l.Dead)
	}
}

// buryBehind sends the dead letters of a partition of items that lie below the
// catalogue's position and were not sent: what was listed while the partition
// was somebody else's, or nobody's. It moves their position alone. A log that
// was made anew it leaves to the loop that goes on from the catalogue's position, which
// finds it by itself. guarded wraps the handler; nil for none.
func (w *worker) buryBehind(ctx context.Context, client *consumer.Client, p int32, guarded func(consumer.Handler) consumer.Handler) error {
	topic := w.topics.Items
	for {
		listed, _, _, err := w.table.Offset(topic, p)
		if err != nil {
			return fmt.Errorf("reading the offset of %s[%d]: %w", topic, p, err)
		}
		buried, err := w.table.BuriedOffset(topic, p)
		if err != nil {
			return fmt.Errorf("reading the offset of dead letters of %s[%d]: %w", topic, p, err)
		}
		if buried >= listed {
			return nil
		}
		first, end, err := bounds(ctx, client, topic, p, w.log)
		if err != nil || end < listed {
			return err
		}
		if buried < first {
			w.log.Info("the beginning of the items is gone; so are dead letters that were not sent", "partition", p, "from", buried, "to", first)
			if _, err := w.table.Bury(topic, p, nil, min(first, listed)); err != nil {
				return err
			}
			continue
		}
		err = w.buryFrom(ctx, client, p, buried, listed, guarded)
		var gap *consumer.GapError
		switch {
		case err == nil, !errors.As(err, &gap):
			return err
		case gap.Kind != consumer.GapLost:
			return nil
		}
	}
}

// buryFrom reads a range of items for its dead letters.
func (w *worker) buryFrom(ctx context.Context, client *consumer.Client, p int32, from, to int64, guarded func(consumer.Handler) consumer.Handler) error {
	loop := consumer.Partition{Client: client, Topic: w.topics.Items, ID: p, Start: from, Logger: w.log}
	offset, fingerprint, ok, err := w.table.Last(loop.Topic, p)
	if err != nil {
		return fmt.Errorf("reading the last record of %s[%d]: %w", loop.Topic, p, err)
	}
	if ok {
		loop.Applied = &consumer.Applied{Offset: offset, Fingerprint: fingerprint}
	}
	loop.Handler = handler(func(ctx context.Context, records []consumer.Record, next int64) error {
		if err := w.room.wait(ctx, p); err != nil {
			return err
		}
		_, dead, err := w.judgeItems(ctx, records)
		if err != nil {
			return err
		}
		sent, err := w.table.Bury(loop.Topic, p, dead, next)
		w.countDead(sent)
		return err
	})
	if guarded != nil {
		loop.Handler = guarded(loop.Handler)
	}
	return loop.RunTo(ctx, to)
}

// buries reports whether the state has the duty to send the dead letters of a
// partition of items.
func (w *worker) buries(partition int32) (bool, error) {
	_, held, err := w.table.ClaimOf(partition)
	return w.samples && held, err
}
