package online

import (
	"fmt"
	"maps"
	"math"
	"time"
)

// Verdict is what became of a candidate, the weights of a checkpoint.
type Verdict string

const (
	// Guarded is a version that was announced after it was held against another.
	Guarded Verdict = "guarded"
	// Unguarded is a version that was announced without: there was none before
	// it, or fewer than Config.GuardEvents held-out events.
	Unguarded Verdict = "unguarded"
	// Promoted is a version that an operator chose; it is announced unasked.
	Promoted Verdict = "promoted"
	// Refused is a candidate that scored worse beyond the bound.
	Refused Verdict = "refused"
	// Held is a candidate that was good enough while an operator's choice was
	// to stay in use.
	Held Verdict = "held"
)

// announced reports whether workers were to load it.
func (v Verdict) announced() bool { return v != Refused && v != Held }

// guard holds candidates against a reference: the newest version that did not
// score worse than the reference before it. Were it always the version in use,
// weights that rot a little with every version would pass one by one.
type guard struct {
	ema     []float32       // the reference's averaged weights; nil before the first version
	settled map[int32]int64 // cursor of the newest candidate that was decided on

	refused, returns int64 // since the start
}

// comparison is a candidate against the reference on the same events and noise.
type comparison struct {
	HeldOut       int     `json:"heldout"`                  // events that the losses are of
	HeldOutLoss   float64 `json:"heldout_loss"`             // of the candidate
	ReferenceLoss float64 `json:"reference_loss,omitempty"` // 0 without a comparison
	Worse         float64 `json:"worse,omitempty"`          // mean of the paired differences
	WorseSE       float64 `json:"worse_stderr,omitempty"`   // its standard error
	NotFinite     bool    `json:"not_finite,omitempty"`     // the candidate has no loss
}

// beyond reports whether the candidate is worse by more than the bound: a share
// of the reference's loss and some standard errors.
func (c comparison) beyond(tolerance, errors float64) bool {
	return c.NotFinite || c.Worse > tolerance*c.ReferenceLoss+errors*c.WorseSE
}

// compare scores the averaged weights on the held-out events, and against the
// reference if there are enough of them.
func (t *Trainer) compare() (comparison, error) {
	if err := t.heldOut.forget(t.people); err != nil {
		return comparison{}, err
	}
	n := t.heldOut.len()
	if n == 0 {
		return comparison{}, nil
	}
	score := func(ema []float32) ([]float64, error) {
		return t.heldOut.losses(t.learner, t.drawer.prior, stream(t.seed, streamScore, 0), ema, false)
	}
	mine, err := score(nil)
	if err != nil {
		t.log.Warn("held-out events give no score, the version goes unguarded", "err", err, "step", t.step)
		return comparison{}, nil // the guard is not what learning stands on
	}
	c := comparison{HeldOut: n, HeldOutLoss: mean(mine)}
	if math.IsNaN(c.HeldOutLoss) || math.IsInf(c.HeldOutLoss, 0) {
		c.HeldOutLoss, c.NotFinite = 0, true // JSON has no such numbers
	}
	if n < t.cfg.GuardEvents || t.guard.ema == nil {
		return c, nil
	}
	theirs, err := score(t.guard.ema)
	if err != nil {
		return comparison{}, fmt.Errorf("scoring the reference: %w", err)
	}
	c.ReferenceLoss = mean(theirs)
	if !c.NotFinite {
		c.Worse, c.WorseSE = paired(mine, theirs, t.heldOut.all())
	}
	return c, nil
}

// paired returns the mean of the differences mine - theirs and its standard
// error. The events of one person vary together and count as one draw.
func paired(mine, theirs []float64, events []heldOutEvent) (worse, se float64) {
	n := float64(len(mine))
	for i := range mine {
		worse += (mine[i] - theirs[i]) / n
	}
	at := map[string]int{}
	var sums []float64 // by user, in order of appearance: a sum over a map would vary in its last bit
	for i, e := range events {
		k, ok := at[e.user]
		if !ok {
			k = len(sums)
			at[e.user], sums = k, append(sums, 0)
		}
		sums[k] += mine[i] - theirs[i] - worse
	}
	for _, s := range sums {
		se += s * s
	}
	if len(sums) < 2 {
		return worse, math.Abs(worse) // one person proves nothing
	}
	return worse, math.Sqrt(se*float64(len(sums))/float64(len(sums)-1)) / n
}

