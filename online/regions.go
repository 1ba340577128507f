package online

import (
	"math"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/graph/community"
	"gonum.org/v1/gonum/graph/simple"
)

const (
	// crowdBalls is the number of balls that tastes are drawn from.
	crowdBalls   = 4096
	fewestInBall = 8
	// crowdPartitions is the number of ways in which the catalogue is cut into cells.
	crowdPartitions = 16
	// Cells are moved by the k-means of at most partitionItems items, from none
	// at all to mostRounds rounds: those of random items are of very unequal
	// sizes, those of k-means follow the clusters that there are.
	partitionItems = 4096
	mostRounds     = 10
	mostCells      = 256
	// graphNeighbours is how many nearest others of an item it is linked to, and
	// graphItems and graphProducts bound the work of finding them.
	graphNeighbours = 5
	graphItems      = 8192
	graphProducts   = 5e9
	// A region's weight is its modularity to the clusterPower; the balls, of which
	// ballsWeighed are looked at, count as ballsMass partitions.
	clusterPower = 8
	ballsWeighed = 64
	ballsMass    = 4
)

// resolutions are those of communities.
var resolutions = span{.25, 4}

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
	graph      *simple.WeightedUndirectedGraph
	some       []int32   // items of the graph
	node       []int32   // by item, the node that is it or is nearest to it
	mass       []float64 // of kinds, before anybody liked anything; see weigh
	weights    []float64 // running sums; see weigh
	told       []float64 // by likes: logarithms over the weights; nil: nothing
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
// taste; there is at least one. Even ones are cells about centres, moved by
// k-means or not; odd ones are communities of neighbours.
func (r *regions) partition(i int) [][]int32 {
	if p, ok := r.partitions[i]; ok {
		return p
	}
	rng := stream(r.seed, streamCells, int64(i))
	most := max(min(mostCells, len(r.items)/fewestInBall), 1)
	k := min(max(int(1/r.size.logUniform(rng)), 2), most)
	var of []int32
	if r.aboutCentres(i) {
		of = nearest(r.items, scattered(rng, r.items, k, rng.IntN(mostRounds+1)))
	} else {
		of = r.communities(rng, resolutions.logUniform(rng))
	}
	cells := make([][]int32, slices.Max(of)+1)
	for at, c := range of {
		cells[c] = append(cells[c], int32(at))
	}
	cells = slices.DeleteFunc(cells, func(c []int32) bool { return len(c) < min(fewestInBall, len(r.items)) })
	if len(cells) == 0 { // communities of items that are all the same, say, are of one each
		cells = [][]int32{some(rng, len(r.items), len(r.items))}
	}
	r.partitions[i] = cells
	return cells
}

// communities cuts the items into communities of the graph of nearest
// neighbours by modularity (Louvain; Blondel et al. 2008) at a resolution: the
// higher, the smaller they are. So what is dense and connected stays together,
// whatever its shape: the images of one thing are a winding sheet in the space
// of embeddings and not a ball.
func (r *regions) communities(rng *rand.Rand, resolution float64) []int32 {
	g, nodes := r.neighbours()
	of := make([]int32, len(nodes))
	for c, part := range community.Modularize(g, resolution, rng).Communities() {
		for _, node := range part {
			of[node.ID()] = int32(c)
		}
	}
	renumber(of) // the library numbers them in an order of its own
	out := make([]int32, len(r.items))
	for k, node := range r.node {
		out[k] = of[node]
	}
	return out
}

// renumber numbers communities in order of their first member.
func renumber(of []int32) {
	names := map[int32]int32{}
	for at, c := range of {
		if _, known := names[c]; !known {
			names[c] = int32(len(names))
		}
		of[at] = names[c]
	}
}

func embeddings(items []listed) [][]float32 {
	e := make([][]float32, len(items))
	for i, it := range items {
		e[i] = it.e
	}
	return e
}

