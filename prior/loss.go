package prior

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sort"
)

// Loss says what a prior learns to predict, and at which noise levels. An empty name means the first of its list, which
// is the default; the numbers of a choice that is not made must be 0. It is fixed when a prior is born, since a network
// is of no use under another objective or schedule.
//
// A target z and noise ε give x_t = α z + σ ε with α² = ᾱ_t, σ² = 1 - ᾱ_t; λ = ln(α/σ).
type Loss struct {
	// Objective is the network's output: "x0", z; "epsilon", ε; "v", α ε - σ z (Salimans & Ho 2022).
	Objective string `json:"objective" yaml:"objective"`
	// Schedule gives ᾱ_t: "cosine" (Nichol & Dhariwal 2021), "linear" (β from 1e-4 to .02, Ho et al. 2020), "laplace" as
	// the published prior used it (arXiv 2502.18477: a square root stands where ᾱ belongs).
	Schedule string `json:"schedule" yaml:"schedule"`
	// TimeSampling draws the timestep of a target: "uniform" in 1..T, or "lognormal": λ ~ N(TimeMean, TimeStd²), then the
	// timestep whose λ is nearest.
	TimeSampling string  `json:"time_sampling" yaml:"time_sampling"`
	TimeMean     float64 `json:"time_mean,omitzero" yaml:"time_mean"`
	TimeStd      float64 `json:"time_std,omitzero" yaml:"time_std"`
	// Weighting weighs a target's squared error: "none", or "min_snr" (Hang et al. 2023, with a floor of 1): with the
	// signal-to-noise ratio S = ᾱ/(1-ᾱ), x0 has weight min(S+1, Gamma), v min(S+1, Gamma)/(S+1), which is the same in
	// terms of z, and epsilon min(S, Gamma)/S.
	Weighting string  `json:"weighting" yaml:"weighting"`
	Gamma     float64 `json:"gamma,omitzero" yaml:"gamma"`
}

const (
	objectiveX0      = "x0"
	objectiveEpsilon = "epsilon"
	objectiveV       = "v"

	scheduleCosine  = "cosine"
	scheduleLinear  = "linear"
	scheduleLaplace = "laplace"

	timeUniform   = "uniform"
	timeLognormal = "lognormal"

	weightNone   = "none"
	weightMinSNR = "min_snr"
)

// DefaultLoss is x0 under the cosine schedule at uniform timesteps, every error weighed alike.
func DefaultLoss() Loss {
	return Loss{Objective: objectiveX0, Schedule: scheduleCosine, TimeSampling: timeUniform, Weighting: weightNone}
}

// resolved replaces empty names by the defaults.
func (l Loss) resolved() Loss {
	d := DefaultLoss()
	for _, f := range []struct{ name, standard *string }{
		{&l.Objective, &d.Objective}, {&l.Schedule, &d.Schedule}, {&l.TimeSampling, &d.TimeSampling}, {&l.Weighting, &d.Weighting},
	} {
		if *f.name == "" {
			*f.name = *f.standard
		}
	}
	return l
}

// Validate names the first field that is out of range.
func (l Loss) Validate() error {
	l = l.resolved()
	for _, f := range []struct {
		name, value string
		choices     []string
	}{
		{"objective", l.Objective, []string{objectiveX0, objectiveEpsilon, objectiveV}},
		{"schedule", l.Schedule, []string{scheduleCosine, scheduleLinear, scheduleLaplace}},
		{"time_sampling", l.TimeSampling, []string{timeUniform, timeLognormal}},
		{"weighting", l.Weighting, []string{weightNone, weightMinSNR}},
	} {
		if err := oneOf(f.name, f.value, f.choices...); err != nil {
			return err
		}
	}
	const widest = 20 // of λ; beyond it float32 knows signal or noise only
	if lognormal := l.TimeSampling == timeLognormal; lognormal && !(math.Abs(l.TimeMean) <= widest) || !lognormal && l.TimeMean != 0 {
		return fmt.Errorf("time_mean: %v is not within %d of 0, and 0 without lognormal", l.TimeMean, widest)
	} else if lognormal && !(l.TimeStd > 0 && l.TimeStd <= widest) || !lognormal && l.TimeStd != 0 {
		return fmt.Errorf("time_std: %v is not above 0 and at most %d, and 0 without lognormal", l.TimeStd, widest)
	}
	if minSNR := l.Weighting == weightMinSNR; minSNR && !(l.Gamma > 0 && l.Gamma <= 1e6) || !minSNR && l.Gamma != 0 {
		return fmt.Errorf("gamma: %v is not above 0 and at most 1e6, and 0 without min_snr", l.Gamma)
	}
	return nil
}

// AlphaBar returns ᾱ_t of the prior's schedule, the share of signal variance at timestep t in 0..Timesteps: 1 at t = 0.
// Step t of DDPM's tables, which count from 0 and have no clean step, is t + 1 here. It takes time in proportion to t
// where the schedule is given by its β.
func (c Config) AlphaBar(t int) float64 {
	switch c.Loss.resolved().Schedule {
	case scheduleLinear:
		return product(t, linearBeta(c.Timesteps))
	case scheduleLaplace:
		return product(t, quotientBeta(laplace, c.Timesteps))
	}
	return AlphaBar(t, c.Timesteps)
}

// LogSNR returns ln(α_t/σ_t) of the prior's schedule; +Inf at t = 0.
func (c Config) LogSNR(t int) float64 {
	a := c.AlphaBar(t)
	return math.Log(a/(1-a)) / 2
}

