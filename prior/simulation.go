package prior

import (
	"fmt"
	"math"

	"rebeca/prior/graph"
)

// simulation is the published prior of the synthetic study (arXiv 2502.18477): a residual network on the embedding beside those of
// user, time and score, whose output is added to its input. Dim is 16 and Hidden 512 there.
//
//	h = gelu(norm(W [x, user, time, score])) ; h = gelu(h + norm(W gelu(norm(W h))))      for each block
//	prediction = x + W h
//
// norm is batch normalization in its inference form, scale · h + shift for each channel. It has rows for known users and for the
// scores dislike and like only, so it knows no guidance. Timestep t here is t - 1 there.
type simulation struct {
	Config
}

const (
	simulationWaves  = 50 // frequencies of the time features, 10000^(-i/49)
	simulationScores = 2
)

func (a simulation) sizes() sizes {
	return sizes{time: 2 * simulationWaves, labels: simulationScores, user: a.Dim}
}

// timeFeatures computes sines, then cosines, with PyTorch's roundings in float32.
func (a simulation) timeFeatures(dst []float32, t int) {
	slope := float32(-math.Log(longWave) / (simulationWaves - 1))
	for i := range simulationWaves {
		frequency := float32(math.Exp(float64(float32(i) * slope)))
		angle := float64(float32(max(t-1, 0)) * frequency)
		dst[i], dst[simulationWaves+i] = float32(math.Sin(angle)), float32(math.Cos(angle))
	}
}

func (a simulation) labelColumn(c Class) (int, bool) {
	if c.Positive() {
		return scoreLike, true
	}
	return scoreDislike, c != ClassNone && c <= NumClasses
}

func (a simulation) layout() *layout {
	l := new(layout)
	h := a.Hidden
	l.add("user.weight", 1, a.Users+1, a.Dim) // the last row is never asked for
	l.add("score.weight", 1, simulationScores, a.Dim)
	norm := func(name string) {
		l.fill(name+".scale", 1, h)
		l.add(name+".shift", 0, h)
	}
	l.torchLinear("in", 3*a.Dim+2*simulationWaves, h)
	norm("in.norm")
	for b := range a.Blocks {
		for _, part := range []string{"first", "second"} {
			l.torchLinear(blockName(b)+part, h, h)
			norm(blockName(b) + part + ".norm")
		}
	}
	l.torchLinear("out", h, a.Dim)
	return l
}

// encode looks the users up: [C, Dim]. There is no memory.
func (a simulation) encode(g *graph.Graph, w weights, in window) (memory, user *graph.Value) {
	defer g.Scope("encode")()
	return nil, g.Linear(in.marks, w["user.weight"], nil)
}

func (a simulation) denoise(g *graph.Graph, w weights, in rows) *graph.Value {
	defer g.Scope("denoise")()
	linear := func(x *graph.Value, name string) *graph.Value { return g.Linear(x, w[name+".weight"], w[name+".bias"]) }
	normed := func(x *graph.Value, name string) *graph.Value {
		return g.Add(g.Mul(linear(x, name), w[name+".norm.scale"]), w[name+".norm.shift"])
	}
	features := g.Split(in.features, 1, 2*simulationWaves, simulationScores)
	score := g.Linear(features[1], w["score.weight"], nil)
	x := g.Gelu(normed(g.Concat(1, in.x, in.perRow(g, in.user), features[0], score), "in"))
	for b := range a.Blocks {
		end := g.Scope(fmt.Sprintf("block.%d", b))
		y := normed(g.Gelu(normed(x, blockName(b)+"first")), blockName(b)+"second")
		x = g.Gelu(g.Add(x, y))
		end()
	}
	return g.Add(in.x, linear(x, "out"))
}
