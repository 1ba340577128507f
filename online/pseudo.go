package online

import (
	"math"
	"math/rand/v2"
	"slices"

	"rebeca/prior"
)

const (
	// crowdItems bounds the sample of the catalogue that pseudo-users live in.
	crowdItems = 16384
	// crowdGrowth is how much larger a catalogue gets before it is sampled anew.
	crowdGrowth = 1.25
)

// span is a range that a number is drawn from.
type span struct{ low, high float64 }

func (s span) uniform(rng *rand.Rand) float64 { return s.low + (s.high-s.low)*rng.Float64() }

// logUniform draws evenly in the logarithm; low must be above 0.
func (s span) logUniform(rng *rand.Rand) float64 {
	return s.low * math.Pow(s.high/s.low, rng.Float64())
}

// law is the law of pseudo-users: a prior over people that needs a catalogue
// and no feedback. A person has some tastes, each a region of the catalogue: a
// ball of nearest neighbours around a random item or a cell of a partition; a
// share of what they are shown is aimed at those; they like what lies in a
// taste and sometimes what does not; some of them answer weakly, which says
// less; some change.
type law struct {
	tastes int  // 1 to tastes, evenly
	size   span // of a region, log-uniform, as a share of the catalogue

	aimed           span // share of impressions of a taste
	inside, outside span // P(like) of a strong answer, in a taste and elsewhere

	weak                    float64 // share of people who answer weakly now and then, each at a uniform rate
	weakInside, weakOutside span    // P(like) of a weak answer

	// changing is the share of people whose tastes change, each at a
	// log-uniform rate an event; a change replaces all tastes or, with
	// probability partly, each of them with probability 1/2.
	changing, partly float64
	hazard           span

	// long is the share of people with more events than the newest part of a
	// window holds; past is the number of those, log-uniform.
	long float64
	past span
}

func defaultLaw() law {
	return law{
		tastes: 5, size: span{.0025, .1}, aimed: span{.2, .9}, inside: span{.7, .99}, outside: span{.01, .12},
		weak: .25, weakInside: span{.4, .95}, weakOutside: span{.05, .4},
		changing: .25, partly: .3, hazard: span{1. / 200, 1. / 16},
		long: .6, past: span{3, 200},
	}
}

// crowd draws pseudo-users from a sample of a catalogue.
type crowd struct {
	law     law
	items   []listed
	of      int // items in the catalogue when it was sampled
	regions *regions
	seen    map[int32]bool // scratch of a life: items that cannot be targets
}

// listed is an item of the catalogue.
type listed struct {
	id string
	e  []float32
}

func newCrowd(seed uint64, of int, each func(func(id string, e []float32) bool)) *crowd {
	law, items := defaultLaw(), sampleItems(stream(seed, streamCrowd, 0), crowdItems, each)
	return &crowd{law: law, items: items, of: of, regions: newRegions(seed, items, law.size), seen: map[int32]bool{}}
}

// outgrown reports whether the catalogue has become another one.
func (c *crowd) outgrown(items int) bool {
	return c == nil || float64(items) >= crowdGrowth*float64(c.of)
}

// person is a pseudo-user.
type person struct {
	crowd  *crowd
	kin    kin
	tastes [][]int32
	habits
}

// habits are how a person answers.
type habits struct {
	aimed                   float64
	inside, outside         float64
	dislikes                float64 // share of strong negatives among strong answers that are no likes
	weak                    float64 // share of weak answers
	weakInside, weakOutside float64
	hazard                  float64 // P(change) before an event
	partly                  bool    // whether a change replaces some tastes only
}

// habits draws how somebody answers.
func (w law) habits(rng *rand.Rand) habits {
	h := habits{aimed: w.aimed.uniform(rng), inside: w.inside.uniform(rng), outside: w.outside.uniform(rng), dislikes: rng.Float64()}
	if rng.Float64() < w.weak {
		h.weak, h.weakInside, h.weakOutside = rng.Float64(), w.weakInside.uniform(rng), w.weakOutside.uniform(rng)
	}
	if rng.Float64() < w.changing {
		h.hazard, h.partly = w.hazard.logUniform(rng), rng.Float64() < w.partly
	}
	return h
}

