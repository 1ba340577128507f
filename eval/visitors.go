package eval

import (
	"fmt"

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
	type visitor struct {
		Person
		user string
	}
	all := make([]visitor, o.Visitors)
	for i := range all {
		p := w.person(useVisitor, i)
		all[i] = visitor{p, fmt.Sprintf("visitor-%05d", i)}
	}
	rng := random(w.Seed, useLife, 0)
	live := func(n, events int) error {
		var acts []act
		for i := range all[:n] {
			for range events {
				acts = append(acts, act{all[i].user, w.act(&all[i].Person, rng)})
			}
		}
		_, err := h.fold(acts)
		return err
	}
	ask := func(name string, n, samples int) error {
		g := group{name: name, samples: samples}
		for i := range all[:n] {
			s, err := h.subject(all[i].user, -1, all[i].Person)
			if err != nil {
				return err
			}
			s.Person.Liked = append([]int(nil), s.Person.Liked...)
			g.subjects = append(g.subjects, s)
		}
		groups = append(groups, g)
		return nil
	}
	age := 0
	for _, n := range newcomerAges {
		if err := live(len(all), n-age); err != nil {
			return nil, err
		}
		age = n
		if err := ask(fmt.Sprintf("new_%d", n), len(all), o.FewSamples); err != nil {
			return nil, err
		}
	}
	few := min(o.Asked, len(all))
	if err := live(few, fullLife-age); err != nil {
		return nil, err
	}
	if err := ask("full", few, o.Samples); err != nil {
		return nil, err
	}
	for i := range all {
		w.change(&all[i].Person, rng)
		all[i].Hazard = 0 // one change at a time
	}
	age = 0
	for _, n := range movedAges {
		if err := live(few, n-age); err != nil {
			return nil, err
		}
		age = n
		if err := ask(fmt.Sprintf("moved_%d", n), few, o.FewSamples); err != nil {
			return nil, err
		}
	}
	return groups, nil
}
