package snapshot

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow"

	"rebeca/schemas"
	"rebeca/table"
)

const (
	townPartitions = 4
	townDim        = 8
	feedbackTopic  = "feedback"
)

// town writes a deterministic log and folds it.
type town struct {
	t     testing.TB
	rng   *rand.Rand
	users int
	items int
	next  [townPartitions]int64
}

func newTown(t testing.TB, users, items int) *town {
	return &town{t: t, rng: rand.New(rand.NewPCG(11, 7)), users: users, items: items}
}

func townOptions(dir string) table.Options {
	return table.Options{Dir: dir, Partitions: townPartitions, Dim: townDim, Rules: table.DefaultRules()}
}

func openTown(t testing.TB, dir string) *table.Table {
	t.Helper()
	tb, err := table.Open(townOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tb.Close(); err != nil {
			t.Error(err)
		}
	})
	return tb
}

var townStart = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// catalogue lists the items.
func (w *town) catalogue(tables ...*table.Table) {
	w.t.Helper()
	var listed []table.Listed
	for i := range w.items {
		e := make([]float32, townDim)
		for d := range e {
			e[d] = float32(w.rng.NormFloat64())
		}
		listed = append(listed, table.Listed{Offset: int64(i), Time: townStart, Item: &schemas.Item{ItemID: fmt.Sprintf("item-%d", i), Embedding: e}})
	}
	for _, tb := range tables {
		if err := tb.List("items", 0, listed, int64(w.items)); err != nil {
			w.t.Fatal(err)
		}
	}
}

// batches makes the next n events of the log, by partition.
func (w *town) batches(n int) []table.Batch {
	parts := make([]table.Batch, townPartitions)
	kinds := []schemas.Kind{schemas.KindLike, schemas.KindDislike, schemas.KindClick, schemas.KindSkip, schemas.KindUndo}
	for range n {
		user := fmt.Sprintf("user-%05d", w.rng.IntN(w.users))
		p := schemas.Partition([]byte(user), townPartitions)
		offset := w.next[p]
		w.next[p]++
		at := townStart.Add(time.Duration(offset) * time.Second)
		parts[p].Records = append(parts[p].Records, table.Record{
			Offset: offset, Time: at, Key: []byte(user), Fingerprint: uint64(offset),
			Feedback: &schemas.Feedback{
				EventID: fmt.Sprintf("%d-%d", p, offset), UserID: user, ItemID: fmt.Sprintf("item-%d", w.rng.IntN(w.items)),
				Kind: kinds[w.rng.IntN(len(kinds))], OccurredAt: at,
			},
		})
	}
	out := parts[:0]
	for p, b := range parts {
		if len(b.Records) > 0 {
			b.Topic, b.Partition, b.Next, b.IntentCount = feedbackTopic, int32(p), w.next[p], 1
			out = append(out, b)
		}
	}
	return out
}