// neighbours returns the graph of nearest neighbours of some items, numbered
// as they are; it is made once.
func (r *regions) neighbours() (*simple.WeightedUndirectedGraph, []int32) {
	if r.graph == nil {
		r.some = some(stream(r.seed, streamCells, -2), len(r.items), min(graphItems, int(math.Sqrt(graphProducts/float64(len(r.items[0].e))))))
		r.graph = simple.NewWeightedUndirectedGraph(0, 0)
		for i := range r.some {
			r.graph.AddNode(simple.Node(i))
		}
		eachNeighbour(r.at(r.some), graphNeighbours, func(a, b int) {
			w := 1.
			if r.graph.HasEdgeBetween(int64(a), int64(b)) {
				w = 2 // of each other
			}
			r.graph.SetWeightedEdge(simple.WeightedEdge{F: simple.Node(a), T: simple.Node(b), W: w})
		})
		if len(r.some) == len(r.items) {
			r.node = r.some
		} else {
			r.node = nearest(r.items, embeddings(r.at(r.some)))
		}
	}
	return r.graph, r.some
}

// eachNeighbour calls f with every item and each of its k nearest others.
func eachNeighbour(items []listed, k int, f func(a, b int)) {
	const batch = 128
	dim := len(items[0].e)
	n := len(items)
	right := blas32.General{Rows: n, Cols: dim, Stride: dim, Data: make([]float32, n*dim)}
	half := make([]float32, n)
	for i, it := range items {
		copy(right.Data[i*dim:], it.e)
		for _, x := range it.e {
			half[i] += x * x / 2
		}
	}
	scores := blas32.General{Rows: batch, Cols: n, Stride: n, Data: make([]float32, batch*n)}
	best := make([]int, 0, k+1)
	for at := 0; at < n; at += batch {
		rows := min(batch, n-at)
		left := blas32.General{Rows: rows, Cols: dim, Stride: dim, Data: right.Data[at*dim : (at+rows)*dim]}
		scores.Rows = rows
		for i := range rows {
			copy(scores.Data[i*n:(i+1)*n], half)
		}
		blas32.Gemm(blas.NoTrans, blas.Trans, 1, left, right, -1, scores)
		for i := range rows {
			row := scores.Data[i*n : (i+1)*n]
			best = best[:0]
			for j, s := range row {
				if j == at+i || len(best) == k && s <= row[best[k-1]] {
					continue
				}
				if len(best) == k {
					best = best[:k-1]
				}
				p := len(best)
				for p > 0 && row[best[p-1]] < s {
					p--
				}
				best = slices.Insert(best, p, j)
			}
			for _, j := range best {
				f(at+i, j)
			}
		}
	}
}

// some returns the indices of most random items of n, or of all of fewer.
func some(rng *rand.Rand, n, most int) []int32 {
	order := rng.Perm(n)
	out := make([]int32, min(n, most))
	for i := range out {
		out[i] = int32(order[i])
	}
	slices.Sort(out)
	return out
}

func (r *regions) at(indices []int32) []listed {
	out := make([]listed, len(indices))
	for i, k := range indices {
		out[i] = r.items[k]
	}
	return out
}

