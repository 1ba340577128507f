package eval

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"rebeca/eval/shapes"
	"rebeca/internal/meter"
	"rebeca/sampler"
	"rebeca/schemas"
)

// PaperOptions say how large the paper's controlled experiment is. Start from [DefaultPaperOptions], which is its size.
type PaperOptions struct {
	Seed        uint64 // of answers, split, order and samples; the catalogue has none
	Items       int    // of the catalogue; everybody rates all of them
	Samples     int    // of protocol B
	Repetitions int    // of protocol A
	Floors      int    // draws of real likes that the floor of W2² is the mean of
	Steps       int    // of the sampler at guidance 1
	// Distances takes W2² of everybody, the marks too; else of the prior at guidance 1 and of its floor. At the published size one of
	// random items takes minutes.
	Distances bool

	Progress io.Writer    // nil shows nothing
	Logger   *slog.Logger // nil discards
}

// DefaultPaperOptions are the published sizes: 40,000 items, 1,000 samples. Protocol A is repeated 100 times.
func DefaultPaperOptions() PaperOptions {
	return PaperOptions{Seed: 1, Items: 40000, Samples: 1000, Repetitions: 100, Floors: 2, Steps: 20}
}

// Validate names the first option out of range, by its flag.
func (o PaperOptions) Validate() error {
	for _, f := range []struct {
		name       string
		value, min int
	}{
		{"items", o.Items, 400}, {"samples", o.Samples, 25}, {"repetitions", o.Repetitions, 1}, {"floors", o.Floors, 1}, {"steps", o.Steps, 1},
	} {
		if f.value < f.min {
			return fmt.Errorf("%s: %d is below %d", f.name, f.value, f.min)
		}
	}
	return nil
}

// heldShare is the share of rows that nobody learns.
const heldShare = .1

// experiment is the paper's controlled setting on this repository's pictures: four people, each with one favourite of {heart, square}
// x {red, blue}, rate every picture; a like has probability .95, .10 or .01 by the attributes shared with the favourite.
type experiment struct {
	o       PaperOptions
	preset  shapes.Preset
	world   *World
	judge   *shapes.Judge
	cosine  *neighbours // of the whole catalogue
	liked   [][]bool    // [person][item]
	held    [][]bool    // [person][item]: a test row
	rows    []act       // training rows in the order of the stream
	subject []Subject   // after the pass
	rebeca  *Rebeca
	report  *PaperReport
	floors  []float64 // W2² of real likes, by person
}

// Paper plays the paper's controlled experiment (arXiv 2502.18477): what four people rated is learned in one pass by the service's own
// trainer, and what it then gives them is scored by the two published protocols, beside the published figures and beside what fresh real
// likes score. The windows of the four hold a few dozens of the 36,000 ratings of each.
func Paper(ctx context.Context, worlds *Worlds, recipe Recipe, o PaperOptions) (_ *PaperReport, err error) {
	if err := errors.Join(o.Validate(), recipe.Validate()); err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	started := time.Now()
	x, err := newExperiment(ctx, worlds, o)
	if err != nil {
		return nil, err
	}
	if recipe.Prior.Dim != x.world.Dim {
		return nil, fmt.Errorf("prior.dim: %d, but pictures have %d", recipe.Prior.Dim, x.world.Dim)
	}
	h, err := openHouse(x.world, recipe.Window)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	if x.rebeca, err = newRebeca(recipe, h, o.Logger); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, x.rebeca.Close()) }()
	x.report.spend("prepare", time.Since(started))
	g, inner := errgroup.WithContext(ctx) // a step runs on one core: the floors, of real likes alone, are found beside it
	g.Go(func() error { return x.floor(inner) })
	g.Go(func() error { return x.learn(inner, h) })
	if err := g.Wait(); err != nil {
		return nil, err
	}
	start := time.Now()
	if err := x.measure(ctx); err != nil {
		return nil, err
	}
	if err := x.illustrate(ctx); err != nil {
		return nil, err
	}
	x.report.spend("measure", time.Since(start))
	x.report.spend("total", time.Since(started))
	return x.report, nil
}

