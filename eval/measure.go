package eval

import (
	"math"
	"math/rand/v2"
	"runtime"

	"golang.org/x/sync/errgroup"
)

// Measures are what a group's samples score, by name: see [yardstick.score]. A measure that cannot be taken is not there; none is NaN.
type Measures map[string]float64

// yardstick scores samples by a world's truth.
type yardstick struct {
	world *World
	items *index
	near  float64 // mean distance of a fresh item to the nearest of the catalogue
	taste float64 // mean distance of two items of one taste
	scale float64 // standard deviation of the catalogue over all dimensions

	// Fresh items by taste, in two parts: what people truly like is drawn from the one, what marks and oracles show from the other. Of one
	// pool both would hold the same items now and then, and a floor of W2² would be too low.
	truth, shown [][]int
	// inner are those shown whose nearest item of the catalogue is of their own taste, as [yardstick.person] counts it; where tastes touch
	// others are not.
	inner [][]int
}

// probes bounds the items that the units of distance are taken from.
const probes = 2048

func newYardstick(w *World) (*yardstick, error) {
	rng := random(w.Seed, useYardstick, 0)
	items, err := newIndex(w.Items, rng)
	if err != nil {
		return nil, err
	}
	y := &yardstick{world: w, items: items}
	var pairs, near []float64
	for _, x := range w.Fresh[:min(len(w.Fresh), probes)] {
		_, d := items.nearest(x)
		near = append(near, d)
	}
	y.near = mean(near)
	for range probes {
		of := w.ItemsOf[w.Cells[rng.IntN(len(w.Items))]]
		if a, b := of[rng.IntN(len(of))], of[rng.IntN(len(of))]; a != b {
			pairs = append(pairs, distance(w.Items[a], w.Items[b]))
		}
	}
	y.taste, y.scale = mean(pairs), deviation(w.Items)
	y.part()
	return y, nil
}

// part divides the fresh items of every taste; of an odd one what is liked gets more.
func (y *yardstick) part() {
	for t, of := range y.world.FreshOf {
		half := (len(of) + 1) / 2
		y.truth, y.shown = append(y.truth, of[:half]), append(y.shown, of[half:])
		var inner []int
		for _, i := range of[half:] {
			if at, _ := y.items.nearest(y.world.Fresh[i]); at >= 0 && y.world.Cells[at] == t {
				inner = append(inner, i)
			}
		}
		y.inner = append(y.inner, inner)
	}
}

// truth is what a person truly likes.
type truth struct {
	mixture []float64   // of their likes over tastes
	likes   [][]float32 // fresh ones
}

// fresh draws n real likes that are in no catalogue, from some of the fresh items by taste; of a taste without any, items of the catalogue.
func (w *World) fresh(some [][]int, mixture []float64, n int, rng *rand.Rand) (out [][]float32) {
	for range n {
		t := choose(mixture, rng)
		if of := some[t]; len(of) > 0 {
			out = append(out, w.Fresh[of[rng.IntN(len(of))]])
		} else {
			of := w.ItemsOf[t]
			out = append(out, w.Items[of[rng.IntN(len(of))]])
		}
	}
	return out
}

// truths draws what is true of the subjects of a group; the same group gives the same.
func (y *yardstick) truths(g group) []truth {
	out := make([]truth, len(g.subjects))
	for i := range out {
		rng := random(y.world.Seed^hash(g.name), useTruth, i)
		m := y.world.Mixture(&g.subjects[i].Person)
		out[i] = truth{m, y.world.fresh(y.truth, m, g.samples, rng)}
	}
	return out
}

