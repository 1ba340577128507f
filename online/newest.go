package online

import (
	"fmt"
	"log/slog"
	"maps"
	"os"

	"rebeca/schemas"
)

// Checkpoint is the newest durable weights of a trainer, as others see them.
type Checkpoint struct {
	Path    string               // of the file
	Version schemas.PriorVersion // as it is announced
	Cursor  map[int32]int64      // next offset of `feedback` to learn from, by partition
}

// Newest finds the newest checkpoint in a trainer's directory that loads;
// damaged ones are reported to log and passed over. ok is false where there is
// none. It may be called beside a running trainer.
func Newest(dir string, log *slog.Logger) (c Checkpoint, ok bool, err error) {
	found, _, err := checkpoints{dir: dir, log: log}.newest()
	if err != nil {
		return c, false, fmt.Errorf("looking for checkpoints in %s: %w", dir, err)
	}
	if found == nil {
		return c, false, nil
	}
	info, err := os.Stat(found.path)
	if err != nil {
		return c, false, fmt.Errorf("looking at a checkpoint: %w", err)
	}
	return Checkpoint{
		Path: found.path, Version: found.announcement(info.ModTime().UTC()), Cursor: maps.Clone(found.record.Cursor),
	}, true, nil
}