// Betas returns β_t = 1 - ᾱ_t/ᾱ_t-1 for t in 1..Timesteps, at [t-1], as ancestral samplers tabulate them: at most .999. Their
// product is AlphaBar but for the last step of the cosine, which has a floor there.
func (c Config) Betas() []float64 {
	beta := quotientBeta(cosine, c.Timesteps)
	switch c.Loss.resolved().Schedule {
	case scheduleLinear:
		beta = linearBeta(c.Timesteps)
	case scheduleLaplace:
		beta = quotientBeta(laplace, c.Timesteps)
	}
	out := make([]float64, c.Timesteps)
	for i := range out {
		out[i] = beta(i)
	}
	return out
}

// product is ᾱ_t, the product of 1 - β_i over i < t.
func product(t int, beta func(i int) float64) float64 {
	bar := 1.
	for i := range t {
		bar *= 1 - beta(i)
	}
	return bar
}

// linearBeta rises from 1e-4 to .02 over 1,000 steps; other numbers of steps carry the same noise in all.
func linearBeta(T int) func(i int) float64 {
	first, last := .1/float64(T), min(20/float64(T), maxBeta)
	return func(i int) float64 {
		if T == 1 {
			return last
		}
		return first + (last-first)*float64(i)/float64(T-1)
	}
}

const maxBeta = .999

// quotientBeta is 1 - f((i+1)/T)/f(i/T), at most .999: the β of a schedule given by f.
func quotientBeta(f func(u float64) float64, T int) func(i int) float64 {
	return func(i int) float64 {
		return min(1-f(float64(i+1)/float64(T))/f(float64(i)/float64(T)), maxBeta)
	}
}

// laplace is the published prior's schedule: the root of the signal's share where λ is Laplace distributed (arXiv 2502.18477).
func laplace(u float64) float64 {
	side := 1.
	if u > .5 {
		side = -1
	}
	snr := math.Exp(-.5 * side * math.Log(1-2*math.Abs(.5-u)+1e-6))
	return math.Sqrt(snr / (1 + snr))
}

// diffusion is a Loss over the timesteps of one configuration.
type diffusion struct {
	Loss
	bars []float64 // [T+1], ᾱ
}

func newDiffusion(c Config) *diffusion {
	d := &diffusion{Loss: c.Loss.resolved(), bars: make([]float64, c.Timesteps+1)}
	switch d.Schedule {
	case scheduleCosine:
		for t := range d.bars {
			d.bars[t] = AlphaBar(t, c.Timesteps)
		}
	default:
		beta := linearBeta(c.Timesteps)
		if d.Schedule == scheduleLaplace {
			beta = quotientBeta(laplace, c.Timesteps)
		}
		d.bars[0] = 1
		for t := range c.Timesteps {
			d.bars[t+1] = d.bars[t] * (1 - beta(t))
		}
	}
	return d
}

// scales are the factors α of signal and σ of noise at timestep t.
func (d *diffusion) scales(t int) (alpha, sigma float64) {
	return math.Sqrt(d.bars[t]), math.Sqrt(1 - d.bars[t])
}

// drawTime draws the timestep of a target, in 1..T.
func (d *diffusion) drawTime(rng *rand.Rand) int {
	last := len(d.bars) - 1
	if d.TimeSampling == timeUniform {
		return 1 + rng.IntN(last)
	}
	lambda := d.TimeMean + d.TimeStd*rng.NormFloat64()
	at := func(t int) float64 { return math.Log(d.bars[t]/(1-d.bars[t])) / 2 }
	// The first timestep at or below λ, which falls with t; the one before it may be nearer.
	t := 1 + sort.Search(last-1, func(i int) bool { return at(i+1) <= lambda })
	if t > 1 && at(t-1)-lambda < lambda-at(t) {
		t--
	}
	return t
}

// target is what the network should say of one dimension.
func (d *diffusion) target(z float32, noise, alpha, sigma float64) float32 {
	switch d.Objective {
	case objectiveEpsilon:
		return float32(noise)
	case objectiveV:
		return float32(alpha*noise - sigma*float64(z))
	}
	return z
}

// weight is what a squared error at timestep t in 1..T counts.
func (d *diffusion) weight(t int) float64 {
	if d.Weighting == weightNone {
		return 1
	}
	snr := d.bars[t] / (1 - d.bars[t])
	switch d.Objective {
	case objectiveEpsilon:
		return min(snr, d.Gamma) / snr
	case objectiveV:
		return min(snr+1, d.Gamma) / (snr + 1)
	}
	return min(snr+1, d.Gamma)
}

// minSignal bounds the division by α that turns noise into an estimate: where α is smaller, which is where ln(α/σ) < -3
// and x knows next to nothing of z, an error of the network would be blown up without end. The estimate then shrinks
// towards the mean, which is the truth at pure noise.
const minSignal = .05

// estimate writes to dst the z that a prediction for x at timestep t stands for. All are of one row; dst may be prediction.
func (d *diffusion) estimate(dst, x, prediction []float32, t int) {
	alpha, sigma := d.scales(t)
	switch d.Objective {
	case objectiveX0:
		copy(dst, prediction)
	case objectiveEpsilon:
		inverse := 1 / max(alpha, minSignal)
		for i, p := range prediction {
			dst[i] = float32((float64(x[i]) - sigma*float64(p)) * inverse)
		}
	case objectiveV:
		for i, p := range prediction {
			dst[i] = float32(alpha*float64(x[i]) - sigma*float64(p))
		}
	}
}
