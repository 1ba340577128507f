package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"rebeca/eval"
	"rebeca/internal/figures"
)

func evalCommand() *cobra.Command {
	return group("eval", "Measure how well the service learns", evalStream(), evalLoop(), evalPaper(), evalFiles(), evalImport())
}

func evalStream() *cobra.Command {
	cmd := &cobra.Command{
		Use: "stream", Short: "Learn a known world in one pass and score what its people are given", Args: noArgs,
		Long: `Play a world whose truth is known once through its events, with the real table,
trainer and sampler in this process and without Kafka, and score what people
would be given: before any feedback, after 1/4, 1/2 and all of the stream. The
same seed gives the same report, its seconds excepted.

--set changes one value of the recipe, as in --set train.pseudo_share=.2,
--set prior.hidden=128, --set sampler.guidance=2.5 or --set window.newest=48.`,
	}
	f := cmd.Flags()
	name := f.String("world", "demo", "one of "+strings.Join(eval.Names(), ", "))
	seeds := f.UintSlice("seeds", []uint{1}, "seeds of the world, the people and the prior, one run each")
	together := f.Int("together", 1, "seeds that run at once; each takes a core and, of the usual worlds, about a gigabyte")
	events := f.Int("events", 0, "length of the stream (default: the world's)")
	items := f.Int("items", 0, "size of the catalogue (default: the world's)")
	persons := f.Int("people", 0, "number of people (default: the world's)")
	dim := f.Int("dim", 0, "length of embeddings (default: the world's; worlds of pictures have 16)")
	o := eval.DefaultOptions()
	f.IntVar(&o.Asked, "asked", o.Asked, "people of each group that are asked")
	f.IntVar(&o.Samples, "samples", o.Samples, "samples of each")
	f.IntVar(&o.Visitors, "newcomers", o.Visitors, "people that are asked with few events")
	f.BoolVar(&o.Controls, "controls", o.Controls, "score the controls that learn nothing too")
	f.BoolVar(&o.Rivals, "rivals", false, "have other ways of learning take part, and say who wins where; several times the time")
	sabotage := f.String("sabotage", "none", "spoil learning from the middle of the stream on, for a quarter of it, to see the guard at work: labels (flipped) or rate (30 times the learning rate)")
	all := f.Bool("all", false, "print every row, those of the controls too, in place of the summary")
	report := f.String("report", "", "write the reports to this file, JSON lines, one a seed")
	figuresFile := f.String("figures", "", "write the means over the seeds to this file, one flat JSON object of numbers")
	shared := newEvalFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		shape, err := eval.Named(*name)
		if err != nil {
			return usageError{fmt.Errorf("--world: %w", err)}
		}
		for _, size := range []struct {
			flag string
			to   *int
			v    int
		}{{"events", &shape.Events, *events}, {"items", &shape.Items, *items}, {"people", &shape.People, *persons}, {"dim", &shape.Dim, *dim}} {
			if f.Changed(size.flag) {
				*size.to = size.v
			}
		}
		if err := shape.Validate(); err != nil {
			return usageError{fmt.Errorf("world %s: %w", *name, err)}
		}
		recipe := eval.DefaultRecipe(shape.Dim)
		if err := shared.apply(&recipe); err != nil {
			return err
		}
		tamper, ok := sabotages(shape.Events)[*sabotage]
		if !ok {
			return usageError{fmt.Errorf("--sabotage: %q is not none, labels or rate", *sabotage)}
		}
		recipe.Train.Tamper = tamper
		if *together < 1 {
			return usageError{fmt.Errorf("--together: %d is below 1", *together)}
		}
		if o.Asked < 1 || o.Samples < 1 || o.Visitors < 1 {
			return usageError{errors.New("--asked, --samples and --newcomers need at least 1")}
		}
		for _, out := range []struct{ flag, file string }{{"report", *report}, {"figures", *figuresFile}} {
			if err := writable(out.file); err != nil {
				return fmt.Errorf("--%s: %w", out.flag, err)
			}
		}
		log, err := shared.open(cmd)
		if err != nil {
			return err
		}
		o.Progress, o.Logger = cmd.ErrOrStderr(), log
		s := &streamRun{shape: shape, recipe: recipe, options: o, out: cmd.OutOrStdout(), all: *all, json: *shared.asJSON, together: *together}
		if err := s.play(cmd.Context(), *seeds); err != nil {
			return err
		}
		return s.write(*report, *figuresFile)
	}
	return cmd
}

// streamRun plays one world with several seeds.
type streamRun struct {
	shape     eval.Shape
	recipe    eval.Recipe
	options   eval.Options
	out       io.Writer
	all, json bool
	together  int // runs at once

	reports []*eval.Report
	lines   []byte // the reports as JSON
}

// play runs every seed, as many at once as together says, and prints the
// reports in the order of the seeds. Of those under way one shows how far it is.
func (s *streamRun) play(ctx context.Context, seeds []uint) error {
	worlds := &eval.Worlds{Runtime: s.recipe.Runtime, Progress: s.options.Progress}
	s.reports = make([]*eval.Report, len(seeds))
	var shown sync.Mutex // held by the run that shows its progress
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(s.together)
	for i, seed := range seeds {
		g.Go(func() error {
			o := s.options
			if shown.TryLock() {
				defer shown.Unlock()
			} else {
				o.Progress = nil
			}
			w, err := worlds.New(ctx, s.shape, uint64(seed))
			if err != nil {
				return err
			}
			recipe := s.recipe
			recipe.Train.Seed = uint64(seed)
			s.reports[i], err = eval.Run(ctx, w, recipe, o)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, got := range s.reports {
		if err := s.print(got); err != nil {
			return err
		}
	}
	return nil
}

func (s *streamRun) print(got *eval.Report) error {
	line, err := json.Marshal(got)
	if err != nil {
		return fmt.Errorf("encoding the report: %w", err)
	}
	s.lines = append(append(s.lines, line...), '\n')
	switch {
	case s.json:
		_, err = fmt.Fprintf(s.out, "%s\n", line)
	case s.all:
		err = got.Lines(s.out)
	default:
		err = got.Table(s.out)
	}
	if err == nil && s.options.Rivals && !s.json {
		err = got.Contest(s.out)
	}
	return err
}

// write keeps the reports and their means in files; an empty name is none.
func (s *streamRun) write(report, means string) error {
	if err := writeReport(report, s.lines); err != nil {
		return err
	}
	if means == "" {
		return nil
	}
	return figures.Publish(io.Discard, means, eval.Figures(s.reports))
}
