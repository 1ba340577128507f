package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"rebeca/dataset"
	"rebeca/eval"
	"rebeca/table"
)

func evalFiles() *cobra.Command {
	cmd := &cobra.Command{
		Use: "files", Short: "Learn a recording of events in one pass and score what its people are given", Args: noArgs,
		Long: `Play a file of events over a file of items once, with the real table, trainer and
sampler in this process and without Kafka. What people truly like is not known
here, so three things are measured: the error of events before they are learned,
the rank of the next liked item among 100 others, and precision and recall of
25 samples of each person against answers that were held out.

Files are JSONL, CSV or Parquet; columns are named like the fields of the topics'
records. Events are learned in the order of the file.`,
	}
	f := cmd.Flags()
	var r eval.Reading
	o := eval.DefaultFileOptions()
	f.StringVar(&r.Items, "items", "", "file of the catalogue (.jsonl, .csv, .parquet)")
	f.StringVar(&r.Events, "events", "", "file of the events (.jsonl, .csv, .parquet)")
	f.Uint64Var(&r.Seed, "seed", 1, "of the prior, the held-out answers and the samples")
	onError := f.String("on-error", "fail", "what a bad row does: fail or skip")
	classes := f.String("classes", "default", "what kinds of feedback mean: default, or paper (ratings of 4 and more are likes, others dislikes)")
	f.IntVar(&o.HeldOut, "held-out", o.HeldOut, "answers of each person that are not learned, at most a third of theirs")
	f.IntVar(&o.Asked, "asked", o.Asked, "likes of the stream that are ranked, at most")
	shared := newEvalFlags(cmd)
	require(cmd, "items", "events")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if r.Skip, err = skips(*onError); err != nil {
			return err
		}
		if o.HeldOut < 0 || o.Asked < 0 {
			return usageError{errors.New("--held-out and --asked cannot be negative")}
		}
		r.OnBad = func(err error) { fmt.Fprintln(cmd.ErrOrStderr(), err) }
		rec, err := r.Read()
		var row *dataset.RowError
		if errors.As(err, &row) {
			return fmt.Errorf("%w (--on-error skip passes over it)", err)
		}
		if err != nil {
			return err
		}
		recipe := eval.DefaultRecipe(rec.Dim())
		if recipe.Window.Classes, err = table.Preset(*classes); err != nil {
			return usageError{fmt.Errorf("--classes: %w", err)}
		}
		if err := shared.apply(&recipe); err != nil {
			return err
		}
		log, err := shared.open(cmd)
		if err != nil {
			return err
		}
		o.Progress, o.Logger = cmd.ErrOrStderr(), log
		recipe.Train.Seed = r.Seed
		got, err := eval.RunFiles(cmd.Context(), rec, recipe, o)
		if err != nil {
			return err
		}
		if *shared.asJSON {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(got)
		}
		return got.Table(cmd.OutOrStdout())
	}
	return cmd
}
