package online

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"time"

	"rebeca/prior"
	"rebeca/schemas"
)

// Version is a checkpoint as an operator sees it.
type Version struct {
	Number        int64     `json:"number"`
	Version       string    `json:"version"`
	Step          int64     `json:"step"`
	Events        int64     `json:"events"`  // consumed since birth of the prior
	Verdict       Verdict   `json:"verdict"` // "" for a damaged one
	Current       bool      `json:"current"` // in use
	HeldOut       int       `json:"heldout"` // events that the losses are of
	HeldOutLoss   float64   `json:"heldout_loss"`
	ReferenceLoss float64   `json:"reference_loss"` // 0: it was not compared
	Worse         float64   `json:"worse"`
	WorseSE       float64   `json:"worse_stderr"`
	From          int64     `json:"promoted_from,omitempty"`
	Law           *Law      `json:"law,omitempty"`       // of pseudo-users, the last that was fitted
	HeldUntil     time.Time `json:"held_until,omitzero"` // of the current one
	MadeAt        time.Time `json:"made_at"`
	Path          string    `json:"path"`
	Damage        string    `json:"damage,omitempty"`
}

// List returns the checkpoints in a trainer's directory by falling number. It
// reads their heads alone, and may be called beside a running trainer.
func List(dir string) ([]Version, error) {
	files, err := checkpoints{dir: dir}.list()
	if err != nil {
		return nil, err
	}
	var current int64
	var held time.Time
	out := []Version{}
	for _, f := range slices.Backward(files) {
		v := Version{Number: f.number, Version: fmt.Sprintf("%d-%s", f.number, f.prefix), Path: f.path}
		info, err := os.Stat(f.path)
		if errors.Is(err, os.ErrNotExist) {
			continue // pruned meanwhile
		} else if err != nil {
			return nil, fmt.Errorf("looking at a checkpoint: %w", err)
		}
		v.MadeAt = info.ModTime().UTC()
		h, err := prior.LoadHeader(f.path)
		var r record
		if err == nil {
			r, err = decodeRecord(f.number, h.Meta)
		}
		if err != nil {
			v.Damage = err.Error()
			out = append(out, v)
			continue
		}
		if current == 0 {
			current, held = r.Current, r.held()
		}
		v.Step, v.Events, v.Verdict, v.From = h.Step, r.Events, r.Verdict, r.From
		v.Law = r.Law
		v.HeldOut, v.HeldOutLoss, v.ReferenceLoss, v.Worse, v.WorseSE = r.HeldOut, r.HeldOutLoss, r.ReferenceLoss, r.Worse, r.WorseSE
		if v.Current = v.Number == current; v.Current {
			v.HeldUntil = held
		}
		out = append(out, v)
	}
	return out, nil
}

// Before returns the number of the version to roll back to: the newest that was
// announced before the one in use, or before the one that that was promoted
// from. versions are as of [List]. The error wraps [ErrNoVersion].
func Before(versions []Version) (int64, error) {
	byNumber := map[int64]Version{}
	var now Version
	for _, v := range versions {
		byNumber[v.Number] = v
		if v.Current {
			now = v
		}
	}
	if now.Number == 0 {
		return 0, fmt.Errorf("%w: no version is in use", ErrNoVersion)
	}
	below := now.Number
	for v, ok := now, true; ok && v.Verdict == Promoted; v, ok = byNumber[below] {
		below = v.From
	}
	best := int64(0)
	for _, v := range versions {
		if v.Number < below && v.Damage == "" && v.Verdict.announced() && v.Verdict != Promoted {
			best = max(best, v.Number)
		}
	}
	if best == 0 {
		return 0, fmt.Errorf("%w: none that was announced is older than %d", ErrNoVersion, below)
	}
	return best, nil
}

