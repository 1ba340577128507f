package eval

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// World is a catalogue, people and how they answer, all of it known exactly. It is immutable.
type World struct {
	Shape   Shape
	Seed    uint64
	Dim     int
	Items   [][]float32 // the catalogue, [items][Dim]
	Cells   []int       // the taste that each item shows, 0..Tastes-1
	ItemsOf [][]int     // indices into Items by taste; none is empty
	// Fresh are items of the same law that are in no catalogue and are never shown: what a person could be given that is new.
	Fresh   [][]float32
	FreshOf [][]int // indices into Fresh by taste; of a taste with very few items none
	People  []Person

	law law
}

// Shape says how large a world is and how its people answer. Start from [Named] and change the sizes.
type Shape struct {
	Name   string `json:"name"`
	Items  int    `json:"items"` // of the catalogue
	Fresh  int    `json:"fresh"` // items kept out of it
	People int    `json:"people"`
	Events int    `json:"events"` // of the stream
	Dim    int    `json:"dim"`    // of embeddings; the worlds of pictures have 16

	Tastes   int     `json:"tastes"`
	MinLiked int     `json:"min_liked"` // tastes that a person likes, uniform
	MaxLiked int     `json:"max_liked"` // between the two
	Arrival  float64 `json:"arrival"`   // share of the events over which people arrive, evenly
	Aimed    float64 `json:"aimed"`     // share of impressions that show an item of a liked taste
	Inside   float64 `json:"inside"`    // P(like) of an item of a liked taste
	Outside  float64 `json:"outside"`   // and of any other
	Hazard   float64 `json:"hazard"`    // chance per own event that a restless person changes all tastes
	Settled  float64 `json:"settled"`   // share of people who never change
}

// Person is somebody whose taste is known.
type Person struct {
	ID       string
	Liked    []int // tastes, no duplicates, at least one
	Arrival  int   // index of the first event that may be theirs
	Aimed    float64
	Inside   float64
	Outside  float64
	Hazard   float64 // chance per own event of changing all tastes
	Reliable float64 // chance that an answer follows taste; else it is that of a coin
	Since    int     // own events since the tastes changed, or ever
}

// Likes says whether an item of taste t is one of the person's.
func (p *Person) Likes(t int) bool { return slices.Contains(p.Liked, t) }

// Validate names the first field that no world can be made of.
func (s Shape) Validate() error {
	for _, f := range []struct {
		name       string
		value, min int
	}{{"items", s.Items, 1}, {"fresh", s.Fresh, 0}, {"people", s.People, 1}, {"events", s.Events, 0}, {"dim", s.Dim, 1}, {"tastes", s.Tastes, 1}} {
		if f.value < f.min {
			return fmt.Errorf("%s: %d is below %d", f.name, f.value, f.min)
		}
	}
	if s.MinLiked < 1 || s.MaxLiked < s.MinLiked || s.MaxLiked > s.Tastes {
		return fmt.Errorf("liked: [%d, %d] is no range within [1, %d]", s.MinLiked, s.MaxLiked, s.Tastes)
	}
	for _, f := range []struct {
		name  string
		value float64
	}{{"arrival", s.Arrival}, {"aimed", s.Aimed}, {"inside", s.Inside}, {"outside", s.Outside}, {"hazard", s.Hazard}, {"settled", s.Settled}} {
		if !(f.value >= 0 && f.value <= 1) {
			return fmt.Errorf("%s: %v is no share in [0, 1]", f.name, f.value)
		}
	}
	return nil
}

// newWorld makes the world of a shape, a law and what the law's catalogue made.
func newWorld(s Shape, seed uint64, l law, c catalogue) (*World, error) {
	w := &World{Shape: s, Seed: seed, Dim: len(c.items[0]), law: l, ItemsOf: make([][]int, s.Tastes), FreshOf: make([][]int, s.Tastes)}
	w.split(c)
	for t, of := range w.ItemsOf {
		if len(of) == 0 {
			return nil, fmt.Errorf("taste %d of %d has no item: take fewer tastes or more items", t, s.Tastes)
		}
	}
	w.People = make([]Person, s.People)
	for i := range w.People {
		w.People[i] = w.person(usePerson, i)
		w.People[i].Arrival = int(s.Arrival * float64(s.Events) * float64(i) / float64(s.People))
	}
	return w, nil
}

