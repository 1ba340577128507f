package eval

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"rebeca/internal/meter"
	"rebeca/online"
	"rebeca/online/people"
	"rebeca/prior"
	"rebeca/table"
)

// LoopOptions say how the loop is closed: after Start events of the world's own stream, in which people arrive, they rate what is
// generated for them and little else. Start from [DefaultLoopOptions].
type LoopOptions struct {
	Start     int     // events before the loop
	Rounds    int     // of the loop
	Each      int     // impressions of each person and round
	Catalogue float64 // share of the impressions in the loop that show the catalogue
	// Everything makes generated embeddings targets as well, which the service never does.
	Everything bool

	Asked   int // people that are scored
	Samples int // of each

	Progress io.Writer    // nil shows nothing
	Logger   *slog.Logger // nil discards
}

// DefaultLoopOptions are ten rounds that fill everybody's window with what was made for them.
func DefaultLoopOptions() LoopOptions {
	return LoopOptions{Start: 6000, Rounds: 10, Each: 8, Asked: 96, Samples: 32}
}

// Validate names the first option that is out of range.
func (o LoopOptions) Validate() error {
	for _, f := range []struct {
		name string
		v    int
	}{{"start", o.Start}, {"rounds", o.Rounds}, {"each", o.Each}, {"asked", o.Asked}, {"samples", o.Samples}} {
		if f.v < 1 {
			return fmt.Errorf("%s: %d is below 1", f.name, f.v)
		}
	}
	if !(o.Catalogue >= 0 && o.Catalogue <= 1) {
		return fmt.Errorf("catalogue: %v is no share in [0, 1]", o.Catalogue)
	}
	return nil
}

// LoopReport is what a closed loop did to what people are given.
type LoopReport struct {
	World      Shape       `json:"world"`
	Seed       uint64      `json:"seed"`
	Start      int         `json:"start"`
	Each       int         `json:"each"`
	Catalogue  float64     `json:"catalogue"`
	Everything bool        `json:"everything"`
	Spent      Spent       `json:"spent"`
	Rounds     []LoopRound `json:"rounds"` // the first is before the loop
}

// LoopRound is the state after a round.
type LoopRound struct {
	Round    int      `json:"round"`
	Usable   float64  `json:"usable"` // running share of events that may be targets
	Liked    float64  `json:"liked"`  // share of the round's generated impressions that were liked; 0 before the loop
	Measures Measures `json:"measures"`
}

// loop is a world whose people rate what is made for them.
type loop struct {
	o      LoopOptions
	world  *World
	recipe Recipe
	house  *house
	source *generated
	rebeca *Rebeca
	yard   *yardstick
	stream *Stream
	report *LoopReport
}

// Loop plays a world's first events and then closes the loop.
func Loop(ctx context.Context, w *World, recipe Recipe, o LoopOptions) (report *LoopReport, err error) {
	if err := errors.Join(recipe.Validate(), o.Validate()); err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	world := *w // the caller's stays as it is
	w = &world
	w.Shape.Events = max(w.Shape.Events, o.Start)
	l := &loop{o: o, world: w, recipe: recipe, stream: w.Stream(), report: &LoopReport{
		World: w.Shape, Seed: w.Seed, Start: o.Start, Each: o.Each, Catalogue: o.Catalogue, Everything: o.Everything,
	}}
	if l.yard, err = newYardstick(w); err != nil {
		return nil, err
	}
	if l.house, err = openHouse(w, recipe.Window); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.house.close()) }()
	l.source = &generated{Table: people.Table{Table: l.house.Table}, made: map[string][]float32{}, targets: o.Everything}
	if l.rebeca, err = newRebecaOf(recipe, l.house, l.source, o.Logger); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.rebeca.Close()) }()
	return l.report, l.play(ctx)
}

func (l *loop) play(ctx context.Context) error {
	if err := l.rebeca.Begin(ctx); err != nil {
		return fmt.Errorf("birth: %w", err)
	}
	var acts []act
	for range l.o.Start {
		e, ok := l.stream.Next()
		if !ok {
			break
		}
		acts = append(acts, act{l.stream.People[e.Person].ID, e})
	}
	if err := l.learn(ctx, acts); err != nil {
		return err
	}
	if err := l.score(ctx, 0, 0); err != nil {
		return err
	}
	progress := meter.New(l.o.Progress, "rounds", int64(l.o.Rounds))
	for round := 1; round <= l.o.Rounds; round++ {
		acts, liked, err := l.round(ctx, round)
		if err != nil {
			return err
		}
		if err := l.learn(ctx, acts); err != nil {
			return err
		}
		if err := l.score(ctx, round, liked); err != nil {
			return err
		}
		progress.Set(int64(round))
	}
	progress.Done()
	l.report.Spent = l.rebeca.Spent()
	return nil
}

// learn folds and learns acts, a training round at a time.
func (l *loop) learn(ctx context.Context, acts []act) error {
	for len(acts) > 0 {
		n := min(len(acts), l.recipe.Train.Round)
		examples, err := l.house.fold(acts[:n])
		if err != nil {
			return err
		}
		if err := l.rebeca.Learn(ctx, examples); err != nil {
			return fmt.Errorf("learning: %w", err)
		}
		acts = acts[n:]
	}
	return l.rebeca.Rest(ctx)
}

