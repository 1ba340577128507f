package online

import (
	"slices"

	"rebeca/prior"
)

// HeldOutAnswer is a held-out event as a measurement sees it: what a user
// answered, and the window before. Read only.
type HeldOutAnswer struct {
	Context prior.Context
	Item    []float32 // [dim], catalogue scale
	Label   prior.Class
}

// HeldOut returns the events that the newest candidate was scored on, the
// newest last; nil before there are any. Nothing was learned from them. It may
// be called at any time.
func (t *Trainer) HeldOut() []HeldOutAnswer {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.mu.heldOut)
}

// answers are the kept events for [Trainer.HeldOut].
func (h *heldOutSet) answers() []HeldOutAnswer {
	var out []HeldOutAnswer
	for _, e := range h.all() {
		out = append(out, HeldOutAnswer{Context: e.context, Item: e.item, Label: e.label})
	}
	return out
}
