package snapshot

import (
	"context"
	"fmt"

	"rebeca/table"
)

// Adopt verifies the snapshot at path and puts partitions of it, all that it claims where none is named, into the state that o names, in place
// of what that has of them. items is the catalogue's topic. The rest of the state, its catalogue and its checkpoints stay as they are. Errors
// are those of [table.Adopt]; after one that came late the partitions cannot be served until Adopt has succeeded.
func Adopt(ctx context.Context, path string, o table.Options, partitions []int32, items string, p Options) (m Manifest, adopted []int32, err error) {
	if m, err = verifyFiles(ctx, path, p); err != nil {
		return Manifest{}, nil, err
	}
	adopted, err = table.Adopt(o, partitions, items, func(fn func(key, value []byte) error) error { return eachKey(ctx, path, m, fn) })
	if err != nil {
		return Manifest{}, nil, fmt.Errorf("restoring partitions: %w", err)
	}
	return m, adopted, nil
}
