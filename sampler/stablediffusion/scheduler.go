package stablediffusion

import (
	"fmt"
	"math"
)

// Schedulers, by the names of the manifest.
const (
	pndm = "pndm"    // PLMS, as Stable Diffusion 1.5 is shipped (Liu et al., arXiv 2202.09778, without Runge-Kutta steps)
	ddim = "ddim"    // eta 0 (Song et al., arXiv 2010.02502)
	dpm  = "dpm++2m" // DPM-Solver++(2M), midpoint, the last step of first order (Lu et al., arXiv 2211.01095)
)

// Scheduler says at which timesteps the U-Net is asked and how its answers move the latent. The fields are those of diffusers' schedulers
// under shorter names.
type Scheduler struct {
	Kind          string  `json:"kind"` // pndm, ddim or dpm++2m
	Steps         int     `json:"steps"`
	Timesteps     int     `json:"timesteps"`     // of the noise schedule that the U-Net was trained with
	BetaSchedule  string  `json:"beta_schedule"` // linear or scaled_linear: linear in beta or in its root
	BetaStart     float64 `json:"beta_start"`
	BetaEnd       float64 `json:"beta_end"`
	Spacing       string  `json:"spacing"`         // leading, linspace or trailing (Lin et al., arXiv 2305.08891, table 2)
	StepsOffset   int     `json:"steps_offset"`    // added to timesteps of leading
	FinalAlphaOne bool    `json:"final_alpha_one"` // whether a step beyond timestep 0 ends without noise, or with that of timestep 0; dpm++2m always ends without
}

const maxTimesteps = 100_000

func (s Scheduler) validate() error {
	switch {
	case s.Kind != pndm && s.Kind != ddim && s.Kind != dpm:
		return fmt.Errorf("kind: %q is not one of %s, %s, %s", s.Kind, pndm, ddim, dpm)
	case s.Timesteps < 2 || s.Timesteps > maxTimesteps:
		return fmt.Errorf("timesteps: %d is not within 2 to %d", s.Timesteps, maxTimesteps)
	case s.Steps < 1 || s.Steps > s.Timesteps:
		return fmt.Errorf("steps: %d is not within 1 to the %d timesteps", s.Steps, s.Timesteps)
	case s.BetaSchedule != "linear" && s.BetaSchedule != "scaled_linear":
		return fmt.Errorf("beta_schedule: %q is not linear or scaled_linear", s.BetaSchedule)
	case !(s.BetaStart > 0) || !(s.BetaStart < 1):
		return fmt.Errorf("beta_start: %v is not between 0 and 1", s.BetaStart)
	case !(s.BetaEnd >= s.BetaStart) || !(s.BetaEnd < 1):
		return fmt.Errorf("beta_end: %v is not between beta_start and 1", s.BetaEnd)
	case s.StepsOffset < 0 || s.StepsOffset >= s.Timesteps:
		return fmt.Errorf("steps_offset: %d is not within 0 to the %d timesteps", s.StepsOffset, s.Timesteps)
	}
	times, err := s.times()
	if err != nil {
		return err
	}
	for i, t := range times {
		// The second evaluation of pndm's first step looks one stride up.
		if t < 0 || t >= s.Timesteps || i == 1 && s.Kind == pndm && t+s.stride() >= s.Timesteps {
			return fmt.Errorf("steps: %d of them reach timestep %d, outside of 0 to %d", s.Steps, t, s.Timesteps-1)
		}
		if i > 0 && s.Kind == dpm && t >= times[i-1] {
			return fmt.Errorf("steps: %d of them are too many for %s over %d timesteps", s.Steps, dpm, s.Timesteps)
		}
	}
	return nil
}

func (s Scheduler) stride() int { return s.Timesteps / s.Steps }

// times lists the timesteps at which the U-Net is evaluated, from noise to picture.
func (s Scheduler) times() ([]int, error) {
	n := s.Steps
	up := make([]int, n) // rising
	points := n          // of the grid
	if s.Kind == dpm {
		points = n + 1 // it leaves out the lowest
	}
	for i := range up {
		k := i + points - n
		switch s.Spacing {
		case "leading":
			up[i] = k*(s.Timesteps/points) + s.StepsOffset
		case "linspace":
			if points > 1 {
				up[i] = int(math.RoundToEven(float64(k) * float64(s.Timesteps-1) / float64(points-1)))
			}
		case "trailing":
			up[i] = int(math.RoundToEven(float64(s.Timesteps)-float64(n-1-i)*float64(s.Timesteps)/float64(n))) - 1
		default:
			return nil, fmt.Errorf("spacing: %q is not one of leading, linspace, trailing", s.Spacing)
		}
	}
	if s.Kind == pndm && n > 1 {
		// The first step is Heun's: its end is evaluated before it is taken.
		up = append(up[:n-1:n-1], up[n-2], up[n-1])
	}
	down := make([]int, len(up))
	for i, t := range up {
		down[len(up)-1-i] = t
	}
	return down, nil
}

