// Package graph builds ONNX models and their gradients in Go.
//
// A Graph is a list of nodes over values of fixed shape. Builder methods add a node, check its shapes and return its output:
//
//	g := graph.New("square")
//	x := g.Input("x", 4, 3)
//	w := g.Input("w", 3, 2)
//	loss := g.ReduceSum(g.Square(g.MatMul(x, w)), false, 0, 1)
//	g.Output("loss", loss)
//	g.Output("dw", g.Gradients(loss, w)[0])
//	session, err := g.Compile(ort.Options{})
//
// Gradients does reverse mode: it adds the nodes that compute the derivative, so that a training step is one ordinary ONNX graph
// which stock ONNX Runtime, without its training build, executes. Interpret runs the same graph in Go in float64, slowly: it is the
// twin that operators and whole models are tested against.
//
// An operator is one Go type with four methods side by side: its shapes, its ONNX form, its gradient and its float64 evaluation
// (see the operator interface and the table in operators.go).
//
// Wrong use of the builder is a bug of the caller and panics with "graph: <operator> <node>: …".
package graph

import (
	"fmt"
	"slices"
	"strings"

	"rebeca/internal/ort"
)

// Graph is a model under construction. It is not safe for concurrent use.
type Graph struct {
	name      string
	scope     []string
	nodes     []*node
	inputs    []*Value
	constants []*Value
	outputs   []*Value // of the model, in the order of Output
	names     []string // of outputs
}

// Value is a tensor of the graph: an input, a constant or a node's output. It belongs to the graph that made it.
type Value struct {
	graph *Graph
	name  string
	shape []int
	truth bool      // holds bool, not float32
	data  []float32 // of a constant
	node  *node     // that computes it; nil for inputs and constants
}

// Shape returns a copy of the value's shape. The shape of a scalar is empty.
func (v *Value) Shape() []int { return slices.Clone(v.shape) }

// node is one application of an operator.
type node struct {
	op      operator
	name    string
	in, out []*Value
}

// New returns an empty graph. The name stands in the model file.
func New(name string) *Graph { return &Graph{name: name} }

// Scope puts the names of nodes added from now on under name, until the returned function is called.
func (g *Graph) Scope(name string) (end func()) {
	g.scope = append(g.scope, name)
	return func() { g.scope = g.scope[:len(g.scope)-1] }
}

// Input declares an input of the model, of one dimension at least. Inputs keep the order of their declaration.
func (g *Graph) Input(name string, shape ...int) *Value {
	for _, v := range g.inputs {
		if v.name == name {
			panic("graph: input " + name + ": declared twice")
		}
	}
	if len(shape) == 0 {
		panic("graph: input " + name + ": needs a dimension; a single number is of shape [1]")
	}
	checkShape("input "+name, shape)
	v := &Value{graph: g, name: name, shape: slices.Clone(shape)}
	g.inputs = append(g.inputs, v)
	return v
}

// Constant adds values that are stored in the model, row-major. data is not copied.
func (g *Graph) Constant(data []float32, shape ...int) *Value {
	name := fmt.Sprintf("constant_%d", len(g.constants))
	checkShape(name, shape)
	if size(shape) != len(data) {
		panic(fmt.Sprintf("graph: %s: shape %v does not fit %d values", name, shape, len(data)))
	}
	v := &Value{graph: g, name: name, shape: slices.Clone(shape), data: data}
	g.constants = append(g.constants, v)
	return v
}

// Scalar adds a constant without dimensions.
func (g *Graph) Scalar(v float64) *Value { return g.Constant([]float32{float32(v)}) }

func checkShape(what string, shape []int) {
	for _, n := range shape {
		if n < 1 {
			panic(fmt.Sprintf("graph: %s: shape %v has a dimension below 1", what, shape))
		}
	}
}

// Output makes v an output of the model under name. Outputs keep the order of these calls. A scalar becomes an output of shape [1].
func (g *Graph) Output(name string, v *Value) {
	if err := g.own(v); err != nil {
		panic(fmt.Sprintf("graph: output %s: %v", name, err))
	}
	if v.truth {
		panic("graph: output " + name + ": is a comparison, not numbers")
	}
	if slices.Contains(g.names, name) {
		panic("graph: output " + name + ": declared twice")
	}
	if len(v.shape) == 0 {
		v = g.Reshape(v, 1)
	}
	g.outputs = append(g.outputs, v)
	g.names = append(g.names, name)
}

// Compile builds an ONNX Runtime session. Its tensors are the graph's inputs and outputs in the order of their declaration.
func (g *Graph) Compile(o ort.Options) (*ort.Session, error) {
	inputs := make([]string, len(g.inputs))
	for i, v := range g.inputs {
		inputs[i] = v.name
	}
	session, err := ort.NewSession(g.Marshal(), inputs, g.names, o)
	if err != nil {
		return nil, fmt.Errorf("graph %s: %w", g.name, err)
	}
	return session, nil
}

// apply adds a node and returns its outputs.
func (g *Graph) apply(op operator, in ...*Value) []*Value {
	n := &node{op: op, in: in}
	n.name = strings.Join(append(slices.Clone(g.scope), fmt.Sprintf("%s_%d", op.onnx().kind, len(g.nodes))), "/")
	err := g.own(in...)
	var types []valueType
	if err == nil {
		types, err = op.infer(in)
	}
	if err != nil {
		panic(fmt.Sprintf("graph: %s %s: %v", op.onnx().kind, n.name, err))
	}
	for i, t := range types {
		name := n.name
		if i > 0 {
			name = fmt.Sprintf("%s:%d", n.name, i)
		}
		n.out = append(n.out, &Value{graph: g, name: name, shape: t.shape, truth: t.truth, node: n})
	}
	g.nodes = append(g.nodes, n)
	return n.out
}

// own checks that the values are there and of this graph.
func (g *Graph) own(values ...*Value) error {
	for i, v := range values {
		if v == nil {
			return fmt.Errorf("input %d is nil", i)
		}
		if v.graph != g {
			return fmt.Errorf("input %s is of graph %s, not of %s", v.name, v.graph.name, g.name)
		}
	}
	return nil
}

// one adds a node with a single output.
func (g *Graph) one(op operator, in ...*Value) *Value { return g.apply(op, in...)[0] }

// reachable returns the nodes that the values depend on, in order of creation, which is an order of evaluation.
func (g *Graph) reachable(values []*Value) []*node {
	return g.reachableBy(values, func(n *node) []*Value { return n.in })
}

// reachableBy is reachable for nodes that read the given values.
func (g *Graph) reachableBy(values []*Value, reads func(*node) []*Value) []*node {
	needed := make(map[*node]bool)
	stack := slices.Clone(values)
	for len(stack) > 0 {
		v := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if v.node == nil || needed[v.node] {
			continue
		}
		needed[v.node] = true
		stack = append(stack, reads(v.node)...)
	}
	var out []*node
	for _, n := range g.nodes {
		if needed[n] {
			out = append(out, n)
		}
	}
	return out
}
