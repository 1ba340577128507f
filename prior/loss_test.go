package prior

import (
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestSchedules holds ᾱ against the values published for 1,000 steps; step t of the tables is t + 1 here.
func TestSchedules(t *testing.T) {
	for _, c := range []struct {
		schedule string
		want     map[int]float64
		within   float64
	}{
		{scheduleLaplace, map[int]float64{0: .97885, 10: .93365, 100: .83103, 250: .76543, 500: .70728, 750: .64354, 900: .55521, 990: .34411, 998: .20703, 999: .03162}, 6e-6},
		{scheduleCosine, map[int]float64{0: .99996, 10: .99928, 100: .97158, 250: .84589, 500: .49229, 750: .14318, 900: .02362, 990: 1.97e-4, 998: 2e-6, 999: 0}, 6e-6},
		// β from 1e-4 to .02: the product to the end is known from Ho et al. 2020 as 4.04e-5.
		{scheduleLinear, map[int]float64{0: .9999, 999: 4.04e-5}, 1e-7},
	} {
		cfg := Config{Timesteps: 1000, Loss: Loss{Schedule: c.schedule}}
		d := newDiffusion(cfg)
		for step, want := range c.want {
			got := cfg.AlphaBar(step + 1)
			if math.Abs(got-want) > c.within {
				t.Errorf("%s: step %d has %.7f, want %.5f", c.schedule, step, got, want)
			}
			if got != d.bars[step+1] {
				t.Errorf("%s: step %d has %v alone and %v in the table", c.schedule, step, got, d.bars[step+1])
			}
		}
		for step := range 1000 {
			if !(d.bars[step+1] < d.bars[step] && d.bars[step+1] > 0) {
				t.Fatalf("%s: ᾱ does not fall at step %d", c.schedule, step)
			}
		}
		if cfg.AlphaBar(0) != 1 || !math.IsInf(cfg.LogSNR(0), 1) {
			t.Errorf("%s: step 0 is not clean", c.schedule)
		}
	}
	beta := quotientBeta(laplace, 1000)
	if got := beta(999); math.Abs(got-.847) > 5e-4 {
		t.Errorf("the last β of laplace is %v, want .847", got)
	}
}

// TestCosineIsDDPMs holds the closed form against the product of capped β, which differ at the last step only.
func TestCosineIsDDPMs(t *testing.T) {
	cfg := Config{Timesteps: 1000}
	for step, want := range cosineBars(1000) {
		if got := cfg.AlphaBar(step + 1); math.Abs(got-want) > 1e-8+1e-9*want {
			t.Errorf("step %d has %v, want %v", step, got, want)
		}
	}
	if betas := cfg.Betas(); betas[999] != .999 || math.Abs(betas[998]-.75) > 1e-5 {
		t.Errorf("the last two β are %v and %v, want .75 and the cap, .999", betas[998], betas[999])
	}
}

// cosineBars is ᾱ of squaredcos_cap_v2, from the table's step 0 on.
func cosineBars(T int) []float64 {
	out, bar := make([]float64, T), 1.
	for i, beta := range (Config{Timesteps: T}).Betas() {
		bar *= 1 - beta
		out[i] = bar
	}
	return out
}

// TestObjectivesEstimate: whatever the objective, a perfect prediction is turned back into z.
func TestObjectivesEstimate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := Config{Timesteps: 100, Loss: Loss{
			Objective: rapid.SampledFrom([]string{objectiveX0, objectiveEpsilon, objectiveV}).Draw(t, "objective"),
			Schedule:  rapid.SampledFrom([]string{scheduleCosine, scheduleLinear, scheduleLaplace}).Draw(t, "schedule"),
		}}
		d := newDiffusion(cfg)
		z, noise := rapid.Float32Range(-3, 3).Draw(t, "z"), rapid.Float64Range(-3, 3).Draw(t, "noise")
		at := rapid.IntRange(0, 100).Draw(t, "t")
		alpha, sigma := d.scales(at)
		x := []float32{float32(alpha*float64(z) + sigma*noise)}
		got := []float32{d.target(z, noise, alpha, sigma)}
		d.estimate(got, x, got, at)
		want := float64(z)
		if d.Objective == objectiveEpsilon && alpha < minSignal {
			want *= alpha / minSignal // shrunk towards the mean
		}
		if math.Abs(float64(got[0])-want) > 2e-5 {
			t.Fatalf("%v at %d of %s became %v, want %v", z, at, d.Schedule, got[0], want)
		}
	})
}

