package shapes

import (
	"math"
	"math/rand/v2"
	"time"

	"rebeca/schemas"
)

// Event is one impression and its answer.
type Event struct {
	At     time.Duration // since the start of the stream
	Person int           // index into World.People
	Item   int           // index into World.Items
	Kind   schemas.Kind  // like, dislike or skip
}

// Impression draws the item that person (an index) is shown next: with probability
// Aimed one of a liked taste, drawn evenly over the tastes, else any.
func (w *World) Impression(person int, rng *rand.Rand) (item int) {
	if rng.Float64() < w.Preset.Aimed {
		tastes := w.People[person].Tastes
		of := w.byTaste[tastes[rng.IntN(len(tastes))]]
		return of[rng.IntN(len(of))]
	}
	return rng.IntN(len(w.Items))
}

// Answer draws what person (an index) says to a picture of taste t, be it of the
// catalogue or generated.
func (w *World) Answer(person int, t Taste, rng *rand.Rand) schemas.Kind {
	if rng.Float64() < w.Preset.Like[w.People[person].shared(t)] {
		return schemas.KindLike
	}
	if rng.Float64() < w.Preset.Dislike {
		return schemas.KindDislike
	}
	return schemas.KindSkip
}

// Stream plays the people of a world. It is not safe for concurrent use.
type Stream struct {
	world *World
	rng   *rand.Rand
	rate  float64
	n     int
	here  int // people who have arrived
}

// Stream starts a stream of rate events a second; the same seed and rate give the
// same events. It panics unless rate is positive.
func (w *World) Stream(seed uint64, rate float64) *Stream {
	if !(rate > 0) {
		panic("shapes: a stream needs a positive rate")
	}
	return &Stream{world: w, rng: rand.New(rand.NewPCG(seed, 0x73747265616d)), rate: rate, here: 1}
}

// Next gives the next event; events are 1/rate apart and never end. The person is
// drawn evenly from those who have arrived.
func (s *Stream) Next() Event {
	at := time.Duration(math.Round(float64(s.n) / s.rate * float64(time.Second)))
	s.n++
	for s.here < len(s.world.People) && s.world.People[s.here].Arrival <= at {
		s.here++
	}
	person := s.rng.IntN(s.here)
	item := s.world.Impression(person, s.rng)
	return Event{At: at, Person: person, Item: item, Kind: s.world.Answer(person, s.world.Items[item].Taste, s.rng)}
}
