package sampler

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
)

// Ancestral draws one embedding [Dim] for each job, in the catalogue's scale, by DDPM (Ho et al., arXiv 2006.11239) over every timestep
// from T to 1, with the variance of the posterior and no clipping: the sampler of the published prior (arXiv 2502.18477), which used
// guidance 5 at every noise level, see [Everywhere]. It takes T calls of d, where [Sample] takes a few; who compares with neither that
// prior nor the exact chain wants Sample.
//
// Of o it takes all that concerns guidance; every timestep is a step and every job starts from noise. A prior that knows no null label,
// as that of the synthetic study, takes guidance 1. After each timestep progress, if not nil, is told how many of the total are done.
// The end of ctx is an error.
//
// A job's result depends on the job, o and d alone: all its noise comes from its seed.
func Ancestral(ctx context.Context, d Denoiser, o Options, jobs []Job, progress func(done, total int)) ([][]float32, error) {
	o.Solver, o.Anchor = DDIM, Anchor{} // neither is used
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("sampler options: %w", err)
	}
	starts := make([]start, len(jobs))
	for i := range starts {
		starts[i].place = i
	}
	r, err := newRun(d, d.Config(), o, jobs, starts)
	if err != nil {
		return nil, err
	}
	streams := make([]*rand.Rand, len(jobs))
	for i, j := range jobs {
		streams[i] = rand.New(rand.NewPCG(j.Seed, pcgStream))
	}
	if progress == nil {
		progress = func(int, int) {}
	}
	return r.ancestral(ctx, func(job int, dst []float64) {
		for i := range dst {
			dst[i] = streams[job].NormFloat64()
		}
	}, progress)
}

// Everywhere is constant guidance, at every noise level.
func Everywhere(guidance float64) Options {
	o := DefaultOptions()
	o.Guidance, o.Low, o.High = guidance, math.Inf(-1), math.Inf(1)
	return o
}

// ancestral walks every job from T to 1. draw gives a job's noise, [dim]: x_T first, then that of each timestep above 1. The state is
// kept in float64, so that a thousand roundings do not add up.
func (r *run) ancestral(ctx context.Context, draw func(job int, dst []float64), progress func(done, total int)) ([][]float32, error) {
	betas := r.cfg.Betas()
	total, bars := len(betas), make([]float64, len(betas)+1)
	bars[0] = 1
	for i, beta := range betas {
		bars[i+1] = bars[i] * (1 - beta)
	}
	x, noise := make([]float64, r.n*r.dim), make([]float64, r.dim)
	for job := range r.n {
		draw(job, x[job*r.dim:(job+1)*r.dim])
	}
	for t := total; t >= 1; t-- {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("sampling at t=%d: %w", t, err)
		}
		for i, v := range x {
			r.x[i] = float32(v)
		}
		for i := range r.t {
			r.t[i] = t
		}
		if err := r.estimate(r.n); err != nil {
			return nil, err
		}
		bar, before, beta := bars[t], bars[t-1], betas[t-1]
		of0, ofX := math.Sqrt(before)*beta/(1-bar), math.Sqrt(1-beta)*(1-before)/(1-bar)
		for i := range x {
			x[i] = of0*float64(r.x0[i]) + ofX*x[i]
		}
		if deviation := math.Sqrt((1 - before) / (1 - bar) * beta); t > 1 {
			for job := range r.n {
				draw(job, noise)
				for i, e := range noise {
					x[job*r.dim+i] += deviation * e
				}
			}
		}
		progress(total-t+1, total)
	}
	for i, v := range x {
		r.x[i] = float32(v)
	}
	for job := range r.n {
		r.finish(job, r.job(r.x, job))
	}
	return r.out, nil
}
