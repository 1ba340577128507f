package sampler

import (
	"fmt"
	"math"
	"slices"

	"rebeca/internal/nearest"
	"rebeca/prior"
)

// Choice says how one of several candidates is chosen for each image.
type Choice struct {
	// Copy and Given are in the catalogue's spacing, the usual distance of an item to the item nearest to it: a candidate that is nearer to
	// an item than Copy, or to what the person was given than Given, is taken only where all are; 0 takes any.
	Copy, Given float64
	Spread      float64 // weight of an even spread over the person's tastes, 0 to 1, against the ranker's score
}

// DefaultChoice leaves out what lies within half of the catalogue's spacing of an item or of what was given, and weighs spread and score alike.
func DefaultChoice() Choice { return Choice{Copy: .5, Given: .5, Spread: .5} }

// Validate names the first field that is out of range.
func (c Choice) Validate() error {
	for _, f := range []struct {
		name       string
		value, max float64
	}{{"copy", c.Copy, 10}, {"given", c.Given, 10}, {"spread", c.Spread, 1}} {
		if !(f.value >= 0 && f.value <= f.max) {
			return fmt.Errorf("%s: %v is not within 0 to %v", f.name, f.value, f.max)
		}
	}
	return nil
}

// Candidates are what one image is chosen from, and what is known of them; the slices of a length are of one order.
type Candidates struct {
	Embeddings [][]float32 // at least one
	Scores     []float64   // a ranker's; nil for none
	Near       []float64   // distance of each to the nearest item of the catalogue; nil for an empty one
	Spacing    float64     // the catalogue's; 0 is unknown: nothing is a copy
	// Window is the person's, and Label what the image should be to them.
	Window prior.Context
	Label  prior.Class
	Given  [][]float32 // what the person was given before, the newest first
}

// Verdict is what became of a choice.
type Verdict struct {
	Place  int // of the candidate chosen
	Copies int // candidates that were left out as copies of items
	Given  int // and as copies of what was given, if they were not the former
}

// Stale reports whether no candidate was novel, so that the one chosen is not either.
func (v Verdict) Stale(candidates int) bool { return v.Copies+v.Given == candidates }

// Choose takes, among the candidates that are novel, the one with the greatest
//
//	(1-spread)·score + spread·herding,      each moved and scaled to 0..1 over those candidates
//
// where herding is a step of kernel herding (Chen, Welling & Smola 2010), the greedy way to make what a person gets follow the
// distribution of what they like: h(x) = Σ_l w_l k(x, l) - Σ_g k(x, g)/(n+1) over the window's entries l of the label's side and the n
// things given g. A taste that was served little has the greater first part and the smaller second. w falls with an entry's rank as the
// draw of anchors does; k is Gaussian, as wide as the person's likes lie apart. Where none is novel it is the candidate that comes nearest
// to being so. The first of equals is taken: the same candidates give the same choice.
func (c Choice) Choose(of Candidates) Verdict {
	var v Verdict
	n := len(of.Embeddings)
	margin := make([]float64, n)
	var novel []int
	for i, x := range of.Embeddings {
		item, given := math.Inf(1), math.Inf(1)
		if limit := c.Copy * of.Spacing; limit > 0 && of.Near != nil {
			item = of.Near[i] / limit
		}
		if limit := c.Given * of.Spacing; limit > 0 {
			given = closest(x, of.Given) / limit
		}
		switch margin[i] = min(item, given); {
		case item < 1:
			v.Copies++
		case given < 1:
			v.Given++
		default:
			novel = append(novel, i)
		}
	}
	if len(novel) == 0 {
		v.Place = first(margin)
		return v
	}
	worth := make([]float64, len(novel))
	if of.Scores != nil {
		add(worth, 1-c.Spread, func(k int) float64 { return of.Scores[novel[k]] })
	}
	if h := newHerd(of); c.Spread > 0 {
		add(worth, c.Spread, func(k int) float64 { return h.worth(of.Embeddings[novel[k]], of.Given) })
	}
	v.Place = novel[first(worth)]
	return v
}

// first is the place of the greatest value, the first of equals.
func first(values []float64) int { return slices.Index(values, slices.Max(values)) }

// add adds weight times the values, moved and scaled to 0..1; values that are all the same add nothing.
func add(dst []float64, weight float64, value func(int) float64) {
	values := make([]float64, len(dst))
	for k := range values {
		values[k] = value(k)
	}
	low, high := slices.Min(values), slices.Max(values)
	if !(high > low) {
		return
	}
	for k, v := range values {
		dst[k] += weight * (v - low) / (high - low)
	}
}

// closest is the distance of x to the nearest of some vectors; +Inf for none.
func closest(x []float32, of [][]float32) float64 {
	best := math.Inf(1)
	for _, y := range of {
		best = min(best, nearest.Square(x, y))
	}
	return math.Sqrt(best)
}

// herd is the kernel mean of what a person likes, or dislikes.
type herd struct {
	entries [][]float32
	weights []float64 // add up to 1
	width   float64   // 2·(width of the kernel)²; 0: there is nothing to tell by
}

// herdDecay is the decay of weights with rank, that of [DefaultOptions]' anchor: recency is what leaves an old taste alone.
const herdDecay = 8

func newHerd(of Candidates) herd {
	var h herd
	rank, total := 0, 0.
	positive := of.Label == prior.ClassNone || of.Label.Positive()
	for _, e := range of.Window {
		if e.Class.Positive() == positive {
			w := math.Exp(-float64(rank) / herdDecay)
			h.entries, h.weights, total = append(h.entries, e.Item), append(h.weights, w), total+w
		}
		if !e.Older {
			rank++
		}
	}
	for i := range h.weights {
		h.weights[i] /= total
	}
	apart := 0.
	if len(h.entries) > 1 {
		near := make([]float64, len(h.entries))
		for i, x := range h.entries {
			near[i] = closest(x, slices.Concat(h.entries[:i], h.entries[i+1:]))
		}
		slices.Sort(near)
		apart = near[len(near)/2] // of one taste: most likes have another of theirs nearest
	}
	width := max(1.5*apart, of.Spacing)
	h.width = 2 * width * width
	return h
}

func (h herd) worth(x []float32, given [][]float32) float64 {
	if h.width == 0 {
		return 0
	}
	s := 0.
	for i, l := range h.entries {
		s += h.weights[i] * math.Exp(-nearest.Square(x, l)/h.width)
	}
	for _, g := range given {
		s -= math.Exp(-nearest.Square(x, g)/h.width) / float64(len(given)+1)
	}
	return s
}