// scattered returns k random items, moved by so many rounds of k-means.
func scattered(rng *rand.Rand, items []listed, k, rounds int) [][]float32 {
	out, order := make([][]float32, k), rng.Perm(len(items))
	for c := range out {
		out[c] = slices.Clone(items[order[c%len(order)]].e) // of fewer items some are the same
	}
	few := make([]listed, 0, partitionItems)
	for _, k := range some(rng, len(items), partitionItems) {
		few = append(few, items[k])
	}
	for range rounds {
		recentre(out, few, nearest(few, out))
	}
	return out
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

// kin draws where a person's tastes come from.
func (r *regions) kin(rng *rand.Rand) kin {
	w := r.weigh()
	x := rng.Float64() * w[len(w)-1]
	i, _ := slices.BinarySearch(w, x)
	if i == 0 {
		return kin{regions: r}
	}
	return kin{regions: r, cells: r.partition(min(i, crowdPartitions) - 1)}
}

// weigh returns the running sums of the weights of the balls, then of each
// partition. Tastes follow the clusters of the catalogue, where it has some: a
// weight is a power of the modularity, how much more often neighbours lie in one
// region than chance would have it. Where nothing stands out, as in an even
// cloud, all are about as likely. What people like tells the rest.
func (r *regions) weigh() []float64 {
	if r.weights != nil {
		return r.weights
	}
	if r.mass == nil {
		m := newModularity(r)
		balls := make([][]int32, ballsWeighed)
		for i := range balls {
			balls[i] = r.ball(i)
		}
		r.mass = append(r.mass, ballsMass*m.power(balls))
		for i := range crowdPartitions {
			r.mass = append(r.mass, m.power(r.partition(i)))
		}
		r.graph, r.some, r.node = nil, nil, nil // all that was made of it is kept
	}
	sum := 0.
	for i, w := range r.mass {
		if len(r.told) == len(r.mass) {
			w *= math.Exp(r.told[i])
		}
		sum += w
		r.weights = append(r.weights, sum)
	}
	return r.weights
}

// believe makes what is told, by likes, the logarithms over the weights.
func (r *regions) believe(told []float64) {
	r.told, r.weights = slices.Clone(told), nil
}

// modularity measures regions on the graph of neighbours.
type modularity struct {
	graph *simple.WeightedUndirectedGraph
	node  []int32 // by item; -1: not in the graph
	total float64 // ends of edges
}

func newModularity(r *regions) modularity {
	g, some := r.neighbours()
	m := modularity{graph: g, node: make([]int32, len(r.items))}
	for i := range m.node {
		m.node[i] = -1
	}
	for i, k := range some {
		m.node[k] = int32(i)
		m.total += float64(g.From(int64(i)).Len())
	}
	return m
}

// power is the clusterPower-th power of the modularity of cells over what they
// cover (Newman and Girvan 2004), of at least .05: nothing is impossible.
func (m modularity) power(cells [][]int32) float64 {
	q, covered := 0., 0.
	for _, cell := range cells {
		in := make(map[int64]bool, len(cell))
		for _, k := range cell {
			if m.node[k] >= 0 {
				in[int64(m.node[k])] = true
			}
		}
		inside, all := 0., 0.
		for i := range in {
			for to := m.graph.From(i); to.Next(); all++ {
				if in[to.Node().ID()] {
					inside++
				}
			}
		}
		q += inside - all*all/m.total
		covered += all
	}
	return math.Pow(max(q/max(covered, 1), .05), clusterPower)
}

const (
	// likesBelieved is how many likes count as much as what is known without any.
	likesBelieved = 256
	// gainWeight is how much one nat a like more speaks for a partition in the
	// end. It is far from what thousands of likes would say of one another's
	// independence: people's tastes need not be those of any partition.
	gainWeight = 30
	// newTaste is how many likes the chance of a like outside the known cells counts.
	newTaste = 1
)

// evidence is what people's likes, as items, say of the balls and of each
// partition, in logarithms: how much better than chance a like is foretold by
// the cells of the same person's others. Balls are judged by the partitions about
// centres, which they resemble most, on average.
func (r *regions) evidence(people [][]int32) []float64 {
	told, likes := make([]float64, 1+crowdPartitions), 0.
	centred := 0.
	for i := range crowdPartitions {
		cells := r.partition(i)
		of := make([]int32, len(r.items))
		for k := range of {
			of[k] = -1
		}
		for c, cell := range cells {
			for _, k := range cell {
				of[k] = int32(c)
			}
		}
		gain := 0.
		likes = 0
		for _, person := range people {
			count := map[int32]float64{}
			for _, k := range person {
				count[of[k]]++
			}
			others := float64(len(person) - 1)
			for _, k := range person {
				c, ratio := of[k], float64(newTaste)
				if c >= 0 {
					ratio += (count[c] - 1) * float64(len(r.items)) / float64(len(cells[c]))
				}
				gain += math.Log(ratio / (others + newTaste))
				likes++
			}
		}
		told[1+i] = gain / max(likes, 1)
		if r.aboutCentres(i) {
			told[0] += told[1+i]
			centred++
		}
	}
	told[0] /= centred
	best := slices.Max(told)
	for i := range told {
		told[i] = (told[i] - best) * gainWeight * likes / (likes + likesBelieved)
	}
	return told
}

// aboutCentres reports whether partition i is of cells about centres.
func (r *regions) aboutCentres(i int) bool { return i%2 == 0 }

// draw draws a taste.
func (k kin) draw(rng *rand.Rand) []int32 {
	if k.cells == nil {
		return k.regions.ball(rng.IntN(crowdBalls))
	}
	return k.cells[rng.IntN(len(k.cells))]
}