// TestEpsilonIsBoundedInPureNoise: where x knows nothing of z, an error of the predicted noise stays an error of its size.
func TestEpsilonIsBoundedInPureNoise(t *testing.T) {
	d := newDiffusion(Config{Timesteps: 1000, Loss: Loss{Objective: objectiveEpsilon}})
	got := make([]float32, 1)
	d.estimate(got, []float32{1}, []float32{.98}, 1000)
	if math.Abs(float64(got[0])) > .41 {
		t.Errorf("an error of .02 became one of %v", got[0])
	}
}

// TestWeightsAreOfOneLoss: the squared error of v is (S+1) times that of z, so v's weight must be 1/(S+1) of x0's.
func TestWeightsAreOfOneLoss(t *testing.T) {
	loss := Loss{Weighting: weightMinSNR, Gamma: 6}
	weigh := func(objective string, at int) float64 {
		loss.Objective = objective
		return newDiffusion(Config{Timesteps: 100, Loss: loss}).weight(at)
	}
	for at := 1; at <= 100; at++ {
		bar := AlphaBar(at, 100)
		snr := bar / (1 - bar)
		if w, want := weigh(objectiveX0, at), min(snr+1, 6); w != want {
			t.Errorf("x0 at %d has weight %v, want %v", at, w, want)
		}
		if w, want := weigh(objectiveV, at)*(snr+1), weigh(objectiveX0, at); math.Abs(w-want) > 1e-12*want {
			t.Errorf("v at %d has weight %v of z, x0 has %v", at, w, want)
		}
		if w, want := weigh(objectiveEpsilon, at)*snr, min(snr, 6); math.Abs(w-want) > 1e-12*want {
			t.Errorf("epsilon at %d has weight %v of z, want %v", at, w, want)
		}
	}
}

// TestLognormalTimes: λ of drawn timesteps has the mean and the spread asked for, and the drawn timestep is the nearest.
func TestLognormalTimes(t *testing.T) {
	cfg := Config{Timesteps: 1000, Loss: Loss{TimeSampling: timeLognormal, TimeMean: -.3, TimeStd: 1.2}}
	d := newDiffusion(cfg)
	rng := newRand(1)
	const n = 20_000
	var sum, squares float64
	for range n {
		l := cfg.LogSNR(d.drawTime(rng))
		sum += l / n
		squares += l * l / n
	}
	if std := math.Sqrt(squares - sum*sum); math.Abs(sum+.3) > .03 || math.Abs(std-1.2) > .03 {
		t.Errorf("λ has mean %.3f and deviation %.3f, want -.3 and 1.2", sum, std)
	}
	for _, c := range []struct {
		mean float64
		want int
	}{{20, 1}, {-20, 1000}, {cfg.LogSNR(400) + 1e-7, 400}, {cfg.LogSNR(400) - 1e-7, 400}} {
		cfg.Loss.TimeMean, cfg.Loss.TimeStd = c.mean, 1e-12
		if got := newDiffusion(cfg).drawTime(rng); got != c.want {
			t.Errorf("λ = %v is drawn at %d, want %d", c.mean, got, c.want)
		}
	}
}

func TestLossValidate(t *testing.T) {
	for _, good := range []Loss{{}, DefaultLoss(), {Objective: "v", TimeSampling: "lognormal", TimeStd: 1}, {Weighting: "min_snr", Gamma: 5}} {
		if err := good.Validate(); err != nil {
			t.Errorf("%+v: %v", good, err)
		}
	}
	for want, bad := range map[string]Loss{
		`objective: "eps" is not one of x0, epsilon, v`: {Objective: "eps"},
		`schedule: "cos"`:       {Schedule: "cos"},
		`time_sampling: "log"`:  {TimeSampling: "log"},
		`weighting: "snr"`:      {Weighting: "snr"},
		"time_mean: 0.5":        {TimeMean: .5},
		"time_mean: NaN":        {TimeSampling: "lognormal", TimeMean: math.NaN(), TimeStd: 1},
		"time_std: 0 ":          {TimeSampling: "lognormal"},
		"time_std: 1 ":          {TimeStd: 1},
		"gamma: 0 ":             {Weighting: "min_snr"},
		"gamma: 5 ":             {Gamma: 5},
		"gamma: +Inf is not ab": {Weighting: "min_snr", Gamma: math.Inf(1)},
	} {
		if err := bad.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
		cfg := DefaultConfig(16)
		cfg.Loss = bad
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), "loss."+want) {
			t.Errorf("error %v, want %q", err, "loss."+want)
		}
	}
}
