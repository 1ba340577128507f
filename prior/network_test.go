package prior

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"rebeca/internal/ort"
	"rebeca/prior/graph"
)

// tinyConfig is small enough for the interpreter.
func tinyConfig() Config {
	return Config{Kind: "mlp", Dim: 3, Hidden: 8, Blocks: 2, Heads: 2, MaxTokens: 5, Contexts: 3, Targets: 2, Timesteps: 50}
}

// noisyState has no zeros where a new prior has them, so that every parameter matters, and moments as after some training.
func noisyState(t testing.TB, cfg Config, seed uint64) *State {
	t.Helper()
	s, err := NewState(cfg, unitStats(cfg.Dim), seed)
	if err != nil {
		t.Fatal(err)
	}
	rng := newRand(seed)
	for i := range s.Params {
		s.Params[i] += float32(.1 * rng.NormFloat64())
		s.EMA[i] = s.Params[i] + float32(.01*rng.NormFloat64())
		s.M[i] = float32(.01 * rng.NormFloat64())
		s.V[i] = float32(.01 * rng.Float64())
	}
	return s
}

func learnerOf(t testing.TB, s *State) *Learner {
	t.Helper()
	l, err := NewLearner(s, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func modelOf(t testing.TB, s *State) *Model {
	t.Helper()
	m, err := NewModel(s, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// worst returns the largest |got - want| / (1 + |want|).
func worst(t testing.TB, got []float32, want []float64) float64 {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d values, want %d", len(got), len(want))
	}
	var w float64
	for i := range got {
		d := math.Abs(float64(got[i])-want[i]) / (1 + math.Abs(want[i]))
		if math.IsNaN(d) {
			return math.Inf(1)
		}
		w = max(w, d)
	}
	return w
}

func wide(x []float32) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = float64(v)
	}
	return out
}

// stepInputs returns the inputs of the training graph that l would run next, after a batch was set, and the whole flat vectors too.
func stepInputs(l *Learner) map[string][]float64 {
	in := make(map[string][]float64)
	tensors := slices.Concat(l.vectors.whole[flatParams], l.full.batch.inputs())
	for i, name := range l.net.stepGraph(l.net.slots()).InputNames() {
		in[name] = wide(tensors[i].Data())
	}
	for i, name := range vectorNames() {
		in[name] = wide(l.vectors.flat[i])
	}
	return in
}

// TestStepMatchesInterpreter holds a whole training step in ONNX Runtime, with its gradients, clip, optimizer and moving average,
// against the float64 interpreter.
func TestStepMatchesInterpreter(t *testing.T) {
	l := learnerOf(t, noisyState(t, tinyConfig(), 1))
	b := randomBatch(newRand(2), l.net.Config, 3, 4, 2)
	b.Targets = b.Targets[:5] // one is padding
	if err := l.full.batch.set(l.net, l.stats, b, &randomNoising{l.net.diffusion, newRand(3)}); err != nil {
		t.Fatal(err)
	}
	layout := l.net.layout()
	first := l.net.stepGraph(l.net.slots()).Interpret(stepInputs(l))
	var gradient []float64
	for _, p := range layout.parameters {
		gradient = append(gradient, first["gradient."+p.name]...)
	}
	in := make(map[string][]float64)
	for i, c := range layout.chunks(chunkSize) {
		for v, name := range vectorNames() {
			in[fmt.Sprintf("%s.%d", name, i)] = wide(l.vectors.flat[v][c.from:c.to])
		}
		in[fmt.Sprintf("gradient.%d", i)] = gradient[c.from:c.to]
	}
	scheduled := make([]float32, numSchedule)
	scheduleOf(1, 1e-2, first["norm"][0]).write(scheduled)
	in["schedule"] = wide(scheduled)
	want := layout.optimizerGraph().Interpret(in)
	stats, err := l.Step(b, 1e-2, newRand(3))
	if err != nil {
		t.Fatal(err)
	}
	const tolerance = 2e-6
	for i, name := range vectorNames() {
		var next []float64
		for k := range layout.chunks(chunkSize) {
			next = append(next, want[fmt.Sprintf("next.%s.%d", name, k)]...)
		}
		if w := worst(t, l.vectors.flat[i], next); w > tolerance {
			t.Errorf("next %s differs from the interpreter by %.2g", name, w)
		}
	}
	if w := worst(t, []float32{float32(stats.Loss), float32(stats.GradNorm)}, []float64{first["loss"][0], first["norm"][0]}); w > tolerance {
		t.Errorf("loss and norm %v differ from the interpreter's %v, %v", stats, first["loss"], first["norm"])
	}
}

// TestModelGradient holds the gradient of the whole network against central differences in random directions, in float64.
func TestModelGradient(t *testing.T) {
	cfg := tinyConfig()
	l := learnerOf(t, noisyState(t, cfg, 4))
	net := l.net
	if err := l.full.batch.set(net, l.stats, randomBatch(newRand(5), cfg, 3, 5, 2), &randomNoising{net.diffusion, newRand(6)}); err != nil {
		t.Fatal(err)
	}
	g := graph.New("gradient")
	layout := net.layout()
	w, ordered := layout.views(g, g.Input("params", layout.size))
	_, loss := net.batchLoss(g, w, l.net.slots())
	g.Output("loss", loss)
	g.Output("gradient", layout.flatten(g, g.Gradients(loss, ordered...)))
	in := stepInputs(l)
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
			moved := slices.Clone(in["params"])
			for i := range direction {
				moved[p.offset+i] += step * direction[i]
			}
			other := make(map[string][]float64)
			for k, v := range in {
				other[k] = v
			}
			other["params"] = moved
			return g.Interpret(other)["loss"][0]
		}
		if numeric := (at(h) - at(-h)) / (2 * h); math.Abs(numeric-slope) > 1e-7*(1+math.Abs(numeric)) {
			t.Errorf("%s: derivative %.9g in a random direction, differences give %.9g", p.name, slope, numeric)
		}
		if slope == 0 {
			t.Errorf("%s: no gradient", p.name)
		}
	}
}

