package main

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"rebeca/internal/ort"
	"rebeca/prior"
	"rebeca/prior/graph"
)

// benchCase is one line of the table: a network and what is timed of it.
type benchCase struct {
	name string
	runs int  // in a block
	peak bool // compare with the machine's sgemm peak
	open func(ort.Options) (*engine, error)
}

func cases() []benchCase {
	return []benchCase{
		{name: "window_step", runs: 10, open: openWindowStep},
		{name: "train_step", runs: 4, peak: true, open: openTrainStep},
		{name: "forward1", runs: 10, open: func(o ort.Options) (*engine, error) { return openForward(1, o) }},
		{name: "forward64", runs: 4, open: func(o ort.Options) (*engine, error) { return openForward(64, o) }},
	}
}

// engine is our side of a case.
type engine struct {
	flops float64 // of the matrix products of a run
	run   func() error
	close func() error
}

// warmup is the number of runs before the first that counts.
const warmup = 3

// block makes so many runs and returns their times in milliseconds.
func (e *engine) block(runs int) ([]float64, error) {
	times := make([]float64, runs)
	for i := range times {
		start := time.Now()
		if err := e.run(); err != nil {
			return nil, err
		}
		times[i] = float64(time.Since(start).Nanoseconds()) / 1e6
	}
	return times, nil
}

// allocs is the number of allocations of a run in Go.
func (e *engine) allocs() float64 {
	return testing.AllocsPerRun(5, func() {
		if err := e.run(); err != nil {
			panic(err)
		}
	})
}

func (e *engine) warm() (*engine, error) {
	for range warmup {
		if err := e.run(); err != nil {
			return nil, errors.Join(err, e.close())
		}
	}
	return e, nil
}

// openWindowStep is the training step of the service: 64 users with full windows of 48 entries, 4 targets each, in 16 dimensions.
func openWindowStep(o ort.Options) (*engine, error) {
	cfg := prior.DefaultConfig(16)
	cfg.Kind, cfg.MaxTokens = "mlp", 48
	batch := new(prior.Batch)
	rng := rand.New(rand.NewPCG(1, 1))
	for c := range cfg.Contexts {
		var context prior.Context
		for range cfg.MaxTokens {
			context = append(context, prior.Entry{Item: item(rng, cfg.Dim), Class: prior.Class(1 + rng.IntN(prior.NumClasses))})
		}
		batch.Contexts = append(batch.Contexts, context)
		for range cfg.Targets {
			batch.Targets = append(batch.Targets, prior.Target{Context: c, Item: item(rng, cfg.Dim), Label: prior.Class(rng.IntN(1 + prior.NumClasses))})
		}
	}
	return openStep(cfg, batch, o)
}

// paperBatch is the published prior's number of rows in a training batch.
const paperBatch = 64

// paperConfig is the published prior: 1024 dimensions as 32 tokens of 128 channels, 6 blocks of 8 heads, 210 users.
func paperConfig() prior.Config {
	cfg := prior.DefaultConfig(1024)
	cfg.Kind, cfg.Users, cfg.Contexts, cfg.Targets, cfg.MaxTokens = "reference", 210, paperBatch, 1, 1
	return cfg
}

// openTrainStep is a training step of the published prior.
func openTrainStep(o ort.Options) (*engine, error) {
	cfg := paperConfig()
	batch := new(prior.Batch)
	rng := rand.New(rand.NewPCG(1, 1))
	for c := range paperBatch {
		batch.Users = append(batch.Users, rng.IntN(cfg.Users))
		label := []prior.Class{prior.ClassNone, prior.StrongPositive, prior.StrongNegative}[rng.IntN(3)]
		batch.Targets = append(batch.Targets, prior.Target{Context: c, Item: item(rng, cfg.Dim), Label: label})
	}
	return openStep(cfg, batch, o)
}

func item(rng *rand.Rand, dim int) []float32 {
	e := make([]float32, dim)
	for i := range e {
		e[i] = float32(rng.NormFloat64())
	}
	return e
}

// openStep is a training step of a new prior on one batch, over and over.
func openStep(cfg prior.Config, batch *prior.Batch, o ort.Options) (*engine, error) {
	state, err := prior.NewState(cfg, unitStats(cfg.Dim), 1)
	if err != nil {
		return nil, err
	}
	l, err := prior.NewLearner(state, o)
	if err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(1, 1))
	step := func() error {
		_, err := l.Step(batch, 1e-4, rng)
		return err
	}
	return (&engine{flops: cfg.Cost().Step, run: step, close: l.Close}).warm()
}

// openForward is a prediction of the published prior for so many rows, each of another user.
func openForward(count int, o ort.Options) (*engine, error) {
	cfg := paperConfig()
	state, err := prior.NewState(cfg, unitStats(cfg.Dim), 1)
	if err != nil {
		return nil, err
	}
	m, err := prior.NewModel(state, o)
	if err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(1, 1))
	users := make([]int, count)
	for i := range users {
		users[i] = rng.IntN(cfg.Users)
	}
	conditions, err := m.Users(users)
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	rows := make([]prior.Row, count)
	for i := range rows {
		rows[i] = prior.Row{T: 500, Label: prior.StrongPositive, Cond: conditions[i]}
	}
	x := item(rng, count*cfg.Dim)
	z := make([]float32, len(x))
	run := func() error { return m.Denoise(z, x, rows) }
	return (&engine{flops: float64(count) * cfg.Cost().Denoise, run: run, close: m.Close}).warm()
}

func unitStats(dim int) prior.Stats {
	stats := prior.Stats{Mean: make([]float32, dim), Scale: make([]float32, dim)}
	for i := range stats.Scale {
		stats.Scale[i] = 1
	}
	return stats
}

// openProduct is one product of square matrices of the size at which sgemm is at its best.
func openProduct(o ort.Options) (*engine, error) {
	const n = 1024
	g := graph.New("product")
	g.Output("c", g.MatMul(g.Input("a", n, n), g.Input("b", n, n)))
	e, err := openGraph(g, o)
	if err != nil {
		return nil, err
	}
	return e.warm()
}

// openGraph runs a graph on inputs drawn from a normal distribution of standard deviation .1.
func openGraph(g *graph.Graph, o ort.Options) (*engine, error) {
	session, err := g.Compile(o)
	if err != nil {
		return nil, err
	}
	e := &engine{flops: g.Flops(), close: session.Close}
	rng := rand.New(rand.NewPCG(1, 2))
	tensors := func(shapes [][]int) []*ort.Tensor {
		var out []*ort.Tensor
		for _, shape := range shapes {
			var dims []int64
			for _, n := range shape {
				dims = append(dims, int64(n))
			}
			t := ort.NewTensor(dims...)
			for i := range t.Data() {
				t.Data()[i] = float32(.1 * rng.NormFloat64())
			}
			out = append(out, t)
		}
		return out
	}
	binding, err := session.Bind(tensors(g.InputShapes()), tensors(g.OutputShapes()))
	if err != nil {
		return nil, errors.Join(err, session.Close())
	}
	e.run = binding.Run
	e.close = func() error { return errors.Join(binding.Close(), session.Close()) }
	return e, nil
}
