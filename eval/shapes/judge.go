package shapes

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
)

// Judge names what an embedding shows by the nearest real picture. It is immutable:
// safe for concurrent use.
type Judge struct {
	tastes []Taste
	dim    int
	items  blas32.General // [dim, items], so that a product runs along the items
	norms  []float32      // [items], squared
}

// NewJudge takes the embeddings of a catalogue, each [dim], and the tastes of the same
// items; it copies both. It fails on an empty catalogue, on lengths that differ and on
// values that are not finite.
func NewJudge(embeddings [][]float32, tastes []Taste) (*Judge, error) {
	if len(embeddings) == 0 || len(embeddings) != len(tastes) {
		return nil, fmt.Errorf("judging: %d embeddings for %d tastes, need as many of each and at least one", len(embeddings), len(tastes))
	}
	n, dim := len(embeddings), len(embeddings[0])
	j := &Judge{
		tastes: append([]Taste(nil), tastes...),
		dim:    dim,
		items:  blas32.General{Rows: dim, Cols: n, Stride: n, Data: make([]float32, dim*n)},
		norms:  make([]float32, n),
	}
	for i, e := range embeddings {
		if len(e) != dim || dim == 0 {
			return nil, fmt.Errorf("judging: embedding %d has %d dimensions, the first has %d", i, len(e), dim)
		}
		for d, v := range e {
			j.items.Data[d*n+i] = v
			j.norms[i] += v * v
		}
		if norm := float64(j.norms[i]); math.IsNaN(norm) || math.IsInf(norm, 0) {
			return nil, fmt.Errorf("judging: embedding %d is not finite", i)
		}
	}
	return j, nil
}

// Nearest writes to dst[i] the index of the catalogue item nearest to queries[i] by
// Euclidean distance, exactly: argmin of |x|² - 2 q·x in float32. A query that is not
// finite has no neighbour and gets -1. It panics when lengths differ.
func (j *Judge) Nearest(dst []int, queries [][]float32) {
	if len(dst) != len(queries) {
		panic("shapes: dst and queries differ in length")
	}
	const batch = 64 // keeps the scores of 4,800 items within a mebibyte or so
	n := len(j.norms)
	q := blas32.General{Rows: batch, Cols: j.dim, Stride: j.dim, Data: make([]float32, batch*j.dim)}
	scores := blas32.General{Rows: batch, Cols: n, Stride: n, Data: make([]float32, batch*n)}
	for at := 0; at < len(queries); at += batch {
		chunk := queries[at:min(at+batch, len(queries))]
		q.Rows, scores.Rows = len(chunk), len(chunk)
		for i, e := range chunk {
			if len(e) != j.dim {
				panic("shapes: a query of another dimension than the catalogue")
			}
			copy(q.Data[i*j.dim:], e)
			copy(scores.Data[i*n:], j.norms)
		}
		blas32.Gemm(blas.NoTrans, blas.NoTrans, -2, q, j.items, 1, scores)
		for i := range chunk {
			dst[at+i] = argmin(scores.Data[i*n : (i+1)*n])
		}
	}
}

// argmin is the first index of the smallest finite value, -1 without one.
func argmin(values []float32) int {
	best, least := -1, float32(math.MaxFloat32)
	for i, v := range values {
		if v < least && v >= -math.MaxFloat32 {
			best, least = i, v
		}
	}
	return best
}

// Tastes names the taste of every query, the zero Taste for one that is not finite:
// nobody likes that.
func (j *Judge) Tastes(queries [][]float32) []Taste {
	at := make([]int, len(queries))
	j.Nearest(at, queries)
	got := make([]Taste, len(queries))
	for i, k := range at {
		if k >= 0 {
			got[i] = j.tastes[k]
		}
	}
	return got
}

// LikedShare is the share of got that is among the liked tastes; NaN when got is empty.
func LikedShare(liked, got []Taste) float64 {
	hits := 0
	for _, n := range counts(liked, got) {
		hits += n
	}
	return float64(hits) / float64(len(got))
}

// Coverage is the share of the k liked tastes that get at least a fair quarter of the
// n samples in got, len(got)/(4k); NaN when either is empty.
func Coverage(liked, got []Taste) float64 {
	if len(got) == 0 {
		return math.NaN()
	}
	covered := 0
	for _, n := range counts(liked, got) {
		if 4*len(liked)*n >= len(got) {
			covered++
		}
	}
	return float64(covered) / float64(len(liked))
}

// counts tells how often each of the liked tastes occurs in got.
func counts(liked, got []Taste) []int {
	n := make([]int, len(liked))
	for i, l := range liked {
		for _, g := range got {
			if l == g {
				n[i]++
			}
		}
	}
	return n
}
