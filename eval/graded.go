package eval

import (
	"math/rand/v2"

	"rebeca/prior"
	"rebeca/schemas"
)

// channel is a way to answer in a world of many kinds of feedback.
type channel struct {
	share   float64
	answers []reply
}

// reply is an answer of a channel and how likely it is about an item that is liked and one that is not.
type reply struct {
	kind      schemas.Kind
	low, high float64 // the value lies between the two; without a value 0 and 0
	class     prior.Class
	yes, no   float64
}

// channels: views say little, clicks more, ratings much and likes the most. Classes are those of table.DefaultClasses.
var channels = []channel{
	{.50, []reply{
		{schemas.KindView, 10, 60, prior.WeakPositive, .65, .35},
		{schemas.KindView, 0, 9.9, prior.ClassNone, .35, .65},
	}},
	{.25, []reply{
		{schemas.KindClick, 0, 0, prior.WeakPositive, .75, .15},
		{schemas.KindSkip, 0, 0, prior.WeakNegative, .25, .85},
	}},
	{.18, []reply{
		{schemas.KindRating, 5, 5, prior.StrongPositive, .50, .03}, {schemas.KindRating, 4, 4, prior.StrongPositive, .36, .07},
		{schemas.KindRating, 3, 3, prior.WeakNegative, .09, .25},
		{schemas.KindRating, 2, 2, prior.StrongNegative, .03, .30}, {schemas.KindRating, 1, 1, prior.StrongNegative, .02, .35},
	}},
	{.07, []reply{
		{schemas.KindLike, 0, 0, prior.StrongPositive, .95, .02},
		{schemas.KindDislike, 0, 0, prior.StrongNegative, .05, .98},
	}},
}

// graded answers by channels. Some people's answers follow their taste less than others'.
func graded() law {
	return law{
		person: func(p *Person, rng *rand.Rand) { p.Reliable = .7 + .3*rng.Float64() },
		answer: func(p *Person, t int, rng *rand.Rand) (schemas.Kind, *float64) {
			likes := p.Likes(t)
			if rng.Float64() >= p.Reliable {
				likes = rng.Float64() < .5
			}
			c := channels[draw(rng, len(channels), func(i int) float64 { return channels[i].share })]
			r := c.answers[draw(rng, len(c.answers), func(i int) float64 { return c.answers[i].about(likes) })]
			if r.high == 0 {
				return r.kind, nil
			}
			v := r.low + (r.high-r.low)*rng.Float64()
			return r.kind, &v
		},
		strong: func(p *Person, t int) float64 {
			q := 0.
			for _, c := range channels {
				for _, r := range c.answers {
					if r.class == prior.StrongPositive {
						q += c.share * r.of(p, p.Likes(t))
					}
				}
			}
			return q
		},
		evidence: func(p *Person, t, liked int, kind schemas.Kind, class prior.Class) float64 {
			q := 0. // over the answers that look the same in a window
			for _, c := range channels {
				for _, r := range c.answers {
					if r.kind == kind && r.class == class {
						q += c.share * r.of(p, t == liked)
					}
				}
			}
			return q
		},
	}
}

func (r *reply) about(likes bool) float64 {
	if likes {
		return r.yes
	}
	return r.no
}

// of is the probability of the reply from p, who may not follow taste.
func (r *reply) of(p *Person, likes bool) float64 {
	return p.Reliable*r.about(likes) + (1-p.Reliable)*(r.yes+r.no)/2
}

// draw draws an index below n by weights that add up to 1.
func draw(rng *rand.Rand, n int, weight func(i int) float64) int {
	x := rng.Float64()
	for i := range n - 1 {
		if x -= weight(i); x < 0 {
			return i
		}
	}
	return n - 1
}
