package sampler

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/stat"
	"pgregory.net/rapid"

	"rebeca/prior"
)

func jobs(n int) []Job {
	out := make([]Job, n)
	for i := range out {
		out[i] = Job{Seed: uint64(i) + 1}
	}
	return out
}

// everywhere is plain sampling without guidance at many steps.
func plain(steps int) Options {
	return Options{Steps: steps, Guidance: 1, Low: math.Inf(-1), High: math.Inf(1)}
}

func mustSample(t testing.TB, d Denoiser, o Options, js []Job) [][]float32 {
	t.Helper()
	out, err := Sample(d, o, js)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func column(samples [][]float32, d int) []float64 {
	out := make([]float64, len(samples))
	for i, s := range samples {
		out[i] = float64(s[d])
	}
	return out
}

// ways are the solvers with as many steps as they need to be exact.
func ways() map[string]func(t testing.TB, d Denoiser, js []Job) [][]float32 {
	by := func(s Solver, steps int) func(testing.TB, Denoiser, []Job) [][]float32 {
		return func(t testing.TB, d Denoiser, js []Job) [][]float32 {
			o := plain(steps)
			o.Solver = s
			return mustSample(t, d, o, js)
		}
	}
	return map[string]func(t testing.TB, d Denoiser, js []Job) [][]float32{
		"ddim": by(DDIM, 100), "dpmpp_2m": by(DPMSolver2M, 40),
		"ancestral": func(t testing.TB, d Denoiser, js []Job) [][]float32 { return mustAncestral(t, d, 1, js) },
	}
}

func TestSampleGaussian(t *testing.T) {
	for name, sample := range ways() {
		for _, schedule := range []string{"cosine", "linear"} {
			t.Run(name+"/"+schedule, func(t *testing.T) {
				n := 6000
				if name == "ancestral" {
					n = 1000
				}
				g := gaussian{mean: []float64{.5, -1, 0, 2}, variances: []float64{1.5, .1, .6, .6}, angle: .6, schedule: schedule}
				samples := sample(t, g, jobs(n))
				// Standard errors of 6,000 are near .016 for a mean and .028 for a variance of 1.5; the steps leave a bias below .03.
				wide := math.Sqrt(6000 / float64(n))
				for i := range g.mean {
					ci := column(samples, i)
					if m := stat.Mean(ci, nil); math.Abs(m-g.mean[i]) > .06*wide {
						t.Errorf("mean[%d] = %.3f, want %.3f", i, m, g.mean[i])
					}
					for j := range i + 1 {
						if c := stat.Covariance(ci, column(samples, j), nil); math.Abs(c-g.cov(i, j)) > .1*wide {
							t.Errorf("cov[%d,%d] = %.3f, want %.3f", i, j, c, g.cov(i, j))
						}
					}
				}
			})
		}
	}
}

// spread puts k means far apart in dim dimensions.
func spread(k, dim int) [][]float64 {
	rng := rand.New(rand.NewPCG(7, 7))
	out := make([][]float64, k)
	for i := range out {
		out[i] = make([]float64, dim)
		for d := range dim {
			out[i][d] = rng.NormFloat64()
		}
		out[i][i%dim] += 3
	}
	return out
}

// TestSampleMixture holds shares, mean and covariance of samples against those of the mixture.
func TestSampleMixture(t *testing.T) {
	for name, sample := range ways() {
		for _, dim := range []int{2, 8, 16} {
			n, wide := 3000, 1.
			if name == "ancestral" {
				if dim != 8 {
					continue
				}
				n, wide = 700, 2
			}
			want := []float64{.5, .3, .2}
			m := &mixture{dim: dim, means: spread(3, dim), stds: []float64{.3, .2, .4},
				weights: map[prior.Class][]float64{prior.StrongPositive: want}}
			samples := sample(t, m, jobs(n))
			got := m.shares(samples)
			for k := range want {
				if math.Abs(got[k]-want[k]) > .04*wide {
					t.Errorf("%s, dim %d: share of component %d = %.3f, want %.3f", name, dim, k, got[k], want[k])
				}
			}
			mean, cov := m.moments(want)
			for i := range dim {
				ci := column(samples, i)
				if v := stat.Mean(ci, nil); math.Abs(v-mean[i]) > 5*math.Sqrt(cov[i][i]/float64(n)) {
					t.Errorf("%s, dim %d: mean[%d] = %.3f, want %.3f", name, dim, i, v, mean[i])
				}
				for j := range i + 1 {
					// Shares that differ by .02 make 4 standard errors of a normal covariance.
					e := 6 * math.Sqrt((cov[i][i]*cov[j][j]+cov[i][j]*cov[i][j])/float64(n))
					if v := stat.Covariance(ci, column(samples, j), nil); math.Abs(v-cov[i][j]) > e {
						t.Errorf("%s, dim %d: cov[%d,%d] = %.3f, want %.3f within %.3f", name, dim, i, j, v, cov[i][j], e)
					}
				}
			}
		}
	}
}

func TestSampleWithinComponentSpread(t *testing.T) {
	m := &mixture{dim: 8, means: [][]float64{spread(1, 8)[0]}, stds: []float64{.4},
		weights: map[prior.Class][]float64{prior.StrongPositive: {1}}}
	samples := mustSample(t, m, plain(100), jobs(2000))
	for d := range m.dim {
		if s := stat.StdDev(column(samples, d), nil); math.Abs(s-.4) > .03 {
			t.Errorf("std[%d] = %.3f, want .4", d, s)
		}
	}
}

func likesOfThree(dim int) *mixture {
	return &mixture{dim: dim, means: spread(3, dim), stds: []float64{.5, .5, .5}, weights: map[prior.Class][]float64{
		prior.ClassNone:      {.2, .4, .4},
		prior.StrongPositive: {.6, .2, .2},
		prior.StrongNegative: {.05, .05, .9},
	}}
}

func TestGuidanceSharpensTowardsTheLabel(t *testing.T) {
	m := likesOfThree(4)
	share := func(g float64) float64 {
		o := DefaultOptions()
		o.Steps, o.Guidance = 24, g
		return m.shares(mustSample(t, m, o, jobs(1500)))[0]
	}
	one, two, four := share(1), share(2), share(4)
	if math.Abs(one-.6) > .06 || !(one < two-.05 && two < four) {
		t.Errorf("share of the label's mode at guidance 1, 2, 4: %.3f, %.3f, %.3f; want .6 and rising", one, two, four)
	}
}

func TestLabels(t *testing.T) {
	m := likesOfThree(4)
	shares := func(label prior.Class) []float64 {
		js := jobs(1000)
		for i := range js {
			js[i].Label = label
		}
		return m.shares(mustSample(t, m, plain(24), js))
	}
	if got := shares(prior.StrongNegative); got[2] < .85 {
		t.Errorf("label strong_negative gives shares %v, want the third near .9", got)
	}
	if none, liked := shares(prior.ClassNone), shares(prior.StrongPositive); !slices.Equal(none, liked) {
		t.Errorf("no label gives shares %v, strong_positive %v: want the same", none, liked)
	}
}

// TestAgainstAncestral holds DDIM against its plain twin, ancestral DDPM over every timestep, in distribution.
func TestAgainstAncestral(t *testing.T) {
	m := likesOfThree(4)
	const n = 1500
	fast := mustSample(t, m, plain(100), jobs(n))
	slow := ancestral(t, m, n, 250)
	a, b := m.shares(fast), m.shares(slow)
	for k := range a {
		if math.Abs(a[k]-b[k]) > .06 {
			t.Errorf("share of component %d: DDIM %.3f, DDPM %.3f", k, a[k], b[k])
		}
	}
	for d := range m.dim {
		ma, sa := stat.MeanStdDev(column(fast, d), nil)
		mb, sb := stat.MeanStdDev(column(slow, d), nil)
		if math.Abs(ma-mb) > .15 || math.Abs(sa-sb) > .12 {
			t.Errorf("dimension %d: DDIM %.3f ± %.3f, DDPM %.3f ± %.3f", d, ma, sa, mb, sb)
		}
	}
}

// ancestral is DDPM (Ho et al., arXiv 2006.11239, equation 7) for an x_0 prediction on an even grid of steps.
func ancestral(t *testing.T, d *mixture, n, steps int) [][]float32 {
	rng := rand.New(rand.NewPCG(3, 3))
	out := make([][]float32, n)
	grid := times(d.Config().Timesteps, steps)
	for i := range out {
		x, x0 := make([]float32, d.dim), make([]float32, d.dim)
		for k := range x {
			x[k] = float32(rng.NormFloat64())
		}
		for k, at := range grid {
			if err := d.Denoise(x0, x, []prior.Row{{T: at, Label: prior.StrongPositive}}); err != nil {
				t.Fatal(err)
			}
			if k+1 == len(grid) {
				break
			}
			bar, next := prior.AlphaBar(at, 1000), prior.AlphaBar(grid[k+1], 1000)
			step := bar / next // alpha of the step
			of0, ofX := math.Sqrt(next)*(1-step)/(1-bar), math.Sqrt(step)*(1-next)/(1-bar)
			std := math.Sqrt((1 - next) / (1 - bar) * (1 - step))
			for j := range x {
				x[j] = float32(of0*float64(x0[j]) + ofX*float64(x[j]) + std*rng.NormFloat64())
			}
		}
		out[i] = x0
	}
	return out
}

func TestPasses(t *testing.T) {
	for _, tc := range []struct {
		steps    int
		guidance float64
		passes   int64 // rows given to the denoiser for one sample
	}{{8, 4, 12}, {6, 4, 9}, {4, 4, 6}, {8, 1, 8}, {1, 4, 1}} {
		m := likesOfThree(4)
		o := DefaultOptions()
		o.Steps, o.Guidance = tc.steps, tc.guidance
		const n = 5
		mustSample(t, m, o, jobs(n))
		if m.calls.Load() != int64(tc.steps) || m.rows.Load() != n*tc.passes {
			t.Errorf("%d steps, guidance %v: %d calls, %d passes a sample, want %d and %d",
				tc.steps, tc.guidance, m.calls.Load(), m.rows.Load()/n, tc.steps, tc.passes)
		}
	}
}

func TestRows(t *testing.T) {
	conds := []*prior.Condition{{}, nil, {}}
	js := []Job{{Cond: conds[0], Seed: 1}, {Cond: conds[1], Seed: 2, Guidance: 1}, {Cond: conds[2], Seed: 3, Label: prior.StrongNegative}}
	m := likesOfThree(4)
	var at []int
	m.seen = func(rows []prior.Row) {
		at = append(at, rows[0].T)
		l := prior.LogSNR(rows[0].T, 1000)
		want := 3
		if -1.2 <= l && l <= 1 {
			want = 5 // the second job is not guided
		}
		if len(rows) != want {
			t.Fatalf("at ln(alpha/sigma) = %.2f: %d rows, want %d", l, len(rows), want)
		}
		for i, r := range rows {
			wantRow := prior.Row{T: rows[0].T, Label: prior.ClassNone}
			if i < 3 {
				wantRow.Cond, wantRow.Label = conds[i], prior.StrongPositive
			}
			if i == 2 {
				wantRow.Label = prior.StrongNegative
			}
			if r != wantRow {
				t.Fatalf("row %d is %+v, want %+v", i, r, wantRow)
			}
		}
	}
	mustSample(t, m, DefaultOptions(), js)
	if want := []int{999, 856, 714, 571, 428, 285, 143, 0}; !slices.Equal(at, want) {
		t.Errorf("times %v, want %v", at, want)
	}
}

// TestJobsAreIndependent: the bytes of a job do not depend on its neighbours, their order or the call they came in.
func TestJobsAreIndependent(t *testing.T) {
	m := likesOfThree(6)
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 20).Draw(rt, "jobs")
		js := make([]Job, n)
		for i := range js {
			js[i] = Job{
				Seed:     rapid.Uint64().Draw(rt, "seed"),
				Label:    rapid.SampledFrom([]prior.Class{prior.ClassNone, prior.StrongPositive, prior.StrongNegative}).Draw(rt, "label"),
				Guidance: rapid.SampledFrom([]float64{0, 1, 2.5}).Draw(rt, "guidance"),
			}
		}
		whole := mustSample(t, m, DefaultOptions(), js)
		order := rapid.Permutation(indices(n)).Draw(rt, "order")
		cut := rapid.IntRange(0, n).Draw(rt, "cut")
		for _, part := range [][]int{order[:cut], order[cut:]} {
			sub := make([]Job, len(part))
			for k, i := range part {
				sub[k] = js[i]
			}
			for k, e := range mustSample(t, m, DefaultOptions(), sub) {
				if !slices.Equal(e, whole[part[k]]) {
					rt.Fatalf("job %d alone gives %v, among others %v", part[k], e, whole[part[k]])
				}
			}
		}
	})
}

