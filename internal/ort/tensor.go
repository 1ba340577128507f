package ort

import (
	"fmt"

	onnx "github.com/yalue/onnxruntime_go"
)

// Tensor is float32 memory that sessions read and write in place. Its data lives in Go; the runtime borrows it while a run lasts.
type Tensor struct {
	value *onnx.Tensor[float32]
}

// NewTensor returns a zeroed tensor. It panics where a shape is empty or not positive, and before Open.
func NewTensor(shape ...int64) *Tensor {
	size := int64(1)
	for _, n := range shape {
		size *= max(n, 0)
	}
	t, err := NewTensorFrom(make([]float32, size), shape...)
	if err != nil {
		panic("ort: new tensor: " + err.Error())
	}
	return t
}

// NewTensorFrom returns a tensor over data, which it shares and does not copy. data must have exactly the shape's size.
func NewTensorFrom(data []float32, shape ...int64) (*Tensor, error) {
	if !onnx.IsInitialized() {
		return nil, ErrNotOpen
	}
	size := int64(1)
	for _, n := range shape {
		if n <= 0 {
			return nil, fmt.Errorf("tensor shape %v: every dimension must be positive", shape)
		}
		size *= n
	}
	if len(shape) == 0 || size != int64(len(data)) {
		return nil, fmt.Errorf("tensor shape %v does not fit %d values", shape, len(data))
	}
	value, err := onnx.NewTensor(onnx.NewShape(shape...), data)
	if err != nil {
		return nil, err
	}
	return &Tensor{value: value}, nil
}

// Data returns the tensor's memory, row-major. It is valid until Close.
func (t *Tensor) Data() []float32 { return t.value.GetData() }

// Shape returns a copy of the tensor's shape.
func (t *Tensor) Shape() []int64 { return t.value.GetShape() }

// Close releases the runtime's handle; the Go memory is left to the collector. A second Close does nothing.
func (t *Tensor) Close() {
	if t.value != nil {
		t.value.Destroy()
		t.value = nil
	}
}
