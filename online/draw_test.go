package online

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"rebeca/prior"
)

// register knows the events behind the embeddings of a batch: every item has an
// embedding of its own, so its address names it.
type register struct {
	*town
	item   map[*float32]string
	events []Example
}

// randomTown makes a town of the given users with up to 60 events each. With
// unique, every event has an item of its own, so that an embedding also names
// its event. One item in eight is not in the catalogue: half of those are
// generated images of the user, half unknown.
func randomTown(seed uint64, users int, unique bool) *register {
	rng := rand.New(rand.NewPCG(seed, 7))
	r := &register{town: newTown(), item: map[*float32]string{}}
	var offset int64
	for n := range users * 30 {
		user := fmt.Sprintf("u%d", rng.IntN(users))
		item := fmt.Sprintf("i%d", rng.IntN(12))
		if unique {
			item = fmt.Sprintf("i%d", n)
		}
		if _, known := r.Resolve(user, item); !known {
			e := []float32{float32(n), 1, 2, 3}
			r.item[&e[0]] = item
			switch rng.IntN(16) {
			case 0:
				r.own[user+"/"+item] = e
			case 1:
			default:
				r.shop.add(item, e)
			}
		}
		offset += 1 + int64(rng.IntN(3))
		r.events = append(r.events, Example{
			Offset: offset, UserID: user, ItemID: item, Class: prior.Class(rng.IntN(prior.NumClasses + 1)),
			EventHash: uint64(rng.IntN(4)) * 16, // a quarter is held out
		})
	}
	r.fold(r.events...)
	return r
}

func smallPrior() prior.Config {
	c := prior.DefaultConfig(4)
	c.Hidden, c.Blocks, c.Contexts = 16, 1, 8
	return c
}

func seedGen(t *rapid.T) uint64 { return rapid.Uint64().Draw(t, "seed") }

// newest returns the last n events, oldest first.
func (r *register) newest(n int) []Example { return r.events[max(0, len(r.events)-n):] }

func TestBatchShape(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := seedGen(t)
		w := randomTown(seed, rapid.IntRange(1, 6).Draw(t, "users"), rapid.Bool().Draw(t, "unique"))
		p := smallPrior()
		p.MaxTokens = rapid.IntRange(1, 60).Draw(t, "tokens")
		d := newDrawer(DefaultConfig(), p, w, w.shop)
		b, tally, err := d.batchOf(stream(seed, streamDraw, 3), w.newest(20), 0)
		if err != nil {
			t.Fatal(err)
		}
		if len(b.Contexts) > p.Contexts || tally.Fresh+tally.Replayed != len(b.Contexts) || tally.Fresh > p.Contexts/2 {
			t.Fatalf("%d contexts of %d, tally %+v", len(b.Contexts), p.Contexts, tally)
		}
		perContext := make([]int, len(b.Contexts))
		for _, target := range b.Targets {
			perContext[target.Context]++
			id := w.item[&target.Item[0]]
			if _, ok := w.shop.Get(id); !ok {
				t.Fatalf("target %s is not in the catalogue", id)
			}
			for _, e := range b.Contexts[target.Context] {
				if w.item[&e.Item[0]] == id {
					t.Fatalf("context %d holds its target's item %s", target.Context, id)
				}
			}
		}
		for c, n := range perContext {
			if n < 1 || n > p.Targets {
				t.Fatalf("context %d has %d targets", c, n)
			}
			older := false
			if len(b.Contexts[c]) > p.MaxTokens {
				t.Fatalf("context %d has %d entries, the model takes %d", c, len(b.Contexts[c]), p.MaxTokens)
			}
			for _, e := range b.Contexts[c] {
				if older && !e.Older {
					t.Fatalf("context %d: a newest entry follows an older like", c)
				}
				if e.Class == prior.ClassNone {
					t.Fatalf("context %d: an entry has no class", c)
				}
				older = e.Older
			}
		}
	})
}

