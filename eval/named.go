package eval

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"rebeca/eval/shapes"
)

// kind is a sort of world: its usual sizes, where its items come from and its law.
type kind struct {
	shape   Shape
	preset  func() shapes.Preset // of pictures; nil for latents
	latents func(s Shape, seed uint64) (catalogue, error)
	law     func() law
}

// kinds are the worlds by name; a new one is an entry here.
func kinds() []kind {
	plain := func() law { return binary(nil) }
	demo := Shape{
		Name: "demo", Items: 12000, Fresh: 2400, People: 1000, Events: 60000, Dim: 16,
		Tastes: 24, MinLiked: 1, MaxLiked: 3, Arrival: .8, Aimed: .5, Inside: .95, Outside: .03,
	}
	return []kind{
		{shape: demo, preset: shapes.Demo, law: plain},
		// The published controlled study: four people, one of {heart, square} x {red, blue} each, uniform impressions.
		{shape: Shape{
			Name: "paper", Items: 4000, Fresh: 2000, People: 4, Events: 40000, Dim: 16, Tastes: 4, MinLiked: 1, MaxLiked: 1, Inside: .95, Outside: .01,
		}, preset: shapes.Paper, law: attributes},
		// Many small tastes that touch, people who like up to five of them and answer badly.
		{shape: demo.with("hard", func(s *Shape) {
			s.Items, s.Fresh, s.Tastes, s.MaxLiked, s.Aimed, s.Inside, s.Outside = 24000, 6000, 96, 5, .4, .85, .08
		}), latents: network, law: plain},
		// Three of four people change all their tastes, about once in 60 of their events.
		{shape: demo.with("drift", func(s *Shape) {
			s.Items, s.Fresh, s.Hazard, s.Settled = 24000, 6000, 1./60, .25
		}), latents: network, law: plain},
		// Views, clicks and ratings in the place of likes.
		{shape: demo.with("graded", func(s *Shape) {
			s.Items, s.Fresh, s.Inside, s.Outside = 24000, 6000, 1, 0
		}), latents: network, law: graded},
		// Nobody tunes on this one: other latents, other tastes and other people.
		{shape: demo.with("kept", func(s *Shape) {
			s.Items, s.Fresh, s.Tastes, s.MaxLiked, s.Hazard, s.Settled = 18000, 4000, 40, 6, 1./80, .6
		}), latents: waves, law: motley},
	}
}

func (s Shape) with(name string, change func(*Shape)) Shape {
	s.Name = name
	change(&s)
	return s
}

// attributes is the law of the published study: a like has probability .95, .10 and .01 where two, one and none of shape and hue are
// those of the liked taste.
func attributes() law {
	p := shapes.Paper()
	return binary(func(_ *Person, shown, liked int) float64 {
		if liked < 0 || liked >= len(p.Tastes) || shown >= len(p.Tastes) {
			return p.Like[0]
		}
		return p.Like[p.Tastes[shown].Shared(p.Tastes[liked])]
	})
}

// motley is likes and dislikes of people who differ in all that a shape holds fixed.
func motley() law {
	l := binary(nil)
	l.person = func(p *Person, rng *rand.Rand) {
		p.Aimed = .25 + .6*rng.Float64()
		p.Inside, p.Outside = .7+.28*rng.Float64(), .1*rng.Float64()*rng.Float64()
	}
	return l
}

func kindOf(name string) (kind, error) {
	for _, k := range kinds() {
		if k.shape.Name == name {
			return k, nil
		}
	}
	return kind{}, fmt.Errorf("there is no world %q: it is one of %s", name, strings.Join(Names(), ", "))
}

// Names lists the worlds.
func Names() (names []string) {
	for _, k := range kinds() {
		names = append(names, k.shape.Name)
	}
	return names
}

// Named returns the usual sizes of a world; an unknown name is an error that lists the others.
func Named(name string) (Shape, error) {
	k, err := kindOf(name)
	return k.shape, err
}
