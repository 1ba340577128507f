package rebeca

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"rebeca/consumer"
)

// Bound is an end of a part of the log: earliest, latest, an offset for each
// partition, or a time.
type Bound struct {
	text    string
	offsets map[int32]int64 // nil for the other forms
	at      time.Time       // zero for the other forms
}

// Forms of a bound that are one word.
const (
	boundEarliest = "earliest"
	boundLatest   = "latest"
)

// ParseBound reads `earliest`, `latest`, offsets such as `0:120,1:88`
// (partitions left out are taken whole), a time as RFC 3339, or a duration back
// from now such as `36h`. A time stands for the first record whose Kafka
// timestamp, which the producer set, is not before it; one past the end for the
// end.
func ParseBound(text string, now time.Time) (Bound, error) {
	b := Bound{text: text}
	if text == boundEarliest || text == boundLatest {
		return b, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		b.at = at
		return b, nil
	}
	if back, err := time.ParseDuration(text); err == nil {
		if back < 0 {
			return b, fmt.Errorf("%q lies in the future: a duration counts back from now", text)
		}
		b.at = now.Add(-back)
		return b, nil
	}
	b.offsets = map[int32]int64{}
	for part := range strings.SplitSeq(text, ",") {
		p, o, ok := strings.Cut(part, ":")
		partition, perr := strconv.ParseInt(p, 10, 32)
		offset, oerr := strconv.ParseInt(o, 10, 64)
		if !ok || perr != nil || oerr != nil || partition < 0 || offset < 0 {
			return b, fmt.Errorf("%q is not earliest, latest, offsets such as 0:120,1:88, a time such as 2026-05-01T00:00:00Z, or a duration back such as 36h", text)
		}
		if _, twice := b.offsets[int32(partition)]; twice {
			return b, fmt.Errorf("%q names partition %d twice", text, partition)
		}
		b.offsets[int32(partition)] = offset
	}
	return b, nil
}

func (b Bound) String() string { return b.text }

// extent is the part of a partition's log that is there.
type extent struct{ first, end int64 }

// extents asks for all partitions of a topic.
func extents(ctx context.Context, client *consumer.Client, topic string, partitions int) (out []extent, err error) {
	for p := range int32(partitions) {
		var e extent
		if e.first, e.end, err = client.Offsets(ctx, topic, p); err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// resolve returns the bound's offset in each partition; open is what an
// offset's list leaves out.
func (b Bound) resolve(ctx context.Context, client *consumer.Client, topic string, there []extent, open func(extent) int64) ([]int64, error) {
	for p := range b.offsets {
		if int(p) >= len(there) {
			return nil, fmt.Errorf("%s has no partition %d: they are 0 to %d", topic, p, len(there)-1)
		}
	}
	out := make([]int64, len(there))
	for p, e := range there {
		offset, named := b.offsets[int32(p)]
		switch {
		case b.text == boundEarliest:
			out[p] = e.first
		case b.text == boundLatest:
			out[p] = e.end
		case !b.at.IsZero():
			at, err := client.OffsetAt(ctx, topic, int32(p), b.at)
			if err != nil {
				return nil, err
			}
			out[p] = min(max(at, e.first), e.end)
		case !named:
			out[p] = open(e)
		case offset < e.first || offset > e.end:
			return nil, fmt.Errorf("%s[%d] holds offsets %d to %d, not %d", topic, p, e.first, e.end, offset)
		default:
			out[p] = offset
		}
	}
	return out, nil
}

// Span is a part of one partition: From is read, To is not.
type Span struct {
	Partition int32 `json:"partition"`
	From      int64 `json:"from"`
	To        int64 `json:"to"`
}

// spans resolves both ends in the feedback topic.
func spans(ctx context.Context, client *consumer.Client, topic string, partitions int, from, to Bound) ([]Span, error) {
	there, err := extents(ctx, client, topic, partitions)
	if err != nil {
		return nil, err
	}
	begin, err := from.resolve(ctx, client, topic, there, func(e extent) int64 { return e.first })
	if err != nil {
		return nil, fmt.Errorf("--from: %w", err)
	}
	end, err := to.resolve(ctx, client, topic, there, func(e extent) int64 { return e.end })
	if err != nil {
		return nil, fmt.Errorf("--to: %w", err)
	}
	out := make([]Span, partitions)
	for p := range out {
		if begin[p] > end[p] {
			return nil, fmt.Errorf("--from lies behind --to in %s[%d]: offset %d and %d", topic, p, begin[p], end[p])
		}
		out[p] = Span{Partition: int32(p), From: begin[p], To: end[p]}
	}
	return out, nil
}

// length counts the offsets of spans.
func length(spans []Span) (n int64) {
	for _, s := range spans {
		n += s.To - s.From
	}
	return n
}
