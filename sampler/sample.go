package sampler

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"

	"rebeca/prior"
)

// Denoiser is the part of a prior that sampling needs. Implementations must give a row the same bits whatever rows share
// the call, and must be safe for concurrent use.
type Denoiser interface {
	Config() prior.Config
	Stats() prior.Stats
	Encode([]prior.Context) ([]*prior.Condition, error)
	// Denoise writes to dst the estimate of x_0 for each row of x; both are [len(rows), Dim] row-major in the model's scale.
	Denoise(dst, x []float32, rows []prior.Row) error
}

const (
	maxSteps    = 1000
	maxGuidance = 100
)

// Options say how to walk from noise to an embedding.
type Options struct {
	Steps    int     // evaluations of the conditional model, 1 to 1000
	Guidance float64 // strength inside the interval, above 0 to 100; 1 is the plain conditional model
	Low      float64 // guidance applies where Low <= ln(alpha/sigma) <= High and is 1 elsewhere;
	High     float64 // -Inf and +Inf give guidance at every noise level
	Anchor   Anchor  // of jobs with a Window; the zero value starts all jobs from noise
	Solver   Solver  // of the steps; "" is DDIM
	Passes   Passes  // by the student of a prior that has one; the zero value is ByTeacher
	// Away is how strongly guided jobs that ask for likes move away from what the same person dislikes, where guidance applies: 0
	// (default), not at all, to 100. It costs a third pass there.
	Away float64
	// NormGuard bounds the norm of a guided estimate, in the model's scale, to so many times that of the conditional one: at least 1;
	// 0 (default): no bound.
	NormGuard float64
}

// DefaultOptions are 8 steps with guidance 4 on [-1.2, 1]: 12 passes a sample, since 4 of the 8 times lie in the interval. Where there
// is a like to start from, 4 steps from -.6, with few likes from higher.
func DefaultOptions() Options {
	return Options{Steps: 8, Guidance: 4, Low: -1.2, High: 1, Anchor: Anchor{Steps: 4, Level: -.6, Few: 1.4, Decay: 8}, Passes: AutoPasses}
}

// Validate names the first field that is out of range.
func (o Options) Validate() error {
	switch {
	case o.Steps < 1 || o.Steps > maxSteps:
		return fmt.Errorf("steps: %d is not within 1 to %d", o.Steps, maxSteps)
	case !(o.Guidance > 0 && o.Guidance <= maxGuidance):
		return fmt.Errorf("guidance: %v is not above 0 and at most %d", o.Guidance, maxGuidance)
	case math.IsNaN(o.Low):
		return fmt.Errorf("low: not a number")
	case math.IsNaN(o.High):
		return fmt.Errorf("high: not a number")
	case o.Low > o.High:
		return fmt.Errorf("low: %v is above high, %v", o.Low, o.High)
	case !(o.Away >= 0 && o.Away <= maxGuidance):
		return fmt.Errorf("away: %v is not within 0 to %d", o.Away, maxGuidance)
	case o.NormGuard != 0 && !(o.NormGuard >= 1 && !math.IsInf(o.NormGuard, 1)):
		return fmt.Errorf("norm_guard: %v is neither 0 nor a number of at least 1", o.NormGuard)
	}
	if err := o.Passes.validate(); err != nil {
		return fmt.Errorf("passes: %w", err)
	}
	if err := o.Solver.validate(); err != nil {
		return fmt.Errorf("solver: %w", err)
	}
	if err := o.Anchor.Validate(); err != nil {
		return fmt.Errorf("anchor.%w", err)
	}
	return nil
}

// Job asks for one embedding.
type Job struct {
	Cond     *prior.Condition // of the user's window; nil is an empty window
	Label    prior.Class      // what the embedding should be to the user; ClassNone means StrongPositive
	Seed     uint64           // all the randomness of the job
	Guidance float64          // in place of Options.Guidance; 0 means that
	Window   prior.Context    // what Cond was made of, for Options.Anchor; nil starts from noise. Read only.
}

