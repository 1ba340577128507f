package graph

import "fmt"

// array is a tensor of the interpreter, row-major.
type array struct {
	shape []int
	data  []float64
}

func newArray(shape []int) array { return array{shape, make([]float64, size(shape))} }

// Interpret evaluates the graph in float64, one loop per element: the plain twin of a compiled session. It takes the inputs by
// name, row-major, and returns the outputs by name. It panics where an input is missing or has the wrong size.
func (g *Graph) Interpret(inputs map[string][]float64) map[string][]float64 {
	arrays := make(map[*Value]array)
	for _, v := range g.inputs {
		data, ok := inputs[v.name]
		if !ok || len(data) != size(v.shape) {
			panic(fmt.Sprintf("graph: interpreting %s: input %s of shape %v has %d values", g.name, v.name, v.shape, len(data)))
		}
		arrays[v] = array{v.shape, data}
	}
	for _, v := range g.constants {
		a := newArray(v.shape)
		for i, x := range v.data {
			a.data[i] = float64(x)
		}
		arrays[v] = a
	}
	for _, n := range g.reachable(g.outputs) {
		in, out := make([]array, len(n.in)), make([]array, len(n.out))
		for i, v := range n.in {
			in[i] = arrays[v]
		}
		for i, v := range n.out {
			out[i] = newArray(v.shape)
			arrays[v] = out[i]
		}
		n.op.eval(in, out)
	}
	results := make(map[string][]float64)
	for i, v := range g.outputs {
		results[g.names[i]] = arrays[v].data
	}
	return results
}