func indices(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

func TestCatalogueScale(t *testing.T) {
	m := likesOfThree(4)
	base := mustSample(t, m, DefaultOptions(), jobs(3))
	m.stats = prior.Stats{Mean: []float32{1, 2, 3, 4}, Scale: []float32{2, 2, 2, 2}}
	for i, e := range mustSample(t, m, DefaultOptions(), jobs(3)) {
		for d, v := range e {
			if want := base[i][d]*2 + float32(d+1); v != want {
				t.Errorf("job %d, dimension %d: %v, want %v", i, d, v, want)
			}
		}
	}
}

// TestNoiseIsPinned: ids are promised to make the same image for ever, and the seed is all an id gives.
func TestNoiseIsPinned(t *testing.T) {
	got := make([]float32, 4)
	noise(got, 42)
	want := []float32{-0.3151557, -2.5174823, 0.48072135, -1.6403469}
	if !slices.Equal(got, want) {
		t.Errorf("noise of seed 42 is %v, want %v", got, want)
	}
}

func TestNoJobs(t *testing.T) {
	m := likesOfThree(4)
	if got := mustSample(t, m, DefaultOptions(), nil); len(got) != 0 || m.calls.Load() != 0 {
		t.Errorf("no jobs gave %v with %d calls", got, m.calls.Load())
	}
}

func TestBrokenDenoiser(t *testing.T) {
	boom := errors.New("device lost")
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, tc := range []struct {
		name, want string
		fail       func(dst []float32, rows []prior.Row) error
	}{
		{"error", "denoising at t=999: device lost", func([]float32, []prior.Row) error { return boom }},
		{"NaN", "denoising at t=999: job 1: the estimate is NaN", func(dst []float32, _ []prior.Row) error { dst[4] = nan; return nil }},
		{"Inf at the end", "denoising at t=0: job 2: the estimate is +Inf", func(dst []float32, rows []prior.Row) error {
			if rows[0].T == 0 {
				dst[11] = inf
			}
			return nil
		}},
		{"NaN in the unconditional half", "denoising at t=714: job 0: the estimate is NaN", func(dst []float32, rows []prior.Row) error {
			if len(rows) == 6 {
				dst[12] = nan
			}
			return nil
		}},
	} {
		m := likesOfThree(4)
		m.fail = tc.fail
		_, err := Sample(m, DefaultOptions(), jobs(3))
		if err == nil || err.Error() != tc.want {
			t.Errorf("%s: error %v, want %q", tc.name, err, tc.want)
		}
	}
	m := likesOfThree(4)
	m.fail = func([]float32, []prior.Row) error { return boom }
	if _, err := Sample(m, DefaultOptions(), jobs(1)); !errors.Is(err, boom) {
		t.Errorf("error %v does not wrap the denoiser's", err)
	}
}

func TestBadOptionsAndJobs(t *testing.T) {
	nan := math.NaN()
	for want, o := range map[string]Options{
		"steps: 0":          {Steps: 0, Guidance: 1, Low: -1, High: 1},
		"steps: 1001":       {Steps: 1001, Guidance: 1, Low: -1, High: 1},
		"guidance: 0":       {Steps: 8, Guidance: 0, Low: -1, High: 1},
		"guidance: NaN":     {Steps: 8, Guidance: nan, Low: -1, High: 1},
		"guidance: 101":     {Steps: 8, Guidance: 101, Low: -1, High: 1},
		"low: not a number": {Steps: 8, Guidance: 1, Low: nan, High: 1},
		"high: not":         {Steps: 8, Guidance: 1, Low: -1, High: nan},
		"low: 2 is above":   {Steps: 8, Guidance: 1, Low: 2, High: 1},
	} {
		if _, err := Sample(likesOfThree(4), o, jobs(1)); err == nil || !strings.Contains(err.Error(), "sampler options: "+want) {
			t.Errorf("%+v: error %v, want %q", o, err, want)
		}
	}
	for want, j := range map[string]Job{
		"job 1: guidance: -1":           {Guidance: -1},
		"job 1: guidance: NaN":          {Guidance: nan},
		"job 1: guidance: +Inf":         {Guidance: math.Inf(1)},
		"job 1: label: 5 is not a clas": {Label: 5},
	} {
		if _, err := Sample(likesOfThree(4), DefaultOptions(), []Job{{}, j}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want %q", j, err, want)
		}
	}
}
