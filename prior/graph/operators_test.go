package graph

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"reflect"
	"testing"

	"rebeca/internal/ort"
)

func TestMain(m *testing.M) {
	path, err := ort.Locate("")
	if err == nil {
		err = ort.Open(path)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// row is one use of an operator: the shapes of its inputs, their range, and the builder call.
type row struct {
	op     operator // the type under test
	name   string
	shapes [][]int
	low    float64 // inputs are uniform in [low, high]; both 0 means [-2, 2]
	high   float64
	build  func(g *Graph, x []*Value) []*Value
	fixed  int // so many last inputs have no derivative
}

func one(v *Value) []*Value { return []*Value{v} }

func rows() []row {
	type values = []*Value
	binary := func(op operator, f func(*Graph, *Value, *Value) *Value, low, high float64) []row {
		build := func(g *Graph, x values) values { return one(f(g, x[0], x[1])) }
		var out []row
		for _, shapes := range [][][]int{{{2, 3}, {2, 3}}, {{2, 3}, {3}}, {{3}, {2, 3}}, {{2, 1, 3}, {4, 1}}, {{}, {2, 2}}, {{1, 3}, {2, 1}}} {
			out = append(out, row{op: op, name: fmt.Sprint(shapes), shapes: shapes, low: low, high: high, build: build})
		}
		return out
	}
	unary := func(op operator, f func(*Graph, *Value) *Value, low, high float64) []row {
		return []row{{op: op, name: "matrix", shapes: [][]int{{3, 4}}, low: low, high: high, build: func(g *Graph, x values) values { return one(f(g, x[0])) }}}
	}
	product := func(name string, a, b []int, transA, transB bool) row {
		return row{op: matmul{}, name: name, shapes: [][]int{a, b}, build: func(g *Graph, x values) values {
			return one(g.MatMulTransposed(x[0], x[1], transA, transB))
		}}
	}
	matrix := func(name string, a, b []int, transA, transB bool) row {
		return row{op: gemm{}, name: name, shapes: [][]int{a, b}, build: func(g *Graph, x values) values {
			return one(g.gemm(x[0], x[1], transA, transB))
		}}
	}
	on := func(op operator, name string, shape []int, f func(g *Graph, x *Value) values) row {
		return row{op: op, name: name, shapes: [][]int{shape}, build: func(g *Graph, x values) values { return f(g, x[0]) }}
	}
	out := []row{
		product("matrices", []int{2, 3}, []int{3, 4}, false, false),
		product("batch", []int{2, 2, 3}, []int{2, 3, 4}, false, false),
		product("batch by matrix", []int{2, 2, 3}, []int{3, 4}, false, false),
		product("stretched left", []int{1, 2, 3}, []int{5, 3, 4}, false, false),
		product("stretched both", []int{2, 1, 2, 3}, []int{3, 3, 2}, false, false),
		product("left transposed", []int{2, 3, 2}, []int{2, 3, 4}, true, false),
		product("right transposed", []int{2, 2, 3}, []int{2, 4, 3}, false, true),
		product("both transposed", []int{2, 3, 2}, []int{1, 4, 3}, true, true),
		matrix("plain", []int{2, 3}, []int{3, 4}, false, false),
		matrix("left transposed", []int{3, 2}, []int{3, 4}, true, false),
		matrix("right transposed", []int{2, 3}, []int{4, 3}, false, true),
		matrix("both transposed", []int{3, 2}, []int{4, 3}, true, true),
		{op: gemm{}, name: "bias", shapes: [][]int{{2, 3}, {3, 4}, {4}}, build: func(g *Graph, x values) values {
			return one(g.Linear(x[0], x[1], x[2]))
		}},
		{op: gemm{}, name: "no bias", shapes: [][]int{{2, 3}, {3, 4}}, build: func(g *Graph, x values) values {
			return one(g.Linear(x[0], x[1], nil))
		}},
		{op: where{}, name: "comparison", shapes: [][]int{{2, 3}, {3}, {2, 1}, {2, 3}}, fixed: 2, build: func(g *Graph, x values) values {
			return one(g.Where(g.Less(x[2], x[3]), x[0], x[1]))
		}},
		{op: less{}, name: "stretched", shapes: [][]int{{4}, {3, 1}, {3, 4}}, fixed: 2, build: func(g *Graph, x values) values {
			return one(g.Where(g.Less(x[1], x[2]), g.Scalar(1), x[0]))
		}},
		on(reduceSum{}, "first", []int{3, 4}, func(g *Graph, x *Value) values { return one(g.ReduceSum(x, false, 0)) }),
		on(reduceSum{}, "last kept", []int{3, 4}, func(g *Graph, x *Value) values { return one(g.ReduceSum(x, true, 1)) }),
		on(reduceSum{}, "two of three", []int{2, 3, 4}, func(g *Graph, x *Value) values { return one(g.ReduceSum(x, false, 0, 2)) }),
		on(reduceSum{}, "all", []int{2, 3}, func(g *Graph, x *Value) values { return one(g.ReduceSum(x, false, 1, 0)) }),
		on(reduceSumSquare{}, "all", []int{2, 3}, func(g *Graph, x *Value) values { return one(g.ReduceSumSquare(x, false, 0, 1)) }),
		on(reduceSumSquare{}, "middle kept", []int{2, 3, 4}, func(g *Graph, x *Value) values { return one(g.ReduceSumSquare(x, true, 1)) }),
		on(reduceMean{}, "middle kept", []int{2, 3, 4}, func(g *Graph, x *Value) values { return one(g.ReduceMean(x, true, 1)) }),
		on(reduceMean{}, "all", []int{2, 3}, func(g *Graph, x *Value) values { return one(g.ReduceMean(x, false, 0, 1)) }),
		on(softmax{}, "cube", []int{2, 3, 4}, func(g *Graph, x *Value) values { return one(g.Softmax(x)) }),
		on(layerNorm{}, "cube", []int{2, 3, 4}, func(g *Graph, x *Value) values { return one(g.LayerNorm(x, 1e-5)) }),
		on(reshape{}, "fold", []int{2, 6}, func(g *Graph, x *Value) values { return one(g.Reshape(x, 3, 1, 4)) }),
		on(reshape{}, "to scalar", []int{1, 1}, func(g *Graph, x *Value) values { return one(g.Reshape(x)) }),
		on(transpose{}, "three", []int{2, 3, 4}, func(g *Graph, x *Value) values { return one(g.Transpose(x, 2, 0, 1)) }),
		on(transpose{}, "keeps last", []int{2, 3, 4}, func(g *Graph, x *Value) values { return one(g.Transpose(x, 1, 0, 2)) }),
		on(expand{}, "ones and lead", []int{3, 1}, func(g *Graph, x *Value) values { return one(g.Expand(x, 2, 3, 4)) }),
		on(slice{}, "middle", []int{2, 5, 2}, func(g *Graph, x *Value) values { return one(g.Slice(x, 1, 1, 3)) }),
		on(slice{}, "from start", []int{4, 2}, func(g *Graph, x *Value) values { return one(g.Slice(x, 0, 0, 3)) }),
		on(split{}, "all parts", []int{2, 6}, func(g *Graph, x *Value) values { return g.Split(x, 1, 1, 3, 2) }),
		on(split{}, "one part", []int{6}, func(g *Graph, x *Value) values { return g.Split(x, 0, 1, 3, 2)[1:2] }),
		{op: concat{}, name: "three", shapes: [][]int{{2, 1, 3}, {2, 2, 3}, {2, 1, 3}}, build: func(g *Graph, x values) values {
			return one(g.Concat(1, x...))
		}},
	}
	out = append(out, binary(add{}, (*Graph).Add, 0, 0)...)
	out = append(out, binary(sub{}, (*Graph).Sub, 0, 0)...)
	out = append(out, binary(mul{}, (*Graph).Mul, 0, 0)...)
	out = append(out, binary(div{}, (*Graph).Div, .5, 2)...)
	out = append(out, binary(minimum{}, (*Graph).Min, 0, 0)...)
	out = append(out, binary(maximum{}, (*Graph).Max, 0, 0)...)
	out = append(out, unary(neg{}, (*Graph).Neg, 0, 0)...)
	out = append(out, unary(square{}, (*Graph).Square, 0, 0)...)
	out = append(out, unary(sqrt{}, (*Graph).Sqrt, .5, 2)...)
	out = append(out, unary(exp{}, (*Graph).Exp, 0, 0)...)
	out = append(out, unary(log{}, (*Graph).Log, .5, 2)...)
	out = append(out, unary(erf{}, (*Graph).Erf, 0, 0)...)
	out = append(out, unary(sigmoid{}, (*Graph).Sigmoid, 0, 0)...)
	out = append(out, unary(sigmoid{}, (*Graph).SiLU, -4, 4)...)
	out = append(out, unary(tanh{}, (*Graph).Tanh, 0, 0)...)
	bounded := func(g *Graph, x *Value) *Value { return g.one(hardSigmoid{.3, .4}, x) }
	out = append(out, unary(hardSigmoid{}, bounded, -4, 4)...)
	out = append(out, unary(gelu{}, (*Graph).Gelu, -20, 20)...) // exp(x²/2) is out of float32's range from 13.4 on
	out = append(out, unary(gelu{}, (*Graph).Gelu, -4, 4)...)
	return out
}

// Tolerances, relative to 1 + |value|. Central differences in float64 with step 1e-5 err by about 1e-9; float32 kernels by some 1e-7
// per operation on values of size 1.
const (
	differenceTolerance = 1e-7
	float32Tolerance    = 2e-5
)

// TestOperators holds every operator's gradient against central differences of the float64 interpreter, and what ONNX Runtime
// computes, results and gradients, against the interpreter.
func TestOperators(t *testing.T) {
	seen := make(map[reflect.Type]bool)
	for i, r := range rows() {
		seen[reflect.TypeOf(r.op)] = true
		t.Run(fmt.Sprintf("%s/%s", reflect.TypeOf(r.op).Name(), r.name), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(i), 1))
			g, inputs := r.graph(rng)
			results := g.Interpret(inputs)
			r.checkDifferences(t, g, inputs, results)
			checkRuntime(t, g, inputs, results)
		})
	}
	for _, op := range operators() {
		if !seen[reflect.TypeOf(op)] {
			t.Errorf("operator %T has no row in the table", op)
		}
	}
}

