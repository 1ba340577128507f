package eval

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"rebeca/internal/meter"
)

// play runs a world and returns the report, and its JSON without the seconds.
func play(t *testing.T, w *World, r Recipe, o Options) (*Report, string) {
	t.Helper()
	openRuntime(t)
	got, err := Run(context.Background(), w, r, o)
	if err != nil {
		t.Fatal(err)
	}
	got.Seconds = nil
	b, err := json.Marshal(got) // refuses what is not a number
	if err != nil {
		t.Fatal(err)
	}
	return got, string(b)
}

func (r *Report) get(t *testing.T, when, group, of, measure string) float64 {
	t.Helper()
	v, ok := r.figure(when, group, column{of: of, measure: measure})
	if !ok {
		t.Errorf("no %s of %s for %s, %s", measure, of, group, when)
	}
	return v
}

func TestSameSeedSameReport(t *testing.T) {
	openRuntime(t)
	w := small(t, "graded", nil)
	o := glance()
	_, one := play(t, w, quick(w), o)
	_, two := play(t, small(t, "graded", nil), quick(w), o)
	if one != two {
		t.Errorf("two runs differ:\n%s\n%s", one, two)
	}
	other := quick(w)
	other.Train.Seed = 2
	if _, three := play(t, w, other, o); one == three {
		t.Error("another seed of the prior gives the same report")
	}
}

// TestWorldsAreLearned holds the direction in a short form of each world: the window is read, and the oracle stands above.
func TestWorldsAreLearned(t *testing.T) {
	openRuntime(t)
	for _, name := range Names() {
		t.Run(name, func(t *testing.T) {
			w := small(t, name, func(s *Shape) {
				s.Items, s.Events, s.Tastes, s.MaxLiked = 700, 1536, min(s.Tastes, 8), min(s.MaxLiked, 2)
			})
			recipe := quick(w)
			recipe.Train.BirthSteps, recipe.Train.LR, recipe.Train.Steps = 150, 4e-3, 4
			r, _ := play(t, w, recipe, glance())
			margin := .05
			if name == "paper" { // uniform impressions and four tastes that share attributes take longer than a test lasts
				margin = .02
			}
			if p, random, nobody := r.get(t, "all", "full", "rebeca", "p"), r.get(t, "all", "full", "random", "p"), r.get(t, "all", "full", "population", "p"); p < random+margin || p < nobody+margin {
				t.Errorf("precision %.3f, of the population's taste %.3f, of random items %.3f", p, nobody, random)
			}
			if rebeca, oracle, truth := r.get(t, "all", "full", "rebeca", "tv"), r.get(t, "all", "full", "oracle", "tv"), r.get(t, "all", "full", "real", "tv"); rebeca < truth-.02 || oracle < truth-.05 {
				t.Errorf("total variation %.3f, of the oracle %.3f, of fresh real likes %.3f", rebeca, oracle, truth)
			}
			if far := r.get(t, "all", "full", "real", "catalogue"); far < .7 || far > 1.4 {
				t.Errorf("fresh real likes lie %v of a fresh item's distance off the catalogue", far)
			}
			known, blind, n := 0., 0., 0
			for _, p := range r.Prequential {
				if p.Class == "strong_positive" && p.Level < 0 && p.Part > 1 {
					known, blind, n = known+p.Loss*float64(p.Events), blind+p.Blind*float64(p.Events), n+p.Events
				}
			}
			if n == 0 || known >= blind {
				t.Errorf("likes are predicted with loss %v of %d events, without the window %v", known, n, blind)
			}
		})
	}
}

// TestStreamThatEndsEarly asks for more events than there are.
func TestStreamThatEndsEarly(t *testing.T) {
	openRuntime(t)
	w := small(t, "hard", func(s *Shape) { s.Tastes, s.Events = 12, 70 })
	h, err := openHouse(w, DefaultRecipe(w.Dim).Window)
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	r := &run{world: w, recipe: quick(w), stream: w.Stream(), house: h, report: newReport(w, quick(w))}
	if r.rebeca, err = newRebeca(r.recipe, h, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	defer r.rebeca.Close()
	done := 0
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- r.learn(ctx, 500, &done, meter.New(io.Discard, "", 500)) }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		t.Fatal("learning goes on after the end of the stream")
	}
	if err != nil || done != 70 {
		t.Errorf("%d of 70 events learned: %v", done, err)
	}
}

// TestStrangeWorlds runs what hardly is a world: its rows are marked, and no figure is not a number.
func TestStrangeWorlds(t *testing.T) {
	openRuntime(t)
	for what, c := range map[string]struct {
		world  string
		change func(*Shape)
		born   bool
	}{
		"no events":               {"hard", func(s *Shape) { s.Events = 0 }, true},
		"fewer than a batch":      {"hard", func(s *Shape) { s.Events = 10 }, true},
		"one user":                {"hard", func(s *Shape) { s.People = 1 }, true},
		"one item":                {"hard", func(s *Shape) { s.Items, s.Fresh, s.Tastes, s.MaxLiked = 1, 0, 1, 1 }, true},
		"one item, few events":    {"hard", func(s *Shape) { s.Items, s.Fresh, s.Tastes, s.MaxLiked, s.Events = 1, 0, 1, 1, 10 }, false},
		"all likes":               {"hard", func(s *Shape) { s.Inside, s.Outside = 1, 1 }, true},
		"all dislikes":            {"hard", func(s *Shape) { s.Inside, s.Outside = 0, 0 }, true},
		"more people than events": {"drift", func(s *Shape) { s.People, s.Events, s.Arrival = 200, 100, 0 }, true},
	} {
		t.Run(what, func(t *testing.T) {
			w := small(t, c.world, func(s *Shape) {
				s.Tastes, s.Events = 12, 256
				c.change(s)
			})
			o := glance()
			o.Asked, o.Visitors = 4, 6
			recipe := quick(w)
			recipe.Train.BirthSteps, recipe.Train.FirstSteps = 10, 5
			r, text := play(t, w, recipe, o)
			var table strings.Builder
			if err := r.Table(&table); err != nil || strings.Contains(table.String(), "NaN") || strings.Contains(text, "NaN") {
				t.Errorf("%v\n%s", err, table.String())
			}
			marked := 0
			for _, row := range r.Rows {
				if row.Note == "" && len(row.Measures) == 0 {
					t.Errorf("a row without measures and without a note: %+v", row)
				}
				for name, v := range row.Measures {
					if math.IsNaN(v) || math.IsInf(v, 0) {
						t.Errorf("%s is %v in %+v", name, v, row)
					}
				}
				if row.Of == "rebeca" && row.Note == "no_prior" {
					marked++
				}
			}
			if born := r.Spent.Steps > 0; born != c.born || !born && marked == 0 {
				t.Errorf("%d steps, %d rows say that there is no prior", r.Spent.Steps, marked)
			}
		})
	}
}