// round has everybody who is here rate Each impressions: what the version in use makes for them and, for a share, the catalogue. All
// of it is made before any of it is rated, and rated in a random order.
func (l *loop) round(ctx context.Context, round int) (acts []act, liked float64, err error) {
	rng := random(l.world.Seed, useLoop, round)
	subjects, err := l.subjects(l.stream.Here())
	if err != nil {
		return nil, 0, err
	}
	samples, err := l.rebeca.Sample(ctx, subjects, l.o.Each, l.world.Seed^uint64(round)<<32)
	if err != nil {
		return nil, 0, err
	}
	shown := 0
	for i := range subjects {
		p := &l.stream.People[i]
		for k, x := range samples[i] {
			near, _ := l.yard.items.nearest(x)
			if rng.Float64() < l.o.Catalogue || near < 0 {
				acts = append(acts, act{p.ID, l.world.act(p, rng)})
				continue
			}
			id := fmt.Sprintf("made-%d-%d-%d", round, i, k)
			l.source.made[id] = x
			e := Event{Person: i, Item: near, made: id}
			e.Kind, e.Value = l.world.law.answer(p, l.world.Cells[near], rng)
			acts = append(acts, act{p.ID, e})
			shown++
			if p.Likes(l.world.Cells[near]) {
				liked++
			}
		}
	}
	rng.Shuffle(len(acts), func(i, j int) { acts[i], acts[j] = acts[j], acts[i] })
	return acts, liked / max(float64(shown), 1), nil
}

// subjects are the first n people; their windows hold what was made for them too.
func (l *loop) subjects(n int) ([]Subject, error) {
	out := make([]Subject, min(n, l.stream.Here()))
	for i := range out {
		p := l.stream.People[i]
		p.Liked = append([]int(nil), p.Liked...)
		row, _, err := l.house.User(p.ID)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", p.ID, err)
		}
		out[i] = Subject{User: p.ID, Index: i, Person: p}
		for _, e := range row.Window {
			x, ok := l.source.Resolve(p.ID, e.ItemID)
			if !ok || e.Class == prior.ClassNone {
				continue
			}
			out[i].Context = append(out[i].Context, prior.Entry{Item: x, Class: e.Class, Older: e.Older})
			if at, ok := l.house.at[e.ItemID]; ok {
				out[i].Window = append(out[i].Window, Seen{Item: at, Kind: e.Kind, Class: e.Class, Older: e.Older})
			}
		}
	}
	return out, nil
}

func (l *loop) score(ctx context.Context, round int, liked float64) error {
	subjects, err := l.subjects(l.o.Asked)
	if err != nil {
		return err
	}
	g := group{name: "loop", subjects: subjects, samples: l.o.Samples}
	samples, err := l.rebeca.Sample(ctx, subjects, l.o.Samples, l.world.Seed^hash(g.name))
	if err != nil {
		return fmt.Errorf("asking after round %d: %w", round, err)
	}
	l.report.Rounds = append(l.report.Rounds, LoopRound{
		Round: round, Usable: l.rebeca.trainer.Status().Usable, Liked: liked, Measures: l.yard.score(g, l.yard.truths(g), samples),
	})
	return nil
}

// generated is a table whose users' windows also hold what was made for them, as the service's own memory of it has it. With targets
// it passes that off as items of the catalogue: what a trainer without the rule would learn from.
type generated struct {
	people.Table
	made    map[string][]float32 // by id
	targets bool
}

// Resolve implements [online.Source].
func (g *generated) Resolve(user, item string) ([]float32, bool) {
	if x, ok := g.made[item]; ok {
		return x, true
	}
	return g.Table.Resolve(user, item)
}

// Catalogue implements [online.Source].
func (g *generated) Catalogue() online.Catalogue {
	if !g.targets {
		return g.Table.Catalogue()
	}
	return passedOff{g.Table.Table.Catalogue(), g}
}

type passedOff struct {
	*table.Catalogue
	generated *generated
}

// Get implements [online.Catalogue].
func (p passedOff) Get(id string) ([]float32, bool) {
	if x, ok := p.generated.made[id]; ok {
		return x, true
	}
	return p.Catalogue.Get(id)
}

// loopMeasures are the columns of the table.
var loopMeasures = []string{"p", "cov", "diversity", "tv", "catalogue"}

// Table writes the rounds for people.
func (r *LoopReport) Table(w io.Writer) error {
	targets := "catalogue items only"
	if r.Everything {
		targets = "everything that was rated"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "world %s, seed %d: %d people, %d events, then %d impressions a person and round, %.0f %% of the catalogue; targets: %s\n",
		r.World.Name, r.Seed, r.World.People, r.Start, r.Each, 100*r.Catalogue, targets)
	fmt.Fprintf(&b, "%s; %d versions refused\n\n%-6s %8s %8s", r.Spent, r.Spent.Refused, "round", "usable", "liked")
	for _, name := range loopMeasures {
		fmt.Fprintf(&b, " %10s", name)
	}
	b.WriteByte('\n')
	for _, round := range r.Rounds {
		fmt.Fprintf(&b, "%-6d %8.3f %8.3f", round.Round, round.Usable, round.Liked)
		for _, name := range loopMeasures {
			fmt.Fprintf(&b, " %10.3f", round.Measures[name])
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}
