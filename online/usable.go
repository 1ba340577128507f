package online

import "time"

// Few usable events are an alarm: people then rate little of the catalogue, and
// what they do rate, made for them, is no target. Learning goes on from ever
// fewer examples.
const (
	usableFew    = .1               // share of recent events below which it is one
	usableEvents = 256              // events since the start before which nothing is said
	usableEvery  = 10 * time.Minute // between two warnings while it lasts
)

// noteUsable takes an event into the share and warns while it is low.
func (t *Trainer) noteUsable(usable bool) {
	v := 0.
	if usable {
		v = 1
	}
	t.usable.add(v, shareDecay)
	t.metrics.usable.Set(t.usable.mean) // here and not with a step: without targets there is none
	few := t.usable.n >= usableEvents && t.usable.mean < usableFew
	t.mu.Lock()
	t.mu.status.Usable, t.mu.status.FewUsable = t.usable.mean, few
	t.mu.Unlock()
	if now := t.now(); few && (t.fewAt.IsZero() || now.Sub(t.fewAt) >= usableEvery) {
		t.fewAt = now
		t.log.Warn("few events can be learned from: most are of no class or of items outside the catalogue; show people more of the catalogue",
			"usable_share", t.usable.mean, "below", usableFew)
	}
}
