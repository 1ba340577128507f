package snapshot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const tempPrefix = ".tmp-"

// ErrBusy is returned by Create while another Create writes into the same directory.
var ErrBusy = errors.New("another snapshot is being written here")

// disk is the part of the file system that Create changes; tests put one that crashes under it.
type disk interface {
	Mkdir(path string) error
	Create(path string) (file, error)
	Rename(from, to string) error
	SyncDir(path string) error
	RemoveAll(path string) error
}

type file interface {
	io.WriteSeeker
	Sync() error
	Close() error
}

type osDisk struct{}

func (osDisk) Mkdir(path string) error { return os.Mkdir(path, 0o755) }

func (osDisk) Create(path string) (file, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
}

func (osDisk) Rename(from, to string) error { return os.Rename(from, to) }

func (osDisk) RemoveAll(path string) error { return os.RemoveAll(path) }

func (osDisk) SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lock makes the caller the only writer below dir until unlock is called, also across processes. The lock dies with
// its process.
func lock(dir string) (unlock func() error, err error) {
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", dir, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("locking %s: %w", dir, ErrBusy)
		}
		return nil, fmt.Errorf("locking %s: %w", dir, err)
	}
	return f.Close, nil
}

// sweep removes what a crash left behind. The caller holds the lock, so nobody is writing there.
func sweep(d disk, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("reading %s: %w", dir, err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			if err := d.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("removing an unfinished snapshot: %w", err)
			}
		}
	}
	return nil
}

// empty tells whether dir holds nothing or does not exist.
func empty(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading %s: %w", dir, err)
	}
	return len(entries) == 0, nil
}
