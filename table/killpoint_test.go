package table

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"rebeca/schemas"
)

// childPoint names the place where the child of childDir dies.
const childPoint = "REBECA_TABLE_TEST_POINT"

// pointLog is folded up to pointFrom, then the next batch up to pointTo meets the point.
func pointLog() []Record { return randomLog(7, 300) }

const pointFrom, pointTo = 120, 180

func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// points are places between the steps of a batch's life. Each returns whether its batch is in the state afterwards.
var points = map[string]struct {
	run    func(t *Table, b Batch) error
	folded bool
	unsent bool // its output waits
}{
	"before commit": {run: func(t *Table, b Batch) error {
		p, users := t.partitions[0], newDrafts()
		p.mu.Lock()
		defer p.mu.Unlock()
		return t.update(p, func(c *change) error {
			f := folding{change: c, batch: &b, out: &Folded{}, users: &users}
			last := b.Records[len(b.Records)-1]
			err := c.advance(b.Topic, 0, b.Records[0].Offset, b.Next, &applied{last.Offset, last.Fingerprint})
			for i := range b.Records {
				if err == nil {
					_, err = f.record(&b.Records[i], false)
				}
			}
			if err = errors.Join(err, f.finish()); err != nil {
				return err
			}
			die()
			return nil
		})
	}},
	"after commit, before generating": {folded: true, unsent: true, run: func(t *Table, b Batch) error {
		_, err := t.Fold(b)
		die()
		return err
	}},
	"after trim, before the group's commit": {folded: true, run: func(t *Table, b Batch) error {
		if _, err := t.Fold(b); err != nil {
			return err
		}
		out, err := t.Outbox(0, 0, 1000)
		if err == nil {
			err = t.Trim(0, out, Position{})
		}
		die()
		return err
	}},
}

// childAtPoint folds up to the point's batch and dies at the point.
func childAtPoint(dir, name string) int {
	o := options(dir)
	table, err := Open(o)
	if err == nil {
		_, err = table.Fold(batch(pointLog()[:pointFrom]...))
	}
	if err == nil {
		err = points[name].run(table, batch(pointLog()[pointFrom:pointTo]...))
	}
	fmt.Fprintln(os.Stderr, "the child lives:", err)
	return 1
}

// TestKillPoints: killed at a point, the state holds the batch whole or not at all; folded on, it has the oracle's facts and each dead
// letter once.
func TestKillPoints(t *testing.T) {
	oracle := open(t, options(t.TempDir()))
	for _, r := range pointLog() {
		if r.Offset >= 0 {
			fold(t, oracle, r)
		}
	}
	for name, point := range points {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c := exec.Command(os.Args[0])
			c.Env = append(os.Environ(), childDir+"="+dir, childPoint+"="+name)
			if said, err := c.CombinedOutput(); err == nil || c.ProcessState.Exited() {
				t.Fatalf("the child ended by itself: %v: %s", err, said)
			}
			table := open(t, options(dir))
			log, at := pointLog(), pointFrom
			if point.folded {
				at = pointTo
			}
			next, _, _, err := table.Offset(topic, 0)
			if want := log[at-1].Offset + 1; err != nil || next != want {
				t.Fatalf("next is %d (%v), want %d", next, err, want)
			}
			dead := map[string]bool{}
			for _, r := range log {
				if r.Dead != nil && (point.unsent || r.Offset >= next || !point.folded) {
					dead[fmt.Sprint(r.Offset)] = true
				}
			}
			fold(t, table, log[at:]...)
			if digest(t, table) != digest(t, oracle) {
				t.Error("the facts differ from the oracle's")
			}
			for _, m := range outbox(t, table) {
				if m.Role != RoleDeadletter {
					continue
				}
				if place := header(m.Message, HeaderOffset); !dead[place] {
					t.Errorf("dead letter of %s is not due, or is there twice", place)
				} else {
					delete(dead, place)
				}
			}
			if len(dead) > 0 {
				t.Errorf("dead letters of %v are missing", dead)
			}
		})
	}
}

// interleaving is a run of two partitions: what is done next, in which partition, to how many records.
type step struct {
	what      string
	partition int
	n         int
}

func interleaving(seed int) []step {
	one := rapid.Custom(func(t *rapid.T) step {
		return step{
			rapid.SampledFrom([]string{"fold", "fold", "fold", "resend", "reopen", "copy", "restore"}).Draw(t, "what"),
			rapid.IntRange(0, 1).Draw(t, "partition"), rapid.IntRange(1, 60).Draw(t, "n"),
		}
	})
	return rapid.SliceOfN(one, 8, 20).Example(seed)
}

// TestAnyInterleavingGivesTheOraclesFacts: batches, resent batches, restarts, copies that go on and older copies that are restored, over
// two partitions, in any order: the facts are those of the log folded record by record, and rings and reservoirs go on alike.
func TestAnyInterleavingGivesTheOraclesFacts(t *testing.T) {
	for seed := range 10 {
		var logs [2][]Record
		for _, r := range randomLog(uint64(seed), 500) {
			p := schemas.Partition(r.Key, 2)
			logs[p] = append(logs[p], r)
		}
		o := options(t.TempDir())
		o.Partitions = 2
		oracle := open(t, o)
		w := walk{T: t, logs: logs}
		for p, log := range logs {
			for _, r := range log {
				w.fold(oracle, p, r)
			}
		}
		o.Dir = t.TempDir()
		w.table = open(t, o)
		for _, s := range interleaving(seed) {
			w.take(s)
		}
		for p := range logs {
			w.fold(w.table, p, logs[p][w.at[p]:]...)
		}
		if digest(t, w.table) != digest(t, oracle) {
			t.Errorf("seed %d: the facts differ after %v", seed, interleaving(seed))
		}
	}
}

// walk is a table on its way through the logs.
type walk struct {
	*testing.T
	logs  [2][]Record
	table *Table
	at    [2]int
	saved []pair
	then  [2]int // where the logs were when it was saved
}

func (w *walk) fold(table *Table, p int, records ...Record) {
	w.Helper()
	if len(records) == 0 {
		return
	}
	b := batch(records...)
	b.Partition = int32(p)
	if _, err := table.Fold(b); err != nil {
		w.Fatal(err)
	}
}

func (w *walk) take(s step) {
	w.Helper()
	log, at := w.logs[s.partition], w.at[s.partition]
	switch s.what {
	case "fold":
		n := min(s.n, len(log)-at)
		w.fold(w.table, s.partition, log[at:at+n]...)
		w.at[s.partition] += n
	case "resend":
		if at == 0 {
			return
		}
		b := batch(log[max(0, at-s.n):at]...)
		b.Partition = int32(s.partition)
		if _, err := w.table.Fold(b); !errors.Is(err, ErrStale) {
			w.Errorf("a batch folded before: %v", err)
		}
	case "reopen":
		w.table = reopen(w.T, w.table)
	case "copy":
		w.saved, w.then = pairs(w.T, w.table), w.at
		w.load()
	case "restore":
		if w.saved != nil {
			w.load()
		}
	}
}

// load goes on with the saved state in a new directory.
func (w *walk) load() {
	w.Helper()
	o := w.table.options
	o.Dir = w.TempDir() + "/state"
	if err := w.table.Close(); err != nil {
		w.Fatal(err)
	}
	if err := Load(o, feed(w.saved)); err != nil {
		w.Fatal(err)
	}
	w.table, w.at = open(w.T, o), w.then
}
