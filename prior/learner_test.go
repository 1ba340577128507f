package prior

import (
	"errors"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rebeca/internal/ort"
)

// train takes steps from..to-1; what a step sees depends on its number alone.
func train(t testing.TB, l *Learner, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		rng := newRand(uint64(100 + i))
		if _, err := l.Step(randomBatch(rng, l.net.Config, 3, i%6, 2), 1e-2, rng); err != nil {
			t.Fatal(err)
		}
	}
}

func sameState(t *testing.T, what string, a, b *State) {
	t.Helper()
	for i, v := range a.vectors() {
		if !slices.Equal(v.data, b.vectors()[i].data) {
			t.Errorf("%s: %s differ", what, v.name)
		}
	}
	if a.Step != b.Step || a.Seed != b.Seed || a.Config != b.Config {
		t.Errorf("%s: %d %d %+v and %d %d %+v", what, a.Step, a.Seed, a.Config, b.Step, b.Seed, b.Config)
	}
}

// TestContinuesBitForBit takes 20 steps at once, and 10, a checkpoint on disk, another learner and 10 more.
func TestContinuesBitForBit(t *testing.T) {
	whole := newLearner(t, tinyConfig(), 1, ort.Options{})
	train(t, whole, 0, 20)

	first := newLearner(t, tinyConfig(), 1, ort.Options{})
	train(t, first, 0, 10)
	path := filepath.Join(t.TempDir(), "prior.safetensors")
	if _, err := first.State().Save(path); err != nil {
		t.Fatal(err)
	}
	loaded, err := LoadState(path)
	if err != nil {
		t.Fatal(err)
	}
	second := learnerOf(t, loaded)
	train(t, second, 10, 20)
	sameState(t, "20 steps and 10 + 10", whole.State(), second.State())
	if n := second.State().Step; n != 20 {
		t.Errorf("step %d after 20", n)
	}
}

func TestSameSeedSameWeights(t *testing.T) {
	a, b, c := newLearner(t, tinyConfig(), 1, ort.Options{}), newLearner(t, tinyConfig(), 1, ort.Options{}), newLearner(t, tinyConfig(), 2, ort.Options{})
	for _, l := range []*Learner{a, b, c} {
		train(t, l, 0, 5)
	}
	sameState(t, "two runs", a.State(), b.State())
	if slices.Equal(a.State().Params, c.State().Params) {
		t.Error("another seed gives the same weights")
	}
}

// TestAdamW holds two steps against the formulas, written out in float64, with the gradient taken from the first moment.
func TestAdamW(t *testing.T) {
	const lr, tolerance = 1e-2, 1e-5
	l := newLearner(t, tinyConfig(), 3, ort.Options{})
	before := l.State()
	for n := 1.; n <= 2; n++ {
		stats, err := l.Step(randomBatch(newRand(uint64(n)), l.net.Config, 3, 4, 2), lr, newRand(uint64(n)))
		if err != nil {
			t.Fatal(err)
		}
		after := l.State()
		params, ema, v := wide(before.Params), wide(before.EMA), wide(before.V)
		decay := min(.999, (1+n)/(10+n))
		var norm float64
		for i := range params {
			g := (float64(after.M[i]) - .9*float64(before.M[i])) / .1 // clipped
			norm += g * g
			v[i] = .999*v[i] + .001*g*g
			step := float64(after.M[i]) / (1 - math.Pow(.9, n)) / (math.Sqrt(v[i]/(1-math.Pow(.999, n))) + 1e-8)
			params[i] -= lr*1e-4*params[i] + lr*step
			ema[i] = decay*ema[i] + (1-decay)*params[i]
		}
		// The clipped gradient's norm is min(1, norm).
		if got, want := math.Sqrt(norm), min(1, stats.GradNorm); math.Abs(got-want) > 1e-4 {
			t.Errorf("step %v: clipped norm %v, want %v", n, got, want)
		}
		for i, want := range [][]float64{params, ema, nil, v} {
			if want == nil {
				continue
			}
			if w := worst(t, after.vectors()[i].data, want); w > tolerance {
				t.Errorf("step %v: %s differ from the formula by %.2g", n, after.vectors()[i].name, w)
			}
		}
		before = after
	}
}

func TestClipIsReached(t *testing.T) {
	s := noisyState(t, tinyConfig(), 4)
	for i := range s.Params {
		s.Params[i] *= 3
	}
	clear(s.M)
	l := learnerOf(t, s)
	stats, err := l.Step(randomBatch(newRand(1), l.net.Config, 3, 4, 2), 1e-3, newRand(1))
	if err != nil {
		t.Fatal(err)
	}
	var norm float64
	for _, m := range l.State().M {
		norm += float64(m) * float64(m) / .01
	}
	if stats.GradNorm < 1.5 || math.Abs(math.Sqrt(norm)-1) > 1e-3 {
		t.Errorf("gradient of norm %v became one of %v", stats.GradNorm, math.Sqrt(norm))
	}
}

// TestSpoiltWeightsAreRefused: after an update that failed no step and no loss is taken on what it left.
func TestSpoiltWeightsAreRefused(t *testing.T) {
	l := learnerOf(t, noisyState(t, tinyConfig(), 1))
	b := randomBatch(newRand(1), l.net.Config, 3, 4, 2)
	wrong := ort.NewTensor(numSchedule + 1)
	defer wrong.Close()
	working := l.update.binding
	in := slices.Concat(l.vectors.state(), l.vectors.chunks[flatGradient], []*ort.Tensor{wrong})
	broken, err := l.update.session.Bind(in, l.vectors.state())
	if err != nil {
		t.Fatal(err)
	}
	l.update.binding = broken
	_, first := l.Step(b, 1e-3, newRand(1))
	if err := broken.Close(); err != nil {
		t.Fatal(err)
	}
	l.update.binding = working
	_, second := l.Step(b, 1e-3, newRand(1))
	_, third := l.Loss(b, newRand(1), true)
	for _, err := range []error{first, second, third} {
		if !errors.Is(err, ErrSpoilt) || !strings.Contains(err.Error(), "step 1") || !strings.Contains(err.Error(), "schedule") {
			t.Errorf("error %v", err)
		}
	}
	if l.State().Step != 0 {
		t.Error("the failed step counts")
	}
}

