// Command overload sends a service ten times what it may fold and watches it: what it sheds, how far it falls behind, and above all
// its anonymous memory. Then the cap is lifted, everything is folded, and what is there is held against what was sent and against an
// uncapped fold of the same log.
//
//	go run ./test/overload -duration 10m -out bench/results/overload.json
//
// It ends with 1 when a promise is broken, and keeps the folder of the run then.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"rebeca/internal/figures"
	"rebeca/internal/process"
)

func main() {
	p := plan{say: os.Stdout, every: 5 * time.Second, slack: 32 << 20, users: 50_000, items: 1000}
	flag.IntVar(&p.rate, "rate", 20_000, "events sent a second")
	flag.IntVar(&p.cap, "cap", 2000, "limits.fold_rate of the service, records a second")
	flag.DurationVar(&p.duration, "duration", 10*time.Minute, "how long events are sent")
	flag.StringVar(&p.dir, "dir", "", "folder of the run, empty for a new one below the system's; removed when all is well")
	out := flag.String("out", "", "file for the figures; the curve goes beside it, as .csv")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := report(ctx, p, *out)
	if err != nil {
		fmt.Fprintln(os.Stderr, "overload:", err)
	}
	if !ok || err != nil {
		os.Exit(1)
	}
}

// report runs the plan, prints and keeps what was measured. ok says that every promise held.
func report(ctx context.Context, p plan, out string) (ok bool, err error) {
	if p.binary, err = process.Binary(); err != nil {
		return false, err
	}
	if p.dir == "" {
		p.dir, err = os.MkdirTemp("", "rebeca-overload-")
	} else {
		err = os.MkdirAll(p.dir, 0o755)
	}
	if err != nil {
		return false, err
	}
	seen, err := run(ctx, p)
	fmt.Fprint(p.say, seen.curve.plot())
	if err != nil {
		return false, fmt.Errorf("%w (the folder is kept: %s)", err, p.dir)
	}
	faults := seen.judge(p)
	for _, f := range faults {
		fmt.Fprintln(p.say, "BROKEN:", f)
	}
	if out != "" {
		csv := strings.TrimSuffix(out, filepath.Ext(out)) + ".csv"
		if err := os.WriteFile(csv, seen.curve.csv(), 0o644); err != nil {
			return false, fmt.Errorf("writing the curve: %w", err)
		}
		if err := figures.Publish(p.say, out, seen.figures(p, len(faults))); err != nil {
			return false, err
		}
	}
	if len(faults) > 0 {
		fmt.Fprintln(p.say, "the folder is kept:", p.dir)
		return false, nil
	}
	return true, os.RemoveAll(p.dir)
}
