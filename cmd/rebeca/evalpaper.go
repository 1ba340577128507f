package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"rebeca/eval"
	"rebeca/internal/ort"
)

func evalPaper() *cobra.Command {
	cmd := &cobra.Command{
		Use: "paper", Short: "Repeat the paper's controlled experiment in one pass, beside its published figures", Args: noArgs,
		Long: `Repeat the controlled experiment of arXiv 2502.18477 on this repository's
pictures: four people rate every picture, the ratings are learned in one pass by
the service's own trainer, and samples for the four are scored by the two
published protocols and by W2², beside the published figures and beside what
fresh real likes score. --report writes a page with pictures, all in one file.`,
	}
	f := cmd.Flags()
	o := eval.DefaultPaperOptions()
	f.Uint64Var(&o.Seed, "seed", o.Seed, "of answers, split, order, prior and samples")
	f.IntVar(&o.Items, "items", o.Items, "size of the catalogue; everybody rates all of it")
	f.IntVar(&o.Samples, "samples", o.Samples, "samples a person of protocol B and of W2²")
	f.IntVar(&o.Repetitions, "repetitions", o.Repetitions, "of protocol A")
	f.IntVar(&o.Steps, "steps", o.Steps, "steps of the sampler at guidance 1")
	sets := f.StringArray("set", nil, "section.name=value of the recipe, as of eval stream; may be repeated")
	library := f.String("onnxruntime", "", "ONNX Runtime's shared library (default: $REBECA_ONNXRUNTIME, then the cache)")
	report := f.String("report", "", "write a page to this file (.html)")
	asJSON := f.Bool("json", false, "print the report as JSON in place of tables")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := o.Validate(); err != nil {
			return usageError{fmt.Errorf("--%w", err)}
		}
		recipe := eval.DefaultRecipe(16)
		for _, s := range *sets {
			if err := recipe.Set(s); err != nil {
				return usageError{fmt.Errorf("--set %w", err)}
			}
		}
		if err := writable(*report); err != nil {
			return fmt.Errorf("--report: %w", err)
		}
		path, err := ort.Locate(*library)
		if err != nil {
			return err
		}
		if err := ort.Open(path); err != nil {
			return err
		}
		o.Progress, o.Logger = cmd.ErrOrStderr(), newLogger(cmd.ErrOrStderr(), slog.LevelWarn)
		recipe.Train.Seed = o.Seed
		got, err := eval.Paper(cmd.Context(), &eval.Worlds{Runtime: recipe.Runtime, Progress: o.Progress}, recipe, o)
		if err != nil {
			return err
		}
		if *report != "" {
			var page bytes.Buffer
			if err := got.HTML(&page); err != nil {
				return err
			}
			if err := os.WriteFile(*report, page.Bytes(), 0o644); err != nil {
				return fmt.Errorf("--report: %w", err)
			}
		}
		if *asJSON {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(got)
		}
		return got.Table(cmd.OutOrStdout())
	}
	return cmd
}
