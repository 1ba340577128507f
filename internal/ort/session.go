package ort

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	onnx "github.com/yalue/onnxruntime_go"
)

// Options say how a session runs.
type Options struct {
	// Threads is the number of threads that share the work of one node; 0 means 1. The thread that calls Run is one of them.
	// Nodes run one after another.
	Threads int
	// Spin is how long a thread that waits for its share of the next node looks for it before it sleeps, up to a second; 0, the
	// default, is not at all. It saves the time to wake a thread, some microseconds a node, where a core is free for every thread;
	// where cores are shared it takes them from others. Between runs no thread spins.
	Spin time.Duration
	// Provider executes the nodes: CPU, which "" means too, or CUDA, which needs a library built with it, an NVIDIA device and its
	// driver. Tensors stay in the host's memory; each run copies what the device needs.
	Provider string
	// Profile, if not empty, is the prefix of a file to which the runtime writes the time of every node when the session is closed.
	// It slows runs down.
	Profile string
}

// Execution providers.
const (
	CPU  = "cpu"
	CUDA = "cuda"
)

// Providers lists the execution providers that Options can name.
func Providers() []string { return []string{CPU, CUDA} }

// Session is a compiled model. Its shapes are those of the tensors given to each run. It is safe for concurrent runs.
type Session struct {
	inputs, outputs []string
	copies          bool // inputs to a device's memory

	// running guards inner: runs hold it shared, Close exclusively.
	running sync.RWMutex
	inner   *onnx.DynamicAdvancedSession
}

// NewSession compiles the ONNX model. inputs and outputs fix the order in which tensors are given to Run. The bytes are not kept.
func NewSession(model []byte, inputs, outputs []string, o Options) (*Session, error) {
	return newSession(inputs, outputs, o, func(options *onnx.SessionOptions) (*onnx.DynamicAdvancedSession, error) {
		return onnx.NewDynamicAdvancedSessionWithONNXData(model, inputs, outputs, options)
	})
}

func newSession(inputs, outputs []string, o Options, compile func(*onnx.SessionOptions) (*onnx.DynamicAdvancedSession, error)) (*Session, error) {
	if len(inputs) == 0 || len(outputs) == 0 {
		panic("ort: a session needs at least one input and one output")
	}
	if !onnx.IsInitialized() {
		return nil, ErrNotOpen
	}
	options, err := sessionOptions(o)
	if err != nil {
		return nil, fmt.Errorf("setting session options: %w", err)
	}
	defer options.Destroy()
	inner, err := compile(options)
	if err != nil {
		return nil, fmt.Errorf("compiling model: %w", err)
	}
	return &Session{inputs: slices.Clone(inputs), outputs: slices.Clone(outputs), inner: inner,
		copies: o.Provider != "" && o.Provider != CPU}, nil
}

// Check returns the error that NewSession would return for o itself, such as an execution provider that this machine lacks.
func Check(o Options) error {
	if !onnx.IsInitialized() {
		return ErrNotOpen
	}
	options, err := sessionOptions(o)
	if err != nil {
		return err
	}
	return options.Destroy()
}

func sessionOptions(o Options) (*onnx.SessionOptions, error) {
	options, err := onnx.NewSessionOptions()
	if err != nil {
		return nil, err
	}
	for _, set := range []func() error{
		func() error { return options.SetIntraOpNumThreads(max(o.Threads, 1)) },
		func() error { return options.SetInterOpNumThreads(1) },
		func() error { return options.SetExecutionMode(onnx.ExecutionModeSequential) },
		func() error { return options.SetGraphOptimizationLevel(onnx.GraphOptimizationLevelEnableAll) },
		func() error { return setSpin(options, o.Spin) },
		func() error { return options.AddSessionConfigEntry("session.inter_op.allow_spinning", "0") },
		func() error { return setProvider(options, o.Provider) },
		func() error {
			if o.Profile == "" {
				return nil
			}
			return options.EnableProfiling(o.Profile)
		},
	} {
		if err := set(); err != nil {
			options.Destroy()
			return nil, err
		}
	}
	return options, nil
}

func setSpin(options *onnx.SessionOptions, spin time.Duration) error {
	if spin < 0 || spin > time.Second {
		return fmt.Errorf("spin of %s is not within 0 and 1s", spin)
	}
	if spin == 0 {
		return options.AddSessionConfigEntry("session.intra_op.allow_spinning", "0")
	}
	for _, e := range [][2]string{
		{"session.intra_op.allow_spinning", "1"},
		{"session.force_spinning_stop", "1"}, // when a run ends
		{"session.intra_op.spin_duration_us", strconv.FormatInt(max(spin.Microseconds(), 1), 10)},
	} {
		if err := options.AddSessionConfigEntry(e[0], e[1]); err != nil {
			return err
		}
	}
	return nil
}

// setProvider puts the provider before the CPU's, which every session has for the nodes that the first cannot execute.
func setProvider(options *onnx.SessionOptions, provider string) error {
	switch provider {
	case "", CPU:
		return nil
	case CUDA:
	default:
		return fmt.Errorf("execution provider %q is not one of %s", provider, strings.Join(Providers(), ", "))
	}
	cuda, err := onnx.NewCUDAProviderOptions()
	if err == nil {
		defer cuda.Destroy()
		err = options.AppendExecutionProviderCUDA(cuda)
	}
	if err != nil {
		return fmt.Errorf("execution provider %s is not available (it needs an NVIDIA device and ONNX Runtime %s built with CUDA, "+
			"named by $%s or the configuration; %s runs everywhere): %s", CUDA, Version, Env, CPU, strings.Join(strings.Fields(err.Error()), " "))
	}
	return nil
}

