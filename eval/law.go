package eval

import (
	"math/rand/v2"

	"rebeca/prior"
	"rebeca/schemas"
)

// law is what a world does not say in numbers: where its items come from, who its people are and how they answer.
type law struct {
	// person changes what a person drawn by the shape is like; nil leaves it.
	person func(p *Person, rng *rand.Rand)
	// answer draws what p says to an item of taste t.
	answer func(p *Person, t int, rng *rand.Rand) (schemas.Kind, *float64)
	// strong is the probability that the answer is a strong positive.
	strong func(p *Person, t int) float64
	// evidence is the likelihood of an answer to an item of taste t if the person's one liked taste were liked, -1 for none of them.
	evidence func(p *Person, t, liked int, kind schemas.Kind, class prior.Class) float64
}

// binary answers with a like or with a dislike or skip, as often each. chance is P(like); nil takes the person's Inside and Outside.
func binary(chance func(p *Person, shown, liked int) float64) law {
	if chance == nil {
		chance = func(p *Person, shown, liked int) float64 {
			if shown == liked {
				return p.Inside
			}
			return p.Outside
		}
	}
	best := func(p *Person, t int) float64 {
		q := chance(p, t, -1)
		for _, l := range p.Liked {
			q = max(q, chance(p, t, l))
		}
		return q
	}
	return law{
		answer: func(p *Person, t int, rng *rand.Rand) (schemas.Kind, *float64) {
			switch {
			case rng.Float64() < best(p, t):
				return schemas.KindLike, nil
			case rng.Float64() < .5:
				return schemas.KindDislike, nil
			}
			return schemas.KindSkip, nil
		},
		strong: best,
		evidence: func(p *Person, t, liked int, kind schemas.Kind, _ prior.Class) float64 {
			q := chance(p, t, liked)
			if kind == schemas.KindLike {
				return q
			}
			return (1 - q) / 2
		},
	}
}

// Event is one impression and its answer.
type Event struct {
	Person int // index into World.People
	Item   int // index into World.Items
	Kind   schemas.Kind
	Value  *float64
	made   string // id of the generated embedding that was shown, whose taste is Item's; "" for Item itself
}

// act draws p's next event, a change of tastes before it included.
func (w *World) act(p *Person, rng *rand.Rand) (e Event) {
	if p.Hazard > 0 && rng.Float64() < p.Hazard {
		w.change(p, rng)
	}
	p.Since++
	if rng.Float64() < p.Aimed {
		of := w.ItemsOf[p.Liked[rng.IntN(len(p.Liked))]]
		e.Item = of[rng.IntN(len(of))]
	} else {
		e.Item = rng.IntN(len(w.Items))
	}
	e.Kind, e.Value = w.law.answer(p, w.Cells[e.Item], rng)
	return e
}

// Stream plays the people of a world, Shape.Events events of them. It is not safe for concurrent use.
type Stream struct {
	world *World
	rng   *rand.Rand
	n     int
	here  int // people who have arrived

	// People are as they are after the last event: tastes change on the way.
	People []Person
}

// Stream returns the world's stream from its beginning.
func (w *World) Stream() *Stream {
	return &Stream{world: w, rng: random(w.Seed, useStream, 0), People: append([]Person(nil), w.People...)}
}

// Next returns the next event; ok is false at the end. The person is drawn evenly from those who have arrived.
func (s *Stream) Next() (e Event, ok bool) {
	if s.n == s.world.Shape.Events {
		return e, false
	}
	for s.here < len(s.People) && s.People[s.here].Arrival <= s.n {
		s.here++
	}
	s.n++
	person := s.rng.IntN(s.here)
	e = s.world.act(&s.People[person], s.rng)
	e.Person = person
	return e, true
}

// Here is the number of people who have arrived: the first ones.
func (s *Stream) Here() int { return s.here }
