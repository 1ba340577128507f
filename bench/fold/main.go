// Command fold measures the fold of the log into facts against its peer, an application of Kafka Streams with exactly_once_v2 that does
// the same work (bench/fold/streams), on one Apache Kafka in one run: events per second, restart after kill -9, restore from a
// snapshot, and the time from an event to its fact. It writes all figures as one flat JSON object of numbers.
//
//	go run ./bench/fold -out bench/results/fold.json
//
// The service is the program `rebeca serve` as users run it, with the role worker and nothing to generate. With -dir the log, the states
// and the figures so far are kept there, so that the steps of one run can be made one by one.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"rebeca/internal/figures"
	"rebeca/internal/kafka"
	"rebeca/internal/process"
)

// steps in their order: the first fills the log, the second to fourth are the comparison, the others use a crowd of a million users.
var steps = []string{"produce", "service", "streams", "service", "streams", "crowd", "latency", "restart", "restore"}

func main() {
	var o options
	flag.IntVar(&o.events, "events", 1_500_000, "events of the comparison")
	flag.IntVar(&o.users, "users", 200_000, "users of the comparison")
	flag.IntVar(&o.crowdEvents, "crowd-events", 3_000_000, "events of the crowd")
	flag.IntVar(&o.crowdUsers, "crowd-users", 1_000_000, "users of the crowd, each with an event at least")
	flag.StringVar(&o.dir, "dir", "", "folder that keeps log, states and figures of one run; empty: a new one, removed at the end")
	flag.StringVar(&o.streams, "streams", "threads=2,cache=10485760", "settings of the peer")
	only := flag.String("steps", strings.Join(steps, ","), "steps to make, in this order")
	out := flag.String("out", "bench/results/fold.json", "file for the figures")
	flag.Parse()
	got, err := run(o, strings.Split(*only, ","))
	if err == nil {
		err = figures.Publish(os.Stdout, *out, got)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench/fold: %v\n", err)
		os.Exit(1)
	}
}

// options of a run.
type options struct {
	events, users           int
	crowdEvents, crowdUsers int
	dir                     string
	streams                 string
}

// bench is one run.
type bench struct {
	options
	binary string // of the service
	broker *kafka.Broker
	all    []figures.Figures // of every step made, in order
}

func run(o options, names []string) (figures.Figures, error) {
	for _, name := range names {
		if !slices.Contains(steps, name) {
			return nil, fmt.Errorf("-steps: %q is not one of %s", name, strings.Join(steps, ", "))
		}
	}
	b := &bench{options: o}
	var err error
	if b.binary, err = process.Binary(); err != nil {
		return nil, err
	}
	if b.dir == "" {
		if b.dir, err = os.MkdirTemp("", "rebeca-bench-fold-"); err != nil {
			return nil, fmt.Errorf("making a folder: %w", err)
		}
		defer os.RemoveAll(b.dir)
	}
	if err := b.recall(); err != nil {
		return nil, err
	}
	if b.broker, err = kafka.Start(filepath.Join(b.dir, "kafka")); err != nil {
		return nil, err
	}
	defer b.broker.Kill()
	for _, name := range names {
		got, err := b.step(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		b.all = append(b.all, got)
		if err := b.keep(); err != nil {
			return nil, err
		}
	}
	_ = b.broker.Terminate(stopLimit) // a JVM told to end says so by its exit code
	return b.summary(), nil
}

func (b *bench) step(name string) (figures.Figures, error) {
	fmt.Fprintf(os.Stderr, "== %s\n", name)
	switch name {
	case "produce":
		return b.produce()
	case "service":
		return b.service()
	case "streams":
		return b.peer()
	case "crowd":
		return b.crowd()
	case "latency":
		return b.latency()
	case "restart":
		return b.restart()
	case "restore":
		return b.restore()
	}
	panic("bench/fold: step " + name)
}

// summary joins the figures of all steps: of repeated ones the median, and what follows from several.
func (b *bench) summary() figures.Figures {
	values := map[string][]float64{}
	for _, got := range b.all {
		for name, v := range got {
			values[name] = append(values[name], v)
		}
	}
	out := figures.Figures{"cores": float64(runtime.NumCPU())}
	for name, vs := range values {
		out[name] = median(vs)
	}
	for ratio, name := range map[string]string{"ratio": "events_per_s", "ratio_second_half": "second_half_events_per_s"} {
		if ours, theirs := out[name], out["streams_eos_"+name]; ours > 0 && theirs > 0 {
			out[ratio] = ours / theirs
		}
	}
	return out
}

// median returns the middle of vs, the mean of the two middle ones when their number is even.
func median(vs []float64) float64 {
	vs = slices.Sorted(slices.Values(vs))
	return (vs[(len(vs)-1)/2] + vs[len(vs)/2]) / 2
}

func (b *bench) figuresFile() string { return filepath.Join(b.dir, "figures.json") }

// recall reads the figures of earlier steps of this run.
func (b *bench) recall() error {
	text, err := os.ReadFile(b.figuresFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(text, &b.all)
	}
	if err != nil {
		return fmt.Errorf("reading the figures so far: %w", err)
	}
	return nil
}

func (b *bench) keep() error {
	text, err := json.Marshal(b.all)
	if err == nil {
		err = os.WriteFile(b.figuresFile(), text, 0o644)
	}
	if err != nil {
		return fmt.Errorf("keeping the figures: %w", err)
	}
	return nil
}
