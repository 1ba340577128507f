package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"rebeca"
	"rebeca/eval/shapes"
)

func demoCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "demo", Short: "Run everything in one process, with simulated people and a gallery", Args: noArgs,
		Long: `Run an embedded broker, a controlled world of simulated people, the service and
its gallery in one process. Nothing else needs to be installed. All traffic goes
through the broker's port, as it would for any other client.`,
	}
	dc := rebeca.DefaultDemoConfig()
	f := cmd.Flags()
	f.StringVar(&dc.Listen, "listen", dc.Listen, "address of the gallery")
	f.StringVar(&dc.Broker, "broker", "", "address of the embedded broker (default: a free port)")
	f.DurationVar(&dc.Duration, "duration", 0, "how long people give feedback, such as 60s (default: until interrupted)")
	f.Float64Var(&dc.Rate, "rate", dc.Rate, "feedback events a second")
	f.Uint64Var(&dc.Seed, "seed", dc.Seed, "seed of the people and their answers")
	f.StringVar(&dc.DataDir, "data", "", "keep broker and state in this directory (default: a temporary one)")
	f.StringVar(&dc.Library, "onnxruntime", "", "ONNX Runtime's shared library (default: $REBECA_ONNXRUNTIME, then the cache)")
	preset := f.String("preset", "demo", "world: demo or paper")
	reportFile := f.String("report", "", "write a JSON report to this file at the end")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch *preset {
		case "demo":
			dc.Preset = shapes.Demo()
		case "paper":
			dc.Preset = shapes.Paper()
		default:
			return usageError{fmt.Errorf("--preset is %q, not demo or paper", *preset)}
		}
		if dc.Rate <= 0 || dc.Rate > 100000 {
			return usageError{fmt.Errorf("--rate is %g, outside 0..100000", dc.Rate)}
		}
		if dc.Listen == "" {
			return usageError{errors.New("--listen is empty: the demo shows itself on a page, name an address such as 127.0.0.1:8080")}
		}
		if dc.Duration < 0 {
			return usageError{fmt.Errorf("--duration is %s, below 0", dc.Duration)}
		}
		if err := writable(*reportFile); err != nil {
			return fmt.Errorf("--report: %w", err)
		}
		dc.Out, dc.Registry, dc.Version = cmd.OutOrStdout(), newRegistry(), version
		dc.Logger = newLogger(cmd.ErrOrStderr(), slog.LevelWarn)
		report, err := rebeca.RunDemo(cmd.Context(), dc)
		if err != nil {
			return err
		}
		b, err := json.MarshalIndent(report, "", "  ")
		if err != nil {
			return fmt.Errorf("encoding the report: %w", err)
		}
		if *reportFile == "" {
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", b)
			return err
		}
		if err := os.WriteFile(*reportFile, append(b, '\n'), 0o644); err != nil {
			return fmt.Errorf("--report: %w", err)
		}
		return nil
	}
	return cmd
}

// writable says whether the report can be written, before the run that it is
// of; it leaves what a file holds. An empty name is the standard output.
func writable(file string) error {
	if file == "" {
		return nil
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}
