package table

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const page = 4096

// disk plays the disk below a state: it knows of each log what was synced of it, and makes the directory that a power cut could leave.
type disk struct {
	t    *testing.T
	dir  string
	idle bool              // syncs nothing
	mu   sync.Mutex        // guards what follows
	old  map[string][]byte // logs as they were last synced, by name
	deaf map[string]bool   // logs of which a sync does nothing

	before map[string][]byte // the files at the last rotation
}

func (d *disk) sync(path string) error {
	if path == d.dir { // a log was rotated: Badger holds its flush back meanwhile
		d.before = d.take(d.t)
	}
	if d.idle {
		return nil
	}
	if err := syncPath(path); err != nil || filepath.Ext(path) != memExtension {
		return err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if name := filepath.Base(path); !d.deaf[name] {
		d.old[name] = used(b)
	}
	return nil
}

// take reads the files of the state. Badger may flush and compact meanwhile: logs come first and the manifest last, so that whatever
// goes in between is in what came after it.
func (d *disk) take(t *testing.T) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	read := func(pattern string) {
		for _, path := range glob(t, d.dir, pattern) {
			b, err := os.ReadFile(path)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			if b, name := used(b), filepath.Base(path); len(b) > len(files[name]) { // Badger empties a file before it removes it
				files[name] = b
			}
		}
	}
	for _, pattern := range []string{"*" + memExtension, "*.sst", "MANIFEST", "*.sst", "KEYREGISTRY"} {
		read(pattern)
	}
	return files
}

// used is a file without the zeros at its end: logs are made long.
func used(b []byte) []byte { return bytes.TrimRight(b, "\x00") }

// cut writes the state as a power cut may leave it: each page of a log that was written since its last sync is there or not, a log that
// was never synced may be missing whole, and what Badger syncs itself (tables, manifest) is there.
func (d *disk) cut(t *testing.T, files map[string][]byte, rng *rand.Rand) string {
	t.Helper()
	to := t.TempDir()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		b := files[name]
		if filepath.Ext(name) == memExtension {
			d.mu.Lock()
			synced, ever := d.old[name]
			d.mu.Unlock()
			if !ever && rng.IntN(3) == 0 {
				continue
			}
			b = tear(b, synced, rng, []float64{0, .5, .99, 1}[rng.IntN(4)])
		}
		write(t, filepath.Join(to, name), b)
	}
	return to
}

// tear keeps each page of a log that is newer than its last sync with a chance.
func tear(now, synced []byte, rng *rand.Rand, keep float64) []byte {
	out := make([]byte, max(len(now), page))
	copy(out, synced)
	for at := 0; at < len(now); at += page {
		end := min(at+page, len(now))
		if rng.Float64() < keep {
			copy(out[at:end], now[at:end])
		}
	}
	return out
}

