package consumer

import (
	"context"
	"errors"
	"fmt"
	"sort"

	"github.com/segmentio/kafka-go"
)

// GapKind is why a log cannot be continued from an offset.
type GapKind string

const (
	GapLost      GapKind = "gap"          // records are gone: retention, deletion, a lost segment
	GapRecreated GapKind = "recreated"    // the log ends below the offset: truncated, or made anew and shorter
	GapOther     GapKind = "other record" // the record applied last is another one: the topic was made anew
	GapBegin     GapKind = "begin"        // a first start on a log that no longer begins at 0; never an error
)

// GapError says that the log does not hold what was to be read next. The partition stops unless [Partition.OnGap]
// accepts it; reading then goes on at First.
type GapError struct {
	Kind      GapKind
	Topic     string
	Partition int32
	Stored    int64 // the offset to continue from
	First     int64 // the first offset that the log holds; within the log, behind what is missing
	Last      int64 // the offset that the next record will get
}

// Error names the kind, the place, what is missing and what may be done.
func (e *GapError) Error() string {
	const remedy = "restore a snapshot, or accept it by kafka.on_gap: record"
	place := fmt.Sprintf("%s: %s[%d]: offset %d was to be read next", e.Kind, e.Topic, e.Partition, e.Stored)
	switch e.Kind {
	case GapRecreated:
		return fmt.Sprintf("%s and the log ends at %d: the topic was truncated or made anew; %s", place, e.Last, remedy)
	case GapOther:
		return fmt.Sprintf("%s and the record before it is not the one that was applied: the topic was made anew; %s", place, remedy)
	}
	return fmt.Sprintf("%s and the log goes on at %d: %d records are lost; %s", place, e.First, e.First-e.Stored, remedy)
}

// Applied is the record that was applied last, to be found again in the log.
type Applied struct {
	Offset      int64
	Fingerprint uint64 // [Record.Fingerprint]
}

// accept asks whether to go on behind a gap.
func (p *Partition) accept(gap *GapError) error {
	if p.OnGap == nil {
		return gap
	}
	return p.OnGap(gap)
}

// begin settles where Run reads from, gaps included.
func (p *Partition) begin(ctx context.Context) (int64, error) {
	offset, err := p.start(ctx)
	var gap *GapError
	switch {
	case errors.As(err, &gap):
	case err == nil && p.Start == Earliest && offset > 0 && p.OnGap != nil:
		last, _ := p.End()
		gap = &GapError{Kind: GapBegin, Topic: p.Topic, Partition: p.ID, First: offset, Last: last}
	default:
		return offset, err
	}
	if err := p.accept(gap); err != nil {
		return offset, err
	}
	p.setPosition(gap.First)
	return gap.First, nil
}

// compare reads the record applied last again. A GapError says that it is another one; where the log no longer holds
// it there is nothing to compare.
func (p *Partition) compare(ctx context.Context, first, last int64) error {
	other := &GapError{Kind: GapOther, Topic: p.Topic, Partition: p.ID, Stored: p.Start, First: first, Last: last}
	if p.Applied == nil || p.Start < 0 || p.Applied.Offset < first {
		return nil
	}
	at := p.Applied.Offset
	for range emptyLimit {
		f, err := p.Client.fetch(ctx, p.Topic, p.ID, at, 1, p.MaxWait, 1)
		switch {
		case errors.Is(err, kafka.OffsetOutOfRange): // it went meanwhile
			return nil
		case err != nil:
			return p.Client.explain(err)
		case len(f.records) > 0 && f.records[0].Offset == at:
			if f.records[0].Fingerprint() == p.Applied.Fingerprint {
				return nil
			}
			return other
		case f.next > at || f.seen: // a marker, an aborted record, or compacted away
			if p.Dense {
				return other
			}
			return nil
		case at >= f.stable:
			// It was committed, and an open transaction lies before it now: another log, or a broker that lags behind itself.
			return fmt.Errorf("reading %s[%d] again at %d: the broker shows the log up to %d only", p.Topic, p.ID, at, f.stable)
		}
	}
	if p.Dense {
		return other
	}
	return nil
}

// hole is a range of offsets that a log leaves out.
type hole struct{ from, to int64 }

// passFetched hands on what came. In a dense log what is missing goes along as a gap, in its place.
func (p *Partition) passFetched(ctx context.Context, f *fetched, ahead chan<- batch) error {
	records := f.records
	if !p.Dense {
		return p.pass(ctx, records, f.next, ahead)
	}
	for _, h := range f.holes {
		n := sort.Search(len(records), func(i int) bool { return records[i].Offset >= h.from })
		if err := p.pass(ctx, records[:n:n], h.from, ahead); err != nil {
			return err
		}
		if err := p.send(ctx, batch{gap: p.hole(h, f.end)}, ahead); err != nil {
			return err
		}
		records = records[n:]
	}
	return p.pass(ctx, records, f.next, ahead)
}

func (p *Partition) hole(h hole, end int64) *GapError {
	return &GapError{Kind: GapLost, Topic: p.Topic, Partition: p.ID, Stored: h.from, First: h.to, Last: end}
}
