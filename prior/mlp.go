package prior

import (
	"fmt"
	"math"

	"rebeca/prior/graph"
)

// mlp is the window-conditioned denoiser: residual blocks on the whole embedding, modulated by time, label and user (AdaLN, Peebles
// & Xie 2022), with attention to the tokens of the window (see history.go).
//
//	c       = silu(W silu(time, label, user, ln(1+size)))
//	x       = x + attention(ada(x, c), tokens) ;  x = x + mlp(ada(x, c))     for each block
//	z₀      = W ada(x, c)
//
// Shapes: C contexts of S slots (the null token, then entries), R = C · targets rows of noised embeddings, H hidden, N heads.
type mlp struct {
	Config
}

const (
	modsBlock = 4 // scale and shift before attention and before the MLP
	modsFinal = 2 // scale and shift before the output
	growthMLP = 4 // width of the blocks' MLPs over H
)

func (a mlp) sizes() sizes {
	return sizes{time: a.Hidden, labels: numLabels, slots: a.slots(), memory: a.Hidden, user: a.Hidden}
}

func (a mlp) timeFeatures(dst []float32, t int) { waves(dst, t) }

func (a mlp) labelColumn(c Class) (int, bool) { return int(c), c <= NumClasses }

func (a mlp) layout() *layout {
	l := new(layout)
	h, d := a.Hidden, a.Hidden/a.Heads
	a.historyLayout(l)
	l.add("condition.user.weight", fanIn(h), h, growthIn*h)
	l.add("condition.size.weight", fanIn(h), 1, growthIn*h)
	l.linear("condition.in", fanIn(h), a.sizes().features(), growthIn*h)
	l.linear("condition.out", fanIn(growthIn*h), growthIn*h, h)
	l.linear("modulation", 0, h, (a.Blocks*modsBlock+modsFinal)*h)
	l.linear("in", fanIn(a.Dim), a.Dim, h)
	for b := range a.Blocks {
		block := fmt.Sprintf("block.%d.", b)
		l.add(block+"query.weight", fanIn(h), a.Heads, h, d)
		l.add(block+"query.bias", 0, a.Heads, 1, d)
		l.add(block+"key.weight", fanIn(h), a.Heads, d, h)
		l.add(block+"value.weight", fanIn(h), a.Heads, h, d)
		l.add(block+"attention.weight", 0, a.Heads, d, h)
		l.add(block+"attention.bias", 0, h)
		l.linear(block+"mlp.in", fanIn(h), h, growthMLP*h)
		l.linear(block+"mlp.out", 0, growthMLP*h, h)
	}
	l.linear("out", 0, h, a.Dim)
	return l
}

// encode returns the tokens, which are the memory, and the user embeddings.
func (a mlp) encode(g *graph.Graph, w weights, in window) (memory, user *graph.Value) {
	defer g.Scope("encode")()
	return a.encodeHistory(g, w, in)
}

// denoise returns the predictions [R, Dim].
func (a mlp) denoise(g *graph.Graph, w weights, in rows) *graph.Value {
	defer g.Scope("denoise")()
	count := a.Blocks*modsBlock + modsFinal
	// Scales and shifts take turns; a scale is of 1 + what the map gives, which a constant beside the bias adds for all at once.
	ones := make([]float32, count*a.Hidden)
	for i := range ones {
		ones[i] = float32(1 - i/a.Hidden%2)
	}
	bias := g.Add(w["modulation.bias"], g.Constant(ones, len(ones)))
	mod := g.Split(g.Linear(a.condition(g, w, in), w["modulation.weight"], bias), 1, equal(count, a.Hidden)...)
	ada := func(x *graph.Value, i int) *graph.Value {
		return g.Add(g.Mul(g.LayerNorm(x, normFloor), mod[i]), mod[i+1])
	}
	x := g.Linear(in.x, w["in.weight"], w["in.bias"])
	for b := range a.Blocks {
		end := g.Scope(fmt.Sprintf("block.%d", b))
		name := fmt.Sprintf("block.%d.", b)
		x = g.Add(x, a.attend(g, w, name, ada(x, modsBlock*b), in))
		y := g.Gelu(g.Linear(ada(x, modsBlock*b+2), w[name+"mlp.in.weight"], w[name+"mlp.in.bias"]))
		x = g.Add(x, g.Linear(y, w[name+"mlp.out.weight"], w[name+"mlp.out.bias"]))
		end()
	}
	return g.Linear(ada(x, modsBlock*a.Blocks), w["out.weight"], w["out.bias"])
}

// condition returns the vector that modulates the blocks, [R, H].
func (a mlp) condition(g *graph.Graph, w weights, in rows) *graph.Value {
	wide := growthIn * a.Hidden
	count, contexts := in.x.Shape()[0], in.user.Shape()[0]
	perUser := g.Add(g.Linear(in.user, w["condition.user.weight"], nil), g.Mul(in.size, w["condition.size.weight"]))
	perRow := g.Linear(in.features, w["condition.in.weight"], w["condition.in.bias"])
	both := g.Add(g.Reshape(perRow, contexts, count/contexts, wide), g.Reshape(perUser, contexts, 1, wide))
	y := g.SiLU(g.Reshape(both, count, wide))
	return g.SiLU(in.leaping(g, g.Linear(y, w["condition.out.weight"], w["condition.out.bias"])))
}

// attend is multi-head attention of rows h [R, H] to the tokens of their contexts.
//
// It is written without keys and values: q·(W_k t) = (W_kᵀ q)·t, so each head asks the tokens themselves with a query of width H, and
// W_v is applied after the weighted mean instead of before it. Nothing is computed or stored per token and head. W_q W_kᵀ and W_v W_o
// are products of small matrices; where weights are constants the runtime folds them. A key bias would add the same to all scores of
// a query, and a value bias is one with the output bias: there is neither.
func (a mlp) attend(g *graph.Graph, w weights, block string, h *graph.Value, in rows) *graph.Value {
	count, contexts := h.Shape()[0], in.memory.Shape()[0]
	width := a.Heads * a.Hidden
	key := g.Mul(w[block+"key.weight"], g.Scalar(1/math.Sqrt(float64(a.Hidden/a.Heads))))
	ask := g.Reshape(g.Transpose(g.MatMul(w[block+"query.weight"], key), 1, 0, 2), a.Hidden, width)
	bias := g.Reshape(g.MatMul(w[block+"query.bias"], key), width)
	give := g.Reshape(g.MatMul(w[block+"value.weight"], w[block+"attention.weight"]), width, a.Hidden)

	queries := g.Reshape(g.Linear(h, ask, bias), contexts, count/contexts*a.Heads, a.Hidden)
	scores := g.Add(g.MatMulTransposed(queries, in.memory, false, true), in.mask)
	p := g.Softmax(scores)
	in.attend(p)
	seen := g.Reshape(g.MatMul(p, in.memory), count, width)
	return g.Linear(seen, give, w[block+"attention.bias"])
}
