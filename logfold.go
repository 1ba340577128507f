package rebeca

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"rebeca/consumer"
	"rebeca/table"
)

// logFold folds parts of the log into a state that nobody serves, for a replay
// or a promotion. Continuity is checked as the service checks it.
type logFold struct {
	config KafkaConfig
	client *consumer.Client
	table  *table.Table
	passed *atomic.Int64 // offsets, over all spans
	log    *slog.Logger
}

// span hands the rest of a span to a handler; the table's offset, which moves
// with what is folded, says where the rest begins. What the log lacks within it is a
// [consumer.GapError], unless kafka.on_gap records it.
func (f *logFold) span(ctx context.Context, topic string, s Span, h handler) error {
	at, _, ok, err := f.table.Offset(topic, s.Partition)
	if err != nil {
		return err
	}
	if !ok {
		// Written down even if nothing follows: the state is at this offset.
		if at = s.From; at > 0 {
			if err := h(ctx, nil, at); err != nil {
				return err
			}
		}
	}
	if at >= s.To {
		return nil
	}
	p := consumer.Partition{
		Client: f.client, Topic: topic, ID: s.Partition, Start: at, Logger: f.log, OnGap: f.onGap,
		MaxBatch: foldBatch, MaxBytes: newPace(0).bytes(int(f.table.Partitions())),
		Dense: topic != f.config.Topics.Items, // which is compacted
	}
	if offset, fingerprint, ok, err := f.table.Last(topic, s.Partition); err != nil {
		return err
	} else if ok {
		p.Applied = &consumer.Applied{Offset: offset, Fingerprint: fingerprint}
	}
	p.Handler = handler(func(ctx context.Context, records []consumer.Record, next int64) error {
		if err := h(ctx, records, next); err != nil {
			return err
		}
		f.passed.Add(next - at)
		at = next
		return nil
	})
	return p.RunTo(ctx, s.To)
}

// onGap decides by the configuration, as the service does, but that another log
// is never folded behind the one that the state is of.
func (f *logFold) onGap(g *consumer.GapError) error {
	compacted := g.Topic == f.config.Topics.Items
	switch {
	case g.Kind == consumer.GapRecreated || g.Kind == consumer.GapOther:
		return fmt.Errorf("a state that is replayed or promoted is of one log, and this is another: %w", g)
	case !compacted && f.config.OnGap != OnGapRecord:
		return g
	}
	f.log.Warn("the log does not hold what was to be folded next; going on", "topic", g.Topic, "partition", g.Partition, "from", g.Stored, "to", g.First)
	return f.table.Skip(g.Topic, g.Partition, table.Gap{Kind: string(g.Kind), From: g.Stored, To: g.First, At: time.Now()})
}
