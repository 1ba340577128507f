package prior

import (
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rebeca/internal/ort"
	"rebeca/prior/graph"
)

// tinyKinds has a configuration of every kind that is small enough for the interpreter; between them they use every objective,
// schedule, sampling and weighting.
func tinyKinds() map[string]Config {
	mlp, transformer := tinyConfig(), tinyConfig()
	mlp.Loss = Loss{Objective: objectiveV, Schedule: scheduleLinear, TimeSampling: timeLognormal, TimeMean: -.3, TimeStd: 1.2}
	transformer.Kind, transformer.Dim, transformer.Tokens = kindTransformer, 6, 3
	transformer.Loss = Loss{Weighting: weightMinSNR, Gamma: 6}
	reference := transformer
	reference.Kind, reference.Users, reference.Loss = kindReference, 4, DefaultLoss()
	simulation := tinyConfig()
	simulation.Kind, simulation.Users, simulation.Loss = kindSimulation, 4, Loss{Objective: objectiveEpsilon, Schedule: scheduleLaplace}
	return map[string]Config{"mlp": mlp, "transformer": transformer, "reference": reference, "simulation": simulation}
}

// kindBatch is randomBatch for any kind: users of the table in place of windows where the kind has one.
func kindBatch(rng *rand.Rand, cfg Config, contexts, entries, targets int) *Batch {
	b := randomBatch(rng, cfg, contexts, entries, targets)
	if cfg.HasUserTable() {
		b.Contexts = nil
		for range contexts {
			b.Users = append(b.Users, rng.IntN(cfg.Users))
		}
	}
	if cfg.Kind == kindSimulation {
		for i := range b.Targets {
			b.Targets[i].Label = max(b.Targets[i].Label, StrongPositive)
		}
	}
	return b
}

// eachKind runs a test for every kind.
func eachKind(t *testing.T, test func(t *testing.T, cfg Config)) {
	for name, cfg := range tinyKinds() {
		t.Run(name, func(t *testing.T) { test(t, cfg) })
	}
}

// TestKindGradients holds the gradient of every network, under its loss, against central differences in a random direction of each
// parameter, in float64. The bias of keys changes nothing under a softmax, but shares its tensor with that of values.
func TestKindGradients(t *testing.T) {
	eachKind(t, func(t *testing.T, cfg Config) {
		l := learnerOf(t, noisyState(t, cfg, 4))
		b := kindBatch(newRand(5), cfg, 3, 5, 2)
		if err := l.full.batch.set(l.net, l.stats, b, &randomNoising{l.net.diffusion, newRand(6)}); err != nil {
			t.Fatal(err)
		}
		g := graph.New("gradient")
		layout := l.net.layout()
		w, ordered := layout.views(g, g.Input("params", layout.size))
		_, loss := l.net.batchLoss(g, w, l.net.slots())
		g.Output("loss", loss)
		g.Output("gradient", layout.flatten(g, g.Gradients(loss, ordered...)))
		in := stepInputs(l)
		flat := in["params"]
		gradient := g.Interpret(in)["gradient"]
		rng := newRand(7)
		for _, p := range layout.parameters {
			direction := make([]float64, p.size)
			var slope float64
			for i := range direction {
				direction[i] = rng.NormFloat64()
				slope += direction[i] * gradient[p.offset+i]
			}
			const h = 1e-5
			at := func(step float64) float64 {
				in["params"] = slices.Clone(flat)
				for i := range direction {
					in["params"][p.offset+i] += step * direction[i]
				}
				return g.Interpret(in)["loss"][0]
			}
			if numeric := (at(h) - at(-h)) / (2 * h); math.Abs(numeric-slope) > 1e-6*(1+math.Abs(numeric)) {
				t.Errorf("%s: derivative %.9g in a random direction, differences give %.9g", p.name, slope, numeric)
			}
			if slope == 0 {
				t.Errorf("%s: no gradient", p.name)
			}
		}
	})
}

