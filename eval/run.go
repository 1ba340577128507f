package eval

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"rebeca/internal/meter"
	"rebeca/online"
)

// Options say what a run measures. Start from [DefaultOptions].
type Options struct {
	Asked      int // people of the stream in each group, and visitors with full windows
	Samples    int // of each of those
	Visitors   int // newcomers
	FewSamples int // of each newcomer
	Controls   bool
	Rivals     bool // other ways of learning too: many times the time of the service's own

	Ways []Way // other samplers of the last version, asked at the end

	Progress io.Writer    // nil shows nothing
	Logger   *slog.Logger // nil discards
}

// DefaultOptions keep the standard error of a share near .01.
func DefaultOptions() Options {
	return Options{Asked: 64, Samples: 64, Visitors: 256, FewSamples: 8, Controls: true}
}

// run is one world played once.
type run struct {
	o         Options
	world     *World
	recipe    Recipe
	house     *house
	yardstick *yardstick
	stream    *Stream
	visitors  []group
	rebeca    *Rebeca
	rivals    *rivals // nil: none was asked for
	forecast  forecast
	report    *Report
	known     map[string]Measures // of visitors by who learns nothing
	started   time.Time
}

// times are the shares of the stream after which people are asked, the end apart.
var times = []struct {
	name  string
	share float64
}{{"quarter", .25}, {"half", .5}}

// Run plays the world once through its events and returns what was measured.
func Run(ctx context.Context, w *World, recipe Recipe, o Options) (report *Report, err error) {
	if err := recipe.Validate(); err != nil {
		return nil, err
	}
	if recipe.Prior.Dim != w.Dim {
		return nil, fmt.Errorf("prior.dim: %d, but the world's embeddings have %d", recipe.Prior.Dim, w.Dim)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	r := &run{o: o, world: w, recipe: recipe, stream: w.Stream(), started: time.Now(), report: newReport(w, recipe), known: map[string]Measures{}}
	if r.yardstick, err = newYardstick(w); err != nil {
		return nil, err
	}
	if r.visitors, err = visitors(w, recipe.Window, o); err != nil {
		return nil, fmt.Errorf("playing visitors: %w", err)
	}
	if r.house, err = openHouse(w, recipe.Window); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.house.close()) }()
	if r.rebeca, err = newRebeca(recipe, r.house, o.Logger); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.rebeca.Close()) }()
	if o.Rivals {
		if r.rivals, err = newRivals(recipe, r.house, o); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, r.rivals.close()) }()
	}
	return r.report, r.play(ctx)
}

func (r *run) play(ctx context.Context) error {
	r.report.spend("prepare", time.Since(r.started))
	start := time.Now()
	if err := r.rebeca.Begin(ctx); err != nil {
		return fmt.Errorf("birth: %w", err)
	}
	r.report.spend("birth", time.Since(start))
	if r.rivals != nil {
		if err := r.rivals.born(r.rebeca); err != nil {
			return err
		}
	}
	if err := r.ask(ctx, "before", r.visitors); err != nil {
		return err
	}
	progress := meter.New(r.o.Progress, r.world.Shape.Name, int64(r.world.Shape.Events))
	done := 0
	for _, t := range times {
		if err := r.learn(ctx, int(t.share*float64(r.world.Shape.Events))-done, &done, progress); err != nil {
			return err
		}
		if err := r.ask(ctx, t.name, append(r.seen(), r.of("new_5", "full")...)); err != nil {
			return err
		}
	}
	if err := r.learn(ctx, r.world.Shape.Events-done, &done, progress); err != nil {
		return err
	}
	progress.Done()
	if err := r.study(ctx); err != nil {
		return err
	}
	if err := r.ask(ctx, "all", append(r.seen(), r.visitors...)); err != nil {
		return err
	}
	r.report.Prequential = r.forecast.rows()
	r.report.spent(r.rebeca.Spent())
	r.report.spend("total", time.Since(r.started))
	return nil
}

// learn plays n events, or as many as there are: each round is folded, then learned, so that windows are never ahead of what is learned of them.
func (r *run) learn(ctx context.Context, n int, done *int, progress *meter.Meter) error {
	for n > 0 {
		round := make([]act, 0, r.recipe.Train.Round)
		for ; n > 0 && len(round) < cap(round); n-- {
			e, ok := r.stream.Next()
			if !ok {
				break
			}
			round = append(round, act{r.stream.People[e.Person].ID, e})
		}
		if len(round) == 0 { // the stream is over
			break
		}
		start := time.Now()
		if err := r.predict(round, *done); err != nil {
			return err
		}
		r.report.spend("predict", time.Since(start))
		start = time.Now()
		examples, err := r.house.fold(round)
		if err != nil {
			return err
		}
		folded := time.Now()
		if err := r.teach(ctx, examples); err != nil {
			return err
		}
		r.report.spend("fold", folded.Sub(start))
		r.report.spend("learn", time.Since(folded))
		if r.rivals != nil {
			if err := r.rivals.learn(examples); err != nil {
				return fmt.Errorf("rivals: %w", err)
			}
		}
		*done += len(round)
		progress.Set(int64(*done))
	}
	start := time.Now()
	err := r.rebeca.Rest(ctx)
	r.report.spend("rest", time.Since(start))
	return err
}

