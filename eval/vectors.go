package eval

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"rebeca/internal/meter"
	"rebeca/prior"
	"rebeca/sampler"
)

// vectors is the published way (arXiv 2502.18477): a learned row for every person, trained jointly with the denoiser. It has the
// published network in the recipe's size, and the recipe's batch, steps and rates. Whoever has no row is given what nobody in
// particular likes.
type vectors struct {
	name   string
	recipe Recipe
	diary  *diary
	spent  Spent
	took   time.Duration

	learner *prior.Learner
	model   *prior.Model // of the steps so far; nil when they went on
	planned int          // steps over which the rate falls
	waiting []int        // rows of events of an unfinished round
}

// tokenWidth is how many numbers of an embedding are a token of the rivals' network.
const tokenWidth = 4

// vectorConfig is the shape of a rival's prior for a number of people.
func vectorConfig(p prior.Config, people int) prior.Config {
	p.Kind, p.Users, p.Tokens = "reference", people, 1
	if p.Dim%tokenWidth == 0 {
		p.Tokens = p.Dim / tokenWidth
	}
	p.Loss = prior.DefaultLoss()
	return p
}

func newVectors(name string, r Recipe, d *diary, planned int) (*vectors, error) {
	st, err := prior.NewState(vectorConfig(r.Prior, len(d.world.People)), prior.NewStats(d.world.Items), r.Train.Seed)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	v := &vectors{name: name, recipe: r, diary: d, planned: planned}
	if v.learner, err = prior.NewLearner(st, r.Runtime); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return v, nil
}

// Name implements [Contestant].
func (v *vectors) Name() string { return v.name }

// Ready implements [Learner].
func (v *vectors) Ready() string {
	if v.spent.Steps == 0 {
		return "no_prior"
	}
	return ""
}

// rate is that of the trainer: a warm-up, then a cosine over the planned steps.
func (v *vectors) rate(done float64) float64 {
	c := v.recipe.Train
	warm := min(1, float64(v.spent.Steps+1)/float64(max(1, c.Warmup)))
	return warm * (c.LRMin + (c.LR-c.LRMin)*(1+math.Cos(math.Pi*min(1, done)))/2)
}

// step takes one step on lessons; done is the share of the way along the falling rate.
func (v *vectors) step(lessons []lesson, done float64) error {
	start := time.Now()
	rng := random(v.recipe.Train.Seed^hash(v.name), useControl, int(v.spent.Steps))
	b := v.diary.batch(lessons, v.recipe.Train.LabelDropout, rng)
	if _, err := v.learner.Step(b, v.rate(done), rng); err != nil {
		return fmt.Errorf("%s: %w", v.name, err)
	}
	v.spent.Steps++
	v.spent.Examples += int64(len(b.Targets))
	v.took += time.Since(start)
	return v.forget()
}

// forget drops the model of the steps before.
func (v *vectors) forget() error {
	if v.model == nil {
		return nil
	}
	err := v.model.Close()
	v.model = nil
	return err
}

// read learns one pass as the trainer does: of each step's lessons a share is fresh, the rest is drawn from what is in the diary.
func (v *vectors) read(rows []int) error {
	c, p := v.recipe.Train, v.recipe.Prior
	v.waiting = append(v.waiting, rows...)
	for len(v.waiting) >= c.Round {
		round := v.waiting[:c.Round]
		v.waiting = v.waiting[c.Round:]
		each := (len(round) + c.Steps - 1) / c.Steps
		for from := 0; from < len(round); from += each {
			rng := random(v.recipe.Train.Seed^hash(v.name), useLife, int(v.spent.Steps))
			var lessons []lesson
			for _, row := range round[from:min(from+each, len(round))] {
				lessons = append(lessons, v.diary.newest(row, p.Targets, rng))
			}
			for len(lessons) < p.Contexts {
				lessons = append(lessons, v.diary.anybody(p.Targets, rng))
			}
			if err := v.step(lessons[:p.Contexts], float64(v.spent.Steps)/float64(v.planned)); err != nil {
				return err
			}
		}
	}
	return nil
}