// TestKindsServeWhatTheyTrain holds the compiled model of every kind against the training graph on the same rows, with the estimate
// of z worked out from the prediction here, and against the float64 interpreter.
func TestKindsServeWhatTheyTrain(t *testing.T) {
	eachKind(t, func(t *testing.T, cfg Config) {
		s := noisyState(t, cfg, 10)
		l, m := learnerOf(t, s), modelOf(t, s)
		b := kindBatch(newRand(11), cfg, cfg.Contexts, 4, cfg.Targets)
		if _, err := l.Loss(b, newRand(12), true); err != nil {
			t.Fatal(err)
		}
		in := stepInputs(l)
		setParams(l, in, in["ema"])
		if w := worst(t, l.full.guess.Data(), l.net.lossGraph(l.net.slots()).Interpret(in)["prediction"]); w > 1e-5 {
			t.Errorf("the training graph differs from the interpreter by %.2g", w)
		}
		conditions, err := conditionsOf(m, b)
		if err != nil {
			t.Fatal(err)
		}
		noising := &randomNoising{l.net.diffusion, newRand(12)}
		var requests []Row
		for _, target := range b.Targets {
			at := noising.draw(make([]float64, cfg.Dim))
			requests = append(requests, Row{T: at, Label: target.Label, Cond: conditions[target.Context]})
		}
		want := make([]float64, len(l.full.guess.Data()))
		for i, p := range l.full.guess.Data() {
			alpha, sigma := math.Sqrt(cfg.AlphaBar(requests[i/cfg.Dim].T)), math.Sqrt(1-cfg.AlphaBar(requests[i/cfg.Dim].T))
			switch x := float64(l.full.batch.x.Data()[i]); m.Config().Loss.Objective {
			case objectiveX0:
				want[i] = float64(p)
			case objectiveEpsilon:
				want[i] = (x - sigma*float64(p)) / alpha
			case objectiveV:
				want[i] = alpha*x - sigma*float64(p)
			}
		}
		got := make([]float32, len(want))
		if err := m.Denoise(got, l.full.batch.x.Data(), requests); err != nil {
			t.Fatal(err)
		}
		if w := worst(t, got, want); w > 1e-5 {
			t.Errorf("the model differs from the training graph by %.2g", w)
		}
	})
}

func conditionsOf(m *Model, b *Batch) ([]*Condition, error) {
	if m.net.HasUserTable() {
		return m.Users(b.Users)
	}
	return m.Encode(b.Contexts)
}

// TestKindsContinueBitForBit takes 20 steps at once, and 10, a checkpoint on disk, another learner and 10 more.
func TestKindsContinueBitForBit(t *testing.T) {
	eachKind(t, func(t *testing.T, cfg Config) {
		steps := func(l *Learner, from, to int) {
			t.Helper()
			for i := from; i < to; i++ {
				rng := newRand(uint64(100 + i))
				if _, err := l.Step(kindBatch(rng, cfg, 3, i%6, 2), 1e-2, rng); err != nil {
					t.Fatal(err)
				}
			}
		}
		whole, first := newLearner(t, cfg, 1, ort.Options{}), newLearner(t, cfg, 1, ort.Options{})
		steps(whole, 0, 20)
		steps(first, 0, 10)
		path := filepath.Join(t.TempDir(), "prior.safetensors")
		if _, err := first.State().Save(path); err != nil {
			t.Fatal(err)
		}
		loaded, err := LoadState(path)
		if err != nil {
			t.Fatal(err)
		}
		second := learnerOf(t, loaded)
		steps(second, 10, 20)
		sameState(t, "20 steps and 10 + 10", whole.State(), second.State())
	})
}

