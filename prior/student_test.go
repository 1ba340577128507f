package prior

import (
	"errors"
	"math"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"rebeca/internal/ort"
)

// studentConfigs are tiny priors that can have a student.
func studentConfigs() map[string]Config {
	cut := tinyConfig()
	cut.Kind, cut.Dim, cut.Tokens = kindTransformer, 4, 2
	return map[string]Config{"mlp": tinyConfig(), "transformer": cut}
}

// noisyStudent has no zeros where a new student has them.
func noisyStudent(t testing.TB, cfg Config, seed uint64) *Student {
	t.Helper()
	s, err := NewStudent(cfg, seed)
	if err != nil {
		t.Fatal(err)
	}
	rng := newRand(seed)
	for i := range s.Params {
		s.Params[i] += float32(.1 * rng.NormFloat64())
		s.EMA[i] = s.Params[i] + float32(.03*rng.NormFloat64())
		s.Fast[i] = s.Params[i] + float32(.01*rng.NormFloat64())
		s.M[i], s.V[i] = float32(.01*rng.NormFloat64()), float32(.01*rng.Float64())
	}
	s.Fidelity = Fidelity{Distances: [3]float32{.3, .2, .1}, Bound: .25}
	return s
}

func studied(t testing.TB, cfg Config, seed uint64) *State {
	t.Helper()
	s := noisyState(t, cfg, seed)
	s.Student = noisyStudent(t, cfg, seed+1)
	s.Student.Step = 7
	return s
}

// TestNewStudentDoesAsItsTeacher: also after the teacher has learned on, for it is followed.
func TestNewStudentDoesAsItsTeacher(t *testing.T) {
	for name, cfg := range studentConfigs() {
		t.Run(name, func(t *testing.T) {
			state := noisyState(t, cfg, 1)
			student, err := NewStudent(cfg, 2)
			if err != nil {
				t.Fatal(err)
			}
			l := learnerOf(t, state)
			if err := l.Teach(student); err != nil {
				t.Fatal(err)
			}
			train(t, l, 0, 5)
			m := modelOf(t, l.State())
			rng := newRand(3)
			conditions, err := m.Encode([]Context{randomContext(rng, cfg.Dim, 4), nil})
			if err != nil {
				t.Fatal(err)
			}
			x := randomItem(rng, 20*cfg.Dim)
			want, got := make([]float32, len(x)), make([]float32, len(x))
			rows, leaps := make([]Row, 20), make([]Leap, 20)
			for i := range rows {
				rows[i] = Row{T: 1 + 2*i, Label: StrongPositive, Cond: conditions[i%2]}
				leaps[i] = Leap{Row: rows[i], To: i, Guidance: 1 + float64(i)/5}
			}
			if err := errors.Join(m.Denoise(want, x, rows), m.Leap(got, x, leaps)); err != nil {
				t.Fatal(err)
			}
			if w := worst(t, got, wide(want)); w > 1e-6 {
				t.Errorf("a new student differs from its teacher by %.2g", w)
			}
		})
	}
}

// TestLessonAgainstPlainTwin makes the goals and the loss of a lesson row by row from what models of the same weights say.
func TestLessonAgainstPlainTwin(t *testing.T) {
	teacher := Guidance{Low: -1.2, High: 1}
	for name, cfg := range studentConfigs() {
		t.Run(name, func(t *testing.T) {
			state := studied(t, cfg, 4)
			l := learnerOf(t, state)
			rng := newRand(5)
			b := &Batch{Contexts: []Context{randomContext(rng, cfg.Dim, 4), nil}} // a place is left empty
			for c := range b.Contexts {
				for range 3 + 2*c {
					b.Targets = append(b.Targets, Target{Context: c, Item: randomItem(rng, cfg.Dim), Label: StrongNegative})
				}
			}
			stats, err := l.StepStudent(b, teacher, 1e-3, newRand(6))
			if err != nil {
				t.Fatal(err)
			}
			if want := plainLesson(t, state, b, teacher, newRand(6)); math.Abs(stats.Loss-want) > 1e-5*want {
				t.Errorf("the loss is %v, by plain means %v", stats.Loss, want)
			}
		})
	}
}

