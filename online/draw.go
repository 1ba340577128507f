package online

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"

	"rebeca/prior"
)

// heldOutSlice is the inverse of the share of events that are never targets.
const heldOutSlice = 64

// heldOut reports whether an event belongs to the slice that versions are
// scored on. It looks at the low bits: the reservoir of older likes keeps the
// smallest hashes, so the high ones would fill it with held-out events.
func heldOut(eventHash uint64) bool { return eventHash%heldOutSlice == 0 }

// people is what the drawer reads of the table's users.
type people interface {
	User(user string) (User, bool, error)
	UserCount() int
	UserAt(i int) string
	Resolve(user, item string) ([]float32, bool)
}

// items is what it reads of the catalogue.
type items interface {
	Get(id string) ([]float32, bool)
}

// tally counts what happened while batches were drawn.
type tally struct {
	Fresh, Replayed   int // contexts by origin
	Pseudo            int // contexts of pseudo-users
	Spliced, Emptied  int // contexts
	Unlabelled        int // contexts whose labels are dropped as well
	Cut               int // fresh contexts that lacked entries a later event had pushed out or hidden
	Gone              int // fresh events no longer in their user's window
	Entries, Unsolved int // window entries looked up, and those of no known embedding
	Targets           int
	PseudoTargets     int // of them, pseudo-users'
}

func (t *tally) add(o tally) {
	t.Fresh += o.Fresh
	t.Replayed += o.Replayed
	t.Pseudo += o.Pseudo
	t.Spliced += o.Spliced
	t.Emptied += o.Emptied
	t.Unlabelled += o.Unlabelled
	t.Cut += o.Cut
	t.Gone += o.Gone
	t.Entries += o.Entries
	t.Unsolved += o.Unsolved
	t.Targets += o.Targets
	t.PseudoTargets += o.PseudoTargets
}

// drawer assembles batches from the table. It is a function of the table, the
// fresh events and the random source it is given; its fields are scratch.
type drawer struct {
	cfg    Config
	prior  prior.Config
	people people
	items  items
	crowd  *crowd // nil: no pseudo-users

	batch   prior.Batch
	entries [][]prior.Entry // one buffer a context
	weights []float64
	chosen  []int
	tally   tally
}

func newDrawer(cfg Config, p prior.Config, who people, what items) *drawer {
	d := &drawer{cfg: cfg, prior: p, people: who, items: what, entries: make([][]prior.Entry, p.Contexts)}
	for i := range d.entries {
		d.entries[i] = make([]prior.Entry, 0, p.MaxTokens)
	}
	return d
}

// life is one user's window as a training context sees it.
type life struct {
	user    string
	counted uint64  // events of the row
	newest  []Entry // newest first
	older   []Entry // the reservoir of older likes
	fresh   bool    // newest[0] is the fresh event: always a target
}

// batchOf draws one step's batch: up to FreshShare of the contexts from fresh
// (in its order), then pseudo contexts of pseudo-users, the rest from random
// users, whom pseudo-users stand in for where there are none. The batch and what it points to
// are valid until the next call. It has no contexts when the table offers no
// target at all.
func (d *drawer) batchOf(rng *rand.Rand, fresh []Example, pseudo int) (*prior.Batch, tally, error) {
	d.batch.Contexts, d.batch.Targets, d.tally = d.batch.Contexts[:0], d.batch.Targets[:0], tally{}
	quota := int(math.Round(d.cfg.FreshShare * float64(d.prior.Contexts)))
	for _, e := range fresh {
		if d.tally.Fresh == quota {
			break
		}
		if e.Class == prior.ClassNone || heldOut(e.EventHash) {
			continue
		}
		l, ok, err := d.at(e)
		if err != nil {
			return nil, d.tally, err
		}
		if !ok {
			continue
		}
		if ok, err = d.context(rng, l); err != nil {
			return nil, d.tally, err
		} else if ok {
			d.tally.Fresh++
		}
	}
	d.invent(rng, pseudo, d.prior.Targets)
	// Users without a single target are drawn in vain: bounded, so that a table
	// full of them cannot hold the trainer.
	for tries := 4 * d.prior.Contexts; tries > 0 && len(d.batch.Contexts) < d.prior.Contexts; tries-- {
		l, ok, err := d.anyone(rng)
		if err != nil {
			return nil, d.tally, err
		}
		if !ok {
			continue
		}
		if ok, err = d.context(rng, l); err != nil {
			return nil, d.tally, err
		} else if ok {
			d.tally.Replayed++
		}
	}
	d.invent(rng, d.prior.Contexts, d.prior.Targets)
	d.tally.Targets = len(d.batch.Targets)
	return &d.batch, d.tally, nil
}

// crowdBatch draws one batch of pseudo-users alone, each with up to targets
// targets.
func (d *drawer) crowdBatch(rng *rand.Rand, targets int) (*prior.Batch, tally, error) {
	d.batch.Contexts, d.batch.Targets, d.tally = d.batch.Contexts[:0], d.batch.Targets[:0], tally{}
	d.invent(rng, d.prior.Contexts, targets)
	d.tally.Targets = len(d.batch.Targets)
	return &d.batch, d.tally, nil
}

