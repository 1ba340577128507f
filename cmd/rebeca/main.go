// Command rebeca runs the service and the verbs of its operators.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"rebeca"
	"rebeca/consumer"
)

// version is set by the linker.
var version = "dev"

// usageError is a wrong flag, argument or configuration: exit status 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := interruptible()
	defer stop()
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "rebeca:", err)
	var usage usageError
	if errors.As(err, &usage) {
		return 2
	}
	return 1
}

// interruptible ends at the first interrupt, which lets a verb end in order. A
// second one finds the system's own handling again, and kills.
func interruptible() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "rebeca",
		Short: "Personalised images, learned from what people do, while they do it",
		Long: `Rebeca folds feedback from Kafka into a table of users, keeps learning a small
user-conditioned diffusion prior while it runs, and publishes generated
embeddings and images to Kafka.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w (see `%s --help`)", err, cmd.CommandPath())}
	})
	root.AddCommand(
		serveCommand(), demoCommand(), brokerCommand(), topicsCommand(), inspectCommand(), sampleCommand(),
		snapshotCommand(), partitionsCommand(), replayCommand(), deadletterCommand(), feedbackCommand(), itemsCommand(), priorCommand(), forgetCommand(),
		eraseCommand(), evalCommand(), configCommand(), versionCommand(),
	)
	return root
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), version)
			return err
		},
	}
}

// noArgs and exactly are cobra's checks as usage errors.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no argument %q (see `%s --help`)", cmd.CommandPath(), args[0], cmd.CommandPath())}
	}
	return nil
}

func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usageError{fmt.Errorf("%s needs %s (see `%s --help`)", cmd.CommandPath(), what, cmd.CommandPath())}
		}
		return nil
	}
}

// group is a command that only holds others.
func group(use, short string, children ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	c.AddCommand(children...)
	return c
}

// configFlag adds -c to a command that reads the configuration.
func configFlag(cmd *cobra.Command) *string {
	path := cmd.Flags().StringP("config", "c", "", "configuration file (see rebeca.example.yaml)")
	require(cmd, "config")
	return path
}

// require makes a missing flag a usage error; cobra's own check is a plain one.
func require(cmd *cobra.Command, flags ...string) {
	before := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		for _, name := range flags {
			if !cmd.Flags().Changed(name) {
				return usageError{fmt.Errorf("%s needs --%s (see `%s --help`)", cmd.CommandPath(), name, cmd.CommandPath())}
			}
		}
		if before != nil {
			return before(cmd, args)
		}
		return nil
	}
}

// dial loads the configuration and returns a client to brokers that answer.
// The caller closes the client.
func dial(cmd *cobra.Command, path string) (rebeca.Config, *consumer.Client, error) {
	c, err := loadConfig(path)
	if err != nil {
		return c, nil, err
	}
	client, err := connect(cmd, c)
	return c, client, err
}

// connect returns a client to brokers that answer. The caller closes it.
func connect(cmd *cobra.Command, c rebeca.Config) (*consumer.Client, error) {
	client, err := c.NewClient()
	if err != nil {
		return nil, err
	}
	if err := client.Ping(cmd.Context()); err != nil {
		client.Close()
		return nil, fmt.Errorf("kafka.brokers: %w", err)
	}
	return client, nil
}

func loadConfig(path string) (rebeca.Config, error) {
	c, err := rebeca.LoadConfig(path)
	if err != nil {
		return c, usageError{err}
	}
	return c, nil
}

// newLogger writes text to a terminal and JSON elsewhere.
func newLogger(w io.Writer, level slog.Level) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if isTerminal(w) {
		return slog.New(slog.NewTextHandler(w, o))
	}
	return slog.New(slog.NewJSONHandler(w, o))
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
