package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
)

// ErrNotEmpty is returned where a restore would mix with what is there.
var ErrNotEmpty = errors.New("directory is not empty")

// Load fills a directory with a state. next gives its keys in key order and io.EOF after the last; the slices are valid
// until the next call. Any other error of next must be returned, and dir must then not open as a state.
type Load func(ctx context.Context, dir string, m Manifest, next func() (key, value []byte, err error)) error

// Restore verifies the snapshot at path, copies its checkpoint into priorDir and loads its state into stateDir. Both
// directories are made if need be, must be empty (ErrNotEmpty) and not lie in each other. Nothing is written before all
// hashes are right. Everything is durable when Restore returns without an error; after one, clear both directories
// before trying again.
func Restore(ctx context.Context, path, stateDir, priorDir string, load Load, o Options) (Manifest, error) {
	if err := checkTargets(stateDir, priorDir); err != nil {
		return Manifest{}, err
	}
	m, err := verifyFiles(ctx, path, o)
	if err != nil {
		return Manifest{}, err
	}
	// The state comes last: until it opens, a service cannot start on half a restore.
	if m.Prior != nil {
		if err := restorePrior(ctx, path, priorDir, *m.Prior); err != nil {
			return Manifest{}, fmt.Errorf("restoring the checkpoint: %w", err)
		}
	}
	if err := os.MkdirAll(stateDir, 0o755); err != nil {
		return Manifest{}, fmt.Errorf("creating the state directory: %w", err)
	}
	if err := loadState(ctx, path, stateDir, m, load); err != nil {
		return Manifest{}, fmt.Errorf("restoring the state: %w", err)
	}
	if err := (osDisk{}).SyncDir(filepath.Dir(filepath.Clean(stateDir))); err != nil {
		return Manifest{}, fmt.Errorf("restoring the state: %w", err)
	}
	return m, nil
}

func checkTargets(stateDir, priorDir string) error {
	for _, dir := range []string{stateDir, priorDir} {
		ok, err := empty(dir)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("restoring into %s: %w", dir, ErrNotEmpty)
		}
	}
	for _, pair := range [][2]string{{stateDir, priorDir}, {priorDir, stateDir}} {
		rel, err := filepath.Rel(pair[0], pair[1])
		if err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
			return fmt.Errorf("restoring into %s: it lies in %s", pair[1], pair[0])
		}
	}
	return nil
}

func restorePrior(ctx context.Context, path, priorDir string, p Prior) error {
	if err := os.MkdirAll(priorDir, 0o755); err != nil {
		return err
	}
	from, err := os.Open(filepath.Join(path, filepath.FromSlash(p.File)))
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := osDisk{}.Create(filepath.Join(priorDir, filepath.Base(filepath.FromSlash(p.File))))
	if err != nil {
		return err
	}
	if _, err := io.Copy(to, contextReader{ctx, from}); err != nil {
		to.Close()
		return err
	}
	if err := errors.Join(to.Sync(), to.Close()); err != nil {
		return err
	}
	return osDisk{}.SyncDir(priorDir)
}

// loadState runs the reader of state.arrow and the loader against each other: the loader pulls, the reader pushes.
func loadState(ctx context.Context, path, stateDir string, m Manifest, load Load) error {
	keys, stop := pullKeys(ctx, path, m)
	defer stop()
	return load(ctx, stateDir, m, keys)
}

// eachKey calls fn for every key of a snapshot in order, then compares their number and digest with the manifest.
func eachKey(ctx context.Context, path string, m Manifest, fn func(key, value []byte) error) error {
	n, digest := int64(0), NewDigest()
	err := readSheet(filepath.Join(path, stateFile), stateFile, stateFields, func(rec arrow.Record) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		keys, values := rec.Column(1).(*array.Binary), rec.Column(2).(*array.Binary)
		for i := range int(rec.NumRows()) {
			key, value := keys.Value(i), values.Value(i)
			digest.Add(key, value)
			if err := fn(key, value); err != nil {
				return err
			}
			n++
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case n != m.Keys:
		return fmt.Errorf("reading %s: %d keys where the manifest counts %d", stateFile, n, m.Keys)
	case digest.Sum() != m.StateHash:
		return fmt.Errorf("reading %s: the keys hash to %s where the manifest has %s", stateFile, digest.Sum(), m.StateHash)
	}
	return nil
}
