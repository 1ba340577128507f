package online

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"rebeca/prior"
)

// The recipe of a student: a step after every studentEvery steps of the prior, once a third of the steps of birth are taken, at a rate
// that falls along a cosine from studentLR to a tenth of it, in half as many of its own steps as the prior's.
const (
	studentEvery  = 2
	studentLR     = 2e-3
	studentWarmup = 30
	// studentEmpty is the share of its contexts that are emptied.
	studentEmpty = .05
	// fewEvents is the number of entries up to which a context keeps what its rows start from: people with few events are served
	// from those.
	fewEvents = 8
	// studentWindows is the number of windows that it is held against its teacher on.
	studentWindows = 24
)

// StudentStatus is what the trainer says of the prior's student.
type StudentStatus struct {
	Steps int64   `json:"steps"` // taken
	Loss  float64 `json:"loss"`  // of the last step since the start, 0 before the first
	// Distances are those of the newest candidate's samples from its teacher's, by number of passes; empty before they were measured.
	Distances map[string]float64 `json:"distances,omitempty"`
	Bound     float64            `json:"bound"`
	// Passes is the smallest number of passes that is near enough; 0: the student is switched off.
	Passes  int   `json:"passes"`
	Refused int64 `json:"refused"` // steps of no finite loss, since the start
}

// master is a learner that can have a student.
type master interface {
	learner
	Teach(*prior.Student) error
	StepStudent(b *prior.Batch, teacher prior.Guidance, lr float64, rng *rand.Rand) (prior.StepStats, error)
	StudentSteps() (steps int64, ok bool)
	Judge(prior.Fidelity)
}

// school is what the trainer keeps of its student.
type school struct {
	drawer  *drawer // nil until the first step of the present learner
	refused int64
	passes  int // that were near enough for the last candidate; -1 before the first

	steps    prometheus.Counter
	loss     prometheus.Gauge
	distance *prometheus.GaugeVec
	enough   prometheus.Gauge
}

// newSchool registers its series only where there is a student to watch.
func newSchool(cfg Config, reg prometheus.Registerer) school {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Name: "rebeca_train_student_" + name, Help: help}
	}
	s := school{
		passes:   -1,
		steps:    prometheus.NewCounter(prometheus.CounterOpts(opts("steps_total", "Steps of the prior's student."))),
		loss:     prometheus.NewGauge(prometheus.GaugeOpts(opts("loss", "Loss of the student's last step."))),
		distance: prometheus.NewGaugeVec(prometheus.GaugeOpts(opts("distance", "Energy distance of the student's samples from the prior's, over the prior's spread.")), []string{"passes"}),
		enough:   prometheus.NewGauge(prometheus.GaugeOpts(opts("passes", "Fewest passes of the student that are near enough; 0: it is switched off."))),
	}
	if cfg.Student && reg != nil {
		reg.MustRegister(s.steps, s.loss, s.distance, s.enough)
	}
	return s
}

// teachStudent takes a step of the student if it is time for one. What it sees is a function of the seed, the prior's steps and the
// table, as in the prior's steps.
func (t *Trainer) teachStudent() error {
	if !t.cfg.Student || t.step%studentEvery != 0 || t.step < int64(t.cfg.FirstSteps) || t.unborn() > 0 && 3*t.record.Birth < int64(t.cfg.BirthSteps) {
		return nil
	}
	m, ok := t.learner.(master)
	if !ok {
		return nil
	}
	n, ok := m.StudentSteps()
	if !ok {
		s, err := prior.NewStudent(t.drawer.prior, t.seed)
		if err == nil {
			err = m.Teach(s)
		}
		if err != nil {
			return fmt.Errorf("beginning a student: %w", err)
		}
	}
	at := t.step + t.record.Refused + t.record.Undone
	pseudo := 0
	switch {
	case t.unborn() > 0:
		pseudo = t.drawer.prior.Contexts
	case t.crowded():
		pseudo = int(math.Round(t.cfg.PseudoShare * float64(t.drawer.prior.Contexts)))
	}
	batch, err := t.studentBatch(stream(t.seed, streamStudent, at), pseudo)
	if err != nil || len(batch.Targets) == 0 {
		return err
	}
	lr := rate(n, studentWarmup, (t.cfg.DecaySteps+1)/studentEvery, studentLR, studentLR/10)
	stats, err := m.StepStudent(batch, t.cfg.teacher(), lr, stream(t.seed, streamStudentNoise, at))
	if errors.Is(err, prior.ErrNotFinite) {
		t.school.refused++
		if bits.OnesCount64(uint64(t.school.refused)) == 1 {
			t.log.Warn("student's step refused", "err", err, "refused", t.school.refused)
		}
		t.noteStudent(n, 0)
		return nil
	}
	if err != nil {
		return err
	}
	t.noteStudent(n+1, stats.Loss)
	return nil
}

// noteStudent publishes the student's state after a step.
func (t *Trainer) noteStudent(steps int64, loss float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.studentStatus()
	s.Steps, s.Refused = steps, t.school.refused
	if loss > 0 {
		s.Loss = loss
		t.school.steps.Inc()
		t.school.loss.Set(loss)
	}
	t.mu.status.Student = &s
}

