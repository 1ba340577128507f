package graph

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"rebeca/internal/ort"
)

// TestOperatorsAreListed reads the package's source: each type with a gradient method must be in the list, and so in the table.
func TestOperatorsAreListed(t *testing.T) {
	listed := make(map[string]bool)
	for _, op := range operators() {
		listed[reflect.TypeOf(op).Name()] = true
	}
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, source := range sources {
		file, err := parser.ParseFile(token.NewFileSet(), source, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv == nil || f.Name.Name != "gradient" {
				continue
			}
			found++
			if name := fmt.Sprint(f.Recv.List[0].Type); !listed[name] {
				t.Errorf("operator %s is not in operators()", name)
			}
		}
	}
	if found != len(listed) {
		t.Errorf("%d types have a gradient, %d operators are listed", found, len(listed))
	}
}

func TestMisusePanics(t *testing.T) {
	for _, c := range []struct {
		name, message string
		use           func(g *Graph, x *Value) // x is [2, 3]
	}{
		{"broadcast", "graph: Add block/Add_0: shapes [2 3] and [4] do not broadcast", func(g *Graph, x *Value) {
			defer g.Scope("block")()
			g.Add(x, g.Input("y", 4))
		}},
		{"inner dimension", "graph: MatMul MatMul_0: shapes [2 3] and [2 3] do not multiply", func(g *Graph, x *Value) { g.MatMul(x, x) }},
		{"transposed", "shapes [2 3]ᵀ and [2 3]ᵀ do not multiply", func(g *Graph, x *Value) { g.MatMulTransposed(x, x, true, true) }},
		{"bias", "bias of shape [3] for 2 columns", func(g *Graph, x *Value) { g.Linear(x, g.Input("w", 3, 2), g.Input("b", 3)) }},
		{"reshape", "graph: Reshape Reshape_0: shape [2 3] cannot become [5]", func(g *Graph, x *Value) { g.Reshape(x, 5) }},
		{"transpose", "[0 0] is no order of the dimensions of [2 3]", func(g *Graph, x *Value) { g.Transpose(x, 0, 0) }},
		{"axis", "axis 2 of 2 dimensions", func(g *Graph, x *Value) { g.ReduceSum(x, false, 2) }},
		{"axis twice", "axis 1 twice", func(g *Graph, x *Value) { g.ReduceMean(x, false, 1, 1) }},
		{"slice", "range 1 to 4 of dimension 1 of [2 3]", func(g *Graph, x *Value) { g.Slice(x, 1, 1, 4) }},
		{"split", "parts of [1 1] sum to 2 along axis 1 of [2 3]", func(g *Graph, x *Value) { g.Split(x, 1, 1, 1) }},
		{"concat", "do not join along axis 0", func(g *Graph, x *Value) { g.Concat(0, x, g.Input("y", 2, 4)) }},
		{"expand", "shape [2 3] does not stretch to [2 6]", func(g *Graph, x *Value) { g.Expand(x, 2, 6) }},
		{"comparison as number", "is a comparison, not numbers", func(g *Graph, x *Value) { g.Neg(g.Less(x, x)) }},
		{"number as condition", "takes a comparison", func(g *Graph, x *Value) { g.Where(x, x, x) }},
		{"input twice", "graph: input x: declared twice", func(g *Graph, x *Value) { g.Input("x", 1) }},
		{"output twice", "graph: output y: declared twice", func(g *Graph, x *Value) { g.Output("y", x); g.Output("y", x) }},
		{"constant", "shape [2] does not fit 3 values", func(g *Graph, x *Value) { g.Constant(make([]float32, 3), 2) }},
		{"loss of many", "a loss has one element", func(g *Graph, x *Value) { g.Gradients(x, x) }},
		{"unrelated", "it does not depend on y", func(g *Graph, x *Value) { g.Gradients(g.ReduceSum(x, false, 0, 1), g.Input("y", 1)) }},
		{"nil", "graph: Add Add_0: input 1 is nil", func(g *Graph, x *Value) { g.Add(x, nil) }},
		{"nil to normalize", "graph: LayerNormalization LayerNormalization_0: input 0 is nil", func(g *Graph, x *Value) { g.LayerNorm(nil, 1e-5) }},
		{"nil output", "graph: output y: input 0 is nil", func(g *Graph, x *Value) { g.Output("y", nil) }},
		{"another graph", "graph: Add Add_0: input z is of graph other, not of misuse", func(g *Graph, x *Value) { g.Add(x, New("other").Input("z", 2, 3)) }},
		{"output of another graph", "is of graph other", func(g *Graph, x *Value) { g.Output("y", New("other").Input("z", 1)) }},
		{"loss of another graph", "graph: gradient: input z is of graph other", func(g *Graph, x *Value) { g.Gradients(New("other").Input("z", 1), x) }},
		{"missing input", "input x of shape [2 3] has 0 values", func(g *Graph, x *Value) { g.Output("y", x); g.Interpret(nil) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer func() {
				if got := fmt.Sprint(recover()); !strings.HasPrefix(got, "graph: ") || !strings.Contains(got, c.message) {
					t.Errorf("panic %q, want one with %q", got, c.message)
				}
			}()
			g := New("misuse")
			c.use(g, g.Input("x", 2, 3))
		})
	}
}

