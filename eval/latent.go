package eval

import (
	"fmt"
	"math"
	"math/rand/v2"

	"rebeca/eval/shapes"
)

// network makes a catalogue that nobody drew: a mixture of Gaussians in few dimensions, bent by a random two-layer network into the
// world's. Its tastes are the cells of k-means on the outcome, so they touch: what lies between two belongs to either by a hair.
func network(s Shape, seed uint64) (catalogue, error) {
	const (
		inner  = 6   // dimensions of the mixture
		hidden = 64  // units of the network
		blur   = .05 // of the outcome, in its deviation
	)
	rng := random(seed, useItems, 0)
	centres := matrix(rng, s.Tastes, inner, 1.2)
	widths := make([]float64, len(centres))
	for i := range widths {
		widths[i] = .25 + .5*rng.Float64()
	}
	first, bias, second := matrix(rng, hidden, inner, .7), matrix(rng, 1, hidden, .5)[0], matrix(rng, s.Dim, hidden, 1/math.Sqrt(hidden))
	items := make([][]float32, s.Items+s.Fresh)
	z, h := make([]float64, inner), make([]float64, hidden)
	for i := range items {
		c := rng.IntN(len(centres))
		for d := range z {
			z[d] = centres[c][d] + widths[c]*rng.NormFloat64()
		}
		for j := range h {
			h[j] = math.Tanh(dot(first[j], z) + bias[j])
		}
		items[i] = make([]float32, s.Dim)
		for d := range items[i] {
			items[i][d] = float32(dot(second[d], h) + blur*rng.NormFloat64())
		}
	}
	standardise(items)
	cells, err := kmeans(items, s.Tastes, rng)
	return catalogue{items, cells}, err
}

// waves makes a catalogue of another family, for the world that nobody tunes on: points on a torus under random waves, with noise of
// heavy tails. Its tastes are what lies nearest to random items, so they are of very unequal sizes.
func waves(s Shape, seed uint64) (catalogue, error) {
	const inner, harmonics = 3, 40
	rng := random(seed, useItems, 1)
	frequencies, phases := make([][]float64, harmonics), make([]float64, harmonics)
	for k := range frequencies {
		frequencies[k] = make([]float64, inner)
		for d := range frequencies[k] {
			frequencies[k][d] = float64(rng.IntN(5) - 2)
		}
		phases[k] = 2 * math.Pi * rng.Float64()
	}
	mix := matrix(rng, s.Dim, harmonics, 1/math.Sqrt(harmonics))
	items := make([][]float32, s.Items+s.Fresh)
	z, h := make([]float64, inner), make([]float64, harmonics)
	for i := range items {
		for d := range z {
			z[d] = 2 * math.Pi * math.Sqrt(rng.Float64()) // denser to one side
		}
		for k := range h {
			h[k] = math.Sin(dot(frequencies[k], z) + phases[k])
		}
		tail := .04 / math.Sqrt(max(rng.ExpFloat64()/2+rng.ExpFloat64()/2, .05)) // Student's t of 4 degrees of freedom, bounded
		items[i] = make([]float32, s.Dim)
		for d := range items[i] {
			items[i][d] = float32(dot(mix[d], h) + tail*rng.NormFloat64())
		}
	}
	standardise(items)
	anchors := make([][]float32, s.Tastes)
	if len(items) < s.Tastes {
		return catalogue{}, fmt.Errorf("%d items for %d tastes", len(items), s.Tastes)
	}
	for t, i := range rng.Perm(len(items))[:s.Tastes] {
		anchors[t] = items[i]
	}
	cells, err := assign(items, anchors)
	return catalogue{items, cells}, err
}

// matrix is rows vectors of independent normal numbers.
func matrix(rng *rand.Rand, rows, columns int, scale float64) [][]float64 {
	m := make([][]float64, rows)
	for i := range m {
		m[i] = make([]float64, columns)
		for j := range m[i] {
			m[i][j] = scale * rng.NormFloat64()
		}
	}
	return m
}

func dot(a, b []float64) (s float64) {
	for i := range a {
		s += a[i] * b[i]
	}
	return s
}

// kmeans returns the cell of each item: Lloyd's algorithm from random items. A cell that loses all its items takes a random one.
func kmeans(items [][]float32, k int, rng *rand.Rand) ([]int, error) {
	const rounds = 15
	if len(items) < k {
		return nil, fmt.Errorf("%d items for %d tastes", len(items), k)
	}
	order := rng.Perm(len(items))
	some := make([][]float32, 0, 10000) // centres of so many are as good
	for _, i := range order[:min(cap(some), len(items))] {
		some = append(some, items[i])
	}
	centres := make([][]float32, k)
	for c := range centres {
		centres[c] = append([]float32(nil), some[c]...)
	}
	for range rounds {
		cells, err := assign(some, centres)
		if err != nil {
			return nil, err
		}
		counts := make([]int, k)
		for c := range centres {
			clear(centres[c])
		}
		for i, c := range cells {
			counts[c]++
			for d, v := range some[i] {
				centres[c][d] += v
			}
		}
		for c, n := range counts {
			if n == 0 {
				copy(centres[c], some[rng.IntN(len(some))])
				continue
			}
			for d := range centres[c] {
				centres[c][d] /= float32(n)
			}
		}
	}
	return assign(items, centres)
}

// assign returns the nearest centre of each item.
func assign(items, centres [][]float32) ([]int, error) {
	j, err := shapes.NewJudge(centres, make([]shapes.Taste, len(centres)))
	if err != nil {
		return nil, err
	}
	cells := make([]int, len(items))
	j.Nearest(cells, items)
	return cells, nil
}
