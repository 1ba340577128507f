package eval

import (
	"context"
	"math"
	"math/rand/v2"
)

// An oracle knows the world's law and each person's own rates, and of a person's tastes what the window tells: the posterior over sets
// of liked tastes, exactly. What it shows are fresh items, so it is what a learner could reach at best.
//
// A set S of s tastes has the likelihood Π_k∈S w_k times what does not depend on S, with w_k the product over the window's entries of
// P(shown, answer | k liked, s) / P(shown, answer | nothing liked). So sums over sets are elementary symmetric polynomials of w, which
// take T·s steps (Kulesza & Taskar 2012, section 5.2.1).
type oracle struct {
	world *World
	name  string
	best  bool // show the likeliest taste alone, in place of a draw of the posterior: the most precision that the window allows
}

// Name implements [Contestant].
func (o oracle) Name() string { return o.name }

// Sample implements [Contestant].
func (o oracle) Sample(ctx context.Context, subjects []Subject, n int, seed uint64) ([][][]float32, error) {
	out := make([][][]float32, len(subjects))
	for i := range subjects {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		rng := random(seed^hash(o.name), useOracle, i)
		b := o.world.believe(&subjects[i])
		if o.best {
			only := make([]float64, o.world.Shape.Tastes)
			only[likeliest(b.marginals())] = 1
			out[i] = o.world.fresh(only, n, rng)
			continue
		}
		for range n {
			p := subjects[i].Person
			p.Liked = b.draw(rng)
			out[i] = append(out[i], o.world.fresh(o.world.Mixture(&p), 1, rng)...)
		}
	}
	return out, nil
}

// belief is a posterior over sets of tastes: by size, the probability of the size and the weights of the tastes.
type belief []sized

type sized struct {
	size    int
	p       float64
	weights []float64   // [Tastes], the largest is 1
	tails   [][]float64 // tails[k][j] is the polynomial of degree j of weights[k:]
}

// believe returns what s's window says.
func (w *World) believe(s *Subject) belief {
	var b belief
	logs, most := []float64{}, math.Inf(-1)
	for size := w.Shape.MinLiked; size <= w.Shape.MaxLiked; size++ {
		z, evidence := w.sized(s.Person, s.Window, size)
		b, logs, most = append(b, z), append(logs, evidence), max(most, evidence)
	}
	sum := 0.
	for i := range b {
		b[i].p = math.Exp(logs[i] - most)
		sum += b[i].p
	}
	for i := range b {
		b[i].p /= sum
	}
	return b
}

// sized returns the posterior over sets of one size and the log of its evidence, up to what all sizes share.
func (w *World) sized(p Person, window []Seen, size int) (z sized, evidence float64) {
	tastes := w.Shape.Tastes
	logs := make([]float64, tastes)
	for _, e := range window {
		t := w.Cells[e.Item]
		chance := (1 - p.Aimed) * float64(len(w.ItemsOf[t])) / float64(len(w.Items))
		none := math.Log(max(chance*w.law.evidence(&p, t, -1, e.Kind, e.Class), tiny))
		for k := range logs {
			shown := chance
			if k == t {
				shown += p.Aimed / float64(size)
			}
			logs[k] += math.Log(max(shown*w.law.evidence(&p, t, k, e.Kind, e.Class), tiny)) - none
		}
	}
	most := math.Inf(-1)
	for _, l := range logs {
		most = max(most, l)
	}
	z = sized{size: size, weights: logs, tails: make([][]float64, tastes+1)}
	for k := range logs {
		z.weights[k] = math.Exp(logs[k] - most)
	}
	z.tails[tastes] = make([]float64, size+1)
	z.tails[tastes][0] = 1
	for k := tastes - 1; k >= 0; k-- {
		z.tails[k] = make([]float64, size+1)
		z.tails[k][0] = 1
		for j := 1; j <= size; j++ {
			z.tails[k][j] = z.tails[k+1][j] + z.weights[k]*z.tails[k+1][j-1]
		}
	}
	return z, float64(size)*most + math.Log(max(z.tails[0][size], tiny)) - logChoose(tastes, size)
}

const tiny = 1e-300

func logChoose(n, k int) float64 {
	a, _ := math.Lgamma(float64(n + 1))
	b, _ := math.Lgamma(float64(k + 1))
	c, _ := math.Lgamma(float64(n - k + 1))
	return a - b - c
}

// draw draws a set.
func (b belief) draw(rng *rand.Rand) (liked []int) {
	x := rng.Float64()
	z := b[len(b)-1]
	for _, s := range b {
		if x -= s.p; x < 0 {
			z = s
			break
		}
	}
	left := z.size
	for k := range z.weights {
		if left == 0 {
			break
		}
		in := z.weights[k] * z.tails[k+1][left-1]
		if rest := len(z.weights) - k; rest == left || rng.Float64()*z.tails[k][left] < in {
			liked = append(liked, k)
			left--
		}
	}
	return liked
}

// marginals is the probability of each taste to be liked.
func (b belief) marginals() []float64 {
	m := make([]float64, len(b[0].weights))
	for _, z := range b {
		for k := range m {
			m[k] += z.p * z.marginal(k)
		}
	}
	return m
}

// marginal sums over the sets that hold taste k: the polynomial without k, times k's weight.
func (z *sized) marginal(k int) float64 {
	without := make([]float64, z.size+1)
	without[0] = 1
	for i, w := range z.weights {
		if i == k {
			continue
		}
		for j := z.size; j > 0; j-- {
			without[j] += w * without[j-1]
		}
	}
	return z.weights[k] * without[z.size-1] / max(z.tails[0][z.size], tiny)
}

func likeliest(m []float64) (at int) {
	for i, v := range m {
		if v > m[at] {
			at = i
		}
	}
	return at
}

// real shows what the person truly likes: fresh items of the true mixture. It is the mark that every measure has to be read against.
type real struct{ world *World }

// Name implements [Contestant].
func (r real) Name() string { return "real" }

// Sample implements [Contestant].
func (r real) Sample(_ context.Context, subjects []Subject, n int, seed uint64) ([][][]float32, error) {
	out := make([][][]float32, len(subjects))
	for i := range subjects {
		out[i] = r.world.fresh(r.world.Mixture(&subjects[i].Person), n, random(seed^hash("real"), useOracle, i))
	}
	return out, nil
}
