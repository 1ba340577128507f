package graph

import (
	"fmt"
	"slices"
)

// reshape reads the same values under another shape.
type reshape struct{ shape []int }

// Reshape returns x under another shape of the same size.
func (g *Graph) Reshape(x *Value, shape ...int) *Value {
	if x != nil && slices.Equal(x.shape, shape) {
		return x
	}
	return g.one(reshape{shape}, x)
}

func (op reshape) onnx() form { return form{kind: "Reshape", trailing: []trailing{{ints: op.shape}}} }
func (op reshape) infer(in []*Value) ([]valueType, error) {
	if err := arity(in, 1); err != nil {
		return nil, err
	}
	if size(op.shape) != size(in[0].shape) {
		return nil, fmt.Errorf("shape %v cannot become %v", in[0].shape, op.shape)
	}
	return numbers(op.shape), nil
}
func (op reshape) gradient(g *Graph, n *node, dy []*Value) []*Value {
	return []*Value{g.Reshape(dy[0], n.in[0].shape...)}
}
func (op reshape) eval(in, out []array) { copy(out[0].data, in[0].data) }

// transpose permutes dimensions.
type transpose struct{ order []int }

// Transpose returns x with its dimensions in the given order: dimension i of the result is dimension order[i] of x.
func (g *Graph) Transpose(x *Value, order ...int) *Value { return g.one(transpose{order}, x) }

func (op transpose) onnx() form {
	return form{kind: "Transpose", attributes: []attribute{{"perm", op.order}}}
}
func (op transpose) infer(in []*Value) ([]valueType, error) {
	if err := arity(in, 1); err != nil {
		return nil, err
	}
	sorted := slices.Sorted(slices.Values(op.order))
	shape := make([]int, len(op.order))
	for i, d := range op.order {
		if len(sorted) != len(in[0].shape) || sorted[i] != i {
			return nil, fmt.Errorf("%v is no order of the dimensions of %v", op.order, in[0].shape)
		}
		shape[i] = in[0].shape[d]
	}
	return numbers(shape), nil
}
func (op transpose) gradient(g *Graph, n *node, dy []*Value) []*Value {
	back := make([]int, len(op.order))
	for i, d := range op.order {
		back[d] = i
	}
	return []*Value{g.Transpose(dy[0], back...)}
}
func (op transpose) eval(in, out []array) {
	steps := make([]int, len(op.order))
	own := strides(in[0].shape, in[0].shape)
	for i, d := range op.order {
		steps[i] = own[d]
	}
	each(out[0].shape, [][]int{steps}, func(i int, o []int) { out[0].data[i] = in[0].data[o[0]] })
}

// expand stretches dimensions of 1.
type expand struct{ shape []int }

// Expand returns x stretched to shape by the rules of broadcasting.
func (g *Graph) Expand(x *Value, shape ...int) *Value {
	if x != nil && slices.Equal(x.shape, shape) {
		return x
	}
	return g.one(expand{shape}, x)
}

func (op expand) onnx() form { return form{kind: "Expand", trailing: []trailing{{ints: op.shape}}} }
func (op expand) infer(in []*Value) ([]valueType, error) {
	if err := arity(in, 1); err != nil {
		return nil, err
	}
	shape, err := broadcast(in[0].shape, op.shape)
	if err != nil || !slices.Equal(shape, op.shape) {
		return nil, fmt.Errorf("shape %v does not stretch to %v", in[0].shape, op.shape)
	}
	return numbers(shape), nil
}
func (op expand) gradient(g *Graph, n *node, dy []*Value) []*Value {
	return []*Value{g.unbroadcast(dy[0], n.in[0].shape)}
}
func (op expand) eval(in, out []array) {
	each(op.shape, [][]int{strides(in[0].shape, op.shape)}, func(i int, o []int) { out[0].data[i] = in[0].data[o[0]] })
}

// slice is a range along one dimension.
type slice struct{ axis, from, to int }

// Slice returns the part of x at from <= index < to along axis.
func (g *Graph) Slice(x *Value, axis, from, to int) *Value { return g.one(slice{axis, from, to}, x) }

func (op slice) onnx() form {
	return form{kind: "Slice", trailing: []trailing{{ints: []int{op.from}}, {ints: []int{op.to}}, {ints: []int{op.axis}}}}
}
func (op slice) infer(in []*Value) ([]valueType, error) {
	if err := arity(in, 1); err != nil {
		return nil, err
	}
	if err := inRange(op.axis, len(in[0].shape)); err != nil {
		return nil, err
	}
	if op.from < 0 || op.to > in[0].shape[op.axis] || op.from >= op.to {
		return nil, fmt.Errorf("range %d to %d of dimension %d of %v", op.from, op.to, op.axis, in[0].shape)
	}
	return numbers(with(in[0].shape, op.axis, op.to-op.from)), nil
}
func (op slice) gradient(g *Graph, n *node, dy []*Value) []*Value {
	var parts []*Value
	whole := n.in[0].shape
	if op.from > 0 {
		parts = append(parts, g.zeros(with(whole, op.axis, op.from)))
	}
	parts = append(parts, dy[0])
	if rest := whole[op.axis] - op.to; rest > 0 {
		parts = append(parts, g.zeros(with(whole, op.axis, rest)))
	}
	return []*Value{g.Concat(op.axis, parts...)}
}
func (op slice) eval(in, out []array) {
	copyAlong(op.axis, in[0], out[0], op.from, 0, op.to-op.from)
}

