package prior

import (
	"fmt"
	"math"

	"rebeca/prior/graph"
)

// What the two kinds that cut an embedding into tokens have in common, transformer and reference: the tokenizer and the parts of a
// block. R rows of T tokens of H channels are a matrix [R·T, H]; N heads of d = H/N channels.

const modsToken = 6 // scale and shift before self-attention, cross-attention and the MLP of a block

// tokenBlock appends the parameters of block b.
func (c Config) tokenBlock(l *layout, b int, spreads blockSpreads) {
	h, name := c.Hidden, blockName(b)
	l.linear(name+"self.in", spreads.attend, h, 3*h) // queries, keys, values
	l.linear(name+"self.out", spreads.join, h, h)
	l.linear(name+"cross.query", spreads.attend, h, h)
	l.linear(name+"cross.out", spreads.cross, h, h)
	l.fill(name+"cross.gate", spreads.gate, 1)
	l.linear(name+"mlp.in", spreads.mlp, h, growthMLP*h)
	l.linear(name+"mlp.out", 0, growthMLP*h, h)
}

// blockSpreads are the initial spreads of a block's maps, and the value that its gate starts at.
type blockSpreads struct{ attend, join, cross, mlp, gate float64 }

func blockName(b int) string { return fmt.Sprintf("block.%d.", b) }

// cut returns the embeddings x [R, Dim] as tokens [R·T, H]: a map of the whole, cut, and a map that all tokens share.
func (c Config) cut(g *graph.Graph, w weights, x *graph.Value) *graph.Value {
	whole := g.Linear(x, w["in.whole.weight"], w["in.whole.bias"])
	parts := g.Reshape(whole, x.Shape()[0]*c.Tokens, c.Dim/c.Tokens)
	return g.Linear(parts, w["in.token.weight"], w["in.token.bias"])
}

// paste turns tokens [R·T, H] into embeddings [R, Dim], the reverse of cut.
func (c Config) paste(g *graph.Graph, w weights, x *graph.Value) *graph.Value {
	parts := g.Linear(x, w["out.token.weight"], w["out.token.bias"])
	whole := g.Reshape(parts, parts.Shape()[0]/c.Tokens, c.Dim)
	return g.Linear(whole, w["out.whole.weight"], w["out.whole.bias"])
}

// modulator returns ada(x, i) = layernorm(x)·(1 + mod_i) + mod_i+1 for tokens x [R·T, H], where a map of the condition [R, H] gives
// all modulations of a row at once, scales and shifts in turn. The 1 is added to the map's bias: one sum of a vector in place of a
// pass over the tokens in every norm and another in its gradient.
func (c Config) modulator(g *graph.Graph, w weights, condition *graph.Value) func(x *graph.Value, i int) *graph.Value {
	bias := w["modulation.bias"]
	width := bias.Shape()[0]
	ones := make([]float32, width)
	for i := range ones {
		ones[i] = float32(1 - i/c.Hidden%2)
	}
	mods := g.Linear(condition, w["modulation.weight"], g.Add(bias, g.Constant(ones, width)))
	count := condition.Shape()[0]
	parts := g.Split(g.Reshape(mods, count, 1, width), 2, equal(width/c.Hidden, c.Hidden)...)
	return func(x *graph.Value, i int) *graph.Value {
		x = g.Reshape(g.LayerNorm(x, normFloor), count, c.Tokens, c.Hidden)
		return g.Reshape(g.Add(g.Mul(x, parts[i]), parts[i+1]), count*c.Tokens, c.Hidden)
	}
}

// equal returns n sizes.
func equal(n, size int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = size
	}
	return out
}

// selfAttention is multi-head attention among the tokens of each row, h [R·T, H].
func (c Config) selfAttention(g *graph.Graph, w weights, block string, h *graph.Value) *graph.Value {
	count, d := h.Shape()[0]/c.Tokens, c.Hidden/c.Heads
	all := g.Linear(h, w[block+"self.in.weight"], w[block+"self.in.bias"])
	all = g.Transpose(g.Reshape(all, count, c.Tokens, 3, c.Heads, d), 2, 0, 3, 1, 4)
	parts := g.Split(all, 0, 1, 1, 1)
	for i := range parts {
		parts[i] = g.Reshape(parts[i], count, c.Heads, c.Tokens, d)
	}
	seen := g.MatMul(g.Softmax(g.MatMulTransposed(c.scaled(g, parts[0]), parts[1], false, true)), parts[2])
	return g.Linear(c.join(g, seen), w[block+"self.out.weight"], w[block+"self.out.bias"])
}

