package sampler

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"rebeca/internal/ort"
	"rebeca/prior"
)

// pupil is a mixture with a student: what it estimates for a leap is up to estimate; nil takes the exact path of its teacher, without
// guidance, in small steps.
type pupil struct {
	mixture
	fidelity prior.Fidelity
	absent   bool
	estimate func(dst []float32)
	leaps    [][]prior.Leap // of each call
}

func (p *pupil) Fidelity() (prior.Fidelity, bool) { return p.fidelity, !p.absent }

func (p *pupil) Leap(dst, x []float32, leaps []prior.Leap) error {
	p.leaps = append(p.leaps, slices.Clone(leaps))
	for i, l := range leaps {
		out := dst[i*p.dim : (i+1)*p.dim]
		if p.estimate != nil {
			p.estimate(out)
			continue
		}
		p.path(out, x[i*p.dim:(i+1)*p.dim], l)
	}
	return nil
}

// path writes the estimate that takes x to where the teacher's path is at the end of the leap.
func (p *pupil) path(dst, x []float32, l prior.Leap) {
	at, z := slices.Clone(x), make([]float32, p.dim)
	for t := l.T; t > l.To; t-- {
		p.posterior(z, at, t, p.weights[l.Label])
		alpha, sigma := scales(p.Config(), t)
		alphaTo, sigmaTo := scales(p.Config(), t-1)
		for d := range at {
			at[d] = float32(alphaTo*float64(z[d]) + sigmaTo/sigma*(float64(at[d])-alpha*float64(z[d])))
		}
	}
	alpha, sigma := scales(p.Config(), l.T)
	alphaTo, sigmaTo := scales(p.Config(), l.To)
	q := sigmaTo / sigma
	for d := range dst {
		dst[d] = float32((float64(at[d]) - q*float64(x[d])) / (alphaTo - q*alpha))
	}
}

func newPupil() *pupil {
	weights := []float64{.3, .7}
	return &pupil{
		mixture: mixture{
			dim: 2, means: [][]float64{{-1.5, 0}, {1, 1}}, stds: []float64{.3, .5},
			weights: map[prior.Class][]float64{prior.StrongPositive: weights, prior.StrongNegative: weights, prior.ClassNone: weights},
		},
		fidelity: prior.Fidelity{Distances: [3]float32{.3, .1, .05}, Bound: .2},
	}
}

func seeds(n int) []Job {
	jobs := make([]Job, n)
	for i := range jobs {
		jobs[i].Seed = uint64(i)
	}
	return jobs
}

// TestStudentWalksItsTeachersPath: a student that knows the path of its teacher comes, in however many passes, to where many steps of
// the teacher come.
func TestStudentWalksItsTeachersPath(t *testing.T) {
	p := newPupil()
	p.fidelity.Bound = 1
	o := Options{Steps: 500, Guidance: 1, Low: 1, High: 1, Anchor: Anchor{Steps: 357, Level: p.Config().LogSNR(714), Decay: 8}}
	jobs := seeds(20)
	for i := range jobs {
		if i%2 == 0 {
			jobs[i].Window = prior.Context{{Item: []float32{1, float32(i) / 20}, Class: prior.StrongPositive}}
		}
	}
	want := mustSample(t, p, o, jobs)
	for _, n := range prior.Passes() {
		o.Passes = Passes(n)
		p.leaps = nil
		for i, e := range mustSample(t, p, o, jobs) {
			if d := distance(e, want[i]); d > .02 {
				t.Errorf("%d passes: job %d comes to %v, its teacher to %v", n, i, e, want[i])
			}
		}
		if len(p.leaps) != n || len(p.leaps[0]) != len(jobs) {
			t.Errorf("%d passes were %d calls, the first of %d rows for %d jobs", n, len(p.leaps), len(p.leaps[0]), len(jobs))
		}
	}
}

