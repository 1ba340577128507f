// Package nearest finds the nearest of many vectors, exactly.
package nearest

import (
	"cmp"
	"math"
	"slices"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
)

// Flat compares a query with every vector: all queries with a block of vectors in one matrix product. It shares the memory of its
// blocks and is immutable: safe for concurrent use.
type Flat struct {
	dim     int
	blocks  [][]float32
	norms   [][]float32 // [block][row], squared; +Inf where there is nothing any more
	largest float64     // of norms, +Inf left out
	count   int
}

// NewFlat takes blocks of vectors, each [rows, dim] row-major, which must never change while it is used, and says by place which rows
// are gone; places count the rows of all blocks, one after another.
func NewFlat(dim int, blocks [][]float32, gone func(place int) bool) *Flat {
	f := &Flat{dim: dim, blocks: blocks}
	place := 0
	for _, b := range blocks {
		norms := make([]float32, len(b)/dim)
		for i := range norms {
			norms[i] = float32(math.Inf(1))
			if !gone(place) {
				row := blas32.Vector{N: dim, Data: b[i*dim : (i+1)*dim], Inc: 1}
				norms[i] = blas32.Dot(row, row)
				f.largest = max(f.largest, float64(norms[i]))
				f.count++
			}
			place++
		}
		f.norms = append(f.norms, norms)
	}
	return f
}

// Len returns the number of vectors.
func (f *Flat) Len() int { return f.count }

// Nearest returns the place of the vector nearest to each query, [dim], and its Euclidean distance; -1 and +Inf where there is none.
// except, where it is not nil, has for each query a place that does not count. Of equally near ones it is the first.
//
// ‖x-q‖² = ‖x‖² - 2 x·q + ‖q‖², whose rounding could tell copies from each other wrongly, only chooses whom to look at: what may be
// nearest by it is measured in float64.
func (f *Flat) Nearest(queries [][]float32, except []int) (places []int, distances []float64) {
	n := len(queries)
	places, distances = make([]int, n), make([]float64, n)
	q := make([]float32, 0, n*f.dim)
	norms, bound := make([]float64, n), make([]float64, n)
	for i, v := range queries {
		q = append(q, v...)
		for _, x := range v {
			norms[i] += float64(x) * float64(x)
		}
		places[i], distances[i], bound[i] = -1, math.Inf(1), math.Inf(1)
	}
	first := 0
	var products []float32
	for b, block := range f.blocks {
		rows := len(block) / f.dim
		if rows == 0 || n == 0 {
			continue
		}
		if len(products) < n*rows {
			products = make([]float32, n*rows)
		}
		blas32.Gemm(blas.NoTrans, blas.Trans, 1, blas32.General{Rows: n, Cols: f.dim, Stride: f.dim, Data: q},
			blas32.General{Rows: rows, Cols: f.dim, Stride: f.dim, Data: block}, 0, blas32.General{Rows: n, Cols: rows, Stride: rows, Data: products})
		for i := range queries {
			for r, p := range products[i*rows : (i+1)*rows] {
				if float64(f.norms[b][r]-2*p) > bound[i] || math.IsInf(float64(f.norms[b][r]), 1) || except != nil && except[i] == first+r {
					continue
				}
				if d := Square(queries[i], block[r*f.dim:(r+1)*f.dim]); d < distances[i] {
					places[i], distances[i] = first+r, d
					bound[i] = d - norms[i] + slack*(norms[i]+f.largest)
				}
			}
		}
		first += rows
	}
	for i, d := range distances {
		distances[i] = math.Sqrt(d)
	}
	return places, distances
}

// slack bounds the rounding of ‖x‖² - 2 x·q in float32, over ‖q‖² + ‖x‖²: 2^-24 for each of a few hundred partial sums that are
// rounded either way.
const slack = 1e-5

// Square is the squared Euclidean distance of two vectors of one length, in float64.
func Square(a, b []float32) float64 {
	s := 0.
	for i, v := range a {
		d := float64(v - b[i])
		s += d * d
	}
	return s
}

// spacingSample is how many vectors the spacing is measured at.
const spacingSample = 64

// Spacing is the median distance of a vector to the one nearest to it, over up to 64 vectors that are drawn by their own values, so that
// it is a function of the set of vectors, whatever their order; 0 for fewer than two.
func (f *Flat) Spacing() float64 {
	type drawn struct {
		hash  uint64
		place int
		row   []float32
	}
	var sample []drawn // a heap would do; so few need none
	place := 0
	for b, block := range f.blocks {
		for r := range f.norms[b] {
			row := block[r*f.dim : (r+1)*f.dim]
			if h := hash(row); !math.IsInf(float64(f.norms[b][r]), 1) && (len(sample) < spacingSample || h < sample[len(sample)-1].hash) {
				at, _ := slices.BinarySearchFunc(sample, h, func(d drawn, h uint64) int { return cmp.Compare(d.hash, h) })
				sample = slices.Insert(sample, at, drawn{h, place, row})
				sample = sample[:min(len(sample), spacingSample)]
			}
			place++
		}
	}
	if f.count < 2 {
		return 0
	}
	queries, except := make([][]float32, len(sample)), make([]int, len(sample))
	for i, d := range sample {
		queries[i], except[i] = d.row, d.place
	}
	_, distances := f.Nearest(queries, except)
	slices.Sort(distances)
	return distances[len(distances)/2]
}

// hash is FNV-1a of a vector's first values, with its bits mixed at the end: the greatest of a catalogue's differences lies in its low bits.
func hash(v []float32) uint64 {
	h := uint64(0xcbf29ce484222325)
	for _, x := range v[:min(len(v), 16)] {
		h = (h ^ uint64(math.Float32bits(x))) * 0x100000001b3
	}
	h ^= h >> 32
	h *= 0xd6e8feb86659fd93
	return h ^ h>>32
}
