package prior

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"rebeca/internal/ort"
)

// Relative errors against PyTorch in float32: the norm of the difference over the norm of what PyTorch has.
const (
	outputParity   = 1e-5
	gradientParity = 1e-4
	weightParity   = 1e-4
	everyParity    = 1e-4 // of predictions at all timesteps, absolute
)

// TestPyTorchParity holds every kind against what PyTorch computed for small sizes (see tools/parity/fixtures.py).
func TestPyTorchParity(t *testing.T) { checkParity(t, "testdata") }

// checkParity checks the fixtures in a folder.
func checkParity(t *testing.T, folder string) {
	for _, kind := range []string{kindMLP, kindTransformer, kindReference, kindSimulation} {
		t.Run(kind, func(t *testing.T) {
			f := openFixture(t, filepath.Join(folder, kind+".safetensors"))
			t.Run("step", f.checkStep)
			t.Run("training", f.checkTraining)
			if f.cfg.HasUserTable() {
				t.Run("every timestep", f.checkEvery)
			}
			if kind == kindReference {
				t.Run("ancestral sampling", f.checkChain)
			}
		})
	}
}

// fixture is what PyTorch computed for one kind.
type fixture struct {
	*dict
	cfg Config
}

func openFixture(t *testing.T, path string) *fixture {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f := new(fixture)
	if f.dict, err = decodeDict(data); err != nil {
		t.Fatal(err)
	}
	if err := decodeConfig(f.metadata["config"], &f.cfg); err != nil {
		t.Fatal(err)
	}
	return f
}