// newExperiment draws who likes what, which rows are for testing, and the order of the others.
func newExperiment(ctx context.Context, worlds *Worlds, o PaperOptions) (*experiment, error) {
	preset := shapes.Paper()
	s := Shape{
		Name: "paper", Items: o.Items, People: preset.People, Dim: 16, Tastes: len(preset.Tastes), MinLiked: 1, MaxLiked: 1,
		Inside: preset.Like[2], Outside: preset.Like[0],
	}
	more := s
	more.Fresh = s.Items / 10
	c, err := worlds.encoded(ctx, preset, more)
	if err != nil {
		return nil, fmt.Errorf("making the catalogue: %w", err)
	}
	l := binary(func(_ *Person, shown, liked int) float64 {
		if liked < 0 {
			return preset.Like[0]
		}
		return preset.Like[preset.Tastes[shown].Shared(preset.Tastes[liked])]
	})
	x := &experiment{o: o, preset: preset}
	if x.world, err = newWorld(s, o.Seed, l, catalogue{c.items[:s.Items], c.cells[:s.Items]}); err != nil {
		return nil, err
	}
	for i, e := range c.items[s.Items:] { // pictures go round the cells: the catalogue has as many of each
		cell := c.cells[s.Items+i]
		x.world.FreshOf[cell] = append(x.world.FreshOf[cell], len(x.world.Fresh))
		x.world.Fresh = append(x.world.Fresh, e)
	}
	shown := make([]shapes.Taste, len(x.world.Cells))
	for i, cell := range x.world.Cells {
		shown[i] = preset.Tastes[cell]
	}
	if x.judge, err = shapes.NewJudge(x.world.Items, shown); err != nil {
		return nil, err
	}
	x.cosine = newNeighbours(x.world.Items)
	x.rate()
	x.report = newPaperReport(x)
	return x, nil
}

// rate draws every person's answer to every item. The noise of an item is the same for all four, as it was in the published data.
func (x *experiment) rate() {
	noise := make([]float64, len(x.world.Items))
	rng := random(x.o.Seed, useStream, 1)
	for i := range noise {
		noise[i] = rng.Float64()
	}
	type row struct{ person, item int }
	var rows []row
	for p := range x.world.People {
		x.liked, x.held = append(x.liked, make([]bool, len(noise))), append(x.held, make([]bool, len(noise)))
		for i, cell := range x.world.Cells {
			x.liked[p][i] = noise[i] < x.world.law.strong(&x.world.People[p], cell)
			rows = append(rows, row{p, i})
		}
	}
	rng = random(x.o.Seed, useSplit, 1)
	rng.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	tests := int(heldShare * float64(len(rows)))
	for _, r := range rows[:tests] {
		x.held[r.person][r.item] = true
	}
	for _, r := range rows[tests:] {
		kind := schemas.KindDislike
		if x.liked[r.person][r.item] {
			kind = schemas.KindLike
		}
		x.rows = append(x.rows, act{x.world.People[r.person].ID, Event{Person: r.person, Item: r.item, Kind: kind}})
	}
}

// learn is the one pass.
func (x *experiment) learn(ctx context.Context, h *house) error {
	start := time.Now()
	if err := x.rebeca.Begin(ctx); err != nil {
		return fmt.Errorf("birth: %w", err)
	}
	x.report.spend("birth", time.Since(start))
	start = time.Now()
	progress := meter.New(x.o.Progress, "ratings learned", int64(len(x.rows)))
	round := x.rebeca.recipe.Train.Round
	for at := 0; at < len(x.rows); at += round {
		examples, err := h.fold(x.rows[at:min(at+round, len(x.rows))])
		if err != nil {
			return err
		}
		if err := x.rebeca.Learn(ctx, examples); err != nil {
			return fmt.Errorf("learning: %w", err)
		}
		progress.Set(int64(at))
	}
	progress.Done()
	if err := x.rebeca.Rest(ctx); err != nil {
		return fmt.Errorf("learning: %w", err)
	}
	x.report.spend("learn", time.Since(start))
	x.report.Spent = x.rebeca.Spent()
	for i, p := range x.world.People {
		s, err := h.subject(p.ID, i, p)
		if err != nil {
			return err
		}
		x.subject = append(x.subject, s)
	}
	return nil
}