func (r *run) teach(ctx context.Context, examples []online.Example) error {
	if err := r.rebeca.Learn(ctx, examples); err != nil {
		return fmt.Errorf("learning: %w", err)
	}
	return nil
}

// study has the rivals learn what they learn afterwards, for as long as the service took.
func (r *run) study(ctx context.Context) error {
	if r.rivals == nil {
		return nil
	}
	took := func(parts ...string) (d time.Duration) {
		for _, part := range parts {
			d += time.Duration(r.report.Seconds[part] * float64(time.Second))
		}
		return d
	}
	if err := r.rivals.study(ctx, r.rebeca.Spent(), took("birth"), took("birth", "learn", "rest")); err != nil {
		return fmt.Errorf("rivals: %w", err)
	}
	r.rivals.tell(r.report)
	return nil
}

// of returns the visitors of some ages.
func (r *run) of(names ...string) (groups []group) {
	for _, g := range r.visitors {
		for _, n := range names {
			if g.name == n {
				groups = append(groups, g)
			}
		}
	}
	return groups
}

// seen are people of the stream: the oldest ones and some of every age.
func (r *run) seen() []group {
	oldest, spread := group{name: "oldest", samples: r.o.Samples}, group{name: "spread", samples: r.o.Samples}
	here := r.stream.Here()
	n := min(r.o.Asked, here)
	for i := range n {
		for _, g := range []struct {
			group *group
			at    int
		}{{&oldest, i}, {&spread, i * here / n}} {
			p := r.stream.People[g.at]
			s, err := r.house.subject(p.ID, g.at, p)
			if err != nil {
				g.group.note = err.Error()
			}
			g.group.subjects = append(g.group.subjects, s)
		}
	}
	return []group{oldest, spread}
}

// ask has every contestant answer for every group, and scores the answers.
func (r *run) ask(ctx context.Context, when string, groups []group) error {
	start := time.Now()
	defer func() { r.report.spend("measure", time.Since(start)) }()
	fixed := slices.Concat([]Contestant{real{r.yardstick}}, r.yardstick.oracles(), r.controls())
	for _, g := range groups {
		truths := r.yardstick.truths(g)
		contestants := append([]Contestant{r.rebeca}, r.rebeca.students()...)
		if full := g.samples >= r.o.Samples; full && (when == "before" || when == "all") {
			contestants = append(contestants, unsharpened(r.rebeca), population{r.rebeca}, unanchored(r.rebeca))
			for _, w := range r.o.Ways {
				if when == "all" {
					contestants = append(contestants, way{r.rebeca, w})
				}
			}
		} else if r.rivals != nil && when == "all" {
			contestants = append(contestants, unanchored(r.rebeca))
		}
		if r.rivals != nil && when != "before" {
			contestants = append(contestants, r.rivals.contestants()...)
		}
		for _, c := range append(contestants, fixed...) {
			if err := r.answer(ctx, when, g, truths, c); err != nil {
				return fmt.Errorf("asking %s for %s: %w", c.Name(), g.name, err)
			}
		}
	}
	return nil
}

func (r *run) controls() []Contestant {
	if !r.o.Controls {
		return nil
	}
	return controls(r.world, r.yardstick)
}

func (r *run) answer(ctx context.Context, when string, g group, truths []truth, c Contestant) error {
	row := Row{When: when, Group: g.name, Of: c.Name(), People: len(g.subjects), Samples: g.samples, Note: g.note}
	if l, ok := c.(interface{ Ready() string }); ok && row.Note == "" {
		row.Note = l.Ready()
	}
	if len(g.subjects) == 0 && row.Note == "" {
		row.Note = "nobody"
	}
	if row.Note == "" {
		var err error
		if row.Measures, err = r.scored(ctx, g, truths, c); err != nil {
			return err
		}
	}
	r.report.Rows = append(r.report.Rows, row)
	return nil
}

// scored asks a contestant for a group. Visitors are the same people at all times, so who learns nothing is asked once.
func (r *run) scored(ctx context.Context, g group, truths []truth, c Contestant) (Measures, error) {
	key := ""
	if _, learns := c.(interface{ Ready() string }); !learns && g.visitors() {
		key = g.name + "/" + c.Name()
	}
	if m, ok := r.known[key]; ok && key != "" {
		return m, nil
	}
	samples, err := c.Sample(ctx, g.subjects, g.samples, r.world.Seed^hash(g.name))
	if err != nil {
		return nil, err
	}
	m := r.yardstick.score(g, truths, samples)
	if key != "" {
		r.known[key] = m
	}
	return m, nil
}
