package eval

import (
	"context"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"
)

// An oracle knows the world's law and each person's own rates, and of a person's tastes what the window tells: the posterior over sets
// of liked tastes, exactly. What it shows are fresh items. How it chooses says what it is a mark of, see [aim].
//
// A set S of s tastes has the likelihood Π_k∈S w_k times what does not depend on S, with w_k the product over the window's entries of
// P(shown, answer | k liked, s) / P(shown, answer | nothing liked). So sums over sets are elementary symmetric polynomials of w, which
// take T·s steps (Kulesza & Taskar 2012, section 5.2.1).
type oracle struct {
	*yardstick
	aim aim
}

// aim is what an oracle shows of what it knows.
type aim string

const (
	// faithful draws tastes of the posterior and of each what the person would like, accidents too: the mark of the distances, of total
	// variation and of W2². It is no ceiling of precision: who sharpens is above it, and where tastes touch a good draw can count as a miss.
	faithful aim = "oracle"
	// sharpened draws tastes of the posterior, and only items that the yardstick counts to them: nobody covers as much at its precision.
	sharpened aim = "oracle_sharp"
	// surest shows such items of the one likeliest taste: its precision is that taste's probability, the most that the window allows.
	surest aim = "oracle_best"
)

// oracles are one of each aim.
func (y *yardstick) oracles() (out []Contestant) {
	for _, a := range []aim{faithful, sharpened, surest} {
		out = append(out, oracle{y, a})
	}
	return out
}

// Name implements [Contestant].
func (o oracle) Name() string { return string(o.aim) }

// Sample implements [Contestant].
func (o oracle) Sample(ctx context.Context, subjects []Subject, n int, seed uint64) ([][][]float32, error) {
	if err := o.world.believeAll(ctx, subjects); err != nil {
		return nil, err
	}
	out := make([][][]float32, len(subjects))
	for i := range subjects {
		rng := random(seed^hash(o.Name()), useOracle, i)
		b := subjects[i].posterior
		best := likeliest(b.marginals())
		for range n {
			some, only := o.inner, make([]float64, o.world.Shape.Tastes)
			switch o.aim {
			case surest:
				only[best] = 1
			case sharpened:
				liked := b.draw(rng)
				only[liked[rng.IntN(len(liked))]] = 1
			default:
				p := subjects[i].Person
				p.Liked = b.draw(rng)
				some, only = o.shown, o.world.Mixture(&p)
			}
			out[i] = append(out[i], o.world.fresh(some, only, 1, rng)...)
		}
	}
	return out, nil
}

// belief is a posterior over sets of tastes that did not change: by size, the probability of the size and the weights of the tastes.
type belief []sized

type sized struct {
	size    int
	p       float64
	weights []float64   // [Tastes], the largest is 1
	tails   [][]float64 // tails[k][j] is the polynomial of degree j of weights[k:]
}

// posterior is what a window says: beliefs by when the tastes changed last, and how likely each.
type posterior []phase

type phase struct {
	p float64
	belief
}

// believeAll fills in the subjects' posteriors, once.
func (w *World) believeAll(ctx context.Context, subjects []Subject) error {
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i := range subjects {
		if subjects[i].posterior != nil {
			continue
		}
		g.Go(func() error {
			subjects[i].posterior = w.believe(&subjects[i])
			return ctx.Err()
		})
	}
	return g.Wait()
}

// elapsed is how likely a change lies between the older likes and the newest part of a window, where people change at all.
const elapsed = .25

// believe returns the posterior of s's tastes. Where people change, it sums over all ways to cut the window into lives with the same
// tastes (the forward pass of Fearnhead & Liu 2007); the older likes are one block before the newest part.
func (w *World) believe(s *Subject) posterior {
	blocks := w.blocks(s)
	whole, settledEvidence := w.life(blocks)
	h := s.Hazard
	if h == 0 || len(blocks) < 2 {
		return posterior{{1, whole}}
	}
	n := len(blocks)
	cut := func(j int) float64 { // chance of a change right before block j
		if j == 1 {
			return elapsed
		}
		return h
	}
	begin := make([]float64, n) // log P(blocks before j, a change before j)
	var out posterior
	var logs []float64
	for j := range n {
		if j > 0 {
			begin[j] = math.Inf(-1)
			for i := range j {
				stay := 0.
				for k := i + 1; k < j; k++ {
					stay += math.Log1p(-cut(k))
				}
				_, e := w.life(blocks[i:j])
				begin[j] = logAdd(begin[j], begin[i]+stay+e)
			}
			begin[j] += math.Log(cut(j))
		}
		stay := math.Log1p(-s.Settled)
		for k := j + 1; k < n; k++ {
			stay += math.Log1p(-cut(k))
		}
		b, e := w.life(blocks[j:])
		out, logs = append(out, phase{belief: b}), append(logs, begin[j]+stay+e)
	}
	if s.Settled > 0 {
		out, logs = append(out, phase{belief: whole}), append(logs, math.Log(s.Settled)+settledEvidence)
	}
	for i, p := range shares(logs) {
		out[i].p = p
	}
	return out
}