func (w *town) fold(n int, tables ...*table.Table) {
	w.t.Helper()
	for _, b := range w.batches(n) {
		for _, tb := range tables {
			if _, err := tb.Fold(b); err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

// answer completes every second intent, so that a state holds intents, outbox, memory and vectors.
func (w *town) answer(tb *table.Table) {
	w.t.Helper()
	for p := range int32(townPartitions) {
		intents, err := tb.Intents(p)
		if err != nil {
			w.t.Fatal(err)
		}
		for i, in := range intents {
			if i%2 == 1 {
				continue
			}
			row, _, err := tb.User(in.UserID)
			if err != nil {
				w.t.Fatal(err)
			}
			tb.Begin(p, []uint64{in.Seq})
			err = tb.Complete(p, []table.Completion{{
				Seq: in.Seq, UserID: in.UserID,
				Messages: []table.Message{{Role: table.RoleGenerated, Key: []byte(in.UserID), Value: []byte(`{"id":"` + in.ID + `"}`)}},
				Memories: []table.Memory{{ID: in.ID, Embedding: make([]float32, townDim), Record: []byte("{}"), Source: in.Source}},
				Vector:   &table.Vector{Values: []float32{1, 2, float32(i)}, PriorVersion: "3-abc", Events: row.Events, AsOf: row.LastOffset},
			}})
			if err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

func digestOf(t testing.TB, tb *table.Table) string {
	t.Helper()
	d, err := tb.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// keysOf is everything in a table but its writer epoch, which every opening raises.
func keysOf(t testing.TB, tb *table.Table) map[string]string {
	t.Helper()
	keys := map[string]string{}
	err := tb.Export(func(c table.Cut) error {
		return c.Each("", func(key, value []byte) error {
			keys[string(key)] = string(value)
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	delete(keys, "m/epoch")
	delete(keys, "m/meta") // a copy has a state id of its own
	return keys
}

func TestTableRestoresAndContinues(t *testing.T) {
	root := t.TempDir()
	original := openTown(t, filepath.Join(root, "original"))
	w := newTown(t, 300, 100)
	w.catalogue(original)
	w.fold(6000, original)
	w.answer(original)
	w.fold(50, original) // rows newer than their vectors

	checkpoint := func() (Checkpoint, bool, error) {
		path := filepath.Join(root, "3-abc.safetensors")
		return Checkpoint{Path: path, Version: "3-abc", Topic: feedbackTopic, Cursor: map[int32]int64{0: w.next[0]}}, true, os.WriteFile(path, []byte("weights"), 0o644)
	}
	m, path := mustCreate(t, filepath.Join(root, "snapshots"), OfTable(original, checkpoint), Options{})
	if _, err := Verify(context.Background(), path, Options{}); err != nil {
		t.Fatal(err)
	}
	if m.VectorDim != 3 || m.Users != int64(original.UserCount()) || m.Dim != townDim || m.Partitions != townPartitions {
		t.Errorf("manifest %+v", m)
	}
	for p := range int32(townPartitions) {
		if !slices.Contains(m.Offsets, Offset{feedbackTopic, p, w.next[p]}) {
			t.Errorf("offsets %v lack partition %d at %d", m.Offsets, p, w.next[p])
		}
	}
	compareTown(t, path, m, original)

	dir := filepath.Join(root, "restored", "table")
	if _, err := Restore(context.Background(), path, dir, filepath.Join(root, "restored", "prior"), IntoTable(townOptions("")), Options{}); err != nil {
		t.Fatal(err)
	}
	restored := openTown(t, dir)
	if a, b := digestOf(t, original), digestOf(t, restored); a != b {
		t.Errorf("facts of the restored table hash to %s, of the original to %s", b, a)
	}
	if a, b := keysOf(t, original), keysOf(t, restored); !reflect.DeepEqual(a, b) {
		t.Errorf("%d keys were restored of %d, or some differ", len(b), len(a))
	}
	// The tail of the log folds onto both alike.
	w.fold(2000, original, restored)
	if a, b := digestOf(t, original), digestOf(t, restored); a != b {
		t.Errorf("after the tail, facts of the restored table hash to %s, of the original to %s", b, a)
	}
}

// compareTown holds the readable table against the table itself.
func compareTown(t *testing.T, path string, m Manifest, tb *table.Table) {
	t.Helper()
	err := readSheet(filepath.Join(path, usersFile), usersFile, userFields(m.VectorDim), func(rec arrow.Record) error {
		for r := range int(rec.NumRows()) {
			got := readUser(rec, r)
			row, ok, err := tb.User(got.UserID)
			if err != nil || !ok {
				t.Fatalf("user %s: found %v, error %v", got.UserID, ok, err)
			}
			vector, has, err := tb.VectorOf(got.UserID)
			if err != nil {
				t.Fatal(err)
			}
			if !has {
				vector.Values = make([]float32, m.VectorDim)
			}
			want := User{
				Partition: row.Partition, UserID: row.UserID, Events: row.Events, Positives: row.Positives, Negatives: row.Negatives,
				Vector: vector.Values, PriorVersion: vector.PriorVersion,
			}
			for _, e := range row.Window {
				want.Window = append(want.Window, Entry{e.ItemID, e.Class.String(), string(e.Kind), e.OccurredAt, e.Offset, e.Older})
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("user %+v, want %+v", got, want)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestCutIsOneMoment: while the table is being folded, a snapshot still holds exactly what its offsets say.
func TestCutIsOneMoment(t *testing.T) {
	root := t.TempDir()
	live := openTown(t, filepath.Join(root, "live"))
	w := newTown(t, 100, 50)
	var log []table.Batch
	for range 60 {
		log = append(log, w.batches(100)...)
	}
	folded := make(chan error, 1)
	started := make(chan struct{})
	go func() {
		var failed error
		for i, b := range log {
			if _, err := live.Fold(b); err != nil {
				failed = err
				break
			}
			if i == 20 {
				close(started)
			}
		}
		folded <- failed
	}()
	select {
	case <-started:
	case err := <-folded:
		t.Fatal(err)
	}
	m, path := mustCreate(t, filepath.Join(root, "snapshots"), OfTable(live, nil), Options{})
	if err := <-folded; err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "restored")
	if _, err := Restore(context.Background(), path, dir, filepath.Join(root, "prior"), IntoTable(townOptions("")), Options{}); err != nil {
		t.Fatal(err)
	}
	replayed := openTown(t, filepath.Join(root, "replayed"))
	for _, b := range log {
		if slices.ContainsFunc(m.Offsets, func(o Offset) bool { return o.Partition == b.Partition && o.Next >= b.Next }) {
			if _, err := replayed.Fold(b); err != nil {
				t.Fatal(err)
			}
		}
	}
	if a, b := digestOf(t, replayed), digestOf(t, openTown(t, dir)); a != b {
		t.Errorf("the snapshot's facts hash to %s, the log up to its offsets to %s", b, a)
	}
}

func TestEmptyTable(t *testing.T) {
	root := t.TempDir()
	tb := openTown(t, filepath.Join(root, "original"))
	m, path := mustCreate(t, filepath.Join(root, "snapshots"), OfTable(tb, nil), Options{})
	if m.Users != 0 || m.VectorDim != 0 || m.Prior != nil || len(m.Offsets) != 0 {
		t.Errorf("manifest %+v", m)
	}
	if _, err := Verify(context.Background(), path, Options{}); err != nil {
		t.Error(err)
	}
	if _, err := Restore(context.Background(), path, filepath.Join(root, "s"), filepath.Join(root, "p"), IntoTable(townOptions("")), Options{}); err != nil {
		t.Error(err)
	}
	openTown(t, filepath.Join(root, "s"))
}

// TestFailedRestoreDoesNotOpen: what a broken restore leaves is not a state.
func TestFailedRestoreDoesNotOpen(t *testing.T) {
	root := t.TempDir()
	original := openTown(t, filepath.Join(root, "original"))
	w := newTown(t, 50, 20)
	w.fold(500, original)
	_, path := mustCreate(t, filepath.Join(root, "snapshots"), OfTable(original, nil), Options{})
	ctx, cancel := context.WithCancel(context.Background())
	n := 0
	load := func(ctx context.Context, dir string, m Manifest, next func() ([]byte, []byte, error)) error {
		return IntoTable(townOptions(""))(ctx, dir, m, func() ([]byte, []byte, error) {
			if n++; n == 50 {
				cancel()
				return nil, nil, ctx.Err()
			}
			return next()
		})
	}
	dir := filepath.Join(root, "s")
	if _, err := Restore(ctx, path, dir, filepath.Join(root, "p"), load, Options{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	if ok, err := empty(dir); err != nil || !ok {
		t.Errorf("the state directory is not empty (error %v)", err)
	}
	if _, err := Restore(context.Background(), path, dir, filepath.Join(root, "p"), IntoTable(table.Options{Partitions: 5, Dim: townDim, Rules: table.DefaultRules()}), Options{}); !errors.Is(err, table.ErrPartitions) {
		t.Errorf("another number of partitions: error %v", err)
	}
}
