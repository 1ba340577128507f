package main

import (
	"encoding/json"
	"maps"
	"math"
	"strings"
	"testing"
	"time"

	"rebeca/internal/figures"
	"rebeca/schemas"
)

// Every event must be one that the service folds, in the partition of its key; a resend is the same bytes.
func TestSourceMakesValidEvents(t *testing.T) {
	s, now := newSource(1, 500, 100), time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	seen, users, bytes := map[string]string{}, map[string]bool{}, 0
	for range 20_000 {
		m := s.next(now)
		f, err := schemas.DecodeFeedback(m.Key, m.Value, m.Time)
		if err != nil {
			t.Fatalf("%v: %s", err, m.Value)
		}
		if want := schemas.Partition(m.Key, partitions); m.partition != want {
			t.Fatalf("%s in partition %d, want %d", m.Key, m.partition, want)
		}
		if before, again := seen[f.EventID]; again && before != string(m.Value) {
			t.Fatalf("event %s with other bytes", f.EventID)
		}
		seen[f.EventID], users[f.UserID] = string(m.Value), true
		bytes += len(m.Value)
	}
	if len(seen) != s.distinct || s.distinct+s.again != 20_000 || s.again < 100 || s.again > 400 {
		t.Errorf("%d ids, %d distinct, %d sent again", len(seen), s.distinct, s.again)
	}
	if len(users) < 100 {
		t.Errorf("%d users where the first 100 have an event each", len(users))
	}
	if mean := bytes / 20_000; mean < 150 || mean > 250 {
		t.Errorf("events of %d bytes", mean)
	}
}

func TestQuantileOfAHistogramsGrowth(t *testing.T) {
	before := map[string]float64{`x_bucket{le="0.1"}`: 5, `x_bucket{le="0.2"}`: 7, `x_bucket{le="+Inf"}`: 7}
	after := map[string]float64{`x_bucket{le="0.1"}`: 55, `x_bucket{le="0.2"}`: 105, `x_bucket{le="+Inf"}`: 107, `y_bucket{le="9"}`: 1}
	for _, c := range []struct{ q, want float64 }{{.25, .05}, {.5, .1}, {.74, .15}, {.995, .2}} {
		if got := quantile(c.q, "x", before, after); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("quantile %g: %g, want %g", c.q, got, c.want)
		}
	}
	if got := quantile(.5, "z", before, after); !math.IsNaN(got) {
		t.Errorf("of no histogram: %g", got)
	}
}

func TestSummary(t *testing.T) {
	b := &bench{options: options{dir: t.TempDir()}, all: []figures.Figures{
		{"distinct_events": 10, "resends": 1},
		{"events_per_s": 300}, {"streams_eos_events_per_s": 100}, {"events_per_s": 100}, {"streams_eos_events_per_s": 50}, {"events_per_s": 150},
	}}
	got := b.summary()
	if got["events_per_s"] != 150 || got["streams_eos_events_per_s"] != 75 || got["ratio"] != 2 {
		t.Errorf("%v", got)
	}
	if err := b.compare("it", 10, 1); err != nil {
		t.Error(err)
	}
	for _, c := range [][2]float64{{9, 1}, {10, 0}} {
		if err := b.compare("it", c[0], c[1]); err == nil || !strings.Contains(err.Error(), "it folded") {
			t.Errorf("%v: %v", c, err)
		}
	}
	// A later call with the same folder goes on from these figures.
	if err := b.keep(); err != nil {
		t.Fatal(err)
	}
	later := &bench{options: b.options}
	if err := later.recall(); err != nil || !maps.Equal(later.summary(), got) {
		t.Errorf("recalled %v, %v", later.summary(), err)
	}
	if _, err := json.Marshal(got); err != nil {
		t.Error(err)
	}
	if _, err := run(options{dir: t.TempDir()}, []string{"produce", "dance"}); err == nil || !strings.Contains(err.Error(), "dance") {
		t.Errorf("an unknown step: %v", err)
	}
}
