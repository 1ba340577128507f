package sampler

import (
	"errors"
	"fmt"
	"math"
	"strconv"

	"rebeca/internal/ort"
	"rebeca/prior"
)

// Student is a Denoiser that may have a student, which goes from noise to an embedding in one to four passes.
type Student interface {
	Denoiser
	// Fidelity says how near the student's samples are to those of Denoise, and whether there is one.
	Fidelity() (prior.Fidelity, bool)
	// Leap writes to dst the student's estimate of x_0 for each leap of x, shaped as in Denoise.
	Leap(dst, x []float32, leaps []prior.Leap) error
}

// Passes is the number of passes of the student that an embedding takes, or one of the words below. In text it is that word or number.
type Passes int

const (
	// ByTeacher has every embedding made by Steps of the teacher.
	ByTeacher Passes = 0
	// AutoPasses is the fewest passes with which the student's samples are near enough to its teacher's, ByTeacher where none are.
	AutoPasses Passes = -1
)

// UnmarshalText reads "auto", "teacher", "1", "2" or "4".
func (p *Passes) UnmarshalText(text []byte) error {
	switch s := string(text); s {
	case "auto":
		*p = AutoPasses
	case "teacher":
		*p = ByTeacher
	default:
		n, err := strconv.Atoi(s)
		if err != nil {
			return fmt.Errorf("%q is not auto, teacher, 1, 2 or 4", s)
		}
		*p = Passes(n)
		if n <= 0 {
			return fmt.Errorf("%d is not auto, teacher, 1, 2 or 4", n)
		}
		return p.validate()
	}
	return nil
}

// MarshalText is the reverse of UnmarshalText.
func (p Passes) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// String is the word or number.
func (p Passes) String() string {
	switch p {
	case AutoPasses:
		return "auto"
	case ByTeacher:
		return "teacher"
	}
	return strconv.Itoa(int(p))
}

func (p Passes) validate() error {
	if p == AutoPasses || p == ByTeacher {
		return nil
	}
	for _, n := range prior.Passes() {
		if int(p) == n {
			return nil
		}
	}
	return fmt.Errorf("%d is not auto, teacher, 1, 2 or 4", int(p))
}

// of is the number of passes by the student of d, 0 where its teacher samples. Who asks for a number gets it, unless the student is off:
// not even its most passes come near enough.
func (p Passes) of(d Denoiser) (Student, int) {
	s, ok := d.(Student)
	if !ok || p == ByTeacher {
		return nil, 0
	}
	f, ok := s.Fidelity()
	if all := prior.Passes(); !ok || p > 0 && !f.Holds(all[len(all)-1]) {
		return nil, 0
	}
	if p == AutoPasses {
		return s, f.Fewest()
	}
	return s, int(p)
}

// StudentPasses returns how many passes of its student d takes for a job under o, 0 where its teacher samples.
func (o Options) StudentPasses(d Denoiser, j Job) int {
	if _, n := o.Passes.of(d); o.learned(j) {
		return n
	}
	return 0
}

// learned reports whether a student was taught what j asks for: likes, with guidance in its range.
func (o Options) learned(j Job) bool {
	g := j.Guidance
	if g == 0 {
		g = o.Guidance
	}
	return (j.Label == prior.ClassNone || j.Label == prior.StrongPositive) && g >= 1 && g <= prior.MaxStudentGuidance
}

// byStudent is Sample where a student makes some of the jobs; done is false where it makes none.
func byStudent(d Denoiser, o Options, jobs []Job) (out [][]float32, done bool, err error) {
	s, passes := o.Passes.of(d)
	if passes == 0 {
		return nil, false, nil
	}
	out = make([][]float32, len(jobs))
	var rest, own []Job
	var restAt, ownAt []int
	for i, j := range jobs {
		if o.learned(j) {
			own, ownAt = append(own, j), append(ownAt, i)
		} else {
			rest, restAt = append(rest, j), append(restAt, i)
		}
	}
	place := func(at []int, embeddings [][]float32) {
		for k, e := range embeddings {
			out[at[k]] = e
		}
	}
	embeddings, err := leapAll(s, o, own, passes)
	if err != nil {
		return nil, true, fmt.Errorf("sampling by the student: %w", err)
	}
	place(ownAt, embeddings)
	if len(rest) > 0 {
		o.Passes = ByTeacher
		if embeddings, err = Sample(d, o, rest); err != nil {
			return nil, true, fmt.Errorf("sampling %d of %d jobs by the teacher: %w", len(rest), len(jobs), err)
		}
		place(restAt, embeddings)
	}
	return out, true, nil
}

// leaper is a job on its way by a student.
type leaper struct {
	leap  prior.Leap
	nodes []int // that it leaps between, falling to 0
}

// leapAll draws one embedding [Dim] for each job in so many passes; all jobs of a pass are one call of s.
func leapAll(s Student, o Options, jobs []Job, passes int) ([][]float32, error) {
	cfg, stats := s.Config(), s.Stats()
	x, estimate := make([]float32, len(jobs)*cfg.Dim), make([]float32, len(jobs)*cfg.Dim)
	walks := make([]leaper, len(jobs))
	for i, j := range jobs {
		at := x[i*cfg.Dim : (i+1)*cfg.Dim]
		noise(at, j.Seed)
		first, guidance := prior.StudentCells, j.Guidance
		if guidance == 0 {
			guidance = o.Guidance
		}
		if item, level, ok := o.Anchor.of(j); ok {
			if len(item) != cfg.Dim {
				return nil, fmt.Errorf("window entry of %d dimensions for a prior of %d", len(item), cfg.Dim)
			}
			first = nearestNode(cfg, timeAt(cfg, level))
			z := make([]float32, cfg.Dim)
			stats.Normalize(z, item)
			alpha, sigma := scales(cfg, cfg.StudentTime(first))
			for d, e := range at {
				at[d] = float32(alpha)*z[d] + float32(sigma)*e
			}
		}
		walks[i] = leaper{prior.Leap{Row: prior.Row{Label: prior.StrongPositive, Cond: j.Cond}, Guidance: guidance}, nodes(first, passes)}
	}
	for k := range passes {
		if err := leapOnce(s, cfg, walks, x, estimate, k); err != nil {
			return nil, err
		}
	}
	out := make([][]float32, len(jobs))
	for i := range out {
		out[i] = make([]float32, cfg.Dim)
		stats.Denormalize(out[i], x[i*cfg.Dim:(i+1)*cfg.Dim])
	}
	return out, nil
}