// An embedding names its event here, so labels, offsets and the held-out slice
// can be followed through.
func TestTargetsAreUsableEvents(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := seedGen(t)
		w := randomTown(seed, rapid.IntRange(1, 6).Draw(t, "users"), true)
		event := map[string]Example{}
		for _, e := range w.events {
			event[e.ItemID] = e
		}
		cfg := DefaultConfig()
		cfg.LabelDropout, cfg.WindowDropout = 0, 0
		d := newDrawer(cfg, smallPrior(), w, w.shop)
		b, _, err := d.batchOf(stream(seed, streamDraw, 1), w.newest(30), 0)
		if err != nil {
			t.Fatal(err)
		}
		if len(b.Targets) == 0 {
			t.Fatal("no targets")
		}
		user := map[int]string{}
		for _, target := range b.Targets {
			e := event[w.item[&target.Item[0]]]
			if heldOut(e.EventHash) {
				t.Fatalf("held-out event %d is a target", e.Offset)
			}
			if target.Label != e.Class {
				t.Fatalf("target has label %v, its event has class %v", target.Label, e.Class)
			}
			if u, ok := user[target.Context]; ok && u != e.UserID {
				t.Fatalf("context %d has targets of %s and %s", target.Context, u, e.UserID)
			}
			user[target.Context] = e.UserID
			row, _, _ := w.User(e.UserID)
			for _, o := range row.Window {
				if o.Offset == e.Offset && o.Older {
					t.Fatalf("older like %d is a target", e.Offset)
				}
			}
		}
	})
}

func TestFreshContextsPrecedeTheirEvent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := seedGen(t)
		w := randomTown(seed, rapid.IntRange(1, 4).Draw(t, "users"), true)
		offset := map[string]int64{}
		for _, e := range w.events {
			offset[e.ItemID] = e.Offset
		}
		cfg := DefaultConfig()
		cfg.Splice, cfg.FreshShare = 0, 1
		d := newDrawer(cfg, smallPrior(), w, w.shop)
		fresh := w.newest(40)
		at := rapid.IntRange(0, len(fresh)-1).Draw(t, "event")
		e := fresh[at]
		b, tally, err := d.batchOf(stream(seed, streamDraw, 1), fresh[at:at+1], 0)
		if err != nil {
			t.Fatal(err)
		}
		if tally.Fresh == 0 {
			return // gone from the window, of no class, held out or not in the catalogue
		}
		if got := offset[w.item[&b.Targets[0].Item[0]]]; got != e.Offset {
			t.Fatalf("the first target is event %d, not the fresh %d", got, e.Offset)
		}
		for _, target := range b.Targets {
			if target.Context == 0 && offset[w.item[&target.Item[0]]] > e.Offset {
				t.Fatalf("a target is later than the fresh event %d", e.Offset)
			}
		}
		for _, entry := range b.Contexts[0] {
			if got := offset[w.item[&entry.Item[0]]]; got >= e.Offset {
				t.Fatalf("context of event %d holds event %d", e.Offset, got)
			}
		}
	})
}

