package prior

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"rebeca/prior/graph"
)

// A student is a second denoiser that goes many steps of its teacher at once: g(x_t, t, s, w, context) is the x₀ for which
//
//	x_s = α_s g + σ_s/σ_t (x_t - α_t g)
//
// is where the teacher's guided path from x_t at time t is at time s < t. The strength of guidance w is an input, so that there is no
// unconditional pass.
//
// Its weights are those of the teacher's moving average plus differences that it learns: it follows its teacher without a step of its
// own. It has no encoder, it reads the teacher's memory of a context. The times and w enter by a map of its own into the vector that
// modulates the blocks, which starts at zero.
//
//	c = silu(W silu(…) + W₂ silu(W₁ (time features of t, s, 100 w)))

// StudentCells is the number of equal parts of time between whose ends a student leaps: from a node t = k·Timesteps/StudentCells to a
// later one, 0 the last. They are the steps of a teacher's walk of 8 times, the default, whose last estimate is at 0.
const StudentCells = 7

// MaxStudentGuidance is the strongest guidance that a student is taught; the weakest is 1.
const MaxStudentGuidance = 5

// Passes lists the numbers of passes with which a student's samples are held against its teacher's.
func Passes() [3]int { return [3]int{1, 2, 4} }

// Student is the part of a State that is its student. The vectors have the layout of the teacher's parameters without those of the
// history encoder, and the student's own after them; all but the moments are differences from the teacher's moving average, where it
// has such a parameter.
type Student struct {
	Step   int64 // optimizer steps taken
	Params []float32
	EMA    []float32 // moving average of Params; what samples
	Fast   []float32 // a shorter one; what teaches long leaps
	M, V   []float32 // Adam's moments
	Fidelity
}

// Fidelity says how far a student's samples are from its teacher's.
type Fidelity struct {
	Distances [3]float32 // by Passes, in the unit of Bound; negative where not measured
	Bound     float32    // the largest that is near enough; 0 where not measured
}

// Holds reports whether samples of so many passes are near enough.
func (f Fidelity) Holds(passes int) bool {
	i := slices.Index(f.passes(), passes)
	return i >= 0 && f.Bound > 0 && f.Distances[i] >= 0 && f.Distances[i] <= f.Bound
}

// Fewest returns the smallest number of passes that holds, 0 if none does.
func (f Fidelity) Fewest() int {
	for _, n := range f.passes() {
		if f.Holds(n) {
			return n
		}
	}
	return 0
}

func (f Fidelity) passes() []int { p := Passes(); return p[:] }

// unmeasured is the fidelity of a student that nobody has looked at.
func unmeasured() Fidelity { return Fidelity{Distances: [3]float32{-1, -1, -1}} }

// CanTeach returns an error where priors of this configuration can have no student.
func (c Config) CanTeach() error {
	c = c.resolved()
	switch {
	case c.HasUserTable():
		return fmt.Errorf("kind %s can have no student, it reads no windows", c.Kind)
	case c.Loss.Objective != objectiveX0:
		return fmt.Errorf("a prior that learns %s can have no student, only one that learns %s", c.Loss.Objective, objectiveX0)
	case c.Timesteps < StudentCells:
		return fmt.Errorf("a prior of %d timesteps can have no student, only one of %d or more", c.Timesteps, StudentCells)
	}
	return nil
}

// StudentTime returns the time of node k in 0..StudentCells.
func (c Config) StudentTime(k int) int {
	return int(math.Round(float64(k*c.Timesteps) / StudentCells))
}

// NewStudent returns a student of priors of configuration c that does as its teacher does: its leaps are the teacher's single steps
// without guidance. The same seed gives the same weights.
func NewStudent(c Config, seed uint64) (*Student, error) {
	if err := c.CanTeach(); err != nil {
		return nil, fmt.Errorf("creating student: %w", err)
	}
	l := c.resolved().studentLayout()
	params := l.draw(rand.New(rand.NewPCG(seed, studentStream)))
	return &Student{
		Params: params, EMA: slices.Clone(params), Fast: slices.Clone(params),
		M: make([]float32, l.size), V: make([]float32, l.size), Fidelity: unmeasured(),
	}, nil
}

// studentStream separates the draw of a student's weights from other uses of the same seed.
const studentStream = 0x7265626563610002

func (s *Student) clone() *Student {
	if s == nil {
		return nil
	}
	c := *s
	for _, v := range []*[]float32{&c.Params, &c.EMA, &c.Fast, &c.M, &c.V} {
		*v = slices.Clone(*v)
	}
	return &c
}

// vectors are the flat vectors with their names in a checkpoint.
func (s *Student) vectors() []vector {
	return []vector{{"student.params", s.Params}, {"student.ema", s.EMA}, {"student.fast", s.Fast}, {"student.m", s.M}, {"student.v", s.V}}
}

func (s *Student) validate(c Config) error {
	if err := c.CanTeach(); err != nil {
		return err
	}
	if s.Step < 0 || s.Step > maxStudentStep {
		return fmt.Errorf("student: step %d", s.Step)
	}
	l := c.resolved().studentLayout()
	for _, v := range s.vectors() {
		if err := v.check(l); err != nil {
			return err
		}
	}
	for _, x := range append(s.Distances[:], s.Bound) {
		if !finite(x) {
			return fmt.Errorf("student: distance or bound %v", x)
		}
	}
	return nil
}

// maxStudentStep is the largest step that a float32 tells from its neighbours, as which it lies in a checkpoint.
const maxStudentStep = 1 << 24

// historySize is the number of parameters of the history encoder, which come first in a layout, and of the values in them.
func (c Config) historySize() (parameters, values int) {
	l := new(layout)
	c.historyLayout(l)
	return len(l.parameters), l.size
}

// studentLayout is the layout of a student's vectors, of a resolved configuration.
func (c Config) studentLayout() *layout {
	l := new(layout)
	history, _ := c.historySize()
	for _, p := range c.network().layout().parameters[history:] {
		l.add(p.name, 0, p.shape...)
	}
	h := c.Hidden
	l.linear("leap.in", fanIn(3*h), c.leapFeatures(), growthIn*h)
	l.linear("leap.out", 0, growthIn*h, h)
	return l
}

// ownParameters is the number of parameters at the end of a student's layout that its teacher has none of.
const ownParameters = 4

// leapFeatures are the columns of what a student knows of a row's leap: features of two times and of the guidance.
func (c Config) leapFeatures() int { return 3 * c.network().sizes().time }

// setLeap writes those of row i: from t to s under guidance w, which is told in hundredths.
func (a *architecture) setLeap(features []float32, i, t, s int, w float64) {
	n := a.sizes.time
	dst := features[3*i*n : 3*(i+1)*n]
	copy(dst, a.times[t])
	copy(dst[n:], a.times[s])
	a.timeFeatures(dst[2*n:], int(math.Round(100*w)))
}

// leapOf is what rows of leap features [R, 3·time] add to the vector that modulates the blocks, [R, Hidden].
func (a *architecture) leapOf(g *graph.Graph, w weights, features *graph.Value) *graph.Value {
	defer g.Scope("leap")()
	hidden := g.SiLU(g.Linear(features, w["leap.in.weight"], w["leap.in.bias"]))
	return g.Linear(hidden, w["leap.out.weight"], w["leap.out.bias"])
}

// studentWeights are the weights of a student with differences d over its teacher's, ema.
func (c Config) studentWeights(ema, d []float32) []float32 {
	out := slices.Clone(d)
	_, history := c.historySize()
	for i, x := range ema[history:] {
		out[i] += x
	}
	return out
}
