package graph

import (
	"fmt"
	"math"
	"slices"
)

// reduction names the dimensions that a reduction removes.
type reduction struct {
	axes []int
	keep bool // as dimensions of 1
}

func (r reduction) form(kind string) form {
	return form{kind: kind, attributes: []attribute{{"keepdims", flag(r.keep)}}, trailing: []trailing{{ints: r.axes}}}
}

func (r reduction) infer(in []*Value) ([]valueType, error) {
	if err := arity(in, 1); err != nil {
		return nil, err
	}
	if len(r.axes) == 0 {
		return nil, fmt.Errorf("no axes")
	}
	for i, a := range r.axes {
		if err := inRange(a, len(in[0].shape)); err != nil {
			return nil, err
		}
		if slices.Contains(r.axes[:i], a) {
			return nil, fmt.Errorf("axis %d twice", a)
		}
	}
	if r.keep {
		return numbers(r.kept(in[0].shape)), nil
	}
	var shape []int
	for d, n := range in[0].shape {
		if !slices.Contains(r.axes, d) {
			shape = append(shape, n)
		}
	}
	return numbers(shape), nil
}

// kept is shape with the reduced dimensions 1.
func (r reduction) kept(shape []int) []int {
	out := slices.Clone(shape)
	for _, a := range r.axes {
		out[a] = 1
	}
	return out
}

// count is the number of values that become one.
func (r reduction) count(shape []int) int {
	n := 1
	for _, a := range r.axes {
		n *= shape[a]
	}
	return n
}

func (r reduction) sum(in, out []array) {
	shape := in[0].shape
	each(shape, [][]int{strides(r.kept(shape), shape)}, func(i int, o []int) {
		out[0].data[o[0]] += in[0].data[i]
	})
}

// reduceSum is the sum over some dimensions.
type reduceSum struct{ reduction }

// ReduceSum returns the sum of x over axes; keep leaves them as dimensions of 1.
func (g *Graph) ReduceSum(x *Value, keep bool, axes ...int) *Value {
	return g.one(reduceSum{reduction{axes, keep}}, x)
}

func (op reduceSum) onnx() form           { return op.form("ReduceSum") }
func (op reduceSum) eval(in, out []array) { op.sum(in, out) }
func (op reduceSum) gradient(g *Graph, n *node, dy []*Value) []*Value {
	x := n.in[0]
	return []*Value{g.Expand(g.Reshape(dy[0], op.kept(x.shape)...), x.shape...)}
}

// reduceSumSquare is the sum of squares over some dimensions.
type reduceSumSquare struct{ reduction }

// ReduceSumSquare returns the sum of x² over axes; keep leaves them as dimensions of 1.
func (g *Graph) ReduceSumSquare(x *Value, keep bool, axes ...int) *Value {
	return g.one(reduceSumSquare{reduction{axes, keep}}, x)
}

func (op reduceSumSquare) onnx() form { return op.form("ReduceSumSquare") }
func (op reduceSumSquare) eval(in, out []array) {
	squares := newArray(in[0].shape)
	for i, x := range in[0].data {
		squares.data[i] = x * x
	}
	op.sum([]array{squares}, out)
}
func (op reduceSumSquare) gradient(g *Graph, n *node, dy []*Value) []*Value {
	x := n.in[0]
	return []*Value{g.Mul(x, g.Mul(g.Reshape(dy[0], op.kept(x.shape)...), g.Scalar(2)))}
}

// reduceMean is the mean over some dimensions.
type reduceMean struct{ reduction }

// ReduceMean returns the mean of x over axes; keep leaves them as dimensions of 1.
func (g *Graph) ReduceMean(x *Value, keep bool, axes ...int) *Value {
	return g.one(reduceMean{reduction{axes, keep}}, x)
}

func (op reduceMean) onnx() form { return op.form("ReduceMean") }
func (op reduceMean) eval(in, out []array) {
	op.sum(in, out)
	for i := range out[0].data {
		out[0].data[i] /= float64(op.count(in[0].shape))
	}
}
func (op reduceMean) gradient(g *Graph, n *node, dy []*Value) []*Value {
	x := n.in[0]
	d := g.Mul(dy[0], g.Scalar(1/float64(op.count(x.shape))))
	return []*Value{g.Expand(g.Reshape(d, op.kept(x.shape)...), x.shape...)}
}

// softmax normalizes exponentials over the last dimension.
type softmax struct{}