// graph builds the row's use, a loss that weighs every output, and the gradients, and draws inputs.
func (r row) graph(rng *rand.Rand) (*Graph, map[string][]float64) {
	g := New("row")
	inputs := make(map[string][]float64)
	var x []*Value
	for i, shape := range r.shapes {
		name := fmt.Sprintf("x%d", i)
		if len(shape) > 0 {
			x = append(x, g.Input(name, shape...))
		} else {
			x = append(x, g.Reshape(g.Input(name, 1)))
		}
		inputs[name] = r.draw(rng, size(shape))
	}
	loss := g.Scalar(0)
	for i, y := range r.build(g, x) {
		g.Output(fmt.Sprintf("y%d", i), y)
		weights := make([]float32, size(y.shape))
		for i := range weights {
			weights[i] = float32(rng.NormFloat64())
		}
		weighted := g.Reshape(g.Mul(y, g.Constant(weights, y.shape...)), len(weights))
		loss = g.Add(loss, g.ReduceSum(weighted, false, 0))
	}
	g.Output("loss", loss)
	for i, d := range g.Gradients(loss, x[:len(x)-r.fixed]...) {
		g.Output(fmt.Sprintf("dx%d", i), d)
	}
	return g, inputs
}

func (r row) draw(rng *rand.Rand, n int) []float64 {
	low, high := r.low, r.high
	if low == 0 && high == 0 {
		low, high = -2, 2
	}
	out := make([]float64, n)
	for i := range out {
		out[i] = float64(float32(low + (high-low)*rng.Float64()))
	}
	return out
}