func glob(t *testing.T, dir, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// powerLog fills the rows of some users, so that a small log is rotated a few times.
func powerLog(n int64) []Record {
	rng := rand.New(rand.NewPCG(3, 3))
	log := make([]Record, n)
	for i := range log {
		log[i] = randomEvent(rng, int64(i), fmt.Sprint("user-", rng.IntN(100)))
	}
	return log
}

// batches cuts a log at random, the same way each time.
func batches(log []Record) (out [][]Record) {
	rng := rand.New(rand.NewPCG(5, 5))
	for len(log) > 0 {
		n := min(1+rng.IntN(50), len(log)) // one transaction each, by the size of full rows
		out, log = append(out, log[:n]), log[n:]
	}
	return out
}

// digests are the facts after each batch, by the next offset, of a table that never stopped.
func digests(t *testing.T, log []Record) map[int64]string {
	table := open(t, options(t.TempDir()))
	out := map[int64]string{0: digest(t, table)}
	for _, b := range batches(log) {
		out[fold(t, table, b...).Next] = digest(t, table)
	}
	return out
}

// cuts folds the log and lets the power fail after every rotation, some ways each, and at random. It returns how many of the states left
// behind are not a prefix of the log.
func cuts(t *testing.T, log []Record, want map[int64]string, idle bool) (wrong, rotations int) {
	d := &disk{t: t, dir: t.TempDir(), idle: idle, old: map[string][]byte{}}
	o := options(d.dir)
	o.tuning = tuning{memTable: 1 << 20, sync: d.sync}
	table := open(t, o)
	rng := rand.New(rand.NewPCG(7, 7))
	at := table.wal.active.Load()
	for _, b := range batches(log) {
		fold(t, table, b...)
		now, ways := table.wal.active.Load(), 3
		if idle {
			ways = 10 // until the fault is found
		}
		rotations += int(now - at)
		if now == at {
			if ways = 1; rng.IntN(80) > 0 {
				continue
			}
		}
		files := d.take(t)
		if now != at { // the full log is not flushed yet, and the new one has a row
			name := filepath.Base(table.wal.path(now))
			rest := d.before
			rest[name], files = files[name], rest
		}
		at = now
		for range ways {
			if !survives(t, d.cut(t, files, rng), log, want, !idle && rng.IntN(3) == 0) {
				if wrong++; idle {
					return wrong, rotations // the fault is found
				}
			}
		}
	}
	return wrong, rotations
}

// survives opens what a power cut left: its facts must be those of the log up to the offset it holds and, when it is
// asked to go on, those of the whole log once the rest is folded.
func survives(t *testing.T, dir string, log []Record, want map[int64]string, goOn bool) bool {
	t.Helper()
	o := options(dir)
	o.tuning.memTable = 2 << 20
	table, err := Open(o)
	if err != nil {
		t.Logf("after the power cut: %v", err)
		return false
	}
	defer table.Close()
	next, _, _, err := table.Offset(topic, 0)
	if err != nil {
		t.Fatal(err)
	}
	if digest(t, table) != want[next] {
		return false
	}
	if !goOn {
		return true
	}
	fold(t, table, log[next:]...)
	return digest(t, table) == want[int64(len(log))]
}

// Wherever the power fails, whichever unsynced pages and whole logs it takes, the state is a prefix of the log. The test proves first that it
// finds the fault: the same cuts on a table that syncs nothing leave states that are no prefix.
func TestPowerCutLeavesAPrefix(t *testing.T) {
	log := powerLog(8000)
	want := digests(t, log)
	seen, n := cuts(t, log, want, true)
	if t.Logf("nothing synced: %d wrong states after %d rotations", seen, n); seen == 0 {
		t.Error("nothing is synced, and no cut left a wrong state: the test sees nothing")
	}
	if wrong, rotations := cuts(t, log, want, false); wrong > 0 || rotations < 2 {
		t.Errorf("%d wrong states after %d rotations", wrong, rotations)
	}
}

// Badger tells of every rotation by its debug message, before it makes the next log: this fails when a new version words it otherwise.
func TestRotationIsTold(t *testing.T) {
	o := options(t.TempDir())
	var table *Table
	o.tuning = tuning{memTable: 1 << 20, sync: func(path string) error {
		if path == o.Dir && table != nil { // rotated has synced the log
			if newest, err := newestFile(o.Dir, memExtension); err != nil || newest != table.wal.active.Load() {
				t.Errorf("log %d is synced when there is %d (%v)", table.wal.active.Load(), newest, err)
			}
		}
		return syncPath(path)
	}}
	table = open(t, o)
	first := table.wal.active.Load()
	for at, log := 0, powerLog(8000); at < len(log); at += 1000 {
		fold(t, table, log[at:at+1000]...)
	}
	newest, err := newestFile(o.Dir, memExtension)
	if err != nil {
		t.Fatal(err)
	}
	if told := table.wal.active.Load(); told != newest || told < first+2 {
		t.Errorf("the log is %d, told of %d, first %d", newest, told, first)
	}
}

// A crash while Badger makes or removes a log leaves a file without a byte; it does not keep the state from opening.
func TestEmptyLogsAreRemoved(t *testing.T) {
	table := open(t, options(t.TempDir()))
	fold(t, table, event(0, "a", "x", "like"))
	dir := table.options.Dir
	if err := table.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"00001.mem", "00077.mem", "000077.vlog"} {
		write(t, filepath.Join(dir, name), nil)
	}
	if r := row1(t, open(t, options(dir)), "a"); r.Events != 1 {
		t.Errorf("row %+v", r)
	}
}

