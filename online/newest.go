package online

import (
	"fmt"
	"log/slog"
	"maps"
	"os"

	"rebeca/schemas"
)

// Checkpoint is the durable weights of a trainer that are in use, as others see them.
type Checkpoint struct {
	Path    string               // of the file
	Version schemas.PriorVersion // as it is announced
	Cursor  map[int32]int64      // next offset of `feedback` to learn from, by partition
}

// Newest finds the checkpoint that is in use in a trainer's directory: the
// newest that was announced and loads, or one that an operator chose;
// damaged ones are reported to log and passed over. ok is false where there is
// none. It may be called beside a running trainer.
func Newest(dir string, log *slog.Logger) (c Checkpoint, ok bool, err error) {
	s, err := checkpoints{dir: dir, log: log}.standing()
	if err != nil {
		return c, false, fmt.Errorf("looking for checkpoints in %s: %w", dir, err)
	}
	if s.newest == nil {
		return c, false, nil
	}
	found := s.current
	info, err := os.Stat(found.path)
	if err != nil {
		return c, false, fmt.Errorf("looking at a checkpoint: %w", err)
	}
	return Checkpoint{
		Path: found.path, Version: found.announcement(info.ModTime().UTC()), Cursor: maps.Clone(found.record.Cursor),
	}, true, nil
}