// Run reads inputs and writes outputs, in the order of the names given to NewSession. All tensors are the caller's; none may be
// used elsewhere while the run lasts, except inputs that others only read.
func (s *Session) Run(inputs, outputs []*Tensor) error {
	s.running.RLock()
	defer s.running.RUnlock()
	if s.inner == nil {
		panic("ort: run of a closed session")
	}
	if err := s.inner.Run(values(inputs), values(outputs)); err != nil {
		return fmt.Errorf("running model: %w", err)
	}
	return nil
}

func values(tensors []*Tensor) []onnx.Value {
	out := make([]onnx.Value, len(tensors))
	for i, t := range tensors {
		out[i] = t.value
	}
	return out
}

// Close frees the session after the runs in progress have ended. Bindings of it must be closed before. A second Close does nothing.
func (s *Session) Close() error {
	s.running.Lock()
	defer s.running.Unlock()
	if s.inner == nil {
		return nil
	}
	err := s.inner.Destroy()
	s.inner = nil
	return err
}

// Binding is a session with its tensors fixed, so that a run on the CPU allocates nothing in Go. It must not be run concurrently.
type Binding struct {
	session *Session
	inner   *onnx.IoBinding
	tensors []*Tensor // inputs, then outputs, kept alive: the runtime holds their memory
}

// Bind fixes the tensors of a run, in the order of the names given to NewSession.
func (s *Session) Bind(inputs, outputs []*Tensor) (*Binding, error) {
	if len(inputs) != len(s.inputs) || len(outputs) != len(s.outputs) {
		panic(fmt.Sprintf("ort: binding %d inputs and %d outputs to a session of %d and %d", len(inputs), len(outputs), len(s.inputs), len(s.outputs)))
	}
	s.running.RLock()
	defer s.running.RUnlock()
	if s.inner == nil {
		panic("ort: binding to a closed session")
	}
	inner, err := s.inner.CreateIoBinding()
	if err != nil {
		return nil, fmt.Errorf("binding tensors: %w", err)
	}
	b := &Binding{session: s, inner: inner, tensors: slices.Concat(inputs, outputs)}
	if err := b.bindInputs(); err != nil {
		b.Close()
		return nil, err
	}
	for i, t := range outputs {
		if err := inner.BindOutput(s.outputs[i], t.value); err != nil {
			b.Close()
			return nil, fmt.Errorf("binding output %q: %w", s.outputs[i], err)
		}
	}
	return b, nil
}

func (b *Binding) bindInputs() error {
	for i, name := range b.session.inputs {
		if err := b.inner.BindInput(name, b.tensors[i].value); err != nil {
			return fmt.Errorf("binding input %q: %w", name, err)
		}
	}
	return nil
}

// Run reads the bound inputs, as they are now, and writes the bound outputs.
func (b *Binding) Run() error {
	b.session.running.RLock()
	defer b.session.running.RUnlock()
	if b.session.inner == nil || b.inner == nil {
		panic("ort: run of a closed binding")
	}
	if b.session.copies { // the runtime copies an input to the device when it is bound, not when it is run
		if err := b.bindInputs(); err != nil {
			return err
		}
	}
	if err := b.session.inner.RunWithBinding(b.inner); err != nil {
		return fmt.Errorf("running model: %w", err)
	}
	return nil
}

// Close frees the binding, not its tensors. A second Close does nothing.
func (b *Binding) Close() error {
	if b.inner == nil {
		return nil
	}
	err := b.inner.Destroy()
	b.inner = nil
	return err
}

// IO describes an input or output of a model. A dimension of -1 is free.
type IO struct {
	Name  string
	Shape []int64
}

// Describe lists a model's inputs and outputs in its own order. It compiles the model, so it is not for hot paths. An input or
// output that is not a float32 tensor is an error.
func Describe(model []byte) (inputs, outputs []IO, err error) {
	if !onnx.IsInitialized() {
		return nil, nil, ErrNotOpen
	}
	in, out, err := onnx.GetInputOutputInfoWithONNXData(model)
	if err != nil {
		return nil, nil, fmt.Errorf("reading model: %w", err)
	}
	return describeBoth(in, out)
}

func describeBoth(in, out []onnx.InputOutputInfo) (inputs, outputs []IO, err error) {
	if inputs, err = describe("input", in); err != nil {
		return nil, nil, err
	}
	outputs, err = describe("output", out)
	return inputs, outputs, err
}

func describe(kind string, infos []onnx.InputOutputInfo) ([]IO, error) {
	out := make([]IO, len(infos))
	for i, info := range infos {
		if info.OrtValueType != onnx.ONNXTypeTensor || info.DataType != onnx.TensorElementDataTypeFloat {
			return nil, fmt.Errorf("reading model: %s %q holds %s, not float32", kind, info.Name, info.DataType)
		}
		out[i] = IO{Name: info.Name, Shape: slices.Clone(info.Dimensions)}
	}
	return out, nil
}
