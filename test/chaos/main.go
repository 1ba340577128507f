// Command chaos kills services and their broker at random while everything that may come streams in, and holds what is there
// afterwards against a plain fold of the log: every row with its window and its ring of event ids, offset, dead letter, vector and output
// id. It shares no code with the service and reads the log by another client library.
//
// Besides the kills, some of which are aimed (folded and not sent, appended and not committed, committed and not known): services go on
// from snapshots, two of them hand partitions over to each other, the network between them and the broker delays, holds and cuts, processes
// are stopped for a while, and clocks jump in the stream.
//
//	go run ./test/chaos -kills 200 -out bench/results/chaos.json
//
// It ends with 1 at the first round that differs, names the seed and keeps the folder of the run: the broker's log, the states, what
// the processes said, and what was done when (chaos.log).
package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"rebeca/internal/figures"
	"rebeca/internal/process"
)

// shown is how many faults are printed.
const shown = 12

func main() {
	p := plan{settings: defaults(), say: os.Stdout}
	flag.Uint64Var(&p.seed, "seed", uint64(time.Now().UnixNano()), "of the stream and of the kills; the moments are the machine's")
	flag.IntVar(&p.kills, "kills", 0, "end after so many kills; 0 for no bound")
	flag.DurationVar(&p.duration, "duration", 0, "end after so long; 0 for no bound")
	flag.IntVar(&p.perRound, "round", 20, "kills between two comparisons")
	flag.IntVar(&p.rate, "rate", 250, "records a second")
	flag.IntVar(&p.moves, "moves", 30, "chance in percent, after a kill of the service, of going on from a snapshot")
	flag.BoolVar(&p.apache, "apache", false, "the broker is Apache Kafka 4.1 (needs Java 17 and Maven) instead of the embedded one")
	flag.StringVar(&p.dir, "dir", "", "folder of the run, empty for a new one below the system's; removed when all is well")
	out := flag.String("out", "", "file to whose figures those of this run are added")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := report(ctx, p, *out)
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
	}
	if !ok || err != nil {
		os.Exit(1)
	}
}

// summary lists the figures that are not zero.
func summary(got figures.Figures) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if got[name] != 0 {
			fmt.Fprintf(&b, "%s %.0f  ", name, got[name])
		}
	}
	return b.String()
}

// report runs the plan, prints what was found and adds up the figures. ok says that nothing differed.
func report(ctx context.Context, p plan, out string) (ok bool, err error) {
	if p.kills == 0 && p.duration == 0 {
		return false, fmt.Errorf("-kills or -duration must bound the run")
	}
	if p.binary, err = process.Binary(); err != nil {
		return false, err
	}
	if p.dir == "" {
		p.dir, err = os.MkdirTemp("", "rebeca-chaos-")
	} else {
		err = os.MkdirAll(p.dir, 0o755)
	}
	if err != nil {
		return false, err
	}
	fmt.Fprintf(p.say, "seed %d, folder %s\n", p.seed, p.dir)
	got, faults, err := run(ctx, p)
	for _, f := range faults[:min(shown, len(faults))] {
		fmt.Fprintln(p.say, f)
	}
	fmt.Fprintln(p.say, summary(got))
	switch {
	case err != nil:
		return false, fmt.Errorf("%w (seed %d, folder %s)", err, p.seed, p.dir)
	case len(faults) > 0:
		fmt.Fprintf(p.say, "%d faults%s; seed %d; the folder is kept: %s\n", len(faults), kindsOf(faults), p.seed, p.dir)
	default:
		err = os.RemoveAll(p.dir)
	}
	if out != "" && err == nil {
		err = figures.Add(p.say, out, got)
	}
	return len(faults) == 0, err
}