func (r row) checkDifferences(t *testing.T, g *Graph, inputs, results map[string][]float64) {
	const step = 1e-5
	for i := range len(r.shapes) - r.fixed {
		x, dx := inputs[fmt.Sprintf("x%d", i)], results[fmt.Sprintf("dx%d", i)]
		for k, at := range x {
			x[k] = at + step
			up := g.Interpret(inputs)["loss"][0]
			x[k] = at - step
			down := g.Interpret(inputs)["loss"][0]
			x[k] = at
			near(t, fmt.Sprintf("derivative by x%d[%d]", i, k), dx[k], (up-down)/(2*step), differenceTolerance)
		}
	}
}

// checkRuntime runs g in ONNX Runtime and compares all outputs with those of the interpreter.
func checkRuntime(t *testing.T, g *Graph, inputs, results map[string][]float64) {
	t.Helper()
	session, err := g.Compile(ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	var in, out []*ort.Tensor
	for _, v := range g.inputs {
		tensor := newTensor(t, v.shape)
		for i, x := range inputs[v.name] {
			tensor.Data()[i] = float32(x)
		}
		in = append(in, tensor)
	}
	for _, v := range g.outputs {
		out = append(out, newTensor(t, v.shape))
	}
	if err := session.Run(in, out); err != nil {
		t.Fatal(err)
	}
	for i, name := range g.names {
		for k, x := range out[i].Data() {
			near(t, fmt.Sprintf("%s[%d] of ONNX Runtime", name, k), float64(x), results[name][k], float32Tolerance)
		}
	}
}

func newTensor(t *testing.T, shape []int) *ort.Tensor {
	var dims []int64
	for _, n := range shape {
		dims = append(dims, int64(n))
	}
	tensor := ort.NewTensor(dims...)
	t.Cleanup(tensor.Close)
	return tensor
}

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance*(1+math.Abs(want))) {
		t.Errorf("%s is %.9g, want %.9g", what, got, want)
	}
}
