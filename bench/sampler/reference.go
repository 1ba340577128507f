package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"rebeca/internal/figures"
	"rebeca/internal/meter"
	"rebeca/internal/ort"
	"rebeca/internal/pytorch"
	"rebeca/prior"
	"rebeca/sampler"
)

// The reference's way: 25 samples of a user at a time over 1,000 timesteps.
const (
	referenceSamples = 25
	referenceSteps   = 1000
	stepsOfBlock     = 5
)

// crowd is how many people an own batch is of, an embedding each.
const crowd = 64

// way is a way to sample that is timed.
type way struct {
	suffix  string // of its figures
	options sampler.Options
	liked   bool // people start from a like
}

// timed are 8 steps; few passes; and the passes of a student, which takes one or two and no second half. A student has the network of
// its teacher, so until one is at hand the passes of the network itself are timed.
func timed() []way {
	eight := sampler.DefaultOptions()
	eight.Anchor = sampler.Anchor{}
	return []way{
		{suffix: "", options: eight},
		{suffix: "_fast", options: fast(), liked: true},
		{suffix: "_student", options: student(1)},
		{suffix: "_student2", options: student(2)},
	}
}

// fast is two evaluations after a like, one of them guided: three passes.
func fast() sampler.Options {
	o := sampler.DefaultOptions()
	o.Anchor.Steps, o.Anchor.Level, o.Anchor.Few = 2, 0, 0
	return o
}

func student(passes int) sampler.Options {
	o := sampler.Everywhere(1)
	o.Steps, o.Anchor = passes, sampler.Anchor{}
	return o
}

// reference compares the time of an embedding by the published prior of 4.4 M parameters. Its weights are random: they do not matter
// for time.
func reference(ctx context.Context, s settings, got figures.Figures) (err error) {
	m, jobs, err := published(s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	sides := []side{}
	for _, w := range timed() {
		run := func() error {
			_, err := sampler.Sample(m, w.options, jobs(w.liked))
			return err
		}
		if err := run(); err != nil { // the first makes the tensors
			return err
		}
		got["passes"+w.suffix] = passes(m.Config(), w)
		sides = append(sides, side{name: "embedding" + w.suffix + "_ms", block: func() ([]float64, error) {
			ms, err := elapsed(run)
			return []float64{ms / crowd}, err
		}})
	}
	if s.script != "" {
		p, err := pytorch.Start(s.python, s.script, "eager", s.threads)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, p.Close()) }()
		sides = append(sides, side{name: "reference_embedding_ms", block: func() ([]float64, error) {
			ms, err := p.Block("ancestral_step", stepsOfBlock)
			for i := range ms {
				ms[i] *= float64(referenceSteps) / referenceSamples
			}
			return ms, err
		}})
		got["reference_steps_timed"] = float64(s.rounds * stepsOfBlock)
	}
	if err := turns(ctx, sides, s.rounds); err != nil {
		return err
	}
	for _, sd := range sides {
		got[sd.name], got[sd.name[:len(sd.name)-len("ms")]+"median_ms"] = sd.times[0], sd.times[len(sd.times)/2]
	}
	if s.script == "" {
		return nil
	}
	for _, w := range timed() {
		got["time_vs_reference"+w.suffix] = got["reference_embedding_ms"] / got["embedding"+w.suffix+"_ms"]
		got["time_vs_reference"+w.suffix+"_median"] = got["reference_embedding_median_ms"] / got["embedding"+w.suffix+"_median_ms"]
	}
	return nil
}

// side is one of those that take turns.
type side struct {
	name  string
	block func() ([]float64, error)
	times []float64 // milliseconds an embedding, sorted at the end
}

func turns(ctx context.Context, sides []side, rounds int) error {
	m := meter.New(os.Stderr, "reference", int64(rounds*len(sides)))
	defer m.Done()
	for round := range rounds {
		for i := range sides {
			if err := ctx.Err(); err != nil {
				return err
			}
			ms, err := sides[i].block()
			if err != nil {
				return fmt.Errorf("%s: %w", sides[i].name, err)
			}
			sides[i].times = append(sides[i].times, ms...)
			m.Set(int64(round*len(sides) + i + 1))
		}
	}
	for i := range sides {
		slices.Sort(sides[i].times)
	}
	return nil
}

func elapsed(run func() error) (ms float64, err error) {
	start := time.Now()
	err = run()
	return float64(time.Since(start).Nanoseconds()) / 1e6, err
}

// published is the prior and jobs of so many people.
func published(s settings) (*prior.Model, func(liked bool) []sampler.Job, error) {
	cfg := prior.DefaultConfig(1024)
	cfg.Kind, cfg.Users, cfg.MaxTokens = "reference", 210, 1
	state, err := prior.NewState(cfg, unitStats(cfg.Dim), 1)
	if err != nil {
		return nil, nil, err
	}
	m, err := prior.NewModel(state, ort.Options{Threads: s.threads, Spin: 200 * time.Microsecond})
	if err != nil {
		return nil, nil, err
	}
	users := make([]int, crowd)
	for i := range users {
		users[i] = i
	}
	conds, err := m.Users(users)
	if err != nil {
		return nil, nil, errors.Join(err, m.Close())
	}
	rng := rand.New(rand.NewPCG(1, 1))
	return m, func(liked bool) []sampler.Job {
		jobs := make([]sampler.Job, crowd)
		for i := range jobs {
			jobs[i] = sampler.Job{Cond: conds[i], Seed: rng.Uint64()}
			if liked {
				jobs[i].Window = prior.Context{{Item: item(rng, cfg.Dim), Class: prior.StrongPositive}}
			}
		}
		return jobs
	}, nil
}

// passes counts the rows of a sample.
func passes(cfg prior.Config, w way) float64 {
	c := &counter{cfg: cfg}
	job := sampler.Job{}
	if w.liked {
		job.Window = prior.Context{{Item: make([]float32, cfg.Dim), Class: prior.StrongPositive}}
	}
	if _, err := sampler.Sample(c, w.options, []sampler.Job{job}); err != nil {
		panic("bench/sampler: " + err.Error())
	}
	return float64(c.rows)
}

// counter is a denoiser that counts.
type counter struct {
	cfg  prior.Config
	rows int
}

func (c *counter) Config() prior.Config                               { return c.cfg }
func (c *counter) Stats() prior.Stats                                 { return unitStats(c.cfg.Dim) }
func (c *counter) Encode([]prior.Context) ([]*prior.Condition, error) { return nil, nil }
func (c *counter) Denoise(_, _ []float32, rows []prior.Row) error     { c.rows += len(rows); return nil }

func unitStats(dim int) prior.Stats {
	stats := prior.Stats{Mean: make([]float32, dim), Scale: make([]float32, dim)}
	for i := range stats.Scale {
		stats.Scale[i] = 1
	}
	return stats
}

func item(rng *rand.Rand, dim int) []float32 {
	e := make([]float32, dim)
	for i := range e {
		e[i] = float32(rng.NormFloat64())
	}
	return e
}