// queries returns the queries of cross-attention, scaled, [n, N, T·R/n, d] for n groups of rows.
func (c Config) queries(g *graph.Graph, w weights, block string, h *graph.Value, n int) *graph.Value {
	q := g.Linear(h, w[block+"cross.query.weight"], w[block+"cross.query.bias"])
	return c.scaled(g, c.heads(g, q, n))
}

// gated is gate · (W seen + b) for what cross-attention saw, [n, N, ·, d].
func (c Config) gated(g *graph.Graph, w weights, block string, seen *graph.Value) *graph.Value {
	y := g.Linear(c.join(g, seen), w[block+"cross.out.weight"], w[block+"cross.out.bias"])
	return g.Mul(y, w[block+"cross.gate"])
}

// crossAttention is gate · (W attention + b) of tokens h [R·T, H] to k keys and values of their row, both [R·k, H].
//
// It is written without queries and without an output map: k is small, so both maps are applied to the keys and values instead of
// the tokens, x·(W_q,n K_nᵀ) for (x W_q,n) K_nᵀ and p·(V_n W_o,n) for (p V_n) W_o,n in each head n. A token then costs 2·k·N products
// of width H in place of 2·H.
func (c Config) crossAttention(g *graph.Graph, w weights, block string, h, keys, values *graph.Value) *graph.Value {
	d, n := c.Hidden/c.Heads, c.Heads
	rows := h.Shape()[0] / c.Tokens
	k := keys.Shape()[0] / rows
	byHead := func(x *graph.Value) *graph.Value { // [R·k, H] as [N, R·k, d]
		return g.Transpose(g.Reshape(x, rows*k, n, d), 1, 0, 2)
	}
	byRow := func(x *graph.Value) *graph.Value { // [N, R·k, m] as [R, N·k, m]
		m := x.Shape()[2]
		return g.Reshape(g.Transpose(g.Reshape(x, n, rows, k, m), 1, 0, 2, 3), rows, n*k, m)
	}
	keys = c.scaled(g, byHead(keys))
	query := g.Transpose(g.Reshape(w[block+"cross.query.weight"], c.Hidden, n, d), 1, 0, 2)
	ask := byRow(g.MatMulTransposed(keys, query, false, true)) // [R, N·k, H]
	bias := byRow(g.MatMul(keys, g.Reshape(w[block+"cross.query.bias"], n, d, 1)))
	gate := w[block+"cross.gate"]
	join := g.Reshape(g.Mul(w[block+"cross.out.weight"], gate), n, d, c.Hidden)
	give := byRow(g.MatMul(byHead(values), join)) // [R, N·k, H]

	scores := g.MatMulTransposed(g.Reshape(h, rows, c.Tokens, c.Hidden), ask, false, true)
	scores = g.Add(scores, g.Reshape(bias, rows, 1, n*k))
	p := g.Softmax(g.Reshape(scores, rows*c.Tokens*n, k))
	seen := g.MatMul(g.Reshape(p, rows, c.Tokens, n*k), give)
	return g.Add(g.Reshape(seen, rows*c.Tokens, c.Hidden), g.Mul(w[block+"cross.out.bias"], gate))
}

// feedForward is W₂ gelu(W₁ h).
func (c Config) feedForward(g *graph.Graph, w weights, block string, h *graph.Value) *graph.Value {
	y := g.Gelu(g.Linear(h, w[block+"mlp.in.weight"], w[block+"mlp.in.bias"]))
	return g.Linear(y, w[block+"mlp.out.weight"], w[block+"mlp.out.bias"])
}

// scaled divides queries by sqrt(d).
func (c Config) scaled(g *graph.Graph, q *graph.Value) *graph.Value {
	return g.Mul(q, g.Scalar(1/math.Sqrt(float64(c.Hidden/c.Heads))))
}

// heads turns a matrix of n groups, [n·m, H], into [n, N, m, d].
func (c Config) heads(g *graph.Graph, x *graph.Value, n int) *graph.Value {
	x = g.Reshape(x, n, x.Shape()[0]/n, c.Heads, c.Hidden/c.Heads)
	return g.Transpose(x, 0, 2, 1, 3)
}

// join is the reverse of heads: [n, N, m, d] becomes [n·m, H].
func (c Config) join(g *graph.Graph, x *graph.Value) *graph.Value {
	s := x.Shape()
	return g.Reshape(g.Transpose(x, 0, 2, 1, 3), s[0]*s[2], c.Hidden)
}
