package online

import (
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"rebeca/prior"
)

// plain is a catalogue of n items in the plane.
func plain(n int) *shop {
	s := &shop{items: map[string][]float32{}}
	rng := rand.New(rand.NewPCG(3, 3))
	for i := range n {
		s.add(fmt.Sprintf("%05d", i), []float32{float32(rng.NormFloat64()), float32(rng.NormFloat64())})
	}
	return s
}

func TestBallsAreNearestNeighbours(t *testing.T) {
	s := plain(1000)
	c := newCrowd(1, s.Len(), s.Each)
	sizes := map[int]bool{}
	for i := range 200 {
		b := c.regions.ball(i)
		sizes[len(b)] = true
		if len(b) < fewestInBall || float64(len(b)) > 1000*c.law.size.high {
			t.Fatalf("a ball of %d of 1000 items", len(b))
		}
		if !slices.IsSorted(b) || !slices.Equal(b, newCrowd(1, s.Len(), s.Each).regions.ball(i)) {
			t.Fatal("a ball is not the same when drawn again")
		}
		// Its centre is the member from which no outsider is nearer than the farthest member.
		isBall := func(centre int32) bool {
			far, nearest := 0.0, math.Inf(1)
			for k, it := range c.items {
				d := math.Hypot(float64(it.e[0]-c.items[centre].e[0]), float64(it.e[1]-c.items[centre].e[1]))
				if _, in := slices.BinarySearch(b, int32(k)); in {
					far = max(far, d)
				} else {
					nearest = min(nearest, d)
				}
			}
			return far <= nearest
		}
		if !slices.ContainsFunc(b, isBall) {
			t.Fatalf("ball %d is not the neighbourhood of any of its items", i)
		}
	}
	if len(sizes) < 30 {
		t.Errorf("only %d sizes in 200 balls", len(sizes))
	}
}

// TestPseudoUsersAnswerByTheirTaste holds rates of likes within and outside the
// balls against what was drawn.
func TestPseudoUsersAnswerByTheirTaste(t *testing.T) {
	s := plain(1000)
	c := newCrowd(1, s.Len(), s.Each)
	rng := stream(5, streamDraw, 0)
	for range 20 {
		p := c.draw(rng)
		p.weak = 0
		var in, inLiked, out, outLiked float64
		for range 6000 {
			item, class := p.event(rng)
			liked := class == prior.StrongPositive
			inside := slices.ContainsFunc(p.tastes, func(b []int32) bool { _, ok := slices.BinarySearch(b, item); return ok })
			n, l := &out, &outLiked
			if inside {
				n, l = &in, &inLiked
			}
			*n++
			if liked {
				*l++
			}
		}
		// Five standard deviations of a binomial.
		if sd := math.Sqrt(.25 / in); math.Abs(inLiked/in-p.inside) > 5*sd {
			t.Errorf("inside liked %.3f, drawn was %.3f", inLiked/in, p.inside)
		}
		if sd := math.Sqrt(.11 / out); math.Abs(outLiked/out-p.outside) > 5*sd {
			t.Errorf("outside liked %.3f, drawn was %.3f", outLiked/out, p.outside)
		}
		if in/6000 < p.aimed-5*math.Sqrt(.25/6000) {
			t.Errorf("%.3f of the impressions lie inside, %.3f are aimed", in/6000, p.aimed)
		}
	}
}

// TestPseudoUsersChange has people of one taste who like all of it and nothing
// else: without a hazard a life is of one ball, with one of several, and what
// comes next is always of one.
func TestPseudoUsersChange(t *testing.T) {
	s := plain(1000)
	for _, changing := range []float64{0, 1} {
		c := newCrowd(1, s.Len(), s.Each)
		c.law.tastes, c.law.aimed, c.law.inside = 1, span{1, 1}, span{1, 1}
		c.regions.size, c.regions.weights = span{.02, .02}, ballsOnly()
		c.law.weak, c.law.long, c.law.partly, c.law.changing, c.law.hazard = 0, 1, 0, changing, span{.2, .2}
		// 20 nearest neighbours of 1000 standard normal points: most pairs of balls have nothing in common.
		inOne := func(entries []Entry) bool {
			for i := range crowdBalls {
				all := true
				for _, e := range entries {
					k := slices.IndexFunc(c.items, func(l listed) bool { return l.id == e.ItemID })
					if _, in := slices.BinarySearch(c.regions.ball(i), int32(k)); !in {
						all = false
						break
					}
				}
				if all {
					return true
				}
			}
			return false
		}
		settled := 0
		const lives = 20
		for i := range int64(lives) {
			l, next := c.life(stream(1, streamDraw, i), 8, 4, 4, 4)
			if !inOne(next) {
				t.Fatalf("changing %v: what comes next is of several tastes", changing)
			}
			if inOne(slices.Concat(l.newest, l.older, next)) {
				settled++
			}
		}
		if changing == 0 && settled != lives || changing == 1 && settled > lives/4 {
			t.Errorf("changing %v: %d of %d lives are of one taste", changing, settled, lives)
		}
	}
}

