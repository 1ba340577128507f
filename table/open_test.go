package table

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	badger "github.com/dgraph-io/badger/v4"

	"rebeca/prior"
)

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	if err := open(t, options(dir)).Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(*Options)
		err    error
		text   string
	}{
		{"partitions", func(o *Options) { o.Partitions = 8 }, ErrPartitions, "1, the configuration says 8"},
		{"dim", func(o *Options) { o.Dim = 1024 }, ErrDim, "4, the configuration says 1024"},
		{"newest", func(o *Options) { o.Rules.Newest = 50 }, ErrRules, "newest 28, the configuration says 50"},
		{"liked", func(o *Options) { o.Rules.Liked = 0 }, ErrRules, "replay the log into a new state directory"},
		{"dedupe", func(o *Options) { o.Rules.Dedupe = 65 }, ErrRules, "dedupe 64, the configuration says 65"},
		{"classes", func(o *Options) { o.Rules.Classes = PaperClasses() }, ErrRules, "other classes"},
		{"classes", func(o *Options) { o.Rules.Classes.Click = prior.StrongPositive }, ErrRules, "other classes"},
	} {
		o := options(dir)
		c.change(&o)
		_, err := Open(o)
		if !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), dir) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %v", c.name, err)
		}
	}
	open(t, options(dir)) // none of it did harm
}

func TestOpenRefusesBadOptions(t *testing.T) {
	for _, c := range []struct {
		change func(*Options)
		want   string
	}{
		{func(o *Options) { o.Dir = "" }, "dir:"},
		{func(o *Options) { o.Partitions = 0 }, "partitions:"},
		{func(o *Options) { o.Dim = -1 }, "dim:"},
		{func(o *Options) { o.CacheBytes = -1 }, "cache_bytes:"},
		{func(o *Options) { o.Rules.Newest = 0 }, "rules: newest:"},
	} {
		o := options(filepath.Join(t.TempDir(), "state"))
		c.change(&o)
		if _, err := Open(o); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("error %v, want %s", err, c.want)
		}
		if _, err := os.Stat(o.Dir); err == nil {
			t.Error("a directory was made")
		}
	}
}

func TestOpenLocked(t *testing.T) {
	dir := t.TempDir()
	open(t, options(dir))
	_, err := Open(options(dir))
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), dir) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %v", err)
	}
}

// edit changes a closed state behind the table's back.
func edit(t *testing.T, dir string, key, value []byte) {
	t.Helper()
	db, err := openBadger(options(dir).withDefaults(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(func(txn *badger.Txn) error { return txn.Set(key, value) }), db.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestOpenOtherVersion(t *testing.T) {
	dir := t.TempDir()
	table := open(t, options(dir))
	table.Close()
	for format, want := range map[int]string{2: "2, this program reads 1: a newer program wrote it", 0: "0, this program reads 1: fold the log into a new"} {
		b, err := json.Marshal(map[string]any{"format": format, "something": "new"})
		if err != nil {
			t.Fatal(err)
		}
		edit(t, dir, keyMeta, b)
		if _, err := Open(options(dir)); !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v", err)
		}
	}
	edit(t, dir, keyMeta, []byte("{"))
	if _, err := Open(options(dir)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("error %v", err)
	}
}

func TestOpenForeignDatabase(t *testing.T) {
	dir := t.TempDir()
	edit(t, dir, []byte("hello"), []byte("world"))
	if _, err := Open(options(dir)); !errors.Is(err, ErrVersion) {
		t.Errorf("error %v", err)
	}
}

// Damage in any part is an error with a name, not a panic and not a silent loss.
func TestOpenDamaged(t *testing.T) {
	for _, key := range [][]byte{
		userKey(prefixRow, 0, "a"), userKey(prefixVector, 0, "a"), intentKey(0, 99), internedKey(0, 0), internedKey(0, 7), itemKey("x"),
		seqKey(0), keyEpoch, forgottenKey(0, forgottenOf([]byte("z"))), append(queuePrefix(0, 'm'), 1), append(partitionKey(prefixForgot, 0, 1), 1),
	} {
		dir := t.TempDir()
		table := open(t, options(dir))
		fold(t, table, event(0, "a", "x", "like"))
		complete(t, table, Completion{UserID: "a", Vector: &Vector{Values: []float32{1}, Events: 1}})
		table.Close()
		edit(t, dir, key, []byte{9, 9, 9})
		reopened, err := Open(options(dir))
		if err == nil && key[0] == 'n' && len(reopened.partitions[0].items.ids) == 1 {
			reopened.Close() // any bytes are an item's name
			continue
		}
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("%q: error %v", key, err)
		}
	}
}

// A writer that finds another epoch stops.
func TestFencing(t *testing.T) {
	table := open(t, options(t.TempDir()))
	fold(t, table, event(0, "a", "x", "like"))
	if err := table.db.Update(func(txn *badger.Txn) error { return txn.Set(keyEpoch, encodeUint64(table.epoch+1)) }); err != nil {
		t.Fatal(err)
	}
	if _, err := table.Fold(batch(event(1, "a", "y", "like"))); !errors.Is(err, ErrFenced) {
		t.Errorf("fold: %v", err)
	}
	if _, err := table.Accept("requests", 0, nil, 1); !errors.Is(err, ErrFenced) {
		t.Errorf("accept: %v", err)
	}
	if err := table.List("items", 0, nil, 1); !errors.Is(err, ErrFenced) {
		t.Errorf("list: %v", err)
	}
	if err := table.Complete(0, []Completion{{Seq: 1, UserID: "a"}}); !errors.Is(err, ErrFenced) {
		t.Errorf("complete: %v", err)
	}
	if err := table.Trim(0, []Outgoing{{Seq: 1}}, Position{}); !errors.Is(err, ErrFenced) {
		t.Errorf("trim: %v", err)
	}
	if r := row1(t, table, "a"); r.Events != 1 {
		t.Errorf("row %+v", r)
	}
}

func TestEpochRises(t *testing.T) {
	table := open(t, options(t.TempDir()))
	before, state := table.epoch, table.meta.State
	table = reopen(t, table)
	if table.epoch != before+1 || table.meta.State != state || len(state) != 32 {
		t.Errorf("epoch %d after %d, state %q after %q", table.epoch, before, table.meta.State, state)
	}
}

func TestClosedTableRefuses(t *testing.T) {
	table := open(t, options(t.TempDir()))
	for range 2 {
		if err := table.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := table.Fold(batch(event(0, "a", "x", "like"))); err == nil {
		t.Error("a closed table folds")
	}
	if _, _, _, err := table.Offset(topic, 0); err == nil {
		t.Error("a closed table answers")
	}
}
