// Package ort runs ONNX models in ONNX Runtime, on the CPU if nothing else is asked for.
//
// It is a thin layer over the binding github.com/yalue/onnxruntime_go that fixes what every user here needs: one environment per
// process, sessions from bytes, threads that do not spin unless asked to (the cores are shared with Go), and tensors whose memory the caller owns, so
// that a run copies nothing. Tensors hold float32 in row-major order; there is no other element type.
//
// Locate finds the shared library, Open loads it once, NewSession compiles a model.
package ort

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	onnx "github.com/yalue/onnxruntime_go"
)

const (
	// Version is the release of ONNX Runtime that the project is built and tested with.
	Version = "1.30.0"
	// MinAPI is the lowest C API level the binding can drive: ONNX Runtime 1.24 is the first release that has it.
	MinAPI = 24
)

// Env names the environment variable that overrides the library's place.
const Env = "REBECA_ONNXRUNTIME"

// ErrNotOpen is returned where a tensor or a session is made before Open has succeeded.
var ErrNotOpen = errors.New("ONNX Runtime is not loaded: call ort.Open first")

// Locate returns the path of the shared library: explicit if it is not empty, else the value of $REBECA_ONNXRUNTIME, else the
// per-user cache, os.UserCacheDir()/rebeca/onnxruntime/<Version>/. A named place that holds no file is an error and is not
// passed over. The error names each place that was looked at and how to get the library.
func Locate(explicit string) (string, error) {
	if explicit != "" {
		return named(explicit, "the configuration")
	}
	if path := os.Getenv(Env); path != "" {
		return named(path, "$"+Env)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("locating the user's cache (set $%s to the library instead): %w", Env, err)
	}
	path := filepath.Join(cache, "rebeca", "onnxruntime", Version, libraryName())
	if err := isFile(path); err != nil {
		return "", fmt.Errorf("locating ONNX Runtime %s: $%s is not set and %w; run `make onnxruntime`", Version, Env, err)
	}
	return path, nil
}

func named(path, by string) (string, error) {
	if err := isFile(path); err != nil {
		return "", fmt.Errorf("locating ONNX Runtime, named by %s: %w; run `make onnxruntime` and leave it unset, or name %s of version %s",
			by, err, libraryName(), Version)
	}
	return path, nil
}

func isFile(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no %s", path)
	case err != nil:
		return err
	case info.IsDir():
		return fmt.Errorf("%s is a directory", path)
	}
	return nil
}

func libraryName() string {
	if runtime.GOOS == "darwin" {
		return "libonnxruntime.dylib"
	}
	return "libonnxruntime.so"
}

// environment is the process-wide state of the C library. It is package state because the library itself has one environment per
// process and cannot be loaded twice.
var environment struct {
	sync.Mutex
	path string // guarded by Mutex; empty until Open has succeeded
}

// Open loads the library at path and starts its environment, once per process: later calls with the same path do nothing, another
// path is an error. A library whose API is older than MinAPI is refused.
func Open(path string) error {
	environment.Lock()
	defer environment.Unlock()
	if environment.path == path {
		return nil
	}
	if environment.path != "" {
		return fmt.Errorf("loading ONNX Runtime from %s: this process already uses %s", path, environment.path)
	}
	onnx.SetSharedLibraryPath(path)
	if err := onnx.InitializeEnvironment(); err != nil {
		return openError(path, err)
	}
	environment.path = path
	return nil
}

// openError turns the binding's words into one line that says what to do. The binding reports a library without the API level as
// code 2 of "setting ORT API base".
func openError(path string, err error) error {
	if strings.Contains(err.Error(), "ORT API base: 2") {
		return fmt.Errorf("loading ONNX Runtime from %s: the library is too old: its API is below level %d (ONNX Runtime 1.24); "+
			"version %s is expected, run `make onnxruntime`", path, MinAPI, Version)
	}
	return fmt.Errorf("loading ONNX Runtime from %s: %s; version %s is expected, run `make onnxruntime`",
		path, strings.ReplaceAll(err.Error(), "\n", " "), Version)
}
