package main

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"rebeca/eval"
	"rebeca/online"
	"rebeca/prior"
)

func evalLoop() *cobra.Command {
	cmd := &cobra.Command{
		Use: "loop", Short: "Close the loop: people rate what is made for them, round after round", Args: noArgs,
		Long: `Play the first events of a known world, then have its people rate what is generated
for them, for some rounds, and score what they are given after each. --catalogue is
the share of the later impressions that still show the catalogue. Targets of learning
are items of the catalogue only, as in the service; --targets everything takes what
was generated as well.`,
	}
	f := cmd.Flags()
	name := f.String("world", "demo", "one of "+strings.Join(eval.Names(), ", "))
	seeds := f.UintSlice("seeds", []uint{1}, "seeds of the world, the people and the prior, one run each")
	persons := f.Int("people", 240, "number of people")
	o := eval.DefaultLoopOptions()
	f.IntVar(&o.Start, "start", o.Start, "events before the loop is closed")
	f.IntVar(&o.Rounds, "rounds", o.Rounds, "rounds of the loop")
	f.IntVar(&o.Each, "each", o.Each, "impressions of each person and round")
	f.IntVar(&o.Asked, "asked", o.Asked, "people that are scored")
	f.IntVar(&o.Samples, "samples", o.Samples, "samples of each")
	shares := f.Float64Slice("catalogue", []float64{0, .1, .5}, "shares of impressions of the catalogue, one run each")
	targets := f.StringSlice("targets", []string{"catalogue", "everything"}, "what may be a target, one run each")
	report := f.String("report", "", "write the reports to this file, JSON lines")
	shared := newEvalFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		shape, err := eval.Named(*name)
		if err != nil {
			return usageError{fmt.Errorf("--world: %w", err)}
		}
		shape.People, shape.Events = *persons, o.Start
		if err := shape.Validate(); err != nil {
			return usageError{fmt.Errorf("world %s: %w", *name, err)}
		}
		recipe := eval.DefaultRecipe(shape.Dim)
		if err := shared.apply(&recipe); err != nil {
			return err
		}
		for _, t := range *targets {
			if !slices.Contains([]string{"catalogue", "everything"}, t) {
				return usageError{fmt.Errorf("--targets: %q is not catalogue or everything", t)}
			}
		}
		for _, o.Catalogue = range *shares {
			if err := o.Validate(); err != nil {
				return usageError{fmt.Errorf("--%w", err)}
			}
		}
		if err := writable(*report); err != nil {
			return fmt.Errorf("--report: %w", err)
		}
		log, err := shared.open(cmd)
		if err != nil {
			return err
		}
		o.Progress, o.Logger = cmd.ErrOrStderr(), log
		worlds := &eval.Worlds{Runtime: recipe.Runtime, Progress: o.Progress}
		var lines []byte
		for _, seed := range *seeds {
			w, err := worlds.New(cmd.Context(), shape, uint64(seed))
			if err != nil {
				return err
			}
			recipe.Train.Seed = uint64(seed)
			for _, o.Catalogue = range *shares {
				for _, t := range *targets {
					o.Everything = t == "everything"
					got, err := eval.Loop(cmd.Context(), w, recipe, o)
					if err != nil {
						return err
					}
					line, err := json.Marshal(got)
					if err != nil {
						return fmt.Errorf("encoding the report: %w", err)
					}
					lines = append(append(lines, line...), '\n')
					if *shared.asJSON {
						_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", line)
					} else if err = got.Table(cmd.OutOrStdout()); err == nil {
						_, err = fmt.Fprintln(cmd.OutOrStdout())
					}
					if err != nil {
						return err
					}
				}
			}
		}
		return writeReport(*report, lines)
	}
	return cmd
}

// sabotages are the ways to spoil learning on purpose from the middle of the
// stream on, for a quarter of it, by name.
func sabotages(events int) map[string]func(int64, *prior.Batch, float64) float64 {
	from, until := int64(events)/2, int64(math.Ceil(.75*float64(events)))
	return map[string]func(int64, *prior.Batch, float64) float64{
		"none": nil, "labels": online.FlipLabels(from, until), "rate": online.TimesRate(30, from, until),
	}
}
