package graph

import "math"

// Operators on two values stretch them to their common shape (NumPy's rules).

// add is a + b.
type add struct{}

// Add returns a + b.
func (g *Graph) Add(a, b *Value) *Value { return g.one(add{}, a, b) }

func (add) onnx() form                             { return form{kind: "Add"} }
func (add) infer(in []*Value) ([]valueType, error) { return inferBinary(in) }
func (add) eval(in, out []array)                   { binary(in, out, func(a, b float64) float64 { return a + b }) }
func (add) gradient(g *Graph, n *node, dy []*Value) []*Value {
	return g.unbroadcastBoth(n, dy[0], dy[0])
}

// sub is a - b.
type sub struct{}

// Sub returns a - b.
func (g *Graph) Sub(a, b *Value) *Value { return g.one(sub{}, a, b) }

func (sub) onnx() form                             { return form{kind: "Sub"} }
func (sub) infer(in []*Value) ([]valueType, error) { return inferBinary(in) }
func (sub) eval(in, out []array)                   { binary(in, out, func(a, b float64) float64 { return a - b }) }
func (sub) gradient(g *Graph, n *node, dy []*Value) []*Value {
	d := g.unbroadcastBoth(n, dy[0], dy[0])
	return []*Value{d[0], g.Neg(d[1])}
}

// mul is a · b, element by element.
type mul struct{}

// Mul returns the product of a and b, element by element.
func (g *Graph) Mul(a, b *Value) *Value { return g.one(mul{}, a, b) }

func (mul) onnx() form                             { return form{kind: "Mul"} }
func (mul) infer(in []*Value) ([]valueType, error) { return inferBinary(in) }
func (mul) eval(in, out []array)                   { binary(in, out, func(a, b float64) float64 { return a * b }) }
func (mul) gradient(g *Graph, n *node, dy []*Value) []*Value {
	return g.unbroadcastBoth(n, g.Mul(dy[0], n.in[1]), g.Mul(dy[0], n.in[0]))
}

// div is a / b.
type div struct{}

// Div returns a / b, element by element.
func (g *Graph) Div(a, b *Value) *Value { return g.one(div{}, a, b) }

func (div) onnx() form                             { return form{kind: "Div"} }
func (div) infer(in []*Value) ([]valueType, error) { return inferBinary(in) }
func (div) eval(in, out []array)                   { binary(in, out, func(a, b float64) float64 { return a / b }) }
func (div) gradient(g *Graph, n *node, dy []*Value) []*Value {
	da := g.Div(dy[0], n.in[1])
	return g.unbroadcastBoth(n, da, g.Neg(g.Mul(da, n.out[0])))
}

// minimum is the smaller of a and b.
type minimum struct{}

// Min returns the smaller of a and b, element by element. Where they are equal the gradient goes to a.
func (g *Graph) Min(a, b *Value) *Value { return g.one(minimum{}, a, b) }

func (minimum) onnx() form                             { return form{kind: "Min"} }
func (minimum) infer(in []*Value) ([]valueType, error) { return inferBinary(in) }
func (minimum) eval(in, out []array)                   { binary(in, out, math.Min) }
func (minimum) gradient(g *Graph, n *node, dy []*Value) []*Value {
	second := g.Less(n.in[1], n.in[0])
	zero := g.Scalar(0)
	return g.unbroadcastBoth(n, g.Where(second, zero, dy[0]), g.Where(second, dy[0], zero))
}

// maximum is the larger of a and b.
type maximum struct{}

// Max returns the larger of a and b, element by element. Where they are equal the gradient goes to a.
func (g *Graph) Max(a, b *Value) *Value { return g.one(maximum{}, a, b) }

func (maximum) onnx() form                             { return form{kind: "Max"} }
func (maximum) infer(in []*Value) ([]valueType, error) { return inferBinary(in) }
func (maximum) eval(in, out []array)                   { binary(in, out, math.Max) }
func (maximum) gradient(g *Graph, n *node, dy []*Value) []*Value {
	second := g.Less(n.in[0], n.in[1])
	zero := g.Scalar(0)
	return g.unbroadcastBoth(n, g.Where(second, zero, dy[0]), g.Where(second, dy[0], zero))
}

// less is a < b.
type less struct{}

// Less returns the comparison a < b, a condition for Where.
func (g *Graph) Less(a, b *Value) *Value { return g.one(less{}, a, b) }

func (less) onnx() form { return form{kind: "Less"} }
func (less) infer(in []*Value) ([]valueType, error) {
	types, err := inferBinary(in)
	if err != nil {
		return nil, err
	}
	types[0].truth = true
	return types, nil
}
func (less) eval(in, out []array) {
	binary(in, out, func(a, b float64) float64 {
		if a < b {
			return 1
		}
		return 0
	})
}
func (less) gradient(*Graph, *node, []*Value) []*Value { return []*Value{nil, nil} }

func inferBinary(in []*Value) ([]valueType, error) {
	if err := arity(in, 2); err != nil {
		return nil, err
	}
	shape, err := broadcast(in[0].shape, in[1].shape)
	return numbers(shape), err
}

func binary(in, out []array, f func(a, b float64) float64) {
	shape := out[0].shape
	each(shape, [][]int{strides(in[0].shape, shape), strides(in[1].shape, shape)}, func(i int, o []int) {
		out[0].data[i] = f(in[0].data[o[0]], in[1].data[o[1]])
	})
}

func (g *Graph) unbroadcastBoth(n *node, da, db *Value) []*Value {
	return []*Value{g.unbroadcast(da, n.in[0].shape), g.unbroadcast(db, n.in[1].shape)}
}

// where chooses between two values.
type where struct{}

// Where returns a where condition holds and b elsewhere. All three stretch to their common shape.
func (g *Graph) Where(condition, a, b *Value) *Value { return g.one(where{}, condition, a, b) }

func (where) onnx() form { return form{kind: "Where"} }
func (where) infer(in []*Value) ([]valueType, error) {
	if len(in) != 3 || !in[0].truth {
		return nil, errCondition
	}
	if err := allNumbers(in[1:]); err != nil {
		return nil, err
	}
	shape, err := broadcast(in[1].shape, in[2].shape)
	if err != nil {
		return nil, err
	}
	shape, err = broadcast(in[0].shape, shape)
	return numbers(shape), err
}
func (where) eval(in, out []array) {
	shape := out[0].shape
	steps := [][]int{strides(in[0].shape, shape), strides(in[1].shape, shape), strides(in[2].shape, shape)}
	each(shape, steps, func(i int, o []int) {
		if in[0].data[o[0]] != 0 {
			out[0].data[i] = in[1].data[o[1]]
		} else {
			out[0].data[i] = in[2].data[o[2]]
		}
	})
}
func (where) gradient(g *Graph, n *node, dy []*Value) []*Value {
	zero := g.Scalar(0)
	da, db := g.Where(n.in[0], dy[0], zero), g.Where(n.in[0], zero, dy[0])
	return []*Value{nil, g.unbroadcast(da, n.in[1].shape), g.unbroadcast(db, n.in[2].shape)}
}
