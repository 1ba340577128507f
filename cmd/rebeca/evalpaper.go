package main

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"rebeca/eval"
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
	f.BoolVar(&o.Distances, "distances", false, "find W2² of everybody, the marks too; minutes each at the published size")
	report := f.String("report", "", "write a page to this file (.html)")
	shared := newEvalFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := o.Validate(); err != nil {
			return usageError{fmt.Errorf("--%w", err)}
		}
		recipe := eval.DefaultRecipe(16)
		if err := shared.apply(&recipe); err != nil {
			return err
		}
		if err := writable(*report); err != nil {
			return fmt.Errorf("--report: %w", err)
		}
		log, err := shared.open(cmd)
		if err != nil {
			return err
		}
		o.Progress, o.Logger = cmd.ErrOrStderr(), log
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
			if err := writeReport(*report, page.Bytes()); err != nil {
				return err
			}
		}
		if *shared.asJSON {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(got)
		}
		return got.Table(cmd.OutOrStdout())
	}
	return cmd
}