// favourite is the taste of a person.
func (x *experiment) favourite(person int) shapes.Taste {
	return x.preset.Tastes[x.world.People[person].Liked[0]]
}

// giver answers for a person with n embeddings.
type giver struct {
	name     string
	give     func(person, n int, rng *rand.Rand) ([][]float32, error)
	distance bool // W2² is to be found
}

// givers are those that the protocols compare: the prior as it is, the prior as the service samples, and the marks.
func (x *experiment) givers(ctx context.Context) []giver {
	prior := func(o sampler.Options) func(int, int, *rand.Rand) ([][]float32, error) {
		return func(person, n int, rng *rand.Rand) ([][]float32, error) {
			got, err := x.rebeca.sample(ctx, x.subject[person:person+1], n, rng.Uint64(), o)
			if err != nil {
				return nil, err
			}
			return got[0], nil
		}
	}
	plain := x.rebeca.recipe.Sampler
	plain.Guidance, plain.Steps, plain.Anchor = 1, x.o.Steps, sampler.Anchor{}
	of := func(choose func(person int) []int) func(int, int, *rand.Rand) ([][]float32, error) {
		return func(person, n int, rng *rand.Rand) (out [][]float32, err error) {
			from := choose(person)
			for range n {
				out = append(out, x.world.Items[from[rng.IntN(len(from))]])
			}
			return out, nil
		}
	}
	return []giver{
		{"rebeca_g1", prior(plain), true},
		{"rebeca", prior(x.rebeca.recipe.Sampler), x.o.Distances},
		{"real", func(person, n int, rng *rand.Rand) ([][]float32, error) {
			return x.world.fresh(x.world.FreshOf, x.world.Mixture(&x.world.People[person]), n, rng), nil
		}, x.o.Distances},
		{"cell", of(func(p int) []int { return x.world.ItemsOf[x.world.People[p].Liked[0]] }), x.o.Distances},
		{"random", of(func(int) []int { return x.everything() }), x.o.Distances},
		{"mean", func(person, n int, _ *rand.Rand) (out [][]float32, err error) {
			m := x.mean(person)
			for range n {
				out = append(out, m)
			}
			return out, nil
		}, true},
	}
}

// likes lists a person's likes: of the training rows, the test rows or both.
func (x *experiment) likes(person int, train, test bool) (items []int) {
	for i, liked := range x.liked[person] {
		if liked && (x.held[person][i] && test || !x.held[person][i] && train) {
			items = append(items, i)
		}
	}
	return items
}

func (x *experiment) everything() []int {
	all := make([]int, len(x.world.Items))
	for i := range all {
		all[i] = i
	}
	return all
}

// mean is the mean of all likes of a person, those of the test rows too, as published.
func (x *experiment) mean(person int) []float32 {
	m := make([]float32, x.world.Dim)
	likes := x.likes(person, true, true)
	for _, i := range likes {
		for d, v := range x.world.Items[i] {
			m[d] += v / float32(len(likes))
		}
	}
	return m
}

// measure runs both protocols for all people and givers, people side by side.
func (x *experiment) measure(ctx context.Context) error {
	givers := x.givers(ctx)
	progress := meter.New(x.o.Progress, "people scored", int64(len(x.world.People)))
	scores := make([]personScores, len(x.world.People))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for p := range x.world.People {
		g.Go(func() (err error) {
			scores[p], err = x.person(ctx, p, givers)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	progress.Set(int64(len(scores)))
	progress.Done()
	x.report.gather(x, givers, scores)
	return nil
}
