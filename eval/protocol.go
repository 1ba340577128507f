package eval

import (
	"context"
	"math"
	"slices"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"

	"rebeca/eval/shapes"
)

// paperKs are the numbers of samples of protocol A, and of neighbours of protocol B.
var paperKs = []int{1, 5, 10, 20, 25}

// hits are what was recommended and what of it is liked.
type hits struct{ P, R float64 }

// personScores are one person's scores, by giver.
type personScores struct {
	a     [][][]hits // [giver][k][repetition]
	b     [][]hits   // [giver][k]
	w2    []float64  // [giver]; of the mean it is the variance of the likes; 0 where it was not to be found
	cell  []float64  // [giver]: share of samples whose nearest item is of the favourite
	likes int        // rows liked, test rows too
	tests int        // test rows
	hit   int        // and those liked
}

// person scores all givers for one person.
func (x *experiment) person(ctx context.Context, p int, givers []giver) (s personScores, err error) {
	likes := x.embeddings(x.likes(p, true, true))
	s.likes = len(likes)
	test := x.testRows(p)
	s.tests = len(test.items)
	for _, liked := range test.liked {
		if liked {
			s.hit++
		}
	}
	for _, g := range givers {
		if err := ctx.Err(); err != nil {
			return s, err
		}
		n := 0
		for _, k := range paperKs {
			n += k * x.o.Repetitions
		}
		samples, err := g.give(p, n, random(x.o.Seed^hash(g.name), useControl, p))
		if err != nil {
			return s, err
		}
		s.a = append(s.a, test.protocolA(samples, x.o.Repetitions))
		samples, err = g.give(p, x.o.Samples, random(x.o.Seed^hash(g.name), useTruth, p))
		if err != nil {
			return s, err
		}
		s.b = append(s.b, x.protocolB(p, samples))
		s.cell = append(s.cell, x.inCell(p, samples))
		if g.name == "mean" {
			samples = samples[:1] // a thousand copies of a point are one point
		}
		w2 := 0.
		if g.distance {
			w2 = wasserstein(samples, likes)
		}
		s.w2 = append(s.w2, w2)
	}
	return s, nil
}

// floor finds the mean W2² of real likes against all likes of everybody: what a faithful sampler of as many samples scores.
func (x *experiment) floor(ctx context.Context) error {
	x.floors = make([]float64, len(x.world.People))
	for p := range x.floors {
		likes := x.embeddings(x.likes(p, true, true))
		for i := range x.o.Floors {
			if err := ctx.Err(); err != nil {
				return err
			}
			rng := random(x.o.Seed^hash("floor"), useTruth, p*x.o.Floors+i)
			var some [][]float32
			for _, k := range rng.Perm(len(likes))[:min(x.o.Samples, len(likes))] {
				some = append(some, likes[k])
			}
			x.floors[p] += wasserstein(some, likes) / float64(x.o.Floors)
		}
	}
	return nil
}

// embeddings are those of items.
func (x *experiment) embeddings(items []int) (out [][]float32) {
	for _, i := range items {
		out = append(out, x.world.Items[i])
	}
	return out
}

// inCell is the share of samples whose nearest item, by Euclidean distance, is of the person's favourite.
func (x *experiment) inCell(p int, samples [][]float32) float64 {
	return shapes.LikedShare([]shapes.Taste{x.favourite(p)}, x.judge.Tastes(samples))
}

// testRows are a person's test rows as a catalogue.
type testRows struct {
	items  []int
	liked  []bool
	cosine *neighbours
}

func (x *experiment) testRows(p int) *testRows {
	t := &testRows{}
	var e [][]float32
	for i, held := range x.held[p] {
		if held {
			t.items, t.liked, e = append(t.items, i), append(t.liked, x.liked[p][i]), append(e, x.world.Items[i])
		}
	}
	t.cosine = newNeighbours(e)
	return t
}