// alphas gives the cumulated product of 1 - beta at every timestep: signal and noise of a latent have the shares √a and √(1-a).
func (s Scheduler) alphas() []float64 {
	from, to, power := s.BetaStart, s.BetaEnd, 1.
	if s.BetaSchedule == "scaled_linear" {
		from, to, power = math.Sqrt(from), math.Sqrt(to), 2
	}
	out, product := make([]float64, s.Timesteps), 1.
	for t := range out {
		product *= 1 - math.Pow(from+(to-from)*float64(t)/float64(s.Timesteps-1), power)
		out[t] = product
	}
	return out
}

// solver moves a latent from one evaluation of the U-Net to the next. It is of one walk and one goroutine.
type solver struct {
	kind   string
	times  []int
	alphas []float64
	final  float64 // the share beyond timestep 0
	stride int
	start  []float32   // pndm: the latent before its first step
	past   [][]float32 // pndm: predicted noises, the newest last; dpm: the last estimate of the picture
}

func newSolver(s Scheduler, size int) *solver {
	times, err := s.times()
	if err != nil {
		panic("stablediffusion: a scheduler that was not validated: " + err.Error())
	}
	out := &solver{kind: s.Kind, times: times, alphas: s.alphas(), final: 1, stride: s.stride(), start: make([]float32, size)}
	if !s.FinalAlphaOne {
		out.final = out.alphas[0]
	}
	return out
}

// step moves the latent x by the noise that was predicted for it at the i-th time. It keeps a copy of noise where it needs one.
func (s *solver) step(i int, x, noise []float32) {
	switch t := s.times[i]; s.kind {
	case ddim:
		s.transfer(x, x, noise, t, t-s.stride)
	case pndm:
		s.plms(i, x, noise)
	case dpm:
		s.multistep(i, x, noise)
	}
}

func (s *solver) alpha(t int) float64 {
	if t < 0 {
		return s.final
	}
	return s.alphas[t]
}

// transfer writes to dst the latent x of timestep from, taken to timestep to along noise: DDIM's step. Formula (9) of PNDM is the same
// step in another form, (a' - a) / (a √(1-a') + √(a(1-a)a')) = (√(a'(1-a)) - √(a(1-a'))) / √a.
func (s *solver) transfer(dst, x, noise []float32, from, to int) {
	a, b := s.alpha(from), s.alpha(to)
	keep := math.Sqrt(b / a)
	add := math.Sqrt(1-b) - keep*math.Sqrt(1-a)
	combine(dst, keep, x, add, noise)
}

// plms is PNDM's linear multistep after two evaluations of its first step.
func (s *solver) plms(i int, x, noise []float32) {
	t := s.times[i]
	if i == 1 {
		// At the end of the first step: its mean noise takes the step again from its start.
		mean := make([]float32, len(noise))
		combine(mean, .5, noise, .5, s.past[0])
		s.transfer(x, s.start, mean, t+s.stride, t)
		return
	}
	if i == 0 {
		copy(s.start, x)
	}
	s.past = append(s.past[max(0, len(s.past)-3):], append([]float32(nil), noise...))
	weights := [][]float64{{1}, {3. / 2, -1. / 2}, {23. / 12, -16. / 12, 5. / 12}, {55. / 24, -59. / 24, 37. / 24, -9. / 24}}[len(s.past)-1]
	mean := make([]float32, len(noise))
	for k, w := range weights { // the newest first
		combine(mean, 1, mean, w, s.past[len(s.past)-1-k])
	}
	s.transfer(x, x, mean, t, t-s.stride)
}

// multistep is DPM-Solver++(2M) on the estimate of the picture; the first step and the last are of first order.
func (s *solver) multistep(i int, x, noise []float32) {
	last := i == len(s.times)-1
	now := s.alphas[s.times[i]]
	estimate := make([]float32, len(x))
	combine(estimate, 1/math.Sqrt(now), x, -math.Sqrt((1-now)/now), noise)
	if last { // to no noise at all
		copy(x, estimate)
		return
	}
	next := s.alphas[s.times[i+1]]
	h := lambda(next) - lambda(now)
	grow := -math.Sqrt(next) * math.Expm1(-h)
	combine(x, math.Sqrt((1-next)/(1-now)), x, grow, estimate)
	if i > 0 {
		slope := grow / 2 * h / (lambda(now) - lambda(s.alphas[s.times[i-1]]))
		combine(x, 1, x, slope, estimate)
		combine(x, 1, x, -slope, s.past[0])
	}
	s.past = [][]float32{estimate}
}

// lambda is the logarithm of the signal-to-noise ratio's root.
func lambda(alpha float64) float64 { return math.Log(alpha/(1-alpha)) / 2 }

// combine is dst = a x + b y.
func combine(dst []float32, a float64, x []float32, b float64, y []float32) {
	for k := range dst {
		dst[k] = float32(a*float64(x[k]) + b*float64(y[k]))
	}
}
