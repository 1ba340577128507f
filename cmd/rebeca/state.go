package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"rebeca"
	"rebeca/internal/meter"
	"rebeca/prior"
	"rebeca/sampler"
	"rebeca/snapshot"
	"rebeca/table"
	"rebeca/web"
)

// openTable opens a stopped service's table, and makes none.
func openTable(cmd *cobra.Command, c rebeca.Config) (*table.Table, error) {
	return c.OpenTable(newLogger(cmd.ErrOrStderr(), slog.LevelWarn))
}

func inspectCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inspect " + strings.Join(web.Inspectable, "|"),
		Short: "Show a part of the state as JSON lines, of a stopped service or through a running one",
		Args:  exactly(1, "one of "+strings.Join(web.Inspectable, ", ")),
	}
	path := configFlag(cmd)
	cmd.Flags().Bool("json", true, "JSON lines, the only form there is")
	dir := cmd.Flags().String("state", "", "look at this state directory, such as a replay's (default: state.dir)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !slices.Contains(web.Inspectable, args[0]) {
			return usageError{fmt.Errorf("%q is not one of %s", args[0], strings.Join(web.Inspectable, ", "))}
		}
		c, err := loadConfig(*path)
		if err != nil {
			return err
		}
		if *dir != "" {
			c.State.Dir = *dir
		}
		t, err := openTable(cmd, c)
		if errors.Is(err, table.ErrLocked) && *dir == "" {
			return rebeca.InspectRunning(cmd.Context(), c, args[0], cmd.OutOrStdout())
		}
		if err != nil {
			return err
		}
		defer t.Close()
		return rebeca.Inspect(t, c.Kafka.Topics, args[0], cmd.OutOrStdout())
	}
	return cmd
}

func sampleCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "sample", Short: "Make embeddings and PNGs for a user from a stopped service's state", Args: noArgs,
	}
	path := configFlag(cmd)
	f := cmd.Flags()
	user := f.String("user", "", "user to sample for (required)")
	n := f.IntP("count", "n", 8, "how many")
	seed := f.Uint64("seed", 1, "seed; the same seed gives the same images")
	out := f.String("out", "", "directory for samples.jsonl and the PNGs (required)")
	require(cmd, "user", "out")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *n < 1 || *n > 1000 {
			return usageError{fmt.Errorf("-n is %d, outside 1..1000", *n)}
		}
		c, err := loadConfig(*path)
		if err != nil {
			return err
		}
		t, err := openTable(cmd, c)
		if errors.Is(err, table.ErrLocked) {
			return fmt.Errorf("%w: stop the service, or ask it by POST /v1/users/%s/generate", err, *user)
		}
		if err != nil {
			return err
		}
		defer t.Close()
		if err := c.OpenRuntime(); err != nil {
			return err
		}
		decoding, end := watch(cmd.ErrOrStderr(), "decoding", slow)
		samples, err := rebeca.SampleUser(cmd.Context(), c, t, *user, *n, *seed, decoding, newLogger(cmd.ErrOrStderr(), slog.LevelWarn))
		end()
		if err != nil {
			return err
		}
		return writeSamples(*out, samples)
	}
	return cmd
}

func writeSamples(dir string, samples []rebeca.Sampled) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	var lines []byte
	for i, s := range samples {
		b, err := json.Marshal(s)
		if err != nil {
			return fmt.Errorf("encoding sample %d: %w", i, err)
		}
		lines = append(append(lines, b...), '\n')
		if s.Image == nil {
			continue
		}
		png, err := sampler.PNG(s.Image)
		if err != nil {
			return fmt.Errorf("encoding sample %d: %w", i, err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%03d.png", i)), png, 0o644); err != nil {
			return fmt.Errorf("--out: %w", err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "samples.jsonl"), lines, 0o644); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	return nil
}

func snapshotCommand() *cobra.Command {
	return group("snapshot", "Make and restore consistent cuts of the state", snapshotCreate(), snapshotRestore(), snapshotList())
}

func snapshotCreate() *cobra.Command {
	cmd := &cobra.Command{
		Use: "create", Short: "Write a snapshot below <state.dir>/snapshots, of a stopped service or through a running one", Args: noArgs,
	}
	path := configFlag(cmd)
	partitions := partitionsFlag(cmd, "write these alone, such as 2-3, for another worker to take over; without the prior")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, some, err := loadDivided(*path, *partitions)
		if err != nil {
			return err
		}
		t, err := openTable(cmd, c)
		if errors.Is(err, table.ErrLocked) {
			m, err := rebeca.SnapshotRunning(cmd.Context(), c, some)
			if err != nil {
				return err
			}
			return printSnapshot(cmd, c, m)
		}
		if err != nil {
			return err
		}
		defer t.Close()
		progress, done := meterOf(cmd, "rows written")
		m, err := rebeca.CreateSnapshot(cmd.Context(), c, t, some, newLogger(cmd.ErrOrStderr(), slog.LevelWarn), snapshot.Options{Progress: progress})
		done()
		if err != nil {
			return err
		}
		return printSnapshot(cmd, c, m)
	}
	return cmd
}

func printSnapshot(cmd *cobra.Command, c rebeca.Config, m snapshot.Manifest) error {
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: %d users, %d keys\n", filepath.Join(c.SnapshotDir(), m.Name), m.Users, m.Keys)
	return err
}

