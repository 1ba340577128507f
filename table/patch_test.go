package table

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"rebeca/schemas"
)

// A row patched in place is byte for byte the one that row.fold makes and encodes, whatever the rules, and however the events are cut into
// batches; the row that a batch began with is not changed, since readers share it.
func TestPatchIsTheFold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := DefaultRules()
		rules.Newest = rapid.IntRange(1, 6).Draw(t, "newest")
		rules.Liked = rapid.IntRange(0, 5).Draw(t, "liked")
		rules.Dedupe = rapid.IntRange(1, 8).Draw(t, "dedupe")
		// Likes are what the reservoir is about.
		kinds := rapid.SampledFrom(append(schemas.Kinds(), schemas.KindLike, schemas.KindLike, schemas.KindLike, schemas.KindLike))
		plain, plainItems := row{last: -1}, newInterner()
		patched, items := []byte(nil), newInterner()
		for offset := int64(0); offset < int64(rapid.IntRange(0, 80).Draw(t, "events")); {
			var p patch
			p.open(patched)
			before, changed := slices.Clone(patched), false
			for range rapid.IntRange(1, 10).Draw(t, "batch") {
				f := event(offset, "u", fmt.Sprint("i", rapid.IntRange(0, 9).Draw(t, "item")), kinds.Draw(t, "kind")).Feedback
				f.EventID = fmt.Sprint("e", rapid.IntRange(0, 120).Draw(t, "event"))
				fresh := p.fold(&rules, f, offset, items)
				if want := plain.fold(&rules, f, offset, plainItems); fresh != want {
					t.Fatalf("event %d: fresh %v, want %v", offset, fresh, want)
				}
				changed = changed || fresh
				offset++
			}
			if !bytes.Equal(patched, before) {
				t.Fatal("the row that the batch began with was changed")
			}
			if !changed {
				continue
			}
			patched = p.value()
			if want := plain.encode(); !bytes.Equal(patched, want) {
				t.Fatalf("after event %d\n got %x\nwant %x", offset-1, patched, want)
			}
			if err := checkRow(patched); err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(items.names(), plainItems.names()) {
			t.Fatalf("items %v, want %v", items.names(), plainItems.names())
		}
	})
}

// Ties between hashes are too rare for random ids: the newer of equal ones leaves.
func TestPatchOfEqualHashes(t *testing.T) {
	rules := Rules{Newest: 1, Liked: 2, Dedupe: 1, Classes: DefaultClasses()}
	for _, hashes := range [][]uint64{{5, 5, 5, 5}, {5, 7, 7, 1}, {7, 5, 7, 1}, {7, 7, 5, 1}, {1, 2, 2, 9}} {
		var p patch
		p.open(nil)
		plain := row{last: -1}
		for i, h := range hashes {
			e := entry{item: uint32(i), kind: 1, class: 1, at: 1, offset: int64(i), hash: h}
			p.push(&rules, e)
			plain.push(&rules, e)
		}
		if got, want := p.value(), plain.encode(); !bytes.Equal(got, want) {
			t.Errorf("%v\n got %x\nwant %x", hashes, got, want)
		}
	}
}

// A row that is not whole is named as such when its user's next event comes, not patched.
func TestFoldRefusesACorruptRow(t *testing.T) {
	o := options(t.TempDir())
	table := open(t, o)
	fold(t, table, event(0, "u", "i", schemas.KindLike), event(1, "u", "j", schemas.KindLike))
	bad := slices.Clone(table.partitions[0].rows.peek("u"))
	bad[rowHeader+entryKind] = 0xff
	txn := table.db.NewTransaction(true)
	if err := errors.Join(txn.Set(userKey(prefixRow, 0, "u"), bad), txn.Commit()); err != nil {
		t.Fatal(err)
	}
	table.partitions[0].rows.remove("u")
	if _, err := table.Fold(batch(event(2, "u", "k", schemas.KindLike))); !errors.Is(err, ErrCorrupt) {
		t.Errorf("folding into a corrupt row: %v", err)
	}
}

func BenchmarkPatch(b *testing.B) {
	rules, items := DefaultRules(), newInterner()
	var events []*schemas.Feedback
	for i := range int64(4096) {
		events = append(events, event(i, "u", fmt.Sprint("i", i%500), schemas.KindLike).Feedback)
	}
	b.Run("patched", func(b *testing.B) {
		var value []byte
		for i := int64(0); b.Loop(); i++ {
			var p patch
			p.open(value)
			p.fold(&rules, events[i%4096], i, items)
			value = p.value()
		}
	})
	b.Run("plain", func(b *testing.B) {
		r := row{last: -1}
		value := r.encode()
		for i := int64(0); b.Loop(); i++ {
			if err := r.decode(value); err != nil {
				b.Fatal(err)
			}
			r.fold(&rules, events[i%4096], i, items)
			value = r.encode()
		}
	})
}