// TestKindRowsAreIndependent: each row keeps its bits whatever shares its batch.
func TestKindRowsAreIndependent(t *testing.T) {
	eachKind(t, func(t *testing.T, cfg Config) {
		m := modelOf(t, noisyState(t, cfg, 13))
		const count = 40
		b := &Batch{}
		rng := newRand(14)
		for i := range count {
			if cfg.HasUserTable() {
				b.Users = append(b.Users, i%cfg.Users)
			} else {
				b.Contexts = append(b.Contexts, randomContext(rng, cfg.Dim, i%(cfg.MaxTokens+1)))
			}
		}
		conditions, err := conditionsOf(m, b)
		if err != nil {
			t.Fatal(err)
		}
		var rows []Row
		for i := range count {
			rows = append(rows, Row{T: 1 + i, Label: Class(1 + i%NumClasses), Cond: conditions[i]})
		}
		x := randomItem(rng, count*cfg.Dim)
		want, got := make([]float32, len(x)), make([]float32, len(x))
		if err := m.Denoise(want, x, rows); err != nil {
			t.Fatal(err)
		}
		for i := range count {
			n := min(1+i%5, count-i)
			if err := m.Denoise(got[i*cfg.Dim:(i+n)*cfg.Dim], x[i*cfg.Dim:(i+n)*cfg.Dim], rows[i:i+n]); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got[:(i+n)*cfg.Dim], want[:(i+n)*cfg.Dim]) {
				t.Fatalf("rows %d to %d have other bits alone", i, i+n)
			}
		}
	})
}

func TestKindsRefuseEachOthersContexts(t *testing.T) {
	kinds := tinyKinds()
	item := make([]float32, 6)
	for _, c := range []struct {
		kind, want string
		batch      Batch
		row        Row
	}{
		{"transformer", "reads windows", Batch{Users: []int{1}, Targets: []Target{{Item: item}}}, Row{T: -1}},
		{"reference", "has a table of users", Batch{Contexts: make([]Context, 1), Targets: []Target{{Item: item}}}, Row{T: 51}},
		{"reference", "user 4 of a table of 4", Batch{Users: []int{4}, Targets: []Target{{Item: item}}}, Row{Label: 9}},
		{"simulation", "no user", Batch{Users: []int{NoUser}, Targets: []Target{{Item: item[:3], Label: 1}}}, Row{Label: StrongPositive}},
		{"simulation", "label none", Batch{Users: []int{1}, Targets: []Target{{Item: item[:3]}}}, Row{}},
	} {
		s := noisyState(t, kinds[c.kind], 1)
		if _, err := learnerOf(t, s).Step(&c.batch, 1e-3, newRand(1)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.kind, err, c.want)
		}
		m := modelOf(t, s)
		x := make([]float32, m.Config().Dim)
		if err := m.Denoise(x, x, []Row{c.row}); err == nil {
			t.Errorf("%s: row %+v was denoised", c.kind, c.row)
		}
		if m.net.HasUserTable() {
			if _, err := m.Encode([]Context{nil}); err == nil {
				t.Errorf("%s: encoded a window", c.kind)
			}
		} else if _, err := m.Users([]int{0}); err == nil {
			t.Errorf("%s: looked a user up", c.kind)
		}
	}
}

func TestKindIsChosenByDimension(t *testing.T) {
	for dim, want := range map[int]string{16: kindMLP, 255: kindMLP, 256: kindTransformer, 1024: kindTransformer, 1031: kindTransformer} {
		cfg := DefaultConfig(dim)
		if err := cfg.Validate(); err != nil {
			t.Errorf("dim %d: %v", dim, err)
		}
		if got := cfg.resolved(); got.Kind != want || want == kindTransformer && got.Tokens*(dim/got.Tokens) != dim {
			t.Errorf("dim %d resolves to %+v, want kind %s", dim, got, want)
		}
	}
}

// TestReferenceSize holds the layout of the published prior against its published number of parameters, and those of a smaller
// variant and of the simulation's.
func TestReferenceSize(t *testing.T) {
	cfg := Config{Kind: kindReference, Dim: 1024, Hidden: 128, Blocks: 6, Heads: 8, Tokens: 32, Users: 210}
	small := cfg
	small.Hidden, small.Heads = 64, 4
	simulation := Config{Kind: kindSimulation, Dim: 16, Hidden: 512, Blocks: 2, Heads: 1, Users: 4}
	for _, c := range []struct {
		cfg  Config
		want int
	}{
		{cfg, 4_411_174}, {small, 2_698_150},
		{simulation, 1_140_336 + 16}, // with a row for nobody, which the published table has not
	} {
		if got := c.cfg.network().layout().size; got != c.want {
			t.Errorf("%s of width %d has %d parameters, want %d", c.cfg.Kind, c.cfg.Hidden, got, c.want)
		}
	}
}
