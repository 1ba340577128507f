package eval

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"rebeca/table"
)

// Ages of visitors, in events, at which they are asked; the last has a full window.
var newcomerAges = []int{1, 2, 5, 10, 20}

// Events after a change of all tastes at which those who moved are asked.
var movedAges = []int{0, 5, 10, 20, 40}

// fullLife is the number of events that fills a window, older likes included, for nearly everybody.
const fullLife = 60

// group is people who are scored together.
type group struct {
	name     string
	subjects []Subject
	samples  int    // of each
	note     string // why nobody can be asked
}

// visitors says whether the group is of people of no stream.
func (g *group) visitors() bool { return len(g.subjects) > 0 && g.subjects[0].Index < 0 }

// visitors are people of the world's law who take no part in the stream, at several ages: first as newcomers, then with full windows,
// then after a change of all their tastes. Nobody trains on them.
func visitors(w *World, rules table.Rules, o Options) (groups []group, err error) {
	h, err := openHouse(w, rules)
	if err != nil {
		return nil, err
	}
	defer func() {
		if e := h.close(); err == nil {
			err = e
		}
	}()
	c := &crowd{house: h, rng: random(w.Seed, useLife, 0), hazard: w.Shape.Hazard, settled: w.Shape.Settled}
	for i := range o.Visitors {
		c.people = append(c.people, w.person(useVisitor, i))
		c.people[i].ID = fmt.Sprintf("visitor-%05d", i)
	}
	return c.groups(o)
}

// crowd is visitors on their way.
type crowd struct {
	house           *house
	people          []Person
	rng             *rand.Rand
	hazard, settled float64 // what an oracle may expect
}

func (c *crowd) groups(o Options) (groups []group, err error) {
	few := min(o.Asked, len(c.people))
	ask := func(kind string, ages []int, n, samples int) error {
		age := 0
		for _, to := range ages {
			if err := c.live(n, to-age); err != nil {
				return err
			}
			age = to
			g, err := c.group(fmt.Sprintf(kind, to), n, samples)
			if err != nil {
				return err
			}
			groups = append(groups, g)
		}
		return nil
	}
	if err := ask("new_%d", newcomerAges, len(c.people), o.FewSamples); err != nil {
		return nil, err
	}
	if err := c.live(few, fullLife-slices.Max(newcomerAges)); err != nil {
		return nil, err
	}
	full, err := c.group("full", few, o.Samples)
	if err != nil {
		return nil, err
	}
	groups = append(groups, full)
	for i := range c.people {
		c.house.world.change(&c.people[i], c.rng)
		c.people[i].Hazard = 0 // one change at a time
	}
	c.hazard, c.settled = max(c.hazard, plantedHazard), 0
	err = ask("moved_%d", movedAges, few, o.FewSamples)
	return groups, err
}

// plantedHazard is what an oracle expects of people who are known to have changed all their tastes once.
const plantedHazard = 1. / 60

// live gives each of the first n people some events.
func (c *crowd) live(n, events int) error {
	var acts []act
	for i := range c.people[:n] {
		for range events {
			acts = append(acts, act{c.people[i].ID, c.house.world.act(&c.people[i], c.rng)})
		}
	}
	_, err := c.house.fold(acts)
	return err
}

// group is the first n people as they are.
func (c *crowd) group(name string, n, samples int) (group, error) {
	g := group{name: name, samples: samples}
	for _, p := range c.people[:n] {
		s, err := c.house.subject(p.ID, -1, p)
		if err != nil {
			return g, err
		}
		s.Hazard, s.Settled = c.hazard, c.settled
		g.subjects = append(g.subjects, s)
	}
	return g, nil
}