// invent adds up to n contexts of pseudo-users, as long as there is room.
func (d *drawer) invent(rng *rand.Rand, n, targets int) {
	if d.crowd == nil {
		return
	}
	for range n {
		if len(d.batch.Contexts) == d.prior.Contexts {
			return
		}
		newest := min(d.cfg.TargetNewest, d.prior.MaxTokens)
		l, next := d.crowd.life(rng, newest, d.prior.MaxTokens-newest, targets, d.cfg.LikedWeight)
		if len(next) == 0 {
			continue
		}
		drop, c := rng.Float64(), len(d.batch.Contexts)
		ctx := d.entries[c][:0]
		if drop >= d.cfg.WindowDropout {
			for _, e := range slices.Concat(l.newest, l.older) {
				if item, ok := d.items.Get(e.ItemID); ok { // else it left the catalogue since it was sampled
					ctx = append(ctx, prior.Entry{Item: item, Class: e.Class, Older: e.Older})
				}
			}
		} else {
			d.tally.Emptied++
		}
		d.entries[c] = ctx
		d.batch.Contexts = append(d.batch.Contexts, prior.Context(ctx))
		first := len(d.batch.Targets)
		for _, e := range next {
			d.target(c, e, drop < d.cfg.LabelDropout)
		}
		d.tally.PseudoTargets += len(d.batch.Targets) - first
		if drop < d.cfg.LabelDropout {
			d.tally.Unlabelled++
		}
		d.tally.Pseudo++
	}
}

// target adds entry e as a target of context c, its label dropped if asked.
func (d *drawer) target(c int, e Entry, unlabelled bool) {
	item, ok := d.items.Get(e.ItemID)
	if !ok {
		return
	}
	label := e.Class
	if unlabelled {
		label = prior.ClassNone
	}
	d.batch.Targets = append(d.batch.Targets, prior.Target{Context: c, Item: item, Label: label})
}

// at returns the life of e's user as it was just before e, with e as newest[0].
// It reports false when e is no longer in the window: forgotten, undone, a
// resend, or pushed out by a burst.
func (d *drawer) at(e Example) (life, bool, error) {
	l, ok, err := d.life(e.UserID)
	if err != nil || !ok {
		return life{}, false, err
	}
	i := 0
	for i < len(l.newest) && l.newest[i].Offset > e.Offset {
		i++
	}
	if i == len(l.newest) || l.newest[i].Offset != e.Offset {
		d.tally.Gone++
		return life{}, false, nil
	}
	if i > 0 {
		d.tally.Cut++
	}
	l.newest, l.fresh = l.newest[i:], true
	// Older likes were pushed out of the newest part, so they precede e; the
	// filter holds the rule for any other window too.
	l.older = slices.DeleteFunc(l.older, func(o Entry) bool { return o.Offset >= e.Offset })
	return l, true, nil
}

// anyone returns the life of a random user.
func (d *drawer) anyone(rng *rand.Rand) (life, bool, error) {
	n := d.people.UserCount()
	if n == 0 {
		return life{}, false, nil
	}
	return d.life(d.people.UserAt(rng.IntN(n)))
}

// life reads a user's window. It reports false for a user without entries.
func (d *drawer) life(user string) (life, bool, error) {
	row, ok, err := d.people.User(user)
	if err != nil {
		return life{}, false, fmt.Errorf("reading user %q: %w", user, err)
	}
	if !ok || len(row.Window) == 0 {
		return life{}, false, nil
	}
	i := 0
	for i < len(row.Window) && !row.Window[i].Older {
		i++
	}
	return life{user: user, counted: row.Events, newest: row.Window[:i:i], older: row.Window[i:]}, true, nil
}

// context adds one context and its targets to the batch. It reports false when
// l holds no target.
func (d *drawer) context(rng *rand.Rand, l life) (bool, error) {
	own, past := l, life{}
	spliced := false
	if rng.Float64() < d.cfg.Splice {
		m := 1 + rng.IntN(d.cfg.SpliceNewest)
		before, ok, err := d.anyone(rng)
		if err != nil {
			return false, err
		}
		if ok && before.user != l.user {
			spliced = true
			own.newest, own.older, past = l.newest[:min(m, len(l.newest))], nil, before
			past.newest = past.newest[:min(len(past.newest), max(0, d.cfg.SpliceNewest-len(own.newest)))]
		}
	}
	targets := d.choose(rng, own)
	if len(targets) == 0 {
		return false, nil
	}
	thin, drop := 1.0, rng.Float64()
	if rng.Float64() < d.cfg.Thinned {
		thin = rng.Float64()
	}
	c := len(d.batch.Contexts)
	ctx := d.entries[c][:0]
	if drop >= d.cfg.WindowDropout {
		ctx = d.fill(rng, ctx, own, past, targets, thin)
	} else {
		d.tally.Emptied++
	}
	d.entries[c] = ctx
	d.batch.Contexts = append(d.batch.Contexts, prior.Context(ctx))
	for _, i := range targets {
		d.target(c, own.newest[i], drop < d.cfg.LabelDropout)
	}
	if drop < d.cfg.LabelDropout {
		d.tally.Unlabelled++
	}
	if spliced {
		d.tally.Spliced++
	}
	return true, nil
}

