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
// that is not ahead of it. With partitions it holds these alone, and no
// checkpoint: what another worker needs to take them over. It refuses where the
// disk would be left with too little room for a service.
func CreateSnapshot(ctx context.Context, c Config, t *table.Table, partitions Partitions, log *slog.Logger, o snapshot.Options) (snapshot.Manifest, error) {
	if err := newGuard(c, nil, log).room(t.Size()); err != nil {
		return snapshot.Manifest{}, fmt.Errorf("creating a snapshot: %w", err)
	}
	if len(partitions) > 0 {
		if last := partitions[len(partitions)-1]; last >= t.Partitions() {
			return snapshot.Manifest{}, fmt.Errorf("partition %d is not below %d, the number of the state's", last, t.Partitions())
		}
		return snapshot.Create(ctx, c.SnapshotDir(), snapshot.OfPartitions(t, partitions), o)
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

// AdoptSnapshot puts partitions of the snapshot at path into the
// configuration's state, which is made when there is none and must be in
// nobody's use, and takes them from whoever owns them.
func AdoptSnapshot(ctx context.Context, c Config, path string, partitions Partitions, log *slog.Logger, o snapshot.Options) (snapshot.Manifest, Partitions, error) {
	if err := c.finishPromotion(); err != nil {
		return snapshot.Manifest{}, nil, err
	}
	return snapshot.Adopt(ctx, path, c.TableOptions(log), partitions, c.Kafka.Topics.Items, o)
}