// pcgStream keeps the noise of samples apart from other uses of the same seed.
const pcgStream = 0x7265626563612f73 // "rebeca/s"

// Sample draws one embedding [Dim] for each job, in the catalogue's scale, in Steps times spaced evenly in t from T-1 to 0, by DDIM
// (Song et al., arXiv 2010.02502, eta 0) or Options.Solver, with classifier-free guidance limited to an interval of noise levels
// (Kynkäänniemi et al., arXiv 2404.07724); jobs that Options.Anchor applies to begin at its level instead. At each step the rows of all
// jobs go to d in one call, the conditional ones first, then the unconditional ones (null label, empty window) of the jobs that need
// them, then those of what is disliked.
//
// With Options.Passes the jobs that a Student knows are made by it, in so many calls; the Solver, Away and NormGuard are its teacher's.
//
// A job's result depends on the job, the options and d alone. Options and jobs out of range, an error of d and a value
// of d that is not finite are errors, which name the job.
func Sample(d Denoiser, o Options, jobs []Job) ([][]float32, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("sampler options: %w", err)
	}
	cfg := d.Config()
	if most := max(o.Steps, o.Anchor.Steps); most > cfg.Timesteps {
		return nil, fmt.Errorf("sampler options: steps: %d is more than the prior's %d timesteps", most, cfg.Timesteps)
	}
	if out, done, err := byStudent(d, o, jobs); done {
		return out, err
	}
	starts, err := startsOf(cfg, o, jobs)
	if err != nil {
		return nil, err
	}
	r, err := newRun(d, cfg, o, jobs, starts)
	if err != nil {
		return nil, err
	}
	if err := r.walk(); err != nil {
		return nil, err
	}
	return r.out, nil
}

// start is where a job begins and the times it takes from there.
type start struct {
	place int       // of the job in the call
	item  []float32 // what it starts from, noised to grid[0]; nil: noise
	grid  []int
}

// startsOf returns the starts of all jobs, those with more steps first: what is under way is then the head of every buffer.
func startsOf(cfg prior.Config, o Options, jobs []Job) ([]start, error) {
	free := times(cfg.Timesteps-1, o.Steps)
	short := map[float64][]int{} // by level
	out := make([]start, len(jobs))
	for i, j := range jobs {
		out[i] = start{place: i, grid: free}
		item, level, ok := o.Anchor.of(j)
		if !ok {
			continue
		}
		if len(item) != cfg.Dim {
			return nil, fmt.Errorf("job %d: window entry of %d dimensions for a prior of %d", i, len(item), cfg.Dim)
		}
		if short[level] == nil {
			first := timeAt(cfg, level)
			short[level] = times(first, min(o.Anchor.Steps, first+1))
		}
		out[i].item, out[i].grid = item, short[level]
	}
	slices.SortStableFunc(out, func(a, b start) int { return len(b.grid) - len(a.grid) })
	return out, nil
}

// walk takes every job along its grid to the estimate at its end.
func (r *run) walk() error {
	for k := 0; ; k++ {
		active := r.active(k)
		if active == 0 {
			return nil
		}
		for i, s := range r.starts[:active] {
			r.t[i] = s.grid[k]
		}
		if err := r.estimate(active); err != nil {
			return err
		}
		for i, s := range r.starts[:active] {
			r.step(i, s.grid, k)
		}
	}
}

// active is the number of jobs with more than k times.
func (r *run) active(k int) int {
	return sort.Search(r.n, func(i int) bool { return len(r.starts[i].grid) <= k })
}

// times spaces n times evenly from first to 0, whose estimate is the sample. It is uniform in t: a grid uniform in
// ln(alpha/sigma) would put too few points inside the interval of guidance.
func times(first, n int) []int {
	out := make([]int, n)
	out[0] = first
	for k := 1; k < n; k++ {
		out[k] = int(math.Round(float64(first) * float64(n-1-k) / float64(n-1)))
	}
	return out
}