func plainLesson(t *testing.T, s *State, b *Batch, teacher Guidance, rng *rand.Rand) float64 {
	t.Helper()
	model := func(weights []float32) *Model {
		other := *s
		other.Student = s.Student.clone()
		other.Student.EMA = weights
		return modelOf(t, &other)
	}
	pupil, fast := model(s.Student.Params), model(s.Student.Fast)
	cfg := s.Config
	at := []int{0, 7, 14, 21, 29, 36, 43, 50} // sevenths of 50, rounded
	alpha := func(k int) float64 { return math.Sqrt(cfg.AlphaBar(at[k])) }
	sigma := func(k int) float64 { return math.Sqrt(1 - cfg.AlphaBar(at[k])) }
	ask := func(m *Model, x []float64, ctx Context, from, to int, w float64) []float64 {
		cond, err := m.Encode([]Context{ctx})
		if err != nil {
			t.Fatal(err)
		}
		out := narrow(x)
		row := Row{T: at[from], Label: StrongPositive, Cond: cond[0]}
		if to >= 0 {
			err = m.Leap(out, out, []Leap{{Row: row, To: at[to], Guidance: w}})
		} else if to == -2 {
			err = m.Denoise(out, out, []Row{{T: row.T}})
		} else {
			err = m.Denoise(out, out, []Row{row})
		}
		if err != nil {
			t.Fatal(err)
		}
		return wide(out)
	}
	hop := func(x []float64, from, to int, estimate []float64) []float64 {
		out := make([]float64, len(x))
		for d := range x {
			out[d] = alpha(to)*estimate[d] + sigma(to)/sigma(from)*(x[d]-alpha(from)*estimate[d])
		}
		return out
	}
	sum, real := 0., 0
	for row := range cfg.Contexts * studentRows {
		c, i := row/studentRows, row%studentRows
		l := drawLeap(rng, i < studentCells)
		noise := make([]float64, cfg.Dim)
		for d := range noise {
			noise[d] = rng.NormFloat64()
		}
		if c >= len(b.Contexts) {
			continue
		}
		real++
		own := slices.DeleteFunc(slices.Clone(b.Targets), func(t Target) bool { return t.Context != c })
		x := make([]float64, cfg.Dim)
		for d, z := range own[i%len(own)].Item {
			x[d] = alpha(l.from)*float64(z) + sigma(l.from)*noise[d]
		}
		ctx := b.Contexts[c]
		var goal []float64
		if i < studentCells {
			goal = ask(pupil, x, ctx, l.from, -1, 0)
			if lambda := math.Log(alpha(l.from) / sigma(l.from)); lambda >= teacher.Low && lambda <= teacher.High {
				for d, u := range ask(pupil, x, ctx, l.from, -2, 0) {
					goal[d] = u + l.guidance*(goal[d]-u)
				}
			}
		} else {
			half := hop(x, l.from, l.via, ask(fast, x, ctx, l.from, l.via, l.guidance))
			end := hop(half, l.via, l.to, ask(fast, half, ctx, l.via, l.to, l.guidance))
			for d := range end {
				q := sigma(l.to) / sigma(l.from)
				goal = append(goal, (end[d]-q*x[d])/(alpha(l.to)-q*alpha(l.from)))
			}
		}
		for d, g := range ask(pupil, x, ctx, l.from, l.to, l.guidance) {
			sum += (g - goal[d]) * (g - goal[d]) * min(1/(sigma(l.from)*sigma(l.from)), 5) / float64(cfg.Dim)
		}
	}
	return sum / float64(real)
}

func narrow(x []float64) []float32 {
	out := make([]float32, len(x))
	for i, v := range x {
		out[i] = float32(v)
	}
	return out
}

