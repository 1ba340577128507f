package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"rebeca"
)

// verb makes the test binary the program: its value are the arguments, a line each.
const verb = "REBECA_TEST_VERB"

// killed runs a verb in a process of its own and kills it -9 after a delay. It reports false when the verb had ended by itself, well.
func (o *operator) killed(delay time.Duration, line string) bool {
	o.t.Helper()
	args := strings.Fields(strings.NewReplacer("FILE", o.file, "DIR", o.dir).Replace(line))
	cmd := exec.CommandContext(o.t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), verb+"="+strings.Join(args, "\n"))
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		o.t.Fatal(err)
	}
	timer := time.AfterFunc(delay, func() { _ = cmd.Process.Kill() }) // it may have ended
	err := cmd.Wait()
	timer.Stop()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return false
	case errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL:
		return true
	}
	o.t.Fatalf("rebeca %s: %v: %s", line, err, said.String())
	return false
}

// untilItEnds kills a verb ever later until it comes to its end, or over says that it has had its effect when it was killed, and returns
// how often it was killed.
func (o *operator) untilItEnds(line string, over func() bool) (kills int) {
	o.t.Helper()
	for o.killed(time.Duration(kills)*killLater, line) {
		if kills++; kills > 1000 {
			o.t.Fatalf("rebeca %s: killed %d times and not at its end", line, kills)
		}
		if over() {
			break
		}
	}
	return kills
}

// killLater is how much longer each process lives than the one before.
const killLater = 30 * time.Millisecond

// TestKilledReplayAndPromote: replay and promote, killed -9 at one moment after the other and called again, end where those end that nobody kills.
func TestKilledReplayAndPromote(t *testing.T) {
	o := newOperator(t)
	var events strings.Builder
	for i := range 60_000 {
		kind := []string{`"like"`, `"rating","value":3`, `"skip"`}[i%3]
		fmt.Fprintf(&events, `{"event_id":"e%d","user_id":"u%d","item_id":"i%d","kind":%s,"occurred_at":"2026-01-01T00:00:00Z"}`+"\n", i, i*7%3001, i%500, kind)
	}
	o.run("feedback import -c FILE " + o.write("events.jsonl", events.String()))
	o.run("replay -c FILE --from earliest --to 0:9000,1:9000 --into DIR/served")
	if err := os.Rename(filepath.Join(o.dir, "served", "table"), filepath.Join(o.dir, "state", "table")); err != nil {
		t.Fatal(err)
	}
	var want rebeca.ReplayResult
	if err := json.Unmarshal([]byte(o.run("replay -c FILE --from earliest --to latest --into DIR/whole --json")), &want); err != nil || want.Events != 60_000 {
		t.Fatalf("%+v, error %v", want, err)
	}

	kills := o.untilItEnds("replay -c FILE --from earliest --to latest --into DIR/killed", func() bool { return false })
	t.Logf("replay: %d kills", kills)
	o.holds(o.run("inspect digest -c FILE --state DIR/killed"), want.SHA256)
	o.holds(o.run("replay -c FILE --from earliest --to latest --into DIR/killed --dry-run"), "0 offsets are left")

	// The rename that takes the new table away is where a promotion takes effect; whoever opens the state next ends it.
	promotions := o.untilItEnds("replay promote -c FILE --from DIR/killed", func() bool {
		_, err := os.Stat(filepath.Join(o.dir, "killed", "table"))
		return errors.Is(err, os.ErrNotExist)
	})
	t.Logf("promote: %d kills", promotions)
	if kills == 0 || promotions == 0 {
		t.Errorf("%d and %d kills", kills, promotions)
	}
	o.holds(o.run("inspect digest -c FILE"), want.SHA256)
	aside, err := filepath.Glob(filepath.Join(o.dir, "state", "replaced-*", "table", "MANIFEST"))
	if err != nil || len(aside) != 1 {
		t.Errorf("the replaced state is in %v (%v)", aside, err)
	}
	if _, err := os.Stat(filepath.Join(o.dir, "killed", "table")); err == nil {
		t.Error("the promoted state is still where it was")
	}
}
