package online

import (
	"context"
	"maps"
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
	// What idle steps teach can wait for the last of them, or until they are many.
	waited := t.awaited || t.idling() == 0
	atRest := t.unborn() == 0 && len(t.queue) == 0 && len(t.pending) == 0 && t.record.Owed == 0 && now.Sub(t.lastEvent) >= t.cfg.Idle
	enough := t.cfg.AnnounceSteps
	if t.unborn() > 0 { // a newborn is twice as good after twice the steps: do not wait for many
		enough = min(enough, max(t.cfg.FirstSteps, int(t.step)-t.untold))
	}
	if t.untold >= enough || waited && (now.Sub(t.lastAnnounce) >= t.cfg.AnnounceEvery || atRest) {
		return t.release(ctx)
	}
	return nil
}

// release saves the weights as a new version and announces it, if there are
// untold steps.
func (t *Trainer) release(ctx context.Context) error {
	if t.untold == 0 || t.cramped() {
		return nil
	}
	c, err := t.compare()
	if err != nil {
		return err
	}
	if err := t.examine(); err != nil {
		return err
	}
	number := t.number + 1
	t.decided(number, t.judge(c), c)
	r := t.record
	r.Cursor = maps.Clone(r.Cursor)
	st := t.learner.State()
	cp, err := t.store.save(st, number, r)
	if err != nil {
		return err
	}
	t.number, t.untold, t.awaited = number, 0, false
	if r.Verdict != Held {
		cp.times, t.times = t.times.all(), newEventTimes()
	}
	if !r.Verdict.announced() {
		return t.withhold(cp)
	}
	if r.Reference == number {
		t.guard.ema = st.EMA
	}
	t.untoldCP, t.guard.settled = cp, r.Cursor
	t.heldOut.renew()
	return t.tell(ctx)
}

// cramped reports whether there is no room for a checkpoint now, and says so
// when that begins.
func (t *Trainer) cramped() bool {
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
	t.mu.status.Version, t.mu.status.Number = v.Version, v.Number
	t.mu.Unlock()
	t.publishVerdict()
	t.log.Info("version announced", "version", v.Version, "step", v.Step, "loss", cp.record.LossEMA, "verdict", cp.record.Verdict,
		"heldout_loss", cp.record.HeldOutLoss, "worse", cp.record.Worse, "stderr", cp.record.WorseSE)
	t.store.prune(t.cfg.Keep, t.record.Current, t.record.Reference)
	return nil
}

// announcement is the record of c on `prior`.
func (c *checkpoint) announcement(at time.Time) schemas.PriorVersion {
	m := map[string]float64{
		"loss": c.record.Loss, "loss_ema": c.record.LossEMA,
		"examples": float64(c.record.Examples), "pseudo_examples": float64(c.record.Pseudo), "events": float64(c.record.Events),
	}
	switch c.record.Verdict {
	case Unguarded:
		m["unguarded"] = 1
	case Promoted:
		m["promoted_from"] = float64(c.record.From)
	case Guarded:
		m["heldout_reference_loss"], m["heldout_worse"], m["heldout_worse_stderr"] = c.record.ReferenceLoss, c.record.Worse, c.record.WorseSE
	}
	c.record.studentMetrics(m)
	if c.record.HeldOut > 0 {
		m["heldout_loss"], m["heldout_events"] = c.record.HeldOutLoss, float64(c.record.HeldOut)
	}
	return schemas.PriorVersion{
		Version: c.version(), Number: c.number, Step: c.step, URI: c.path, SHA256: c.sha256, Metrics: m, CreatedAt: at,
	}
}
