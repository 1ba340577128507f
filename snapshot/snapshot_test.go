package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"pgregory.net/rapid"
)

func TestRoundTrip(t *testing.T) {
	for _, c := range []Compression{Zstd, None} {
		t.Run(string(c), func(t *testing.T) {
			src := newSource(t, 9_000) // several batches of both tables
			at := time.Date(2026, 3, 4, 5, 6, 7, 8000, time.UTC)
			m, path := mustCreate(t, t.TempDir(), src, Options{Compression: c, Now: func() time.Time { return at }})
			if m.Name != "snap-20260304T050607.000008Z" || !m.CreatedAt.Equal(at) || m.Users != 9_000 || m.Keys != 18_001 ||
				m.Dim != 16 || m.Partitions != 4 || m.VectorDim != 6 || !slices.Equal(m.Offsets, src.offsets) || m.StateHash != src.digest() {
				t.Errorf("manifest %+v", m)
			}
			if verified, err := Verify(context.Background(), path, Options{}); err != nil || !reflect.DeepEqual(verified, m) {
				t.Fatalf("verified %+v, error %v, created %+v", verified, err, m)
			}
			restoreAndCompare(t, path, src, m)
			compareUsers(t, path, src, m)
		})
	}
}

func restoreAndCompare(t *testing.T, path string, src *fakeSource, m Manifest) {
	t.Helper()
	var got []pair
	root := t.TempDir()
	state, weights := filepath.Join(root, "a", "table"), filepath.Join(root, "a", "prior")
	restored, err := Restore(context.Background(), path, state, weights, collect(&got), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(restored, m) {
		t.Errorf("restored %+v, created %+v", restored, m)
	}
	if len(got) != len(src.pairs) {
		t.Fatalf("%d keys restored of %d", len(got), len(src.pairs))
	}
	for i, p := range src.pairs {
		if !bytes.Equal(p.key, got[i].key) || !bytes.Equal(p.value, got[i].value) {
			t.Fatalf("key %d is %q = %x, want %q = %x", i, got[i].key, got[i].value, p.key, p.value)
		}
	}
	want, err := os.ReadFile(src.checkpoint.Path)
	if err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile(filepath.Join(weights, filepath.Base(src.checkpoint.Path)))
	if err != nil || !bytes.Equal(want, have) {
		t.Errorf("the checkpoint was not restored (error %v)", err)
	}
}

func compareUsers(t *testing.T, path string, src *fakeSource, m Manifest) {
	t.Helper()
	i := 0
	err := readSheet(filepath.Join(path, usersFile), usersFile, userFields(m.VectorDim), func(rec arrow.Record) error {
		if rec.NumRows() > maxBatchRows {
			t.Errorf("a batch of %d rows", rec.NumRows())
		}
		for r := range int(rec.NumRows()) {
			want := src.users[i]
			got := readUser(rec, r)
			if want.Vector == nil {
				want.Vector = make([]float32, 6)
				if rec.Column(6).(*array.Boolean).Value(r) {
					t.Fatalf("user %d has a vector", i)
				}
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("user %d is %+v, want %+v", i, got, want)
			}
			i++
		}
		return nil
	})
	if err != nil || i != len(src.users) {
		t.Fatalf("%d users read of %d, error %v", i, len(src.users), err)
	}
}

func readUser(rec arrow.Record, r int) User {
	u := User{
		Partition: rec.Column(0).(*array.Int32).Value(r), UserID: rec.Column(1).(*array.String).Value(r),
		Events: rec.Column(2).(*array.Uint64).Value(r), Positives: rec.Column(3).(*array.Uint64).Value(r),
		Negatives: rec.Column(4).(*array.Uint64).Value(r), PriorVersion: rec.Column(8).(*array.String).Value(r),
	}
	window := rec.Column(5).(*array.List)
	entries := window.ListValues().(*array.Struct)
	from, to := window.ValueOffsets(r)
	for k := int(from); k < int(to); k++ {
		u.Window = append(u.Window, Entry{
			ItemID: entries.Field(0).(*array.String).Value(k), Class: entries.Field(1).(*array.String).Value(k),
			Kind:       entries.Field(2).(*array.String).Value(k),
			OccurredAt: entries.Field(3).(*array.Timestamp).Value(k).ToTime(arrow.Microsecond),
			Offset:     entries.Field(4).(*array.Int64).Value(k), Older: entries.Field(5).(*array.Boolean).Value(k),
		})
	}
	vector := rec.Column(7).(*array.FixedSizeList)
	from, to = vector.ValueOffsets(r)
	u.Vector = slices.Clone(vector.ListValues().(*array.Float32).Float32Values()[from:to])
	return u
}

// TestAnyKeys: whatever bytes the table holds come back, in the same order.
func TestAnyKeys(t *testing.T) {
	dir := t.TempDir()
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		kv := rapid.MapOf(rapid.String(), rapid.SliceOf(rapid.Byte())).Draw(rt, "keys")
		src := &fakeSource{layout: Layout{Dim: 1, Partitions: 1}}
		for k, v := range kv {
			src.pairs = append(src.pairs, pair{[]byte(k), v})
		}
		slices.SortFunc(src.pairs, func(a, b pair) int { return bytes.Compare(a.key, b.key) })
		n++
		sub := filepath.Join(dir, fmt.Sprint(n))
		m, path := mustCreate(t, filepath.Join(sub, "snapshots"), src, Options{})
		if m.Prior != nil || m.VectorDim != 0 {
			rt.Fatalf("manifest %+v", m)
		}
		var got []pair
		if _, err := Restore(context.Background(), path, filepath.Join(sub, "s"), filepath.Join(sub, "p"), collect(&got), Options{}); err != nil {
			rt.Fatal(err)
		}
		equal := slices.EqualFunc(src.pairs, got, func(a, b pair) bool { return bytes.Equal(a.key, b.key) && bytes.Equal(a.value, b.value) })
		if !equal {
			rt.Fatalf("%q came back as %q", src.pairs, got)
		}
	})
}

