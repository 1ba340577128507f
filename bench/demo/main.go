// Command demo measures the demonstration from outside: it runs `rebeca demo` for a while with a report, watches how soon its page
// answers and how much anonymous memory the process holds, and writes all figures as one flat JSON object of numbers.
//
//	go run ./bench/demo -duration 60s -out bench/results/demo.json
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"rebeca/internal/figures"
	"rebeca/internal/process"
)

// grace is what the demonstration may take beyond its duration: it starts, drains and writes its report.
const grace = 90 * time.Second

func main() {
	duration := flag.Duration("duration", time.Minute, "how long the demonstration runs")
	out := flag.String("out", "bench/results/demo.json", "file for the figures")
	flag.Parse()
	got, err := measure(*duration)
	if err == nil {
		err = figures.Publish(os.Stdout, *out, got)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench/demo: %v\n", err)
		os.Exit(1)
	}
}

func measure(duration time.Duration) (figures.Figures, error) {
	binary, err := process.Binary()
	if err != nil {
		return nil, err
	}
	address, err := process.FreeAddress()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "rebeca-bench-demo-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	report := filepath.Join(dir, "report.json")
	ctx, cancel := context.WithTimeout(context.Background(), duration+grace)
	defer cancel()

	started := time.Now()
	demo, err := process.Start(filepath.Join(dir, "demo.log"), binary, "demo", "--duration", duration.String(), "--report", report, "--listen", address)
	if err != nil {
		return nil, err
	}
	defer demo.Kill()
	if _, err := demo.Answers(ctx, "http://"+address+"/"); err != nil {
		return nil, err
	}
	got := figures.Figures{"page_live_s": time.Since(started).Seconds(), "cores": float64(runtime.NumCPU())}
	peak := demo.WatchMemory()
	if err := demo.Wait(duration + grace); err != nil {
		return nil, fmt.Errorf("running the demonstration: %w; it said:\n%s", err, demo.Tail(20))
	}
	if mib := <-peak; mib > 0 {
		got["anonymous_memory_peak_mib"] = mib
	}
	got["wall_s"] = time.Since(started).Seconds()
	return got, readReport(report, got)
}

// readReport adds the numbers of the demonstration's report to got: nested objects by joined names, other values left out.
func readReport(path string, got figures.Figures) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading the report: %w", err)
	}
	var report map[string]any
	if err := json.Unmarshal(text, &report); err != nil {
		return fmt.Errorf("reading the report: %w", err)
	}
	flatten(got, "", report)
	if _, found := got["events_folded"]; !found {
		return errors.New("reading the report: it has no events_folded")
	}
	return nil
}

func flatten(got figures.Figures, prefix string, fields map[string]any) {
	for name, value := range fields {
		switch v := value.(type) {
		case float64:
			got[prefix+name] = v
		case map[string]any:
			flatten(got, prefix+name+"_", v)
		}
	}
}
