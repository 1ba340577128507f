package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"rebeca"
	"rebeca/table"
)

func forgetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "forget", Short: "Forget a user: facts, embedding, generated memory, what waits and what is unsent", Args: noArgs,
		Long: `Write the null record on a user's key to the feedback topic. Whoever folds it removes what
the state holds of the user and writes a null on the vectors topic; earlier events of the
user that come again are dropped. The record is in the log, so a replay forgets too.
A running service then cleans the state's files every state.erase_every; ` + "`rebeca erase`" + `
does it on a stopped one. docs/forget.md lists what remains elsewhere.`,
	}
	path := configFlag(cmd)
	f := cmd.Flags()
	user := f.String("user", "", "user to forget (required)")
	wait := f.Duration("wait", 0, "wait this long for a running service to fold it")
	dryRun := f.Bool("dry-run", false, "say what would be written and write nothing")
	asJSON := f.Bool("json", false, "print the result as JSON")
	require(cmd, "user")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := loadConfig(*path)
		if err != nil {
			return err
		}
		done, err := rebeca.PlanForget(c, *user)
		if err != nil {
			return usageError{fmt.Errorf("--user: %w", err)}
		}
		if !*dryRun {
			if done, err = forgetUser(cmd, *path, *user); err != nil {
				return err
			}
		}
		var waited error
		if *wait > 0 && !*dryRun {
			ctx, cancel := context.WithTimeout(cmd.Context(), *wait)
			defer cancel()
			waited = rebeca.AwaitFold(ctx, c, &done, newLogger(cmd.ErrOrStderr(), slog.LevelWarn))
		}
		return errors.Join(printForgotten(cmd, done, *asJSON), waited)
	}
	return cmd
}

func forgetUser(cmd *cobra.Command, path, user string) (rebeca.Forgotten, error) {
	c, client, err := dial(cmd, path)
	if err != nil {
		return rebeca.Forgotten{}, err
	}
	defer client.Close()
	return rebeca.Forget(cmd.Context(), client, c, user)
}

func printForgotten(cmd *cobra.Command, f rebeca.Forgotten, asJSON bool) error {
	out := cmd.OutOrStdout()
	if asJSON {
		return json.NewEncoder(out).Encode(f)
	}
	text := fmt.Sprintf("would write a null for %q to %s[%d]\n", f.UserID, f.Topic, f.Partition)
	if f.Offset != nil {
		text = fmt.Sprintf("forgetting %q by the record %s[%d] at %d", f.UserID, f.Topic, f.Partition, *f.Offset)
		if f.Folded {
			text += ", folded"
		}
		text += "\n"
	}
	_, err := fmt.Fprint(out, text)
	return err
}

func eraseCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "erase", Short: "Clean the files of a stopped service's state of what they still hold of forgotten users", Args: noArgs,
	}
	path := configFlag(cmd)
	dryRun := cmd.Flags().Bool("dry-run", false, "say how many users are to be erased and do nothing")
	asJSON := cmd.Flags().Bool("json", false, "print the result as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := loadConfig(*path)
		if err != nil {
			return err
		}
		t, err := openTable(cmd, c)
		if errors.Is(err, table.ErrLocked) {
			return fmt.Errorf("%w: the running service erases every %s, or stop it first", err, c.State.EraseEvery)
		}
		if err != nil {
			return err
		}
		defer t.Close()
		done, start := table.Erased{Pending: t.ErasePending()}, time.Now()
		if !*dryRun {
			if done, err = t.Erase(cmd.Context()); err != nil {
				return err
			}
		}
		if *asJSON {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]int{"erased": done.Users, "pending": done.Pending})
		}
		text := fmt.Sprintf("%d forgotten users would be erased\n", done.Pending)
		if !*dryRun {
			text = fmt.Sprintf("%d forgotten users erased in %s, %d pending\n", done.Users, time.Since(start).Round(time.Millisecond), done.Pending)
			if done.Pending > 0 {
				text += "what is pending has a message that is still unsent: run the service, stop it, and erase again\n"
			}
		}
		_, err = fmt.Fprint(cmd.OutOrStdout(), text)
		return err
	}
	return cmd
}
