package shapes

import (
	"fmt"
	"image"
	"math/rand/v2"
	"strings"
	"time"
)

// Item is a picture of the catalogue.
type Item struct {
	ID    string // stable: "red-heart-0007"
	Taste Taste  // what it shows
	Seed  uint64 // of its pose
}

// Image draws the picture; the same item gives the same pixels every time.
func (i Item) Image() *image.RGBA { return Render(i.Taste, i.Seed) }

// Person is somebody whose taste is known exactly.
type Person struct {
	ID      string        // stable: "person-017"
	Tastes  []Taste       // liked, no duplicates, at least one
	Arrival time.Duration // when the first impression may come
}

// Likes tells whether t is one of the person's tastes.
func (p Person) Likes(t Taste) bool {
	for _, liked := range p.Tastes {
		if liked == t {
			return true
		}
	}
	return false
}

// shared is the largest number of attributes t has in common with a liked taste.
func (p Person) shared(t Taste) int {
	best := 0
	for _, liked := range p.Tastes {
		best = max(best, liked.Shared(t))
	}
	return best
}

// World is a preset made concrete. It is immutable: safe for concurrent use.
type World struct {
	Preset Preset
	Items  []Item // in the order of the catalogue
	People []Person

	byTaste map[Taste][]int // indices into Items
}

// NewWorld makes the world of a preset. The catalogue depends on the preset alone, so
// that its embeddings can be kept; seed draws who likes what. More items or people
// leave the first ones as they were. It fails where [Preset.Validate] does.
func NewWorld(p Preset, seed uint64) (*World, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	w := &World{
		Preset:  p,
		Items:   make([]Item, p.Items),
		People:  make([]Person, p.People),
		byTaste: make(map[Taste][]int, len(p.Tastes)),
	}
	for i := range w.Items {
		t := p.Tastes[i%len(p.Tastes)]
		w.Items[i] = Item{
			ID:    fmt.Sprintf("%s-%s-%04d", t.Hue, t.Shape, i/len(p.Tastes)),
			Taste: t,
			Seed:  uint64(i),
		}
		w.byTaste[t] = append(w.byTaste[t], i)
	}
	for i := range w.People {
		w.People[i] = newPerson(p, seed, i)
	}
	return w, nil
}

// newPerson draws person i. The first taste goes round the tastes, so that each has
// its people in every world and the four people of the paper have one cell each.
func newPerson(p Preset, seed uint64, i int) Person {
	rng := rand.New(rand.NewPCG(seed, uint64(i)))
	n := p.MinTastes + rng.IntN(p.MaxTastes-p.MinTastes+1)
	first := i % len(p.Tastes)
	liked := []Taste{p.Tastes[first]}
	for _, k := range rng.Perm(len(p.Tastes)) {
		if len(liked) == n {
			break
		}
		if k != first {
			liked = append(liked, p.Tastes[k])
		}
	}
	return Person{
		ID:      fmt.Sprintf("person-%03d", i),
		Tastes:  liked,
		Arrival: p.Arrival * time.Duration(i) / time.Duration(p.People),
	}
}

// BaseRate is the share of pairs of person and item in which the person likes the
// item's taste: what a blind recommender would reach.
func (w *World) BaseRate() float64 {
	liked := 0
	for _, p := range w.People {
		for _, t := range p.Tastes {
			liked += len(w.byTaste[t])
		}
	}
	return float64(liked) / float64(len(w.People)*len(w.Items))
}

// Tastes lists the taste of every item, in the order of the catalogue.
func (w *World) Tastes() []Taste {
	tastes := make([]Taste, len(w.Items))
	for i, item := range w.Items {
		tastes[i] = item.Taste
	}
	return tastes
}

// TasteOf reads the taste back from the name of a picture such as "red-heart-0007";
// false for a name that is not of this form.
func TasteOf(itemID string) (Taste, bool) {
	hue, rest, _ := strings.Cut(itemID, "-")
	shape, _, ok := strings.Cut(rest, "-")
	t := Taste{Shape: shape, Hue: hue}
	_, known := ink(hue)
	return t, ok && known && outlineOf(shape) != nil
}