// split cuts one dimension into consecutive parts.
type split struct {
	axis  int
	sizes []int
}

// Split cuts x along axis into consecutive parts of the given sizes, which sum to that dimension.
func (g *Graph) Split(x *Value, axis int, sizes ...int) []*Value {
	return slices.Clone(g.apply(split{axis, slices.Clone(sizes)}, x))
}

func (op split) onnx() form {
	return form{kind: "Split", attributes: []attribute{{"axis", op.axis}}, trailing: []trailing{{ints: op.sizes}}}
}
func (op split) infer(in []*Value) ([]valueType, error) {
	if err := arity(in, 1); err != nil {
		return nil, err
	}
	if err := inRange(op.axis, len(in[0].shape)); err != nil {
		return nil, err
	}
	var types []valueType
	total := 0
	for _, n := range op.sizes {
		if n < 1 {
			return nil, fmt.Errorf("a part of size %d", n)
		}
		total += n
		types = append(types, valueType{shape: with(in[0].shape, op.axis, n)})
	}
	if total != in[0].shape[op.axis] {
		return nil, fmt.Errorf("parts of %v sum to %d along axis %d of %v", op.sizes, total, op.axis, in[0].shape)
	}
	return types, nil
}
func (op split) gradient(g *Graph, n *node, dy []*Value) []*Value {
	parts := make([]*Value, len(dy))
	for i, d := range dy {
		if d == nil {
			d = g.zeros(n.out[i].shape)
		}
		parts[i] = d
	}
	return []*Value{g.Concat(op.axis, parts...)}
}
func (op split) eval(in, out []array) {
	from := 0
	for i, n := range op.sizes {
		copyAlong(op.axis, in[0], out[i], from, 0, n)
		from += n
	}
}

// concat joins values along one dimension.
type concat struct{ axis int }

// Concat joins values that differ at most along axis.
func (g *Graph) Concat(axis int, parts ...*Value) *Value {
	if len(parts) == 1 {
		return parts[0]
	}
	return g.one(concat{axis}, parts...)
}

func (op concat) onnx() form { return form{kind: "Concat", attributes: []attribute{{"axis", op.axis}}} }
func (op concat) infer(in []*Value) ([]valueType, error) {
	if len(in) == 0 {
		return nil, fmt.Errorf("nothing to join")
	}
	if err := arity(in, len(in)); err != nil {
		return nil, err
	}
	first := in[0].shape
	if err := inRange(op.axis, len(first)); err != nil {
		return nil, err
	}
	total := 0
	for _, v := range in {
		if len(v.shape) != len(first) || !slices.Equal(with(v.shape, op.axis, 1), with(first, op.axis, 1)) {
			return nil, fmt.Errorf("shapes %v and %v do not join along axis %d", first, v.shape, op.axis)
		}
		total += v.shape[op.axis]
	}
	return numbers(with(first, op.axis, total)), nil
}
func (op concat) gradient(g *Graph, n *node, dy []*Value) []*Value {
	sizes := make([]int, len(n.in))
	for i, v := range n.in {
		sizes[i] = v.shape[op.axis]
	}
	return g.Split(dy[0], op.axis, sizes...)
}
func (op concat) eval(in, out []array) {
	at := 0
	for _, a := range in {
		n := a.shape[op.axis]
		copyAlong(op.axis, a, out[0], 0, at, n)
		at += n
	}
}

// with is shape with one dimension replaced.
func with(shape []int, axis, n int) []int {
	out := slices.Clone(shape)
	out[axis] = n
	return out
}

// zeros adds a constant of zeros.
func (g *Graph) zeros(shape []int) *Value {
	return g.Constant(make([]float32, size(shape)), shape...)
}

// copyAlong copies count positions of axis from one array to another of equal other dimensions.
func copyAlong(axis int, from, to array, fromAt, toAt, count int) {
	inner := size(from.shape[axis+1:])
	fromStep, toStep := from.shape[axis]*inner, to.shape[axis]*inner
	for outer := range size(from.shape[:axis]) {
		src := from.data[outer*fromStep+fromAt*inner:]
		copy(to.data[outer*toStep+toAt*inner:], src[:count*inner])
	}
}
