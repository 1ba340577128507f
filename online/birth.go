package online

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"rebeca/prior"
)

// birth waits for a catalogue and the first events, makes the prior, takes its
// first steps and announces version 1. Events that come meanwhile are
// consumed without end, so that nobody waits on an empty catalogue; what
// exceeds FirstEvents is owed and gets its steps afterwards.
func (t *Trainer) birth(ctx context.Context) error {
	w := growth{trainer: t}
	first, err := t.gather(ctx, &w)
	if err != nil {
		return err
	}
	if t.crowded() {
		// Pseudo-users teach the first steps; the events wait their turn.
		t.record.Owed += int64(len(first))
		return t.bornOfCatalogue(ctx)
	}
	t.record.Grown = true // events were its first lesson: a catalogue that grows later does not send it back
	return t.firstSteps(ctx, first)
}

// crowded reports whether the catalogue is large enough for pseudo-users.
func (t *Trainer) crowded() bool {
	return t.cfg.BirthSteps > 0 && t.items.Len() >= t.cfg.MinItems
}

// bornOfCatalogue takes the first steps on pseudo-users and announces version 1;
// what is left of the birth steps follows whenever no event waits.
func (t *Trainer) bornOfCatalogue(ctx context.Context) error {
	for range min(t.cfg.FirstSteps, t.cfg.BirthSteps) {
		if err := t.birthStep(ctx); err != nil {
			return err
		}
	}
	return t.release(ctx)
}

// birthStep takes one step on pseudo-users alone: those before version 1 of few
// targets, because somebody waits for it, the others of many.
func (t *Trainer) birthStep(ctx context.Context) error {
	lr, targets := t.birthRate(t.record.Birth), t.cfg.BirthTargets
	if t.record.Birth < int64(t.cfg.FirstSteps) {
		targets = min(targets, t.drawer.prior.Targets)
	}
	t.record.Birth++
	return t.stepWith(ctx, lr, func(rng *rand.Rand) (*prior.Batch, tally, error) {
		return t.drawer.crowdBatch(rng, targets)
	})
}

// birthRate is the learning rate of the birth step after n: a linear warm-up,
// then a cosine from BirthLR to LRMin over BirthSteps.
func (t *Trainer) birthRate(n int64) float64 {
	return rate(n, t.cfg.Warmup, t.cfg.BirthSteps, t.cfg.BirthLR, t.cfg.LRMin)
}

// unborn is the number of birth steps still to be taken.
func (t *Trainer) unborn() int64 {
	if t.record.Grown || !t.crowded() {
		return 0
	}
	return max(0, int64(t.cfg.BirthSteps)-t.record.Birth)
}

// growth watches the catalogue for the moment a prior can be born.
type growth struct {
	trainer *Trainer
	ready   bool
	seen    uint64    // revision
	since   time.Time // when it was first seen
}

// done reports whether the catalogue is read and large enough, or smaller and
// at rest although the first events are there.
func (g *growth) done(events int64) bool {
	t := g.trainer
	if !g.ready {
		return false
	}
	n := t.items.Len()
	if n >= t.cfg.MinItems {
		return true
	}
	now, rev := t.now(), t.items.Revision()
	if rev != g.seen || g.since.IsZero() {
		g.seen, g.since = rev, now
	}
	return n > 0 && events >= int64(t.cfg.FirstEvents) && now.Sub(g.since) >= t.cfg.Idle
}

// gather consumes events until the prior is born and FirstEvents have come;
// it returns the newest FirstEvents of them.
func (t *Trainer) gather(ctx context.Context, g *growth) ([]Example, error) {
	ready := t.ready
	var first []Example
	var events int64
	tick := time.NewTicker(max(t.cfg.Idle/8, time.Millisecond))
	defer tick.Stop()
	for {
		if t.learner == nil && g.done(events) {
			if err := t.create(); err != nil {
				return nil, err
			}
		}
		if t.learner != nil && (t.crowded() || events >= int64(t.cfg.FirstEvents)) {
			t.record.Events = events
			t.record.Owed = events - int64(len(first))
			return first, nil
		}
		select {
		case e := <-t.queue:
			t.take(e)
			if len(t.pending) == 0 {
				continue
			}
			events++
			if len(first) == t.cfg.FirstEvents {
				copy(first, first[1:])
				first = first[:len(first)-1]
			}
			first = append(first, t.pending...)
			t.pending = t.pending[:0]
			t.record.Events = events
			t.settle()
		case <-ready:
			ready, g.ready = nil, true
		case <-tick.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// create makes the prior from the catalogue as it stands.
func (t *Trainer) create() error {
	sample := sampleItems(stream(t.cfg.Seed, streamStats, 0), t.cfg.StatsItems, t.items.Each)
	embeddings := make([][]float32, len(sample))
	for i, it := range sample {
		embeddings[i] = it.e
	}
	st, err := prior.NewState(t.priorCfg, prior.NewStats(embeddings), t.cfg.Seed)
	if err != nil {
		return fmt.Errorf("making the prior: %w", err)
	}
	if err := t.adopt(st); err != nil {
		return err
	}
	t.log.Info("prior is born", "items", t.items.Len(), "statistics_of", len(sample), "parameters", len(st.Params))
	return nil
}

// firstSteps takes FirstSteps steps on the first events, going round them, and
// announces the outcome.
func (t *Trainer) firstSteps(ctx context.Context, first []Example) error {
	if err := t.heldOut.keep(t.drawer, first); err != nil {
		return err
	}
	if over := t.record.Owed - t.cfg.MaxLag; over > 0 {
		t.skip(int(over)*t.cfg.Steps/t.cfg.Round, t.record.Owed)
		t.record.Owed = t.cfg.MaxLag
	}
	each := max(1, t.cfg.Round/t.cfg.Steps)
	fresh := make([]Example, each)
	for s := range t.cfg.FirstSteps {
		for i := range fresh {
			fresh[i] = first[(s*each+i)%len(first)]
		}
		if err := t.stepOn(ctx, fresh, 0); err != nil {
			return err
		}
	}
	for _, e := range first {
		t.times.push(e.At)
	}
	t.settle()
	return t.release(ctx)
}
