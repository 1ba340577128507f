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

// Learner trains a prior. A step is two runs over one set of vectors: the first computes loss and gradient and changes nothing else, so
// that a step can be refused; the second is the optimizer, in place. It is not safe for concurrent use.
type Learner struct {
	net      *architecture
	stats    Stats
	seed     uint64
	steps    int64
	meta     map[string]string
	noising  randomNoising
	options  ort.Options
	schedule *ort.Tensor
	vectors  *vectors
	results  [2]*ort.Tensor
	update   optimizer
	full     *compiled   // for windows of any length
	shorter  []*compiled // for short windows, by rising slots; compiled when first asked for
	wide     *compiled   // for contexts of more targets than Targets, compiled when first asked for; nil where there are none
	pupil    *pupil      // nil without a student
	spoilt   error       // ErrSpoilt with its cause, once an update has failed
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
	if s.Student != nil {
		if err := l.Teach(s.Student); err != nil {
			l.Close()
			return nil, err
		}
	}
	return l, nil
}

func (l *Learner) build(s *State, o ort.Options) (err error) {
	l.options = o
	l.schedule = ort.NewTensor(numSchedule)
	l.results = [2]*ort.Tensor{ort.NewTensor(1), ort.NewTensor(1)}
	layout := l.net.layout()
	if l.vectors, err = layout.newVectors(); err != nil {
		return err
	}
	for i, v := range s.vectors() {
		copy(l.vectors.flat[i], v.data)
	}
	if l.update, err = layout.newOptimizer(l.vectors, l.schedule, o); err != nil {
		return err
	}
	for _, slots := range l.net.shortSlots() {
		l.shorter = append(l.shorter, &compiled{net: l.net, slots: slots})
	}
	if l.net.MostTargets > l.net.Targets {
		l.wide = &compiled{net: l.net.withTargets(l.net.MostTargets), slots: l.net.slots()}
	}
	l.full = &compiled{net: l.net, slots: l.net.slots()}
	return l.compile(l.full)
}

// ErrNotFinite is returned by Step where the loss or the gradient is not a finite number. The weights are those before the step.
var ErrNotFinite = errors.New("loss or gradient is not a finite number")

// ErrSpoilt is returned by Step where the runtime failed in the optimizer, which may have changed a part of the weights, and by every
// Step and Loss afterwards. State must not be kept then: go on from the last checkpoint.
var ErrSpoilt = errors.New("weights are spoilt by an update that failed half way, go on from the last checkpoint")

// Step takes one optimizer step on b: AdamW with betas .9 and .999, epsilon 1e-8 and weight decay 1e-4, after clipping the gradient
// to norm 1; then the moving average follows with decay min(.999, (1+n)/(10+n)) at step n. rng draws a timestep and noise for each
// target in order. It returns an error, and changes nothing, where the batch does not fit the configuration or holds numbers that
// are not finite, one that is ErrNotFinite where the step diverged, and one that is ErrSpoilt where the weights are lost.
func (l *Learner) Step(b *Batch, lr float64, rng *rand.Rand) (StepStats, error) {
	if !(lr >= 0) || math.IsInf(lr, 0) {
		return StepStats{}, fmt.Errorf("training step %d: learning rate %v", l.steps+1, lr)
	}
	l.noising.rng = rng
	return l.stepOn(b, lr, &l.noising)
}

// stepOn is Step with any noising.
func (l *Learner) stepOn(b *Batch, lr float64, noising noising) (StepStats, error) {
	if l.spoilt != nil {
		return StepStats{}, fmt.Errorf("training step %d: %w", l.steps+1, l.spoilt)
	}
	c, err := l.compiledFor(b)
	if err == nil {
		err = c.batch.set(c.net, l.stats, b, noising)
	}
	if err != nil {
		return StepStats{}, fmt.Errorf("training step %d: %w", l.steps+1, err)
	}
	if err := c.gradient.Run(); err != nil {
		return StepStats{}, fmt.Errorf("training step %d: %w", l.steps+1, err)
	}
	stats := StepStats{Loss: float64(l.results[0].Data()[0]), GradNorm: float64(l.results[1].Data()[0])}
	if !isFinite(stats.Loss) || !isFinite(stats.GradNorm) {
		name, weight := l.net.layout().largest(l.vectors.flat[flatParams])
		return stats, fmt.Errorf("training step %d: loss %v, gradient norm %v at learning rate %v: %w; weights kept as before, "+
			"the largest is %.3g in tensor %s: should steps go on being refused, lower the learning rate and go back to an earlier checkpoint",
			l.steps+1, stats.Loss, stats.GradNorm, lr, ErrNotFinite, weight, name)
	}
	scheduleOf(l.steps+1, lr, stats.GradNorm).write(l.schedule.Data())
	if err := l.update.binding.Run(); err != nil {
		l.spoilt = fmt.Errorf("%w: step %d: %w", ErrSpoilt, l.steps+1, err)
		return stats, fmt.Errorf("training step %d: %w", l.steps+1, l.spoilt)
	}
	l.steps++
	return stats, nil
}

func isFinite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

// Loss returns the loss of b without an update, by the weights or, if ema is true, by their moving average. rng draws as in Step.
func (l *Learner) Loss(b *Batch, rng *rand.Rand, ema bool) (float64, error) {
	if l.spoilt != nil {
		return 0, fmt.Errorf("evaluating loss: %w", l.spoilt)
	}
	l.noising.rng = rng
	c, err := l.compiledFor(b)
	if err == nil {
		err = c.batch.set(c.net, l.stats, b, &l.noising)
	}
	if err != nil {
		return 0, fmt.Errorf("evaluating loss: %w", err)
	}
	which := 0
	if ema {
		which = 1
	}
	if err := c.losses[which].Run(); err != nil {
		return 0, fmt.Errorf("evaluating loss: %w", err)
	}
	return float64(l.results[0].Data()[0]), nil
}

// State returns a deep copy of what has been learned so far; after ErrSpoilt it is good for nothing.
func (l *Learner) State() *State {
	at := l.vectors.flat
	return &State{
		Config: l.net.Config, Stats: l.stats.clone(), Seed: l.seed, Step: l.steps, Meta: maps.Clone(l.meta),
		Params: slices.Clone(at[flatParams]), EMA: slices.Clone(at[flatEMA]),
		M: slices.Clone(at[flatM]), V: slices.Clone(at[flatV]), Student: l.Student(),
	}
}

// Close frees the sessions. The learner must not be used afterwards.
func (l *Learner) Close() error {
	var errs []error
	for _, c := range append(l.shorter, l.full, l.wide) {
		if c != nil {
			errs = append(errs, c.close())
		}
	}
	errs = append(errs, l.update.close(), l.pupil.close())
	tensors := append([]*ort.Tensor{l.schedule}, l.results[:]...)
	for _, t := range tensors {
		if t != nil {
			t.Close()
		}
	}
	if l.vectors != nil {
		l.vectors.close()
	}
	return errors.Join(errs...)
}