// TestLessonGradient holds the gradient of the differences against differences of the loss, in float64.
func TestLessonGradient(t *testing.T) {
	for name, cfg := range studentConfigs() {
		t.Run(name, func(t *testing.T) {
			l := learnerOf(t, studied(t, cfg, 7))
			g := l.net.lessonGraph()
			in, rng := map[string][]float64{}, newRand(8)
			for i, name := range g.InputNames() {
				n := 1
				for _, d := range g.InputShapes()[i] {
					n *= d
				}
				for range n {
					in[name] = append(in[name], .3*rng.NormFloat64())
				}
			}
			out := g.Interpret(in)
			var along float64
			var square float64
			const step = 1e-4
			moved := func(sign float64) float64 {
				other := map[string][]float64{}
				for name, data := range in {
					other[name] = slices.Clone(data)
					for i := range data {
						if d, ok := out["gradient."+strings.TrimPrefix(name, "params.")]; ok && strings.HasPrefix(name, "params.") {
							other[name][i] += sign * step * d[i]
						}
					}
				}
				return g.Interpret(other)["loss"][0]
			}
			for name, d := range out {
				for _, x := range d {
					if strings.HasPrefix(name, "gradient.") {
						square += x * x
					}
				}
			}
			along = (moved(1) - moved(-1)) / (2 * step)
			if math.Abs(along-square) > 1e-4*square || square == 0 {
				t.Errorf("the loss changes by %v along its gradient, whose square is %v", along, square)
			}
			if norm := out["norm"][0]; math.Abs(norm*norm-square) > 1e-9*square {
				t.Errorf("norm %v, want %v", norm, math.Sqrt(square))
			}
		})
	}
}

// teach takes steps from..to-1 of the teacher, and of the student after every second; each depends on its number alone.
func teach(t *testing.T, l *Learner, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		train(t, l, i, i+1)
		if i%2 == 0 {
			continue
		}
		rng := newRand(uint64(500 + i))
		if _, err := l.StepStudent(randomBatch(rng, l.net.Config, 3, i%6, 2), Guidance{-1, 1}, 1e-2, rng); err != nil {
			t.Fatal(err)
		}
	}
}

// TestStudentContinuesBitForBit takes 12 steps at once, and 6, a checkpoint on disk and 6 more. What the teacher learns does not
// depend on its having a student.
func TestStudentContinuesBitForBit(t *testing.T) {
	start := noisyState(t, tinyConfig(), 1)
	alone := learnerOf(t, start)
	train(t, alone, 0, 12)
	start.Student = noisyStudent(t, tinyConfig(), 9)
	whole, first := learnerOf(t, start), learnerOf(t, start)
	teach(t, whole, 0, 12)
	teach(t, first, 0, 6)
	path := filepath.Join(t.TempDir(), "prior.safetensors")
	if _, err := first.State().Save(path); err != nil {
		t.Fatal(err)
	}
	loaded, err := LoadState(path)
	if err != nil {
		t.Fatal(err)
	}
	second := learnerOf(t, loaded)
	teach(t, second, 6, 12)
	sameState(t, "12 steps and 6 + 6", whole.State(), second.State())
	if !reflect.DeepEqual(whole.Student(), second.Student()) {
		t.Error("12 steps and 6 + 6: the students differ")
	}
	if s := second.Student(); s.Step != 6 || slices.Equal(s.Params, start.Student.Params) || slices.Equal(s.EMA, start.Student.EMA) || slices.Equal(s.Fast, start.Student.Fast) {
		t.Errorf("the student at step %d has not moved", s.Step)
	}
	sameState(t, "with and without a student", alone.State(), whole.State())
}