// study goes through the diary again and again until done, which is asked before each step and says how much of the way is behind.
func (v *vectors) study(ctx context.Context, progress *meter.Meter, done func() float64) error {
	for epoch := 0; ; epoch++ {
		lessons := v.diary.epoch(v.recipe.Prior.Targets, random(v.recipe.Train.Seed^hash(v.name), usePerson, epoch))
		if len(lessons) == 0 {
			return errors.New("there is nothing to learn from")
		}
		for n := v.recipe.Prior.Contexts; len(lessons) > 0; lessons = lessons[min(n, len(lessons)):] {
			share := done()
			progress.Set(int64(1000 * min(1, share)))
			if share >= 1 {
				return nil
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := v.step(lessons[:min(n, len(lessons))], share); err != nil {
				return err
			}
		}
	}
}

// Sample implements [Contestant].
func (v *vectors) Sample(ctx context.Context, subjects []Subject, n int, seed uint64) ([][][]float32, error) {
	if v.model == nil {
		m, err := prior.NewModel(v.learner.State(), v.recipe.Runtime)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", v.name, err)
		}
		v.model = m
	}
	rows := make([]int, len(subjects))
	for i, s := range subjects {
		row, ok := v.diary.rows[s.User]
		if !ok {
			row = prior.NoUser
		}
		rows[i] = row
	}
	return sampleRows(ctx, v.model, v.recipe.Sampler, rows, n, seed)
}

// sampleRows draws n samples for each row of the table of users, from noise.
func sampleRows(ctx context.Context, m *prior.Model, o sampler.Options, rows []int, n int, seed uint64) ([][][]float32, error) {
	conditions, err := m.Users(rows)
	if err != nil {
		return nil, err
	}
	each := make([]sampler.Job, len(rows))
	for i := range each {
		each[i] = sampler.Job{Cond: conditions[i]}
	}
	return drawAll(ctx, m, few(o), each, n, seed)
}

func (v *vectors) close() error { return errors.Join(v.forget(), v.learner.Close()) }

// fitted is the joint network, frozen, with a row of its own fitted to the window of everybody who asks.
type fitted struct {
	*vectors
	recipe Recipe
}

// What fitting takes for each person: LEARNING's own figures for a new user, 60 steps at .05.
const (
	fitSteps = 60
	fitRate  = .05
)

// Name implements [Contestant].
func (f fitted) Name() string { return "vectors_fitted" }

// Sample implements [Contestant].
func (f fitted) Sample(ctx context.Context, subjects []Subject, n int, seed uint64) ([][][]float32, error) {
	st, err := f.learner.State().WithUsers(len(subjects), f.recipe.Train.Seed)
	if err != nil {
		return nil, err
	}
	l, err := prior.NewLearner(st, f.recipe.Runtime)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	if err := f.fit(ctx, l, subjects); err != nil {
		return nil, fmt.Errorf("fitting vectors: %w", err)
	}
	m, err := prior.NewModel(l.State(), f.recipe.Runtime)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	rows := make([]int, len(subjects))
	for i, s := range subjects {
		if rows[i] = i; len(s.Context) == 0 {
			rows[i] = prior.NoUser
		}
	}
	return sampleRows(ctx, m, f.recipe.Sampler, rows, n, seed)
}

// fit takes fitSteps steps for each subject on random entries of their window.
func (f fitted) fit(ctx context.Context, l *prior.Learner, subjects []Subject) error {
	p := f.recipe.Prior
	for k := range fitSteps {
		for from := 0; from < len(subjects); from += p.Contexts {
			if err := ctx.Err(); err != nil {
				return err
			}
			rng, b := random(f.recipe.Train.Seed, useVisitor, k*len(subjects)+from), new(prior.Batch)
			for i := from; i < min(from+p.Contexts, len(subjects)); i++ {
				if c := subjects[i].Context; len(c) > 0 {
					b.Users = append(b.Users, i)
					for range p.Targets {
						e := c[rng.IntN(len(c))]
						b.Targets = append(b.Targets, prior.Target{Context: len(b.Users) - 1, Item: e.Item, Label: e.Class})
					}
				}
			}
			if len(b.Targets) == 0 {
				continue
			}
			if _, err := l.StepUsers(b, fitRate, rng); err != nil {
				return err
			}
		}
	}
	return nil
}