// tensor returns a tensor of any shape.
func (f *fixture) tensor(t *testing.T, name string) []float32 {
	t.Helper()
	data, err := f.read(name, f.shapes[name]...)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// part returns the tensors under a prefix as a dict of their own, with the fixture's configuration for the importer.
func (f *fixture) part(t *testing.T, prefix string) *dict {
	t.Helper()
	out := &dict{header: make(map[string]json.RawMessage), body: f.body, shapes: make(map[string][]int), used: make(map[string]bool)}
	for name := range f.shapes {
		if own, ok := strings.CutPrefix(name, prefix); ok {
			out.header[own], out.shapes[own] = f.header[name], f.shapes[name]
		}
	}
	return out
}

// flat returns parameters, or numbers by parameter, in our layout.
func (f *fixture) flat(t *testing.T, prefix string) []float32 {
	t.Helper()
	part := f.part(t, prefix)
	if f.cfg.HasUserTable() {
		out, err := part.flat(f.cfg)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	l := f.cfg.network().layout()
	if len(part.shapes) != len(l.parameters) {
		t.Fatalf("%d parameters under %s, the network has %d", len(part.shapes), prefix, len(l.parameters))
	}
	out := make([]float32, 0, l.size)
	for _, p := range l.parameters {
		data, err := part.read(p.name, p.shape...)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, data...)
	}
	return out
}

// state has the weights before training. A simulation is trained with its norms folded.
func (f *fixture) state(t *testing.T) *State {
	t.Helper()
	s, err := NewState(f.cfg, unitStats(f.cfg.Dim), 0)
	if err != nil {
		t.Fatal(err)
	}
	prefix := "params."
	if f.cfg.Kind == kindSimulation {
		prefix = "folded."
	}
	s.Params = f.flat(t, prefix)
	s.EMA = slices.Clone(s.Params)
	return s
}

// batch returns the contexts and targets of every step.
func (f *fixture) batch(t *testing.T) *Batch {
	t.Helper()
	b := new(Batch)
	dim := f.cfg.Dim
	if f.cfg.HasUserTable() {
		for _, user := range f.tensor(t, "users") {
			b.Users = append(b.Users, int(user))
		}
	} else {
		items, classes, older := f.tensor(t, "items"), f.tensor(t, "classes"), f.tensor(t, "older")
		for c := range f.cfg.Contexts {
			var ctx Context
			for i := c * f.cfg.MaxTokens; i < (c+1)*f.cfg.MaxTokens; i++ {
				if classes[i] > 0 {
					ctx = append(ctx, Entry{Item: items[i*dim : (i+1)*dim], Class: Class(classes[i]), Older: older[i] == 1})
				}
			}
			b.Contexts = append(b.Contexts, ctx)
		}
	}
	z, labels := f.tensor(t, "z"), f.tensor(t, "labels")
	for i, label := range labels {
		b.Targets = append(b.Targets, Target{Context: i / f.cfg.Targets, Item: z[i*dim : (i+1)*dim], Label: Class(label)})
	}
	return b
}

// recorded is the noising of a step as PyTorch drew it.
type recorded struct {
	times, noise []float32
	row          int
}

func (r *recorded) draw(noise []float64) int {
	for d := range noise {
		noise[d] = float64(r.noise[r.row*len(noise)+d])
	}
	r.row++
	return int(r.times[r.row-1])
}

func (f *fixture) noising(t *testing.T, step int) *recorded {
	rows := f.cfg.Contexts * f.cfg.Targets
	times, noise := f.tensor(t, "times"), f.tensor(t, "noise")
	return &recorded{times: times[step*rows : (step+1)*rows], noise: noise[step*rows*f.cfg.Dim : (step+1)*rows*f.cfg.Dim]}
}

// checkStep compares predictions, loss and gradients of the first step. Adam's first moment is a tenth of the clipped gradient.
func (f *fixture) checkStep(t *testing.T) {
	l := learnerOf(t, f.state(t))
	b := f.batch(t)
	if err := l.full.batch.set(l.net, l.stats, b, f.noising(t, 0)); err != nil {
		t.Fatal(err)
	}
	if err := l.full.losses[0].Run(); err != nil {
		t.Fatal(err)
	}
	f.within(t, "predictions", l.full.guess.Data(), f.tensor(t, "prediction"), outputParity)
	f.within(t, "loss", l.results[0].Data(), f.tensor(t, "loss")[:1], outputParity)

	stats, err := l.stepOn(b, 0, f.noising(t, 0))
	if err != nil {
		t.Fatal(err)
	}
	gradient := l.State().M
	clip := min(1, 1/(stats.GradNorm+1e-6))
	for i := range gradient {
		gradient[i] = float32(float64(gradient[i]) / (1 - beta1) / clip)
	}
	f.within(t, "norm of the gradient", []float32{float32(stats.GradNorm)}, f.tensor(t, "norm")[:1], gradientParity)
	want := f.flat(t, "grad.")
	f.within(t, "gradient", gradient, want, gradientParity)
	whole := norm(want)
	for _, p := range l.net.layout().parameters {
		// A tensor whose gradient is next to nothing beside the others' is compared with a thousandth of theirs.
		got, want := gradient[p.offset:p.offset+p.size], want[p.offset:p.offset+p.size]
		if e := distance(got, want) / max(norm(want), 1e-3*whole); !(e <= gradientParity) {
			t.Errorf("gradient by %s: relative error %.2g", p.name, e)
		}
	}
}

// checkTraining takes the steps that PyTorch took.
func (f *fixture) checkTraining(t *testing.T) {
	const rate = 1e-3
	l := learnerOf(t, f.state(t))
	b := f.batch(t)
	losses, norms := f.tensor(t, "loss"), f.tensor(t, "norm")
	var loss, size []float32
	for step := range losses {
		stats, err := l.stepOn(b, rate, f.noising(t, step))
		if err != nil {
			t.Fatal(err)
		}
		loss, size = append(loss, float32(stats.Loss)), append(size, float32(stats.GradNorm))
	}
	f.within(t, "losses", loss, losses, weightParity)
	f.within(t, "norms", size, norms, gradientParity)
	s := l.State()
	for _, v := range []struct {
		name      string
		got, want []float32
	}{{"weights", s.Params, f.flat(t, "after.")}, {"moving average", s.EMA, f.flat(t, "ema.")}} {
		for _, i := range f.keyBiases() {
			if d := math.Abs(float64(v.got[i] - v.want[i])); d > 2*rate*float64(len(losses)) {
				t.Errorf("%s: the bias of a key is off by %v, more than the steps allow", v.name, d)
			}
			v.got[i] = v.want[i]
		}
		f.within(t, v.name, v.got, v.want, weightParity)
		for _, p := range l.net.layout().parameters {
			got, want := v.got[p.offset:p.offset+p.size], v.want[p.offset:p.offset+p.size]
			if e := distance(got, want) / norm(want); !(e <= weightParity) {
				t.Errorf("%s of %s: relative error %.2g", v.name, p.name, e)
			}
		}
	}
}

// keyBiases lists where keys' biases lie. Under a softmax they change nothing, so their gradient is the rounding noise of either
// side, about 1e-9, which Adam turns into steps of the size of all others.
func (f *fixture) keyBiases() []int {
	var out []int
	h := f.cfg.Hidden
	for _, p := range f.cfg.network().layout().parameters {
		switch {
		case strings.HasSuffix(p.name, "self.in.bias"):
			for i := range h {
				out = append(out, p.offset+h+i)
			}
		case p.name == "memory.bias":
			for i := range p.size {
				if i/h%2 == 0 {
					out = append(out, p.offset+i)
				}
			}
		}
	}
	return out
}

// imported writes the state dict as a file of its own and reads it with ImportReference.
func (f *fixture) imported(t *testing.T) *State {
	t.Helper()
	part := f.part(t, "params.")
	var sections []section
	for name, shape := range part.shapes {
		data, err := part.read(name, shape...)
		if err != nil {
			t.Fatal(err)
		}
		sections = append(sections, section{name, shape, data})
	}
	path := filepath.Join(t.TempDir(), "dict.safetensors")
	header, err := encodeHeader(map[string]string{"heads": strconv.Itoa(f.cfg.Heads)}, sections)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(header, encodeBody(sections)...), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := ImportReference(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (f *fixture) importedModel(t *testing.T) *Model {
	t.Helper()
	m, err := NewModel(f.imported(t), ort.Options{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// checkEvery compares the imported model's predictions at all timesteps, for known users, nobody, and all scores.
func (f *fixture) checkEvery(t *testing.T) {
	m := f.importedModel(t)
	x8, users, labels := f.tensor(t, "every.x"), f.tensor(t, "every.users"), f.tensor(t, "every.labels")
	who := make([]int, len(users))
	for i, u := range users {
		who[i] = int(u)
	}
	conditions, err := m.Users(who)
	if err != nil {
		t.Fatal(err)
	}
	dim := f.cfg.Dim
	var rows []Row
	var x []float32
	for i, label := range labels {
		rows = append(rows, Row{T: i + 1, Label: Class(label), Cond: conditions[i]})
		x = append(x, x8[i%8*dim:(i%8+1)*dim]...)
	}
	got := make([]float32, len(x))
	// The fixture has the network's own output, of which Denoise makes an estimate of z.
	m.net.diffusion.Objective = objectiveX0
	if err := m.Denoise(got, x, rows); err != nil {
		t.Fatal(err)
	}
	var top float64
	want := f.tensor(t, "every.prediction")
	for i, v := range want {
		top = max(top, math.Abs(float64(got[i]-v)))
	}
	t.Logf("predictions at %d timesteps: largest error %.2g of values up to %.3g", len(rows), top, largest(want))
	if !(top <= everyParity) {
		t.Errorf("predictions at all timesteps differ by up to %.2g", top)
	}
	f.within(t, "predictions at all timesteps", got, want, outputParity)
}

// checkChain is the published prior's sampler, DDPM over all timesteps with guidance 5, on the recorded noise.
func (f *fixture) checkChain(t *testing.T) {
	const guidance = 5
	m := f.importedModel(t)
	conditions, err := m.Users([]int{0})
	if err != nil {
		t.Fatal(err)
	}
	dim, T := f.cfg.Dim, f.cfg.Timesteps
	noise := f.tensor(t, "chain.noise")
	bars := append([]float64{1}, cosineBars(T)...)
	x, x32, z := wide(noise[T*dim:]), make([]float32, 2*dim), make([]float32, 2*dim)
	for at := T; at > 0; at-- {
		for d := range dim {
			x32[d], x32[dim+d] = float32(x[d]), float32(x[d])
		}
		if err := m.Denoise(z, x32, []Row{{T: at, Label: StrongPositive, Cond: conditions[0]}, {T: at}}); err != nil {
			t.Fatal(err)
		}
		bar, before := bars[at], bars[at-1]
		beta := 1 - bar/before
		deviation := math.Sqrt(max((1-before)/(1-bar)*beta, 1e-20))
		for d := range dim {
			estimate := float64(z[dim+d]) + guidance*(float64(z[d])-float64(z[dim+d]))
			x[d] = math.Sqrt(before)*beta/(1-bar)*estimate + math.Sqrt(1-beta)*(1-before)/(1-bar)*x[d]
			if at > 1 {
				x[d] += deviation * float64(noise[(at-1)*dim+d])
			}
		}
	}
	got := make([]float32, dim)
	for d := range got {
		got[d] = float32(x[d])
	}
	f.within(t, "sample", got, f.tensor(t, "chain.z"), outputParity)
}

// within compares vectors and reports the relative error.
func (f *fixture) within(t *testing.T, what string, got, want []float32, bound float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	e := distance(got, want) / norm(want)
	t.Logf("%s: relative error %.2g", what, e)
	if !(e <= bound) {
		t.Errorf("%s: relative error %.2g is above %.0g", what, e, bound)
	}
}

func norm(x []float32) float64 { return distance(x, make([]float32, len(x))) }

func distance(a, b []float32) float64 {
	var sum float64
	for i := range a {
		d := float64(a[i]) - float64(b[i])
		sum += d * d
	}
	return math.Sqrt(sum)
}

func largest(x []float32) float64 {
	var top float64
	for _, v := range x {
		top = max(top, math.Abs(float64(v)))
	}
	return top
}
