package online

import (
	"maps"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Status is what the trainer says of itself; a copy, safe to keep.
type Status struct {
	// Born is true once a prior exists, Version names the last announced one
	// ("" before the first).
	Born    bool   `json:"born"`
	Version string `json:"version"`
	Number  int64  `json:"number"`

	Step    int64   `json:"step"`     // optimizer steps taken
	Loss    float64 `json:"loss"`     // of the last step
	LossEMA float64 `json:"loss_ema"` // exponential mean over about 64 steps
	LR      float64 `json:"lr"`       // of the last step

	// Verdict is what became of the newest candidate, "" before the first;
	// RefusedInARow counts those that were refused since one was not. HeldUntil is
	// the time up to which an operator's choice stays in use, zero without one.
	Verdict       Verdict   `json:"verdict"`
	RefusedInARow int       `json:"refused_in_a_row"`
	HeldUntil     time.Time `json:"held_until,omitzero"`
	// RefusedVersions and Returns count since the start: candidates refused, and
	// times that learning went back to the last good version.
	RefusedVersions int64 `json:"refused_versions"`
	Returns         int64 `json:"returns"`
	// HeldOutLoss is the newest candidate's loss on HeldOut held-out events;
	// HeldOut is 0 before there are any.
	HeldOutLoss float64 `json:"heldout_loss"`
	HeldOut     int     `json:"heldout"`

	// Cursor is the next offset of each partition that no step has consumed;
	// Announced is the same for the newest candidate that was announced, refused
	// or held, nil before the first: what it says of these events is said.
	Cursor    map[int32]int64 `json:"cursor"`
	Announced map[int32]int64 `json:"announced"`
	// Untold is the number of steps that no candidate has been made of.
	Untold int `json:"untold"`
	// Awaited says whether some of those are no steps on pseudo-users while the stream rests, which nobody waits for.
	Awaited bool `json:"awaited"`
	// Backlog is the number of events that wait for their steps.
	Backlog int `json:"backlog"`

	Events   int64 `json:"events"`   // consumed since birth of the prior
	Examples int64 `json:"examples"` // targets learned from
	Pseudo   int64 `json:"pseudo"`   // of them, those of pseudo-users
	Idle     int64 `json:"idle"`     // steps taken on pseudo-users while the stream rested
	Skipped  int64 `json:"skipped"`  // steps not taken because of the lag, since start
	Refused  int64 `json:"refused"`  // steps of no finite loss

	// Law is that of pseudo-users, nil while there are none. It is not changed.
	Law *Law `json:"law,omitempty"`

	// Usable is the share of recent events that may be targets: of a class,
	// their item in the catalogue. Unresolved is the share of window entries
	// met while drawing that have no embedding.
	// FewUsable is true while the share is too low to go on like this.
	Usable     float64 `json:"usable"`
	FewUsable  bool    `json:"few_usable"`
	Unresolved float64 `json:"unresolved"`

	// Student is nil without one.
	Student *StudentStatus `json:"student,omitempty"`

	StepsPerSecond float64 `json:"steps_per_second"` // over the last 64 steps
	History        []Point `json:"history"`          // of the last 512 steps, oldest first
}

// Point is one step's loss.
type Point struct {
	Step int64   `json:"step"`
	Loss float64 `json:"loss"`
}

const (
	historyPoints = 512
	ratePoints    = 64
	// lossDecay and shareDecay weigh the running means: about 64 steps, about
	// 1,000 events.
	lossDecay  = 1. / 64
	shareDecay = 1. / 1024
)

// ring keeps the newest values, at most its capacity.
type ring[T any] struct {
	values []T
	next   int
}

func newRing[T any](n int) ring[T] { return ring[T]{values: make([]T, 0, n)} }

func (r *ring[T]) push(v T) {
	if len(r.values) < cap(r.values) {
		r.values = append(r.values, v)
		return
	}
	r.values[r.next] = v
	r.next = (r.next + 1) % len(r.values)
}

// all returns a copy, oldest first.
func (r *ring[T]) all() []T {
	return append(append(make([]T, 0, len(r.values)), r.values[r.next:]...), r.values[:r.next]...)
}

// Status returns the present state; it may be called at any time.
func (t *Trainer) Status() Status {
	t.mu.Lock()
	s := t.mu.status
	s.Cursor, s.Announced = maps.Clone(s.Cursor), maps.Clone(s.Announced)
	s.History = t.mu.history.all()
	times := t.mu.times.all()
	t.mu.Unlock()
	s.Backlog = int(t.backlog())
	if len(times) > 1 {
		if d := t.now().Sub(times[0]).Seconds(); d > 0 {
			s.StepsPerSecond = float64(len(times)-1) / d
		}
	}
	return s
}

// runningMean moves *mean towards v; the first values count in full.
type runningMean struct {
	n    float64
	mean float64
}

func (m *runningMean) add(v, decay float64) {
	m.n++
	m.mean += (v - m.mean) * max(decay, 1/m.n)
}

// metrics are the trainer's series; see each Help.
type metrics struct {
	stepSeconds, drawSeconds, eventToWeights               prometheus.Histogram
	loss, lossEMA, heldOutLoss, usable, unresolved         prometheus.Gauge
	version, inARow, worse                                 prometheus.Gauge
	refusedVersions, heldVersions, returns                 prometheus.Counter
	steps, skipped, refused, events, examples, cut, pseudo prometheus.Counter
	announced, announceErrors                              prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, backlog func() float64) *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "rebeca_train_" + name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "rebeca_train_" + name, Help: help})
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: "rebeca_train_" + name, Help: help, Buckets: buckets})
	}
	m := &metrics{
		stepSeconds:     histogram("step_seconds", "Time of one optimizer step, drawing its batch included.", prometheus.ExponentialBuckets(.001, 2, 14)),
		drawSeconds:     histogram("draw_seconds", "Time of drawing one batch from the table.", prometheus.ExponentialBuckets(.0001, 2, 14)),
		eventToWeights:  histogram("event_to_weights_seconds", "Time from an event to the announcement of weights made from it.", prometheus.ExponentialBuckets(.25, 2, 14)),
		loss:            gauge("loss", "Loss of the last step."),
		lossEMA:         gauge("loss_ema", "Exponential mean of the loss over about 64 steps."),
		heldOutLoss:     gauge("heldout_loss", "Loss of the averaged weights on the newest held-out events at the last announcement."),
		usable:          gauge("usable_share", "Share of recent events that may be targets: of a class, their item in the catalogue."),
		unresolved:      gauge("unresolved_share", "Share of window entries met while drawing that have no embedding."),
		version:         gauge("version", "Number of the last announced version."),
		inARow:          gauge("versions_refused_in_a_row", "Candidates that the guard refused since one was not refused."),
		worse:           gauge("heldout_worse", "Held-out loss of the newest candidate above that of the version it was held against, as a share."),
		refusedVersions: counter("versions_refused_total", "Candidates refused because they score worse on held-out events."),
		heldVersions:    counter("versions_held_total", "Candidates not announced because an operator's choice was to stay in use."),
		returns:         counter("returns_total", "Times that learning went back to the last good version."),
		steps:           counter("steps_total", "Optimizer steps taken."),
		skipped:         counter("skipped_total", "Steps not taken because the trainer was too far behind or the table offered no target."),
		refused:         counter("refused_total", "Steps refused because their loss was not finite."),
		events:          counter("events_total", "Events consumed."),
		examples:        counter("examples_total", "Targets learned from."),
		pseudo:          counter("pseudo_examples_total", "Targets of pseudo-users learned from, which examples_total counts too."),
		cut:             counter("cut_total", "Fresh events whose context was cut short, or that were lost, because later events of the user had been folded."),
		announced:       counter("announced_total", "Versions announced."),
		announceErrors:  counter("announce_errors_total", "Announcements that did not succeed; each is tried again."),
	}
	if reg != nil {
		reg.MustRegister(
			m.stepSeconds, m.drawSeconds, m.eventToWeights, m.loss, m.lossEMA, m.heldOutLoss, m.usable, m.unresolved,
			m.version, m.inARow, m.worse, m.refusedVersions, m.heldVersions, m.returns, m.steps, m.skipped, m.refused, m.events, m.examples, m.pseudo, m.cut, m.announced, m.announceErrors,
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "rebeca_train_backlog_events", Help: "Events that wait for their steps.",
			}, backlog),
		)
	}
	return m
}

// eventTimes are the times of events that no announced version knows yet, the
// newest of them: a sample is enough for a histogram.
func newEventTimes() ring[time.Time] { return newRing[time.Time](4096) }
