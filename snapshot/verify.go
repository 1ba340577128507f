package snapshot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/apache/arrow/go/v17/arrow"
)

// Listed is one directory that List found.
type Listed struct {
	Path     string
	Manifest Manifest
	Err      error // the manifest cannot be read: the directory cannot be restored
}

// List names the snapshots below dir, newest first. Directories without a manifest (unfinished ones among them) and
// other files are not snapshots and are left out; a directory that is not there holds none. Hashes are not checked: see Verify.
func List(dir string) ([]Listed, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing snapshots: %w", err)
	}
	var found []Listed
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		l := Listed{Path: filepath.Join(dir, e.Name())}
		l.Manifest, l.Err = readManifest(l.Path)
		if !errors.Is(l.Err, os.ErrNotExist) {
			found = append(found, l)
		}
	}
	slices.SortStableFunc(found, func(a, b Listed) int { return b.Manifest.CreatedAt.Compare(a.Manifest.CreatedAt) })
	return found, nil
}

func readManifest(path string) (Manifest, error) {
	f, err := os.Open(filepath.Join(path, manifestFile))
	if err != nil {
		return Manifest{}, fmt.Errorf("reading manifest: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return Manifest{}, fmt.Errorf("reading manifest: %w", err)
	}
	if len(data) > maxManifest {
		return Manifest{}, fmt.Errorf("reading manifest: larger than %d bytes", maxManifest)
	}
	return DecodeManifest(data)
}

// Verify reads the whole snapshot at path: every file's size and SHA-256, every table's columns and row count, and the
// digest of the state. The error names all files that are damaged. ctx ends it early with ctx.Err().
func Verify(ctx context.Context, path string, o Options) (Manifest, error) {
	m, err := verifyFiles(ctx, path, o)
	if err != nil {
		return Manifest{}, err
	}
	users := int64(0)
	err = readSheet(filepath.Join(path, usersFile), usersFile, userFields(m.VectorDim), func(rec arrow.Record) error {
		users += rec.NumRows()
		return ctx.Err()
	})
	if err != nil {
		return Manifest{}, err
	}
	if users != m.Users {
		return Manifest{}, fmt.Errorf("reading %s: %d rows where the manifest counts %d", usersFile, users, m.Users)
	}
	return m, eachKey(ctx, path, m, func(key, value []byte) error { return nil })
}

// verifyFiles checks sizes and hashes.
func verifyFiles(ctx context.Context, path string, o Options) (Manifest, error) {
	o, err := o.withDefaults()
	if err != nil {
		return Manifest{}, err
	}
	m, err := readManifest(path)
	if err != nil {
		return Manifest{}, err
	}
	var damaged []error
	done := int64(0)
	for _, f := range m.Files {
		err := verifyFile(ctx, path, f, func(n int64) { o.Progress(done+n, m.Size()) })
		if ctx.Err() != nil {
			return Manifest{}, ctx.Err()
		}
		damaged = append(damaged, err)
		done += f.Bytes
	}
	return m, errors.Join(damaged...)
}

func verifyFile(ctx context.Context, path string, want File, progress func(int64)) error {
	f, err := os.Open(filepath.Join(path, filepath.FromSlash(want.Name)))
	if err != nil {
		return fmt.Errorf("verifying %s: %w", want.Name, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("verifying %s: %w", want.Name, err)
	}
	if info.Size() != want.Bytes {
		return fmt.Errorf("verifying %s: %d bytes where the manifest has %d", want.Name, info.Size(), want.Bytes)
	}
	sum := sha256.New()
	for n := int64(0); n < want.Bytes; {
		k, err := io.CopyN(sum, contextReader{ctx, f}, min(1<<20, want.Bytes-n))
		if err != nil {
			return fmt.Errorf("verifying %s: %w", want.Name, err)
		}
		n += k
		progress(n)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != want.SHA256 {
		return fmt.Errorf("verifying %s: SHA-256 %s where the manifest has %s", want.Name, got, want.SHA256)
	}
	return nil
}