// TestPassesAreTheStudentsOrTheTeachers: which of the two samples, and in how many passes.
func TestPassesAreTheStudentsOrTheTeachers(t *testing.T) {
	held := prior.Fidelity{Distances: [3]float32{.3, .1, .05}, Bound: .2}
	off := prior.Fidelity{Distances: [3]float32{.3, .1, .25}, Bound: .2}
	for _, c := range []struct {
		name   string
		passes Passes
		f      prior.Fidelity
		absent bool
		want   int
	}{
		{"the fewest that hold", AutoPasses, held, false, 2},
		{"the teacher's own", ByTeacher, held, false, 0},
		{"asked for", 4, held, false, 4},
		{"asked for, though blurred", 1, held, false, 1},
		{"asked for, but off", 1, off, false, 0},
		{"not looked at", AutoPasses, prior.Fidelity{Distances: [3]float32{-1, -1, -1}}, false, 0},
		{"asked for, not looked at", 2, prior.Fidelity{Distances: [3]float32{-1, -1, -1}}, false, 0},
		{"none holds", AutoPasses, prior.Fidelity{Distances: [3]float32{.3, .3, .3}, Bound: .2}, false, 0},
		{"no student", 4, held, true, 0},
	} {
		p := newPupil()
		p.fidelity, p.absent = c.f, c.absent
		o := DefaultOptions()
		o.Passes = c.passes
		mustSample(t, p, o, seeds(3))
		if len(p.leaps) != c.want || (c.want > 0) == (p.calls.Load() > 0) || o.StudentPasses(p, Job{}) != c.want {
			t.Errorf("%s: %d passes of the student and %d of its teacher, want %d of the student", c.name, len(p.leaps), p.calls.Load(), c.want)
		}
	}
	plain := &newPupil().mixture
	o := DefaultOptions()
	o.Passes = 2
	mustSample(t, plain, o, seeds(3)) // of a denoiser that knows of no students
}

// TestJobsThatAStudentDoesNotKnow: dislikes, and guidance beyond what it was taught, are the teacher's, with the same bits.
func TestJobsThatAStudentDoesNotKnow(t *testing.T) {
	p := newPupil()
	jobs := seeds(6)
	jobs[1].Label = prior.StrongNegative
	jobs[3].Guidance = prior.MaxStudentGuidance + 1
	jobs[4].Guidance = .5
	o := DefaultOptions()
	o.Passes = ByTeacher
	want := mustSample(t, p, o, jobs)
	o.Passes = 2
	got := mustSample(t, p, o, jobs)
	for i, j := range jobs {
		byTeacher := i == 1 || i == 3 || i == 4
		if slices.Equal(got[i], want[i]) != byTeacher || (o.StudentPasses(p, j) == 0) != byTeacher {
			t.Errorf("job %d, %v at guidance %v: %v, by the teacher %v", i, j.Label, j.Guidance, got[i], want[i])
		}
	}
	if len(p.leaps[0]) != 3 {
		t.Errorf("%d jobs are the student's", len(p.leaps[0]))
	}
	p.estimate = func(dst []float32) { dst[0] = float32(math.NaN()) }
	if _, err := Sample(p, o, jobs); err == nil {
		t.Error("a sample that is not a number")
	}
}

func TestNodes(t *testing.T) {
	for _, c := range []struct {
		first, passes int
		want          []int
	}{
		{8, 1, []int{8, 0}}, {8, 2, []int{8, 4, 0}}, {8, 4, []int{8, 6, 4, 2, 0}}, {6, 1, []int{6, 0}}, {6, 2, []int{6, 3, 0}},
		{6, 4, []int{6, 5, 3, 2, 0}}, {1, 4, []int{1, 0}}, {3, 4, []int{3, 2, 1, 0}},
	} {
		if got := nodes(c.first, c.passes); !slices.Equal(got, c.want) {
			t.Errorf("from node %d in %d passes: %v, want %v", c.first, c.passes, got, c.want)
		}
	}
	cfg := prior.DefaultConfig(2)
	for at, want := range map[int]int{766: 5, 1: 1, 999: 7, 786: 6, 785: 5} {
		if got := nearestNode(cfg, at); got != want {
			t.Errorf("the node nearest to %d is %d, want %d", at, got, want)
		}
	}
}

