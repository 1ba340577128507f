package table

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// childDir is the environment variable that makes the test binary a folding child instead.
const childDir = "REBECA_TABLE_TEST_CHILD"

// crashLog is the log that the child folds and the oracle folds again.
func crashLog() []Record { return randomLog(99, 6000) }

// child goes on with the log where the state is, in batches whose sizes differ from life to life, and completes intents as it goes. It
// prints a line per batch, so that the parent knows it lives.
func child(dir string) int {
	if point := os.Getenv(childPoint); point != "" {
		return childAtPoint(dir, point)
	}
	if at := os.Getenv(childAdopt); at != "" {
		return adoptingChild(dir, at)
	}
	o := options(dir)
	o.CacheBytes = 7 * 2000
	table, err := Open(o)
	if err == nil {
		err = childFold(table)
	}
	if err == nil {
		err = table.Close()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("done")
	return 0
}

func childFold(table *Table) error {
	next, _, _, err := table.Offset(topic, 0)
	if err != nil {
		return err
	}
	log := crashLog()
	for len(log) > 0 && log[0].Offset < next {
		log = log[1:]
	}
	for len(log) > 0 {
		n := min(len(log), 1+rand.IntN(60))
		f, err := table.Fold(batch(log[:n]...))
		if err != nil {
			return err
		}
		log = log[n:]
		var cs []Completion
		for _, in := range f.Intents {
			if rand.IntN(2) == 0 {
				cs = append(cs, Completion{Seq: in.Seq, UserID: in.UserID, Messages: []Message{image(in.UserID, in.ID)}})
			}
		}
		if err := table.Complete(0, cs); err != nil {
			return err
		}
		fmt.Println("folded", f.Next)
		time.Sleep(time.Millisecond) // leave the parent a moment to kill us in
	}
	return nil
}

// Killed at random and started again until the log is through, the state has the oracle's facts; dead letters and outputs are there once.
func TestKillsLoseAndDoubleNothing(t *testing.T) {
	dir := t.TempDir()
	kills := 0
	for lives := 0; ; lives++ {
		if lives > 400 {
			t.Fatal("the child never gets through")
		}
		if live(t, dir) {
			break
		}
		kills++
	}
	if kills < 5 {
		t.Errorf("only %d kills", kills)
	}
	m := newModel(DefaultRules())
	oracle := open(t, options(t.TempDir()))
	buried := 0
	for _, r := range crashLog() {
		m.apply(r)
		if r.Dead != nil {
			buried++
		}
	}
	fold(t, oracle, crashLog()...)
	table := open(t, options(dir))
	compare(t, table, m)
	if digest(t, table) != digest(t, oracle) {
		t.Error("the facts differ from the oracle's")
	}
	outputs := map[string]int{}
	for {
		out, err := table.Outbox(0, 0, 500)
		if err != nil {
			t.Fatal(err)
		}
		if len(out) == 0 {
			break
		}
		for _, o := range out {
			switch o.Role {
			case RoleDeadletter:
				outputs["dead "+header(o.Message, HeaderOffset)]++
			case RoleGenerated:
				outputs[string(o.Value)]++
			}
		}
		if err := table.Trim(0, out, Position{}); err != nil {
			t.Fatal(err)
		}
	}
	dead := 0
	for id, n := range outputs {
		if n != 1 {
			t.Errorf("output %s is there %d times", id, n)
		}
		if len(id) > 5 && id[:5] == "dead " {
			dead++
		}
	}
	if dead != buried {
		t.Errorf("%d dead letters, want %d", dead, buried)
	}
	t.Logf("%d kills, %d outputs", kills, len(outputs))
}

// live runs a child and kills it after some batches; it reports whether the child came to the end instead.
func live(t *testing.T, dir string) bool {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), childDir+"="+dir)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	fuse := rand.IntN(25)
	for n := 0; lines.Scan(); n++ {
		if lines.Text() == "done" {
			if err := c.Wait(); err != nil {
				t.Fatal(err)
			}
			return true
		}
		if n == fuse {
			if err := c.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	io.Copy(io.Discard, out)
	if err := c.Wait(); err == nil || c.ProcessState.Exited() {
		t.Fatalf("the child ended by itself: %v", err)
	}
	return false
}

// run runs the tests and looks for goroutines left behind.
func run(m *testing.M) int {
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}
