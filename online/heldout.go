package online

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"rebeca/prior"
)

// heldOutSet keeps held-out events, each with its user's whole window as it was
// before the event: what a version is scored on. Events are added before the
// steps of their round, so every score is a prediction. Half of the set are the
// newest events, half the newest of those that came before the mark: a
// candidate that learns what is new at the cost of what was must show both.
type heldOutSet struct {
	limit  int            // of events in all
	newest []heldOutEvent // oldest first
	before []heldOutEvent // from before the mark, oldest first
	seen   int64          // events ever kept
	mark   int64          // seen when the version in use was announced
}

type heldOutEvent struct {
	user    string
	offset  int64
	counted uint64 // the user's events at that time
	seen    int64
	context prior.Context
	item    []float32
	label   prior.Class
}

func (h *heldOutSet) len() int { return len(h.newest) + len(h.before) }

// all are the events of both halves.
func (h *heldOutSet) all() []heldOutEvent { return slices.Concat(h.before, h.newest) }

// renew makes all events so far those from before.
func (h *heldOutSet) renew() { h.mark = h.seen }

// keep adds the events of the held-out slice among fresh.
func (h *heldOutSet) keep(d *drawer, fresh []Example) error {
	for _, e := range fresh {
		if !heldOut(e.EventHash) || e.Class == prior.ClassNone || h.limit == 0 || h.has(e.UserID, e.Offset) {
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
		if ok {
			h.add(d, l, item)
		}
	}
	return nil
}

// has reports whether an event is kept already: after a restart those of the
// windows may come again.
func (h *heldOutSet) has(user string, offset int64) bool {
	is := func(e heldOutEvent) bool { return e.user == user && e.offset == offset }
	return slices.ContainsFunc(h.newest, is) || slices.ContainsFunc(h.before, is)
}

// add keeps l.newest[0], whose embedding is item.
func (h *heldOutSet) add(d *drawer, l life, item []float32) {
	ctx := d.fill(nil, make([]prior.Entry, 0, len(l.newest)+len(l.older)), l, life{}, []int{0}, 1)
	h.newest = append(h.newest, heldOutEvent{
		user: l.user, offset: l.newest[0].Offset, counted: l.counted, seen: h.seen, context: ctx, item: item, label: l.newest[0].Class,
	})
	h.seen++
	for len(h.newest) > (h.limit+1)/2 {
		old := h.newest[0]
		h.newest = slices.Delete(h.newest, 0, 1)
		if old.seen < h.mark && h.limit > 1 {
			h.before = append(h.before, old)
		}
	}
	if over := len(h.before) - h.limit/2; over > 0 {
		h.before = slices.Delete(h.before, 0, over)
	}
}

// refillUsers bounds the users whose windows a restart reads for held-out
// events: with one event in 64 held out they have enough of them.
const refillUsers = 4096

// refill takes held-out events from the windows of random users, those of the
// highest offsets: the set is in memory only, and a restarted trainer must not
// wait for thousands of events before it can tell good from bad. What was
// forgotten or undone is in no window.
func (h *heldOutSet) refill(d *drawer, rng *rand.Rand) error {
	var found []life
	seen := map[string]bool{}
	for range min(refillUsers, 2*d.people.UserCount()) {
		l, ok, err := d.anyone(rng)
		if err != nil {
			return err
		}
		if !ok || seen[l.user] {
			continue
		}
		seen[l.user] = true
		for i, e := range l.newest {
			if e.Class == prior.ClassNone || !heldOut(e.EventHash) {
				continue
			}
			then := l
			then.newest, then.fresh = l.newest[i:], true
			then.older = slices.DeleteFunc(slices.Clone(l.older), func(o Entry) bool { return o.Offset >= e.Offset })
			found = append(found, then)
		}
	}
	slices.SortStableFunc(found, func(a, b life) int { return cmp.Compare(a.newest[0].Offset, b.newest[0].Offset) })
	h.mark = math.MaxInt64 // all of them come before what follows
	for _, l := range found[max(0, len(found)-h.limit):] {
		if item, ok := d.items.Get(l.newest[0].ItemID); ok {
			h.add(d, l, item)
		}
	}
	h.renew()
	return nil
}

// forget drops the events of users that the table no longer has, or has anew:
// a count of events that fell is another life under the same name.
func (h *heldOutSet) forget(who people) error {
	var err error
	gone := func(e heldOutEvent) bool {
		row, ok, userErr := who.User(e.user)
		if userErr != nil && err == nil {
			err = fmt.Errorf("reading user %q: %w", e.user, userErr)
		}
		return userErr == nil && (!ok || row.Events < e.counted)
	}
	h.newest, h.before = slices.DeleteFunc(h.newest, gone), slices.DeleteFunc(h.before, gone)
	return err
}

// scorer is the part of [prior.Learner] that scoring needs.
type scorer interface {
	TargetLosses(b *prior.Batch, rng *rand.Rand, ema []float32) ([]float64, error)
}

// losses returns the loss of each kept event, as [heldOutSet.all] orders them,
// by the averaged weights, or by ema in their place: the mean over Targets
// noise levels. The same events see the same noise every time. blind empties
// the contexts and drops the labels: what a model that knows nobody would score.
func (h *heldOutSet) losses(l scorer, cfg prior.Config, rng *rand.Rand, ema []float32, blind bool) ([]float64, error) {
	var out []float64
	for part := range slices.Chunk(h.all(), cfg.Contexts) {
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
		losses, err := l.TargetLosses(&b, rng, ema)
		if err != nil {
			return nil, fmt.Errorf("scoring held-out events: %w", err)
		}
		for of := range slices.Chunk(losses, cfg.Targets) {
			out = append(out, mean(of))
		}
	}
	return out, nil
}

func mean(x []float64) float64 {
	sum := 0.0
	for _, v := range x {
		sum += v
	}
	return sum / float64(len(x))
}