func TestPassesInText(t *testing.T) {
	for text, want := range map[string]Passes{"auto": AutoPasses, "teacher": ByTeacher, "1": 1, "2": 2, "4": 4} {
		var p Passes
		if err := p.UnmarshalText([]byte(text)); err != nil || p != want || p.String() != text {
			t.Errorf("%q is read as %v, %v", text, p, err)
		}
	}
	for _, text := range []string{"", "0", "-1", "3", "8", "Auto", "2.0"} {
		var p Passes
		if err := p.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is read as %v", text, p)
		}
	}
	o := DefaultOptions()
	if o.Passes = 3; o.Validate() == nil {
		t.Error("three passes are valid")
	}
}

// TestStudentDistances: equal distributions have none, up to noise; a student that says the mean, or the wrong thing, is far off.
func TestStudentDistances(t *testing.T) {
	o := Options{Steps: 100, Guidance: 1, Low: 1, High: 1}
	windows := make([]prior.Context, 4)
	at := func(estimate func([]float32)) [3]float64 {
		p := newPupil()
		p.estimate = estimate
		d, err := StudentDistances(p, o, windows, 32, 1)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for i, d := range at(nil) {
		if math.Abs(d) > .03 {
			t.Errorf("%d passes on the very path: distance %.3f", prior.Passes()[i], d)
		}
	}
	for name, estimate := range map[string]func([]float32){
		"mean":  func(dst []float32) { dst[0], dst[1] = .25, .7 },
		"wrong": func(dst []float32) { dst[0], dst[1] = 5, 5 },
	} {
		for i, d := range at(estimate) {
			if d < .2 {
				t.Errorf("%s in %d passes: distance %.3f", name, prior.Passes()[i], d)
			}
		}
	}
}

// TestEnergyDistance is by hand: pairs of one noise count nowhere, groups are summed.
func TestEnergyDistance(t *testing.T) {
	at := func(x ...float32) (out [][]float32) {
		for _, v := range x {
			out = append(out, []float32{v})
		}
		return out
	}
	for _, c := range []struct {
		a, b [][]float32
		want float64
	}{
		{at(0, 4), at(1, 3), 0},              // (12 - 8 - 4)/4
		{at(0, 0), at(1, 3), 1},              // (8 - 0 - 4)/4
		{at(0, 4, 0, 0), at(1, 3, 1, 3), .5}, // (12 + 8 - 8 - 8)/8
	} {
		if got := energyDistance(c.a, c.b, 2); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%v from %v: %v, want %v", c.a, c.b, got, c.want)
		}
	}
}