func TestPseudoWindows(t *testing.T) {
	s := plain(400)
	c := newCrowd(1, s.Len(), s.Each)
	full, withOlder := 0, 0
	for i := range int64(2000) {
		l, next := c.life(stream(1, streamDraw, i), 28, 24, 8, 4)
		for _, e := range next {
			same := func(o Entry) bool { return o.ItemID == e.ItemID }
			if slices.ContainsFunc(l.newest, same) || slices.ContainsFunc(l.older, same) || e.Older || heldOut(e.EventHash) {
				t.Fatalf("target %+v of a window that holds it", e)
			}
		}
		if len(l.newest) < 1 || len(l.newest) > 28 || len(l.older) > 24 || len(l.newest) < 28 && len(l.older) > 0 {
			t.Fatalf("a window of %d newest and %d older", len(l.newest), len(l.older))
		}
		for _, e := range l.newest {
			if e.Older || e.Class == prior.ClassNone || heldOut(e.EventHash) {
				t.Fatalf("entry %+v among the newest", e)
			}
		}
		for _, e := range l.older {
			if !e.Older || e.Class != prior.StrongPositive {
				t.Fatalf("entry %+v among the older likes", e)
			}
		}
		if len(l.newest) == 28 {
			full++
		}
		if len(l.older) > 0 {
			withOlder++
		}
	}
	if full < 1130 || full > 1330 || withOlder < 1000 { // .614 of 2000 and five standard deviations
		t.Errorf("%d of 2000 windows are full, %d have older likes", full, withOlder)
	}
}

// TestPseudoContexts draws batches with and without people.
func TestPseudoContexts(t *testing.T) {
	w := fullTown(6, liked)
	d := newDrawer(DefaultConfig(), smallPrior(), w, w.shop)
	d.crowd = newCrowd(1, w.shop.Len(), w.shop.Each)
	n := d.prior.Contexts
	b, tally, err := d.batchOf(stream(1, streamDraw, 0), w.newest(4), n/4)
	if err != nil || tally.Pseudo != n/4 || tally.Fresh == 0 || tally.Fresh+tally.Pseudo+tally.Replayed != n || len(b.Contexts) != n {
		t.Errorf("%d fresh, %d pseudo, %d replayed of %d contexts: %v", tally.Fresh, tally.Pseudo, tally.Replayed, n, err)
	}
	invented := 0
	for _, g := range b.Targets {
		if tally.Fresh <= g.Context && g.Context < tally.Fresh+tally.Pseudo {
			invented++
		}
	}
	if tally.PseudoTargets != invented || invented == 0 || tally.Targets != len(b.Targets) {
		t.Errorf("%d of %d targets are said to be pseudo-users', %d of %d are", tally.PseudoTargets, tally.Targets, invented, len(b.Targets))
	}
	empty := newTown()
	empty.shop = w.shop
	d = newDrawer(DefaultConfig(), smallPrior(), empty, w.shop)
	d.crowd = newCrowd(1, w.shop.Len(), w.shop.Each)
	b, tally, err = d.batchOf(stream(1, streamDraw, 0), nil, 0)
	if err != nil || tally.Pseudo != n || len(b.Contexts) != n || len(b.Targets) < n {
		t.Errorf("nobody is there and %d of %d contexts are pseudo-users': %v", tally.Pseudo, n, err)
	}
	again := newDrawer(DefaultConfig(), smallPrior(), empty, w.shop)
	again.crowd = newCrowd(1, w.shop.Len(), w.shop.Each)
	c, _, err := again.batchOf(stream(1, streamDraw, 0), nil, 0)
	if err != nil || fmt.Sprint(*b) != fmt.Sprint(*c) {
		t.Error("the same seed draws other pseudo-users")
	}
}