// run is one call of Sample. The state of all jobs is one [jobs, dim] array, so that the conditional part of a pass is
// denoised in place of a gather.
type run struct {
	d       Denoiser
	dim     int
	cfg     prior.Config
	stats   prior.Stats
	options Options
	levels  map[int]noiseLevel // by time, as they are met

	starts   []start
	guidance []float32   // [jobs]
	t        []int       // [jobs], the time of each
	guided   []int       // of this pass: the jobs that its unconditional rows are of
	away     []int       // of this pass: the jobs that its rows of dislikes are of
	x        []float32   // [3·jobs at most, dim]: x_t of every job, then again of the guided ones, then of those to keep away
	x0       []float32   // same shape: the estimates
	before   []float32   // [jobs, dim], the estimates of the step before; nil where the solver has no memory
	rows     []prior.Row // of every job, then those of a pass
	n        int         // jobs
	out      [][]float32 // by place: what is finished leaves its place in x to the further rows of a pass
}

// newRun prepares the jobs in the order of their starts.
func newRun(d Denoiser, cfg prior.Config, o Options, jobs []Job, starts []start) (*run, error) {
	n := len(starts)
	r := &run{d: d, dim: cfg.Dim, cfg: cfg, stats: d.Stats(), options: o, levels: map[int]noiseLevel{}, starts: starts, n: n, out: make([][]float32, n)}
	r.guidance, r.t = make([]float32, n), make([]int, n)
	passes := 1 // that a job can ask for at once
	for i, s := range starts {
		j := jobs[s.place]
		g := j.Guidance
		if g == 0 {
			g = o.Guidance
		}
		if !(g > 0 && g <= maxGuidance) {
			return nil, fmt.Errorf("job %d: guidance: %v is not above 0 and at most %d", s.place, j.Guidance, maxGuidance)
		}
		if j.Label > prior.NumClasses {
			return nil, fmt.Errorf("job %d: label: %d is not a class", s.place, j.Label)
		}
		if j.Label == prior.ClassNone {
			j.Label = prior.StrongPositive
		}
		r.guidance[i] = float32(g)
		r.rows = append(r.rows, prior.Row{Label: j.Label, Cond: j.Cond})
		if g != 1 {
			passes = 2
		}
	}
	if passes == 2 && o.Away > 0 {
		passes = 3
	}
	r.x, r.x0 = make([]float32, passes*n*r.dim), make([]float32, passes*n*r.dim)
	if o.Solver == DPMSolver2M {
		r.before = make([]float32, n*r.dim)
	}
	for i, s := range starts {
		x := r.job(r.x, i)
		noise(x, jobs[s.place].Seed)
		if s.item != nil {
			r.anchor(x, s.item, s.grid[0])
		}
	}
	return r, nil
}

// job is the part of a [jobs, dim] array that is job i's.
func (r *run) job(of []float32, i int) []float32 { return of[i*r.dim : (i+1)*r.dim] }

// noise fills dst with a standard normal draw that is a function of seed.
func noise(dst []float32, seed uint64) { normal(dst, seed, pcgStream) }

func normal(dst []float32, seed, stream uint64) {
	rng := rand.New(rand.NewPCG(seed, stream))
	for i := range dst {
		dst[i] = float32(rng.NormFloat64())
	}
}

// estimate writes the guided x_0 of the first so many jobs, each at its time, to the head of r.x0.
func (r *run) estimate(active int) error {
	rows := r.pass(active)
	size := len(rows) * r.dim
	if size == 0 {
		return nil
	}
	if err := r.d.Denoise(r.x0[:size], r.x[:size], rows); err != nil {
		return fmt.Errorf("denoising at t=%d: %w", r.t[0], err)
	}
	r.guide(active)
	for i, v := range r.x0[:active*r.dim] {
		if v-v != 0 {
			return fmt.Errorf("denoising at t=%d: job %d: the estimate is %v", r.t[i/r.dim], r.starts[i/r.dim].place, v)
		}
	}
	return nil
}

// finish makes x, [dim], the result of job i.
func (r *run) finish(i int, x []float32) {
	e := make([]float32, r.dim)
	r.stats.Denormalize(e, x)
	r.out[r.starts[i].place] = e
}
