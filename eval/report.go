package eval

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Report is what a run measured. Everything but Seconds is a function of the world, the recipe and the options, on one build of the
// runtime, one instruction set and one number of threads.
type Report struct {
	World       Shape              `json:"world"`
	Seed        uint64             `json:"seed"`
	Base        float64            `json:"base"` // share of the catalogue that a person likes
	Recipe      map[string]any     `json:"recipe"`
	Spent       Spent              `json:"spent"`
	Rivals      []RivalSpent       `json:"rivals,omitempty"`
	Rows        []Row              `json:"rows"`
	Prequential []Prequential      `json:"prequential"`
	Seconds     map[string]float64 `json:"seconds"` // by part of the run: the only figures that differ between equal runs
}

// Row is what one contestant scored for one group of people at one time.
type Row struct {
	When     string   `json:"when"`  // before, quarter, half, all: how much of the stream was learned
	Group    string   `json:"group"` // oldest and spread: people of the stream; new_N, full, moved_N: visitors
	Of       string   `json:"of"`    // the contestant
	People   int      `json:"people"`
	Samples  int      `json:"samples"`        // of each
	Note     string   `json:"note,omitempty"` // why there are no measures
	Measures Measures `json:"measures,omitempty"`
}

func newReport(w *World, r Recipe) *Report {
	return &Report{
		World: w.Shape, Seed: w.Seed, Base: w.BaseRate(), Seconds: map[string]float64{},
		Recipe: map[string]any{"prior": r.Prior, "train": r.Train, "sampler": r.Sampler, "window": r.Window},
	}
}

func (r *Report) spend(part string, d time.Duration) { r.Seconds[part] += d.Seconds() }
func (r *Report) spent(s Spent)                      { r.Spent = s }

// column is one figure of the summary: a measure of a contestant.
type column struct{ title, of, measure string }

// columns are the summary: rebeca beside what is true, what oracles reach (the ceiling of precision is that of the surest) and what copying
// gives.
var columns = []column{
	{"P", "rebeca", "p"}, {"±", "rebeca", "p_se"}, {"real", "real", "p"}, {"oracle", "oracle", "p"}, {"sharp", "oracle_sharp", "p"}, {"ceil.", "oracle_best", "p"},
	{"resam.", "resampled", "p"}, {"copy", "jitter_0.1", "p"}, {"noise", "rebeca_noise", "p"}, {"popul.", "population", "p"}, {"g1", "rebeca_g1", "p"},
	{"cov", "rebeca", "cov"}, {"real", "real", "cov"}, {"oracle", "oracle", "cov"}, {"sharp", "oracle_sharp", "cov"}, {"copy", "jitter_0.1", "cov"},
	{"TV", "rebeca", "tv"}, {"real", "real", "tv"}, {"g1", "rebeca_g1", "tv"},
	{"catal.", "rebeca", "catalogue"}, {"copy", "jitter_0.1", "catalogue"},
	{"own", "rebeca", "own"}, {"real", "real", "own"}, {"copy", "jitter_0.1", "own"},
	{"W2²", "rebeca", "w2"}, {"floor", "real", "w2"}, {"diver.", "rebeca", "diversity"}, {"real", "real", "diversity"},
}

// Table writes a summary for people, one line for each group at each time: what rebeca scores, each measure beside what fresh real likes
// score by it.
func (r *Report) Table(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "world %s, seed %d: %d items, %d tastes, %d people, %d events; base rate %.3f\n",
		r.World.Name, r.Seed, r.World.Items, r.World.Tastes, r.World.People, r.World.Events, r.Base)
	fmt.Fprintf(&b, "%s; version %d, %d candidates refused, learning went back %d times\nseconds:",
		r.Spent, r.Spent.Versions, r.Spent.Refused, r.Spent.Returns)
	for _, part := range []string{"prepare", "birth", "fold", "learn", "rest", "predict", "measure", "total"} {
		fmt.Fprintf(&b, " %s %.1f", part, r.Seconds[part])
	}
	fmt.Fprintf(&b, "\n\n%-8s%-9s", "learned", "people")
	for _, c := range columns {
		fmt.Fprintf(&b, " %6s", c.title)
	}
	b.WriteByte('\n')
	for i, row := range r.Rows {
		if i > 0 && row.When == r.Rows[i-1].When && row.Group == r.Rows[i-1].Group {
			continue
		}
		fmt.Fprintf(&b, "%-8s%-9s", row.When, row.Group)
		for _, c := range columns {
			if v, ok := r.figure(row.When, row.Group, c); ok {
				fmt.Fprintf(&b, " %6.3f", v)
			} else {
				fmt.Fprintf(&b, " %6s", "-")
			}
		}
		fmt.Fprintln(&b, "", row.Note)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// figure finds a column's value.
func (r *Report) figure(when, group string, c column) (v float64, ok bool) {
	for _, row := range r.Rows {
		if row.When == when && row.Group == group && row.Of == c.of {
			v, ok = row.Measures[c.measure]
			return v, ok
		}
	}
	return 0, false
}

// measured lists the columns of Rows.
var measured = []string{"p", "p_se", "cov", "tv", "catalogue", "own", "w2", "diversity"}

// Lines writes every row for people.
func (r *Report) Lines(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%-8s %-9s %-13s", "learned", "people", "")
	for _, name := range measured {
		fmt.Fprintf(&b, " %9s", name)
	}
	b.WriteByte('\n')
	for i, row := range r.Rows {
		if i > 0 && (row.When != r.Rows[i-1].When || row.Group != r.Rows[i-1].Group) {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%-8s %-9s %-13s", row.When, row.Group, row.Of)
		for _, name := range measured {
			if v, ok := row.Measures[name]; ok {
				fmt.Fprintf(&b, " %9.3f", v)
			} else {
				fmt.Fprintf(&b, " %9s", "-")
			}
		}
		fmt.Fprintln(&b, "", row.Note)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