// TestBornOfTheCatalogue has a catalogue and no event: version 1 comes, the
// rest of birth follows, then the trainer rests with everything announced; a
// restart does not repeat birth.
func TestBornOfTheCatalogue(t *testing.T) {
	cfg := quick()
	cfg.BirthSteps, cfg.PseudoShare = 12, .25
	w := newClusters(4, 8, 60)
	dir := t.TempDir()
	s := newStation(t, cfg, w, dir)
	s.CatalogueReady()
	s.run()
	await(t, "birth is over and told", func() bool { return s.last().Step == 12 })
	if first := s.heard()[0]; first.Step != int64(cfg.FirstSteps) {
		t.Errorf("version 1 is of step %d, expected %d", first.Step, cfg.FirstSteps)
	}
	birth := s.Status()
	if birth.Examples == 0 || birth.Pseudo != birth.Examples {
		t.Errorf("%d of the %d examples of birth are of pseudo-users", birth.Pseudo, birth.Examples)
	}
	s.push(w.events(128, 8))
	await(t, "the events are known", func() bool { st := s.Status(); return st.Events == 128 && s.last().Step == 12+4 })
	if st := s.Status(); st.Pseudo <= birth.Pseudo || st.Pseudo-birth.Pseudo >= st.Examples-birth.Examples {
		t.Errorf("%d of %d examples of the rounds are of pseudo-users", st.Pseudo-birth.Pseudo, st.Examples-birth.Examples)
	}
	s.stop()

	s = newStation(t, cfg, w, dir)
	s.CatalogueReady()
	s.run()
	await(t, "the version is told again", func() bool { return len(s.heard()) > 0 })
	s.push(w.events(64, 8))
	await(t, "more is known", func() bool { return s.last().Step == 16+2 })
	s.stop()
	if st, err := prior.LoadState(s.last().URI); err != nil || st.Step != 18 {
		t.Errorf("the last version is of step %d: %v", st.Step, err)
	}
}

// TestBirthHasItsOwnRates holds both schedules: birth's falls over its own
// steps and uses up nothing of the stream's, whose peak it lowers as it goes on.
func TestBirthHasItsOwnRates(t *testing.T) {
	w := newClusters(1, 3, 60)
	cfg := DefaultConfig()
	cfg.BirthSteps = 700
	tr := newTrainer(cfg, smallPrior(), w, w.shop, t.TempDir(), nil, nil, nil)
	peak := int64(cfg.Warmup)
	near := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > .02*want {
			t.Errorf("%s: the rate is %v, expected %v", what, got, want)
		}
	}
	near("unborn", tr.rate(peak), cfg.LR)
	near("the peak of birth", tr.birthRate(peak), cfg.BirthLR)
	near("the end of birth", tr.birthRate(699), cfg.LRMin)
	tr.record.Birth = 350
	near("half way", tr.rate(350+peak), (cfg.LR+cfg.BornLR)/2)
	tr.record.Birth = 700
	near("the first step after birth", tr.rate(700), cfg.BornLR/float64(cfg.Warmup))
	near("born", tr.rate(700+peak), cfg.BornLR)
	near("the end of the stream's cosine", tr.rate(700+int64(cfg.DecaySteps)), cfg.LRMin)
	tr.cfg.BornLR = 0
	near("a rate below the lowest", tr.rate(700+peak), cfg.LRMin)
}

// TestSmallCatalogueIsNotBornAgain is born of events below MinItems; when the
// catalogue has grown, no step is on pseudo-users alone.
func TestSmallCatalogueIsNotBornAgain(t *testing.T) {
	cfg := quick()
	cfg.BirthSteps, cfg.MinItems = 50, 100
	w := newClusters(2, 8, 40)
	s := newStation(t, cfg, w, t.TempDir())
	s.CatalogueReady()
	s.run()
	s.push(w.events(64, 8))
	await(t, "version 1", func() bool { return s.last().Step == int64(cfg.FirstSteps) })
	for i := range 200 {
		w.addItem(1000 + i)
	}
	s.push(w.events(128, 8))
	await(t, "the events are known", func() bool { return s.Status().Events == 192 && s.last().Step == int64(cfg.FirstSteps)+4 })
	s.stop()
	if n := s.Status().Step; n != int64(cfg.FirstSteps)+4 {
		t.Errorf("%d steps were taken, the events are worth %d", n, cfg.FirstSteps+4)
	}
}

