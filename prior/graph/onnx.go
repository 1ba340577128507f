package graph

import (
	"fmt"
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// Versions of the file format and of the operator sets the forms are written for. ONNX Runtime 1.24 reads all of them.
const (
	irVersion      = 10
	standardOpset  = 20 // the first with Gelu
	microsoftOpset = 1
)

// Element types of the ONNX tensor format.
const (
	elementFloat = 1
	elementInt64 = 7
)

// Marshal writes the graph as an ONNX model: the nodes that outputs depend on, in the protobuf encoding of onnx.proto.
func (g *Graph) Marshal() []byte {
	var model message
	model.varint(1, irVersion)
	model.text(2, "rebeca")
	model.bytes(7, g.marshalGraph())
	for _, set := range []struct {
		domain  string
		version int
	}{{"", standardOpset}, {microsoft, microsoftOpset}} {
		var opset message
		opset.text(1, set.domain)
		opset.varint(2, set.version)
		model.bytes(8, opset)
	}
	return model
}

func (g *Graph) marshalGraph() message {
	nodes := g.reachableBy(g.outputs, reads)
	used := make(map[*Value]bool)
	names := g.fileNames()
	var m message
	var initializers []message
	for _, n := range nodes {
		for _, v := range reads(n) {
			used[v] = true
		}
		f := n.op.onnx()
		for i, t := range f.trailing {
			initializers = append(initializers, t.marshal(trailingName(n, i)))
		}
		m.bytes(1, marshalNode(n, f, names))
	}
	for i, v := range g.outputs {
		if name := names(v); name != g.names[i] {
			m.bytes(1, marshalCopy(name, g.names[i]))
			used[v] = true
		}
	}
	m.text(2, g.name)
	for _, v := range g.constants {
		if used[v] {
			m.bytes(5, marshalFloats(v.name, v.data, v.shape))
		}
	}
	for _, i := range initializers {
		m.bytes(5, i)
	}
	for _, v := range g.inputs {
		m.bytes(11, marshalInfo(v.name, v.shape))
	}
	for i, v := range g.outputs {
		m.bytes(12, marshalInfo(g.names[i], v.shape))
	}
	return m
}

// reads returns the inputs of a node as the file has them: a reshape of a reshape reads what the first one read, and where that gives
// back the shape that was there before, no reshape is left. Each costs a run some microseconds.
func reads(n *node) []*Value {
	in := make([]*Value, len(n.in))
	_, again := n.op.(reshape)
	for i, v := range n.in {
		in[i] = v
		if whole := unshaped(v); again || slices.Equal(whole.shape, v.shape) {
			in[i] = whole
		}
	}
	return in
}

// unshaped returns the value whose reshape, or reshape of a reshape, v is.
func unshaped(v *Value) *Value {
	for v.node != nil {
		if _, ok := v.node.op.(reshape); !ok {
			break
		}
		v = v.node.in[0]
	}
	return v
}

// trailingName is the initializer that holds a node's constant input.
func trailingName(n *node, i int) string { return fmt.Sprintf("%s#%d", n.name, i) }

// fileNames returns how values are called in the file: a node's output that is an output of the model has that name.
func (g *Graph) fileNames() func(*Value) string {
	outputs := make(map[*Value]string)
	for i, v := range g.outputs {
		if v.node != nil {
			outputs[v] = g.names[i]
		}
	}
	return func(v *Value) string {
		if name, ok := outputs[v]; ok {
			return name
		}
		return v.name
	}
}

func marshalNode(n *node, f form, name func(*Value) string) message {
	var m message
	in := reads(n)
	for _, v := range in {
		m.text(1, name(v))
	}
	if f.repeat {
		m.text(1, name(in[0]))
	}
	for i := range f.trailing {
		m.text(1, trailingName(n, i))
	}
	for _, v := range n.out {
		m.text(2, name(v))
	}
	m.text(3, n.name)
	m.text(4, f.kind)
	for _, a := range f.attributes {
		m.bytes(5, a.marshal())
	}
	m.text(7, f.domain)
	return m
}

// marshalCopy makes a second name for a value: for an input or a constant that is an output, and for a value that is two outputs.
func marshalCopy(from, to string) message {
	var m message
	m.text(1, from)
	m.text(2, to)
	m.text(3, "copy "+to)
	m.text(4, "Identity")
	return m
}

func (a attribute) marshal() message {
	const (
		typeFloat = 1
		typeInt   = 2
		typeInts  = 7
	)
	var m message
	m.text(1, a.name)
	switch v := a.value.(type) {
	case float32:
		m.float(2, v)
		m.varint(20, typeFloat)
	case int:
		m.varint(3, v)
		m.varint(20, typeInt)
	case []int:
		for _, i := range v {
			m.varint(8, i)
		}
		m.varint(20, typeInts)
	default:
		panic(fmt.Sprintf("graph: attribute %s of type %T", a.name, a.value))
	}
	return m
}

func (t trailing) marshal(name string) message {
	if t.floats != nil {
		return marshalFloats(name, t.floats, []int{len(t.floats)})
	}
	var raw []byte
	for _, i := range t.ints {
		raw = protowire.AppendFixed64(raw, uint64(i))
	}
	return marshalTensor(name, elementInt64, []int{len(t.ints)}, raw)
}

func marshalFloats(name string, data []float32, shape []int) message {
	raw := make([]byte, 0, 4*len(data))
	for _, x := range data {
		raw = protowire.AppendFixed32(raw, math.Float32bits(x))
	}
	return marshalTensor(name, elementFloat, shape, raw)
}

func marshalTensor(name string, element int, shape []int, raw []byte) message {
	var m message
	for _, n := range shape {
		m.varint(1, n)
	}
	m.varint(2, element)
	m.text(8, name)
	m.bytes(9, raw)
	return m
}

// marshalInfo describes a float32 input or output of fixed shape.
func marshalInfo(name string, shape []int) message {
	var dims, tensor, kind, m message
	for _, n := range shape {
		var dim message
		dim.varint(1, n)
		dims.bytes(1, dim)
	}
	tensor.varint(1, elementFloat)
	tensor.bytes(2, dims)
	kind.bytes(1, tensor)
	m.text(1, name)
	m.bytes(2, kind)
	return m
}

// message is an encoded protobuf message under construction.
type message []byte

func (m *message) varint(field protowire.Number, v int) {
	*m = protowire.AppendTag(*m, field, protowire.VarintType)
	*m = protowire.AppendVarint(*m, uint64(v))
}

func (m *message) float(field protowire.Number, v float32) {
	*m = protowire.AppendTag(*m, field, protowire.Fixed32Type)
	*m = protowire.AppendFixed32(*m, math.Float32bits(v))
}

func (m *message) bytes(field protowire.Number, b []byte) {
	*m = protowire.AppendTag(*m, field, protowire.BytesType)
	*m = protowire.AppendBytes(*m, b)
}

// text writes a string; an empty one is left out, as protobuf does.
func (m *message) text(field protowire.Number, s string) {
	if s != "" {
		m.bytes(field, []byte(s))
	}
}
