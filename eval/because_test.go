package eval

import (
	"context"
	"log/slog"
	"testing"

	"rebeca/prior"
	"rebeca/sampler"
)

// TestTopEventIsTheImagesTaste: the like that an image is said to be owed to most shows the image's taste, on a prior born in some seconds.
// Counted are images that show a taste of the window at all: the others are the young prior's faults, and nothing could explain them.
func TestTopEventIsTheImagesTaste(t *testing.T) {
	openRuntime(t)
	w := small(t, "demo", func(s *Shape) { s.Items, s.People = 2400, 60 })
	recipe := quick(w)
	recipe.Prior.Hidden, recipe.Prior.Blocks = 48, 2
	recipe.Train.BirthSteps, recipe.Train.BirthTargets, recipe.Train.BirthLR = 250, 8, 4e-3
	h, err := openHouse(w, recipe.Window)
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	c, err := newRebeca(recipe, h, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Begin(context.Background()); err != nil {
		t.Fatal(err)
	}
	o := DefaultOptions()
	o.Visitors, o.Asked = 40, 40
	groups, err := visitors(w, recipe.Window, o)
	if err != nil {
		t.Fatal(err)
	}
	y, err := newYardstick(w)
	if err != nil {
		t.Fatal(err)
	}
	fromNoise := recipe.Sampler
	fromNoise.Anchor = sampler.Anchor{}
	for _, start := range []struct {
		name    string
		sampler sampler.Options
	}{{"from a like", recipe.Sampler}, {"from noise", fromNoise}} {
		for _, g := range groups {
			if g.name != "new_5" && g.name != "new_10" && g.name != "full" {
				continue
			}
			right, cases := 0, 0
			for i, s := range g.subjects {
				r, n := explained(t, c.model, start.sampler, y, &s, uint64(i))
				right, cases = right+r, cases+n
			}
			if cases < 40 || float64(right) < .8*float64(cases) {
				t.Errorf("%s, %s: the top event's taste is the image's in %d of %d cases", g.name, start.name, right, cases)
			}
		}
	}
}

// explained samples 4 images for a subject and counts those that show a taste of one of its likes, and those whose top like shows the same.
func explained(t *testing.T, m *prior.Model, o sampler.Options, y *yardstick, s *Subject, seed uint64) (right, cases int) {
	t.Helper()
	conds, err := m.Encode([]prior.Context{s.Context})
	if err != nil {
		t.Fatal(err)
	}
	jobs := make([]sampler.Job, 4)
	for k := range jobs {
		jobs[k] = sampler.Job{Cond: conds[0], Window: s.Context, Seed: 4*seed + uint64(k)}
	}
	images, err := sampler.Sample(m, o, jobs)
	if err != nil {
		t.Fatal(err)
	}
	shares, err := sampler.Attribute(m, o, jobs, images)
	if err != nil {
		t.Fatal(err)
	}
	for k, row := range shares {
		at, _ := y.items.nearest(images[k])
		taste, top, known := y.world.Cells[at], -1, false
		for e, v := range row {
			if s.Window[e].Class != prior.StrongPositive {
				continue
			}
			known = known || y.world.Cells[s.Window[e].Item] == taste
			if top < 0 || v > row[top] {
				top = e
			}
		}
		if !known {
			continue
		}
		cases++
		if y.world.Cells[s.Window[top].Item] == taste {
			right++
		}
	}
	return right, cases
}
