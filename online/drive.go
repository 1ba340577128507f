package online

import (
	"context"
	"fmt"
	"time"
)

// Drive is a trainer that is led by its caller, in the place of [Trainer.Run]:
// it starts no goroutine and sees no clock, so the same calls give the same
// weights and the same versions. Rounds, steps, birth and scores are those of
// Run; versions are announced by AnnounceSteps alone, and by Rest. It is not
// safe for concurrent use; Status may still be called from anywhere.
type Drive struct {
	t     *Trainer
	first []Example // of a trainer that is to be born of events
}

// Drive returns the trainer led by hand. It is called once, after Open, when the
// catalogue has been read, and excludes Run.
func (t *Trainer) Drive() *Drive {
	start := t.now()
	t.now = func() time.Time { return start }
	t.lastEvent, t.lastAnnounce = start, start
	return &Drive{t: t}
}

// Begin continues from the checkpoint that Open loaded or, where the catalogue is
// large enough for pseudo-users, makes the prior and takes all its birth steps.
// A prior of a smaller catalogue is born by Learn, of the first events.
func (d *Drive) Begin(ctx context.Context) error {
	t := d.t
	if t.loaded != nil {
		return t.begin(ctx)
	}
	if t.items.Len() == 0 || !t.crowded() {
		return nil
	}
	if err := t.create(); err != nil {
		return err
	}
	if err := t.bornOfCatalogue(ctx); err != nil {
		return err
	}
	return d.grow(ctx)
}

// grow takes what is left of the birth steps.
func (d *Drive) grow(ctx context.Context) error {
	for d.t.unborn() > 0 {
		if err := d.t.birthStep(ctx); err != nil {
			return err
		}
		if err := d.t.announceIfDue(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Learn takes events, of each partition in offset order and after the table has
// folded them, and the steps of all full rounds; what is less than a round waits
// for the next call.
func (d *Drive) Learn(ctx context.Context, events []Example) error {
	t := d.t
	for _, e := range events {
		t.take(e)
	}
	if t.learner == nil {
		return d.deliver(ctx)
	}
	for len(t.pending) >= t.cfg.Round {
		if err := t.round(ctx, t.cfg.Round); err != nil {
			return err
		}
		if err := t.announceIfDue(ctx); err != nil {
			return err
		}
	}
	return nil
}

// deliver makes the prior of the first events, once there are enough.
func (d *Drive) deliver(ctx context.Context) error {
	t := d.t
	d.first = append(d.first, t.pending...)
	t.pending = t.pending[:0]
	events := int64(len(d.first))
	t.record.Events = events
	if t.items.Len() == 0 || events < int64(t.cfg.FirstEvents) {
		return nil
	}
	if err := t.create(); err != nil {
		return err
	}
	newest := d.first[len(d.first)-t.cfg.FirstEvents:]
	d.first = nil
	t.record.Owed, t.record.Grown = events-int64(len(newest)), true
	if err := t.firstSteps(ctx, newest); err != nil {
		return err
	}
	for t.record.Owed > 0 {
		if err := t.round(ctx, 0); err != nil {
			return err
		}
	}
	return nil
}

// Rest takes the partial round that waits and announces what is untold: the last
// version then knows every event that was learned.
func (d *Drive) Rest(ctx context.Context) error {
	t := d.t
	if t.learner == nil {
		return nil
	}
	if n := len(t.pending); n > 0 {
		if err := t.round(ctx, n); err != nil {
			return err
		}
	}
	if t.untoldCP != nil {
		if err := t.tell(ctx); err != nil {
			return err
		}
	}
	if err := t.release(ctx); err != nil {
		return err
	}
	if t.untoldCP != nil {
		return fmt.Errorf("version %s was not taken", t.untoldCP.version())
	}
	return nil
}

// Close frees the learner.
func (d *Drive) Close() { d.t.close() }
