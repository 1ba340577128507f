package table

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// childAdopt makes the child of childDir adopt, and names the pair of the snapshot at which it dies: the n-th that it is given, of both
// passes together.
const childAdopt = "REBECA_TABLE_TEST_ADOPT"

// movedTo folds the log of one partition into a state, with what waits and what is unsent.
func movedTo(t *Table, partition int32, seed uint64, from, to int) error {
	b := batch(randomLog(seed, to)[from:]...)
	b.Partition = partition
	_, err := t.Fold(b)
	return err
}

func adoptOptions(dir string) Options {
	o := options(dir)
	o.Partitions = 2
	return o
}

// pairsOf gives the pairs of a state to Adopt, in key order.
func pairsOf(t *Table, seen func()) func(fn func(key, value []byte) error) error {
	return func(fn func(key, value []byte) error) error {
		return t.Export(func(c Cut) error {
			return c.Each("", func(key, value []byte) error {
				seen()
				return fn(key, value)
			})
		})
	}
}

// adoptingChild moves partition 1 of dir/from into dir/to and dies on its way, or prints how many pairs it was given.
func adoptingChild(dir, at string) int {
	n, _ := strconv.Atoi(at)
	source, err := Open(adoptOptions(filepath.Join(dir, "from")))
	if err == nil {
		_, err = Adopt(adoptOptions(filepath.Join(dir, "to")), []int32{1}, "items", pairsOf(source, func() {
			if n--; n == 0 {
				die()
			}
		}))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "the child lives:", err)
		return 1
	}
	return 0
}

// ofPartition are the pairs that belong to a partition, but its claim and what is to be erased of the files.
func ofPartition(pairs map[string]string, partition int32) map[string]string {
	out := maps.Clone(pairs)
	maps.DeleteFunc(out, func(key, _ string) bool {
		p, divided := partitionOf([]byte(key))
		return !divided || p != partition || strings.HasPrefix(key, prefixClaim) || strings.HasPrefix(key, prefixErase)
	})
	return out
}

// TestAdoptSurvivesKills kills a hand-over at every stage: until it has begun to replace anything the partition is as it was, afterwards
// it is marked so that nobody serves it, and a repeated hand-over ends as one that was never killed. The other partition stays untouched.
func TestAdoptSurvivesKills(t *testing.T) {
	prepare := func(t *testing.T) (dir string, pairs int, from, before map[string]string) {
		dir = t.TempDir()
		source := open(t, adoptOptions(filepath.Join(dir, "from")))
		target := open(t, adoptOptions(filepath.Join(dir, "to")))
		for _, s := range []struct {
			table *Table
			p     int32
			seed  uint64
			n     int
			epoch uint64
		}{{source, 1, 5, 400, 4}, {target, 0, 3, 200, 1}, {target, 1, 5, 150, 2}} { // the target has an older past of partition 1
			if err := movedTo(s.table, s.p, s.seed, 0, s.n); err != nil {
				t.Fatal(err)
			}
			if err := s.table.Claim(s.p, Claim{Epoch: s.epoch}, "items"); err != nil {
				t.Fatal(err)
			}
		}
		// Either has its own catalogue; the target has met a gap that the source did not.
		next, _, _, err := target.Offset(topic, 1)
		err = errors.Join(err, target.Skip(topic, 1, Gap{Kind: "ours", From: next, To: next}),
			target.Skip("items", 1, Gap{Kind: "ours", To: 7}), source.Skip("items", 1, Gap{Kind: "theirs", To: 9}))
		if err != nil {
			t.Fatal(err)
		}
		from, before = dump(t, source), dump(t, target)
		pairs = len(from)
		if err := errors.Join(source.Close(), target.Close()); err != nil {
			t.Fatal(err)
		}
		return dir, pairs, from, before
	}
	_, pairs, from, _ := prepare(t)
	claim := slices.Index(slices.Sorted(maps.Keys(from)), string(claimKey(1))) // the first pass ends at the state's name
	if claim < 0 {
		t.Fatal("the source has no claim")
	}
	first := slices.Index(slices.Sorted(maps.Keys(from)), string(keyMeta)) + 1
	for name, at := range map[string]struct {
		pair    int
		touched bool
	}{
		"while the snapshot is looked at":     {first / 2, false},
		"when the partition has been emptied": {first + 1, true},
		"half way":                            {first + pairs/2, true},
		"before the claim":                    {first + pairs, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _, from, before := prepare(t)
			c := exec.Command(os.Args[0])
			c.Env = append(os.Environ(), childDir+"="+dir, childAdopt+"="+strconv.Itoa(at.pair))
			if said, err := c.CombinedOutput(); err == nil || c.ProcessState.Exited() {
				t.Fatalf("the child ended by itself: %v: %s", err, said)
			}
			target := open(t, adoptOptions(filepath.Join(dir, "to")))
			claim, held, err := target.ClaimOf(1)
			if err != nil || !held || claim.Partial != at.touched {
				t.Errorf("the claim after the kill is %+v, %v (%v)", claim, held, err)
			}
			now := dump(t, target)
			if !maps.Equal(ofPartition(now, 0), ofPartition(before, 0)) {
				t.Error("partition 0 was touched")
			}
			if !at.touched && !maps.Equal(ofPartition(now, 1), ofPartition(before, 1)) {
				t.Error("partition 1 was touched before the snapshot was known to be right")
			}
			if err := target.Close(); err != nil {
				t.Fatal(err)
			}
			source := open(t, adoptOptions(filepath.Join(dir, "from")))
			adopted, err := Adopt(adoptOptions(filepath.Join(dir, "to")), []int32{1}, "items", pairsOf(source, func() {}))
			if err != nil || !slices.Equal(adopted, []int32{1}) {
				t.Fatalf("the repeated hand-over: %v, %v", adopted, err)
			}
			target = open(t, adoptOptions(filepath.Join(dir, "to")))
			if claim, _, err := target.ClaimOf(1); err != nil || claim.Partial || claim.Epoch <= 4 {
				t.Errorf("the claim at last is %+v, %v; the snapshot's epoch was 4", claim, err)
			}
			if gaps, total, err := target.Gaps(topic, 1); err != nil || total != 0 {
				t.Errorf("a gap of what was replaced is left: %v, %v", gaps, err)
			}
			now = dump(t, target)
			want := ofPartition(from, 1)
			for _, key := range [][]byte{offsetKey("items", 1), gapsKey("items", 1)} { // its catalogue stays its own
				want[string(key)] = before[string(key)]
			}
			if got := ofPartition(now, 1); !maps.Equal(got, want) {
				t.Error("partition 1 differs from the snapshot's")
			}
			if !maps.Equal(ofPartition(now, 0), ofPartition(before, 0)) {
				t.Error("partition 0 differs")
			}
			// It folds on where the snapshot ends.
			if err := movedTo(target, 1, 5, 400, 450); err != nil {
				t.Error(err)
			}
		})
	}
}
