package graph

import (
	"errors"
	"fmt"
)

// operator is one kind of node. An implementation holds the operator's attributes; the zero value of a type without attributes is
// ready to use. To add an operator: write the type with its four methods beside its builder method, list it in operators, and give
// it rows in the table of the operator test, which fails for a type without any.
type operator interface {
	// onnx returns the operator's ONNX form.
	onnx() form
	// infer checks the inputs and returns the types of the outputs. Its error is completed with the node's name.
	infer(in []*Value) ([]valueType, error)
	// gradient adds the nodes that carry dy, the derivatives by the outputs (nil where none arrives; not all are nil), back to the
	// inputs. It returns one value per input, of that input's shape, or nil for an input that has no derivative.
	gradient(g *Graph, n *node, dy []*Value) []*Value
	// eval computes the outputs in float64. Truth values are 0 and 1.
	eval(in, out []array)
}

// valueType is the shape and element type of an output.
type valueType struct {
	shape []int
	truth bool
}

// form is how a node is written in an ONNX file.
type form struct {
	kind       string // ONNX operator
	domain     string // "" is the standard operator set
	attributes []attribute
	repeat     bool       // the single input is written twice
	trailing   []trailing // constant inputs after those of the node
}

// attribute has one of an integer, a list of integers, a float as its value.
type attribute struct {
	name  string
	value any // int, []int or float32
}

// trailing is a constant input that belongs to the operator's form, as axes or a target shape.
type trailing struct {
	ints   []int // int64 in the file
	floats []float32
}

const microsoft = "com.microsoft" // ONNX Runtime's own operators, present in every build of it

// operators lists every operator.
func operators() []operator {
	return []operator{
		add{}, sub{}, mul{}, div{}, minimum{}, maximum{}, less{}, where{},
		neg{}, square{}, sqrt{}, exp{}, log{}, erf{}, sigmoid{}, tanh{}, gelu{}, hardSigmoid{},
		matmul{}, gemm{},
		reduceSum{}, reduceSumSquare{}, reduceMean{}, softmax{}, layerNorm{},
		reshape{}, transpose{}, expand{}, slice{}, split{}, concat{},
	}
}

func numbers(shape []int) []valueType { return []valueType{{shape: shape}} }

// arity checks the number of inputs and that all are numbers.
func arity(in []*Value, n int) error {
	if len(in) != n {
		return fmt.Errorf("takes %d inputs, got %d", n, len(in))
	}
	return allNumbers(in)
}

func allNumbers(in []*Value) error {
	for _, v := range in {
		if v.truth {
			return fmt.Errorf("input %s is a comparison, not numbers", v.name)
		}
	}
	return nil
}

var errCondition = errors.New("takes a comparison and two values")
