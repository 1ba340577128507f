package rebeca

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"

	"rebeca/online"
	"rebeca/snapshot"
	"rebeca/table"
)

// SnapshotDir is where snapshots are written and listed.
func (c Config) SnapshotDir() string { return filepath.Join(c.State.Dir, "snapshots") }

// CreateSnapshot writes a snapshot of an open table and the newest checkpoint
// that is not ahead of it.
func CreateSnapshot(ctx context.Context, c Config, t *table.Table, log *slog.Logger, o snapshot.Options) (snapshot.Manifest, error) {
	src := snapshotSource{table: t, priorDir: c.priorDir(), topic: c.Kafka.Topics.Feedback, log: log}
	return snapshot.Create(ctx, c.SnapshotDir(), src, o)
}

// RestoreSnapshot writes the snapshot at path into the configuration's state
// directory, which must hold no state yet.
func RestoreSnapshot(ctx context.Context, c Config, path string, log *slog.Logger, o snapshot.Options) (snapshot.Manifest, error) {
	load := func(_ context.Context, dir string, m snapshot.Manifest, next func() (key, value []byte, err error)) error {
		if int(m.Partitions) != c.Kafka.Partitions {
			return fmt.Errorf("kafka.partitions: is %d, the snapshot has %d", c.Kafka.Partitions, m.Partitions)
		}
		if m.Dim != c.Prior.Dim {
			return fmt.Errorf("prior.dim: is %d, the snapshot has %d", c.Prior.Dim, m.Dim)
		}
		to := c.TableOptions(log)
		to.Dir = dir
		return table.Load(to, func() (key, value []byte, ok bool, err error) {
			key, value, err = next()
			if errors.Is(err, io.EOF) {
				return nil, nil, false, nil
			}
			return key, value, err == nil, err
		})
	}
	return snapshot.Restore(ctx, path, c.tableDir(), c.priorDir(), load, o)
}

// snapshotSource adapts a table and a directory of checkpoints.
type snapshotSource struct {
	table    *table.Table
	priorDir string
	topic    string
	log      *slog.Logger
}

// Checkpoint implements [snapshot.Source].
func (s snapshotSource) Checkpoint() (snapshot.Checkpoint, bool, error) {
	c, ok, err := online.Newest(s.priorDir, s.log)
	if err != nil || !ok {
		return snapshot.Checkpoint{}, ok, err
	}
	return snapshot.Checkpoint{Path: c.Path, Version: c.Version.Version, Topic: s.topic, Cursor: c.Cursor}, true, nil
}

// Export implements [snapshot.Source].
func (s snapshotSource) Export(fn func(snapshot.Cut) error) error {
	return s.table.Export(func(c table.Cut) error { return fn(snapshotCut{c}) })
}

// snapshotCut shows a table's cut in the words of package snapshot.
type snapshotCut struct{ table.Cut }

// Layout implements [snapshot.Cut]. The vectors' length is that of the first
// user who has one; all versions of a prior give the same.
func (c snapshotCut) Layout() snapshot.Layout {
	l := snapshot.Layout{Dim: c.Dim(), Partitions: c.Partitions()}
	found := errors.New("found")
	// An error of the reading shows again when the users are written.
	_ = c.Cut.Users(func(_ table.Row, v *table.Vector) error {
		if v == nil {
			return nil
		}
		l.VectorDim = len(v.Values)
		return found
	})
	return l
}

// Offsets implements [snapshot.Cut].
func (c snapshotCut) Offsets() ([]snapshot.Offset, error) {
	positions, err := c.Positions()
	out := make([]snapshot.Offset, len(positions))
	for i, p := range positions {
		out[i] = snapshot.Offset{Topic: p.Topic, Partition: p.Partition, Next: p.Next}
	}
	return out, err
}

// Users implements [snapshot.Cut].
func (c snapshotCut) Users(fn func(snapshot.User) error) error {
	return c.Cut.Users(func(r table.Row, v *table.Vector) error {
		u := snapshot.User{
			Partition: r.Partition, UserID: r.UserID, Events: r.Events, Positives: r.Positives, Negatives: r.Negatives,
			Window: make([]snapshot.Entry, len(r.Window)),
		}
		for i, e := range r.Window {
			u.Window[i] = snapshot.Entry{
				ItemID: e.ItemID, Class: e.Class.String(), Kind: string(e.Kind), OccurredAt: e.OccurredAt, Offset: e.Offset, Older: e.Older,
			}
		}
		if v != nil {
			u.Vector, u.PriorVersion = v.Values, v.PriorVersion
		}
		return fn(u)
	})
}

// Each implements [snapshot.Cut].
func (c snapshotCut) Each(fn func(key, value []byte) error) error { return c.Cut.Each("", fn) }
