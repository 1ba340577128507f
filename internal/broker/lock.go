package broker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// lockName is the file of a data directory that the broker using it holds locked. The system gives the lock back however a
// process ends; the file stays.
const lockName = "LOCK"

// lock makes the directory if needed and takes it for this broker alone: two brokers would each write the same segments, and the
// log would hold what neither acknowledged.
func lock(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close() // nothing was written
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s is in use by another broker: stop it, or choose another directory", dir)
		}
		return nil, fmt.Errorf("locking %s: %w", dir, err)
	}
	return f, nil
}

func (b *Broker) unlock() {
	if b.lock != nil {
		_ = b.lock.Close() // the second of two calls finds it closed
	}
}
