package graph

// Flops returns the floating point operations of the matrix products that the outputs need, a multiplication and an addition for
// each pair of factors. What is elementwise is not counted, nor what the runtime saves or adds when it rewrites the graph.
func (g *Graph) Flops() float64 {
	var total float64
	for _, n := range g.reachable(g.outputs) {
		var inner int
		switch op := n.op.(type) {
		case matmul:
			_, inner = matrix(n.in[0].shape, op.transA)
		case gemm:
			_, inner = matrix(n.in[0].shape, op.transA)
		}
		total += 2 * float64(inner) * float64(size(n.out[0].shape))
	}
	return total
}

// Nodes returns the number of nodes that the outputs need, before the runtime rewrites the graph.
func (g *Graph) Nodes() int { return len(g.reachable(g.outputs)) }

// InputNames returns the names of the inputs, in the order of their declaration.
func (g *Graph) InputNames() []string {
	out := make([]string, len(g.inputs))
	for i, v := range g.inputs {
		out[i] = v.name
	}
	return out
}

// InputShapes returns the shapes of the inputs, in the order of their declaration.
func (g *Graph) InputShapes() [][]int { return shapes(g.inputs) }

// OutputShapes returns the shapes of the outputs, in the order of their declaration.
func (g *Graph) OutputShapes() [][]int { return shapes(g.outputs) }

func shapes(values []*Value) [][]int {
	out := make([][]int, len(values))
	for i, v := range values {
		out[i] = v.Shape()
	}
	return out
}