// A rotation that was not told, and a log that cannot be synced, end the writing.
func TestUnsyncedLogEndsWriting(t *testing.T) {
	table := open(t, options(t.TempDir()))
	fold(t, table, event(0, "a", "x", "like"))
	write(t, table.wal.path(table.wal.active.Load()+1), nil)
	eventually(t, func() bool {
		table.wal.dirty.Store(true)
		_, err := table.Fold(batch(event(1, "a", "y", "like")))
		return err != nil && strings.Contains(err.Error(), "unseen")
	})
	os.Remove(table.wal.path(table.wal.active.Load() + 1))

	o := options(t.TempDir())
	broken := errors.New("input/output error")
	var breaks atomic.Bool
	o.tuning.sync = func(path string) error {
		if breaks.Load() {
			return broken
		}
		return nil
	}
	table = open(t, o)
	breaks.Store(true)
	fold(t, table, event(0, "a", "x", "like"))
	eventually(t, func() bool {
		table.wal.dirty.Store(true)
		_, err := table.Fold(batch(event(1, "a", "y", "like")))
		return errors.Is(err, broken)
	})
}

func eventually(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it never happens")
		}
	}
}

// killed is what a kill leaves: all that was written is in the files, for the system has their pages, but what was not synced is on no disk
// yet. The state is opened from there, takes a batch, and the power fails while the log before is still being flushed.
func killed(t *testing.T, d *disk, log []Record, want map[int64]string, deaf bool) (wrong int) {
	t.Helper()
	left := d.take(t)
	next := &disk{t: t, dir: t.TempDir(), old: maps.Clone(d.old), deaf: map[string]bool{}}
	for name, b := range left {
		write(t, filepath.Join(next.dir, name), b)
		next.deaf[name] = deaf
	}
	o := options(next.dir)
	o.tuning = tuning{memTable: 2 << 20, sync: next.sync}
	table := open(t, o)
	at, _, _, err := table.Offset(topic, 0)
	if err != nil {
		t.Fatal(err)
	}
	fold(t, table, log[at:at+20]...)
	active := filepath.Base(table.wal.path(table.wal.active.Load()))
	table.wal.tick()
	now := next.take(t)
	left[active] = now[active] // beside the logs before, as if they were not flushed yet
	rng := rand.New(rand.NewPCG(9, uint64(at)))
	for range 8 {
		if !survives(t, next.cut(t, left, rng), log, want, false) {
			wrong++
		}
	}
	if err := table.Close(); err != nil {
		t.Fatal(err)
	}
	return wrong
}

// A state that is opened after a kill has synced what the killed process left before it writes: a power cut soon after leaves a prefix. The
// test proves first that it finds the fault.
func TestPowerCutAfterAKillLeavesAPrefix(t *testing.T) {
	log := powerLog(600)
	want := map[int64]string{0: digest(t, open(t, options(t.TempDir())))}
	twin := open(t, options(t.TempDir()))
	d := &disk{t: t, dir: t.TempDir(), idle: true, old: map[string][]byte{}}
	o := options(d.dir)
	o.tuning = tuning{memTable: 2 << 20, sync: d.sync}
	table, seen, wrong := open(t, o), 0, 0
	for at := 0; at < 500; at += 20 {
		want[fold(t, twin, log[at:at+20]...).Next] = digest(t, twin)
	}
	for at := 0; at < 400; at += 20 {
		fold(t, table, log[at:at+20]...)
		if at%100 == 80 {
			seen += killed(t, d, log, want, true)
			wrong += killed(t, d, log, want, false)
		}
	}
	if seen == 0 || wrong > 0 {
		t.Errorf("%d wrong states where the logs left are not synced, %d where they are", seen, wrong)
	}
}

// check and a rotation that is told beside it.
func TestCheckBesideARotation(t *testing.T) {
	dir := t.TempDir()
	var failed error
	w := newWAL(dir, func(string) error { return nil }, func(err error) { failed = err })
	w.active.Store(1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 5000 {
			w.rotated()
			if err := os.WriteFile(w.path(w.active.Load()), nil, 0o644); err != nil {
				t.Error(err)
			}
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
			w.check()
		}
	}
	if failed != nil {
		t.Error(failed)
	}
}
