package main

import (
	"context"
	"errors"
	"image"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"rebeca/eval/shapes"
	"rebeca/internal/figures"
	"rebeca/internal/ort"
	"rebeca/prior"
	"rebeca/sampler"
)

const (
	window   = 52 // entries, a full one
	together = 32 // embeddings of a batch at most, as the service has them
	// patience is the latency that 99 of 100 requests must keep.
	patience = 100 * time.Millisecond
	trial    = 3 * time.Second
)

// throughput finds how many embeddings of 16 dimensions a second reach people in time, with and without a trainer at work.
func throughput(ctx context.Context, s settings, got figures.Figures) (err error) {
	cfg := prior.DefaultConfig(16)
	cfg.MaxTokens = window
	state, err := prior.NewState(cfg, unitStats(cfg.Dim), 1)
	if err != nil {
		return err
	}
	m, err := prior.NewModel(state, ort.Options{Threads: s.threads})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	rng := rand.New(rand.NewPCG(1, 1))
	batch := new(prior.Batch)
	for range cfg.Contexts {
		var c prior.Context
		for range window {
			c = append(c, prior.Entry{Item: item(rng, cfg.Dim), Class: prior.StrongPositive})
		}
		batch.Contexts = append(batch.Contexts, c)
		for range cfg.Targets {
			batch.Targets = append(batch.Targets, prior.Target{Context: len(batch.Contexts) - 1, Item: item(rng, cfg.Dim), Label: prior.StrongPositive})
		}
	}
	for name, o := range map[string]sampler.Options{"": sampler.DefaultOptions(), "_from_noise": timed()[0].options} {
		l := load{model: m, options: o, contexts: batch.Contexts}
		if err := l.best(ctx, "quiet"+name, got); err != nil {
			return err
		}
		learner, err := prior.NewLearner(state, ort.Options{Threads: 1})
		if err != nil {
			return err
		}
		err = besides(ctx, func() error {
			_, err := learner.Step(batch, 1e-5, rng)
			return err
		}, func(ctx context.Context) error { return l.best(ctx, "training"+name, got) })
		if err := errors.Join(err, learner.Close()); err != nil {
			return err
		}
	}
	return nil
}

// besides repeats what works in the background until do is done.
func besides(ctx context.Context, background func() error, do func(context.Context) error) error {
	g, ctx := errgroup.WithContext(ctx)
	done := make(chan struct{})
	g.Go(func() error {
		defer close(done)
		return do(ctx)
	})
	g.Go(func() error {
		for {
			select {
			case <-done:
				return nil
			default:
				if err := background(); err != nil {
					return err
				}
			}
		}
	})
	return g.Wait()
}

// load is people who ask again as soon as they have been answered.
type load struct {
	model    *prior.Model
	options  sampler.Options
	contexts []prior.Context
}

// best asks with more and more people and notes the most embeddings a second whose 99th percentile keeps patience.
func (l load) best(ctx context.Context, name string, got figures.Figures) error {
	for _, people := range []int{8, 16, 32, 64, 96, 128, 192} {
		rate, p99, err := l.ask(ctx, people)
		if err != nil {
			return err
		}
		if p99 <= patience && rate > got["embeddings_per_s_"+name] {
			got["embeddings_per_s_"+name], got["embeddings_p99_"+name+"_ms"] = rate, float64(p99.Microseconds())/1e3
			got["embeddings_asking_"+name] = float64(people)
		}
	}
	return nil
}

// ask answers so many people for a while as the service does: those who wait are taken together, windows read anew, at most a batch.
func (l load) ask(ctx context.Context, people int) (rate float64, p99 time.Duration, err error) {
	asked := make([]time.Time, people) // those that wait, first come first served
	for i := range asked {
		asked[i] = time.Now()
	}
	var latencies []time.Duration
	seed, start := uint64(0), time.Now()
	for time.Since(start) < trial {
		if err := ctx.Err(); err != nil {
			return 0, 0, err
		}
		n := min(people, together)
		contexts := make([]prior.Context, n)
		for i := range contexts {
			contexts[i] = l.contexts[(int(seed)+i)%len(l.contexts)]
		}
		conds, err := l.model.Encode(contexts)
		if err != nil {
			return 0, 0, err
		}
		jobs := make([]sampler.Job, n)
		for i := range jobs {
			jobs[i] = sampler.Job{Cond: conds[i], Window: contexts[i], Seed: seed}
			seed++
		}
		if _, err := sampler.Sample(l.model, l.options, jobs); err != nil {
			return 0, 0, err
		}
		now := time.Now()
		for _, at := range asked[:n] {
			latencies = append(latencies, now.Sub(at))
		}
		asked = append(asked[n:], slices.Repeat([]time.Time{now}, n)...)
	}
	slices.Sort(latencies)
	return float64(len(latencies)) / time.Since(start).Seconds(), latencies[len(latencies)*99/100], nil
}

// decode times the demonstration's decoder on batches of 64 embeddings.
func decode(ctx context.Context, s settings, got figures.Figures) (err error) {
	d, err := sampler.OpenDecoder(shapes.Codec(), "manifest.json", ort.Options{Threads: s.threads})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	rng := rand.New(rand.NewPCG(1, 1))
	embeddings := make([][]float32, crowd)
	for i := range embeddings {
		embeddings[i] = item(rng, d.Dim())
	}
	var images []image.Image
	var times, packing []float64
	for range 10 {
		ms, err := elapsed(func() (err error) {
			images, err = d.Decode(ctx, embeddings, nil, nil)
			return err
		})
		if err != nil {
			return err
		}
		times = append(times, ms/crowd)
		ms, err = elapsed(func() error {
			for _, img := range images {
				if _, err := sampler.PNG(img); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		packing = append(packing, ms/crowd)
	}
	slices.Sort(times)
	slices.Sort(packing)
	got["shapes_decode_ms"], got["shapes_decode_median_ms"] = times[0], times[len(times)/2]
	got["shapes_png_ms"] = packing[0]
	return nil
}