func TestDrawIsDeterministic(t *testing.T) {
	w := randomTown(5, 6, false)
	draw := func(d *drawer, step int64) *prior.Batch {
		b, _, err := d.batchOf(stream(9, streamDraw, step), w.newest(20), 0)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	a := newDrawer(DefaultConfig(), smallPrior(), w, w.shop)
	b := newDrawer(DefaultConfig(), smallPrior(), w, w.shop)
	draw(a, 1) // what was drawn before leaves no trace
	if !reflect.DeepEqual(draw(a, 2), draw(b, 2)) {
		t.Error("the same step drew different batches")
	}
	x := newDrawer(DefaultConfig(), smallPrior(), w, w.shop)
	if reflect.DeepEqual(draw(a, 2), draw(x, 3)) {
		t.Error("different steps drew the same batch")
	}
}

func TestStreamsDiffer(t *testing.T) {
	seen := map[uint64]string{}
	for seed := range uint64(4) {
		for use := int64(1); use <= streamScore; use++ {
			for step := range int64(100) {
				v := stream(seed, use, step).Uint64()
				if other, ok := seen[v]; ok {
					t.Fatalf("seed %d, use %d, step %d draws what %s draws", seed, use, step, other)
				}
				seen[v] = fmt.Sprint(seed, use, step)
			}
		}
	}
}

// fullTown has users with 28 newest entries and 24 older likes, each event of
// its own item, named by user and offset.
func fullTown(users int, class func(i int) prior.Class) *register {
	r := &register{town: newTown(), item: map[*float32]string{}}
	for i := range users * 80 {
		u := i % users
		item := fmt.Sprintf("u%d-%d", u, i/users)
		e := []float32{float32(i), 0, 0, 0}
		r.item[&e[0]] = item
		r.shop.add(item, e)
		r.events = append(r.events, Example{
			Offset: int64(i), UserID: fmt.Sprintf("u%d", u), ItemID: item, Class: class(i / users), EventHash: uint64(i)*64 + 1,
		})
	}
	r.fold(r.events...)
	return r
}

func liked(int) prior.Class { return prior.StrongPositive }

func TestTargetWeights(t *testing.T) {
	w := fullTown(1, func(i int) prior.Class {
		if i%3 == 0 {
			return prior.StrongPositive
		}
		return prior.WeakNegative
	})
	p := smallPrior()
	p.Targets = 1
	cfg := DefaultConfig()
	cfg.Splice = 0
	d := newDrawer(cfg, p, w, w.shop)
	row, _, _ := w.User("u0")
	rank := map[string]int{}
	var want [townNewest]float64
	total := 0.0
	for r, e := range row.Window[:townNewest] {
		rank[e.ItemID] = r
		want[r] = math.Exp(-float64(r) / 8)
		if e.Class == prior.StrongPositive {
			want[r] *= 4
		}
		total += want[r]
	}
	const draws = 16_000
	var got [townNewest]float64
	for step := int64(0); step < draws/int64(p.Contexts); step++ {
		b, _, err := d.batchOf(stream(1, streamDraw, step), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, target := range b.Targets {
			got[rank[w.item[&target.Item[0]]]]++
		}
	}
	for r := range want {
		expected := want[r] / total * draws
		if z := (got[r] - expected) / math.Sqrt(expected); math.Abs(z) > 4.5 {
			t.Errorf("rank %d was drawn %v times, expected %.0f", r, got[r], expected)
		}
	}
}

func TestTargetsAreDistinctEntries(t *testing.T) {
	w := fullTown(3, liked)
	d := newDrawer(DefaultConfig(), smallPrior(), w, w.shop)
	for step := range int64(50) {
		b, _, err := d.batchOf(stream(1, streamDraw, step), w.newest(8), 0)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for _, target := range b.Targets {
			key := fmt.Sprint(target.Context, w.item[&target.Item[0]])
			if seen[key] {
				t.Fatalf("step %d: %s is a target twice", step, key)
			}
			seen[key] = true
		}
	}
}

// Spliced contexts are the newest 1 to 28 own entries, targets among them, then
// another user's, whose older likes take the place of the own ones.
func TestSplice(t *testing.T) {
	w := fullTown(2, liked)
	cfg := DefaultConfig()
	cfg.Splice, cfg.Thinned, cfg.LabelDropout, cfg.WindowDropout = 1, 0, 0, 0
	d := newDrawer(cfg, smallPrior(), w, w.shop)
	var lengths [townNewest + 1]int
	spliced := 0
	for step := range int64(400) {
		b, tally, err := d.batchOf(stream(2, streamDraw, step), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		spliced += tally.Spliced
		targets := make([][]string, len(b.Contexts))
		for _, target := range b.Targets {
			targets[target.Context] = append(targets[target.Context], w.item[&target.Item[0]])
		}
		for c, ctx := range b.Contexts {
			owner := targets[c][0][:2]
			own, others, older, foreign := len(targets[c]), 0, 0, false
			for _, e := range ctx {
				mine := w.item[&e.Item[0]][:2] == owner
				switch {
				case e.Older:
					older++
				case mine && others > 0:
					t.Fatalf("step %d context %d: an own entry follows another's", step, c)
				case mine:
					own++
				default:
					others++
				}
				foreign = foreign || !mine
			}
			if !foreign {
				continue // the user met themselves: not spliced
			}
			lengths[own]++
			if own+others != townNewest || older != townLiked {
				t.Fatalf("step %d context %d: %d own, %d others, %d older likes", step, c, own, others, older)
			}
		}
	}
	// Half of the draws of the other user give the user themselves.
	if share := float64(spliced) / (400 * 8); math.Abs(share-.5) > .05 {
		t.Errorf("%.2f of the contexts are spliced, expected about half", share)
	}
	for m := 1; m <= townNewest; m++ {
		expected := float64(spliced) / townNewest
		if z := (float64(lengths[m]) - expected) / math.Sqrt(expected); math.Abs(z) > 4.5 {
			t.Errorf("own part of %d: %d times, expected %.0f", m, lengths[m], expected)
		}
	}
}

func TestRates(t *testing.T) {
	w := fullTown(20, liked)
	cfg := DefaultConfig()
	cfg.Splice = 0
	p := smallPrior()
	d := newDrawer(cfg, p, w, w.shop)
	contexts, emptied, unlabelled, whole, short := 0, 0, 0, 0, 0
	for step := range int64(1000) {
		b, tally, err := d.batchOf(stream(3, streamDraw, step), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		contexts += len(b.Contexts)
		emptied += tally.Emptied
		for _, ctx := range b.Contexts {
			if len(ctx) == townNewest+townLiked-p.Targets {
				whole++
			} else if n := len(ctx); n > 0 && n < 12 {
				short++
			}
		}
		for _, target := range b.Targets {
			if target.Label != prior.ClassNone {
				continue
			}
			unlabelled++
			if len(b.Contexts[target.Context]) > 0 {
				t.Fatal("a dropped label has a context")
			}
		}
	}
	for _, r := range []struct {
		name      string
		got, want float64
	}{
		{"emptied", float64(emptied), cfg.WindowDropout},
		{"unlabelled", float64(unlabelled) / float64(p.Targets), cfg.LabelDropout},
		// A thinned context keeps k of its 48 entries with probability 1/49 for
		// every k: a uniform share.
		{"short", float64(short), (1 - cfg.WindowDropout) * .5 * 11 / 49},
		{"whole", float64(whole), (1 - cfg.WindowDropout) * (.5 + .5/49)},
	} {
		if got := r.got / float64(contexts); math.Abs(got-r.want) > .018 {
			t.Errorf("%s: %.3f of the contexts, expected %.3f", r.name, got, r.want)
		}
	}
}

// A burst folds later events before the trainer reads the earlier ones.
func TestBurst(t *testing.T) {
	w := fullTown(1, liked)
	d := newDrawer(DefaultConfig(), smallPrior(), w, w.shop)
	_, tally, err := d.batchOf(stream(1, streamDraw, 0), []Example{
		w.events[79-40], // pushed out of the newest part
		w.events[79-10], // ten later events are folded
		w.events[79],    // the newest
	}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if tally.Gone != 1 || tally.Cut != 1 || tally.Fresh != 2 {
		t.Errorf("tally %+v, expected 1 gone, 1 cut, 2 fresh", tally)
	}
}

func TestGeneratedImagesAreContextOnly(t *testing.T) {
	w := fullTown(1, liked)
	seen := map[string]int{}
	image, known := []float32{9, 9, 9, 9}, []float32{8, 8, 8, 8}
	w.item[&image[0]], w.item[&known[0]] = "image", "known"
	w.own["u0/image"] = image
	w.shop.add("known", known)
	var extra []Example
	for i, item := range []string{"image", "nowhere", "known"} {
		extra = append(extra, Example{
			Offset: int64(1000 + i), UserID: "u0", ItemID: item, Class: prior.StrongPositive, EventHash: 1,
		})
	}
	w.fold(extra...)
	cfg := DefaultConfig()
	cfg.Thinned, cfg.WindowDropout, cfg.LabelDropout, cfg.Splice = 0, 0, 0, 0
	d := newDrawer(cfg, smallPrior(), w, w.shop)
	b, tally, err := d.batchOf(stream(1, streamDraw, 0), extra, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, ctx := range b.Contexts {
		for _, e := range ctx {
			seen[w.item[&e.Item[0]]]++
		}
	}
	for _, target := range b.Targets {
		if id := w.item[&target.Item[0]]; id == "image" || id == "nowhere" {
			t.Errorf("%s is a target", id)
		}
	}
	if tally.Fresh != 1 {
		t.Errorf("%d fresh contexts, only the catalogue's item may make one", tally.Fresh)
	}
	if seen["image"] != len(b.Contexts) {
		t.Errorf("the generated image is in %d of %d contexts", seen["image"], len(b.Contexts))
	}
	if tally.Unsolved != len(b.Contexts) {
		t.Errorf("the unknown item was counted %d times in %d contexts", tally.Unsolved, len(b.Contexts))
	}
}

func TestEmptyTables(t *testing.T) {
	empty := newTown()
	unknown := newTown()
	unknown.fold(Example{UserID: "u", ItemID: "nowhere", Class: prior.StrongPositive, EventHash: 1})
	silent := newTown()
	silent.fold(Example{UserID: "u", ItemID: "nowhere", Class: prior.ClassNone, EventHash: 1})
	for name, w := range map[string]*town{"no users": empty, "no item known": unknown, "no entries": silent} {
		d := newDrawer(DefaultConfig(), smallPrior(), w, w.shop)
		b, _, err := d.batchOf(stream(1, streamDraw, 0), []Example{{UserID: "u", ItemID: "nowhere", Class: prior.StrongPositive, EventHash: 1}}, 0)
		if err != nil || len(b.Contexts) != 0 || len(b.Targets) != 0 {
			t.Errorf("%s: %d contexts, %d targets, %v", name, len(b.Contexts), len(b.Targets), err)
		}
	}
}

type brokenTown struct{ *town }

func (brokenTown) User(string) (User, bool, error) {
	return User{}, false, fmt.Errorf("disk on fire")
}

func TestTableErrors(t *testing.T) {
	w := fullTown(2, liked)
	d := newDrawer(DefaultConfig(), smallPrior(), brokenTown{w.town}, w.shop)
	if _, _, err := d.batchOf(stream(1, streamDraw, 0), nil, 0); err == nil {
		t.Error("replay: no error")
	}
	if _, _, err := d.batchOf(stream(1, streamDraw, 0), w.newest(1), 0); err == nil {
		t.Error("fresh: no error")
	}
}

func TestSampleItems(t *testing.T) {
	w := newTown()
	for i := range 50 {
		w.shop.add(fmt.Sprintf("%03d", i), []float32{float32(i)})
	}
	if got := sampleItems(stream(1, streamStats, 0), 100, w.shop.Each); len(got) != 50 {
		t.Errorf("%d of 50 items", len(got))
	}
	var count [50]int
	const rounds = 5000
	for r := range int64(rounds) {
		last := float32(-1)
		sample := sampleItems(stream(1, streamStats, r), 10, w.shop.Each)
		if len(sample) != 10 {
			t.Fatalf("%d items", len(sample))
		}
		for _, it := range sample {
			e := it.e
			if e[0] <= last {
				t.Fatal("not in order of id")
			}
			last = e[0]
			count[int(e[0])]++
		}
	}
	for i, n := range count {
		if z := (float64(n) - rounds/5) / math.Sqrt(rounds/5*.8); math.Abs(z) > 4.5 {
			t.Errorf("item %d was drawn %d times of %d", i, n, rounds/5)
		}
	}
}

// A window longer than the model's context loses the end of its newest part.
func TestLongWindowsKeepTheirOlderLikes(t *testing.T) {
	w := fullTown(2, liked)
	cfg := DefaultConfig()
	cfg.Splice, cfg.Thinned, cfg.LabelDropout, cfg.WindowDropout = 0, 0, 0, 0
	p := smallPrior()
	p.MaxTokens = 30
	d := newDrawer(cfg, p, w, w.shop)
	b, _, err := d.batchOf(stream(1, streamDraw, 0), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for c, ctx := range b.Contexts {
		older := 0
		for _, e := range ctx {
			if e.Older {
				older++
			}
		}
		if len(ctx) != 30 || older != townLiked {
			t.Errorf("context %d: %d entries, %d older likes; expected 30 and %d", c, len(ctx), older, townLiked)
		}
	}
}
