package snapshot

import (
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

const bulkValue = 64 << 10

// A reader is never more than its chunks ahead of a loader that takes nothing, and ends when the loader does.
func TestReaderWaitsForTheLoader(t *testing.T) {
	p := &puller{ctx: t.Context(), full: make(chan *chunk, pullAhead), empty: make(chan *chunk, pullAhead+2), end: make(chan struct{})}
	var read atomic.Int64
	done := make(chan error)
	go func() {
		done <- p.push(func(fn func(key, value []byte) error) error {
			for {
				read.Add(bulkValue)
				if err := fn(nil, make([]byte, bulkValue)); err != nil {
					return err
				}
			}
		})
	}()
	const bound = (pullAhead + 1) * pullChunk
	for end := time.Now().Add(20 * time.Second); read.Load() < bound; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d bytes are read", read.Load())
		}
	}
	for range 1000 {
		runtime.Gosched()
	}
	close(p.end)
	if err := <-done; !errors.Is(err, errStopped) {
		t.Errorf("error %v", err)
	}
	if n := read.Load(); n > bound+bulkValue {
		t.Errorf("%d bytes are read, nobody took one", n)
	}
}