// TestGradientsSumPaths uses a value along several paths, one of them through a node of several outputs of which one is not used.
func TestGradientsSumPaths(t *testing.T) {
	g := New("paths")
	x := g.Input("x", 4)
	parts := g.Split(x, 0, 1, 1, 2)
	loss := g.Add(g.Mul(parts[0], parts[1]), g.ReduceSum(g.Square(x), true, 0)) // x₀x₁ + Σx²
	g.Output("dx", g.Gradients(loss, x)[0])
	inputs := map[string][]float64{"x": {1, 2, 3, 4}}
	results := g.Interpret(inputs)
	for i, want := range []float64{2 + 2, 1 + 4, 6, 8} {
		near(t, fmt.Sprint("dx", i), results["dx"][i], want, 1e-12)
	}
	checkRuntime(t, g, inputs, results)
}

// TestMarshalPrunes leaves nodes out that no output needs, and keeps the order of inputs and outputs.
func TestMarshalPrunes(t *testing.T) {
	g := New("pruned")
	a, b := g.Input("a", 2, 1), g.Input("b", 3)
	g.Exp(g.Exp(a))
	sum := g.Add(a, b)
	g.Output("sum", sum)
	g.Output("sum again", sum)
	g.Output("square", g.Square(sum))
	g.Output("b itself", b)
	g.Output("constant", g.Scalar(3))
	model := g.Marshal()
	if strings.Contains(string(model), "Exp") {
		t.Error("the model holds a node that no output needs")
	}
	inputs, outputs, err := ort.Describe(model)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(inputs, outputs), "[{a [2 1]} {b [3]}] [{sum [2 3]} {sum again [2 3]} {square [2 3]} {b itself [3]} {constant [1]}]"; got != want {
		t.Errorf("model has %s, want %s", got, want)
	}
	in := map[string][]float64{"a": {1, 2}, "b": {3, 4, 5}}
	checkRuntime(t, g, in, g.Interpret(in))
}

// TestBroadcastIsSymmetric holds the rules of broadcasting against their definition, and unbroadcast against a count.
func TestBroadcastIsSymmetric(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		whole := rapid.SliceOfN(rapid.IntRange(1, 4), 1, 4).Draw(t, "whole")
		part := append([]int(nil), whole[rapid.IntRange(0, len(whole)-1).Draw(t, "cut"):]...)
		for i := range part {
			if rapid.Bool().Draw(t, "one") {
				part[i] = 1
			}
		}
		for _, pair := range [][2][]int{{whole, part}, {part, whole}} {
			if got, err := broadcast(pair[0], pair[1]); err != nil || !reflect.DeepEqual(got, whole) {
				t.Fatalf("broadcast(%v, %v) = %v, %v", pair[0], pair[1], got, err)
			}
		}
		g := New("count")
		ones := g.Expand(g.Input("one", 1), whole...)
		g.Output("counts", g.unbroadcast(ones, part))
		for _, n := range g.Interpret(map[string][]float64{"one": {1}})["counts"] {
			if int(n) != size(whole)/size(part) {
				t.Fatalf("a value of shape %v was counted %v times in %v", part, n, whole)
			}
		}
	})
}

// TestReshapesOfReshapes holds that chains of reshapes are one node of the file or none, and that the runtime still computes what the
// interpreter does, where parts of a chain are outputs too.
func TestReshapesOfReshapes(t *testing.T) {
	g := New("reshapes")
	x := g.Input("x", 2, 6)
	wide := g.Reshape(g.Neg(x), 3, 4)
	back := g.Reshape(g.Reshape(wide, 12), 2, 6) // the shape of Neg's result again
	g.Output("sum", g.Add(back, x))
	g.Output("square", g.Square(g.Reshape(g.Reshape(wide, 4, 3), 6, 2)))  // one reshape
	g.Output("chain", g.Reshape(g.Reshape(x, 12), 1, 12))                 // one reshape
	if got := bytes.Count(g.Marshal(), []byte("\"\aReshape")); got != 2 { // field 4 of a node: its kind
		t.Errorf("the file has %d reshapes, want 2", got)
	}
	inputs := map[string][]float64{"x": {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}}
	checkRuntime(t, g, inputs, g.Interpret(inputs))
}
