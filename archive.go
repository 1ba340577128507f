package rebeca

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"

	"rebeca/online"
	"rebeca/snapshot"
	"rebeca/table"
)

// SnapshotDir is where snapshots are written and listed.
func (c Config) SnapshotDir() string { return filepath.Join(c.State.Dir, "snapshots") }

// CreateSnapshot writes a snapshot of an open table and the newest checkpoint
// that is not ahead of it. It refuses where the disk would be left with too
// little room for a service.
func CreateSnapshot(ctx context.Context, c Config, t *table.Table, log *slog.Logger, o snapshot.Options) (snapshot.Manifest, error) {
	if err := newGuard(c, nil, log).room(t.Size()); err != nil {
		return snapshot.Manifest{}, fmt.Errorf("creating a snapshot: %w", err)
	}
	newest := func() (snapshot.Checkpoint, bool, error) {
		cp, ok, err := online.Newest(c.priorDir(), log)
		return snapshot.Checkpoint{Path: cp.Path, Version: cp.Version.Version, Topic: c.Kafka.Topics.Feedback, Cursor: cp.Cursor}, ok, err
	}
	return snapshot.Create(ctx, c.SnapshotDir(), snapshot.OfTable(t, newest), o)
}

// RestoreSnapshot writes the snapshot at path into the configuration's state
// directory, which must hold no state yet.
func RestoreSnapshot(ctx context.Context, c Config, path string, log *slog.Logger, o snapshot.Options) (snapshot.Manifest, error) {
	if err := c.finishPromotion(); err != nil {
		return snapshot.Manifest{}, err
	}
	return snapshot.Restore(ctx, path, c.tableDir(), c.priorDir(), snapshot.IntoTable(c.TableOptions(log)), o)
}
