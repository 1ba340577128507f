package snapshot

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

type pair struct{ key, value []byte }

// fakeSource is a state in memory.
type fakeSource struct {
	layout     Layout
	offsets    []Offset
	users      []User
	pairs      []pair
	checkpoint *Checkpoint
	failAt     int // the key before which Each fails, 0 is never
	exported   bool
}

var errFake = errors.New("disk on fire")

func (f *fakeSource) Checkpoint() (Checkpoint, bool, error) {
	if f.exported {
		panic("the checkpoint is asked for after the cut")
	}
	if f.checkpoint == nil {
		return Checkpoint{}, false, nil
	}
	return *f.checkpoint, true, nil
}

func (f *fakeSource) Export(fn func(Cut) error) error {
	f.exported = true
	defer func() { f.exported = false }()
	return fn(f)
}

func (f *fakeSource) Layout() Layout             { return f.layout }
func (f *fakeSource) Offsets() ([]Offset, error) { return f.offsets, nil }

func (f *fakeSource) Users(fn func(User) error) error {
	for _, u := range f.users {
		if err := fn(u); err != nil {
			return err
		}
	}
	return nil
}

// Each hands out the same two buffers every time, as a database does.
func (f *fakeSource) Each(fn func(key, value []byte) error) error {
	var key, value []byte
	for i, p := range f.pairs {
		if f.failAt > 0 && i == f.failAt {
			return errFake
		}
		key, value = append(key[:0], p.key...), append(value[:0], p.value...)
		if err := fn(key, value); err != nil {
			return err
		}
		for k := range key {
			key[k] = 0xee
		}
	}
	return nil
}

func (f *fakeSource) digest() string {
	d := NewDigest()
	for _, p := range f.pairs {
		d.Add(p.key, p.value)
	}
	return d.Sum()
}

// newSource makes a state of n users with a checkpoint in a directory of the test.
func newSource(t testing.TB, n int) *fakeSource {
	t.Helper()
	rng := mrand.New(mrand.NewPCG(uint64(n), 1))
	f := &fakeSource{
		layout:  Layout{Dim: 16, Partitions: 4, VectorDim: 6, Users: int64(n), Keys: int64(2*n + 1)},
		offsets: []Offset{{"feedback", 0, 1000}, {"feedback", 1, 2000}, {"items", 0, 50}},
	}
	for i := range n {
		u := User{Partition: int32(i % 4), UserID: fmt.Sprintf("user-%06d", i), Events: uint64(i), Positives: uint64(i / 2), Negatives: uint64(i / 3)}
		for k := range i % 5 {
			u.Window = append(u.Window, Entry{
				ItemID: fmt.Sprintf("item-%d", rng.IntN(1000)), Class: "strong_positive", Kind: "like",
				OccurredAt: time.UnixMilli(1_700_000_000_000 + rng.Int64N(1e9)).UTC(), Offset: rng.Int64N(1e6), Older: k%2 == 1,
			})
		}
		if i%3 != 0 {
			u.PriorVersion = "7-abcdef"
			for range 6 {
				u.Vector = append(u.Vector, float32(rng.NormFloat64()))
			}
		}
		f.users = append(f.users, u)
		value := binary.LittleEndian.AppendUint64(make([]byte, 40+rng.IntN(80)), rng.Uint64())
		f.pairs = append(f.pairs, pair{fmt.Appendf(nil, "u/\x00\x00\x00%c/%s", i%4, u.UserID), value}, pair{fmt.Appendf(nil, "v/%s", u.UserID), nil})
	}
	f.pairs = append(f.pairs, pair{[]byte("m/meta"), []byte(`{"format":1}`)})
	slices.SortFunc(f.pairs, func(a, b pair) int { return bytes.Compare(a.key, b.key) })
	path := filepath.Join(t.TempDir(), "7-abcdef.safetensors")
	weights := make([]byte, 100_000)
	rand.Read(weights)
	if err := os.WriteFile(path, weights, 0o644); err != nil {
		t.Fatal(err)
	}
	f.checkpoint = &Checkpoint{Path: path, Version: "7-abcdef", Topic: "feedback", Cursor: map[int32]int64{0: 1000, 1: 1500}}
	return f
}

// collect is a Load that keeps the keys.
func collect(into *[]pair) Load {
	return func(_ context.Context, dir string, _ Manifest, next func() ([]byte, []byte, error)) error {
		for {
			key, value, err := next()
			if errors.Is(err, io.EOF) {
				return os.WriteFile(filepath.Join(dir, "state"), nil, 0o644)
			}
			if err != nil {
				return err
			}
			*into = append(*into, pair{bytes.Clone(key), bytes.Clone(value)})
		}
	}
}

func mustCreate(t testing.TB, dir string, src Source, o Options) (Manifest, string) {
	t.Helper()
	m, err := Create(context.Background(), dir, src, o)
	if err != nil {
		t.Fatal(err)
	}
	return m, filepath.Join(dir, m.Name)
}

// crashDisk is a file system that stops working after a number of operations, then shows what a power cut leaves: of
// files that were not synced, half; of a name in a directory that was not synced, nothing.
type crashDisk struct {
	osDisk
	left    int
	crashed bool
	open    map[string]bool   // files with unsynced bytes
	renamed map[string]string // to → from, directory not synced yet
}

var errCrash = errors.New("power cut")

func newCrashDisk(operations int) *crashDisk {
	return &crashDisk{left: operations, open: map[string]bool{}, renamed: map[string]string{}}
}

func (d *crashDisk) step() error {
	if d.left <= 0 {
		d.crashed = true
		return errCrash
	}
	d.left--
	return nil
}

func (d *crashDisk) Mkdir(path string) error {
	if err := d.step(); err != nil {
		return err
	}
	return d.osDisk.Mkdir(path)
}

func (d *crashDisk) Create(path string) (file, error) {
	if err := d.step(); err != nil {
		return nil, err
	}
	f, err := d.osDisk.Create(path)
	if err != nil {
		return nil, err
	}
	d.open[path] = true
	return &crashFile{f, d, path}, nil
}

func (d *crashDisk) Rename(from, to string) error {
	if err := d.step(); err != nil {
		return err
	}
	d.renamed[to] = from
	return d.osDisk.Rename(from, to)
}

func (d *crashDisk) SyncDir(path string) error {
	if err := d.step(); err != nil {
		return err
	}
	for to := range d.renamed {
		if filepath.Dir(to) == path {
			delete(d.renamed, to)
		}
	}
	return d.osDisk.SyncDir(path)
}

// RemoveAll does nothing once crashed: nobody tidies up after a power cut.
func (d *crashDisk) RemoveAll(path string) error {
	if err := d.step(); err != nil {
		return err
	}
	return d.osDisk.RemoveAll(path)
}

// cut applies the losses. keepRename says whether an unsynced rename happened to reach the disk.
func (d *crashDisk) cut(t *testing.T, keepRename bool) {
	t.Helper()
	for path := range d.open {
		info, err := os.Stat(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, info.Size()/2); err != nil {
			t.Fatal(err)
		}
	}
	for to, from := range d.renamed {
		if keepRename {
			continue
		}
		if err := os.Rename(to, from); err != nil {
			t.Fatal(err)
		}
	}
}

type crashFile struct {
	file
	d    *crashDisk
	path string
}

func (f *crashFile) Write(p []byte) (int, error) {
	if err := f.d.step(); err != nil {
		return 0, err
	}
	return f.file.Write(p)
}

func (f *crashFile) Sync() error {
	if err := f.d.step(); err != nil {
		return err
	}
	delete(f.d.open, f.path)
	return f.file.Sync()
}
