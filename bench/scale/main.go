// Command scale measures what an event costs against the number of users: the fold, the reading and encoding of a window, training (two
// steps per 64 events, with their draws) and a sample, over tables of a thousand to a million users. It writes all figures as one flat JSON
// object of numbers and plots the costs as SVG.
//
//	go run ./bench/scale -out bench/results/scale.json -plot docs/scale.svg
//
// Table, trainer and sampler are those of the service, in this process and without Kafka. Every user has the same few events before
// anything is measured, and every measured event is of a random user: no cache helps beyond what its size allows.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"rebeca/internal/figures"
	"rebeca/internal/ort"
)

func main() {
	o := options{}
	users := flag.String("users", "1000,10000,100000,1000000", "numbers of users, rising")
	flag.IntVar(&o.before, "before", 2, "events of each user before anything is measured")
	flag.IntVar(&o.fold, "fold", 100_000, "events of the fold that are measured")
	flag.IntVar(&o.rounds, "rounds", 20, "training rounds of 64 events")
	flag.IntVar(&o.windows, "windows", 2048, "windows that are read and encoded")
	flag.IntVar(&o.samples, "samples", 256, "samples")
	flag.IntVar(&o.items, "items", 4000, "items of the catalogue")
	out := flag.String("out", "bench/results/scale.json", "file for the figures")
	plot := flag.String("plot", "docs/scale.svg", "file for the plot")
	from := flag.String("from", "", "plot these figures and measure nothing")
	flag.Parse()
	if err := run(o, *users, *out, *plot, *from); err != nil {
		fmt.Fprintf(os.Stderr, "bench/scale: %v\n", err)
		os.Exit(1)
	}
}

func run(o options, sizes, out, plot, from string) error {
	got := figures.Figures{}
	if from != "" {
		text, err := os.ReadFile(from)
		if err != nil {
			return fmt.Errorf("reading the figures: %w", err)
		}
		if err := json.Unmarshal(text, &got); err != nil {
			return fmt.Errorf("reading the figures of %s: %w", from, err)
		}
		return draw(plot, got)
	}
	path, err := ort.Locate("")
	if err != nil {
		return err
	}
	if err := ort.Open(path); err != nil {
		return err
	}
	var counts []int
	for text := range strings.SplitSeq(sizes, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return fmt.Errorf("-users: %q is no number of users", text)
		}
		counts = append(counts, n)
	}
	if !slices.IsSorted(counts) {
		return errors.New("-users: the numbers do not rise")
	}
	for _, n := range counts {
		fmt.Fprintf(os.Stderr, "%d users\n", n)
		one, err := measure(context.Background(), n, o)
		if err != nil {
			return fmt.Errorf("%d users: %w", n, err)
		}
		for name, v := range one {
			got[fmt.Sprintf("users_%d_%s", n, name)] = v
		}
	}
	if err := draw(plot, got); err != nil {
		return err
	}
	return figures.Publish(os.Stdout, out, got)
}
