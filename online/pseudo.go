package online

import (
	"math"
	"math/rand/v2"
	"slices"
	"sort"

	"rebeca/prior"
)

// The law of pseudo-users: a prior over people that needs a catalogue and no
// feedback. A person has 1 to maxTastes tastes, each a ball of nearest
// neighbours around a random item; a share of what they are shown is aimed at
// those; they like what lies in a ball and sometimes what does not.
const (
	maxTastes = 5
	// A ball holds a share of the catalogue, log-uniform between the two.
	smallestBall, largestBall = .0025, .1
	fewestInBall              = 8
	// crowdItems bounds the sample of the catalogue that the law is made over.
	crowdItems = 4096
	// crowdGrowth is how much larger a catalogue gets before it is sampled anew.
	crowdGrowth = 1.25
	// longLife is the share of people with more events than the newest part of
	// a window holds, pastEvents the most that lie before it.
	longLife, pastEvents = .4, 72
)

// crowd draws pseudo-users from a sample of a catalogue. The balls around an
// item are a function of the crowd's seed and the sample alone.
type crowd struct {
	items []listed
	of    int // items in the catalogue when it was sampled
	seed  uint64
	balls map[int][]int32 // by ball index, rising item indices; filled when first drawn
}

// listed is an item of the catalogue.
type listed struct {
	id string
	e  []float32
}

func newCrowd(seed uint64, of int, each func(func(id string, e []float32) bool)) *crowd {
	return &crowd{
		items: sampleItems(stream(seed, streamCrowd, 0), crowdItems, each), of: of, seed: seed, balls: map[int][]int32{},
	}
}

// outgrown reports whether the catalogue has become another one.
func (c *crowd) outgrown(items int) bool {
	return c == nil || float64(items) >= crowdGrowth*float64(c.of)
}

// ball returns the items of ball i: its centre and size are drawn from i.
func (c *crowd) ball(i int) []int32 {
	if b, ok := c.balls[i]; ok {
		return b
	}
	rng := stream(c.seed, streamBall, int64(i))
	n := float64(len(c.items))
	size := int(n * smallestBall * math.Pow(largestBall/smallestBall, rng.Float64()))
	size = min(max(size, fewestInBall), len(c.items))
	centre := c.items[rng.IntN(len(c.items))].e
	type near struct {
		item     int32
		distance float32
	}
	all := make([]near, len(c.items))
	for k, it := range c.items {
		var d float32
		for j, x := range it.e {
			d += (x - centre[j]) * (x - centre[j])
		}
		all[k] = near{int32(k), d}
	}
	sort.SliceStable(all, func(a, b int) bool { return all[a].distance < all[b].distance })
	b := make([]int32, size)
	for k := range b {
		b[k] = all[k].item
	}
	slices.Sort(b)
	c.balls[i] = b
	return b
}

// taste is a pseudo-user's way to answer.
type taste struct {
	crowd     *crowd
	balls     [][]int32
	aimed     float64 // share of impressions from a ball
	inside    float64 // P(like) in a ball
	outside   float64 // P(like) elsewhere
	dislikes  float64 // share of strong negatives among what is not liked
	weakLikes float64 // share of weak positives among what is liked
}

// draw returns the taste of a random pseudo-user.
func (c *crowd) draw(rng *rand.Rand) taste {
	t := taste{
		crowd: c, aimed: .2 + .7*rng.Float64(), inside: .7 + .29*rng.Float64(), outside: .01 + .11*rng.Float64(),
		dislikes: rng.Float64(),
	}
	if rng.Float64() < .25 {
		t.weakLikes = rng.Float64()
	}
	for range 1 + rng.IntN(maxTastes) {
		t.balls = append(t.balls, c.ball(rng.IntN(crowdItems)))
	}
	return t
}

// impression draws what the person is shown and whether they like it.
func (t *taste) impression(rng *rand.Rand) (item int32, liked bool) {
	if rng.Float64() < t.aimed {
		b := t.balls[rng.IntN(len(t.balls))]
		item = b[rng.IntN(len(b))]
	} else {
		item = int32(rng.IntN(len(t.crowd.items)))
	}
	p := t.outside
	for _, b := range t.balls {
		if _, in := slices.BinarySearch(b, item); in {
			p = t.inside
			break
		}
	}
	return item, rng.Float64() < p
}

// event draws one answered impression.
func (t *taste) event(rng *rand.Rand) Entry {
	item, liked := t.impression(rng)
	class := prior.WeakNegative
	switch {
	case liked && rng.Float64() < t.weakLikes:
		class = prior.WeakPositive
	case liked:
		class = prior.StrongPositive
	case rng.Float64() < t.dislikes:
		class = prior.StrongNegative
	}
	return Entry{ItemID: t.crowd.items[item].id, Class: class, EventHash: 1} // 1: never held out
}

// life draws a pseudo-user's window of up to newest entries and older likes of
// what came before them.
func (c *crowd) life(rng *rand.Rand, newest, older int) life {
	t := c.draw(rng)
	n, past := 1+rng.IntN(newest), 0
	if rng.Float64() < longLife {
		n, past = newest, rng.IntN(pastEvents)
	}
	var l life
	for range n {
		l.newest = append(l.newest, t.event(rng))
	}
	for range past {
		if e := t.event(rng); e.Class == prior.StrongPositive && len(l.older) < older {
			e.Older = true
			l.older = append(l.older, e)
		}
	}
	return l
}
