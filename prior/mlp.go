package prior

import (
	"fmt"
	"math"

	"rebeca/prior/graph"
)

// mlp is the window-conditioned denoiser: residual blocks on the whole embedding, modulated by time, label and user (AdaLN, Peebles
// & Xie 2022), with attention to the tokens of the window.
//
//	token_j = W₂ gelu(W₁ z_j) + mark_j                     z_j the item, mark_j the class, age or null embeddings
//	user    = layernorm(mean of tokens)
//	c       = silu(W silu(time, label, user, ln(1+size)))
//	x       = x + attention(ada(x, c), tokens) ;  x = x + mlp(ada(x, c))     for each block
//	z₀      = W ada(x, c)
//
// Shapes: C contexts of S slots (the null token, then entries), R = C · targets rows of noised embeddings, H hidden, N heads.
type mlp struct {
	Config
}

const (
	numAges   = 6                 // buckets of a newest entry's rank
	markAge   = NumClasses        // first column of the ages in a row of marks
	markOlder = markAge + numAges // an older like, in place of an age
	markNull  = markOlder + 1     // the token that is always there
	numMarks  = markNull + 1      // columns of a row of marks
	numLabels = NumClasses + 1    // ClassNone is the null label
	normFloor = 1e-5              // added to variances in layer norms
	masked    = -1e9              // added to the scores of absent tokens: their weight is exactly 0
	longWave  = 10000             // longest period of the time features, over 2π (Vaswani et al. 2017)
	modsBlock = 4                 // scale and shift before attention and before the MLP
	modsFinal = 2                 // scale and shift before the output
	growthMLP = 4                 // width of the blocks' MLPs over H
	growthIn  = 2                 // width of the token's and condition's MLPs over H
	markScale = .5                // spread of mark embeddings, near that of token content
)

func (a mlp) slots() int    { return a.MaxTokens + 1 }
func (a mlp) features() int { return a.Hidden + numLabels }

func (a mlp) layout() *layout {
	l := new(layout)
	h, d := a.Hidden, a.Hidden/a.Heads
	l.linear("token.in", fanIn(a.Dim), a.Dim, growthIn*h)
	l.linear("token.out", fanIn(growthIn*h), growthIn*h, h)
	l.add("token.mark", markScale, numMarks, h)
	l.add("condition.user.weight", fanIn(h), h, growthIn*h)
	l.add("condition.size.weight", fanIn(h), 1, growthIn*h)
	l.linear("condition.in", fanIn(h), a.features(), growthIn*h)
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

// window is what the network reads of contexts, as values of a graph.
type window struct {
	items *graph.Value // [C·S, Dim], model scale; zero for the null token and absent entries
	marks *graph.Value // [C·S, numMarks], 0 or 1
	share *graph.Value // [C, 1, S], 1/n for the n present tokens
}

func (a mlp) windowInputs(g *graph.Graph, contexts int) window {
	return window{
		items: g.Input("items", contexts*a.slots(), a.Dim),
		marks: g.Input("marks", contexts*a.slots(), numMarks),
		share: g.Input("share", contexts, 1, a.slots()),
	}
}

// encode returns the tokens [C, S, H] and the user embeddings [C, H].
func (a mlp) encode(g *graph.Graph, w weights, in window) (tokens, user *graph.Value) {
	defer g.Scope("encode")()
	contexts := in.share.Shape()[0]
	hidden := g.Gelu(g.Linear(in.items, w["token.in.weight"], w["token.in.bias"]))
	content := g.Linear(hidden, w["token.out.weight"], w["token.out.bias"])
	tokens = g.Add(content, g.Linear(in.marks, w["token.mark"], nil))
	tokens = g.Reshape(tokens, contexts, a.slots(), a.Hidden)
	mean := g.Reshape(g.MatMul(in.share, tokens), contexts, a.Hidden)
	return tokens, g.LayerNorm(mean, normFloor)
}

// rows is what the denoiser reads, as values of a graph. Each context has the same number of rows, R/C, one after another.
type rows struct {
	x        *graph.Value // [R, Dim], noised, model scale
	features *graph.Value // [R, features()]: time features and the label, one-hot
	tokens   *graph.Value // [C, S, H]
	mask     *graph.Value // [C, 1, S], 0 or masked
	user     *graph.Value // [C, H]
	size     *graph.Value // [C, 1], ln(1 + entries)
}

// denoise returns the predicted z₀ [R, Dim].
func (a mlp) denoise(g *graph.Graph, w weights, in rows) *graph.Value {
	defer g.Scope("denoise")()
	h := a.Hidden
	mods := g.Linear(a.condition(g, w, in), w["modulation.weight"], w["modulation.bias"])
	count := a.Blocks*modsBlock + modsFinal
	widths := make([]int, count)
	for i := range widths {
		widths[i] = h
	}
	mod := g.Split(mods, 1, widths...)
	ada := func(x *graph.Value, i int) *graph.Value {
		x = g.LayerNorm(x, normFloor)
		return g.Add(g.Add(x, g.Mul(x, mod[i])), mod[i+1])
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
	return g.SiLU(g.Linear(y, w["condition.out.weight"], w["condition.out.bias"]))
}

// attend is multi-head attention of rows h [R, H] to the tokens of their contexts.
//
// It is written without keys and values: q·(W_k t) = (W_kᵀ q)·t, so each head asks the tokens themselves with a query of width H, and
// W_v is applied after the weighted mean instead of before it. Nothing is computed or stored per token and head. W_q W_kᵀ and W_v W_o
// are products of small matrices; where weights are constants the runtime folds them. A key bias would add the same to all scores of
// a query, and a value bias is one with the output bias: there is neither.
func (a mlp) attend(g *graph.Graph, w weights, block string, h *graph.Value, in rows) *graph.Value {
	count, contexts := h.Shape()[0], in.tokens.Shape()[0]
	width := a.Heads * a.Hidden
	key := g.Mul(w[block+"key.weight"], g.Scalar(1/math.Sqrt(float64(a.Hidden/a.Heads))))
	ask := g.Reshape(g.Transpose(g.MatMul(w[block+"query.weight"], key), 1, 0, 2), a.Hidden, width)
	bias := g.Reshape(g.MatMul(w[block+"query.bias"], key), width)
	give := g.Reshape(g.MatMul(w[block+"value.weight"], w[block+"attention.weight"]), width, a.Hidden)

	queries := g.Reshape(g.Linear(h, ask, bias), contexts, count/contexts*a.Heads, a.Hidden)
	scores := g.Add(g.MatMulTransposed(queries, in.tokens, false, true), in.mask)
	seen := g.Reshape(g.MatMul(g.Softmax(scores), in.tokens), count, width)
	return g.Linear(seen, give, w[block+"attention.bias"])
}

// timeFeatures returns the features of every timestep, [T+1][H]: sines, then cosines, of t/10000^(i/half).
func (a mlp) timeFeatures() [][]float32 {
	half := a.Hidden / 2
	out := make([][]float32, a.Timesteps+1)
	for t := range out {
		out[t] = make([]float32, a.Hidden)
		for i := range half {
			angle := float64(t) * math.Pow(longWave, -float64(i)/float64(half))
			out[t][i] = float32(math.Sin(angle))
			out[t][half+i] = float32(math.Cos(angle))
		}
	}
	return out
}

// ageOf returns the bucket of a newest entry's rank: 0, 1, 2-3, 4-7, 8-15, 16 and more.
func ageOf(rank int) int {
	age := 0
	for rank > 0 && age < numAges-1 {
		rank >>= 1
		age++
	}
	return age
}
