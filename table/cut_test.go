package table

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
)

type pair struct{ key, value []byte }

func pairs(t *testing.T, table *Table) (out []pair) {
	t.Helper()
	if err := table.Export(func(c Cut) error {
		return c.Each("", func(key, value []byte) error {
			out = append(out, pair{bytes.Clone(key), bytes.Clone(value)})
			return nil
		})
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func feed(ps []pair) func() (key, value []byte, ok bool, err error) {
	return func() (key, value []byte, ok bool, err error) {
		if len(ps) == 0 {
			return nil, nil, false, nil
		}
		p := ps[0]
		ps = ps[1:]
		return p.key, p.value, true, nil
	}
}

// A state that is loaded from a cut is the state: facts, intents, outbox, catalogue, memory, offsets; and it goes on alike.
func TestExportAndLoad(t *testing.T) {
	table := open(t, options(t.TempDir()))
	log := randomLog(3, 400)
	fold(t, table, log[:300]...)
	in := accept(t, table, 0, ask(0, "a", "r", 2), ask(1, "b", "r", 1))
	list(t, table, 0, item(0, "item-1", 1), item(1, "item-2", 2))
	complete(t, table, Completion{
		Seq: in[0].Seq, UserID: "a", Messages: []Message{image("a", "1")}, Memories: []Memory{{ID: "m", Embedding: []float32{1, 2, 3, 4}}},
	})
	state := pairs(t, table)
	waiting, messages := intents(t, table), outbox(t, table)
	if err := table.Export(func(c Cut) error { // what happens meanwhile is not in the cut
		fold(t, table, log[300:]...)
		n := 0
		if err := c.Each("", func([]byte, []byte) error { n++; return nil }); err != nil {
			return err
		}
		if n != len(state) {
			t.Errorf("the cut has %d keys, want %d", n, len(state))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	o := table.options
	o.Dir = filepath.Join(t.TempDir(), "deep", "state")
	if err := Load(o, feed(state)); err != nil {
		t.Fatal(err)
	}
	loaded := open(t, o)
	if got := intents(t, loaded); !reflect.DeepEqual(got, waiting) {
		t.Errorf("intents %+v, want %+v", got, waiting)
	}
	if got := outbox(t, loaded); !reflect.DeepEqual(got, messages) {
		t.Errorf("outbox %+v, want %+v", got, messages)
	}
	if e, ok := loaded.Resolve("a", "m"); !ok || e[3] != 4 || loaded.Catalogue().Len() != 2 {
		t.Error("memory or catalogue differ")
	}
	if loaded.State() == table.State() {
		t.Error("a copy has the state id of its original")
	}
	if next, _, ok, _ := loaded.Offset("requests", 0); next != 2 || !ok {
		t.Errorf("offset of requests %d, %v", next, ok)
	}
	fold(t, loaded, log[300:]...)
	if digest(t, loaded) != digest(t, table) {
		t.Error("the facts differ after the same tail")
	}
}

func TestCutReadsTyped(t *testing.T) {
	table := open(t, options(t.TempDir()))
	fold(t, table, event(0, "a", "x", "like"), event(1, "b", "x", "like"))
	accept(t, table, 0, ask(0, "a", "r", 1))
	want := Vector{Values: []float32{1, 2}, PriorVersion: "v", Events: 1, AsOf: 7}
	complete(t, table, Completion{UserID: "b", Vector: &want})
	if err := table.Export(func(c Cut) error {
		positions, err := c.Positions()
		if err != nil {
			return err
		}
		if !reflect.DeepEqual(positions, []Position{{topic, 0, 2}, {"requests", 0, 1}}) || c.Dim() != dim || c.Partitions() != 1 {
			t.Errorf("positions %+v", positions)
		}
		vectors := map[string]*Vector{}
		err = c.Users(func(r Row, v *Vector) error {
			if r.Events != 1 {
				t.Errorf("row %+v", r)
			}
			vectors[r.UserID] = v
			return nil
		})
		if !reflect.DeepEqual(vectors, map[string]*Vector{"a": nil, "b": &want}) {
			t.Errorf("vectors %+v", vectors)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	failed := errors.New("mine")
	if err := table.Export(func(Cut) error { return failed }); err != failed {
		t.Errorf("error %v", err)
	}
}

func TestLoadRefuses(t *testing.T) {
	table := open(t, options(t.TempDir()))
	fold(t, table, event(0, "a", "x", "like"))
	state := pairs(t, table)
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Load(options(full), feed(state)); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("error %v", err)
	}
	if err := Load(table.options, feed(state)); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("into itself: error %v", err)
	}
	broken := errors.New("truncated file")
	for _, c := range []struct {
		name   string
		change func(*Options)
		next   func() (key, value []byte, ok bool, err error)
		err    error
	}{
		{"other dimension", func(o *Options) { o.Dim = 9 }, feed(state), ErrDim},
		{"other partitions", func(o *Options) { o.Partitions = 9 }, feed(state), ErrPartitions},
		{"without meta", func(*Options) {}, feed(state[:1]), ErrVersion},
		{"out of order", func(*Options) {}, feed([]pair{state[1], state[0]}), errOrder},
		{"a key twice", func(*Options) {}, feed([]pair{state[0], state[0]}), errOrder},
		{"an error of the source", func(*Options) {}, func() ([]byte, []byte, bool, error) { return nil, nil, false, broken }, broken},
	} {
		parent := t.TempDir()
		o := options(filepath.Join(parent, "state"))
		c.change(&o)
		if err := Load(o, c.next); !errors.Is(err, c.err) {
			t.Errorf("%s: error %v", c.name, err)
		}
		if left, _ := os.ReadDir(parent); len(left) != 0 {
			t.Errorf("%s: %v is left", c.name, left)
		}
	}
	for _, p := range []pair{ // what Open would refuse, one of each kind
		{claimKey(0), []byte{1}}, {itemKey("x"), []byte{1}}, {append(partitionKey(prefixForgot, 0, 0), 1), []byte{1}},
		{forgottenKey(0, forgotten{1}), []byte{1}}, {internedKey(0, 7), []byte("x")}, {append(queuePrefix(0, 'i'), 1), nil},
		{intentKey(0, 1), []byte{9}}, {append(queuePrefix(0, 'm'), 1), nil}, {userKey(prefixRow, 0, "z"), []byte{1}},
		{seqKey(0), []byte{1}}, {userKey(prefixVector, 0, "z"), []byte{1}},
	} {
		with := append([]pair{p}, slices.DeleteFunc(slices.Clone(state), func(o pair) bool { return bytes.Equal(o.key, p.key) })...)
		slices.SortFunc(with, func(a, b pair) int { return bytes.Compare(a.key, b.key) })
		if err := Load(options(filepath.Join(t.TempDir(), "state")), feed(with)); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
			t.Errorf("%q: error %v", p.key, err)
		}
	}
	if err := Load(options(t.TempDir()), feed(state)); err != nil { // an empty directory is welcome
		t.Error(err)
	}
}

// Facts alone enter the digest.
func TestDigestIsOfFactsOnly(t *testing.T) {
	table := open(t, options(t.TempDir()))
	fold(t, table, event(0, "a", "x", "like"))
	before := digest(t, table)
	accept(t, table, 0, ask(0, "a", "r", 1))
	list(t, table, 0, item(0, "x", 1))
	complete(t, table, Completion{Seq: 1, UserID: "a", Messages: []Message{image("a", "1")}, Vector: &Vector{Values: []float32{1}, Events: 1}})
	fold(t, table, dead(1, "b", "?"))
	if digest(t, table) != before {
		t.Error("outputs entered the digest")
	}
	fold(t, table, forget(2, "nobody"))
	marked := digest(t, table)
	if marked == before {
		t.Error("a forget mark did not enter the digest")
	}
	fold(t, table, event(3, "a", "x", "view"))
	if digest(t, table) == marked {
		t.Error("an event did not enter the digest")
	}
}
