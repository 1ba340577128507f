package sampler

import (
	"fmt"
	"math"

	"rebeca/prior"
)

// Solver is a way to take a step of the reverse diffusion.
type Solver string

const (
	// DDIM is the first order (Song et al., arXiv 2010.02502, eta 0), exact where the estimate does not change over a step.
	DDIM Solver = "ddim"
	// DPMSolver2M is DPM-Solver++(2M) (Lu et al., arXiv 2211.01095, algorithm 2): the second order, by the estimate of the step before.
	// The first step and the one to the clean embedding are of the first order.
	DPMSolver2M Solver = "dpmpp_2m"
)

func (s Solver) validate() error {
	switch s {
	case "", DDIM, DPMSolver2M:
		return nil
	}
	return fmt.Errorf("%q is not %s or %s", string(s), DDIM, DPMSolver2M)
}

// noiseLevel is a noise level: the factors of signal and noise in x_t, and the logarithm of their ratio.
type noiseLevel struct{ alpha, sigma, logSNR float64 }

func (r *run) level(t int) noiseLevel {
	l, ok := r.levels[t]
	if !ok {
		l.alpha, l.sigma = scales(r.cfg, t)
		l.logSNR = r.cfg.LogSNR(t)
		r.levels[t] = l
	}
	return l
}

// scales are the factors of signal and noise in x_t.
func scales(cfg prior.Config, t int) (alpha, sigma float64) {
	bar := cfg.AlphaBar(t)
	return math.Sqrt(bar), math.Sqrt(1 - bar)
}

// step moves job i from time grid[k] to the next; the step from the last is to the estimate itself.
//
//	x' = alpha' x0 + sigma' (x - alpha x0) / sigma
//
// gathered to one factor for x0 and one for x. It is exp(λ'-λ), λ = ln(alpha/sigma), in another form, and so the second order has the
// same factors with D = x0 + (x0 - x0 before)/2r, r = (λ - λ before)/(λ' - λ), in place of x0.
func (r *run) step(i int, grid []int, k int) {
	x, x0 := r.job(r.x, i), r.job(r.x0, i)
	if k+1 == len(grid) {
		r.finish(i, x0)
		return
	}
	now, next := r.level(grid[k]), r.level(grid[k+1])
	ofX := float32(next.sigma / now.sigma)
	ofX0 := float32(next.alpha - next.sigma*now.alpha/now.sigma)
	if r.before == nil {
		for d, v := range x0 {
			x[d] = ofX0*v + ofX*x[d]
		}
		return
	}
	var change float32 // 1/2r; next is clean, and λ' infinite, where its noise is 0
	if k > 0 && next.sigma > 0 {
		change = float32((next.logSNR - now.logSNR) / (now.logSNR - r.level(grid[k-1]).logSNR) / 2)
	}
	before := r.job(r.before, i)
	for d, v := range x0 {
		x[d] = ofX0*(v+change*(v-before[d])) + ofX*x[d]
	}
	copy(before, x0)
}
