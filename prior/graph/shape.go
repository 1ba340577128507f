package graph

import (
	"fmt"
	"slices"
)

func size(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// broadcast returns the common shape of a and b by the rules of NumPy: shapes are aligned at the end, and a dimension of 1 stretches.
func broadcast(a, b []int) ([]int, error) {
	out := make([]int, max(len(a), len(b)))
	for i := range out {
		x, y := fromEnd(a, len(out)-i), fromEnd(b, len(out)-i)
		switch {
		case x == y || y == 1:
			out[i] = x
		case x == 1:
			out[i] = y
		default:
			return nil, fmt.Errorf("shapes %v and %v do not broadcast", a, b)
		}
	}
	return out, nil
}

// fromEnd returns the i-th dimension from the end, counted from 1; 1 where the shape is shorter.
func fromEnd(shape []int, i int) int {
	if i > len(shape) {
		return 1
	}
	return shape[len(shape)-i]
}

// strides returns the row-major steps of shape, with 0 for dimensions that stretch to those of out; out is as long or longer.
func strides(shape, out []int) []int {
	s := make([]int, len(out))
	step := 1
	for i := 1; i <= len(shape); i++ {
		if n := shape[len(shape)-i]; n != 1 {
			s[len(out)-i] = step
			step *= n
		}
	}
	return s
}

// each calls f for every position of shape in row-major order with the offsets into tensors of the given strides.
func each(shape []int, steps [][]int, f func(i int, offsets []int)) {
	index := make([]int, len(shape))
	offsets := make([]int, len(steps))
	for i := range size(shape) {
		f(i, offsets)
		for d := len(shape) - 1; d >= 0; d-- {
			index[d]++
			for k, s := range steps {
				offsets[k] += s[d]
			}
			if index[d] < shape[d] {
				break
			}
			for k, s := range steps {
				offsets[k] -= s[d] * shape[d]
			}
			index[d] = 0
		}
	}
}

// unbroadcast sums v, whose shape a value of the wanted shape was stretched to, back to that shape.
func (g *Graph) unbroadcast(v *Value, want []int) *Value {
	if slices.Equal(v.shape, want) {
		return v
	}
	lead := len(v.shape) - len(want)
	var axes []int
	for d := range v.shape {
		if d < lead || want[d-lead] != v.shape[d] {
			axes = append(axes, d)
		}
	}
	if len(axes) > 0 {
		v = g.ReduceSum(v, true, axes...)
	}
	return g.Reshape(v, want...)
}

// inRange checks that axis is one of rank dimensions.
func inRange(axis, rank int) error {
	if axis < 0 || axis >= rank {
		return fmt.Errorf("axis %d of %d dimensions", axis, rank)
	}
	return nil
}