// studentStatus is a copy of the student's status; mu is held.
func (t *Trainer) studentStatus() StudentStatus {
	if s := t.mu.status.Student; s != nil {
		return *s
	}
	return StudentStatus{Bound: t.cfg.StudentBound}
}

// teacher is how the prior is sharpened where the student learns from it.
func (c Config) teacher() prior.Guidance {
	return prior.Guidance{Low: c.StudentLow, High: c.StudentHigh}
}

// studentBatch draws contexts as those of a step, with the items that a student's rows start from as targets: what was liked, where the
// context has any of it. pseudo contexts are pseudo-users', if there are any.
func (t *Trainer) studentBatch(rng *rand.Rand, pseudo int) (*prior.Batch, error) {
	if t.school.drawer == nil {
		cfg := t.cfg
		cfg.LabelDropout, cfg.WindowDropout = 0, studentEmpty
		t.school.drawer = newDrawer(cfg, t.drawer.prior, t.people, t.items)
	}
	d := t.school.drawer
	d.crowd = t.drawer.crowd
	b, _, err := d.batchOf(rng, nil, pseudo)
	if err != nil {
		return nil, fmt.Errorf("drawing a student's batch: %w", err)
	}
	startFromLikes(b, d.prior.MaxTokens)
	return b, nil
}

// startFromLikes drops the targets that were not liked from contexts that have others, and puts the targets of short contexts back.
func startFromLikes(b *prior.Batch, room int) {
	liked := make([]bool, len(b.Contexts))
	for _, t := range b.Targets {
		liked[t.Context] = liked[t.Context] || t.Label.Positive()
	}
	b.Targets = slices.DeleteFunc(b.Targets, func(t prior.Target) bool { return liked[t.Context] && !t.Label.Positive() })
	short := make([]bool, len(b.Contexts))
	for c, ctx := range b.Contexts {
		short[c] = len(ctx) > 0 && len(ctx) <= fewEvents
	}
	for _, t := range b.Targets {
		if c := t.Context; short[c] && len(b.Contexts[c]) < room {
			b.Contexts[c] = slices.Insert(b.Contexts[c], 0, prior.Entry{Item: t.Item, Class: t.Label})
		}
	}
}

// examine holds the student against its teacher on a fixed set of windows and notes in it what came of it, for the candidate that is
// about to be saved: with what is not near enough nobody samples. A student that cannot be measured is not near.
func (t *Trainer) examine() error {
	t.record.Student = nil // of the candidate before
	m, ok := t.learner.(master)
	if !t.cfg.Student || !ok || t.cfg.Distances == nil {
		return nil
	}
	if _, ok := m.StudentSteps(); !ok {
		return nil
	}
	b, err := t.studentBatch(stream(t.seed, streamStudentSet, 0), t.drawer.prior.Contexts)
	if err != nil {
		return err
	}
	windows := slices.DeleteFunc(slices.Clone(b.Contexts), func(c prior.Context) bool { return len(c) == 0 })
	windows = windows[:min(len(windows), studentWindows)]
	f := prior.Fidelity{Distances: [3]float32{-1, -1, -1}, Bound: float32(t.cfg.StudentBound)}
	if len(windows) > 0 {
		distances, err := t.cfg.Distances(t.learner.State(), windows)
		if err != nil {
			t.log.Warn("the student could not be held against its teacher", "err", err, "step", t.step)
		} else {
			for i, d := range distances {
				f.Distances[i] = float32(max(0, d)) // below 0 by sampling noise
			}
		}
	}
	m.Judge(f)
	t.noteFidelity(f)
	return nil
}

// noteFidelity publishes what an examination gave.
func (t *Trainer) noteFidelity(f prior.Fidelity) {
	t.record.Student = &f
	passes := f.Fewest()
	switch before := t.school.passes; {
	case passes == 0 && before != 0:
		t.log.Warn("the student is switched off: its samples are too far from its teacher's", "distances", f.Distances, "bound", f.Bound, "step", t.step)
	case passes > 0 && passes != before:
		t.log.Info("the student's samples are near its teacher's", "passes", passes, "distances", f.Distances, "bound", f.Bound, "step", t.step)
	}
	t.school.passes = passes
	t.school.enough.Set(float64(passes))
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.studentStatus()
	s.Passes, s.Distances = passes, map[string]float64{}
	for i, n := range prior.Passes() {
		if d := float64(f.Distances[i]); d >= 0 {
			s.Distances[strconv.Itoa(n)] = d
			t.school.distance.WithLabelValues(strconv.Itoa(n)).Set(d)
		}
	}
	t.mu.status.Student = &s
}

// studentMetrics adds what is known of the student of c to the metrics of its announcement.
func (r record) studentMetrics(m map[string]float64) {
	if r.Student == nil {
		return
	}
	m["student_passes"] = float64(r.Student.Fewest())
	for i, n := range prior.Passes() {
		if d := float64(r.Student.Distances[i]); d >= 0 {
			m["student_distance_"+strconv.Itoa(n)] = d
		}
	}
}
