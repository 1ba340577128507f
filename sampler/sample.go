package sampler

import (
	"fmt"
	"math"
	"math/rand/v2"

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
}

// DefaultOptions are 8 steps with guidance 4 on [-1.2, 1]: 12 passes a sample, since 4 of the 8 times lie in the interval. Where there
// is a like to start from, 4 steps from -1.
func DefaultOptions() Options {
	return Options{Steps: 8, Guidance: 4, Low: -1.2, High: 1, Anchor: Anchor{Steps: 4, Level: -1, Decay: 8}}
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

// Sample draws one embedding [Dim] for each job, in the catalogue's scale, by DDIM (Song et al., arXiv 2010.02502, eta 0)
// over Steps times spaced evenly in t from T-1 to 0, with classifier-free guidance limited to an interval of noise levels
// (Kynkäänniemi et al., arXiv 2404.07724); jobs that Options.Anchor applies to begin at its level instead. At each time the rows of all jobs of a start go to d in one call, the conditional ones
// first, then the unconditional ones (null label, empty window) of the jobs that need them.
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
	var free, anchored []int
	items := make([][]float32, len(jobs))
	for i, j := range jobs {
		if item, ok := o.Anchor.of(j); !ok {
			free = append(free, i)
		} else if len(item) != cfg.Dim {
			return nil, fmt.Errorf("job %d: window entry of %d dimensions for a prior of %d", i, len(item), cfg.Dim)
		} else {
			anchored, items[i] = append(anchored, i), item
		}
	}
	out := make([][]float32, len(jobs))
	draw := func(at []int, first, steps int, items [][]float32) error {
		if len(at) == 0 {
			return nil
		}
		r, err := newRun(d, cfg, o, jobs, at)
		if err != nil {
			return err
		}
		if items != nil {
			r.anchor(items, first)
		}
		if err := r.walk(times(first, steps)); err != nil {
			return err
		}
		for i, e := range r.embeddings() {
			out[at[i]] = e
		}
		return nil
	}
	if err := draw(free, cfg.Timesteps-1, o.Steps, nil); err != nil {
		return nil, err
	}
	first := o.Anchor.start(cfg)
	if err := draw(anchored, first, min(o.Anchor.Steps, first+1), items); err != nil {
		return nil, err
	}
	return out, nil
}

// walk takes every job along the grid to the estimate at its end.
func (r *run) walk(grid []int) error {
	for k, t := range grid {
		next := -1
		if k+1 < len(grid) {
			next = grid[k+1]
		}
		if err := r.step(t, next); err != nil {
			return err
		}
	}
	return nil
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

// run is one call of Sample. The state of all jobs is one [jobs, dim] array, so that the conditional half of a pass is
// denoised in place of a gather.
type run struct {
	d         Denoiser
	dim       int
	cfg       prior.Config
	stats     prior.Stats
	low, high float64

	at       []int       // [jobs], their places in the call
	guidance []float32   // [jobs]
	guided   []int       // jobs with guidance other than 1
	x        []float32   // [jobs+guided, dim]: x_t of every job, then again of the guided ones
	x0       []float32   // same shape: the estimates
	rows     []prior.Row // same length
	n        int         // jobs
}

// newRun prepares the jobs at the given places.
func newRun(d Denoiser, cfg prior.Config, o Options, jobs []Job, at []int) (*run, error) {
	r := &run{d: d, dim: cfg.Dim, cfg: cfg, stats: d.Stats(), low: o.Low, high: o.High, at: at, n: len(at)}
	r.guidance = make([]float32, r.n)
	r.rows = make([]prior.Row, r.n, 2*r.n)
	for i, place := range at {
		j := jobs[place]
		g := j.Guidance
		if g == 0 {
			g = o.Guidance
		}
		if !(g > 0 && g <= maxGuidance) {
			return nil, fmt.Errorf("job %d: guidance: %v is not above 0 and at most %d", place, j.Guidance, maxGuidance)
		}
		if j.Label > prior.NumClasses {
			return nil, fmt.Errorf("job %d: label: %d is not a class", place, j.Label)
		}
		if j.Label == prior.ClassNone {
			j.Label = prior.StrongPositive
		}
		r.guidance[i] = float32(g)
		r.rows[i] = prior.Row{Label: j.Label, Cond: j.Cond}
		if g != 1 {
			r.guided = append(r.guided, i)
		}
	}
	for range r.guided {
		r.rows = append(r.rows, prior.Row{Label: prior.ClassNone})
	}
	r.x = make([]float32, len(r.rows)*r.dim)
	r.x0 = make([]float32, len(r.rows)*r.dim)
	for i, place := range at {
		noise(r.x[i*r.dim:(i+1)*r.dim], jobs[place].Seed)
	}
	return r, nil
}

// noise fills dst with a standard normal draw that is a function of seed.
func noise(dst []float32, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, pcgStream))
	for i := range dst {
		dst[i] = float32(rng.NormFloat64())
	}
}

