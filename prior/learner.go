package prior

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"

	"rebeca/internal/ort"
)

// StepStats describe one training step.
type StepStats struct {
	Loss     float64 // before the update: weighted mean squared error per dimension of the objective; of x0, in model scale, 1 is that of the mean
	GradNorm float64 // before clipping
}

// Learner trains a prior. Weights, moving average and moments live in two sets of tensors, and each step reads one set and writes
// the other, so a step copies nothing and a step that is refused leaves the weights as they were. It is not safe for concurrent use.
type Learner struct {
	net      *architecture
	stats    Stats
	seed     uint64
	steps    int64
	meta     map[string]string
	noising  randomNoising
	options  ort.Options
	schedule *ort.Tensor
	sides    [2]side
	current  int // the side that holds the state
	results  [2]*ort.Tensor
	guess    *ort.Tensor
	full     *compiled   // for windows of any length
	shorter  []*compiled // for short windows, by rising slots; compiled when first asked for
}

// NewLearner compiles the training graphs and copies the state, which it does not keep.
func NewLearner(s *State, o ort.Options) (*Learner, error) {
	if err := s.validate(); err != nil {
		return nil, fmt.Errorf("opening prior for training: %w", err)
	}
	l := &Learner{net: newArchitecture(s.Config), stats: s.Stats.clone(), seed: s.Seed, steps: s.Step, meta: maps.Clone(s.Meta)}
	l.noising.diffusion = l.net.diffusion
	if err := l.build(s, o); err != nil {
		l.Close()
		return nil, fmt.Errorf("building training graphs: %w", err)
	}
	return l, nil
}

func (l *Learner) build(s *State, o ort.Options) (err error) {
	l.options = o
	l.schedule = ort.NewTensor(numSchedule)
	l.results = [2]*ort.Tensor{ort.NewTensor(1), ort.NewTensor(1)}
	l.guess = ort.NewTensor(int64(l.net.Contexts*l.net.Targets), int64(l.net.Dim))
	layout := l.net.layout()
	for i := range l.sides {
		if l.sides[i], err = layout.newSide(); err != nil {
			return err
		}
	}
	for i, v := range s.vectors() {
		copy(l.sides[0].vectors[i], v.data)
	}
	for _, slots := range l.net.shortSlots() {
		l.shorter = append(l.shorter, &compiled{slots: slots})
	}
	l.full = &compiled{slots: l.net.slots()}
	return l.compile(l.full)
}

// ErrNotFinite is returned by Step where the loss or the gradient is not a finite number. The weights are those before the step.
var ErrNotFinite = errors.New("loss or gradient is not a finite number")

// Step takes one optimizer step on b: AdamW with betas .9 and .999, epsilon 1e-8 and weight decay 1e-4, after clipping the gradient
// to norm 1; then the moving average follows with decay min(.999, (1+n)/(10+n)) at step n. rng draws a timestep and noise for each
// target in order. It returns an error, and changes nothing, where the batch does not fit the configuration or holds numbers that
// are not finite, and one that is ErrNotFinite where the step diverged.
func (l *Learner) Step(b *Batch, lr float64, rng *rand.Rand) (StepStats, error) {
	if !(lr >= 0) || math.IsInf(lr, 0) {
		return StepStats{}, fmt.Errorf("training step %d: learning rate %v", l.steps+1, lr)
	}
	l.noising.rng = rng
	return l.stepOn(b, lr, &l.noising)
}

// stepOn is Step with any noising.
func (l *Learner) stepOn(b *Batch, lr float64, noising noising) (StepStats, error) {
	c, err := l.compiledFor(b)
	if err == nil {
		err = c.batch.set(l.net, l.stats, b, noising)
	}
	if err != nil {
		return StepStats{}, fmt.Errorf("training step %d: %w", l.steps+1, err)
	}
	l.setSchedule(lr)
	if err := c.runs[l.current].Run(); err != nil {
		return StepStats{}, fmt.Errorf("training step %d: %w", l.steps+1, err)
	}
	stats := StepStats{Loss: float64(l.results[0].Data()[0]), GradNorm: float64(l.results[1].Data()[0])}
	if !isFinite(stats.Loss) || !isFinite(stats.GradNorm) {
		name, weight := l.net.layout().largest(l.sides[l.current].vectors[sideParams])
		return stats, fmt.Errorf("training step %d: loss %v, gradient norm %v at learning rate %v: %w; weights kept as before, "+
			"the largest is %.3g in tensor %s: should steps go on being refused, lower the learning rate and go back to an earlier checkpoint",
			l.steps+1, stats.Loss, stats.GradNorm, lr, ErrNotFinite, weight, name)
	}
	l.current = 1 - l.current
	l.steps++
	return stats, nil
}

func isFinite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

func (l *Learner) setSchedule(lr float64) {
	n := float64(l.steps + 1)
	bias1, bias2 := 1-math.Pow(beta1, n), 1-math.Pow(beta2, n)
	s := schedule{
		keep: 1 - lr*weightDecay,
		rate: lr * math.Sqrt(bias2) / bias1,
		tiny: adamEpsilon * math.Sqrt(bias2),
		ema:  1 - min(maxEMADecay, (1+n)/(10+n)),
	}
	for i, v := range []float64{s.keep, s.rate, s.tiny, s.ema} {
		l.schedule.Data()[i] = float32(v)
	}
}

// Loss returns the loss of b without an update, by the weights or, if ema is true, by their moving average. rng draws as in Step.
func (l *Learner) Loss(b *Batch, rng *rand.Rand, ema bool) (float64, error) {
	l.noising.rng = rng
	c, err := l.compiledFor(b)
	if err == nil {
		err = c.batch.set(l.net, l.stats, b, &l.noising)
	}
	if err != nil {
		return 0, fmt.Errorf("evaluating loss: %w", err)
	}
	which := 0
	if ema {
		which = 1
	}
	if err := c.losses[l.current][which].Run(); err != nil {
		return 0, fmt.Errorf("evaluating loss: %w", err)
	}
	return float64(l.results[0].Data()[0]), nil
}

// State returns a deep copy of what has been learned so far.
func (l *Learner) State() *State {
	at := l.sides[l.current]
	return &State{
		Config: l.net.Config, Stats: l.stats.clone(), Seed: l.seed, Step: l.steps, Meta: maps.Clone(l.meta),
		Params: slices.Clone(at.vectors[sideParams]), EMA: slices.Clone(at.vectors[sideEMA]),
		M: slices.Clone(at.vectors[sideM]), V: slices.Clone(at.vectors[sideV]),
	}
}

// Close frees the sessions. The learner must not be used afterwards.
func (l *Learner) Close() error {
	var errs []error
	for _, c := range append(l.shorter, l.full) {
		if c != nil {
			errs = append(errs, c.close())
		}
	}
	tensors := append([]*ort.Tensor{l.schedule, l.guess}, l.results[:]...)
	for _, t := range tensors {
		if t != nil {
			t.Close()
		}
	}
	for _, s := range l.sides {
		s.close()
	}
	return errors.Join(errs...)
}
