package sampler

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"testing"
	"testing/fstest"

	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers below are those of onnx.proto3.

func message(fields ...[]byte) []byte {
	var out []byte
	for _, f := range fields {
		out = append(out, f...)
	}
	return out
}

func sub(n protowire.Number, body []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), body)
}

func str(n protowire.Number, s string) []byte { return sub(n, []byte(s)) }

func num(n protowire.Number, v int64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), uint64(v))
}

func node(op, output string, inputs ...string) []byte {
	var in []byte
	for _, i := range inputs {
		in = append(in, str(1, i)...)
	}
	return sub(1, message(in, str(2, output), str(4, op)))
}

func floats(name string, v []float32, dims ...int64) []byte {
	raw := make([]byte, 4*len(v))
	for i, x := range v {
		binary.LittleEndian.PutUint32(raw[4*i:], math.Float32bits(x))
	}
	return tensor(name, 1, raw, dims)
}

func ints(name string, v ...int64) []byte {
	raw := make([]byte, 8*len(v))
	for i, x := range v {
		binary.LittleEndian.PutUint64(raw[8*i:], uint64(x))
	}
	return tensor(name, 7, raw, []int64{int64(len(v))})
}

func tensor(name string, dataType int64, raw []byte, dims []int64) []byte {
	var d []byte
	for _, n := range dims {
		d = append(d, num(1, n)...)
	}
	return sub(5, message(d, num(2, dataType), str(8, name), sub(9, raw)))
}

// value declares a float32 input (n = 11) or output (n = 12); a dimension of -1 is free.
func value(n protowire.Number, name string, dims []int64) []byte {
	var shape []byte
	for _, d := range dims {
		dim := num(1, d)
		if d < 0 {
			dim = str(2, "n")
		}
		shape = append(shape, sub(1, dim)...)
	}
	return sub(n, message(str(1, name), sub(2, sub(1, message(num(1, 1), sub(2, shape))))))
}

func onnxModel(parts ...[]byte) []byte {
	return message(num(1, 8), sub(8, message(str(1, ""), num(2, 17))), sub(7, message(append(parts, str(2, "test"))...)))
}

const (
	tinyDim    = 4
	tinyWidth  = 3
	tinyHeight = 2
	tinyBatch  = 4
	tinyValues = 3 * tinyWidth * tinyHeight
)

// tinyWeights maps embeddings to images [tinyDim, tinyValues] and back.
func tinyWeights() []float32 {
	w := make([]float32, tinyDim*tinyValues)
	for i := range w {
		w[i] = float32(i%7)/7 - .3
	}
	return w
}

// tinyDecoder is image = reshape(z W); batch -1 is free.
func tinyDecoder(batch int64) []byte {
	return onnxModel(
		node("MatMul", "flat", "z", "w"), node("Reshape", "image", "flat", "shape"),
		floats("w", tinyWeights(), tinyDim, tinyValues), ints("shape", -1, 3, tinyHeight, tinyWidth),
		value(11, "z", []int64{batch, tinyDim}), value(12, "image", []int64{batch, 3, tinyHeight, tinyWidth}),
	)
}

// tinyEncoder is mu = flatten(image) Wᵀ.
func tinyEncoder(batch int64) []byte {
	w, wt := tinyWeights(), make([]float32, tinyValues*tinyDim)
	for i := range tinyDim {
		for j := range tinyValues {
			wt[j*tinyDim+i] = w[i*tinyValues+j]
		}
	}
	return onnxModel(
		node("Reshape", "flat", "image", "shape"), node("MatMul", "mu", "flat", "w"),
		floats("w", wt, tinyValues, tinyDim), ints("shape", -1, tinyValues),
		value(11, "image", []int64{batch, 3, tinyHeight, tinyWidth}), value(12, "mu", []int64{batch, tinyDim}),
	)
}

func tinyManifest() Manifest {
	part := func(file, input, output string) *Part {
		return &Part{File: file, Input: input, Output: output, Layout: layoutNCHW, Range: [2]float64{-1, 1},
			Width: tinyWidth, Height: tinyHeight, Batch: tinyBatch}
	}
	return Manifest{Format: 1, Name: "tiny", Dim: tinyDim,
		Decoder: part("decoder.onnx", "z", "image"), Encoder: part("encoder.onnx", "image", "mu")}
}

// codecFS is a file system with a manifest and its two models, in a folder.
func codecFS(t testing.TB, m Manifest, batch int64) fstest.MapFS {
	t.Helper()
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return fstest.MapFS{
		"tiny/manifest.json": {Data: data},
		"tiny/decoder.onnx":  {Data: tinyDecoder(batch)},
		"tiny/encoder.onnx":  {Data: tinyEncoder(batch)},
	}
}
