package prior

import (
	"math"
	"slices"
	"strings"
	"testing"

	"rebeca/internal/ort"
)

// shortConfig is an mlp small enough to compile three shapes in a test.
func shortConfig() Config {
	cfg := tinyConfig()
	cfg.MaxTokens, cfg.Contexts = 52, 4
	return cfg
}

// windows returns a batch whose longest window has so many entries.
func windows(cfg Config, seed uint64, longest int) *Batch {
	b := randomBatch(newRand(seed), cfg, cfg.Contexts, longest, cfg.Targets)
	b.Contexts[0] = b.Contexts[0][:min(1, longest)]
	return b
}

func TestShapeFollowsTheLongestWindow(t *testing.T) {
	l := newLearner(t, shortConfig(), 1, ort.Options{})
	for _, c := range []struct{ longest, slots int }{{0, 16}, {1, 16}, {15, 16}, {16, 32}, {31, 32}, {32, 53}, {52, 53}} {
		got, err := l.compiledFor(windows(l.net.Config, 2, c.longest))
		if err != nil || got.slots != c.slots {
			t.Errorf("windows of %d entries run in %d slots, %v; want %d", c.longest, got.slots, err, c.slots)
		}
	}
	for _, c := range []struct {
		kind      string
		maxTokens int
		want      []int
	}{{kindMLP, 52, []int{16, 32}}, {kindMLP, 32, []int{16}}, {kindMLP, 18, nil}, {kindMLP, 5, nil}, {kindTransformer, 52, nil}} {
		cfg := tinyConfig()
		cfg.Kind, cfg.MaxTokens = c.kind, c.maxTokens
		if got := newArchitecture(cfg).shortSlots(); !slices.Equal(got, c.want) {
			t.Errorf("%s with windows of %d: short shapes %v, want %v", c.kind, c.maxTokens, got, c.want)
		}
	}
}

// TestShortShapesComputeTheSame takes a step and a loss on short windows in the shape made for them and in the full one.
func TestShortShapesComputeTheSame(t *testing.T) {
	state := noisyState(t, shortConfig(), 3)
	for _, longest := range []int{0, 9, 25} {
		b := windows(state.Config, 4, longest)
		fast, slow := learnerOf(t, state), learnerOf(t, state)
		slow.shorter = nil
		one, err := fast.Loss(b, newRand(5), true)
		if err != nil {
			t.Fatal(err)
		}
		two, err := slow.Loss(b, newRand(5), true)
		if err != nil || worst(t, []float32{float32(one)}, []float64{two}) > 1e-6 {
			t.Errorf("%d entries: losses %v and %v, %v", longest, one, two, err)
		}
		if fast.full.batch.x.Data()[0] != 0 {
			t.Errorf("%d entries ran in the full shape", longest)
		}
		a, err := fast.Step(b, 1e-2, newRand(5))
		if err != nil {
			t.Fatal(err)
		}
		c, err := slow.Step(b, 1e-2, newRand(5))
		if err != nil || worst(t, []float32{float32(a.Loss), float32(a.GradNorm)}, []float64{c.Loss, c.GradNorm}) > 1e-6 {
			t.Errorf("%d entries: steps %+v and %+v, %v", longest, a, c, err)
		}
		before, after := fast.State(), slow.State()
		for i, v := range before.vectors() {
			if w := worst(t, v.data, wide(after.vectors()[i].data)); w > 2e-6 {
				t.Errorf("%d entries: %s differ by %.2g", longest, v.name, w)
			}
		}
	}
}

// TestMixedShapesContinueBitForBit: which shape a batch runs in is a function of the batch, whatever ran before it.
func TestMixedShapesContinueBitForBit(t *testing.T) {
	cfg := shortConfig()
	take := func(l *Learner, from, to int) {
		for i := from; i < to; i++ {
			if _, err := l.Step(windows(cfg, uint64(i), []int{3, 40, 20, 15, 16}[i%5]), 1e-2, newRand(uint64(i))); err != nil {
				t.Fatal(err)
			}
		}
	}
	whole, first := newLearner(t, cfg, 1, ort.Options{}), newLearner(t, cfg, 1, ort.Options{})
	take(whole, 0, 10)
	take(first, 0, 4)
	second := learnerOf(t, first.State())
	take(second, 4, 10)
	sameState(t, "10 steps and 4 + 6", whole.State(), second.State())
}

func TestShortStepAllocatesNothing(t *testing.T) {
	l := newLearner(t, shortConfig(), 9, ort.Options{})
	rng, b := newRand(1), windows(l.net.Config, 1, 8)
	allocs := testing.AllocsPerRun(20, func() {
		if _, err := l.Step(b, 1e-3, rng); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 0 {
		t.Errorf("a step makes %v allocations", allocs)
	}
}

// TestManyTargetsComputeTheSame holds the shape for contexts of many targets against a learner of that many throughout, and its loss
// against that of the targets one by one.
func TestManyTargetsComputeTheSame(t *testing.T) {
	state := noisyState(t, shortConfig(), 3)
	of := func(targets, most int) *Learner {
		s := *state // which a learner does not keep
		s.Config.Targets, s.Config.MostTargets = targets, most
		return learnerOf(t, &s)
	}
	few, many := of(2, 7), of(7, 0)
	b := randomBatch(newRand(6), state.Config, 3, 9, 7)
	b.Targets = b.Targets[2:] // the first context has fewer

	loss, err := few.Loss(b, newRand(7), false)
	if err != nil {
		t.Fatal(err)
	}
	sum, rng := 0., newRand(7)
	for i := range b.Targets {
		one, err := few.Loss(&Batch{Contexts: b.Contexts, Targets: b.Targets[i : i+1]}, rng, false)
		if err != nil {
			t.Fatal(err)
		}
		sum += one
	}
	if want := sum / float64(len(b.Targets)); math.Abs(loss-want) > 1e-5*want {
		t.Errorf("the loss of %d targets is %v, one by one %v", len(b.Targets), loss, want)
	}
	for _, l := range []*Learner{few, many} {
		for i := range 3 { // the wide shape between two steps of the other
			batch := b
			if i == 1 {
				batch = windows(state.Config, 4, 9)
			}
			if _, err := l.Step(batch, 1e-3, newRand(uint64(i))); err != nil {
				t.Fatal(err)
			}
		}
	}
	if w := worst(t, few.State().Params, wide(many.State().Params)); w > 1e-4 {
		t.Errorf("weights differ by %v from those of a learner of many targets", w)
	}
	if _, err := few.Step(randomBatch(newRand(6), state.Config, 2, 3, 8), 1e-3, newRand(1)); err == nil || !strings.Contains(err.Error(), "more than 7 targets") {
		t.Errorf("8 targets a context: %v", err)
	}
	if _, err := of(2, 0).Step(b, 1e-3, newRand(1)); err == nil || !strings.Contains(err.Error(), "more than 2 targets") {
		t.Errorf("without MostTargets: %v", err)
	}
}
