package online

import (
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"rebeca/prior"
	"rebeca/schemas"
)

// Environment of a child that trains in a directory and dies at a point.
const (
	childDir   = "REBECA_ONLINE_TEST_CHILD"
	childPoint = "REBECA_ONLINE_TEST_POINT"
)

func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// mortal is a learner that dies before its step or at its copy of the given number, 0 for never.
type mortal struct {
	learner
	dir         string
	step, state int // counted down
	torn        bool
}

func (m *mortal) Step(b *prior.Batch, lr float64, rng *rand.Rand) (prior.StepStats, error) {
	if m.step--; m.step == 0 {
		die()
	}
	return m.learner.Step(b, lr, rng)
}

// State is the copy that a checkpoint is written of.
func (m *mortal) State() *prior.State {
	if m.state--; m.state == 0 {
		if m.torn {
			_ = os.WriteFile(filepath.Join(m.dir, unfinished), []byte("half a checkpoint"), 0o644)
		}
		die()
	}
	return m.learner.State()
}

// trainingPoints are where a child dies. The first four steps are the birth; two follow each 64 events, and then a checkpoint.
var trainingPoints = map[string]struct {
	mortal   mortal
	announce int   // dies at this announcement, before it is made
	step     int64 // of the checkpoint that is left
}{
	"before the first step of a round":  {mortal: mortal{step: 7}, step: 6},
	"between the two steps of a round":  {mortal: mortal{step: 8}, step: 6},
	"after the steps":                   {mortal: mortal{state: 3}, step: 6},
	"half of the checkpoint is written": {mortal: mortal{state: 3, torn: true}, step: 6},
	"before the announcement":           {announce: 3, step: 8},
}

// trainingWorld is the same in every process.
func trainingWorld() (*clusters, []Example) {
	w := newClusters(1, 3, 60)
	return w, w.events(64+4*64, 9)
}

func trainingConfig() Config {
	c := quick()
	c.AnnounceSteps = 2
	return c
}

// TestTrainingChild does nothing unless it is the child of TestKilledTrainingGoesOn.
func TestTrainingChild(t *testing.T) {
	dir := os.Getenv(childDir)
	if dir == "" {
		return
	}
	point := trainingPoints[os.Getenv(childPoint)]
	w, events := trainingWorld()
	s := newStation(t, trainingConfig(), w, dir)
	inner, announcements := s.learn, 0
	s.learn = func(st *prior.State) (learner, error) {
		l, err := inner(st)
		m := point.mortal
		m.learner, m.dir = l, dir
		return &m, err
	}
	s.announce = func(context.Context, schemas.PriorVersion) error {
		if announcements++; announcements == point.announce {
			die()
		}
		return nil
	}
	s.CatalogueReady()
	s.push(events)
	s.run().caughtUp(w)
	t.Error("the child lives")
}

// TestKilledTrainingGoesOn kills a process within training, at each step of a round's life. Weights and cursor that are left belong
// together: they are those after some whole round. Learned on from there, the weights are those of a trainer that was never killed.
func TestKilledTrainingGoesOn(t *testing.T) {
	finish := func(t *testing.T, dir string) *prior.State {
		w, events := trainingWorld()
		s := newStation(t, trainingConfig(), w, dir)
		s.CatalogueReady()
		s.push(events)
		s.run().caughtUp(w)
		s.stop()
		cp, _, err := s.store.newest()
		if err != nil || cp == nil {
			t.Fatalf("no checkpoint: %v", err)
		}
		if cp.step != 12 || cp.record.Events != 320 {
			t.Errorf("%d steps on %d events, want 12 on 320", cp.step, cp.record.Events)
		}
		return cp.state
	}
	want := finish(t, t.TempDir())
	for name, point := range trainingPoints {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c := exec.Command(os.Args[0], "-test.run=^TestTrainingChild$")
			c.Env = append(os.Environ(), childDir+"="+dir, childPoint+"="+name)
			if said, err := c.CombinedOutput(); err == nil || c.ProcessState.Exited() {
				t.Fatalf("the child ended by itself: %v: %s", err, said)
			}
			w, _ := trainingWorld()
			left := newStation(t, trainingConfig(), w, dir)
			events := int64(0)
			for _, next := range left.cursor {
				events += next
			}
			if step := left.Status().Step; step != point.step || step != 4+2*(events-64)/64 {
				t.Errorf("%d steps and %d events are left, want %d steps", step, events, point.step)
			}
			got := finish(t, dir)
			for _, v := range []struct {
				name      string
				got, want []float32
			}{{"weights", got.Params, want.Params}, {"averages", got.EMA, want.EMA}, {"moments", got.M, want.M}} {
				if !slices.Equal(v.got, v.want) {
					t.Errorf("%s differ from those of a trainer that was never killed", v.name)
				}
			}
		})
	}
}