// widths notes the largest number of targets that a context has in each step.
type widths struct {
	learner
	most []int
}

func (w *widths) Step(b *prior.Batch, _ float64, _ *rand.Rand) (prior.StepStats, error) {
	counts, most := map[int]int{}, 0
	for _, t := range b.Targets {
		counts[t.Context]++
		most = max(most, counts[t.Context])
	}
	w.most = append(w.most, most)
	return prior.StepStats{Loss: 1}, nil
}

func (w *widths) Close() error { return nil }

// TestFirstStepsOfBirthAreQuick counts the targets of birth's steps: few before
// version 1, many after.
func TestFirstStepsOfBirthAreQuick(t *testing.T) {
	cfg := quick()
	cfg.FirstSteps, cfg.BirthSteps, cfg.BirthTargets = 2, 4, 9
	w := newClusters(4, 8, 400)
	tr := newTrainer(cfg, smallPrior(), w, w.shop, t.TempDir(), nil, slog.New(slog.DiscardHandler), nil)
	seen := &widths{}
	tr.learn = func(*prior.State) (learner, error) { return seen, nil }
	if err := tr.create(); err != nil {
		t.Fatal(err)
	}
	for range cfg.BirthSteps {
		if err := tr.birthStep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	few := smallPrior().Targets
	if want := []int{few, few, 9, 9}; !slices.Equal(seen.most, want) {
		t.Errorf("targets of a context by step: %v, expected %v", seen.most, want)
	}
}

// TestPartitionsCutTheCatalogue: every item lies in at most one cell, its own
// centre's, and cells are of very different sizes.
func TestPartitionsCutTheCatalogue(t *testing.T) {
	s := plain(1000)
	r := newCrowd(1, s.Len(), s.Each).regions
	fewest, most := len(r.items), 0
	for i := range crowdPartitions {
		cells := r.partition(i)
		if len(cells) == 0 {
			t.Fatalf("partition %d has no cell", i)
		}
		seen, means := map[int32]bool{}, make([][]float32, len(cells))
		for c, cell := range cells {
			fewest, most = min(fewest, len(cell)), max(most, len(cell))
			if len(cell) < fewestInBall || !slices.IsSorted(cell) {
				t.Fatalf("partition %d: cell %v", i, cell)
			}
			means[c] = make([]float32, 2)
			for _, k := range cell {
				if seen[k] {
					t.Fatalf("partition %d: item %d lies in two cells", i, k)
				}
				seen[k] = true
				for d, x := range r.items[k].e {
					means[c][d] += x / float32(len(cell))
				}
			}
		}
		// Cells are convex here: most items are nearest to the mean of their own.
		own := 0
		for c, cell := range cells {
			for _, k := range cell {
				if nearest([]listed{r.items[k]}, means)[0] == int32(c) {
					own++
				}
			}
		}
		if share := float64(own) / float64(len(seen)); share < .6 {
			t.Errorf("partition %d of %d cells: %.2f of the items are nearest to their own cell's mean", i, len(cells), share)
		}
		if !slices.EqualFunc(cells, newCrowd(1, s.Len(), s.Each).regions.partition(i), slices.Equal[[]int32]) {
			t.Fatalf("partition %d is not the same when drawn again", i)
		}
	}
	if fewest > 20 || most < 50 {
		t.Errorf("cells of %d to %d items", fewest, most)
	}
}

// TestTastesOfCellsDoNotOverlap: who has cells for tastes has them of one partition.
func TestTastesOfCellsDoNotOverlap(t *testing.T) {
	s := plain(1000)
	c := newCrowd(1, s.Len(), s.Each)
	c.regions.weights = slices.Clone(ballsOnly())
	for i := range c.regions.weights {
		c.regions.weights[i] = float64(i)
	}
	rng := stream(6, streamDraw, 0)
	for range 200 {
		p := c.draw(rng)
		for i, a := range p.tastes {
			for _, b := range p.tastes[:i] {
				if shared := slices.ContainsFunc(a, func(k int32) bool { _, in := slices.BinarySearch(b, k); return in }); shared && !slices.Equal(a, b) {
					t.Fatal("two cells of one person overlap")
				}
			}
		}
	}
}

// ballsOnly are running weights of which the balls have all.
func ballsOnly() []float64 {
	w := make([]float64, 1+crowdPartitions)
	for i := range w {
		w[i] = 1
	}
	return w
}
