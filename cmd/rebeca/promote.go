package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"rebeca"
	"rebeca/consumer"
)

func replayDiff() *cobra.Command {
	cmd := &cobra.Command{
		Use: "diff", Short: "Compare two states user by user: who is in one only, whose counts, windows or vectors differ", Args: noArgs,
		Long: `Compare two states user by user, in the order of their keys. The state of a running
service is read through it. Users of whom one state has folded an event that the
other has not come to are marked later. With --json each user who differs is a
line, and the totals are the last.`,
	}
	path := configFlag(cmd)
	f := cmd.Flags()
	a := f.String("a", "", "a state directory (default: state.dir)")
	b := f.String("b", "", "the other one (required)")
	limit := f.Int("limit", 20, "users shown in the table, the first ones; 0 shows all")
	asJSON := f.Bool("json", false, "print JSON lines, of all users who differ")
	require(cmd, "b")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *limit < 0 {
			return usageError{fmt.Errorf("--limit is %d, below 0", *limit)}
		}
		c, err := loadConfig(*path)
		if err != nil {
			return err
		}
		if *a == "" {
			*a = c.State.Dir
		}
		d := rebeca.Diff{Config: c, A: *a, B: *b, Logger: newLogger(cmd.ErrOrStderr(), slog.LevelWarn)}
		if *asJSON {
			enc := json.NewEncoder(cmd.OutOrStdout())
			sum, err := d.Run(cmd.Context(), func(u rebeca.UserDiff) error { return enc.Encode(u) })
			if err != nil {
				return err
			}
			return enc.Encode(sum)
		}
		t := diffTable{w: tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0), limit: *limit}
		sum, err := d.Run(cmd.Context(), t.user)
		if err != nil {
			return err
		}
		return t.totals(cmd.OutOrStdout(), sum)
	}
	return cmd
}

// diffTable shows the first users who differ.
type diffTable struct {
	w            *tabwriter.Writer
	limit, shown int
}

func (t *diffTable) user(u rebeca.UserDiff) error {
	if t.limit > 0 && t.shown == t.limit {
		return nil
	}
	if t.shown++; t.shown == 1 {
		fmt.Fprintln(t.w, "user\tdiffers in\tevents a\tevents b\tpositives a\tpositives b\tnegatives a\tnegatives b\tonly in window a\tb")
	}
	none := rebeca.DiffCount{}
	a, b := &none, &none
	if u.A != nil {
		a = u.A
	}
	if u.B != nil {
		b = u.B
	}
	_, err := fmt.Fprintf(t.w, "%q\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n",
		u.UserID, differsIn(u), a.Events, b.Events, a.Positives, b.Positives, a.Negatives, b.Negatives, u.OnlyInA, u.OnlyInB)
	return err
}

func differsIn(u rebeca.UserDiff) string {
	out := ""
	for _, part := range []struct {
		is   bool
		name string
	}{{u.Only != "", "only in " + u.Only}, {u.Counts, "counts"}, {u.Window, "window"}, {u.Vector, "vector"}, {u.Later, "later"}} {
		if !part.is {
			continue
		}
		if out != "" {
			out += ", "
		}
		out += part.name
	}
	return out
}

func (t *diffTable) totals(w io.Writer, s rebeca.DiffTotals) error {
	if err := t.w.Flush(); err != nil {
		return err
	}
	differ := s.UsersA + s.UsersB - s.Same - (s.UsersA - s.OnlyA)
	if t.shown < differ {
		fmt.Fprintf(w, "… and %d more\n", differ-t.shown)
	}
	fmt.Fprintf(w, "%d users in a, %d in b: %d the same, %d only in a, %d only in b\n", s.UsersA, s.UsersB, s.Same, s.OnlyA, s.OnlyB)
	fmt.Fprintf(w, "counts differ for %d, windows for %d, vectors for %d (%d not compared)\n", s.Counts, s.Windows, s.Vectors, s.Uncompared)
	if s.Later > 0 {
		fmt.Fprintf(w, "%d of those who differ have events that one of the states has not come to\n", s.Later)
	}
	_, err := fmt.Fprintf(w, "folded to: a %s, b %s\n", offsetsOf(s.OffsetsA), offsetsOf(s.OffsetsB))
	return err
}

func offsetsOf(folded []rebeca.InspectedFolded) string {
	if len(folded) == 0 {
		return "nothing"
	}
	out := ""
	for i, f := range folded {
		if i > 0 {
			out += ","
		}
		out += fmt.Sprintf("%d:%d", f.Partition, f.Next)
	}
	return out
}

func replayPromote() *cobra.Command {
	cmd := &cobra.Command{
		Use: "promote", Short: "Put a replayed state in the place of a stopped service's; the old one is kept", Args: noArgs,
		Long: `Put the state of another directory in the place of a stopped service's. Facts and
catalogue become the other's; what was asked and what was sent go on as they
were, so each output stays once. What one of the states has not folded yet it
folds first. The replaced state is kept below state.dir, as replaced-DATE:
promoting that one takes the change back.`,
	}
	path := configFlag(cmd)
	f := cmd.Flags()
	from := f.String("from", "", "state directory to promote (required)")
	dryRun := f.Bool("dry-run", false, "say what would be done and do nothing")
	asJSON := f.Bool("json", false, "print the result as JSON")
	require(cmd, "from")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := loadConfig(*path)
		if err != nil {
			return err
		}
		p := rebeca.Promotion{
			Config: c, From: *from, Logger: newLogger(cmd.ErrOrStderr(), slog.LevelWarn),
			Connect: func() (*consumer.Client, error) { return connect(cmd, c) },
		}
		done, err := p.Run(cmd.Context(), *dryRun)
		if err != nil {
			return err
		}
		return printPromoted(cmd.OutOrStdout(), done, *dryRun, *asJSON)
	}
	return cmd
}

func printPromoted(w io.Writer, p rebeca.Promoted, dryRun, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(p)
	}
	folded, promoted := "folded", "promoted"
	if dryRun {
		folded, promoted = "would fold", "would promote"
	}
	for _, f := range p.Folded {
		fmt.Fprintf(w, "the %s state %s %s[%d] from %d to %d\n", f.State, folded, f.Topic, f.Partition, f.From, f.To)
	}
	fmt.Fprintf(w, "%s %s into %s\n", promoted, p.From, p.Into)
	if dryRun {
		return nil
	}
	_, err := fmt.Fprintf(w, "the replaced state is in %s: `replay promote --from` that takes this back\n", p.Aside)
	return err
}