// judge decides on the present weights.
func (t *Trainer) judge(c comparison) Verdict {
	switch compared := c.ReferenceLoss != 0; {
	case (compared || c.NotFinite && t.guard.ema != nil) && c.beyond(t.cfg.GuardTolerance, t.cfg.GuardErrors):
		return Refused
	case t.now().Before(t.record.held()):
		return Held
	case compared:
		return Guarded
	}
	return Unguarded
}

// decided notes the verdict on candidate number in the record.
func (t *Trainer) decided(number int64, v Verdict, c comparison) {
	r := &t.record
	r.Verdict, r.comparison, r.From = v, c, 0
	if r.Strikes++; v != Refused {
		r.Strikes = 0
	}
	if v.announced() {
		r.Current = number
		r.Judged = r.Judged || v == Guarded
		if v == Guarded && c.Worse <= 0 || v == Unguarded && !r.Judged {
			r.Reference = number
		}
	}
}

// withhold passes over the candidate cp: the version in use stays. After
// GuardPatience candidates in a row that were refused learning goes back to the
// reference.
func (t *Trainer) withhold(cp *checkpoint) error {
	r := cp.record
	t.guard.settled, t.lastAnnounce = maps.Clone(r.Cursor), t.now()
	if r.Verdict == Refused {
		t.metrics.refusedVersions.Inc()
		t.guard.refused++
		t.log.Warn("version refused: it scores worse on held-out events than the one it is held against",
			"version", cp.version(), "step", cp.step, "heldout_loss", r.HeldOutLoss, "reference", r.Reference, "reference_loss", r.ReferenceLoss,
			"worse", r.Worse, "stderr", r.WorseSE, "heldout", r.HeldOut, "in_a_row", r.Strikes, "not_finite", r.NotFinite)
	} else {
		t.metrics.heldVersions.Inc()
		t.log.Info("version held: an operator's choice is in use", "version", cp.version(), "until", r.held())
	}
	t.store.prune(t.cfg.Keep, r.Current, r.Reference)
	if r.spent(t.cfg.GuardPatience) {
		if err := t.goBack(); err != nil {
			return err
		}
	}
	t.publishVerdict()
	return nil
}

// goBack makes the reference the weights that learn on, moments too. Its events
// stay consumed: what was learned since is unlearned, and comes back by replay
// of the windows alone.
func (t *Trainer) goBack() error {
	cp, err := t.store.numbered(t.record.Reference)
	if err != nil {
		return fmt.Errorf("going back to the last good version: %w", err)
	}
	t.log.Warn("learning goes back to the last good version", "version", cp.version(), "step", cp.step, "from_step", t.step, "refused_in_a_row", t.record.Strikes)
	t.metrics.returns.Inc()
	t.guard.returns++
	return t.replaceWeights(cp)
}

// replaceWeights makes those of cp learn on. The random streams go on rising:
// the steps to come draw anew.
func (t *Trainer) replaceWeights(cp *checkpoint) error {
	t.fit(cp)
	t.record.Undone += t.step - cp.step
	t.record.Birth, t.record.Idle = cp.record.Birth, cp.record.Idle // of the steps in the weights: the rate counts the others
	t.lossEMA.mean, t.untold, t.awaited = cp.record.LossEMA, 0, false
	t.heldOut.renew() // or a world that has changed for good would be refused for ever
	t.close()
	t.learner = nil
	return t.adopt(cp.state)
}

// publishVerdict copies what became of the newest candidate to the status.
func (t *Trainer) publishVerdict() {
	r := t.record
	t.metrics.inARow.Set(float64(r.Strikes))
	if r.HeldOut > 0 {
		t.metrics.heldOutLoss.Set(r.HeldOutLoss)
	}
	if r.ReferenceLoss > 0 {
		t.metrics.worse.Set(r.Worse / r.ReferenceLoss)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &t.mu.status
	s.Announced, s.Untold, s.Awaited, s.Step = maps.Clone(t.guard.settled), t.untold, t.awaited, t.step
	s.HeldOut, s.HeldOutLoss = r.HeldOut, r.HeldOutLoss
	s.RefusedVersions, s.Returns = t.guard.refused, t.guard.returns
	s.Verdict, s.RefusedInARow, s.HeldUntil = r.Verdict, r.Strikes, r.held()
	t.mu.heldOut = t.heldOut.answers()
	t.publishCounts()
}

// spent reports whether a candidate's record is that of one too many in a row:
// learning then goes back to the reference.
func (r record) spent(patience int) bool {
	return r.Verdict == Refused && r.Strikes%patience == 0
}

// held is the time up to which an operator's choice stays in use.
func (r record) held() time.Time {
	if r.HoldUntil == 0 {
		return time.Time{}
	}
	return time.Unix(r.HoldUntil, 0)
}
