package prior

import (
	"rebeca/prior/graph"
)

// Adam's constants (Kingma & Ba 2015), the decoupled weight decay (Loshchilov & Hutter 2019), the clip of the gradient's norm and
// the longest memory of the moving average.
const (
	beta1       = .9
	beta2       = .999
	adamEpsilon = 1e-8
	weightDecay = 1e-4
	clipNorm    = 1
	maxEMADecay = .999
)

// batchLoss declares the inputs of a batch and returns the prediction [R, Dim] and the loss [1]: the mean over real targets and
// dimensions of w_t (prediction - goal)² (see Loss).
func (a *architecture) batchLoss(g *graph.Graph, w weights) (prediction, loss *graph.Value) {
	count, contexts := a.Contexts*a.Targets, a.Contexts
	win := a.windowInputs(g, contexts)
	in := rows{x: g.Input("x", count, a.Dim), features: g.Input("features", count, a.sizes.features())}
	if !a.tabled() {
		in.mask, in.size = g.Input("mask", contexts, 1, a.slots()), g.Input("size", contexts, 1)
	}
	goal, weight := g.Input("goal", count, a.Dim), g.Input("weight", count, 1)
	in.memory, in.user = a.encode(g, w, win)
	prediction = a.denoise(g, w, in)
	errors := g.Mul(g.Square(g.Sub(prediction, goal)), weight)
	return prediction, g.ReduceSum(errors, false, 0, 1)
}

// lossGraph has the flat weights and a batch as inputs, the loss and the predictions as outputs.
func (a *architecture) lossGraph() *graph.Graph {
	g := graph.New("loss")
	l := a.layout()
	w, _ := l.views(g, g.Input("params", l.size))
	prediction, loss := a.batchLoss(g, w)
	g.Output("loss", loss)
	g.Output("prediction", prediction)
	return g
}

// schedule is what changes from step to step besides the data; the training graph reads its fields as inputs in this order.
type schedule struct {
	keep float64 // 1 - lr · weight decay
	rate float64 // lr · sqrt(1 - β₂ᵗ) / (1 - β₁ᵗ)
	tiny float64 // ε · sqrt(1 - β₂ᵗ)
	ema  float64 // weight of the new weights in the moving average
}

const numSchedule = 4

// stepGraph is a whole training step. Inputs are the flat weights, their moving average and Adam's two moments, the schedule and a
// batch; outputs are the four vectors after the step, the loss and the norm of the gradient before clipping.
func (a *architecture) stepGraph() *graph.Graph {
	g := graph.New("step")
	l := a.layout()
	params, ema := g.Input("params", l.size), g.Input("ema", l.size)
	m, v := g.Input("m", l.size), g.Input("v", l.size)
	at := g.Split(g.Input("schedule", numSchedule), 0, 1, 1, 1, 1)
	w, ordered := l.views(g, params)
	_, loss := a.batchLoss(g, w)
	gradient := l.flatten(g, g.Gradients(loss, ordered...))

	defer g.Scope("adamw")()
	squares := g.Square(gradient)
	norm := g.Sqrt(g.ReduceSum(squares, false, 0))
	clip := g.Min(g.Scalar(1), g.Div(g.Scalar(clipNorm), g.Add(norm, g.Scalar(1e-6))))
	m = g.Add(g.Mul(m, g.Scalar(beta1)), g.Mul(gradient, g.Mul(clip, g.Scalar(1-beta1))))
	v = g.Add(g.Mul(v, g.Scalar(beta2)), g.Mul(squares, g.Mul(g.Square(clip), g.Scalar(1-beta2))))
	keep, rate, tiny, mix := at[0], at[1], at[2], at[3]
	update := g.Mul(g.Div(m, g.Add(g.Sqrt(v), tiny)), rate)
	params = g.Sub(g.Mul(params, keep), update)
	ema = g.Add(ema, g.Mul(g.Sub(params, ema), mix))
	for _, out := range []struct {
		name  string
		value *graph.Value
	}{{"next.params", params}, {"next.ema", ema}, {"next.m", m}, {"next.v", v}, {"loss", loss}, {"norm", norm}} {
		g.Output(out.name, out.value)
	}
	return g
}
