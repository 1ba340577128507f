package ort

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// TestMain loads ONNX Runtime for all tests, after checking what is refused without it.
func TestMain(m *testing.M) {
	path, err := Locate("")
	if err == nil {
		err = beforeOpen()
	}
	if err == nil {
		err = Open(path)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// beforeOpen checks what is refused while no library is loaded: the environment cannot be taken down again for a test.
func beforeOpen() error {
	if _, err := NewTensorFrom(make([]float32, 1), 1); !errors.Is(err, ErrNotOpen) {
		return fmt.Errorf("tensor before Open: %v", err)
	}
	if _, err := NewSession(doubling(), []string{"x"}, []string{"y"}, Options{}); !errors.Is(err, ErrNotOpen) {
		return fmt.Errorf("session before Open: %v", err)
	}
	dir, err := os.MkdirTemp("", "ort")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	text := filepath.Join(dir, "text.so")
	if err := os.WriteFile(text, []byte("no library"), 0o600); err != nil {
		return err
	}
	if err := Open(text); err == nil || !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "\n") {
		return fmt.Errorf("opening a text file: %v", err)
	}
	old, err := buildOldLibrary(dir)
	if err != nil {
		return err
	}
	if err := Open(old); err == nil || !strings.Contains(err.Error(), "below level 24") || strings.Contains(err.Error(), "\n") {
		return fmt.Errorf("opening a library of an older API: %v", err)
	}
	return nil
}

// buildOldLibrary compiles a library that, like an old ONNX Runtime, has no API of the level it is asked for. The C compiler that
// builds the binding builds it too.
func buildOldLibrary(dir string) (string, error) {
	const source = `
#include <stddef.h>
#include <stdint.h>
typedef struct { const void *(*get)(uint32_t); const char *(*version)(void); } base;
static const void *get(uint32_t level) { return NULL; }
static const char *version(void) { return "1.18.0"; }
static const base b = { get, version };
const base *OrtGetApiBase(void) { return &b; }
`
	compiler := os.Getenv("CC")
	if compiler == "" {
		compiler = "cc"
	}
	in, out := filepath.Join(dir, "old.c"), filepath.Join(dir, "old.so")
	if err := os.WriteFile(in, []byte(source), 0o600); err != nil {
		return "", err
	}
	if text, err := exec.Command(compiler, "-shared", "-fPIC", "-o", out, in).CombinedOutput(); err != nil {
		return "", fmt.Errorf("compiling a library: %w: %s", err, text)
	}
	return out, nil
}

func TestLocate(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "cache"))
	t.Setenv("HOME", dir)
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	cached := filepath.Join(cache, "rebeca", "onnxruntime", Version, libraryName())
	mine := filepath.Join(dir, "mine.so")
	for _, c := range []struct {
		name, explicit, env string
		files               []string
		want                string
		mentions            []string // of the error
	}{
		{name: "nothing", mentions: []string{cached, "$REBECA_ONNXRUNTIME", "make onnxruntime"}},
		{name: "explicit is missing", explicit: mine, files: []string{cached}, mentions: []string{mine, "the configuration"}},
		{name: "variable is missing", env: mine, files: []string{cached}, mentions: []string{mine, "$REBECA_ONNXRUNTIME"}},
		{name: "a directory", explicit: dir, mentions: []string{"is a directory"}},
		{name: "cache", files: []string{cached}, want: cached},
		{name: "variable before cache", env: mine, files: []string{cached, mine}, want: mine},
		{name: "explicit before variable", explicit: mine, env: "elsewhere.so", files: []string{mine}, want: mine},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv(Env, c.env)
			for _, f := range c.files {
				touch(t, f)
			}
			got, err := Locate(c.explicit)
			if got != c.want || (err == nil) != (c.want != "") {
				t.Fatalf("Locate = %q, %v; want %q", got, err, c.want)
			}
			for _, m := range c.mentions {
				if !strings.Contains(err.Error(), m) {
					t.Errorf("error %q does not mention %q", err, m)
				}
			}
		})
	}
}

func touch(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(path) })
}

func TestOpenAgain(t *testing.T) {
	path := environment.path
	if err := Open(path); err != nil {
		t.Errorf("opening the same library again: %v", err)
	}
	if err := Open("/elsewhere/" + libraryName()); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("opening a second library: %v", err)
	}
}

// doubling is a model of one node, y = x + x, for x of any length.
func doubling() []byte {
	field := func(b []byte, number protowire.Number, value []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), value)
	}
	number := func(b []byte, f protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(b, f, protowire.VarintType), v)
	}
	info := func(name string) []byte {
		shape := field(nil, 1, field(nil, 2, []byte("n")))
		tensor := field(number(nil, 1, 1), 2, shape)
		return field(field(nil, 1, []byte(name)), 2, field(nil, 1, tensor))
	}
	node := field(field(field(field(nil, 1, []byte("x")), 1, []byte("x")), 2, []byte("y")), 4, []byte("Add"))
	graph := field(field(field(field(nil, 1, node), 2, []byte("doubling")), 11, info("x")), 12, info("y"))
	return field(field(number(nil, 1, 8), 7, graph), 8, number(nil, 2, 17))
}