// TestAttentionMatchesKeysAndValues holds the rearranged attention against its textbook form: a query per row, a key and a value per
// token, for each head.
func TestAttentionMatchesKeysAndValues(t *testing.T) {
	cfg := tinyConfig()
	net := mlp{cfg}
	h, d, slots, count := cfg.Hidden, cfg.Hidden/cfg.Heads, net.slots(), cfg.Contexts*cfg.Targets
	state := noisyState(t, cfg, 8)
	layout := net.layout()

	g := graph.New("attention")
	x := g.Input("x", count, h)
	in := rows{memory: g.Input("tokens", cfg.Contexts, slots, h), mask: g.Input("mask", cfg.Contexts, 1, slots)}
	g.Output("y", net.attend(g, layout.constants(g, state.Params), "block.1.", x, in))
	rng := newRand(9)
	draw := func(n int) []float64 {
		out := make([]float64, n)
		for i := range out {
			out[i] = rng.NormFloat64()
		}
		return out
	}
	inputs := map[string][]float64{"x": draw(count * h), "tokens": draw(cfg.Contexts * slots * h), "mask": make([]float64, cfg.Contexts*slots)}
	for i := range inputs["mask"] {
		if i%slots > 1+i/slots {
			inputs["mask"][i] = masked
		}
	}
	got := g.Interpret(inputs)["y"]

	weight := func(name string) []float32 {
		i := slices.IndexFunc(layout.parameters, func(p parameter) bool { return p.name == "block.1."+name })
		p := layout.parameters[i]
		return state.Params[p.offset : p.offset+p.size]
	}
	query, bias, key := weight("query.weight"), weight("query.bias"), weight("key.weight")
	value, out, last := weight("value.weight"), weight("attention.weight"), weight("attention.bias")
	for r := range count {
		want := wide(last)
		c := r / cfg.Targets
		for n := range cfg.Heads {
			q := make([]float64, d)
			for j := range d {
				q[j] = float64(bias[n*d+j])
				for i := range h {
					q[j] += inputs["x"][r*h+i] * float64(query[(n*h+i)*d+j])
				}
			}
			var total float64
			sum := make([]float64, d)
			for s := range slots {
				token := inputs["tokens"][(c*slots+s)*h : (c*slots+s+1)*h]
				var score float64
				v := make([]float64, d)
				for j := range d {
					for i := range h {
						score += q[j] * float64(key[(n*d+j)*h+i]) * token[i] / math.Sqrt(float64(d))
						v[j] += float64(value[(n*h+i)*d+j]) * token[i]
					}
				}
				p := math.Exp(score + inputs["mask"][c*slots+s])
				total += p
				for j := range d {
					sum[j] += p * v[j]
				}
			}
			for o := range h {
				for j := range d {
					want[o] += sum[j] / total * float64(out[(n*d+j)*h+o])
				}
			}
		}
		for o := range h {
			if math.Abs(got[r*h+o]-want[o]) > 1e-5 { // the scale 1/sqrt(d) is a float32 constant
				t.Fatalf("row %d, channel %d: %.8g, want %.8g", r, o, got[r*h+o], want[o])
			}
		}
	}
}

