package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rebeca"
)

func replayCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "replay", Short: "Fold the log into a fresh state directory, beside a service that may be running", Args: noArgs,
		Long: `Fold the feedback topic, and list the items, into a fresh state directory: by the
same code as the service, without intents and without sending anything. Where it
ends is decided when it begins. The same call goes on after an interruption, and
with --to latest, once it is finished, to the new end.

FROM and TO are earliest, latest, offsets such as 0:120,1:88 (partitions left out
are taken whole), a time such as 2026-05-01T00:00:00Z (by the records' own
timestamps, which producers set; past the end is the end), or a duration back
from now such as 36h.

replay diff compares the two states, replay promote puts the new one in place.`,
	}
	path := configFlag(cmd)
	f := cmd.Flags()
	from := f.String("from", "", "where to begin (required)")
	to := f.String("to", "", "where to end (required)")
	rules := f.String("rules", "", "YAML file with other rules: window, dedupe, classes")
	into := f.String("into", "", "directory for the fresh state (required)")
	dryRun := f.Bool("dry-run", false, "say what would be folded and make nothing")
	asJSON := f.Bool("json", false, "print the result as JSON")
	require(cmd, "from", "to", "into")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		r := rebeca.Replay{Into: *into, Logger: newLogger(cmd.ErrOrStderr(), slog.LevelWarn)}
		for _, b := range []struct {
			flag, text string
			bound      *rebeca.Bound
		}{{"--from", *from, &r.From}, {"--to", *to, &r.To}} {
			var err error
			if *b.bound, err = rebeca.ParseBound(b.text, time.Now()); err != nil {
				return usageError{fmt.Errorf("%s: %w", b.flag, err)}
			}
		}
		c, err := loadRules(*path, *rules)
		if err != nil {
			return err
		}
		r.Config = c
		if r.Client, err = connect(cmd, c); err != nil {
			return err
		}
		defer r.Client.Close()
		if *dryRun {
			plan, err := r.Plan(cmd.Context())
			if err != nil {
				return err
			}
			return printPlan(cmd.OutOrStdout(), plan, *asJSON)
		}
		progress, done := meterOf(cmd, "offsets replayed")
		r.Progress = progress
		res, err := r.Run(cmd.Context())
		done()
		if err != nil {
			return err
		}
		return printReplayed(cmd.OutOrStdout(), res, *asJSON)
	}
	cmd.AddCommand(replayDiff(), replayPromote())
	return cmd
}

// loadRules is loadConfig with the rules of another file, if one is named.
func loadRules(path, rules string) (rebeca.Config, error) {
	c, err := loadConfig(path)
	if err != nil || rules == "" {
		return c, err
	}
	b, err := os.ReadFile(rules)
	if err == nil {
		c, err = c.WithRules(b)
	}
	if err != nil {
		return c, usageError{fmt.Errorf("--rules %s: %w", rules, err)}
	}
	return c, nil
}

func printPlan(w io.Writer, p rebeca.ReplayPlan, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(p)
	}
	for _, set := range []struct {
		name  string
		spans []rebeca.Span
	}{{"feedback", p.Feedback}, {"items", p.Items}} {
		for _, s := range set.spans {
			fmt.Fprintf(w, "%s[%d]: %d to %d\n", set.name, s.Partition, s.From, s.To)
		}
	}
	verb := "would be folded into"
	if p.Resumed {
		verb = "are left to fold into"
	}
	_, err := fmt.Fprintf(w, "%d offsets %s %s\n", p.Left, verb, p.Into)
	return err
}

func printReplayed(w io.Writer, r rebeca.ReplayResult, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	fmt.Fprintf(w, "%d events of %d users are in %s; %d resends, %d of forgotten users, %s\n",
		r.Events, r.Users, r.Into, r.Duplicates, r.Forgotten, countsOf(r.DeadLetters, "dead letters (not sent)"))
	_, err := fmt.Fprintf(w, "facts %s\n", r.SHA256)
	return err
}

// countsOf says how many there are, and of what.
func countsOf(counts map[string]uint64, what string) string {
	total, parts := uint64(0), []string(nil)
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		total += counts[name]
		parts = append(parts, fmt.Sprintf("%s %d", name, counts[name]))
	}
	if total == 0 {
		return "no " + what
	}
	return fmt.Sprintf("%d %s: %s", total, what, strings.Join(parts, ", "))
}
