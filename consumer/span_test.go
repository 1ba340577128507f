package consumer

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestRunToEndsThere reads parts of a log that goes on.
func TestRunToEndsThere(t *testing.T) {
	_, c := setup(t, "t", 1)
	produce(t, c, "t", 0, values(0, 50)...)
	for _, span := range [][2]int64{{0, 50}, {0, 1}, {7, 23}, {Earliest, 31}, {49, 50}, {20, 20}, {30, 20}} {
		s := sink{}
		p := &Partition{Client: c, Topic: "t", Start: span[0], MaxBatch: 8, Handler: &s}
		if err := p.RunTo(within(t), span[1]); err != nil {
			t.Fatalf("%v: %v", span, err)
		}
		from := max(span[0], 0)
		if n := int64(len(s.all())); n != max(0, span[1]-from) {
			t.Errorf("%v: %d records", span, n)
		}
		if s.next() > span[1] || s.next() < span[1] && span[1] > from {
			t.Errorf("%v: ends at %d", span, s.next())
		}
	}
}

// TestRunToWaitsAndStops for what is not there yet, until its context ends.
func TestRunToWaitsAndStops(t *testing.T) {
	_, c := setup(t, "t", 1)
	produce(t, c, "t", 0, values(0, 3)...)
	s := sink{}
	p := &Partition{Client: c, Topic: "t", Handler: &s}
	ctx, cancel := context.WithCancel(within(t))
	done := make(chan error, 1)
	go func() { done <- p.RunTo(ctx, 5) }()
	eventually(t, "three records", func() bool { return len(s.all()) == 3 })
	produce(t, c, "t", 0, values(3, 4)...)
	eventually(t, "four records", func() bool { return len(s.all()) == 4 })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want the context's", err)
	}
	var gap *GapError
	if err := (&Partition{Client: c, Topic: "t", Start: 9, Handler: &s}).RunTo(within(t), 20); !errors.As(err, &gap) {
		t.Errorf("error %v, want a gap", err)
	}
	broken := &Partition{Client: c, Topic: "t", Handler: &sink{handle: func([]Record, int64) error { return errRefused }}}
	if err := broken.RunTo(within(t), 4); !errors.Is(err, errRefused) {
		t.Errorf("error %v, want the handler's", err)
	}
}

var errRefused = errors.New("refused")

// TestOffsetAt asks by time, as an operator replays from one.
func TestOffsetAt(t *testing.T) {
	_, c := setup(t, "t", 2)
	at := time.Now().Add(-time.Hour).Truncate(time.Second)
	for i := range 10 {
		produce(t, c, "t", 1, Message{Value: []byte("v"), Time: at.Add(time.Duration(i) * time.Minute)})
	}
	for _, q := range []struct {
		at   time.Time
		want int64
	}{
		{at.Add(-time.Hour), 0}, {at, 0}, {at.Add(time.Second), 1}, {at.Add(9 * time.Minute), 9},
		{at.Add(9*time.Minute + time.Second), 10}, // past the last record: the end, not "none"
	} {
		got, err := c.OffsetAt(within(t), "t", 1, q.at)
		if err != nil || got != q.want {
			t.Errorf("%s: offset %d, error %v, want %d", q.at.Sub(at), got, err, q.want)
		}
	}
	if got, err := c.OffsetAt(within(t), "t", 0, at); err != nil || got != 0 {
		t.Errorf("an empty partition: offset %d, error %v", got, err)
	}
	if _, err := c.OffsetAt(within(t), "absent", 0, at); err == nil {
		t.Error("a topic that is not there has an offset")
	}
}

// TestRunToOverAGap hears of what is missing within the span, and ends where the gap leads past its end.
func TestRunToOverAGap(t *testing.T) {
	b, c := setup(t, "t", 1)
	produce(t, c, "t", 0, values(0, 5)...)
	produce(t, c, "t", 0, values(5, 10)...)
	for _, first := range []int64{5, 10} {
		if err := b.Cluster().DeleteRecords("t", 0, first); err != nil {
			t.Fatal(err)
		}
		for _, to := range []int64{4, 8, 10} {
			var gaps []GapError
			accept := func(g *GapError) error { gaps = append(gaps, *g); return nil }
			s := sink{}
			if err := (&Partition{Client: c, Topic: "t", Start: 2, Handler: &s, OnGap: accept}).RunTo(within(t), to); err != nil {
				t.Fatal(err)
			}
			if want := (GapError{GapLost, "t", 0, 2, min(first, to), 10}); len(gaps) != 1 || gaps[0] != want {
				t.Errorf("from %d on, to %d: heard of %v, want %v", first, to, gaps, want)
			}
			if got, want := int64(len(s.all())), max(0, to-first); got != want {
				t.Errorf("from %d on, to %d: %d records, want %d", first, to, got, want)
			}
		}
	}
}

// TestRunToOverAGapAtTheEnd: what is left of the span goes while it is read, and no record comes behind it.
func TestRunToOverAGapAtTheEnd(t *testing.T) {
	b, c := setup(t, "t", 1)
	for i := range 20 {
		produce(t, c, "t", 0, values(i, i+1)...)
	}
	var gaps []GapError
	p := &Partition{Client: c, Topic: "t", Start: 0, MaxBytes: 1, OnGap: func(g *GapError) error { gaps = append(gaps, *g); return nil }}
	p.Handler = &sink{handle: func([]Record, int64) error { return b.Cluster().DeleteRecords("t", 0, 20) }}
	if err := p.RunTo(within(t), 20); err != nil || len(gaps) != 1 || gaps[0].First != 20 {
		t.Errorf("error %v, gaps %v", err, gaps)
	}
}
