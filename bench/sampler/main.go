// Command sampler measures sampling: the time of an embedding against the published prior's own way in PyTorch, what few steps lose
// against a thousand, how many embeddings a second reach people in time, and the time to decode an image. It writes all figures as one
// flat JSON object of numbers.
//
//	go run ./bench/sampler -python "$(python3 tools/bench_prior.py prepare)" -out bench/results/sampler.json
//
// A figure time_vs_reference is how many times less than the reference's an embedding takes us, both by their shortest blocks;
// _median compares medians. The reference's way is 1,000 ancestral steps of 25 samples of one user, with two passes a step one after the
// other; so many steps are timed as reference_steps_timed says, and the time of one is multiplied by 1,000.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/signal"
	"runtime"

	"rebeca/internal/figures"
	"rebeca/internal/ort"
)

// settings are the flags.
type settings struct {
	python, script string
	threads        int
	rounds         int    // blocks of each side of the comparison with the reference
	events, people int    // of the demonstration's world, and asked
	seed           uint64 // of the world and its people
	only           string // a part
}

// part is one kind of measurement.
type part struct {
	name    string
	measure func(context.Context, settings, figures.Figures) error
}

func parts() []part {
	return []part{{"reference", reference}, {"quality", quality}, {"throughput", throughput}, {"decode", decode}}
}

func main() {
	var s settings
	flag.StringVar(&s.python, "python", "python3", "interpreter that has torch")
	flag.StringVar(&s.script, "script", "tools/bench_prior.py", "the PyTorch side; empty measures ours alone")
	flag.IntVar(&s.threads, "threads", runtime.NumCPU(), "threads of every side")
	flag.IntVar(&s.rounds, "rounds", 8, "blocks of each side against the reference")
	flag.IntVar(&s.events, "events", 16000, "events of the demonstration's world that the prior learns before it is asked")
	flag.IntVar(&s.people, "people", 32, "people asked in each of three groups")
	flag.Uint64Var(&s.seed, "seed", 1, "of the demonstration's world and its people")
	flag.StringVar(&s.only, "part", "", "measure this part alone: reference, quality, throughput or decode")
	out := flag.String("out", "bench/results/sampler.json", "file for the figures")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	got, err := measure(ctx, s)
	if err == nil {
		err = complete(s, got)
	}
	if err == nil {
		err = figures.Publish(os.Stdout, *out, got)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench/sampler: %v\n", err)
		os.Exit(1)
	}
}

func measure(ctx context.Context, s settings) (figures.Figures, error) {
	path, err := ort.Locate("")
	if err == nil {
		err = ort.Open(path)
	}
	if err != nil {
		return nil, err
	}
	got := figures.Figures{"threads": float64(s.threads), "cores": float64(runtime.NumCPU())}
	known := false
	for _, p := range parts() {
		if s.only != "" && s.only != p.name {
			continue
		}
		known = true
		if err := p.measure(ctx, s, got); err != nil {
			return nil, fmt.Errorf("measuring %s: %w", p.name, err)
		}
	}
	if !known {
		return nil, fmt.Errorf("there is no part %q", s.only)
	}
	return got, nil
}

// wanted are the figures that a whole run must have, each above 0.
func wanted() []string {
	keys := []string{"wasserstein_ratio", "shapes_decode_ms", "embeddings_per_s_quiet", "embeddings_per_s_training", "reference_embedding_ms"}
	for _, w := range timed() {
		keys = append(keys, "time_vs_reference"+w.suffix, "embedding"+w.suffix+"_ms")
	}
	return keys
}

// complete says which figure of a whole run is not there or makes no sense. A run of one part or without PyTorch is none.
func complete(s settings, got figures.Figures) error {
	if s.only != "" || s.script == "" {
		return nil
	}
	var errs []error
	for _, key := range wanted() {
		if v, ok := got[key]; !ok || !(v > 0) || math.IsInf(v, 0) {
			errs = append(errs, fmt.Errorf("figure %s is %v, want a number above 0", key, v))
		}
	}
	for _, key := range []string{"precision_loss", "coverage_loss"} { // a loss may be a gain
		if v, ok := got[key]; !ok || math.IsNaN(v) {
			errs = append(errs, fmt.Errorf("figure %s is %v, want a number", key, v))
		}
	}
	return errors.Join(errs...)
}
