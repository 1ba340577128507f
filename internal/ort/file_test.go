package ort

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers below are those of onnx.proto3.

func sub(n protowire.Number, parts ...[]byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), slices.Concat(parts...))
}

func text(n protowire.Number, s string) []byte { return sub(n, []byte(s)) }

func num(n protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), v)
}

const (
	onnxFloat = 1
	onnxInt64 = 7
	onnxBool  = 9
)

func valueInfo(n protowire.Number, name string, elem uint64, dims ...uint64) []byte {
	var shape [][]byte
	for _, d := range dims {
		shape = append(shape, sub(1, num(1, d)))
	}
	return sub(n, text(1, name), sub(2, sub(1, num(1, elem), sub(2, shape...))))
}

func model(graph ...[]byte) []byte {
	return slices.Concat(num(1, 8), sub(7, append(graph, text(2, "test"))...), sub(8, num(2, 17)))
}

// adding is y = x + w, with w [4] in the file weights.data beside the model.
func adding() []byte {
	entry := func(key, value string) []byte { return sub(13, text(1, key), text(2, value)) }
	w := sub(5, num(1, 4), num(2, onnxFloat), text(8, "w"), entry("location", "weights.data"), entry("offset", "0"), entry("length", "16"), num(14, 1))
	return model(sub(1, text(1, "x"), text(1, "w"), text(2, "y"), text(4, "Add")), w,
		valueInfo(11, "x", onnxFloat, 4), valueInfo(12, "y", onnxFloat, 4))
}

// looping doubles x for longer than anybody waits.
func looping() []byte {
	body := sub(6,
		sub(1, text(1, "go"), text(2, "on"), text(4, "Identity")), sub(1, text(1, "v"), text(1, "v"), text(2, "w"), text(4, "Add")), text(2, "body"),
		valueInfo(11, "i", onnxInt64), valueInfo(11, "go", onnxBool), valueInfo(11, "v", onnxFloat, 1),
		valueInfo(12, "on", onnxBool), valueInfo(12, "w", onnxFloat, 1))
	trips := sub(5, num(2, onnxInt64), text(8, "trips"), sub(9, binary.LittleEndian.AppendUint64(nil, 1<<50)))
	always := sub(5, num(2, onnxBool), text(8, "always"), sub(9, []byte{1}))
	loop := sub(1, text(1, "trips"), text(1, "always"), text(1, "x"), text(2, "y"), text(4, "Loop"), sub(5, text(1, "body"), num(20, 5), body))
	return model(loop, trips, always, valueInfo(11, "x", onnxFloat, 1), valueInfo(12, "y", onnxFloat, 1))
}

// TestFolder: a model on disk finds its weights in the file beside it.
func TestFolder(t *testing.T) {
	dir := t.TempDir()
	var weights []byte
	for i := range 4 {
		weights = binary.LittleEndian.AppendUint32(weights, math.Float32bits(float32(10*i)))
	}
	for name, data := range map[string][]byte{"deep/adding.onnx": adding(), "deep/weights.data": weights, "deep/text.onnx": []byte("no model")} {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, data, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	in, out, err := DescribeFile(Folder(dir), "deep/adding.onnx")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(CheckIO(in, "x", []int64{4}), CheckIO(out, "y", []int64{4})); err != nil {
		t.Error(err)
	}
	s, err := NewFileSession(Folder(dir), "deep/adding.onnx", []string{"x"}, []string{"y"}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	x, y := NewTensor(4), NewTensor(4)
	if err := s.Run([]*Tensor{x}, []*Tensor{y}); err != nil || !slices.Equal(y.Data(), []float32{0, 10, 20, 30}) {
		t.Errorf("y = %v, %v", y.Data(), err)
	}
	for _, name := range []string{"deep/text.onnx", "gone.onnx"} {
		if _, _, err := DescribeFile(Folder(dir), name); err == nil || errors.Is(err, fs.ErrNotExist) != (name == "gone.onnx") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestModelInMemory(t *testing.T) {
	fsys := fstest.MapFS{"doubling.onnx": {Data: doubling()}}
	in, out, err := DescribeFile(fsys, "doubling.onnx")
	if err != nil || CheckIO(in, "x", []int64{3}) != nil || CheckIO(out, "y", []int64{3}) != nil {
		t.Errorf("inputs %v, outputs %v, error %v", in, out, err)
	}
	s, err := NewFileSession(fsys, "doubling.onnx", []string{"x"}, []string{"y"}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := NewFileSession(fsys, "gone.onnx", []string{"x"}, []string{"y"}, Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want %v", err, fs.ErrNotExist)
	}
	for want, err := range map[string]error{
		`no "z" among ["x"]`: CheckIO(in, "z", []int64{3}),
		`"x" has shape [-1] where the manifest says [3 3]`: CheckIO(in, "x", []int64{3, 3}),
	} {
		if err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

// TestRunContextEndsInside: a run that would go on for years ends with its context.
func TestRunContextEndsInside(t *testing.T) {
	s, err := NewSession(looping(), []string{"x"}, []string{"y"}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	x, y := NewTensor(1), NewTensor(1)
	if err := s.RunContext(ctx, []*Tensor{x}, []*Tensor{y}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want %v", err, context.DeadlineExceeded)
	}
}

func TestRunContext(t *testing.T) {
	s := newDoubling(t)
	ctx, cancel := context.WithCancel(t.Context())
	x, y := NewTensor(2), NewTensor(2)
	x.Data()[1] = 4
	for range 3 { // options of one run are not those of the next
		if err := s.RunContext(ctx, []*Tensor{x}, []*Tensor{y}); err != nil || y.Data()[1] != 8 {
			t.Errorf("y = %v, %v", y.Data(), err)
		}
	}
	if err := s.RunContext(ctx, []*Tensor{x}, []*Tensor{NewTensor(3)}); err == nil || !strings.Contains(err.Error(), "running model") {
		t.Errorf("an output of the wrong shape: error %v", err)
	}
	cancel()
	if err := s.RunContext(ctx, []*Tensor{x}, []*Tensor{y}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
}