func snapshotRestore() *cobra.Command {
	cmd := &cobra.Command{
		Use: "restore SNAPSHOT", Short: "Write a snapshot into an empty state directory, or partitions of it into one in use",
		Long: "Write a snapshot into an empty state directory, from where serve continues. With --partitions these alone are put\n" +
			"into a state that may hold others, in place of what it has of them, and are taken from whoever owns them.",
		Args: exactly(1, "the path of one snapshot"),
	}
	path := configFlag(cmd)
	partitions := partitionsFlag(cmd, "put these alone, such as 2-3, into a state that may hold others")
	dryRun := cmd.Flags().Bool("dry-run", false, "check the snapshot, say what would be done and do nothing")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, some, err := loadDivided(*path, *partitions)
		if err != nil {
			return err
		}
		if *dryRun {
			return planRestore(cmd, c, args[0], some)
		}
		if len(some) > 0 {
			return adopt(cmd, c, args[0], some)
		}
		progress, done := meterOf(cmd, "bytes read")
		m, err := rebeca.RestoreSnapshot(cmd.Context(), c, args[0], newLogger(cmd.ErrOrStderr(), slog.LevelWarn), snapshot.Options{Progress: progress})
		done()
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "restored %d users into %s\n", m.Users, c.State.Dir)
		return err
	}
	return cmd
}

func partitionsFlag(cmd *cobra.Command, usage string) *string {
	return cmd.Flags().String("partitions", "", usage)
}

// loadDivided reads the configuration and a set of partitions of its topics.
func loadDivided(path, partitions string) (rebeca.Config, rebeca.Partitions, error) {
	some, err := rebeca.ParsePartitions(partitions)
	if err != nil {
		return rebeca.Config{}, nil, usageError{fmt.Errorf("--partitions: %w", err)}
	}
	c, err := loadConfig(path)
	if err == nil && len(some) > 0 && int(some[len(some)-1]) >= c.Kafka.Partitions {
		err = usageError{fmt.Errorf("--partitions: %d is not below kafka.partitions %d", some[len(some)-1], c.Kafka.Partitions)}
	}
	return c, some, err
}

func planRestore(cmd *cobra.Command, c rebeca.Config, path string, some rebeca.Partitions) error {
	progress, done := meterOf(cmd, "bytes read")
	m, err := snapshot.Verify(cmd.Context(), path, snapshot.Options{Progress: progress})
	done()
	if err != nil {
		return err
	}
	what := "all"
	if len(some) > 0 {
		what = "partitions " + some.String()
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "would restore %s of %s, %d users in all, into %s\n", what, m.Name, m.Users, c.State.Dir)
	return err
}

func adopt(cmd *cobra.Command, c rebeca.Config, path string, some rebeca.Partitions) error {
	progress, done := meterOf(cmd, "bytes read")
	_, taken, err := rebeca.AdoptSnapshot(cmd.Context(), c, path, some, newLogger(cmd.ErrOrStderr(), slog.LevelWarn), snapshot.Options{Progress: progress})
	done()
	if errors.Is(err, table.ErrLocked) {
		return fmt.Errorf("%w: stop the service first", err)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "partitions %s are in %s now; whoever owned them stops them by name\n", taken, c.State.Dir)
	return err
}

func snapshotList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List snapshots, the newest first", Args: noArgs}
	path := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := loadConfig(*path)
		if err != nil {
			return err
		}
		found, err := snapshot.List(c.SnapshotDir())
		if err != nil {
			return err
		}
		for _, l := range found {
			if l.Err != nil {
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %v\n", l.Path, l.Err)
				continue
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %d users, %d keys\n", l.Path, l.Manifest.Users, l.Manifest.Keys)
		}
		return nil
	}
	return cmd
}

// meterOf shows progress on the standard error; done ends it.
func meterOf(cmd *cobra.Command, label string) (progress func(done, total int64), done func()) {
	var m *meter.Meter
	return func(n, total int64) {
			if m == nil {
				m = meter.New(cmd.ErrOrStderr(), label, total)
			}
			m.Set(n)
		}, func() {
			if m != nil {
				m.Done()
			}
		}
}

func priorCommand() *cobra.Command {
	reset := &cobra.Command{
		Use: "reset", Short: "Forget announced priors and set checkpoints aside, so that learning starts anew", Args: noArgs,
	}
	path := configFlag(reset)
	dryRun := reset.Flags().Bool("dry-run", false, "say what would be done and do nothing")
	reset.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := loadConfig(*path)
		if err != nil {
			return err
		}
		done, err := rebeca.ResetPrior(cmd.Context(), c, *dryRun)
		for _, line := range done {
			fmt.Fprintln(cmd.OutOrStdout(), line)
		}
		return err
	}
	return group("prior", "Work with versions of the prior", priorList(), priorPromote(), priorRollback(), reset, priorImport(), priorSample(), priorBench())
}

func priorImport() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Turn weights of the published prior, a PyTorch state dict saved as safetensors, into a checkpoint",
		Args:  exactly(1, "the path of one state dict"),
	}
	out := cmd.Flags().String("out", "", "checkpoint to write (required)")
	require(cmd, "out")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		state, err := prior.ImportReference(args[0])
		if err != nil {
			return err
		}
		sum, err := state.Save(*out)
		if err != nil {
			return err
		}
		c := state.Config
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: kind %s, %d dimensions, %d users, %d parameters, SHA-256 %s\n"+
			"draw from it: rebeca prior sample %s --user 0 --out DIR\n",
			*out, c.Kind, c.Dim, c.Users, len(state.Params), sum, *out)
		return err
	}
	return cmd
}
