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
// dimensions of w_t (prediction - goal)² (see Loss). Windows have so many slots.
func (a *architecture) batchLoss(g *graph.Graph, w weights, slots int) (prediction, loss *graph.Value) {
	count, contexts := a.Contexts*a.Targets, a.Contexts
	win := a.windowInputs(g, contexts, slots)
	in := rows{x: g.Input("x", count, a.Dim), features: g.Input("features", count, a.sizes.features())}
	if !a.HasUserTable() {
		in.mask, in.size = g.Input("mask", contexts, 1, slots), g.Input("size", contexts, 1)
	}
	goal, weight := g.Input("goal", count, a.Dim), g.Input("weight", count, 1)
	in.memory, in.user = a.encode(g, w, win)
	prediction = a.denoise(g, w, in)
	errors := g.Mul(g.Square(g.Sub(prediction, goal)), weight)
	return prediction, g.ReduceSum(errors, false, 0, 1)
}

// lossGraph has the weights by parameter and a batch as inputs, the loss and the predictions as outputs.
func (a *architecture) lossGraph(slots int) *graph.Graph {
	g := graph.New("loss")
	w, _ := a.layout().inputs(g)
	prediction, loss := a.batchLoss(g, w, slots)
	g.Output("loss", loss)
	g.Output("prediction", prediction)
	return g
}

// stepGraph is a training step up to the optimizer, for windows of so many slots. Inputs are the weights by parameter and a batch;
// outputs are the loss, the gradient by parameter and its norm.
func (a *architecture) stepGraph(slots int) *graph.Graph {
	g := graph.New("step")
	l := a.layout()
	w, ordered := l.inputs(g)
	_, loss := a.batchLoss(g, w, slots)
	g.Output("loss", loss)
	outputGradient(g, l, loss, ordered)
	return g
}

// outputGradient makes the gradient of the loss by the parameters of l, in their order, and its norm outputs.
func outputGradient(g *graph.Graph, l *layout, loss *graph.Value, parameters []*graph.Value) {
	gradient := g.Gradients(loss, parameters...)
	squares := make([]*graph.Value, len(gradient))
	for i, d := range gradient {
		g.Output("gradient."+l.parameters[i].name, d)
		axes := make([]int, len(d.Shape()))
		for k := range axes {
			axes[k] = k
		}
		squares[i] = g.Reshape(g.ReduceSumSquare(d, false, axes...), 1)
	}
	g.Output("norm", g.Sqrt(g.ReduceSum(g.Concat(0, squares...), true, 0)))
}