// TestParity holds the compiled model against the training graph's forward pass on the same rows, and against the interpreter.
func TestParity(t *testing.T) {
	for _, cfg := range []Config{tinyConfig(), DefaultConfig(16)} {
		t.Run(fmt.Sprint(cfg.Hidden), func(t *testing.T) {
			s := noisyState(t, cfg, 10)
			l, m := learnerOf(t, s), modelOf(t, s)
			cfg = m.Config()
			rng := newRand(11)
			b := new(Batch)
			for c := range cfg.Contexts {
				b.Contexts = append(b.Contexts, randomContext(rng, cfg.Dim, rng.IntN(cfg.MaxTokens+1)))
				for range cfg.Targets {
					b.Targets = append(b.Targets, Target{Context: c, Item: randomItem(rng, cfg.Dim), Label: Class(rng.IntN(numLabels))})
				}
			}
			if _, err := l.Loss(b, newRand(12), true); err != nil {
				t.Fatal(err)
			}
			conditions, err := m.Encode(b.Contexts)
			if err != nil {
				t.Fatal(err)
			}
			times := newRand(12)
			var requests []Row
			for _, target := range b.Targets {
				requests = append(requests, Row{T: 1 + times.IntN(cfg.Timesteps), Label: target.Label, Cond: conditions[target.Context]})
				for range cfg.Dim {
					times.NormFloat64()
				}
			}
			got := make([]float32, len(requests)*cfg.Dim)
			if err := m.Denoise(got, l.full.batch.x.Data(), requests); err != nil {
				t.Fatal(err)
			}
			if w := worst(t, got, wide(l.full.guess.Data())); w > 1e-5 {
				t.Errorf("the model differs from the training graph by %.2g", w)
			}
			if cfg.Hidden > 8 {
				return // too slow for the interpreter
			}
			in := stepInputs(l)
			setParams(l, in, in["ema"])
			if w := worst(t, got, l.net.lossGraph(l.net.slots()).Interpret(in)["prediction"]); w > 1e-5 {
				t.Errorf("the model differs from the interpreter by %.2g", w)
			}
		})
	}
}

// TestRowsAreIndependent permutes rows and fills batches differently: each row must keep its bits.
func TestRowsAreIndependent(t *testing.T) {
	cfg := DefaultConfig(16)
	m := modelOf(t, noisyState(t, cfg, 13))
	rng := newRand(14)
	const count = 40
	contexts := make([]Context, count)
	for i := range contexts {
		contexts[i] = randomContext(rng, cfg.Dim, rng.IntN(cfg.MaxTokens+1))
	}
	x := make([]float32, count*cfg.Dim)
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	run := func(order []int) ([][]float32, [][]float32) {
		var chosen []Context
		var noisy []float32
		for _, i := range order {
			chosen = append(chosen, contexts[i])
			noisy = append(noisy, x[i*cfg.Dim:(i+1)*cfg.Dim]...)
		}
		conditions, err := m.Encode(chosen)
		if err != nil {
			t.Fatal(err)
		}
		var requests []Row
		var vectors [][]float32
		for k, i := range order {
			requests = append(requests, Row{T: 25 * i, Label: Class(i % numLabels), Cond: conditions[k]})
			vectors = append(vectors, conditions[k].Vector)
		}
		if err := m.Denoise(noisy, noisy, requests); err != nil {
			t.Fatal(err)
		}
		return slices.Collect(slices.Chunk(noisy, cfg.Dim)), vectors
	}
	inOrder := make([]int, count)
	for i := range inOrder {
		inOrder[i] = i
	}
	wantZ, wantVectors := run(inOrder)
	check := func(order []int) {
		z, vectors := run(order)
		for k, i := range order {
			if !slices.Equal(z[k], wantZ[i]) || !slices.Equal(vectors[k], wantVectors[i]) {
				t.Fatalf("row %d has other bits at place %d of %d", i, k, len(order))
			}
		}
	}
	for range 4 {
		check(rng.Perm(count))
	}
	for i := range count {
		check([]int{i})
		check(inOrder[i:min(i+5, count)])
	}
}