// step moves every job from time t to next; next < 0 means to the estimate itself.
func (r *run) step(t, next int) error {
	if err := r.estimate(t); err != nil {
		return err
	}
	r.ddim(t, next)
	return nil
}

// estimate writes the guided x_0 of every job at time t to the head of r.x0.
func (r *run) estimate(t int) error {
	rows := r.rows[:r.n]
	if l := r.cfg.LogSNR(t); r.low <= l && l <= r.high {
		rows = r.rows
		for k, i := range r.guided {
			copy(r.x[(r.n+k)*r.dim:], r.x[i*r.dim:(i+1)*r.dim])
		}
	}
	for i := range rows {
		rows[i].T = t
	}
	size := len(rows) * r.dim
	if size == 0 {
		return nil
	}
	if err := r.d.Denoise(r.x0[:size], r.x[:size], rows); err != nil {
		return fmt.Errorf("denoising at t=%d: %w", t, err)
	}
	if len(rows) > r.n {
		r.guide()
	}
	for i, v := range r.x0[:r.n*r.dim] {
		if v-v != 0 {
			return fmt.Errorf("denoising at t=%d: job %d: the estimate is %v", t, r.at[i/r.dim], v)
		}
	}
	return nil
}

// guide moves the estimates of the guided jobs away from the unconditional ones: u + g(c-u).
func (r *run) guide() {
	for k, i := range r.guided {
		c := r.x0[i*r.dim : (i+1)*r.dim]
		u := r.x0[(r.n+k)*r.dim:][:r.dim]
		g := r.guidance[i]
		for d := range c {
			c[d] = u[d] + g*(c[d]-u[d])
		}
	}
}

// ddim is x' = alpha' x0 + sigma' (x - alpha x0) / sigma, gathered to one factor for x0 and one for x.
func (r *run) ddim(t, next int) {
	x, x0 := r.x[:r.n*r.dim], r.x0[:r.n*r.dim]
	if next < 0 {
		copy(x, x0)
		return
	}
	alpha, sigma := scales(r.cfg, t)
	alphaNext, sigmaNext := scales(r.cfg, next)
	ofX := float32(sigmaNext / sigma)
	ofX0 := float32(alphaNext - sigmaNext*alpha/sigma)
	for i, v := range x0 {
		x[i] = ofX0*v + ofX*x[i]
	}
}

// scales are the factors of signal and noise in x_t.
func scales(cfg prior.Config, t int) (alpha, sigma float64) {
	bar := cfg.AlphaBar(t)
	return math.Sqrt(bar), math.Sqrt(1 - bar)
}

// embeddings returns the results in the order of the run.
func (r *run) embeddings() [][]float32 {
	out := make([][]float32, r.n)
	for i := range out {
		out[i] = make([]float32, r.dim)
		r.stats.Denormalize(out[i], r.x[i*r.dim:(i+1)*r.dim])
	}
	return out
}
