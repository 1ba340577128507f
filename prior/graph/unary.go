package graph

import "math"

// neg is -x.
type neg struct{}

// Neg returns -x.
func (g *Graph) Neg(x *Value) *Value { return g.one(neg{}, x) }

func (neg) onnx() form                             { return form{kind: "Neg"} }
func (neg) infer(in []*Value) ([]valueType, error) { return inferUnary(in) }
func (neg) eval(in, out []array)                   { unary(in, out, func(x float64) float64 { return -x }) }
func (neg) gradient(g *Graph, n *node, dy []*Value) []*Value {
	return []*Value{g.Neg(dy[0])}
}

// square is x², written as a product of x with itself.
type square struct{}

// Square returns x².
func (g *Graph) Square(x *Value) *Value { return g.one(square{}, x) }

func (square) onnx() form                             { return form{kind: "Mul", repeat: true} }
func (square) infer(in []*Value) ([]valueType, error) { return inferUnary(in) }
func (square) eval(in, out []array)                   { unary(in, out, func(x float64) float64 { return x * x }) }
func (square) gradient(g *Graph, n *node, dy []*Value) []*Value {
	return []*Value{g.Mul(g.Mul(dy[0], n.in[0]), g.Scalar(2))}
}

// sqrt is the square root.
type sqrt struct{}

// Sqrt returns the square root of x, which must not be negative; its gradient at 0 is infinite.
func (g *Graph) Sqrt(x *Value) *Value { return g.one(sqrt{}, x) }

func (sqrt) onnx() form                             { return form{kind: "Sqrt"} }
func (sqrt) infer(in []*Value) ([]valueType, error) { return inferUnary(in) }
func (sqrt) eval(in, out []array)                   { unary(in, out, math.Sqrt) }
func (sqrt) gradient(g *Graph, n *node, dy []*Value) []*Value {
	return []*Value{g.Div(g.Mul(dy[0], g.Scalar(.5)), n.out[0])}
}

// exp is eˣ.
type exp struct{}

// Exp returns e to the power of x.
func (g *Graph) Exp(x *Value) *Value { return g.one(exp{}, x) }

func (exp) onnx() form                             { return form{kind: "Exp"} }
func (exp) infer(in []*Value) ([]valueType, error) { return inferUnary(in) }
func (exp) eval(in, out []array)                   { unary(in, out, math.Exp) }
func (exp) gradient(g *Graph, n *node, dy []*Value) []*Value {
	return []*Value{g.Mul(dy[0], n.out[0])}
}

// log is the natural logarithm.
type log struct{}

// Log returns the natural logarithm of x.
func (g *Graph) Log(x *Value) *Value { return g.one(log{}, x) }

func (log) onnx() form                             { return form{kind: "Log"} }
func (log) infer(in []*Value) ([]valueType, error) { return inferUnary(in) }
func (log) eval(in, out []array)                   { unary(in, out, math.Log) }
func (log) gradient(g *Graph, n *node, dy []*Value) []*Value {
	return []*Value{g.Div(dy[0], n.in[0])}
}

// erf is the error function.
type erf struct{}

// Erf returns the error function of x.
func (g *Graph) Erf(x *Value) *Value { return g.one(erf{}, x) }

func (erf) onnx() form                             { return form{kind: "Erf"} }
func (erf) infer(in []*Value) ([]valueType, error) { return inferUnary(in) }
func (erf) eval(in, out []array)                   { unary(in, out, math.Erf) }
func (erf) gradient(g *Graph, n *node, dy []*Value) []*Value {
	slope := g.Mul(g.Exp(g.Neg(g.Square(n.in[0]))), g.Scalar(2/math.Sqrt(math.Pi)))
	return []*Value{g.Mul(dy[0], slope)}
}

// sigmoid is 1/(1+e⁻ˣ).
type sigmoid struct{}

// Sigmoid returns 1/(1+e⁻ˣ).
func (g *Graph) Sigmoid(x *Value) *Value { return g.one(sigmoid{}, x) }