// draw returns a random pseudo-user.
func (c *crowd) draw(rng *rand.Rand) person {
	p := person{crowd: c, kin: c.regions.kin(rng), habits: c.law.habits(rng)}
	p.tastes = make([][]int32, 1+rng.IntN(c.law.tastes))
	for i := range p.tastes {
		p.tastes[i] = p.kin.draw(rng)
	}
	return p
}

// change replaces tastes.
func (p *person) change(rng *rand.Rand) {
	tastes := make([][]int32, len(p.tastes)) // the old ones may be remembered elsewhere
	for i := range tastes {
		tastes[i] = p.tastes[i]
		if !p.partly || rng.IntN(2) == 0 {
			tastes[i] = p.kin.draw(rng)
		}
	}
	p.tastes = tastes
}

// impression draws what the person is shown and whether it is of their taste.
func (p *person) impression(rng *rand.Rand) (item int32, inside bool) {
	if rng.Float64() < p.aimed {
		b := p.tastes[rng.IntN(len(p.tastes))]
		return b[rng.IntN(len(b))], true
	}
	item = int32(rng.IntN(len(p.crowd.items)))
	for _, b := range p.tastes {
		if _, in := slices.BinarySearch(b, item); in {
			return item, true
		}
	}
	return item, false
}

// event draws one answered impression.
func (p *person) event(rng *rand.Rand) (item int32, class prior.Class) {
	item, inside := p.impression(rng)
	return item, p.answer(rng, inside)
}

// answer draws what is said to an item of a taste, or to another one.
func (h habits) answer(rng *rand.Rand, inside bool) prior.Class {
	like, weak := h.outside, rng.Float64() < h.weak
	switch {
	case weak && inside:
		like = h.weakInside
	case weak:
		like = h.weakOutside
	case inside:
		like = h.inside
	}
	switch liked := rng.Float64() < like; {
	case weak && liked:
		return prior.WeakPositive
	case liked:
		return prior.StrongPositive
	case !weak && rng.Float64() < h.dislikes:
		return prior.StrongNegative
	}
	return prior.WeakNegative
}

// entry is an event of a pseudo-user's window; its hash is never held out.
func (c *crowd) entry(item int32, class prior.Class) Entry {
	return Entry{ItemID: c.items[item].id, Class: class, EventHash: 1}
}

// life draws a pseudo-user's window of up to newest entries, up to older likes
// of what came before them, and up to targets events that would come next, of
// items that the window does not hold. Targets that are no strong positives
// are kept one in likedWeight.
func (c *crowd) life(rng *rand.Rand, newest, older, targets int, likedWeight float64) (l life, next []Entry) {
	p := c.draw(rng)
	n, past := 1+rng.IntN(newest), 0
	if rng.Float64() < c.law.long {
		n, past = newest, int(c.law.past.logUniform(rng))
	}
	clear(c.seen)
	likes := 0
	for i := range past + n {
		if p.hazard > 0 && rng.Float64() < p.hazard {
			p.change(rng)
		}
		item, class := p.event(rng)
		e := c.entry(item, class)
		if i >= past {
			c.seen[item] = true
			l.newest = append(l.newest, e)
			continue
		}
		if class != prior.StrongPositive {
			continue
		}
		e.Older, c.seen[item] = true, true
		likes++
		if len(l.older) < older {
			l.older = append(l.older, e)
		} else if k := rng.IntN(likes); k < older { // a uniform sample, as the table's
			l.older = append(slices.Delete(l.older, k, k+1), e)
		}
	}
	slices.Reverse(l.newest)
	slices.Reverse(l.older)
	// Tastes may be small and seen to the end: bounded.
	for tries := 4 * targets; tries > 0 && len(next) < targets; tries-- {
		item, class := p.event(rng)
		if class != prior.StrongPositive && rng.Float64()*likedWeight >= 1 || c.seen[item] {
			continue
		}
		c.seen[item] = true
		next = append(next, c.entry(item, class))
	}
	return l, next
}
