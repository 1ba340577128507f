package online

import (
	"maps"
	"math"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"rebeca/prior"
)

// idler is a trainer born in 4 steps with some steps to take at rest.
func idler(t *testing.T, dir string, change func(*Config)) (*station, *clusters) {
	cfg := quick()
	cfg.BirthSteps, cfg.PseudoShare, cfg.FirstSteps, cfg.IdleSteps, cfg.IdleShare = 4, .25, 4, 6, 1
	change(&cfg)
	w := newClusters(4, 8, 60)
	s := newStation(t, cfg, w, dir)
	s.CatalogueReady()
	return s, w
}

// TestIdleStepsAreCounted has nobody come: the steps are taken, told by number
// and with the last, and neither go on nor come back after a restart.
func TestIdleStepsAreCounted(t *testing.T) {
	dir := t.TempDir()
	s, w := idler(t, dir, func(c *Config) { c.BirthSteps, c.FirstSteps, c.AnnounceSteps = 4, 3, 4 })
	s.run()
	await(t, "the last step is told", func() bool { return s.last().Step == 10 })
	var steps []int64
	for _, v := range s.heard() {
		steps = append(steps, v.Step)
	}
	if want := []int64{3, 4, 8, 10}; !slices.Equal(steps, want) { // the end of birth does not wait for idle steps
		t.Errorf("versions are of steps %v, expected %v", steps, want)
	}
	s.push(w.events(64, 8))
	await(t, "the events are known", func() bool { return s.last().Step == 12 && maps.Equal(s.Status().Announced, s.Status().Cursor) })
	if st := s.Status(); st.Idle != 6 {
		t.Errorf("%d idle steps were taken", st.Idle)
	}
	s.stop()
	if got, want := s.rate(s.step), rate(2, s.cfg.Warmup, s.cfg.DecaySteps, s.cfg.BornLR, s.cfg.LRMin); math.Abs(got-want) > 1e-9 {
		t.Errorf("the rate after two steps on events is %v, not %v", got, want)
	}
	s, w2 := idler(t, dir, func(*Config) {})
	w2.offsets = w.offsets
	s.run()
	s.push(w2.events(64, 8))
	await(t, "more is known", func() bool { return s.last().Step == 14 })
	s.stop()
	if s.step != 14 || s.record.Idle != 6 {
		t.Errorf("after a restart %d steps and %d idle ones", s.step, s.record.Idle)
	}
}

// TestEventsDoNotWaitForIdleSteps has the trainer pause for ages after an idle
// step: events are learned and told all the same.
func TestEventsDoNotWaitForIdleSteps(t *testing.T) {
	s, w := idler(t, t.TempDir(), func(c *Config) { c.IdleSteps, c.IdleShare = 1000, 1e-9 })
	s.run()
	await(t, "an idle step is taken", func() bool { return s.Status().Idle == 1 })
	s.push(w.events(100, 8))
	await(t, "the events are known", func() bool {
		st := s.Status()
		return st.Events == 100 && st.Backlog == 0 && maps.Equal(st.Announced, st.Cursor)
	})
	if v := s.last(); v.Metrics["events"] != 100 {
		t.Errorf("the last version knows %v events", v.Metrics["events"])
	}
	s.push([]Example{{Partition: 0, Offset: w.offsets[0], Class: prior.ClassNone}})
	await(t, "a record that teaches nothing is settled", func() bool {
		st := s.Status()
		return st.Announced[0] == w.offsets[0]+1
	})
	s.stop()
}

// TestNoIdleStepsWhileBusy has a fold that is busy for good.
func TestNoIdleStepsWhileBusy(t *testing.T) {
	var asked atomic.Int64
	s, _ := idler(t, t.TempDir(), func(c *Config) {
		c.Idle = time.Millisecond
		c.CPUShare, c.Busy = 1, func() bool { asked.Add(1); return true }
	})
	s.run()
	await(t, "the trainer asks whether it may", func() bool { return asked.Load() > 3 })
	s.stop()
	if n := s.Status().Idle; n != 0 {
		t.Errorf("%d idle steps while the fold was busy", n)
	}
}

// TestIdleBudgetOutlivesAReturn goes back to a version before the idle steps:
// they are no longer in the weights, and are not taken again.
func TestIdleBudgetOutlivesAReturn(t *testing.T) {
	s, _ := idler(t, t.TempDir(), func(*Config) {})
	s.run()
	await(t, "the last step is told", func() bool { return s.last().Step == 10 })
	if _, err := s.Promote(t.Context(), s.heard()[0].Number, 0); err != nil {
		t.Fatal(err)
	}
	s.stop()
	if s.step != 4 || s.record.Idle != 0 || s.idling() != 0 {
		t.Errorf("step %d, %d idle steps in the weights, %d to be taken", s.step, s.record.Idle, s.idling())
	}
}
