package online

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"rebeca/prior"
)

// heldOutSet keeps the newest held-out events, each with its user's whole
// window as it was before the event: what a version is scored on. Events are
// added before the steps of their round, so every score is a prediction.
type heldOutSet struct {
	limit  int
	events []heldOutEvent // oldest first, at most limit
}

type heldOutEvent struct {
	user    string
	counted uint64 // the user's events at that time
	context prior.Context
	item    []float32
	label   prior.Class
}

// keep adds the events of the held-out slice among fresh.
func (h *heldOutSet) keep(d *drawer, fresh []Example) error {
	for _, e := range fresh {
		if !heldOut(e.EventHash) || e.Class == prior.ClassNone || h.limit == 0 {
			continue
		}
		item, ok := d.items.Get(e.ItemID)
		if !ok {
			continue
		}
		l, ok, err := d.at(e)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		ctx := d.fill(nil, make([]prior.Entry, 0, len(l.newest)+len(l.older)), l, life{}, []int{0}, 1)
		if len(h.events) == h.limit {
			h.events = slices.Delete(h.events, 0, 1)
		}
		h.events = append(h.events, heldOutEvent{user: e.UserID, counted: l.counted, context: ctx, item: item, label: e.Class})
	}
	return nil
}

// forget drops the events of users that the table no longer has, or has anew:
// a count of events that fell is another life under the same name.
func (h *heldOutSet) forget(who people) error {
	var err error
	h.events = slices.DeleteFunc(h.events, func(e heldOutEvent) bool {
		row, ok, userErr := who.User(e.user)
		if userErr != nil && err == nil {
			err = fmt.Errorf("reading user %q: %w", e.user, userErr)
		}
		return userErr == nil && (!ok || row.Events < e.counted)
	})
	return err
}

// scorer is the part of [prior.Learner] that scoring needs.
type scorer interface {
	Loss(b *prior.Batch, rng *rand.Rand, ema bool) (float64, error)
}

// score returns the mean loss of the averaged weights on the kept events, each
// at Targets noise levels; the same events see the same noise every time.
// blind empties the contexts and drops the labels: what a model that knows
// nobody would score. ok is false when no event is kept.
func (h *heldOutSet) score(l scorer, cfg prior.Config, rng *rand.Rand, blind bool) (loss float64, ok bool, err error) {
	if len(h.events) == 0 {
		return 0, false, nil
	}
	sum, n := 0.0, 0
	for part := range slices.Chunk(h.events, cfg.Contexts) {
		b := prior.Batch{}
		for c, e := range part {
			if blind {
				e.context, e.label = nil, prior.ClassNone
			}
			b.Contexts = append(b.Contexts, e.context)
			for range cfg.Targets {
				b.Targets = append(b.Targets, prior.Target{Context: c, Item: e.item, Label: e.label})
			}
		}
		loss, err := l.Loss(&b, rng, true)
		if err != nil {
			return 0, false, fmt.Errorf("scoring held-out events: %w", err)
		}
		sum += loss * float64(len(b.Targets))
		n += len(b.Targets)
	}
	return sum / float64(n), true, nil
}