// blocks are a window's entries from the oldest to the newest, all older likes in one: by size of the set of liked tastes and by taste,
// the log of how much likelier the entries are if that taste is liked.
func (w *World) blocks(s *Subject) (blocks [][][]float64) {
	sizes, tastes := w.Shape.MaxLiked-w.Shape.MinLiked+1, w.Shape.Tastes
	p := s.Person
	empty := func() [][]float64 {
		b := make([][]float64, sizes)
		for i := range b {
			b[i] = make([]float64, tastes)
		}
		return b
	}
	older := empty()
	for i := len(s.Window) - 1; i >= 0; i-- {
		e := s.Window[i]
		b := older
		if !e.Older {
			b = empty()
			if len(blocks) == 0 {
				blocks = append(blocks, older)
			}
			blocks = append(blocks, b)
		}
		t := w.Cells[e.Item]
		chance := (1 - p.Aimed) * float64(len(w.ItemsOf[t])) / float64(len(w.Items))
		none := math.Log(max(chance*w.law.evidence(&p, t, -1, e.Kind, e.Class), tiny))
		for k := range tastes {
			given := w.law.evidence(&p, t, k, e.Kind, e.Class)
			for i := range b {
				shown := chance
				if k == t {
					shown += p.Aimed / float64(w.Shape.MinLiked+i)
				}
				b[i][k] += math.Log(max(shown*given, tiny)) - none
			}
		}
	}
	return blocks
}

// life is the belief of blocks in which the tastes stayed, and the log of its evidence.
func (w *World) life(blocks [][][]float64) (b belief, evidence float64) {
	var logs []float64
	evidence = math.Inf(-1)
	for i := range w.Shape.MaxLiked - w.Shape.MinLiked + 1 {
		sum := make([]float64, w.Shape.Tastes)
		for _, block := range blocks {
			for k, l := range block[i] {
				sum[k] += l
			}
		}
		z, e := newSized(sum, w.Shape.MinLiked+i)
		b, logs, evidence = append(b, z), append(logs, e), logAdd(evidence, e)
	}
	for i, p := range shares(logs) {
		b[i].p = p
	}
	return b, evidence - math.Log(float64(len(b)))
}

// newSized takes the tastes' logs over and returns the posterior over sets of one size and the log of its evidence.
func newSized(logs []float64, size int) (z sized, evidence float64) {
	tastes := len(logs)
	most := slices.Max(logs)
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

// shares turns logs of weights into probabilities.
func shares(logs []float64) []float64 {
	sum := math.Inf(-1)
	for _, l := range logs {
		sum = logAdd(sum, l)
	}
	p := make([]float64, len(logs))
	for i, l := range logs {
		p[i] = math.Exp(l - sum)
	}
	return p
}

// logAdd is ln(e^a + e^b).
func logAdd(a, b float64) float64 {
	if a < b {
		a, b = b, a
	}
	if math.IsInf(b, -1) {
		return a
	}
	return a + math.Log1p(math.Exp(b-a))
}

const tiny = 1e-300

func logChoose(n, k int) float64 {
	a, _ := math.Lgamma(float64(n + 1))
	b, _ := math.Lgamma(float64(k + 1))
	c, _ := math.Lgamma(float64(n - k + 1))
	return a - b - c
}

// draw draws a set.
func (b posterior) draw(rng *rand.Rand) (liked []int) {
	life := b[draw(rng, len(b), func(i int) float64 { return b[i].p })].belief
	z := life[draw(rng, len(life), func(i int) float64 { return life[i].p })]
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
func (b posterior) marginals() []float64 {
	m := make([]float64, len(b[0].belief[0].weights))
	for _, life := range b {
		for _, z := range life.belief {
			if life.p*z.p < 1e-6 {
				continue
			}
			for k := range m {
				m[k] += life.p * z.p * z.marginal(k)
			}
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
type real struct{ *yardstick }

// Name implements [Contestant].
func (r real) Name() string { return "real" }

// Sample implements [Contestant].
func (r real) Sample(_ context.Context, subjects []Subject, n int, seed uint64) ([][][]float32, error) {
	out := make([][][]float32, len(subjects))
	for i := range subjects {
		out[i] = r.world.fresh(r.shown, r.world.Mixture(&subjects[i].Person), n, random(seed^hash("real"), useOracle, i))
	}
	return out, nil
}
