package online

import (
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
)

const (
	// crowdBalls is the number of balls that tastes are drawn from.
	crowdBalls   = 4096
	fewestInBall = 8
	// crowdPartitions is the number of ways in which the catalogue is cut into cells.
	crowdPartitions = 24
	// Cells are moved by the k-means of at most partitionItems items, from none
	// at all to mostRounds rounds: those of random items are of very unequal
	// sizes, those of k-means follow the clusters that there are.
	partitionItems = 4096
	mostRounds     = 10
	mostCells      = 256
)

// regions are the sets of items that may be somebody's taste: balls of nearest
// neighbours, which overlap at all sizes, and the cells of partitions, which
// touch. All are functions of the seed and the items; each is made when it is
// first drawn, and holds rising indices into items.
type regions struct {
	items []listed
	seed  uint64
	size  span // of a ball and of a partition's mean cell, as a share of the items

	balls      map[int][]int32
	partitions map[int][][]int32
	far        []float32 // scratch: distances to a centre
}

func newRegions(seed uint64, items []listed, size span) *regions {
	return &regions{items: items, seed: seed, size: size, balls: map[int][]int32{}, partitions: map[int][][]int32{}}
}

// ball returns ball i: its centre and size are drawn from i.
func (r *regions) ball(i int) []int32 {
	if b, ok := r.balls[i]; ok {
		return b
	}
	rng := stream(r.seed, streamBall, int64(i))
	size := int(float64(len(r.items)) * r.size.logUniform(rng))
	size = min(max(size, fewestInBall), len(r.items))
	centre := r.items[rng.IntN(len(r.items))].e
	r.far = r.far[:0]
	for _, it := range r.items {
		var d float32
		for j, x := range it.e {
			d += (x - centre[j]) * (x - centre[j])
		}
		r.far = append(r.far, d)
	}
	sorted := slices.Clone(r.far)
	slices.Sort(sorted)
	b, edge := make([]int32, 0, size), sorted[size-1]
	ties := size // places for items at the edge itself
	for ; ties > 0 && sorted[size-ties] < edge; ties-- {
	}
	for k, d := range r.far {
		if d == edge && ties > 0 {
			ties--
		} else if d >= edge {
			continue
		}
		b = append(b, int32(k))
	}
	r.balls[i] = b
	return b
}

// partition returns the cells of partition i that are large enough to be a
// taste; there is at least one.
func (r *regions) partition(i int) [][]int32 {
	if p, ok := r.partitions[i]; ok {
		return p
	}
	rng := stream(r.seed, streamCells, int64(i))
	most := min(mostCells, len(r.items)/fewestInBall)
	k := min(max(int(1/r.size.logUniform(rng)), 2), max(most, 1))
	centres := make([][]float32, k)
	for c, at := range rng.Perm(len(r.items))[:k] {
		centres[c] = slices.Clone(r.items[at].e)
	}
	some := r.items
	if len(some) > partitionItems {
		some = make([]listed, partitionItems)
		for j, at := range rng.Perm(len(r.items))[:partitionItems] {
			some[j] = r.items[at]
		}
	}
	for range rng.IntN(mostRounds + 1) {
		recentre(centres, some, nearest(some, centres))
	}
	cells := make([][]int32, k)
	for at, c := range nearest(r.items, centres) {
		cells[c] = append(cells[c], int32(at))
	}
	cells = slices.DeleteFunc(cells, func(c []int32) bool { return len(c) < min(fewestInBall, len(r.items)) })
	r.partitions[i] = cells
	return cells
}

// recentre moves every centre to the mean of its items; one without items stays.
func recentre(centres [][]float32, items []listed, of []int32) {
	counts := make([]float32, len(centres))
	sums := make([][]float32, len(centres))
	for c := range sums {
		sums[c] = make([]float32, len(centres[c]))
	}
	for at, c := range of {
		counts[c]++
		for d, x := range items[at].e {
			sums[c][d] += x
		}
	}
	for c, n := range counts {
		for d := range sums[c] {
			if n > 0 {
				centres[c][d] = sums[c][d] / n
			}
		}
	}
}

// nearest returns the nearest centre of every item: the one of the largest
// x·c - |c|²/2, by matrix products of some items at a time.
func nearest(items []listed, centres [][]float32) []int32 {
	const batch = 256
	dim, k := len(centres[0]), len(centres)
	right := blas32.General{Rows: dim, Cols: k, Stride: k, Data: make([]float32, dim*k)}
	half := make([]float32, k)
	for c, e := range centres {
		for d, x := range e {
			right.Data[d*k+c] = x
			half[c] += x * x / 2
		}
	}
	left := blas32.General{Rows: batch, Cols: dim, Stride: dim, Data: make([]float32, batch*dim)}
	scores := blas32.General{Rows: batch, Cols: k, Stride: k, Data: make([]float32, batch*k)}
	out := make([]int32, 0, len(items))
	for at := 0; at < len(items); at += batch {
		some := items[at:min(at+batch, len(items))]
		left.Rows, scores.Rows = len(some), len(some)
		for i, it := range some {
			copy(left.Data[i*dim:], it.e)
			copy(scores.Data[i*k:(i+1)*k], half)
		}
		blas32.Gemm(blas.NoTrans, blas.NoTrans, 1, left, right, -1, scores)
		for i := range some {
			row, best := scores.Data[i*k:(i+1)*k], 0
			for c, s := range row {
				if s > row[best] {
					best = c
				}
			}
			out = append(out, int32(best))
		}
	}
	return out
}

// kin are the regions that one person's tastes are drawn from: balls, or the
// cells of one partition, whose tastes do not overlap.
type kin struct {
	regions *regions
	cells   [][]int32 // nil: balls
}

// kin draws where a person's tastes come from; cells is the probability that
// they are cells.
func (r *regions) kin(rng *rand.Rand, cells float64) kin {
	k := kin{regions: r}
	if rng.Float64() < cells {
		k.cells = r.partition(rng.IntN(crowdPartitions))
	}
	return k
}

// draw draws a taste.
func (k kin) draw(rng *rand.Rand) []int32 {
	if k.cells == nil {
		return k.regions.ball(rng.IntN(crowdBalls))
	}
	return k.cells[rng.IntN(len(k.cells))]
}
