package consumer

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"rebeca/internal/broker"
)

// follow reads until the end of the log with OnGap accepting, and returns what was accepted.
func follow(t *testing.T, p *Partition, end int64) (gaps []GapError) {
	t.Helper()
	p.OnGap = func(g *GapError) error { gaps = append(gaps, *g); return nil }
	stop := run(t, p)
	eventually(t, "the end", func() bool { e, _ := p.End(); return e == end && p.Position() == end })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	return gaps
}

// A topic that was made anew and has grown beyond the stored offset is known by the record applied last.
func TestOtherRecordIsKnownByItsFingerprint(t *testing.T) {
	b, c := setup(t, "feedback", 1)
	produce(t, c, "feedback", 0, values(0, 5)...)
	s := &sink{}
	follow(t, &Partition{Client: c, Topic: "feedback", Start: 0, Handler: s}, 5)
	applied := &Applied{Offset: 4, Fingerprint: s.all()[4].Fingerprint()}
	from := func(start int64) *Partition {
		return &Partition{Client: c, Topic: "feedback", Start: start, Dense: true, Applied: applied, Handler: &sink{}}
	}
	if gaps := follow(t, from(5), 5); len(gaps) != 0 {
		t.Fatalf("the same log has gaps %v", gaps)
	}
	if err := b.Cluster().DeleteTopic("feedback"); err != nil {
		t.Fatal(err)
	}
	if err := b.Cluster().CreateTopic("feedback", 1, nil); err != nil {
		t.Fatal(err)
	}
	c.refresh(true)
	produce(t, c, "feedback", 0, values(100, 103)...) // shorter
	var gap *GapError
	if err := result(t, from(5)); !errors.As(err, &gap) || gap.Kind != GapRecreated {
		t.Fatalf("a shorter log: %v", err)
	}
	produce(t, c, "feedback", 0, values(103, 110)...) // longer
	if err := result(t, from(5)); !errors.As(err, &gap) || gap.Kind != GapOther {
		t.Fatalf("a longer log: %v", err)
	}
	p := from(5)
	if gaps := follow(t, p, 10); len(gaps) != 1 || gaps[0] != (GapError{GapOther, "feedback", 0, 5, 0, 10}) {
		t.Errorf("gaps %v", gaps)
	}
	if n := len(p.Handler.(*sink).all()); n != 10 {
		t.Errorf("%d records behind the gap, want all 10", n)
	}
}

// What is compacted away at the end cannot be compared, and is no gap where the topic is compacted.
func TestAcceptedGapsAreInTheirPlace(t *testing.T) {
	b, c := setup(t, "other", 1)
	if err := b.Cluster().CreateTopic("items", 1, map[string]string{"cleanup.policy": "compact"}); err != nil {
		t.Fatal(err)
	}
	produce(t, c, "items", 0, Message{Key: []byte("kept"), Value: []byte("v")})
	for range 3 { // of these six the first four go
		produce(t, c, "items", 0, Message{Key: []byte("a"), Value: []byte("v")}, Message{Key: []byte("b"), Value: []byte("v")})
	}
	produce(t, c, "items", 0, Message{Key: []byte("c"), Value: []byte("v")})
	b.Cluster().Compact()
	_, end, err := c.Offsets(within(t), "items", 0)
	if err != nil {
		t.Fatal(err)
	}
	sparse := &Partition{Client: c, Topic: "items", Start: 2, Applied: &Applied{Offset: 1}, Handler: &sink{}}
	if gaps := follow(t, sparse, end); len(gaps) != 0 {
		t.Errorf("a compacted topic has gaps %v", gaps)
	}
	dense := &Partition{Client: c, Topic: "items", Start: 0, Dense: true, Handler: &sink{}}
	gaps := follow(t, dense, end)
	kept := dense.Handler.(*sink).all()
	next := int64(0) // gaps and records cover the log without overlap
	at := func() int64 {
		if i := slices.IndexFunc(gaps, func(g GapError) bool { return g.Stored == next }); i >= 0 {
			return gaps[i].First
		}
		if slices.ContainsFunc(kept, func(r Record) bool { return r.Offset == next }) {
			return next + 1
		}
		t.Fatalf("offset %d is neither a record nor in a gap: %v", next, gaps)
		return end
	}
	for next < end {
		next = at()
	}
	if len(gaps) == 0 {
		t.Error("nothing was missing")
	}
	var gap *GapError
	if err := result(t, &Partition{Client: c, Topic: "items", Start: 0, Dense: true, Handler: &sink{}}); !errors.As(err, &gap) || gap.Kind != GapLost {
		t.Errorf("a hole that nobody accepts: %v", err)
	}
}

