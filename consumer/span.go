package consumer

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/segmentio/kafka-go"
)

// RunTo is [Partition.Run] with an end: it returns nil once everything below the offset to has been handled, and ctx's error when ctx ends
// before. The handler sees no record at or above to, and no next above it; OnGap hears of what is missing below it only. An end beyond the
// log's is waited for; one within an open transaction, until that ends.
func (p *Partition) RunTo(ctx context.Context, to int64) error {
	p.setDefaults()
	within, reached := context.WithCancel(ctx)
	defer reached()
	s := span{to: to, inner: p.Handler, onGap: p.OnGap, reached: reached}
	p.Handler = &s
	if s.onGap != nil {
		p.OnGap = s.gap
	}
	defer func() { p.Handler, p.OnGap = s.inner, s.onGap }()
	at, err := p.begin(ctx)
	if err != nil || at >= to {
		return err
	}
	if err := p.runFrom(within, at); err != nil || s.done {
		return err
	}
	return ctx.Err()
}

// span hands on what lies below an offset.
type span struct {
	to      int64
	inner   Handler
	onGap   func(*GapError) error
	reached context.CancelFunc
	done    bool
}

// gap is OnGap within the span.
func (s *span) gap(g *GapError) error {
	if s.done {
		return nil
	}
	within := *g
	within.First = min(g.First, s.to)
	if err := s.onGap(&within); err != nil {
		return err
	}
	s.end(within.First)
	return nil
}

// end stops the reading where the span is passed.
func (s *span) end(next int64) {
	if s.done = next >= s.to; s.done {
		s.reached()
	}
}

// Handle implements [Handler].
func (s *span) Handle(ctx context.Context, records []Record, next int64) error {
	if s.done {
		return nil // one more batch was under way
	}
	n := sort.Search(len(records), func(i int) bool { return records[i].Offset >= s.to })
	if err := s.inner.Handle(ctx, records[:n], min(next, s.to)); err != nil {
		return err
	}
	s.end(next)
	return nil
}

// OffsetAt returns the offset of the first record of a partition whose timestamp, the producer's, is not before at; the log's end when
// there is none.
func (c *Client) OffsetAt(ctx context.Context, topic string, partition int32, at time.Time) (int64, error) {
	resp, err := c.kafka.ListOffsets(ctx, &kafka.ListOffsetsRequest{
		Topics: map[string][]kafka.OffsetRequest{topic: {kafka.TimeOffsetOf(int(partition), at)}},
	})
	if err == nil {
		for _, p := range resp.Topics[topic] {
			if err = p.Error; err != nil {
				break
			}
			for offset := range p.Offsets {
				if offset >= 0 {
					return offset, nil
				}
			}
			_, end, err := c.Offsets(ctx, topic, partition) // "no such record" comes as -1
			return end, err
		}
		if err == nil {
			err = errors.New("the broker's answer leaves the partition out")
		}
	}
	c.refresh(false)
	return 0, fmt.Errorf("finding the offset of %s[%d] at %s: %w", topic, partition, at.UTC().Format(time.RFC3339), c.explain(err))
}
