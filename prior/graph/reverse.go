package graph

import (
	"fmt"
	"slices"
)

// Gradients adds the nodes of reverse-mode differentiation and returns the derivative of loss, which must have one element, by each
// of wrt, in their shapes. It panics where loss does not depend on one of them.
//
// Nodes are visited against their order of creation, which is an order of evaluation, so all derivatives by a node's outputs are
// summed before the node passes them on.
func (g *Graph) Gradients(loss *Value, wrt ...*Value) []*Value {
	if err := g.own(append([]*Value{loss}, wrt...)...); err != nil {
		panic(fmt.Sprintf("graph: gradient: %v", err))
	}
	if size(loss.shape) != 1 || loss.truth {
		panic(fmt.Sprintf("graph: gradient of %s: a loss has one element, this has shape %v", loss.name, loss.shape))
	}
	active := g.influenced(wrt)
	defer g.Scope("gradient")()
	sums := map[*Value]*Value{loss: g.Constant([]float32{1}, loss.shape...)}
	nodes := g.reachable([]*Value{loss})
	for _, n := range slices.Backward(nodes) {
		if !slices.ContainsFunc(n.in, func(v *Value) bool { return active[v] }) {
			continue
		}
		dy, any := make([]*Value, len(n.out)), false
		for i, v := range n.out {
			dy[i] = sums[v]
			any = any || dy[i] != nil
		}
		if any {
			g.spread(n, dy, active, sums)
		}
	}
	out := make([]*Value, len(wrt))
	for i, v := range wrt {
		if out[i] = sums[v]; out[i] == nil {
			panic(fmt.Sprintf("graph: gradient of %s: it does not depend on %s", loss.name, v.name))
		}
	}
	return out
}

// spread adds to sums what flows from the outputs of n back to its active inputs.
func (g *Graph) spread(n *node, dy []*Value, active map[*Value]bool, sums map[*Value]*Value) {
	defer g.Scope(n.name)()
	dx := n.op.gradient(g, n, dy)
	if len(dx) != len(n.in) {
		panic(fmt.Sprintf("graph: gradient of %s: %d derivatives for %d inputs", n.name, len(dx), len(n.in)))
	}
	for i, v := range n.in {
		if dx[i] == nil || !active[v] {
			continue
		}
		if !slices.Equal(dx[i].shape, v.shape) {
			panic(fmt.Sprintf("graph: gradient of %s: shape %v for input %d of shape %v", n.name, dx[i].shape, i, v.shape))
		}
		if sums[v] != nil {
			sums[v] = g.Add(sums[v], dx[i])
		} else {
			sums[v] = dx[i]
		}
	}
}

// influenced returns the values that change when one of roots does, roots included.
func (g *Graph) influenced(roots []*Value) map[*Value]bool {
	out := make(map[*Value]bool)
	for _, v := range roots {
		out[v] = true
	}
	for _, n := range g.nodes {
		if slices.ContainsFunc(n.in, func(v *Value) bool { return out[v] }) {
			for _, v := range n.out {
				out[v] = true
			}
		}
	}
	return out
}