func TestStudentInCheckpoint(t *testing.T) {
	s := studied(t, tinyConfig(), 1)
	path := filepath.Join(t.TempDir(), "prior.safetensors")
	if _, err := s.Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := LoadState(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, s) {
		t.Error("the state read is not the state written")
	}
	for want, spoil := range map[string]func(*Student){
		"tensor student.ema.leap.out.bias holds NaN at 7": func(s *Student) { s.EMA[len(s.EMA)-1] = float32(math.NaN()) },
		"student.fast has ": func(s *Student) { s.Fast = s.Fast[1:] },
		"student: step -1":  func(s *Student) { s.Step = -1 },
		"student: distance": func(s *Student) { s.Distances[2] = float32(math.Inf(1)) },
	} {
		s.Student = noisyStudent(t, tinyConfig(), 2)
		spoil(s.Student)
		if _, err := s.Save(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// TestLeapRowsAreIndependent: the bits of a leap depend on its row alone.
func TestLeapRowsAreIndependent(t *testing.T) {
	cfg := DefaultConfig(16)
	s := noisyState(t, cfg, 13)
	s.Student = noisyStudent(t, cfg, 14)
	m := modelOf(t, s)
	rng := newRand(15)
	const count = 37
	var contexts []Context
	for range count {
		contexts = append(contexts, randomContext(rng, cfg.Dim, rng.IntN(cfg.MaxTokens+1)))
	}
	conditions, err := m.Encode(contexts)
	if err != nil {
		t.Fatal(err)
	}
	x := randomItem(rng, count*cfg.Dim)
	run := func(order []int) [][]float32 {
		var noisy []float32
		var leaps []Leap
		for _, i := range order {
			noisy = append(noisy, x[i*cfg.Dim:(i+1)*cfg.Dim]...)
			leaps = append(leaps, Leap{Row: Row{T: 125 * (1 + i%8), Label: StrongPositive, Cond: conditions[i]}, To: 125 * (i % 8) / 2, Guidance: 1 + float64(i)/10})
		}
		if err := m.Leap(noisy, noisy, leaps); err != nil {
			t.Fatal(err)
		}
		return slices.Collect(slices.Chunk(noisy, cfg.Dim))
	}
	inOrder := make([]int, count)
	for i := range inOrder {
		inOrder[i] = i
	}
	want := run(inOrder)
	for range 5 {
		order := rng.Perm(count)[:1+rng.IntN(count)]
		for k, z := range run(order) {
			if !slices.Equal(z, want[order[k]]) {
				t.Fatalf("row %d has other bits at place %d of %d", order[k], k, len(order))
			}
		}
	}
}

// TestLeapKnowsWhereItGoes: the times and the guidance of a leap are inputs, each by itself.
func TestLeapKnowsWhereItGoes(t *testing.T) {
	for name, cfg := range studentConfigs() {
		m := modelOf(t, studied(t, cfg, 1))
		base := Leap{Row: Row{T: 40, Label: StrongPositive}, To: 20, Guidance: 2}
		leaps := []Leap{base, base, base, base}
		leaps[1].To, leaps[2].Guidance, leaps[3].T = 21, 2.01, 39
		x := make([]float32, len(leaps)*cfg.Dim)
		if err := m.Leap(x, x, leaps); err != nil {
			t.Fatal(err)
		}
		rows := slices.Collect(slices.Chunk(x, cfg.Dim))
		for i, what := range []string{"end", "guidance", "start"} {
			if slices.Equal(rows[0], rows[i+1]) {
				t.Errorf("%s: another %s gives the same estimate", name, what)
			}
		}
	}
}

func TestLeapRefuses(t *testing.T) {
	good := Leap{Row: Row{T: 50, Label: StrongPositive}, Guidance: 1}
	m := modelOf(t, studied(t, tinyConfig(), 1))
	x := make([]float32, 3)
	if err := m.Leap(x, x, []Leap{good}); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Leap){
		"to itself": func(l *Leap) { l.To = 50 }, "beyond the end": func(l *Leap) { l.T = 51 }, "below 0": func(l *Leap) { l.To = -1 },
		"guidance": func(l *Leap) { l.Guidance = MaxStudentGuidance + .1 }, "no guidance": func(l *Leap) { l.Guidance = math.NaN() },
		"label": func(l *Leap) { l.Label = NumClasses + 1 },
	} {
		bad := good
		spoil(&bad)
		if err := m.Leap(x, x, []Leap{bad}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	alone := modelOf(t, noisyState(t, tinyConfig(), 1))
	if err := alone.Leap(x, x, []Leap{good}); err == nil {
		t.Error("a prior without a student leaps")
	}
	if _, ok := alone.Fidelity(); ok {
		t.Error("a prior without a student has its fidelity")
	}
	if f, ok := m.Fidelity(); !ok || f.Bound != .25 {
		t.Errorf("fidelity %+v, %v", f, ok)
	}
}

func TestFidelity(t *testing.T) {
	for _, c := range []struct {
		f      Fidelity
		fewest int
		holds  [3]bool
	}{
		{Fidelity{}, 0, [3]bool{}},
		{unmeasured(), 0, [3]bool{}},
		{Fidelity{Distances: [3]float32{-1, -1, -1}, Bound: 1}, 0, [3]bool{}},
		{Fidelity{Distances: [3]float32{.3, .2, .1}, Bound: .2}, 2, [3]bool{false, true, true}},
		{Fidelity{Distances: [3]float32{.3, .2, .1}, Bound: .05}, 0, [3]bool{}},
		{Fidelity{Distances: [3]float32{0, .2, .1}, Bound: .05}, 1, [3]bool{true, false, false}},
	} {
		if got := c.f.Fewest(); got != c.fewest {
			t.Errorf("%+v: %d passes, want %d", c.f, got, c.fewest)
		}
		for i, n := range Passes() {
			if got := c.f.Holds(n); got != c.holds[i] {
				t.Errorf("%+v holds with %d passes: %v", c.f, n, got)
			}
		}
		if c.f.Holds(3) {
			t.Errorf("%+v holds with 3 passes", c.f)
		}
	}
}

func TestStudentRefuses(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"table":     func(c *Config) { *c = tinyKinds()["reference"] },
		"objective": func(c *Config) { c.Loss = Loss{Objective: "v"} },
		"timesteps": func(c *Config) { c.Timesteps = 6 },
	} {
		cfg := tinyConfig()
		change(&cfg)
		if _, err := NewStudent(cfg, 1); err == nil {
			t.Errorf("%s: there is a student", name)
		}
	}
	l := learnerOf(t, studied(t, tinyConfig(), 1))
	before := l.Student()
	for name, b := range map[string]*Batch{
		"empty":     {Contexts: []Context{nil}},
		"place":     {Contexts: []Context{nil}, Targets: []Target{{Context: 1, Item: make([]float32, 3)}}},
		"dimension": {Contexts: []Context{nil}, Targets: []Target{{Item: make([]float32, 2)}}},
		"contexts":  {Contexts: make([]Context, 4), Targets: []Target{{Item: make([]float32, 3)}}},
	} {
		if _, err := l.StepStudent(b, Guidance{-1, 1}, 1e-3, newRand(1)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := l.StepStudent(randomBatch(newRand(1), l.net.Config, 1, 1, 1), Guidance{-1, 1}, math.NaN(), newRand(1)); err == nil {
		t.Error("learns at no rate")
	}
	if !reflect.DeepEqual(l.Student(), before) {
		t.Error("a step that was refused has changed the student")
	}
	for i := range l.pupil.vectors.flat[flatParams] {
		l.pupil.vectors.flat[flatParams][i] *= 1e30
	}
	before = l.Student()
	if _, err := l.StepStudent(randomBatch(newRand(1), l.net.Config, 1, 1, 1), Guidance{-1, 1}, 1e-3, newRand(1)); !errors.Is(err, ErrNotFinite) {
		t.Errorf("error %v", err)
	}
	if !reflect.DeepEqual(l.Student(), before) {
		t.Error("a step without a finite loss has changed the student")
	}
}

func BenchmarkStudentStep(b *testing.B) {
	for _, kind := range []string{"mlp"} {
		b.Run(kind, func(b *testing.B) {
			cfg := DefaultConfig(16)
			l := newLearner(b, cfg, 1, ort.Options{})
			s, err := NewStudent(cfg, 1)
			if err != nil {
				b.Fatal(err)
			}
			if err := l.Teach(s); err != nil {
				b.Fatal(err)
			}
			rng := newRand(1)
			batch := randomBatch(rng, l.net.Config, cfg.Contexts, 48, 4)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := l.StepStudent(batch, Guidance{-1.2, 1}, 1e-3, rng); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