func newDoubling(t *testing.T) *Session {
	t.Helper()
	s, err := NewSession(doubling(), []string{"x"}, []string{"y"}, Options{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestRun(t *testing.T) {
	s := newDoubling(t)
	var wg sync.WaitGroup
	for n := int64(1); n <= 8; n++ {
		wg.Go(func() {
			x, y := NewTensor(n), NewTensor(n)
			defer x.Close()
			defer y.Close()
			for round := range 50 {
				for i := range x.Data() {
					x.Data()[i] = float32(round + i)
				}
				if err := s.Run([]*Tensor{x}, []*Tensor{y}); err != nil {
					t.Error(err)
				}
				for i, got := range y.Data() {
					if want := float32(2 * (round + i)); got != want {
						t.Errorf("y[%d] = %v, want %v", i, got, want)
					}
				}
			}
		})
	}
	wg.Wait()
	if err := s.Run([]*Tensor{NewTensor(3)}, []*Tensor{NewTensor(4)}); err == nil {
		t.Error("an output of the wrong shape was accepted")
	}
}

func TestBinding(t *testing.T) {
	for name, copies := range map[string]bool{"in place": false, "copied": true} { // as for a device
		t.Run(name, func(t *testing.T) {
			s := newDoubling(t)
			s.copies = copies
			checkBinding(t, s)
		})
	}
}

// checkBinding runs a binding on changing numbers and closes it and its session.
func checkBinding(t *testing.T, s *Session) {
	t.Helper()
	data := []float32{1, 2, 3}
	x, err := NewTensorFrom(data, 3)
	if err != nil {
		t.Fatal(err)
	}
	y := NewTensor(3)
	b, err := s.Bind([]*Tensor{x}, []*Tensor{y})
	if err != nil {
		t.Fatal(err)
	}
	for _, first := range []float32{1, 5} {
		data[0] = first // the tensor shares the slice
		if err := b.Run(); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(y.Data()); got != fmt.Sprint([]float32{2 * first, 4, 6}) {
			t.Errorf("y = %s after x[0] = %v", got, first)
		}
	}
	for range 2 {
		if err := errors.Join(b.Close(), s.Close()); err != nil {
			t.Error(err)
		}
	}
}

func TestNewTensorFromChecksShape(t *testing.T) {
	for _, shape := range [][]int64{{}, {3}, {0}, {-2, -1}, {2, 2}} {
		if _, err := NewTensorFrom(make([]float32, 2), shape...); err == nil {
			t.Errorf("shape %v was accepted for 2 values", shape)
		}
	}
}

func TestDescribe(t *testing.T) {
	inputs, outputs, err := Describe(doubling())
	if got := fmt.Sprint(inputs, outputs, err); got != "[{x [-1]}] [{y [-1]}] <nil>" {
		t.Errorf("Describe = %s", got)
	}
	if _, _, err := Describe([]byte("no model")); err == nil {
		t.Error("text was described as a model")
	}
	if _, err := NewSession([]byte("no model"), []string{"x"}, []string{"y"}, Options{}); err == nil {
		t.Error("text was compiled as a model")
	}
}

// TestOptions makes sessions under each option and runs them; what the library or the machine lacks is one line that says so.
func TestOptions(t *testing.T) {
	profile := filepath.Join(t.TempDir(), "profile")
	for _, c := range []struct {
		name    string
		options Options
		errors  []string // its words; none where the session must work
	}{
		{"default", Options{}, nil},
		{"cpu", Options{Provider: CPU}, nil},
		{"spinning", Options{Threads: 2, Spin: 20 * time.Microsecond}, nil},
		{"profile", Options{Profile: profile}, nil},
		{"provider", Options{Provider: "tpu"}, []string{`"tpu" is not one of cpu, cuda`}},
		{"spin below 0", Options{Spin: -1}, []string{"spin of -1ns"}},
		{"spin above 1s", Options{Spin: time.Minute}, []string{"spin of 1m0s"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := NewSession(doubling(), []string{"x"}, []string{"y"}, c.options)
			if c.errors != nil {
				refused(t, err, c.errors...)
				refused(t, Check(c.options), c.errors...)
				return
			}
			if err := errors.Join(err, Check(c.options)); err != nil {
				t.Fatal(err)
			}
			x, y := NewTensor(1), NewTensor(1)
			x.Data()[0] = 3
			if err := errors.Join(s.Run([]*Tensor{x}, []*Tensor{y}), s.Close()); err != nil || y.Data()[0] != 6 {
				t.Errorf("3 doubled is %v, %v", y.Data()[0], err)
			}
		})
	}
	if files, _ := filepath.Glob(profile + "*"); len(files) != 1 {
		t.Errorf("profiles are %v, want one", files)
	}
}

// TestCUDA works where there is a device, and says what is missing where there is none.
func TestCUDA(t *testing.T) {
	s, err := NewSession(doubling(), []string{"x"}, []string{"y"}, Options{Provider: CUDA})
	if err != nil {
		refused(t, err, "execution provider cuda is not available", "NVIDIA", "built with CUDA", "cpu runs everywhere")
		return
	}
	x, y := NewTensor(1), NewTensor(1)
	x.Data()[0] = 3
	if err := s.Run([]*Tensor{x}, []*Tensor{y}); err != nil || y.Data()[0] != 6 {
		t.Errorf("3 doubled is %v, %v", y.Data()[0], err)
	}
	checkBinding(t, s)
}

// refused holds an error against the words it must have, in one line.
func refused(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error of several lines: %q", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}