// TestStudentLearns teaches a prior, and beside it a student, on a small world: the student's samples come nearer to its teacher's than
// those of a new one, which takes as many plain steps of the teacher, and than those of weights that were spoilt. Jobs have the same
// bits whoever shares their call.
func TestStudentLearns(t *testing.T) {
	m, fresh, spoilt := taught(t)
	o := DefaultOptions()
	rng := rand.New(rand.NewPCG(5, 5))
	var windows []prior.Context
	for range 12 {
		windows = append(windows, clusters{rng}.batch(1, 12).Contexts[0])
	}
	at := func(m *prior.Model) [3]float64 {
		d, err := StudentDistances(m, o, windows, 16, 1)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	own, newborn, bad := at(m), at(fresh), at(spoilt)
	t.Logf("distances of 1, 2, 4 passes: %.3f; new %.3f; spoilt %.3f", own, newborn, bad)
	for i, share := range []float64{.5, .7, .9} {
		if own[i] > share*newborn[i] || own[i] > bad[i]/2 {
			t.Errorf("%d passes: distance %.3f, of a new student %.3f, of a spoilt one %.3f", prior.Passes()[i], own[i], newborn[i], bad[i])
		}
	}
	o.Passes = 2
	conditions, err := m.Encode(windows)
	if err != nil {
		t.Fatal(err)
	}
	jobs := seeds(40)
	for i := range jobs {
		jobs[i].Cond = conditions[i%12]
		if i%3 == 0 {
			jobs[i].Window = windows[i%12]
		}
	}
	want := mustSample(t, m, o, jobs)
	for _, size := range []int{1, 7, 40} {
		order := rng.Perm(len(jobs))
		for part := range slices.Chunk(order, size) {
			var sub []Job
			for _, i := range part {
				sub = append(sub, jobs[i])
			}
			for k, e := range mustSample(t, m, o, sub) {
				if !slices.Equal(e, want[part[k]]) {
					t.Fatalf("job %d has other bits in a call of %d", part[k], size)
				}
			}
		}
	}
}

// clusters are a world of eight clusters on a circle, of which people like one or two.
type clusters struct{ rng *rand.Rand }

func (c clusters) item(k int) []float32 {
	angle := float64(k) * math.Pi / 4
	return []float32{float32(1.3*math.Cos(angle) + .15*c.rng.NormFloat64()), float32(1.3*math.Sin(angle) + .15*c.rng.NormFloat64())}
}

func (c clusters) batch(contexts, entries int) *prior.Batch {
	b := new(prior.Batch)
	for i := range contexts {
		likes := []int{c.rng.IntN(8), c.rng.IntN(8)}
		var ctx prior.Context
		for range entries {
			k, class := c.rng.IntN(8), prior.StrongNegative
			if c.rng.IntN(2) == 0 {
				k = likes[c.rng.IntN(2)]
			}
			if k == likes[0] || k == likes[1] {
				class = prior.StrongPositive
			}
			ctx = append(ctx, prior.Entry{Item: c.item(k), Class: class})
		}
		label := prior.StrongPositive
		if c.rng.Float64() < .15 {
			ctx, label = nil, prior.ClassNone
		}
		b.Contexts = append(b.Contexts, ctx)
		for range 4 {
			b.Targets = append(b.Targets, prior.Target{Context: i, Item: c.item(likes[c.rng.IntN(2)]), Label: label})
		}
	}
	return b
}

// taught returns a model with a student that has learned, the same with a new one, and with one that was spoilt.
func taught(t *testing.T) (learned, fresh, spoilt *prior.Model) {
	t.Helper()
	cfg := prior.DefaultConfig(2)
	cfg.Hidden, cfg.Blocks, cfg.Heads, cfg.MaxTokens, cfg.Contexts = 32, 2, 2, 12, 32
	state, err := prior.NewState(cfg, unitStats(2), 1)
	if err != nil {
		t.Fatal(err)
	}
	l, err := prior.NewLearner(state, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	start, err := prior.NewStudent(cfg, 1)
	if err == nil {
		err = l.Teach(start)
	}
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	o := DefaultOptions()
	const steps = 700
	for i := range steps {
		falling := 1 - .95*float64(i)/steps
		_, err := l.Step(clusters{rng}.batch(cfg.Contexts, rng.IntN(cfg.MaxTokens+1)), 3e-3*falling, rng)
		if err == nil && i > 200 {
			_, err = l.StepStudent(clusters{rng}.batch(cfg.Contexts, rng.IntN(cfg.MaxTokens+1)), prior.Guidance{Low: o.Low, High: o.High}, 6e-3*falling, rng)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	state = l.State()
	with := func(s *prior.Student) *prior.Model {
		other := *state
		other.Student = s
		m, err := prior.NewModel(&other, ort.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		})
		return m
	}
	good := *state.Student
	good.Fidelity = prior.Fidelity{Bound: 1}
	bad := good
	bad.EMA = slices.Clone(good.EMA)
	for i := range bad.EMA {
		bad.EMA[i] += float32(.1 * rng.NormFloat64())
	}
	return with(&good), with(start), with(&bad)
}
