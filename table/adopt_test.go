package table

import (
	"errors"
	"maps"
	"testing"

	"rebeca/schemas"
)

// eachOf hands out pairs as Adopt asks for them; at its second reading, which writes, it fails behind the first n, where n is not negative.
func eachOf(ps []pair, n int) func(fn func(key, value []byte) error) error {
	readings := 0
	return func(fn func(key, value []byte) error) error {
		readings++
		for i, p := range ps {
			if readings == 2 && i == n {
				return errCut
			}
			if err := fn(p.key, p.value); err != nil {
				return err
			}
		}
		return nil
	}
}

var errCut = errors.New("the reading ends")

// owned is a state that has folded records and owns its partition.
func owned(t *testing.T, dir string, epoch uint64, records ...Record) *Table {
	t.Helper()
	table := open(t, options(dir))
	fold(t, table, records...)
	if err := table.Claim(0, Claim{Epoch: epoch}, "items"); err != nil {
		t.Fatal(err)
	}
	return table
}

func closed(t *testing.T, table *Table) Options {
	t.Helper()
	if err := table.Close(); err != nil {
		t.Fatal(err)
	}
	return table.options
}

func claimOf(t *testing.T, table *Table) Claim {
	t.Helper()
	c, _, err := table.ClaimOf(0)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// An adoption that ends anywhere leaves a partition that is marked, and so is it in every copy of that state, until it is adopted whole.
func TestHalfAdoptedStaysHalf(t *testing.T) {
	theirs := owned(t, t.TempDir(), 3, event(0, "a", "x", "like"), event(1, "b", "y", "like"))
	snapshot, want := pairs(t, theirs), digest(t, theirs)
	for cut := 0; cut < len(snapshot); cut += 4 {
		o := closed(t, owned(t, t.TempDir(), 2, event(0, "a", "x", "like")))
		if _, err := Adopt(o, nil, "items", eachOf(snapshot, cut)); !errors.Is(err, errCut) {
			t.Fatalf("cut at %d: error %v", cut, err)
		}
		half := open(t, o)
		if c := claimOf(t, half); !c.Partial {
			t.Errorf("cut at %d: the claim is %+v", cut, c)
		}
		copied := options(t.TempDir() + "/copy")
		if err := Load(copied, feed(pairs(t, half))); err != nil {
			t.Fatal(err)
		}
		copyOf := open(t, copied)
		if c := claimOf(t, copyOf); !c.Partial || c.Epoch <= claimOf(t, half).Epoch {
			t.Errorf("cut at %d: the copy's claim is %+v", cut, c)
		}
		if _, err := Adopt(closed(t, half), nil, "items", eachOf(pairs(t, copyOf), -1)); !errors.Is(err, ErrNotThere) {
			t.Errorf("cut at %d: half a partition is adopted: %v", cut, err)
		}
		if _, err := Adopt(closed(t, copyOf), nil, "items", eachOf(snapshot, -1)); err != nil {
			t.Fatal(err)
		}
		if whole := open(t, copied); claimOf(t, whole).Partial || digest(t, whole) != want {
			t.Errorf("cut at %d: adopted again: claim %+v", cut, claimOf(t, whole))
		}
	}
}

// A state that takes a partition back holds, in its files, those who were forgotten meanwhile: they are noted and erased.
func TestAdoptErasesTheForgotten(t *testing.T) {
	life := []Record{event(0, planted, "x", "like"), event(1, planted, "y", "like")}
	o := closed(t, owned(t, t.TempDir(), 2, life...))
	theirs := owned(t, t.TempDir(), 3, append(life, forget(2, planted))...)
	sendAll(t, theirs)
	if e := erase(t, theirs); e != (Erased{Users: 1}) {
		t.Fatalf("erased %+v", e)
	}
	if _, err := Adopt(o, nil, "items", eachOf(pairs(t, theirs), -1)); err != nil {
		t.Fatal(err)
	}
	if files := filesWith(t, o.Dir, planted); len(files) == 0 {
		t.Fatal("the test does not find what was planted")
	}
	table := open(t, o)
	if n := table.ErasePending(); n != 1 {
		t.Errorf("%d pending", n)
	}
	if e := erase(t, table); e != (Erased{Users: 1}) {
		t.Errorf("erased %+v", e)
	}
	if versions, files := held(t, table, planted); versions > 0 || len(files) > 0 {
		t.Errorf("still held: %d versions, in %v", versions, files)
	}
}

// What is noted of gaps belongs to the partition, but for the catalogue's, which stay the state's own with its position.
func TestAdoptTakesGapsAlong(t *testing.T) {
	noted := func(epoch uint64, kind string) *Table {
		table := owned(t, t.TempDir(), epoch, event(0, "a", "x", "like"))
		for _, topic := range []string{topic, "requests", "items"} {
			next := nextOf(t, table, topic)
			if topic == "requests" && epoch == 3 {
				continue // the snapshot knows of none
			}
			if err := table.Skip(topic, 0, Gap{Kind: kind, From: next, To: next + int64(epoch), At: timeAt(0)}); err != nil {
				t.Fatal(err)
			}
		}
		return table
	}
	o, theirs := closed(t, noted(2, "own")), noted(3, "theirs")
	if _, err := Adopt(o, nil, "items", eachOf(pairs(t, theirs), -1)); err != nil {
		t.Fatal(err)
	}
	table, got := open(t, o), map[string]string{}
	for _, topic := range []string{topic, "requests", "items"} {
		gaps, _, err := table.Gaps(topic, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range gaps {
			got[topic] += g.Kind
		}
	}
	if want := map[string]string{topic: "theirs", "items": "own"}; !maps.Equal(got, want) {
		t.Errorf("gaps %v, want %v", got, want)
	}
	if next := nextOf(t, table, "items"); next != 2 {
		t.Errorf("the catalogue is at %d", next)
	}
}

// A promotion keeps the notes of both states: each has files, or what comes from them, that may hold a forgotten user.
func TestSucceedKeepsNotesOfErasure(t *testing.T) {
	for _, c := range []struct {
		name             string
		oldToo, freshToo bool // the note is still there
	}{{name: "of the successor", freshToo: true}, {name: "of the replaced", oldToo: true}, {name: "of both", oldToo: true, freshToo: true}} {
		t.Run(c.name, func(t *testing.T) {
			old, o := open(t, options(t.TempDir())), options(t.TempDir())
			o.Silent = true
			fresh := open(t, o)
			for table, noted := range map[*Table]bool{old: c.oldToo, fresh: c.freshToo} {
				fold(t, table, event(0, planted, "i", schemas.KindLike), forget(1, planted))
				sendAll(t, table)
				if !noted {
					erase(t, table)
				}
			}
			if err := fresh.Succeed(old, []string{topic}, nil); err != nil {
				t.Fatal(err)
			}
			o.Silent = false
			closed(t, fresh)
			fresh = open(t, o)
			if n := fresh.ErasePending(); n != 1 {
				t.Errorf("%d pending", n)
			}
			sendAll(t, fresh)
			erase(t, fresh)
			if versions, files := held(t, fresh, planted); versions > 0 || len(files) > 0 {
				t.Errorf("still held: %d versions, in %v", versions, files)
			}
		})
	}
}

// Who comes back and is forgotten again while a run erases the first life keeps their note: the second life's bytes are not looked for.
func TestForgottenAgainWhileErased(t *testing.T) {
	table := open(t, options(t.TempDir()))
	fold(t, table, event(0, planted, "x", "like"), forget(1, planted))
	wanted := table.toErase()
	again := event(2, planted, "y", "like")
	again.Feedback.OccurredAt = again.Time
	fold(t, table, again, forget(3, planted))
	if n, err := table.erased(wanted); err != nil || n != 0 || table.ErasePending() != 1 {
		t.Errorf("%d notes went, %d are left, error %v", n, table.ErasePending(), err)
	}
	if table = reopen(t, table); table.ErasePending() != 1 {
		t.Error("the note is gone from the state")
	}
	if n, err := table.erased(table.toErase()); err != nil || n != 1 || table.ErasePending() != 0 {
		t.Errorf("%d notes went, %d are left, error %v", n, table.ErasePending(), err)
	}
}
