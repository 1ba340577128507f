package graph

import (
	"fmt"
	"slices"
)

// matmul is the matrix product over the last two dimensions; leading dimensions stretch to their common shape. Either factor may be
// read transposed, which costs nothing: the kernel packs it the other way.
type matmul struct{ transA, transB bool }

// MatMul returns a·b over the last two dimensions: [..., M, K] by [..., K, N] is [..., M, N].
func (g *Graph) MatMul(a, b *Value) *Value { return g.one(matmul{}, a, b) }

// MatMulTransposed is MatMul with a, b or both transposed in their last two dimensions.
func (g *Graph) MatMulTransposed(a, b *Value, transA, transB bool) *Value {
	return g.one(matmul{transA, transB}, a, b)
}

func (op matmul) onnx() form {
	if !op.transA && !op.transB {
		return form{kind: "MatMul"}
	}
	return form{kind: "FusedMatMul", domain: microsoft, attributes: transposes(op.transA, op.transB)}
}

func transposes(a, b bool) []attribute {
	return []attribute{{"transA", flag(a)}, {"transB", flag(b)}}
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (op matmul) infer(in []*Value) ([]valueType, error) {
	if err := arity(in, 2); err != nil {
		return nil, err
	}
	a, b := in[0].shape, in[1].shape
	if len(a) < 2 || len(b) < 2 {
		return nil, fmt.Errorf("shapes %v and %v: both need two dimensions", a, b)
	}
	m, k := matrix(a, op.transA)
	k2, n := matrix(b, op.transB)
	lead, err := broadcast(a[:len(a)-2], b[:len(b)-2])
	if err != nil || k != k2 {
		return nil, fmt.Errorf("shapes %v%s and %v%s do not multiply", a, mark(op.transA), b, mark(op.transB))
	}
	return numbers(append(lead, m, n)), nil
}

// matrix returns rows and columns of the last two dimensions.
func matrix(shape []int, transposed bool) (rows, columns int) {
	rows, columns = shape[len(shape)-2], shape[len(shape)-1]
	if transposed {
		return columns, rows
	}
	return rows, columns
}

func mark(transposed bool) string {
	if transposed {
		return "ᵀ"
	}
	return ""
}

func (op matmul) gradient(g *Graph, n *node, dy []*Value) []*Value {
	da, db := productGradients(n.in[0], n.in[1], dy[0], op.transA, op.transB, g.MatMulTransposed)
	return g.unbroadcastBoth(n, da, db)
}

// productGradients derives op(a)·op(b) by its factors with the given product.
func productGradients(a, b, dy *Value, transA, transB bool, product func(a, b *Value, transA, transB bool) *Value) (da, db *Value) {
	if transA {
		da = product(b, dy, transB, true)
	} else {
		da = product(dy, b, false, !transB)
	}
	if transB {
		db = product(dy, a, true, transA)
	} else {
		db = product(a, dy, !transA, false)
	}
	return da, db
}

func (op matmul) eval(in, out []array) {
	shape := out[0].shape
	lead := shape[:len(shape)-2]
	rows, columns := matrix(shape, false)
	_, inner := matrix(in[0].shape, op.transA)
	leadOf := func(a array) []int { return strides(a.shape[:len(a.shape)-2], lead) }
	each(lead, [][]int{leadOf(in[0]), leadOf(in[1])}, func(i int, o []int) {
		a := in[0].data[o[0]*rows*inner:]
		b := in[1].data[o[1]*inner*columns:]
		multiply(out[0].data[i*rows*columns:], a, b, rows, inner, columns, op.transA, op.transB)
	})
}

// multiply adds a·b to dst, [rows, columns].
func multiply(dst, a, b []float64, rows, inner, columns int, transA, transB bool) {
	for r := range rows {
		for c := range columns {
			for k := range inner {
				ai, bi := r*inner+k, k*columns+c
				if transA {
					ai = k*rows + r
				}
				if transB {
					bi = c*inner + k
				}
				dst[r*columns+c] += a[ai] * b[bi]
			}
		}
	}
}

// gemm is the product of two matrices, either read transposed, plus an optional row.
type gemm struct{ transA, transB bool }

// Linear returns x·w + b for x [N, in], w [in, out] and b [out], nil for none.
func (g *Graph) Linear(x, w, b *Value) *Value {
	if b == nil {
		return g.one(gemm{}, x, w)
	}
	return g.one(gemm{}, x, w, b)
}

func (g *Graph) gemm(a, b *Value, transA, transB bool) *Value {
	return g.one(gemm{transA, transB}, a, b)
}

func (op gemm) onnx() form { return form{kind: "Gemm", attributes: transposes(op.transA, op.transB)} }

func (op gemm) infer(in []*Value) ([]valueType, error) {
	if len(in) != 2 && len(in) != 3 {
		return nil, fmt.Errorf("takes 2 or 3 inputs, got %d", len(in))
	}
	if len(in[0].shape) != 2 || len(in[1].shape) != 2 {
		return nil, fmt.Errorf("shapes %v and %v: both need exactly two dimensions", in[0].shape, in[1].shape)
	}
	types, err := matmul(op).infer(in[:2])
	if err != nil || len(in) == 2 {
		return types, err
	}
	if bias := in[2].shape; len(bias) != 1 || bias[0] != types[0].shape[1] {
		return nil, fmt.Errorf("bias of shape %v for %d columns", bias, types[0].shape[1])
	}
	return types, allNumbers(in)
}

func (op gemm) gradient(g *Graph, n *node, dy []*Value) []*Value {
	da, db := productGradients(n.in[0], n.in[1], dy[0], op.transA, op.transB, g.gemm)
	if len(n.in) == 2 {
		return []*Value{da, db}
	}
	return []*Value{da, db, g.columnSums(dy[0])}
}

// columnSums returns the sum over the rows of a matrix, as a product with ones, which the runtime does in half the time of a ReduceSum
// or less.
func (g *Graph) columnSums(x *Value) *Value {
	rows, columns := matrix(x.shape, false)
	ones := g.Constant(slices.Repeat([]float32{1}, rows), 1, rows)
	return g.Reshape(g.gemm(ones, x, false, false), columns)
}

func (op gemm) eval(in, out []array) {
	matmul(op).eval(in[:2], out)
	if len(in) == 3 {
		columns := out[0].shape[1]
		for i := range out[0].data {
			out[0].data[i] += in[2].data[i%columns]
		}
	}
}
