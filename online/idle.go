package online

import (
	"context"
	"math/rand/v2"
	"time"

	"rebeca/prior"
)

// idling is the number of steps on pseudo-users that may still be taken while
// the stream is at rest.
func (t *Trainer) idling() int64 {
	if t.record.Grown || !t.crowded() || t.unborn() > 0 {
		return 0
	}
	return max(0, int64(t.cfg.IdleSteps)-t.record.IdleTaken)
}

// idleFrom is the time from which the next of them may be taken. What events
// have taught is told first: nobody waits for the others.
func (t *Trainer) idleFrom() (at time.Time, ok bool) {
	if t.awaited || t.idling() == 0 {
		return at, false
	}
	at = t.lastEvent.Add(t.cfg.Idle)
	if t.idleAt.After(at) {
		at = t.idleAt
	}
	return at, true
}

// idleDue reports whether it is time for one.
func (t *Trainer) idleDue(now time.Time) bool {
	at, ok := t.idleFrom()
	return ok && !now.Before(at)
}

// idleStep takes one, as those of birth are taken, and has the trainer rest for
// what IdleShare leaves of the time: an event that comes is waited for by none
// of it. While the fold is busy it takes none.
func (t *Trainer) idleStep(ctx context.Context) error {
	start := t.now()
	if t.cfg.Busy != nil && t.cfg.Busy() {
		t.idleAt = start.Add(t.cfg.Idle)
		return nil
	}
	lr := rate(t.record.Idle, 0, t.cfg.IdleSteps, t.cfg.BornLR, t.cfg.LRMin)
	before := t.step
	t.resting = true // nobody waits for it
	t.record.Idle++
	t.record.IdleTaken++
	err := t.stepWith(ctx, lr, func(rng *rand.Rand) (*prior.Batch, tally, error) {
		return t.drawer.crowdBatch(rng, t.cfg.BirthTargets)
	})
	t.resting = false
	end := t.now()
	if t.step == before { // nobody had a target: the catalogue is another one by now
		t.idleAt = end.Add(t.cfg.Idle)
		return err
	}
	t.idleAt = end.Add(time.Duration(float64(end.Sub(start)) * (1/t.cfg.IdleShare - 1)))
	return err
}
