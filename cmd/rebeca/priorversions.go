package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"rebeca"
	"rebeca/online"
)

func priorList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List the versions of the prior that are kept, the newest first, and what each scored", Args: noArgs,
		Long: `List the checkpoints that are kept, the newest first; the one in use is marked *.
The verdict is guarded (held against an earlier version on held-out events and
announced), unguarded (announced without: too few events), promoted (an operator's
choice), refused (it scored worse) or held (not announced while an operator's
choice stays in use). worse is the mean paired difference of the held-out losses,
with its standard error: negative is better.`,
	}
	path := configFlag(cmd)
	asJSON := cmd.Flags().Bool("json", false, "print JSON lines")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := loadConfig(*path)
		if err != nil {
			return err
		}
		versions, err := rebeca.PriorVersions(c)
		if err != nil {
			return err
		}
		if !*asJSON {
			return printVersions(cmd.OutOrStdout(), versions, time.Now())
		}
		enc := json.NewEncoder(cmd.OutOrStdout())
		for _, v := range versions {
			if err := enc.Encode(v); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

func printVersions(out io.Writer, versions []online.Version, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tversion\tstep\tevents\theld-out loss\tof events\tworse\t± stderr\tverdict\tage\t")
	for _, v := range versions {
		mark := ""
		if v.Current {
			mark = "*"
		}
		verdict, loss, worse, se := string(v.Verdict), "", "", ""
		if v.Verdict == online.Promoted {
			verdict = fmt.Sprintf("promoted from %d", v.From)
		}
		if v.HeldUntil.After(now) {
			verdict += ", held until " + v.HeldUntil.Format(time.RFC3339)
		}
		if v.Damage != "" {
			verdict = "damaged"
		}
		if v.HeldOut > 0 {
			loss = fmt.Sprintf("%.4f", v.HeldOutLoss)
		}
		if v.ReferenceLoss > 0 {
			worse, se = fmt.Sprintf("%+.4f", v.Worse), fmt.Sprintf("%.4f", v.WorseSE)
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%d\t%s\t%s\t%s\t%s\t\n", mark, v.Version, v.Step, v.Events, loss, v.HeldOut, worse, se, verdict,
			now.Sub(v.MadeAt).Round(time.Second))
	}
	return w.Flush()
}

func priorPromote() *cobra.Command {
	cmd := &cobra.Command{
		Use: "promote NUMBER", Short: "Make an earlier version of the prior the one in use, in a running service or a stopped one",
		Long: `Make an earlier version the one in use: its weights and optimizer moments get a new
number, are announced (by the next start, if the service is stopped) and are learned
on from. What was learned since is unlearned; its events are not read again.

Learning goes on at once, but no later version takes the place of this one for
--hold. Promoting the version in use with --hold 0s ends a hold.`,
		Args: exactly(1, "the number of one version (see `rebeca prior list`)"),
	}
	return promotes(cmd, func(args []string) (int64, error) {
		number, err := strconv.ParseInt(args[0], 10, 64)
		if err != nil || number < 1 {
			return 0, usageError{fmt.Errorf("%q is no number of a version (see `rebeca prior list`)", args[0])}
		}
		return number, nil
	})
}

func priorRollback() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rollback", Short: "Promote the version that was announced before the one in use", Args: noArgs,
		Long: `Promote the version that was announced before the one in use, as ` + "`rebeca prior promote`" + ` does;
once more goes one further back.`,
	}
	return promotes(cmd, func([]string) (int64, error) { return 0, nil })
}

// promotes gives a command that promotes its flags and its work.
func promotes(cmd *cobra.Command, numberOf func(args []string) (int64, error)) *cobra.Command {
	path := configFlag(cmd)
	f := cmd.Flags()
	hold := f.Duration("hold", time.Hour, "no later version takes its place for so long")
	dryRun := f.Bool("dry-run", false, "say what would be promoted and do nothing")
	asJSON := f.Bool("json", false, "print the result as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		number, err := numberOf(args)
		if err != nil {
			return err
		}
		if *hold < 0 {
			return usageError{fmt.Errorf("--hold is %s, below 0", *hold)}
		}
		c, err := loadConfig(*path)
		if err != nil {
			return err
		}
		var done rebeca.PriorPromoted
		if *dryRun {
			done, err = rebeca.PlanPromotePrior(c, number, *hold)
		} else {
			done, err = rebeca.PromotePrior(cmd.Context(), c, number, *hold, newLogger(cmd.ErrOrStderr(), slog.LevelWarn))
		}
		if err != nil {
			return err
		}
		if *asJSON {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(done)
		}
		return printPriorPromoted(cmd.OutOrStdout(), done)
	}
	return cmd
}

func printPriorPromoted(out io.Writer, p rebeca.PriorPromoted) error {
	from := fmt.Sprintf("version %s (step %d, %s)", p.From.Version, p.From.Step, p.From.Verdict)
	text := fmt.Sprintf("would promote %s and hold it for %s\n", from, p.Hold)
	switch {
	case p.Version != "" && p.Running:
		text = fmt.Sprintf("%s is in use as version %s, held for %s\n", from, p.Version, p.Hold)
	case p.Version != "":
		text = fmt.Sprintf("%s is version %s now, held for %s; the next start announces it\n", from, p.Version, p.Hold)
	}
	_, err := fmt.Fprint(out, text)
	return err
}
