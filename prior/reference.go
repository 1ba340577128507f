package prior

import (
	"math"

	"rebeca/prior/graph"
)

// reference is the published prior to the letter (arXiv 2502.18477, version 3), so that its weights give its outputs. The embedding
// is cut into T tokens; user, score and time are three tokens that modulate them by their mean and are attended to.
//
//	c = W₂ silu(W₁ mean(user, score, time))
//	x = x + selfattention(ada(x, c)) ; h = ada(x, c), x = h + gate · crossattention(h, [user, score, time]) ; x = x + mlp(ada(x, c))
//	prediction = paste(W x)
//
// Its quirks are kept: cross-attention continues from the normalized stream h, not from x; the time frequencies grow from 1 to
// 10,000 rad a step, with angles in float32; three linear maps follow each other at the output; the keys and values of the condition
// are not normalized; nothing tells a token its position. A user is a row of a learned table whose last row is nobody; the scores
// are dislike, like and none. Timestep t here is t - 1 there: the published prior counts from 0 and has no clean step.
type reference struct {
	Config
}

const (
	referenceWaves   = 128 // frequencies of the time features, each a sine and a cosine
	referenceScores  = 3
	scoreDislike     = 0
	scoreLike        = 1
	scoreNone        = 2
	referenceTopWave = 10000 // rad a step
)

func (a reference) sizes() sizes {
	return sizes{time: 2 * referenceWaves, labels: referenceScores, user: a.Hidden}
}

// timeFeatures computes sines, then cosines, with the roundings of PyTorch's linspace, exp and product in float32: at 1e7 rad a
// unit in the last place of an angle is a radian.
func (a reference) timeFeatures(dst []float32, t int) {
	end := float32(math.Log(referenceTopWave))
	step := end / (referenceWaves - 1)
	for i := range referenceWaves {
		exponent := float32(float64(step) * float64(i))
		if i >= referenceWaves/2 {
			exponent = float32(float64(end) - float64(step)*float64(referenceWaves-1-i))
		}
		frequency := float32(math.Exp(float64(exponent)))
		angle := float64(float32(max(t-1, 0)) * frequency)
		dst[i], dst[referenceWaves+i] = float32(math.Sin(angle)), float32(math.Cos(angle))
	}
}

func (a reference) labelColumn(c Class) (int, bool) {
	switch {
	case c == ClassNone:
		return scoreNone, true
	case c.Positive():
		return scoreLike, true
	}
	return scoreDislike, c <= NumClasses
}

// layout starts with the variances of PyTorch's defaults, drawn normal where PyTorch draws uniform.
func (a reference) layout() *layout {
	l := new(layout)
	h, part := a.Hidden, a.Dim/a.Tokens
	l.torchLinear("in.whole", a.Dim, a.Dim)
	l.torchLinear("in.token", part, h)
	l.add("user.weight", 1, a.Users+1, h)
	l.add("score.weight", 1, referenceScores, h)
	l.torchLinear("time.in", 2*referenceWaves, h)
	l.torchLinear("time.out", h, h)
	l.torchLinear("condition.in", h, h)
	l.torchLinear("condition.out", h, h)
	l.linear("modulation", 0, h, a.Blocks*modsToken*h)
	xavier := math.Sqrt(2 / float64(4*h)) // of the stacked map of queries, keys and values
	l.linear("memory", xavier, h, 2*a.Blocks*h)
	for b := range a.Blocks {
		a.tokenBlock(l, b, blockSpreads{attend: xavier, join: uniform(h), cross: uniform(h), mlp: uniform(h)})
	}
	l.torchLinear("head", h, h)
	l.torchLinear("out.token", h, part)
	l.torchLinear("out.whole", a.Dim, a.Dim)
	return l
}

// uniform is the spread of PyTorch's default draw for a map of n inputs, uniform within ±1/√n.
func uniform(n int) float64 { return 1 / math.Sqrt(3*float64(n)) }

// torchLinear appends a linear map whose weight and bias start with PyTorch's default spread.
func (l *layout) torchLinear(name string, in, out int) {
	l.add(name+".weight", uniform(in), in, out)
	l.add(name+".bias", uniform(in), out)
}

// encode looks the users up: [C, H]. There is no memory.
func (a reference) encode(g *graph.Graph, w weights, in window) (memory, user *graph.Value) {
	defer g.Scope("encode")()
	return nil, g.Linear(in.marks, w["user.weight"], nil)
}

func (a reference) denoise(g *graph.Graph, w weights, in rows) *graph.Value {
	defer g.Scope("denoise")()
	count, h := in.count(), a.Hidden
	features := g.Split(in.features, 1, 2*referenceWaves, referenceScores)
	time := g.Linear(g.SiLU(g.Linear(features[0], w["time.in.weight"], w["time.in.bias"])), w["time.out.weight"], w["time.out.bias"])
	tokens := g.Reshape(g.Concat(1, in.perRow(g, in.user), g.Linear(features[1], w["score.weight"], nil), time), count, 3, h)

	c := g.SiLU(g.Linear(g.ReduceMean(tokens, false, 1), w["condition.in.weight"], w["condition.in.bias"]))
	c = g.Linear(c, w["condition.out.weight"], w["condition.out.bias"])
	ada := a.modulator(g, w, c)
	memory := g.Linear(g.Reshape(tokens, count*3, h), w["memory.weight"], w["memory.bias"])
	parts := g.Split(memory, 1, equal(2*a.Blocks, h)...)

	x := a.cut(g, w, in.x)
	for b := range a.Blocks {
		end := g.Scope(blockName(b))
		name := blockName(b)
		x = g.Add(x, a.selfAttention(g, w, name, ada(x, modsToken*b)))
		normed := ada(x, modsToken*b+2)
		x = g.Add(normed, a.crossAttention(g, w, name, normed, parts[2*b], parts[2*b+1]))
		x = g.Add(x, a.feedForward(g, w, name, ada(x, modsToken*b+4)))
		end()
	}
	return a.paste(g, w, g.Linear(x, w["head.weight"], w["head.bias"]))
}