// leapOnce takes every walk that has a k-th leap over it, in place of a gather: those that have fewer nodes are at their end.
func leapOnce(s Student, cfg prior.Config, walks []leaper, x, estimate []float32, k int) error {
	var rows []prior.Leap
	var at []int
	var from []float32
	for i, w := range walks {
		if k+1 >= len(w.nodes) {
			continue
		}
		l := w.leap
		l.T, l.To = cfg.StudentTime(w.nodes[k]), cfg.StudentTime(w.nodes[k+1])
		rows, at = append(rows, l), append(at, i)
		from = append(from, x[i*cfg.Dim:(i+1)*cfg.Dim]...)
	}
	if len(rows) == 0 {
		return nil
	}
	estimate = estimate[:len(from)]
	if err := s.Leap(estimate, from, rows); err != nil {
		return err
	}
	for r, i := range at {
		alpha, sigma := scales(cfg, rows[r].T)
		alphaTo, sigmaTo := scales(cfg, rows[r].To)
		ofX := float32(sigmaTo / sigma)
		ofEstimate := float32(alphaTo - sigmaTo*alpha/sigma)
		for d, e := range estimate[r*cfg.Dim : (r+1)*cfg.Dim] {
			if e-e != 0 {
				return fmt.Errorf("leap from t=%d: the estimate is %v", rows[r].T, e)
			}
			x[i*cfg.Dim+d] = ofEstimate*e + ofX*from[r*cfg.Dim+d]
		}
	}
	return nil
}

// nodes cuts the way from a node to 0 into so many leaps of whole cells, as equal as can be; fewer where there are fewer cells.
func nodes(first, passes int) []int {
	n := min(first, passes)
	out := make([]int, n+1)
	for k := range out {
		out[k] = int(math.Round(float64(first*(n-k)) / float64(n)))
	}
	return out
}

// nearestNode is the node whose time is nearest to t, but for 0.
func nearestNode(cfg prior.Config, t int) int {
	best := 1
	for k := 2; k <= prior.StudentCells; k++ {
		if abs(cfg.StudentTime(k)-t) < abs(cfg.StudentTime(best)-t) {
			best = k
		}
	}
	return best
}

func abs(x int) int { return max(x, -x) }

// StudentDistances holds the student of s against its teacher on the given windows: for each number of prior.Passes the energy
// distance (Székely & Rizzo 2013) between samples of both for the same window, in the mean over windows, over the mean distance of two
// samples of the teacher: 0 for equal distributions, up to sampling noise, which may make it negative. There are each samples of a
// window, 2 or more, by the teacher's Options, from noise and once more from a like if they say so; the larger of the two is returned.
func StudentDistances(s Student, o Options, windows []prior.Context, each int, seed uint64) (out [3]float64, err error) {
	conditions, err := s.Encode(windows)
	if err != nil {
		return out, err
	}
	for start := range 2 {
		if start == 1 && o.Anchor.Steps == 0 {
			break
		}
		var jobs []Job
		for i, c := range conditions {
			for k := range each {
				j := Job{Cond: c, Seed: seed + uint64(i*each+k)}
				if start == 1 {
					j.Window = windows[i]
				}
				jobs = append(jobs, j)
			}
		}
		o.Passes = ByTeacher
		teacher, err := Sample(s, o, jobs)
		if err != nil {
			return out, err
		}
		for i, passes := range prior.Passes() {
			student, err := leapAll(s, o, jobs, passes)
			if err != nil {
				return out, err
			}
			d := energyDistance(student, teacher, each)
			if start == 0 || d > out[i] {
				out[i] = d
			}
		}
	}
	return out, nil
}

// energyDistance is that of a from b in groups of n, over the spread of b.
func energyDistance(a, b [][]float32, n int) float64 {
	var between, within, spread float64
	for from := 0; from < len(a); from += n {
		for i := from; i < from+n; i++ {
			for j := from; j < from+n; j++ {
				if i == j {
					continue // of the same noise
				}
				between += 2 * distance(a[i], b[j])
				within += distance(a[i], a[j])
				spread += distance(b[i], b[j])
			}
		}
	}
	return (between - within - spread) / spread
}

func distance(a, b []float32) float64 {
	sum := 0.
	for d := range a {
		e := float64(a[d]) - float64(b[d])
		sum += e * e
	}
	return math.Sqrt(sum)
}

// Samples of each window by which an [Examiner] judges, and their seed.
const (
	examinerSamples = 8
	examinerSeed    = 1
)

// Examiner returns [StudentDistances] of states, for online.Config: by a model that is compiled for the purpose and 8 samples a window.
func Examiner(o Options, r ort.Options) func(*prior.State, []prior.Context) ([3]float64, error) {
	return func(s *prior.State, windows []prior.Context) (d [3]float64, err error) {
		m, err := prior.NewModel(s, r)
		if err != nil {
			return d, err
		}
		defer func() { err = errors.Join(err, m.Close()) }()
		return StudentDistances(m, o, windows, examinerSamples, examinerSeed)
	}
}
