package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"rebeca/table"
)

const bulkValue = 64 << 10

// bulk is a state of many large values that are made as they are read.
type bulk struct {
	fakeSource
	meta   []byte
	values int
}

func (b *bulk) Export(fn func(Cut) error) error { return fn(b) }

func (b *bulk) Each(fn func(key, value []byte) error) error {
	if err := fn([]byte("m/meta"), b.meta); err != nil {
		return err
	}
	rng, value := rand.NewChaCha8([32]byte{1}), make([]byte, bulkValue)
	for i := range b.values {
		rng.Read(value)
		if err := fn(fmt.Appendf(nil, "w/%08d", i), value); err != nil {
			return err
		}
	}
	return nil
}

// metaOf is what a state of a town says that it is.
func metaOf(t *testing.T) (meta []byte) {
	t.Helper()
	if err := openTown(t, filepath.Join(t.TempDir(), "town")).Export(func(c table.Cut) error {
		return c.Each("m/meta", func(_, value []byte) error {
			meta = bytes.Clone(value)
			return nil
		})
	}); err != nil {
		t.Fatal(err)
	}
	return meta
}

// What a restore holds in memory does not grow with the state: while 640 MiB are restored, what is alive stays below what Badger keeps to build tables in.
func TestRestoreMemoryIsBounded(t *testing.T) {
	src := &bulk{values: 10240, meta: metaOf(t)}
	src.layout = Layout{Dim: townDim, Partitions: townPartitions}
	m, path := mustCreate(t, t.TempDir(), src, Options{Compression: None})
	if m.Size() < 640<<20 {
		t.Fatalf("the snapshot has %d bytes", m.Size())
	}
	alive := func() int64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return int64(s.HeapAlloc)
	}
	into := IntoTable(townOptions(""))
	var first, most int64
	load := func(ctx context.Context, dir string, m Manifest, next func() (key, value []byte, err error)) error {
		n := 0
		return into(ctx, dir, m, func() (key, value []byte, err error) {
			if n%640 == 0 {
				now := alive()
				if n == 0 {
					first = now
				}
				most = max(most, now)
			}
			n++
			return next()
		})
	}
	to := t.TempDir()
	if _, err := Restore(t.Context(), path, filepath.Join(to, "s"), filepath.Join(to, "p"), load, Options{}); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d MiB alive at the start, %d MiB at most", first>>20, most>>20)
	if most-first > 560<<20 {
		t.Errorf("%d MiB more are alive than at the start", (most-first)>>20)
	}
	restored, err := table.Open(townOptions(filepath.Join(to, "s")))
	if err != nil {
		t.Fatal(err)
	}
	defer restored.Close()
	if got := len(keysOf(t, restored)); got < src.values {
		t.Errorf("%d keys are there", got)
	}
}

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