// split keeps a random part of the items out of the catalogue, but never the last of a taste.
func (w *World) split(c catalogue) {
	left := make([]int, w.Shape.Tastes)
	for _, t := range c.cells {
		left[t]++
	}
	fresh, kept := make([]bool, len(c.items)), 0
	for _, i := range random(w.Seed, useSplit, 0).Perm(len(c.items)) {
		if t := c.cells[i]; kept < w.Shape.Fresh && left[t] > 1 {
			fresh[i] = true
			left[t]--
			kept++
		}
	}
	for i, e := range c.items {
		t := c.cells[i]
		if fresh[i] {
			w.FreshOf[t] = append(w.FreshOf[t], len(w.Fresh))
			w.Fresh = append(w.Fresh, e)
		} else {
			w.ItemsOf[t] = append(w.ItemsOf[t], len(w.Items))
			w.Items, w.Cells = append(w.Items, e), append(w.Cells, t)
		}
	}
}

// person draws the i-th person of a use. The first taste goes round, so that each taste has its people.
func (w *World) person(use, i int) Person {
	s, rng := w.Shape, random(w.Seed, use, i)
	p := Person{
		ID: fmt.Sprintf("person-%05d", i), Aimed: s.Aimed, Inside: s.Inside, Outside: s.Outside, Hazard: s.Hazard, Reliable: 1,
	}
	if rng.Float64() < s.Settled {
		p.Hazard = 0
	}
	p.Liked = w.tastes(rng, i%s.Tastes, 0)
	if w.law.person != nil {
		w.law.person(&p, rng)
	}
	return p
}

// tastes draws what somebody likes, first among it; not are the tastes that are no choice as long as there are others.
func (w *World) tastes(rng *rand.Rand, first, n int) []int {
	if n == 0 {
		n = w.Shape.MinLiked + rng.IntN(w.Shape.MaxLiked-w.Shape.MinLiked+1)
	}
	liked := []int{first}
	for _, t := range rng.Perm(w.Shape.Tastes) {
		if len(liked) == n {
			break
		}
		if t != first {
			liked = append(liked, t)
		}
	}
	return liked
}

// change gives p other tastes: as few of the old ones as can be.
func (w *World) change(p *Person, rng *rand.Rand) {
	old := p.Liked
	n := w.Shape.MinLiked + rng.IntN(w.Shape.MaxLiked-w.Shape.MinLiked+1)
	p.Liked, p.Since = nil, 0
	order := rng.Perm(w.Shape.Tastes)
	for _, again := range []bool{false, true} {
		for _, t := range order {
			if len(p.Liked) < n && slices.Contains(old, t) == again {
				p.Liked = append(p.Liked, t)
			}
		}
	}
}

// shown is the probability that an impression of p shows an item of taste t.
func (w *World) shown(p *Person, t int) float64 {
	q := (1 - p.Aimed) * float64(len(w.ItemsOf[t])) / float64(len(w.Items))
	if p.Likes(t) {
		q += p.Aimed / float64(len(p.Liked))
	}
	return q
}

// Mixture is the distribution over tastes of the strong likes that p gives, [Tastes].
func (w *World) Mixture(p *Person) []float64 {
	m, sum := make([]float64, w.Shape.Tastes), 0.
	for t := range m {
		m[t] = w.shown(p, t) * w.law.strong(p, t)
		sum += m[t]
	}
	for t := range m {
		if sum > 0 {
			m[t] /= sum
		} else {
			m[t] = w.shown(p, t) // nobody likes anything: what is shown
		}
	}
	return m
}

// BaseRate is the share of pairs of person and item in which the person likes the item's taste.
func (w *World) BaseRate() float64 {
	n := 0
	for i := range w.People {
		for _, t := range w.People[i].Liked {
			n += len(w.ItemsOf[t])
		}
	}
	return float64(n) / float64(len(w.People)*len(w.Items))
}

// Uses of randomness, each with its own streams, so that none shifts another.
const (
	useItems = iota + 1
	useSplit
	usePerson
	useStream
	useVisitor
	useLife
	useTruth
	useControl
	useYardstick
	useOracle
	useForecast
	useLoop
)

// random returns the source of (seed, use, i).
func random(seed uint64, use, i int) *rand.Rand {
	x := uint64(use)*0xd1b54a32d192ed03 + uint64(i)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9 // SplitMix64's finalizer spreads neighbours
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return rand.New(rand.NewPCG(seed, x^x>>31))
}