func (sigmoid) onnx() form                             { return form{kind: "Sigmoid"} }
func (sigmoid) infer(in []*Value) ([]valueType, error) { return inferUnary(in) }
func (sigmoid) eval(in, out []array) {
	unary(in, out, func(x float64) float64 { return 1 / (1 + math.Exp(-x)) })
}
func (sigmoid) gradient(g *Graph, n *node, dy []*Value) []*Value {
	slope := g.Sub(n.out[0], g.Square(n.out[0]))
	return []*Value{g.Mul(dy[0], slope)}
}

// tanh is the hyperbolic tangent.
type tanh struct{}

// Tanh returns the hyperbolic tangent of x.
func (g *Graph) Tanh(x *Value) *Value { return g.one(tanh{}, x) }

func (tanh) onnx() form                             { return form{kind: "Tanh"} }
func (tanh) infer(in []*Value) ([]valueType, error) { return inferUnary(in) }
func (tanh) eval(in, out []array)                   { unary(in, out, math.Tanh) }
func (tanh) gradient(g *Graph, n *node, dy []*Value) []*Value {
	slope := g.Sub(g.Scalar(1), g.Square(n.out[0]))
	return []*Value{g.Mul(dy[0], slope)}
}

// gelu is x Φ(x) with the normal distribution function Φ (Hendrycks & Gimpel 2016), exact, not the tanh approximation.
type gelu struct{}

// Gelu returns x Φ(x).
func (g *Graph) Gelu(x *Value) *Value { return g.one(gelu{}, x) }

func (gelu) onnx() form                             { return form{kind: "Gelu"} }
func (gelu) infer(in []*Value) ([]valueType, error) { return inferUnary(in) }
func (gelu) eval(in, out []array) {
	unary(in, out, func(x float64) float64 { return x * (1 + math.Erf(x/math.Sqrt2)) / 2 })
}

// The derivative is Φ(x) + x φ(x) = (½ + ½ erf(u)) + x / exp(u²) / √(2π) with u = x/√2: where exp overflows the quotient is 0, as it
// should be. This is the dearest elementwise chain of a step; every node is a pass over memory.
func (gelu) gradient(g *Graph, n *node, dy []*Value) []*Value {
	x := n.in[0]
	u := g.Mul(x, g.Scalar(1/math.Sqrt2))
	bell := g.Mul(g.Div(x, g.Exp(g.Square(u))), g.Scalar(1/math.Sqrt(2*math.Pi)))
	half := g.one(hardSigmoid{.5, .5}, g.Erf(u))
	return []*Value{g.Mul(dy[0], g.Add(half, bell))}
}

// hardSigmoid is slope·x + offset within 0 and 1: an affine map of one pass where its bounds are known.
type hardSigmoid struct{ slope, offset float32 }

func (op hardSigmoid) onnx() form {
	return form{kind: "HardSigmoid", attributes: []attribute{{"alpha", op.slope}, {"beta", op.offset}}}
}
func (hardSigmoid) infer(in []*Value) ([]valueType, error) { return inferUnary(in) }
func (op hardSigmoid) eval(in, out []array) {
	unary(in, out, func(x float64) float64 { return min(max(float64(op.slope)*x+float64(op.offset), 0), 1) })
}

// The derivative is that of the unbounded map within the bounds, 0 outside and on them.
func (op hardSigmoid) gradient(g *Graph, n *node, dy []*Value) []*Value {
	y, zero := n.out[0], g.Scalar(0)
	above := g.Where(g.Less(zero, y), g.Mul(dy[0], g.Scalar(float64(op.slope))), zero)
	return []*Value{g.Where(g.Less(y, g.Scalar(1)), above, zero)}
}

// SiLU returns x · sigmoid(x).
func (g *Graph) SiLU(x *Value) *Value { return g.Mul(x, g.Sigmoid(x)) }

func inferUnary(in []*Value) ([]valueType, error) {
	if err := arity(in, 1); err != nil {
		return nil, err
	}
	return numbers(in[0].shape), nil
}

func unary(in, out []array, f func(x float64) float64) {
	for i, x := range in[0].data {
		out[0].data[i] = f(x)
	}
}