// protocolA draws k samples, takes the cosine-nearest test row of each, duplicates once, and repeats.
func (t *testRows) protocolA(samples [][]float32, repetitions int) [][]hits {
	nearest := t.cosine.top(samples, 1)
	out := make([][]hits, len(paperKs))
	at := 0
	for ki, k := range paperKs {
		for range repetitions {
			out[ki] = append(out[ki], score(nearest[at:at+k], 1, t.liked))
			at += k
		}
	}
	return out
}

// protocolB takes the union of the k cosine-nearest items of the whole catalogue of every sample.
func (x *experiment) protocolB(p int, samples [][]float32) (out []hits) {
	nearest := x.cosine.top(samples, slices.Max(paperKs))
	for _, k := range paperKs {
		out = append(out, score(nearest, k, x.liked[p]))
	}
	return out
}

// score compares the union of the first k neighbours of every sample with what is liked; without a like the recall is 0.
func score(nearest [][]int, k int, liked []bool) (h hits) {
	seen := map[int]bool{}
	hit := 0.
	for _, of := range nearest {
		for _, i := range of[:min(k, len(of))] {
			if !seen[i] && liked[i] {
				hit++
			}
			seen[i] = true
		}
	}
	all := 0.
	for _, l := range liked {
		if l {
			all++
		}
	}
	if len(seen) > 0 {
		h.P = hit / float64(len(seen))
	}
	if all > 0 {
		h.R = hit / all
	}
	return h
}

// neighbours finds the items nearest by cosine.
type neighbours struct {
	dim   int
	items blas32.General // [dim, items], of length 1
}

func newNeighbours(items [][]float32) *neighbours {
	n := &neighbours{}
	if len(items) == 0 {
		return n
	}
	n.dim = len(items[0])
	n.items = blas32.General{Rows: n.dim, Cols: len(items), Stride: len(items), Data: make([]float32, n.dim*len(items))}
	for i, e := range items {
		for d, v := range unit(e) {
			n.items.Data[d*len(items)+i] = v
		}
	}
	return n
}

// unit is e at length 1; what has none stays as it is.
func unit(e []float32) []float32 {
	sum := 0.
	for _, v := range e {
		sum += float64(v) * float64(v)
	}
	if !(sum > 0) || math.IsInf(sum, 0) {
		return e
	}
	out := make([]float32, len(e))
	for d, v := range e {
		out[d] = float32(float64(v) / math.Sqrt(sum))
	}
	return out
}

// top returns for each query the indices of the k items of the largest cosine, the largest first; fewer where there are fewer items.
func (n *neighbours) top(queries [][]float32, k int) [][]int {
	out := make([][]int, len(queries))
	k = min(k, n.items.Cols)
	if k == 0 {
		return out
	}
	const batch = 32
	scores := blas32.General{Cols: n.items.Cols, Stride: n.items.Cols, Data: make([]float32, batch*n.items.Cols)}
	q := blas32.General{Cols: n.dim, Stride: n.dim, Data: make([]float32, batch*n.dim)}
	for at := 0; at < len(queries); at += batch {
		some := queries[at:min(at+batch, len(queries))]
		q.Rows, scores.Rows = len(some), len(some)
		for i, e := range some {
			copy(q.Data[i*n.dim:(i+1)*n.dim], unit(e))
		}
		blas32.Gemm(blas.NoTrans, blas.NoTrans, 1, q, n.items, 0, scores)
		for i := range some {
			out[at+i] = largest(scores.Data[i*n.items.Cols:(i+1)*n.items.Cols], k)
		}
	}
	return out
}

// largest returns the indices of the k largest values, the largest first, of equal ones the first.
func largest(values []float32, k int) []int {
	best := make([]int, 0, k+1)
	for i, v := range values {
		if len(best) == k && !(v > values[best[k-1]]) {
			continue
		}
		at := len(best)
		for at > 0 && v > values[best[at-1]] {
			at--
		}
		best = slices.Insert(best, at, i)[:min(len(best)+1, k)]
	}
	return best
}
