package table

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// syncEvery is how long a commit may wait for the disk: what a power cut takes back, and what is left to sync when a log is rotated.
const syncEvery = 100 * time.Millisecond

// wal makes what a power cut leaves a prefix of what was committed. Badger maps its write-ahead logs into memory and leaves it to the
// system when their pages are written; db.Sync reaches the active log only, so that one rotated out and not yet flushed could be lost
// while newer rows survive. Here each log is synced when it is rotated, before the next one takes a row. Within a log Badger's replay
// ends at the first page that is missing.
type wal struct {
	dir    string
	sync   func(path string) error
	fail   func(error)
	active atomic.Int64 // number of the log that Badger writes; 0 before watch
	dirty  atomic.Bool  // commits since the last sync
	stop   chan struct{}
	done   sync.WaitGroup
}

const memExtension = ".mem"

func newWAL(dir string, sync func(string) error, fail func(error)) *wal {
	return &wal{dir: dir, sync: sync, fail: fail, stop: make(chan struct{})}
}

func (w *wal) path(number int64) string {
	return filepath.Join(w.dir, fmt.Sprintf("%05d%s", number, memExtension))
}

// rotationMessage is what Badger logs at debug level when it has taken a full memtable out of use. It does so on its one writing goroutine,
// under its lock, before it makes the next log: the only place where the full one can be synced in time. A test holds the text, and
// check sees a rotation that was not told.
const rotationMessage = "Flushing memtable, mt.size="

// rotated syncs the log that Badger has just taken out of use.
func (w *wal) rotated() {
	number := w.active.Load()
	if number == 0 {
		return // still opening: nothing was written
	}
	if err := errors.Join(w.sync(w.path(number)), w.sync(w.dir)); err != nil {
		w.fail(fmt.Errorf("syncing a full log of the state: %w", err))
	}
	w.active.Store(number + 1)
}

// watch begins to sync the log of a database that was just opened.
func (w *wal) watch() error {
	number, err := newestFile(w.dir, memExtension)
	if err != nil {
		return err
	}
	w.active.Store(number)
	w.done.Go(func() {
		tick := time.NewTicker(syncEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				w.tick()
			case <-w.stop:
				return
			}
		}
	})
	return nil
}

// syncLeft syncs what the last process left, before Badger opens it. If that was killed, its logs may not have reached the disk; Badger
// reads them, begins another one and flushes them to tables some time later, while rows in the new one are synced.
func (w *wal) syncLeft() error {
	files, err := os.ReadDir(w.dir)
	if err != nil {
		return fmt.Errorf("reading the state directory: %w", err)
	}
	for _, f := range files {
		if ext := filepath.Ext(f.Name()); ext != memExtension && ext != ".vlog" {
			continue
		}
		err := w.sync(filepath.Join(w.dir, f.Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // it may be another process's, which Badger refuses then
			return fmt.Errorf("syncing a log of the state: %w", err)
		}
	}
	if err := w.sync(w.dir); err != nil {
		return fmt.Errorf("syncing the state directory: %w", err)
	}
	return nil
}

func (w *wal) tick() {
	if !w.dirty.Swap(false) {
		return
	}
	number := w.active.Load()
	if err := w.sync(w.path(number)); err != nil && !errors.Is(err, fs.ErrNotExist) { // it was rotated, flushed and removed meanwhile
		w.fail(fmt.Errorf("syncing the log of the state: %w", err))
	}
	w.check()
}

// check refuses to go on when Badger rotates its log without saying so.
func (w *wal) check() {
	number := w.active.Load()
	if _, err := os.Stat(w.path(number + 1)); err == nil && w.active.Load() == number {
		// A rotation makes the next log after it was told: told by now, it was told in time.
		w.fail(fmt.Errorf("badger rotated its log to %s unseen: after a power cut the state would not be trustworthy", w.path(number+1)))
	}
}

// newestFile returns the highest number of a file with an extension, such as 3 for 00003.mem.
func newestFile(dir, extension string) (number int64, err error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return 0, fmt.Errorf("reading the state directory: %w", err)
	}
	for _, f := range files {
		if name, ok := strings.CutSuffix(f.Name(), extension); ok {
			if n, err := strconv.ParseInt(name, 10, 64); err == nil {
				number = max(number, n)
			}
		}
	}
	if number == 0 {
		return 0, fmt.Errorf("no %s file in %s", extension, dir)
	}
	return number, nil
}

// removeEmptyLogs removes logs of no bytes. Badger truncates a log before it removes it and makes one before it sizes it; a crash in between
// leaves a file that it would refuse to open. Badger's lock is held meanwhile, so that no other process is making one.
func removeEmptyLogs(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("opening the state directory: %w", err)
	}
	defer d.Close()
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil // in use: Badger says so
	}
	files, err := d.ReadDir(-1)
	if err != nil {
		return fmt.Errorf("reading the state directory: %w", err)
	}
	for _, f := range files {
		if ext := filepath.Ext(f.Name()); ext != memExtension && ext != ".vlog" {
			continue
		}
		info, err := f.Info()
		if err == nil && info.Size() == 0 {
			err = os.Remove(filepath.Join(dir, f.Name()))
		}
		if err != nil {
			return fmt.Errorf("removing an empty log: %w", err)
		}
	}
	return nil
}

// close ends the background syncs.
func (w *wal) close() {
	close(w.stop)
	w.done.Wait()
}

// syncPath syncs a file or directory by its path. Pages of a mapping of it are written too, whoever mapped it.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