// score takes every measure of samples [subject][sample][Dim] and returns the means over subjects:
//
//	p          share of samples whose nearest item shows a liked taste (p_se: its standard error over people)
//	cov        share of liked tastes that get at least a quarter of a fair share of the samples
//	tv         total variation between the samples' tastes and the true mixture of the person's likes
//	catalogue  distance to the nearest item, in that of fresh items: a fresh item has 1, a copy 0
//	own        distance to the nearest like of the window, in the mean distance of two items of one taste
//	w2         W2² between the samples and fresh real likes, in squared deviations of the catalogue
//	diversity  mean distance between two samples of a person, in the mean distance of two items of one taste
func (y *yardstick) score(g group, truths []truth, samples [][][]float32) Measures {
	each := make([]Measures, len(samples))
	var all errgroup.Group
	all.SetLimit(runtime.GOMAXPROCS(0))
	for i, s := range samples {
		all.Go(func() error {
			if len(s) > 0 {
				each[i] = y.person(&g.subjects[i], &truths[i], s)
			}
			return nil
		})
	}
	_ = all.Wait() // none returns one
	sums := map[string][]float64{}
	for _, m := range each {
		for name, v := range m {
			if !math.IsNaN(v) && !math.IsInf(v, 0) {
				sums[name] = append(sums[name], v)
			}
		}
	}
	m := Measures{}
	for name, v := range sums {
		m[name] = mean(v)
	}
	if v := sums["p"]; len(v) > 1 {
		m["p_se"] = standardError(v)
	}
	return m
}

// person takes every measure of one person's samples; one that cannot be taken is not a number.
func (y *yardstick) person(s *Subject, t *truth, samples [][]float32) Measures {
	m := Measures{}
	got := make([]float64, y.world.Shape.Tastes)
	far := make([]float64, len(samples))
	for k, x := range samples {
		at, d := y.items.nearest(x)
		if at >= 0 {
			got[y.world.Cells[at]] += 1 / float64(len(samples))
		}
		far[k] = d / y.near
	}
	m["catalogue"] = mean(far)
	for k, share := range got {
		m["tv"] += math.Abs(share-t.mixture[k]) / 2
	}
	liked := float64(len(s.Person.Liked))
	for _, k := range s.Person.Liked {
		m["p"] += got[k]
		if 4*liked*got[k] >= 1-1e-9 {
			m["cov"] += 1 / liked
		}
	}
	if _, ok := m["cov"]; !ok {
		m["cov"] = 0
	}
	m["w2"] = wasserstein(samples, t.likes[:len(samples)]) / (y.scale * y.scale * float64(y.world.Dim))
	m["diversity"] = spread(samples) / y.taste
	if likes := s.Likes(); len(likes) > 0 {
		for k, x := range samples {
			near := math.Inf(1)
			for _, l := range likes {
				near = min(near, square(x, y.world.Items[l]))
			}
			far[k] = math.Sqrt(near) / y.taste
		}
		m["own"] = mean(far)
	}
	return m
}

// spread is the mean distance of two of the samples; NaN for fewer than two.
func spread(s [][]float32) float64 {
	sum, n := 0., 0
	for i := range s {
		for j := range i {
			sum += distance(s[i], s[j])
			n++
		}
	}
	return sum / float64(n)
}

func distance(a, b []float32) float64 { return math.Sqrt(square(a, b)) }

func mean(v []float64) float64 {
	s := 0.
	for _, x := range v {
		s += x
	}
	return s / float64(len(v))
}

func standardError(v []float64) float64 {
	m, s := mean(v), 0.
	for _, x := range v {
		s += (x - m) * (x - m)
	}
	return math.Sqrt(s / float64(len(v)-1) / float64(len(v)))
}

// deviation is the standard deviation over all dimensions about the mean of each.
func deviation(items [][]float32) float64 {
	s, n := 0., 0
	for d := range items[0] {
		m := 0.
		for _, e := range items {
			m += float64(e[d]) / float64(len(items))
		}
		for _, e := range items {
			s += (float64(e[d]) - m) * (float64(e[d]) - m)
			n++
		}
	}
	return math.Sqrt(s / float64(n))
}

// choose draws an index by weight; the weights add up to 1.
func choose(weights []float64, rng *rand.Rand) int {
	x, last := rng.Float64(), 0
	for i, w := range weights {
		if w > 0 {
			last = i
			if x -= w; x < 0 {
				return i
			}
		}
	}
	return last
}

// hash is FNV-1a: names give seeds.
func hash(name string) uint64 {
	h := uint64(0xcbf29ce484222325)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 0x100000001b3
	}
	return h
}