func TestCheckpointAheadIsRefused(t *testing.T) {
	for _, tc := range []struct {
		cursor map[int32]int64
		want   AheadError
	}{
		{map[int32]int64{0: 1000, 1: 2001}, AheadError{Topic: "feedback", Partition: 1, Cursor: 2001, Next: 2000}},
		{map[int32]int64{3: 1}, AheadError{Topic: "feedback", Partition: 3, Cursor: 1, Next: 0}},
	} {
		src := newSource(t, 10)
		src.checkpoint.Cursor = tc.cursor
		dir := t.TempDir()
		_, err := Create(context.Background(), dir, src, Options{})
		var ahead *AheadError
		if !errors.As(err, &ahead) || *ahead != tc.want {
			t.Errorf("cursor %v: error %v, want %v", tc.cursor, err, &tc.want)
		}
		wantNothing(t, dir)
	}
}

// wantNothing: a refused or failed Create leaves no file but its lock.
func wantNothing(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != ".lock" {
			t.Errorf("%s was left behind", e.Name())
		}
	}
}

func TestSourceFails(t *testing.T) {
	src := newSource(t, 5_000)
	src.failAt = 9_000
	dir := t.TempDir()
	if _, err := Create(context.Background(), dir, src, Options{}); !errors.Is(err, errFake) {
		t.Errorf("error %v, want the source's", err)
	}
	wantNothing(t, dir)
	src.failAt = 0
	src.checkpoint.Path += ".gone"
	if _, err := Create(context.Background(), dir, src, Options{}); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "opening the checkpoint") {
		t.Errorf("missing checkpoint: error %v", err)
	}
	wantNothing(t, dir)
	src.layout.Dim, src.checkpoint = 0, nil
	if _, err := Create(context.Background(), dir, src, Options{}); err == nil || !strings.Contains(err.Error(), "dim: 0") {
		t.Errorf("dimension 0: error %v", err)
	}
	wantNothing(t, dir)
}

