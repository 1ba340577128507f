package table

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	badger "github.com/dgraph-io/badger/v4"

	"rebeca/schemas"
)

// held counts the versions of keys that hold the text, in key or value, and the files of the state whose bytes do.
func held(t *testing.T, table *Table, text string) (versions int, files []string) {
	t.Helper()
	err := table.db.View(func(txn *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.AllVersions = true
		it := txn.NewIterator(o)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			found := bytes.Contains(it.Item().Key(), []byte(text))
			if !it.Item().IsDeletedOrExpired() {
				if err := it.Item().Value(func(v []byte) error {
					found = found || bytes.Contains(v, []byte(text))
					return nil
				}); err != nil {
					return err
				}
			}
			if found {
				versions++
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return versions, filesWith(t, table.options.Dir, text)
}

func filesWith(t *testing.T, dir, text string) (files []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, []byte(text)) {
			files = append(files, e.Name())
		}
	}
	return files
}

const planted = "planted-4be1"

func eraseOptions(dir string) Options {
	o := options(dir)
	o.tuning.memTable = 8 << 20
	return o
}

// plant gives a user everything that the state can hold of one, among others, in tables old and new and in the logs.
func plant(t *testing.T, table *Table, size int) *Table {
	t.Helper()
	next, asked := nextOf(t, table, topic), nextOf(t, table, "requests")
	for round := range 4 {
		var records []Record
		for i := range 300 {
			user := fmt.Sprint("user-", i%50)
			if i%10 == 0 {
				user = planted
			}
			records = append(records, event(next, user, fmt.Sprint("item-", i), "like"))
			next++
		}
		f := fold(t, table, records...)
		requested, err := table.Accept("requests", 0, []Asked{{Offset: asked, Time: timeAt(next), Key: []byte(planted), Request: &schemas.Request{
			RequestID: fmt.Sprint(planted, "-request-", round), UserID: planted, Count: 1,
		}}}, asked+1)
		if err != nil {
			t.Fatal(err)
		}
		asked++
		for _, in := range append(f.Intents, requested...) {
			if in.UserID != planted {
				continue
			}
			m := image(planted, in.ID)
			m.Value = []byte(fmt.Sprintf(`{"user_id":%q,"image":"%s"}`, planted, strings.Repeat("x", size)))
			v := &Vector{Values: make([]float32, dim), PriorVersion: planted + "-version", Events: 1, AsOf: next}
			if err := table.Complete(0, []Completion{{
				Seq: in.Seq, UserID: planted, Messages: []Message{m}, Memories: []Memory{{ID: in.ID, Record: m.Value, Embedding: make([]float32, dim)}}, Vector: v,
			}}); err != nil {
				t.Fatal(err)
			}
		}
		if round == 1 {
			sendAll(t, table)
		}
		if round < 2 {
			table = reopen(t, table) // from the log to a table
		}
	}
	fold(t, table, forget(next, planted))
	return table
}

func nextOf(t *testing.T, table *Table, topic string) int64 {
	t.Helper()
	next, _, _, err := table.Offset(topic, 0)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// sendAll acknowledges the whole outbox.
func sendAll(t *testing.T, table *Table) {
	t.Helper()
	out, err := table.Outbox(0, 0, 1<<20)
	if err == nil {
		err = table.Trim(0, out, Position{})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func erase(t *testing.T, table *Table) Erased {
	t.Helper()
	e, err := table.Erase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// After a forget the files still hold the user: this is found both by iterating every version and in the raw bytes. After Erase neither
// finds anything, in an open state and in a closed one, and nobody else has lost anything.
func TestEraseLeavesNothing(t *testing.T) {
	for _, c := range []struct {
		name string
		size int // of an image
	}{{"in the tables", 3000}, {"in the value log too", valueThreshold + 1000}} {
		t.Run(c.name, func(t *testing.T) {
			table := plant(t, open(t, eraseOptions(t.TempDir())), c.size)
			sendAll(t, table)
			before := digest(t, table)
			versions, files := held(t, table, planted)
			t.Logf("held after the forget: %d versions, in %v", versions, files)
			kinds := strings.Join(files, " ")
			if versions < 20 || !strings.Contains(kinds, ".sst") || !strings.Contains(kinds, ".mem") || (c.size > valueThreshold) != strings.Contains(kinds, ".vlog") {
				t.Error("the test does not find what was planted")
			}
			if n := table.ErasePending(); n != 1 {
				t.Errorf("%d pending", n)
			}
			if e := erase(t, table); e != (Erased{Users: 1}) {
				t.Errorf("erased %+v", e)
			}
			if versions, files := held(t, table, planted); versions > 0 || len(files) > 0 {
				t.Errorf("still held: %d versions, in %v", versions, files)
			}
			if digest(t, table) != before {
				t.Error("the facts have changed")
			}
			if versions, _ := held(t, table, "user-7"); versions == 0 {
				t.Error("another user is gone")
			}
			if err := table.Close(); err != nil {
				t.Fatal(err)
			}
			if files := filesWith(t, table.options.Dir, planted); len(files) > 0 {
				t.Errorf("a closed state still holds it in %v", files)
			}
			if table = open(t, table.options); table.ErasePending() != 0 || digest(t, table) != before {
				t.Errorf("opened again: %d pending", table.ErasePending())
			}
		})
	}
}

// What cannot be erased yet stays noted, over restarts too: an unsent message, bytes that a reader holds on to, a run that was stopped.
func TestEraseIsTakenUpAgain(t *testing.T) {
	table := plant(t, open(t, eraseOptions(t.TempDir())), 3000)
	if e := erase(t, table); e != (Erased{Pending: 1}) {
		t.Errorf("with the null for vectors unsent: %+v", e)
	}
	sendAll(t, table)
	if err := table.Export(func(Cut) error {
		if e := erase(t, table); e != (Erased{Pending: 1}) {
			t.Errorf("under a reader: %+v", e)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if e, err := table.Erase(stopped); !errors.Is(err, context.Canceled) || e.Pending != 1 {
		t.Errorf("stopped: %+v, %v", e, err)
	}
	table = reopen(t, table)
	if n := table.ErasePending(); n != 1 {
		t.Errorf("%d pending after a restart", n)
	}
	if e := erase(t, table); e != (Erased{Users: 1}) {
		t.Errorf("erased %+v", e)
	}
	if versions, files := held(t, table, planted); versions > 0 || len(files) > 0 {
		t.Errorf("still held: %d versions, in %v", versions, files)
	}
	table = plant(t, table, 3000) // once more, above tables that lie deep already
	sendAll(t, table)
	if e := erase(t, table); e != (Erased{Users: 1}) {
		t.Errorf("erased %+v", e)
	}
	if versions, files := held(t, table, planted); versions > 0 || len(files) > 0 {
		t.Errorf("still held the second time: %d versions, in %v", versions, files)
	}
}

// A user who comes back after a forget keeps the new life; the old one's bytes go.
func TestEraseKeepsANewLife(t *testing.T) {
	table := plant(t, open(t, eraseOptions(t.TempDir())), 3000)
	next := nextOf(t, table, topic)
	again := event(next, planted, "item-new", "like")
	again.Feedback.OccurredAt = again.Time
	fold(t, table, again)
	sendAll(t, table)
	if e := erase(t, table); e != (Erased{Users: 1}) {
		t.Errorf("erased %+v", e)
	}
	if versions, files := held(t, table, planted+"-version"); versions > 0 || len(files) > 0 {
		t.Errorf("the old vector is still held: %d versions, in %v", versions, files)
	}
	if r := row1(t, table, planted); r.Events != 1 || r.Window[0].ItemID != "item-new" {
		t.Errorf("row %+v", r)
	}
	if n, _ := table.Depths(); n == 0 {
		t.Error("the new life's intent is gone")
	}
}

// Writers and readers go on while users are erased.
func TestEraseBesideTheFold(t *testing.T) {
	table := plant(t, open(t, eraseOptions(t.TempDir())), 3000)
	sendAll(t, table)
	next := nextOf(t, table, topic)
	done := make(chan Erased, 1)
	go func() {
		e, err := table.Erase(context.Background())
		if err != nil {
			t.Error(err)
		}
		done <- e
	}()
	for running := true; running; {
		select {
		case e := <-done:
			running = false
			if e != (Erased{Users: 1}) {
				t.Errorf("erased %+v", e)
			}
		default:
			var records []Record
			for i := range 100 {
				records = append(records, event(next, fmt.Sprint("user-", i%50), "item-1", "like"))
				next++
			}
			fold(t, table, records...)
		}
	}
	oracle := open(t, options(t.TempDir()))
	var log []Record
	for offset := range int64(1200) {
		user := fmt.Sprint("user-", offset%300%50)
		if offset%10 == 0 {
			user = planted
		}
		log = append(log, event(offset, user, fmt.Sprint("item-", offset%300), "like"))
	}
	log = append(log, forget(1200, planted))
	for offset := int64(1201); offset < next; offset++ {
		log = append(log, event(offset, fmt.Sprint("user-", (offset-1201)%100%50), "item-1", "like"))
	}
	fold(t, oracle, log...)
	if digest(t, table) != digest(t, oracle) {
		t.Error("the facts differ from those of a table that erased nothing")
	}
}
