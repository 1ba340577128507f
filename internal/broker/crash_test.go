package broker

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// transact writes a record in a transaction and ends it, or leaves it open.
func transact(t *testing.T, c *kgo.Client, value string, end bool) {
	t.Helper()
	if err := c.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := c.ProduceSync(within(t), &kgo.Record{Topic: "generated", Value: []byte(value)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if !end {
		return
	}
	if err := c.EndTransaction(within(t), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
}

// killed returns a copy of a running broker's data: what a killed one would have left.
func killed(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	files := os.DirFS(dir)
	err := fs.WalkDir(files, ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			return os.MkdirAll(filepath.Join(to, path), 0o755)
		}
		b, err := fs.ReadFile(files, path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, path), b, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// committed returns what a reader at read_committed sees.
func committed(t *testing.T, b *Broker, want int) (got []string) {
	t.Helper()
	c := client(t, b, kgo.ConsumeTopics("generated"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(100*time.Millisecond))
	ctx, cancel := context.WithTimeout(within(t), 2*time.Second)
	defer cancel()
	for len(got) <= want { // one more than there must be: until the time is over
		f := c.PollFetches(ctx)
		if ctx.Err() != nil {
			break
		}
		f.EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
	}
	slices.Sort(got)
	return got
}

// TestKilledTransactionsStayAborted kills a broker twice. What was open at the first kill must not be committed by what the same producer
// commits later, however often the log is read again, and must not hide it either.
func TestKilledTransactionsStayAborted(t *testing.T) {
	dir := t.TempDir()
	b := start(t, Options{DataDir: dir})
	id := kgo.TransactionalID("relay")
	c := client(t, b, id)
	createTopic(t, c, "generated")
	transact(t, c, "before", true)
	transact(t, c, "open", false)

	dir = killed(t, dir)
	b = start(t, Options{DataDir: dir})
	transact(t, client(t, b, id), "after", true)
	want := []string{"after", "before"}
	if got := committed(t, b, 2); !slices.Equal(got, want) {
		t.Errorf("after the first kill: %q, want %q", got, want)
	}
	for n := range 2 {
		dir = killed(t, dir)
		b = start(t, Options{DataDir: dir})
		if got := committed(t, b, 2); !slices.Equal(got, want) {
			t.Errorf("after kill %d: %q, want %q", n+2, got, want)
		}
	}
}

// TestOrderlyCloseKeepsTransactions: one that is open when the broker is closed in order goes on.
func TestOrderlyCloseKeepsTransactions(t *testing.T) {
	dir := t.TempDir()
	b := start(t, Options{DataDir: dir})
	addr := b.Addr()
	c := client(t, b, kgo.TransactionalID("relay"))
	createTopic(t, c, "generated")
	transact(t, c, "first half", false)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = start(t, Options{DataDir: dir, Listen: addr})
	if err := c.ProduceSync(within(t), &kgo.Record{Topic: "generated", Value: []byte("second half")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := c.EndTransaction(within(t), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	if got := committed(t, b, 2); len(got) != 2 {
		t.Errorf("committed are %q", got)
	}
}

// TestScanSegmentTakesAnyBytes: what a kill left at a segment's end is no batch.
func TestScanSegmentTakesAnyBytes(t *testing.T) {
	for i, b := range [][]byte{nil, make([]byte, 10), make([]byte, 61), make([]byte, 200), []byte(fmt.Sprintf("%0200d", 7))} {
		path := filepath.Join(t.TempDir(), "0.dat")
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := scanSegment(path, map[int64]int16{}); err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
}