func TestCancel(t *testing.T) {
	src := newSource(t, 9_000)
	ctx, cancel := context.WithCancel(context.Background())
	dir := t.TempDir()
	stop := func(done, total int64) {
		if done > 0 {
			cancel()
		}
	}
	if _, err := Create(ctx, dir, src, Options{Progress: stop}); !errors.Is(err, context.Canceled) {
		t.Errorf("create: error %v", err)
	}
	wantNothing(t, dir)

	_, path := mustCreate(t, dir, src, Options{})
	ctx, cancel = context.WithCancel(context.Background())
	if _, err := Verify(ctx, path, Options{Progress: stop}); !errors.Is(err, context.Canceled) {
		t.Errorf("verify: error %v", err)
	}
	ctx, cancel = context.WithCancel(context.Background())
	root := t.TempDir()
	load := func(_ context.Context, _ string, _ Manifest, next func() ([]byte, []byte, error)) error {
		for {
			if _, _, err := next(); err != nil {
				return err
			}
			cancel()
		}
	}
	if _, err := Restore(ctx, path, filepath.Join(root, "s"), filepath.Join(root, "p"), load, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("restore: error %v", err)
	}
}

func TestProgress(t *testing.T) {
	src := newSource(t, 9_000)
	type call struct{ done, total int64 }
	var calls []call
	record := Options{Progress: func(done, total int64) { calls = append(calls, call{done, total}) }}
	_, path := mustCreate(t, t.TempDir(), src, record)
	check := func(name string, total int64) {
		t.Helper()
		if len(calls) < 2 || !slices.IsSortedFunc(calls, func(a, b call) int { return int(a.done - b.done) }) {
			t.Errorf("%s: progress %v does not rise", name, calls)
		}
		if last := calls[len(calls)-1]; last != (call{total, total}) {
			t.Errorf("%s: progress ends with %v, want %d", name, last, total)
		}
		calls = nil
	}
	check("create", 9_000+18_001)
	m, err := Verify(context.Background(), path, record)
	if err != nil {
		t.Fatal(err)
	}
	check("verify", m.Size())
}

func TestCellLimit(t *testing.T) {
	s, err := newSheet(osDisk{}, filepath.Join(t.TempDir(), stateFile), stateFile, stateFields, arrow.Metadata{}, None)
	if err != nil {
		t.Fatal(err)
	}
	state := stateSheet{sheet: s, limit: 100, digest: NewDigest()}
	if err := state.append([]byte("q/small"), make([]byte, 100)); err != nil {
		t.Error(err)
	}
	if err := state.append([]byte("q/large"), make([]byte, 101)); err == nil || !strings.Contains(err.Error(), `"q/large"`) {
		t.Errorf("error %v", err)
	}
	if f, err := s.close(); err != nil || f.Rows != 1 {
		t.Errorf("file %+v, error %v", f, err)
	}
}

// TestBatchesAreBoundedInBytes: large values close a batch early, so memory does not follow the largest times 8,192.
func TestBatchesAreBoundedInBytes(t *testing.T) {
	src := &fakeSource{layout: Layout{Dim: 1, Partitions: 1}}
	for i := range 10 {
		src.pairs = append(src.pairs, pair{fmt.Appendf(nil, "q/%02d", i), make([]byte, 3<<20)})
	}
	m, path := mustCreate(t, t.TempDir(), src, Options{})
	var rows []int64
	err := readSheet(filepath.Join(path, stateFile), stateFile, stateFields, func(rec arrow.Record) error {
		rows = append(rows, rec.NumRows())
		return nil
	})
	if err != nil || !slices.Equal(rows, []int64{2, 2, 2, 2, 2}) || m.Keys != 10 {
		t.Errorf("batches of %v rows, error %v", rows, err)
	}
}
