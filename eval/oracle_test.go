package eval

import (
	"math"
	"testing"

	"rebeca/prior"
	"rebeca/schemas"
)

// sets lists all sets of size tastes out of n.
func sets(n, size int) (out [][]int) {
	if size == 0 {
		return [][]int{nil}
	}
	for last := size - 1; last < n; last++ {
		for _, s := range sets(last, size-1) {
			out = append(out, append(append([]int(nil), s...), last))
		}
	}
	return out
}

// likelihood is that of the newest entries of a window under tastes that do not change.
func likelihood(w *World, s *Subject, liked []int, upTo int) float64 {
	p := s.Person
	p.Liked = liked
	q := 1.
	for _, e := range s.Window[:upTo] {
		t := w.Cells[e.Item]
		best := -1
		if p.Likes(t) {
			best = t
		}
		q *= w.shown(&p, t) * w.law.evidence(&p, t, best, e.Kind, e.Class)
	}
	return q
}

// TestOracleAgreesWithEnumeration holds the polynomials against the sum over all sets, with and without a change.
func TestOracleAgreesWithEnumeration(t *testing.T) {
	for _, hazard := range []float64{0, .1} {
		w := small(t, "hard", func(s *Shape) { s.Tastes, s.MaxLiked = 6, 3 })
		rng := random(3, useLife, 0)
		s := Subject{Person: w.person(useVisitor, 0), Hazard: hazard}
		for range 7 {
			e := w.act(&s.Person, rng)
			seen := Seen{Item: e.Item, Kind: e.Kind, Class: DefaultRecipe(w.Dim).Window.Classes.Of(feedback(act{"u", e}, &house{world: w, ids: make([]string, len(w.Items))}, 0))}
			s.Window = append([]Seen{seen}, s.Window...)
		}
		total := func(from, to int) (sum float64) { // evidence of Window[from:to] as one life
			part := s
			part.Window = s.Window[from:to]
			for size := w.Shape.MinLiked; size <= w.Shape.MaxLiked; size++ {
				all := sets(w.Shape.Tastes, size)
				for _, set := range all {
					sum += likelihood(w, &part, set, to-from) / float64(len(all)) / float64(w.Shape.MaxLiked-w.Shape.MinLiked+1)
				}
			}
			return sum
		}
		n := len(s.Window)
		var before func(from int) float64 // evidence of Window[from:], a change right before Window[from-1] given
		before = func(from int) float64 {
			sum := 0.
			for to := from + 1; to <= n; to++ {
				q := total(from, to) * math.Pow(1-hazard, float64(to-from-1))
				if to < n {
					q *= hazard * before(to)
				}
				sum += q // whether there was a change before them all does not matter: there are no older likes
			}
			return sum
		}
		want := make([]float64, w.Shape.Tastes)
		norm := 0.
		for to := 1; to <= n; to++ {
			stay := math.Pow(1-hazard, float64(to-1))
			rest := 1.
			if to < n {
				rest = hazard * before(to)
			}
			for size := w.Shape.MinLiked; size <= w.Shape.MaxLiked; size++ {
				all := sets(w.Shape.Tastes, size)
				for _, set := range all {
					q := stay * rest * likelihood(w, &s, set, to) / float64(len(all))
					norm += q
					for _, k := range set {
						want[k] += q
					}
				}
			}
		}
		post := w.believe(&s)
		for k, got := range post.marginals() {
			if math.Abs(got-want[k]/norm) > 1e-6 {
				t.Errorf("hazard %v, taste %d: %v by polynomials, %v by enumeration", hazard, k, got, want[k]/norm)
			}
		}
		counts := make([]float64, w.Shape.Tastes)
		const draws = 20000
		for range draws {
			for _, k := range post.draw(rng) {
				counts[k] += 1. / draws
			}
		}
		for k, got := range counts {
			if math.Abs(got-want[k]/norm) > .02 {
				t.Errorf("hazard %v, taste %d: drawn in %v of the cases, its probability is %v", hazard, k, got, want[k]/norm)
			}
		}
	}
}

// TestEvidenceIsALikelihood sums the answers of a world that a window can tell apart.
func TestEvidenceIsALikelihood(t *testing.T) {
	openRuntime(t)
	for _, name := range Names() {
		w := small(t, name, nil)
		p := &w.People[0]
		rules := DefaultRecipe(w.Dim).Window
		h := &house{world: w, ids: make([]string, len(w.Items))}
		type seen struct {
			kind  schemas.Kind
			class prior.Class
		}
		for _, liked := range []bool{true, false} {
			shown := p.Liked[0]
			if !liked {
				for shown = 0; p.Likes(shown); shown++ {
				}
			}
			counts := map[seen]float64{}
			strong, rng := 0., random(1, useLife, 9)
			const n = 40000
			for range n {
				kind, value := w.law.answer(p, shown, rng)
				class := rules.Classes.Of(feedback(act{"u", Event{Kind: kind, Value: value}}, h, 0))
				counts[seen{kind, class}] += 1. / n
				if class == prior.StrongPositive {
					strong += 1. / n
				}
			}
			for s, got := range counts {
				at := -1
				if liked {
					at = shown
				} else if name == "paper" {
					at = p.Liked[0]
				}
				if want := w.law.evidence(p, shown, at, s.kind, s.class); math.Abs(got-want) > .015 {
					t.Errorf("%s: %v answered with frequency %v, its likelihood is %v", name, s, got, want)
				}
			}
			if want := w.law.strong(p, shown); math.Abs(strong-want) > .015 {
				t.Errorf("%s: strong likes with frequency %v, said %v", name, strong, want)
			}
		}
	}
}
