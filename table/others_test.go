package table

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rebeca/schemas"
)

// From an embedding server whose unknown users met row 0, a neighbour's: whoever has no row has none, before, beside and after others.
func TestUnknownUsersGetNobodysRow(t *testing.T) {
	table := open(t, options(t.TempDir()))
	fold(t, table, event(0, "b", "x", schemas.KindLike), event(1, "bb", "y", schemas.KindLike), event(2, "gone", "z", schemas.KindLike))
	fold(t, table, forget(3, "gone"))
	for range 2 {
		for _, user := range []string{"", "a", "ba", "b\x00", "bbb", "c", "gone", "zzz"} {
			r, ok, err := table.User(user)
			if err != nil || ok || r.Events != 0 || len(r.Window) != 0 {
				t.Errorf("%q: %+v, %v, %v", user, r, ok, err)
			}
			if v, ok, err := table.VectorOf(user); err != nil || ok || len(v.Values) != 0 {
				t.Errorf("%q has a vector: %v, %v", user, v, err)
			}
			if m, err := table.GeneratedOf(user, 10); err != nil || len(m) != 0 {
				t.Errorf("%q has memories: %v, %v", user, m, err)
			}
		}
		table = reopen(t, table)
	}
}

// nearThreshold are dead letters whose stored values lie around the size from which a value has a file of its own.
func nearThreshold() (out []Record) {
	for i, size := range []int{-600, -200, -100, -1, 0, 1, 100, 600} {
		out = append(out, dead(int64(i), "a", strings.Repeat(string(rune('a'+i)), valueThreshold+size)))
	}
	return out
}

func values(out []Outgoing) (v []string) {
	for _, o := range out {
		sum := sha256.Sum256(o.Value)
		v = append(v, fmt.Sprintf("%d %x", len(o.Value), sum[:4]))
	}
	return v
}

// From a restore that put too large rows into one transaction: what lies around and above the threshold is loaded, more than one transaction holds, and is the same.
func TestRestoreOfLargeRows(t *testing.T) {
	table := open(t, options(t.TempDir()))
	fold(t, table, nearThreshold()...)
	want := values(outbox(t, table))
	o := table.options
	o.Dir = filepath.Join(t.TempDir(), "state")
	if err := Load(o, feed(pairs(t, table))); err != nil {
		t.Fatal(err)
	}
	loaded := open(t, o)
	if got := values(outbox(t, loaded)); fmt.Sprint(got) != fmt.Sprint(want) || len(got) != 8 {
		t.Errorf("loaded %v, want %v", got, want)
	}
}

// From a store that did not open, or gave deleted values back, after its value log was collected.
func TestDeleteCollectReopen(t *testing.T) {
	table := open(t, options(t.TempDir()))
	fold(t, table, nearThreshold()...)
	out := outbox(t, table)
	sent, kept := out[:len(out)-1], values(out[len(out)-1:])
	if err := table.Trim(0, sent, Position{}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		table.collecting.Lock()
		err := table.collect(eraseRatio)
		table.collecting.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		table = reopen(t, table)
		if got := values(outbox(t, table)); fmt.Sprint(got) != fmt.Sprint(kept) {
			t.Fatalf("after the collection %v, want %v", got, kept)
		}
	}
}

// From a store that opened after a power cut with values missing: a page that the disk lost of a value of any size near the threshold is
// refused by name; never is another value read. What was not synced of the logs is TestPowerCutLeavesAPrefix.
func TestPowerCutNearTheValueThreshold(t *testing.T) {
	table := open(t, options(t.TempDir()))
	fold(t, table, nearThreshold()...)
	want := fmt.Sprint(values(outbox(t, table)))
	dir := table.options.Dir
	if err := table.Close(); err != nil {
		t.Fatal(err)
	}
	rng, refused := rand.New(rand.NewPCG(4, 4)), 0
	for range 12 {
		to := t.TempDir()
		for _, path := range glob(t, dir, "*") {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if name := filepath.Base(path); filepath.Ext(name) == ".vlog" {
				at := rng.IntN(len(used(b))/page) * page
				clear(b[at:min(at+page, len(b))])
			} else if name == "LOCK" {
				continue
			}
			write(t, filepath.Join(to, filepath.Base(path)), b)
		}
		cut, err := Open(options(to))
		if err != nil {
			if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), to) {
				t.Errorf("the refusal names nothing: %v", err)
			}
			refused++
			continue
		}
		switch out, err := cut.Outbox(0, 0, 1000); {
		case errors.Is(err, ErrCorrupt):
			refused++
		case err != nil:
			t.Error(err)
		case fmt.Sprint(values(out)) != want:
			t.Errorf("opened with %s, want %s", values(out), want)
		}
		if err := cut.Close(); err != nil {
			t.Error(err)
		}
	}
	if refused == 0 {
		t.Error("no missing page was noticed")
	}
}
