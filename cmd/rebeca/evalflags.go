package main

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"rebeca/eval"
	"rebeca/internal/ort"
)

// evalFlags are those of every evaluation.
type evalFlags struct {
	sets    *[]string
	library *string
	asJSON  *bool
}

func newEvalFlags(cmd *cobra.Command) evalFlags {
	f := cmd.Flags()
	return evalFlags{
		sets:    f.StringArray("set", nil, "section.name=value of the recipe; may be repeated"),
		library: f.String("onnxruntime", "", "ONNX Runtime's shared library (default: $REBECA_ONNXRUNTIME, then the cache)"),
		asJSON:  f.Bool("json", false, "print reports as JSON lines in place of tables"),
	}
}

// apply sets what --set says.
func (e evalFlags) apply(r *eval.Recipe) error {
	for _, s := range *e.sets {
		if err := r.Set(s); err != nil {
			return usageError{fmt.Errorf("--set %w", err)}
		}
	}
	return nil
}

// open loads ONNX Runtime and returns the log of warnings.
func (e evalFlags) open(cmd *cobra.Command) (*slog.Logger, error) {
	path, err := ort.Locate(*e.library)
	if err != nil {
		return nil, err
	}
	if err := ort.Open(path); err != nil {
		return nil, err
	}
	return newLogger(cmd.ErrOrStderr(), slog.LevelWarn), nil
}

// writeReport writes a report that --report names; nothing without a name.
func writeReport(file string, report []byte) error {
	if file == "" {
		return nil
	}
	if err := os.WriteFile(file, report, 0o644); err != nil {
		return fmt.Errorf("--report: %w", err)
	}
	return nil
}