// abortBetween writes a record, an aborted transaction and a record, and returns the first one's fingerprint.
func abortBetween(t *testing.T, b *broker.Broker, c *Client) uint64 {
	t.Helper()
	first := Message{Key: []byte("key"), Value: []byte("first"), Time: time.UnixMilli(1000)}
	produce(t, c, "feedback", 0, first)
	tx := oracle(t, b, kgo.TransactionalID("tx"))
	if err := tx.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := tx.ProduceSync(within(t), &kgo.Record{Topic: "feedback", Value: []byte("aborted")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := tx.EndTransaction(within(t), kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
	produce(t, c, "feedback", 0, Message{Value: []byte("last")})
	return Record{Key: first.Key, Value: first.Value, Time: first.Time}.Fingerprint()
}

// Transaction markers and aborted records are present: no gap, and nothing to compare wrongly.
func TestMarkersAreNoGap(t *testing.T) {
	b, c := setup(t, "feedback", 1)
	applied := abortBetween(t, b, c)
	s := &sink{}
	_, end, err := c.Offsets(within(t), "feedback", 0)
	if err != nil {
		t.Fatal(err)
	}
	if gaps := follow(t, &Partition{Client: c, Topic: "feedback", Dense: true, Handler: s}, end); len(gaps) != 0 {
		t.Errorf("gaps %v", gaps)
	}
	if got := s.all(); len(got) != 2 || got[0].Fingerprint() != applied {
		t.Fatalf("records %v", got)
	}
	p := &Partition{Client: c, Topic: "feedback", Start: s.all()[1].Offset, Dense: true, Applied: &Applied{0, applied}, Handler: &sink{}}
	if gaps := follow(t, p, end); len(gaps) != 0 {
		t.Errorf("behind markers: gaps %v", gaps)
	}
	p = &Partition{Client: c, Topic: "feedback", Start: 2, Dense: true, Applied: &Applied{1, applied}, Handler: &sink{}}
	if gaps := follow(t, p, end); len(gaps) != 1 || gaps[0].Kind != GapOther {
		t.Errorf("an aborted record in the place of the one applied: gaps %v", gaps)
	}
}

// A first start on a log that lost its beginning is told, never an error.
func TestFirstStartTellsWhereTheLogBegins(t *testing.T) {
	b, c := setup(t, "feedback", 1)
	produce(t, c, "feedback", 0, values(0, 5)...)
	produce(t, c, "feedback", 0, values(5, 10)...)
	if err := b.Cluster().DeleteRecords("feedback", 0, 5); err != nil {
		t.Fatal(err)
	}
	gaps := follow(t, &Partition{Client: c, Topic: "feedback", Start: Earliest, Dense: true, Handler: &sink{}}, 10)
	if len(gaps) != 1 || gaps[0] != (GapError{GapBegin, "feedback", 0, 0, 5, 10}) {
		t.Errorf("told of %v", gaps)
	}
	refused := errors.New("no")
	p := &Partition{Client: c, Topic: "feedback", Start: 2, Handler: &sink{}, OnGap: func(*GapError) error { return refused }}
	if err := result(t, p); !errors.Is(err, refused) {
		t.Errorf("refused: %v", err)
	}
}
