package eval

import (
	"context"
	"fmt"
	"math/rand/v2"

	"rebeca/online"
)

// Contestant gives people embeddings. What it is asked depends on the subjects' windows; their Person is the truth, which only
// oracles may look at.
type Contestant interface {
	Name() string
	// Sample draws n embeddings [n][Dim] for each subject, in the catalogue's scale. The same seed gives the same samples.
	Sample(ctx context.Context, subjects []Subject, n int, seed uint64) ([][][]float32, error)
}

// Learner is a contestant that reads the stream.
type Learner interface {
	Contestant
	// Begin is called once, before the first event; whatever can be learned from the catalogue is learned here.
	Begin(ctx context.Context) error
	// Learn takes the next events; the table has folded them, and no later ones.
	Learn(ctx context.Context, events []online.Example) error
	// Rest is called before the learner is asked: all events so far are to be known.
	Rest(ctx context.Context) error
	// Ready says why nobody can be answered yet; empty when they can.
	Ready() string
	Spent() Spent
	Close() error
}

// Spent is what learning has cost so far.
type Spent struct {
	Steps    int64 `json:"steps"`
	Examples int64 `json:"examples"`
	Pseudo   int64 `json:"pseudo,omitempty"` // of the examples, those of pseudo-users: the others are of events

	Versions int64 `json:"versions,omitempty"` // number of the last one that was announced
	Refused  int64 `json:"refused,omitempty"`  // candidates that the guard refused
	Returns  int64 `json:"returns,omitempty"`  // times that learning went back to the last good version
}

// ofEvents is the number of examples that are not pseudo-users'.
func (s Spent) ofEvents() int64 { return s.Examples - s.Pseudo }

// String says both kinds of examples.
func (s Spent) String() string {
	return fmt.Sprintf("%d steps on %d examples of events and %d of pseudo-users", s.Steps, s.ofEvents(), s.Pseudo)
}

// control is a contestant that learns nothing: each embedding is drawn by itself.
type control struct {
	name string
	draw func(s *Subject, likes []int, rng *rand.Rand) []float32
}

// Name implements [Contestant].
func (c control) Name() string { return c.name }

// Sample implements [Contestant].
func (c control) Sample(_ context.Context, subjects []Subject, n int, seed uint64) ([][][]float32, error) {
	out := make([][][]float32, len(subjects))
	for i := range subjects {
		rng, likes := random(seed^hash(c.name), useControl, i), subjects[i].Likes()
		for range n {
			out[i] = append(out[i], c.draw(&subjects[i], likes, rng))
		}
	}
	return out, nil
}

// jitters are the sizes of the noise on a copied like, in deviations of the catalogue.
var jitters = []float64{.05, .1, .2, .4}

// controls are the contestants that any learner has to beat. Where somebody has liked nothing yet they show random items.
func controls(w *World, y *yardstick) []Contestant {
	anything := func(rng *rand.Rand) []float32 { return w.Items[rng.IntN(len(w.Items))] }
	liked := func(likes []int, rng *rand.Rand) []float32 {
		if len(likes) == 0 {
			return anything(rng)
		}
		return w.Items[likes[rng.IntN(len(likes))]]
	}
	out := []Contestant{
		control{"random", func(_ *Subject, _ []int, rng *rand.Rand) []float32 { return anything(rng) }},
		control{"resampled", func(_ *Subject, likes []int, rng *rand.Rand) []float32 { return liked(likes, rng) }},
		control{"mean", func(_ *Subject, likes []int, rng *rand.Rand) []float32 {
			if len(likes) == 0 {
				return anything(rng)
			}
			m := make([]float32, w.Dim)
			for _, l := range likes {
				for d, v := range w.Items[l] {
					m[d] += v / float32(len(likes))
				}
			}
			return m
		}},
	}
	for _, size := range jitters {
		out = append(out, control{fmt.Sprintf("jitter_%g", size), func(_ *Subject, likes []int, rng *rand.Rand) []float32 {
			x := append([]float32(nil), liked(likes, rng)...)
			for d := range x {
				x[d] += float32(size * y.scale * rng.NormFloat64())
			}
			return x
		}})
	}
	return out
}
