package shapes

import (
	"fmt"
	"time"
)

// Preset says which tastes a world has, how large it is and how its people answer.
// Start from [Paper] or [Demo] and change the sizes.
type Preset struct {
	Name   string
	Tastes []Taste // what exists; item i shows Tastes[i mod len]
	Items  int     // pictures in the catalogue
	People int

	MinTastes, MaxTastes int           // how many tastes a person likes, uniform between the two
	Arrival              time.Duration // people arrive evenly over this time, the first at 0

	// Like is the probability of a like by the number of attributes, 0 to 2, that the
	// item shares with the best matching taste of the person.
	Like    [3]float64
	Dislike float64 // share of dislikes among answers that are no likes; the rest are skips
	Aimed   float64 // share of impressions that show an item of a liked taste; the rest is uniform
}

// Paper is the controlled setting of the paper: {heart, square} x {red, blue}, four
// people with one favourite each, likes with probability .95, .10 and .01 when two,
// one and none of the attributes match, uniform impressions. 2,000 items.
func Paper() Preset {
	return Preset{
		Name:      "paper",
		Tastes:    cross([]string{Heart, Square}, []string{Red, Blue}),
		Items:     2000,
		People:    4,
		MinTastes: 1, MaxTastes: 1,
		Like:    [3]float64{.01, .10, .95},
		Dislike: .5,
	}
}

// Demo is the richer world: 4 shapes x 6 hues = 24 tastes, 240 people who like 1 to 3
// of them and arrive over 30 s, likes with probability .95 for a liked taste and .03
// for any other, half of the impressions aimed. 3,600 items, 150 a taste.
func Demo() Preset {
	return Preset{
		Name:      "demo",
		Tastes:    cross([]string{Heart, Square, Star, Ring}, []string{Red, Yellow, Green, Cyan, Blue, Magenta}),
		Items:     3600,
		People:    240,
		MinTastes: 1, MaxTastes: 3,
		Arrival: 30 * time.Second,
		Like:    [3]float64{.03, .03, .95},
		Dislike: .5,
		Aimed:   .5,
	}
}

// Validate names the first field that no world can be made of.
func (p Preset) Validate() error {
	for _, t := range p.Tastes {
		if _, ok := ink(t.Hue); !ok || outlineOf(t.Shape) == nil {
			return fmt.Errorf("preset %s: tastes: %q is not one of the shapes and hues of this world", p.Name, t)
		}
	}
	switch {
	case len(p.Tastes) == 0:
		return fmt.Errorf("preset %s: tastes: need at least one", p.Name)
	case p.Items < len(p.Tastes):
		return fmt.Errorf("preset %s: items: %d are fewer than the %d tastes", p.Name, p.Items, len(p.Tastes))
	case p.People < 1:
		return fmt.Errorf("preset %s: people: %d, need at least 1", p.Name, p.People)
	case p.MinTastes < 1 || p.MaxTastes < p.MinTastes || p.MaxTastes > len(p.Tastes):
		return fmt.Errorf("preset %s: tastes per person: [%d, %d] is no range within [1, %d]", p.Name, p.MinTastes, p.MaxTastes, len(p.Tastes))
	case p.Arrival < 0:
		return fmt.Errorf("preset %s: arrival: %v is negative", p.Name, p.Arrival)
	}
	for _, share := range []struct {
		name  string
		value float64
	}{{"like[0]", p.Like[0]}, {"like[1]", p.Like[1]}, {"like[2]", p.Like[2]}, {"dislike", p.Dislike}, {"aimed", p.Aimed}} {
		if !(share.value >= 0 && share.value <= 1) {
			return fmt.Errorf("preset %s: %s: %v is no share in [0, 1]", p.Name, share.name, share.value)
		}
	}
	return nil
}
