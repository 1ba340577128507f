package eval

import (
	"math"
	"math/rand/v2"
	"sort"
)

// index finds the nearest of many vectors, exactly: they lie in clusters around random ones, and a cluster is passed over when the
// triangle inequality says that nothing in it can be nearer. It is immutable: safe for concurrent use.
type index struct {
	dim      int
	clusters []cluster
}

type cluster struct {
	centre  []float32
	radius  float64   // of the farthest member
	members []int     // indices of the vectors
	data    []float32 // [members, dim]
}

// newIndex takes vectors of one length, at least one; it copies them.
func newIndex(vectors [][]float32, rng *rand.Rand) (*index, error) {
	n := int(math.Sqrt(float64(len(vectors)))) + 1
	x := &index{dim: len(vectors[0]), clusters: make([]cluster, min(n, len(vectors)))}
	centres := make([][]float32, len(x.clusters))
	for i, k := range rng.Perm(len(vectors))[:len(centres)] {
		centres[i] = vectors[k]
		x.clusters[i].centre = vectors[k]
	}
	cells, err := assign(vectors, centres)
	if err != nil {
		return nil, err
	}
	for i, v := range vectors {
		c := &x.clusters[cells[i]]
		c.members = append(c.members, i)
		c.data = append(c.data, v...)
		c.radius = max(c.radius, distance(v, c.centre))
	}
	return x, nil
}

// nearest returns the index of the vector nearest to q and its distance; -1 where q is not finite.
func (x *index) nearest(q []float32) (at int, d float64) {
	type visit struct {
		cluster int
		bound   float64 // no member is nearer
	}
	order := make([]visit, len(x.clusters))
	for i := range x.clusters {
		c := &x.clusters[i]
		order[i] = visit{i, distance(q, c.centre) - c.radius}
	}
	sort.Slice(order, func(a, b int) bool { return order[a].bound < order[b].bound })
	at, best := -1, math.Inf(1)
	for _, v := range order {
		if v.bound > 0 && v.bound*v.bound > best*(1+1e-6) {
			break
		}
		c := &x.clusters[v.cluster]
		for k, i := range c.members {
			if s := square(q, c.data[k*x.dim:(k+1)*x.dim]); s < best || s == best && i < at {
				at, best = i, s
			}
		}
	}
	return at, math.Sqrt(best)
}