// TestDivergedStepIsRefused needs weights so large that the loss overflows float32.
func TestDivergedStepIsRefused(t *testing.T) {
	s := noisyState(t, tinyConfig(), 5)
	for i := range s.Params {
		s.Params[i] = 1e30
	}
	for _, p := range newArchitecture(s.Config).layout().parameters {
		if p.name == "block.1.mlp.in.weight" {
			s.Params[p.offset+1] = -2e30
		}
	}
	l := learnerOf(t, s)
	before := l.State()
	_, err := l.Step(randomBatch(newRand(1), l.net.Config, 3, 4, 2), 1e-3, newRand(1))
	for _, words := range []string{"step 1:", "weights kept", "-2e+30 in tensor block.1.mlp.in.weight", "lower the learning rate"} {
		if !errors.Is(err, ErrNotFinite) || !strings.Contains(err.Error(), words) {
			t.Errorf("error %v does not say %q", err, words)
		}
	}
	sameState(t, "before and after", before, l.State())
}

// TestPaddingDoesNotCount holds the loss against its definition over the real targets, for a full and a ragged batch.
func TestPaddingDoesNotCount(t *testing.T) {
	l := learnerOf(t, noisyState(t, tinyConfig(), 6))
	full := randomBatch(newRand(1), l.net.Config, 3, 5, 2)
	ragged := &Batch{Contexts: full.Contexts[:2], Targets: []Target{full.Targets[2], full.Targets[0], full.Targets[1]}}
	for _, b := range []*Batch{full, ragged} {
		got, err := l.Loss(b, newRand(2), false)
		if err != nil {
			t.Fatal(err)
		}
		counts := make(map[int]int)
		var want float64
		for _, target := range b.Targets {
			row := target.Context*l.net.Targets + counts[target.Context]
			counts[target.Context]++
			for d, z := range target.Item {
				e := float64(l.full.guess.Data()[row*l.net.Dim+d] - z)
				want += e * e / float64(l.net.Dim*len(b.Targets))
			}
		}
		if math.Abs(got-want) > 1e-5*want {
			t.Errorf("loss of %d targets is %v, want %v", len(b.Targets), got, want)
		}
	}
}

func TestLossChangesNothing(t *testing.T) {
	l := learnerOf(t, noisyState(t, tinyConfig(), 7))
	before := l.State()
	b := randomBatch(newRand(1), l.net.Config, 3, 4, 2)
	live, err := l.Loss(b, newRand(2), false)
	if err != nil {
		t.Fatal(err)
	}
	ema, err := l.Loss(b, newRand(2), true)
	if err != nil {
		t.Fatal(err)
	}
	again, err := l.Loss(b, newRand(2), false)
	if err != nil {
		t.Fatal(err)
	}
	if live != again || live == ema {
		t.Errorf("losses %v, %v by the weights and %v by the average", live, again, ema)
	}
	sameState(t, "before and after", before, l.State())
}

func TestStepRefusesBadBatches(t *testing.T) {
	cfg := tinyConfig()
	l := newLearner(t, cfg, 8, ort.Options{})
	item := make([]float32, cfg.Dim)
	infinite := []float32{0, float32(math.Inf(1)), 0}
	for _, c := range []struct {
		name string
		b    Batch
		lr   float64
		want string
	}{
		{"contexts", Batch{Contexts: make([]Context, cfg.Contexts+1), Targets: []Target{{Item: item}}}, 1, "4 contexts"},
		{"empty", Batch{Contexts: make([]Context, 1)}, 1, "without targets"},
		{"targets", Batch{Contexts: make([]Context, 1), Targets: slices.Repeat([]Target{{Item: item}}, 3)}, 1, "more than 2 targets"},
		{"index", Batch{Contexts: make([]Context, 1), Targets: []Target{{Context: 1, Item: item}}}, 1, "context 1 of 1"},
		{"label", Batch{Contexts: make([]Context, 1), Targets: []Target{{Item: item, Label: 9}}}, 1, "label class(9)"},
		{"dimension", Batch{Contexts: make([]Context, 1), Targets: []Target{{Item: item[:2]}}}, 1, "2 dimensions for a prior of 3"},
		{"infinite", Batch{Contexts: make([]Context, 1), Targets: []Target{{Item: infinite}}}, 1, "+Inf in dimension 1"},
		{"entry", Batch{Contexts: []Context{{{Item: item}}}, Targets: []Target{{Item: item}}}, 1, "entry 0 has class none"},
		{"rate", Batch{Contexts: make([]Context, 1), Targets: []Target{{Item: item}}}, math.NaN(), "learning rate NaN"},
	} {
		_, err := l.Step(&c.b, c.lr, newRand(1))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
	}
	if n := l.State().Step; n != 0 {
		t.Errorf("%d steps were counted", n)
	}
}

func TestStepAllocatesNothing(t *testing.T) {
	l := newLearner(t, tinyConfig(), 9, ort.Options{})
	rng := newRand(1)
	b := randomBatch(rng, l.net.Config, 3, 4, 2)
	allocs := testing.AllocsPerRun(20, func() {
		if _, err := l.Step(b, 1e-3, rng); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 0 {
		t.Errorf("a step makes %v allocations", allocs)
	}
}
