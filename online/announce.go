package online

import (
	"context"
	"maps"
	"math"
	"time"

	"rebeca/schemas"
)

// retryAfter is the pause after an announcement that did not succeed.
const retryAfter = time.Second

// announceIfDue makes a version of the untold steps when they are many, old or
// the stream is at rest, and repeats an announcement that is still to be made.
func (t *Trainer) announceIfDue(ctx context.Context) error {
	now := t.now()
	if t.untoldCP != nil {
		if now.Before(t.retryAt) {
			return nil
		}
		return t.tell(ctx)
	}
	atRest := t.unborn() == 0 && len(t.queue) == 0 && len(t.pending) == 0 && t.record.Owed == 0 && now.Sub(t.lastEvent) >= t.cfg.Idle
	enough := t.cfg.AnnounceSteps
	if t.unborn() > 0 { // a newborn is twice as good after twice the steps: do not wait for many
		enough = min(enough, max(t.cfg.FirstSteps, int(t.step)-t.untold))
	}
	if t.untold >= enough || now.Sub(t.lastAnnounce) >= t.cfg.AnnounceEvery || atRest {
		return t.release(ctx)
	}
	return nil
}

// release saves the weights as a new version and announces it, if there are
// untold steps.
func (t *Trainer) release(ctx context.Context) error {
	if t.untold == 0 || t.refused() {
		return nil
	}
	if err := t.score(); err != nil {
		return err
	}
	number := t.number + 1
	r := t.record
	r.Cursor = maps.Clone(r.Cursor)
	cp, err := t.store.save(t.learner.State(), number, r)
	if err != nil {
		return err
	}
	cp.times, t.times = t.times.all(), newEventTimes()
	t.number, t.untoldCP, t.untold = number, cp, 0
	return t.tell(ctx)
}

// refused reports whether there is no room for a checkpoint now, and says so
// when that begins.
func (t *Trainer) refused() bool {
	if t.cfg.Room == nil {
		return false
	}
	if now := t.now(); !now.Before(t.roomAt) {
		before := t.roomErr
		t.roomErr, t.roomAt = t.cfg.Room(), now.Add(retryAfter)
		if t.roomErr != nil && before == nil {
			t.log.Error("no checkpoint is written until there is room", "err", t.roomErr)
		}
	}
	return t.roomErr != nil
}

// score notes the averaged weights' loss on the held-out events. A score that
// is not finite is left out: the guard is not what learning stands on.
func (t *Trainer) score() error {
	t.record.HeldOut, t.record.HeldOutLoss = 0, 0
	if err := t.heldOut.forget(t.people); err != nil {
		return err
	}
	loss, ok, err := t.heldOut.score(t.learner, t.drawer.prior, stream(t.seed, streamScore, 0), false)
	if err != nil || math.IsNaN(loss) || math.IsInf(loss, 0) {
		t.log.Warn("held-out events give no score", "loss", loss, "err", err, "step", t.step)
		return nil
	}
	if ok {
		t.record.HeldOut, t.record.HeldOutLoss = len(t.heldOut.events), loss
		t.metrics.heldOutLoss.Set(loss)
	}
	return nil
}

// tell announces untoldCP. An announcement that does not succeed is tried
// again; meanwhile learning goes on.
func (t *Trainer) tell(ctx context.Context) error {
	cp := t.untoldCP
	v := cp.announcement(t.now())
	if err := t.announce(ctx, v); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		t.metrics.announceErrors.Inc()
		t.log.Warn("announcing a version, to be tried again", "version", v.Version, "err", err)
		t.retryAt = t.now().Add(retryAfter)
		return nil
	}
	now := t.now()
	t.untoldCP, t.lastAnnounce = nil, now
	for _, at := range cp.times {
		t.metrics.eventToWeights.Observe(max(0, now.Sub(at).Seconds()))
	}
	t.metrics.announced.Inc()
	t.metrics.version.Set(float64(cp.number))
	t.mu.Lock()
	s := &t.mu.status
	s.Version, s.Number, s.Announced = v.Version, v.Number, cp.record.Cursor
	s.HeldOut, s.HeldOutLoss = cp.record.HeldOut, cp.record.HeldOutLoss
	t.mu.Unlock()
	t.log.Info("version announced", "version", v.Version, "step", v.Step, "loss", cp.record.LossEMA, "heldout_loss", cp.record.HeldOutLoss)
	t.store.prune(t.cfg.Keep)
	return nil
}

// announcement is the record of c on `prior`. It is marked unguarded: nothing
// refuses a version that scores worse than the one before.
func (c *checkpoint) announcement(at time.Time) schemas.PriorVersion {
	m := map[string]float64{
		"loss": c.record.Loss, "loss_ema": c.record.LossEMA, "unguarded": 1,
		"examples": float64(c.record.Examples), "events": float64(c.record.Events),
	}
	if c.record.HeldOut > 0 {
		m["heldout_loss"], m["heldout_events"] = c.record.HeldOutLoss, float64(c.record.HeldOut)
	}
	return schemas.PriorVersion{
		Version: c.version(), Number: c.number, Step: c.step, URI: c.path, SHA256: c.sha256, Metrics: m, CreatedAt: at,
	}
}