// Softmax returns exp(x) divided by its sum over the last dimension.
func (g *Graph) Softmax(x *Value) *Value { return g.one(softmax{}, x) }

func (softmax) onnx() form                             { return form{kind: "Softmax", attributes: []attribute{{"axis", -1}}} }
func (softmax) infer(in []*Value) ([]valueType, error) { return inferLast(in) }
func (softmax) gradient(g *Graph, n *node, dy []*Value) []*Value {
	y := n.out[0]
	weighted := g.Mul(dy[0], y)
	return []*Value{g.Sub(weighted, g.Mul(y, g.lastSums(weighted)))}
}
func (softmax) eval(in, out []array) {
	lastRows(in[0], out[0], func(x, y []float64) {
		top, sum := slices.Max(x), 0.
		for i := range x {
			y[i] = math.Exp(x[i] - top)
			sum += y[i]
		}
		for i := range y {
			y[i] /= sum
		}
	})
}

// shortRow is the longest row that lastSums sums by a product.
const shortRow = 8

// lastSums returns the sums over the last dimension, kept as one of 1. Short rows are summed by a product with ones that leaves the
// sum in every place of the row: the runtime stretches a dimension of 1 to 3 at several times the cost of the arithmetic.
func (g *Graph) lastSums(x *Value) *Value {
	last := len(x.shape) - 1
	width := x.shape[last]
	if width > shortRow {
		return g.ReduceSum(x, true, last)
	}
	ones := g.Constant(slices.Repeat([]float32{1}, width*width), width, width)
	return g.Reshape(g.gemm(g.Reshape(x, size(x.shape)/width, width), ones, false, false), x.shape...)
}

// layerNorm centres and scales the last dimension. Its outputs are the result and, for the gradient, mean and 1/deviation.
type layerNorm struct {
	epsilon float32
	width   int // of the last dimension
}

// LayerNorm returns (x - mean)/sqrt(variance + epsilon) over the last dimension, without learned scale or shift.
func (g *Graph) LayerNorm(x *Value, epsilon float64) *Value {
	width := 0
	if x != nil && len(x.shape) > 0 {
		width = x.shape[len(x.shape)-1]
	}
	return g.one(layerNorm{float32(epsilon), width}, x)
}

func (op layerNorm) onnx() form {
	return form{kind: "LayerNormalization", attributes: []attribute{{"axis", -1}, {"epsilon", op.epsilon}},
		trailing: []trailing{{floats: slices.Repeat([]float32{1}, op.width)}}}
}
func (op layerNorm) infer(in []*Value) ([]valueType, error) {
	types, err := inferLast(in)
	if err != nil {
		return nil, err
	}
	row := slices.Clone(in[0].shape)
	row[len(row)-1] = 1
	return append(types, valueType{shape: row}, valueType{shape: row}), nil
}
func (op layerNorm) gradient(g *Graph, n *node, dy []*Value) []*Value {
	d, y, inverse := dy[0], n.out[0], n.out[2]
	last := len(y.shape) - 1
	along := g.Mul(y, g.ReduceMean(g.Mul(d, y), true, last))
	return []*Value{g.Mul(g.Sub(g.Sub(d, g.ReduceMean(d, true, last)), along), inverse)}
}
func (op layerNorm) eval(in, out []array) {
	row := 0
	lastRows(in[0], out[0], func(x, y []float64) {
		var mean, variance float64
		for _, v := range x {
			mean += v / float64(len(x))
		}
		for _, v := range x {
			variance += (v - mean) * (v - mean) / float64(len(x))
		}
		inverse := 1 / math.Sqrt(variance+float64(op.epsilon))
		for i, v := range x {
			y[i] = (v - mean) * inverse
		}
		out[1].data[row], out[2].data[row] = mean, inverse
		row++
	})
}

func inferLast(in []*Value) ([]valueType, error) {
	if err := arity(in, 1); err != nil {
		return nil, err
	}
	if len(in[0].shape) == 0 {
		return nil, fmt.Errorf("a scalar has no last dimension")
	}
	return numbers(in[0].shape), nil
}

// lastRows calls f with each row of the last dimension.
func lastRows(in, out array, f func(x, y []float64)) {
	width := in.shape[len(in.shape)-1]
	for i := 0; i < len(in.data); i += width {
		f(in.data[i:i+width], out.data[i:i+width])
	}
}
