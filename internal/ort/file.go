package ort

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	onnx "github.com/yalue/onnxruntime_go"
)

// maxModel bounds the bytes of a model that is read into memory: protobuf's own bound.
const maxModel = 2 << 30

// Folder is a folder on disk as a file system. Models in it are opened by their path, so that the runtime finds what they keep in other
// files beside them, as models above 2 GB must.
type Folder string

// Open implements fs.FS.
func (f Folder) Open(name string) (fs.File, error) { return os.DirFS(string(f)).Open(name) }

func (f Folder) path(name string) string { return filepath.Join(string(f), filepath.FromSlash(name)) }

// DescribeFile is Describe for a model of a file system.
func DescribeFile(fsys fs.FS, name string) (inputs, outputs []IO, err error) {
	folder, onDisk := fsys.(Folder)
	if !onDisk {
		model, err := readModel(fsys, name)
		if err != nil {
			return nil, nil, err
		}
		return Describe(model)
	}
	if _, err := fs.Stat(fsys, name); err != nil {
		return nil, nil, err
	}
	if !onnx.IsInitialized() {
		return nil, nil, ErrNotOpen
	}
	options, err := sessionOptions(Options{})
	if err != nil {
		return nil, nil, fmt.Errorf("setting session options: %w", err)
	}
	defer options.Destroy()
	// Names and shapes are all that is asked for: weights need not be folded or laid out anew.
	if err := errors.Join(options.SetGraphOptimizationLevel(onnx.GraphOptimizationLevelDisableAll),
		options.AddSessionConfigEntry("session.disable_prepacking", "1")); err != nil {
		return nil, nil, fmt.Errorf("setting session options: %w", err)
	}
	in, out, err := onnx.GetInputOutputInfoWithOptions(folder.path(name), options)
	if err != nil {
		return nil, nil, fmt.Errorf("reading model: %w", err)
	}
	return describeBoth(in, out)
}

// NewFileSession is NewSession for a model of a file system.
func NewFileSession(fsys fs.FS, name string, inputs, outputs []string, o Options) (*Session, error) {
	folder, onDisk := fsys.(Folder)
	if !onDisk {
		model, err := readModel(fsys, name)
		if err != nil {
			return nil, err
		}
		return NewSession(model, inputs, outputs, o)
	}
	return newSession(inputs, outputs, o, func(options *onnx.SessionOptions) (*onnx.DynamicAdvancedSession, error) {
		return onnx.NewDynamicAdvancedSession(folder.path(name), inputs, outputs, options)
	})
}

func readModel(fsys fs.FS, name string) ([]byte, error) {
	info, err := fs.Stat(fsys, name)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxModel {
		return nil, fmt.Errorf("%s: %d bytes, more than an ONNX file can have", name, info.Size())
	}
	return fs.ReadFile(fsys, name)
}

// CheckIO says what is wrong with one of a model's inputs or outputs, where it must have this name and shape. -1 is a free dimension; one
// that is free in the model fits every wish.
func CheckIO(found []IO, name string, want []int64) error {
	i := slices.IndexFunc(found, func(io IO) bool { return io.Name == name })
	if i < 0 {
		var names []string
		for _, io := range found {
			names = append(names, io.Name)
		}
		return fmt.Errorf("no %q among %q", name, names)
	}
	got := found[i].Shape
	ok := len(got) == len(want)
	for k := 0; ok && k < len(want); k++ {
		ok = got[k] == -1 || got[k] == want[k]
	}
	if !ok {
		return fmt.Errorf("%q has shape %v where the manifest says %v", name, got, want)
	}
	return nil
}

// RunContext is Run that ends, with the error of ctx, between two nodes when ctx does.
func (s *Session) RunContext(ctx context.Context, inputs, outputs []*Tensor) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if ctx.Done() == nil {
		return s.Run(inputs, outputs)
	}
	s.running.RLock()
	defer s.running.RUnlock()
	if s.inner == nil {
		panic("ort: run of a closed session")
	}
	options, err := onnx.NewRunOptions()
	if err != nil {
		return fmt.Errorf("setting run options: %w", err)
	}
	defer options.Destroy()
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { defer close(ended); options.Terminate() })
	err = s.inner.RunWithOptions(values(inputs), values(outputs), options)
	if !stop() {
		<-ended
		if err != nil {
			return ctx.Err()
		}
	}
	if err != nil {
		return fmt.Errorf("running model: %w", err)
	}
	return nil
}