// choose returns the indices in l.newest of up to Targets targets: the fresh
// event first, the others drawn without replacement by weight.
func (d *drawer) choose(rng *rand.Rand, l life) []int {
	d.chosen, d.weights = d.chosen[:0], d.weights[:0]
	total := 0.0
	for r, e := range l.newest[:min(len(l.newest), d.cfg.TargetNewest)] {
		w := d.weight(r, e)
		if r == 0 && l.fresh {
			if w == 0 {
				return nil
			}
			d.chosen, w = append(d.chosen, 0), 0
		}
		d.weights = append(d.weights, w)
		total += w
	}
	for len(d.chosen) < d.prior.Targets && total > 1e-12 {
		x, pick := rng.Float64()*total, -1
		for i, w := range d.weights {
			if w == 0 {
				continue
			}
			pick = i
			if x -= w; x < 0 {
				break
			}
		}
		if pick < 0 {
			break
		}
		d.chosen = append(d.chosen, pick)
		d.weights[pick], total = 0, 0
		for _, w := range d.weights { // summed anew: a difference would drift
			total += w
		}
	}
	return d.chosen
}

// weight is the weight of entry e of rank r as a target, 0 if it may not be
// one. Only catalogue items may: a model that learns its own output collapses.
func (d *drawer) weight(r int, e Entry) float64 {
	if e.Class == prior.ClassNone || heldOut(e.EventHash) {
		return 0
	}
	if _, ok := d.items.Get(e.ItemID); !ok {
		return 0
	}
	w := math.Exp(-float64(r) / d.cfg.TargetDecay)
	if e.Class == prior.StrongPositive {
		w *= d.cfg.LikedWeight
	}
	return w
}

// fill appends to ctx the entries of own and past that are of no target's item,
// each kept with probability thin: newest first, older likes last.
func (d *drawer) fill(rng *rand.Rand, ctx []prior.Entry, own, past life, targets []int, thin float64) []prior.Entry {
	room := d.prior.MaxTokens
	older := len(own.older) + len(past.older)
	add := func(user string, entries []Entry, limit int) {
		for _, e := range entries {
			if len(ctx) >= limit {
				return
			}
			if e.Class == prior.ClassNone || isTarget(own.newest, targets, e.ItemID) || (thin < 1 && rng.Float64() >= thin) {
				continue
			}
			d.tally.Entries++
			item, ok := d.people.Resolve(user, e.ItemID)
			if !ok {
				d.tally.Unsolved++
				continue
			}
			ctx = append(ctx, prior.Entry{Item: item, Class: e.Class, Older: e.Older})
		}
	}
	// A window longer than the model's (other table rules) loses the end of its
	// newest part, not the older likes.
	newest := max(room-older, 0)
	add(own.user, own.newest, newest)
	add(past.user, past.newest, newest)
	add(own.user, own.older, room)
	add(past.user, past.older, room)
	return ctx
}

func isTarget(newest []Entry, targets []int, item string) bool {
	for _, i := range targets {
		if newest[i].ItemID == item {
			return true
		}
	}
	return false
}

// sampleItems returns up to n items in the order of each, a uniform sample that
// depends on the random source and on that order alone.
func sampleItems(rng *rand.Rand, n int, each func(func(id string, e []float32) bool)) []listed {
	type picked struct {
		at int
		listed
	}
	var sample []picked // Vitter's algorithm R
	at := 0
	each(func(id string, e []float32) bool {
		if len(sample) < n {
			sample = append(sample, picked{at, listed{id, e}})
		} else if j := rng.IntN(at + 1); j < n {
			sample[j] = picked{at, listed{id, e}}
		}
		at++
		return true
	})
	sort.Slice(sample, func(i, j int) bool { return sample[i].at < sample[j].at })
	out := make([]listed, len(sample))
	for i, p := range sample {
		out[i] = p.listed
	}
	return out
}

// Streams of randomness: one for the draws of a step, one for its noise, one
// each for birth, scoring and pseudo-users, so that none shifts another.
const (
	streamDraw = iota + 1
	streamNoise
	streamStats
	streamScore
	streamCrowd
	streamBall
	streamRefill
	streamStudent
	streamStudentNoise
	streamStudentSet
	streamCells
	streamLaw
)

// stream returns the random source of (seed, use, step): a restart at the same
// step draws the same.
func stream(seed uint64, use, step int64) *rand.Rand {
	// SplitMix64's finalizer spreads neighbouring steps over the state space.
	x := uint64(step)*0x9e3779b97f4a7c15 + uint64(use)*0xd1b54a32d192ed03
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return rand.New(rand.NewPCG(seed, x^x>>31))
}