// promote writes the weights of an earlier checkpoint, moments too, as a new
// version: candidates that follow go on from it. r is the trainer's record at
// step; its cursor stays, so what was learned since the checkpoint is unlearned.
func (c checkpoints) promote(number, as int64, r record, step int64, hold time.Duration, now time.Time) (*checkpoint, error) {
	old, err := c.numbered(number)
	if err != nil {
		return nil, err
	}
	r.Cursor = maps.Clone(r.Cursor)
	r.comparison = comparison{HeldOut: old.record.HeldOut, HeldOutLoss: old.record.HeldOutLoss}
	r.Verdict, r.From, r.Strikes, r.HoldUntil = Promoted, number, 0, 0
	r.Current, r.Reference = as, as
	r.Loss, r.LossEMA = old.record.Loss, old.record.LossEMA
	r.Undone += step - old.step
	r.Birth, r.Idle, r.Student = old.record.Birth, old.record.Idle, old.record.Student
	if hold > 0 {
		r.HoldUntil = now.Add(hold).Unix()
	}
	st := old.state
	cp, err := c.save(st, as, r)
	if err != nil {
		return nil, err
	}
	cp.state = st
	return cp, nil
}

// Promote makes a checkpoint in the directory of a stopped trainer the version
// in use, under a new number; for hold no later one takes its place. The next
// start announces it and learns on from it.
func Promote(dir string, number int64, hold time.Duration, log *slog.Logger) (schemas.PriorVersion, error) {
	store := checkpoints{dir: dir, log: log}
	newest, highest, err := store.newest()
	if err != nil {
		return schemas.PriorVersion{}, fmt.Errorf("looking for checkpoints in %s: %w", dir, err)
	}
	if newest == nil {
		return schemas.PriorVersion{}, fmt.Errorf("%w: %d in %s, which has none", ErrNoVersion, number, dir)
	}
	now := time.Now()
	cp, err := store.promote(number, highest+1, newest.record, newest.step, hold, now)
	if err != nil {
		return schemas.PriorVersion{}, err
	}
	return cp.announcement(now), nil
}

// ErrNotLearning is returned by [Trainer.Promote] while there is no prior.
var ErrNotLearning = errors.New("online: no prior is born yet")

// promotion is an operator's wish, answered by Run.
type promotion struct {
	number int64
	hold   time.Duration
	answer chan<- promoted
}

type promoted struct {
	version schemas.PriorVersion
	err     error
}

// Promote is the function of that name on a running trainer: the version is
// announced and learned on from. It waits for the step under way; the error is
// ctx's if that ends first, and the wish may then still be granted. Errors wrap
// [ErrNoVersion], [ErrConfig] or [ErrNotLearning].
func (t *Trainer) Promote(ctx context.Context, number int64, hold time.Duration) (schemas.PriorVersion, error) {
	if !t.Status().Born {
		return schemas.PriorVersion{}, ErrNotLearning
	}
	answer := make(chan promoted, 1)
	select {
	case t.wishes <- promotion{number, hold, answer}:
	case <-ctx.Done():
		return schemas.PriorVersion{}, ctx.Err()
	}
	select {
	case got := <-answer:
		return got.version, got.err
	case <-ctx.Done():
		return schemas.PriorVersion{}, ctx.Err()
	}
}

// grant promotes what was wished for, if anything. What cannot be promoted is
// the operator's to hear, and changes nothing.
func (t *Trainer) grant(ctx context.Context, w promotion) error {
	old, err := t.store.numbered(w.number)
	if err == nil {
		err = compatible(old.state.Config, t.priorCfg)
	}
	if err != nil {
		w.answer <- promoted{err: err}
		return nil
	}
	cp, err := t.store.promote(w.number, t.number+1, t.record, t.step, w.hold, t.now())
	if err != nil {
		w.answer <- promoted{err: err}
		return err
	}
	if err := t.replaceWeights(cp); err != nil {
		w.answer <- promoted{err: err}
		return err
	}
	t.record = cp.record
	t.record.Cursor = maps.Clone(cp.record.Cursor)
	t.number = cp.number
	t.guard.ema, t.guard.settled = slices.Clone(cp.state.EMA), cp.record.Cursor
	cp.state = nil
	t.untoldCP = cp
	t.log.Info("an operator promoted a version", "from", w.number, "version", cp.version(), "step", cp.step, "hold", w.hold)
	v := cp.announcement(t.now())
	err = t.tell(ctx)
	w.answer <- promoted{v, err} // announced, or to be tried again
	return err
}