// TestModelIsConcurrent compares the results of many goroutines with those of one; the race detector watches.
func TestModelIsConcurrent(t *testing.T) {
	cfg := tinyConfig()
	m := modelOf(t, noisyState(t, cfg, 15))
	work := func(seed uint64) []float32 {
		rng := newRand(seed)
		conditions, err := m.Encode([]Context{randomContext(rng, cfg.Dim, 5), nil, randomContext(rng, cfg.Dim, 1)})
		if err != nil {
			t.Error(err)
			return nil
		}
		var requests []Row
		for i := range 20 {
			requests = append(requests, Row{T: i, Label: StrongPositive, Cond: conditions[i%3]})
		}
		x := randomItem(rng, cfg.Dim*len(requests))
		if err := m.Denoise(x, x, requests); err != nil {
			t.Error(err)
		}
		return x
	}
	want := make([][]float32, 4)
	for i := range want {
		want[i] = work(uint64(i))
	}
	done := make(chan bool)
	for i := range want {
		go func() {
			same := true
			for range 20 {
				same = same && slices.Equal(work(uint64(i)), want[i])
			}
			done <- same
		}()
	}
	for range want {
		if !<-done {
			t.Error("a concurrent call gave other bits")
		}
	}
}

func TestNilConditionIsEmptyContext(t *testing.T) {
	cfg := tinyConfig()
	m := modelOf(t, noisyState(t, cfg, 16))
	conditions, err := m.Encode([]Context{{}, randomContext(newRand(1), cfg.Dim, 2)})
	if err != nil {
		t.Fatal(err)
	}
	x := randomItem(newRand(17), cfg.Dim)
	predict := func(c *Condition) []float32 {
		z := make([]float32, cfg.Dim)
		if err := m.Denoise(z, x, []Row{{T: 10, Label: StrongPositive, Cond: c}}); err != nil {
			t.Fatal(err)
		}
		return z
	}
	if !slices.Equal(predict(nil), predict(conditions[0])) {
		t.Error("a nil condition is not the encoded empty context")
	}
	if slices.Equal(predict(nil), predict(conditions[1])) {
		t.Error("a context changes nothing")
	}
}

func TestModelRefuses(t *testing.T) {
	cfg := tinyConfig()
	m, other := modelOf(t, noisyState(t, cfg, 18)), modelOf(t, noisyState(t, cfg, 18))
	entry := func(dim int, class Class) Entry { return Entry{Item: make([]float32, dim), Class: class} }
	nan := entry(cfg.Dim, StrongPositive)
	nan.Item[1] = float32(math.NaN())
	for name, ctx := range map[string]Context{
		"too long":  slices.Repeat(Context{entry(cfg.Dim, WeakPositive)}, cfg.MaxTokens+1),
		"dimension": {entry(cfg.Dim+1, StrongPositive)},
		"no class":  {entry(cfg.Dim, ClassNone)},
		"class":     {entry(cfg.Dim, NumClasses+1)},
		"NaN":       {nan},
	} {
		if _, err := m.Encode([]Context{nil, ctx}); err == nil {
			t.Errorf("%s: encoded", name)
		}
	}
	x := make([]float32, cfg.Dim)
	for _, r := range []Row{{T: -1}, {T: cfg.Timesteps + 1}, {Label: NumClasses + 1}} {
		if err := m.Denoise(x, x, []Row{r}); err == nil {
			t.Errorf("row %+v was denoised", r)
		}
	}
	foreign, err := other.Encode([]Context{nil})
	if err != nil {
		t.Fatal(err)
	}
	panics(t, "condition of another model", func() { m.Denoise(x, x, []Row{{Cond: foreign[0]}}) })
	panics(t, "sizes", func() { m.Denoise(x, x[:1], []Row{{}}) })
	m.Close()
	panics(t, "closed", func() { m.Denoise(x, x, []Row{{}}) })
	if err := m.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
}

func panics(t *testing.T, name string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s: no panic", name)
		}
	}()
	f()
}

// setParams gives the weights by parameter the values of a flat vector.
func setParams(l *Learner, in map[string][]float64, flat []float64) {
	for _, p := range l.net.layout().parameters {
		in["params."+p.name] = flat[p.offset : p.offset+p.size]
	}
}

// views cuts a flat input into the parameters, and returns them in order too.
func (l *layout) views(g *graph.Graph, flat *graph.Value) (weights, []*graph.Value) {
	sizes := make([]int, len(l.parameters))
	for i, p := range l.parameters {
		sizes[i] = p.size
	}
	w := make(weights)
	ordered := g.Split(flat, 0, sizes...)
	for i, p := range l.parameters {
		ordered[i] = g.Reshape(ordered[i], p.shape...)
		w[p.name] = ordered[i]
	}
	return w, ordered
}

// flatten joins values in the order of the layout, such as gradients, to one vector.
func (l *layout) flatten(g *graph.Graph, values []*graph.Value) *graph.Value {
	flat := make([]*graph.Value, len(values))
	for i, v := range values {
		flat[i] = g.Reshape(v, l.parameters[i].size)
	}
	return g.Concat(0, flat...)
}
