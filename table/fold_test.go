package table

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"rebeca/prior"
	"rebeca/schemas"
)

// Any stream of one user, through the pure fold and through encoding and decoding after each event, gives the model's row.
func TestFoldIsTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := DefaultRules()
		rules.Newest = rapid.IntRange(1, 6).Draw(t, "newest")
		rules.Liked = rapid.IntRange(0, 5).Draw(t, "liked")
		rules.Dedupe = rapid.IntRange(1, 8).Draw(t, "dedupe")
		kinds := rapid.SampledFrom(schemas.Kinds())
		m, items, r := newModel(rules), newInterner(), row{last: -1}
		for offset := range int64(rapid.IntRange(0, 60).Draw(t, "events")) {
			rec := event(offset, "u", fmt.Sprint("i", rapid.IntRange(0, 9).Draw(t, "item")), kinds.Draw(t, "kind"))
			rec.Feedback.EventID = fmt.Sprint("e", rapid.IntRange(0, 200).Draw(t, "event"))
			if v := rapid.Float64Range(1, 5).Draw(t, "value"); rec.Feedback.Kind == schemas.KindRating {
				rec.Feedback.Value = &v
			}
			before := m.events
			m.apply(rec)
			if fresh := r.fold(&rules, rec.Feedback, offset, items); fresh != (m.events > before) {
				t.Fatalf("event %d: fresh %v, model %v", offset, fresh, m.events > before)
			}
			var again row
			if err := again.decode(r.encode()); err != nil {
				t.Fatal(err)
			}
			r = again
			got, err := r.public("u", 0, items.names())
			if err != nil {
				t.Fatal(err)
			}
			if want := m.row("u"); !reflect.DeepEqual(got, want) {
				t.Fatalf("after event %d\n got %+v\nwant %+v", offset, got, want)
			}
		}
	})
}

// However many likes leave the newest part, the older likes are those with the smallest hashes among them.
func TestReservoirKeepsTheSmallestHashes(t *testing.T) {
	rules := DefaultRules()
	r, items := row{}, newInterner()
	var hashes []uint64
	for i := range int64(500) {
		f := event(i, "u", fmt.Sprint("i", i), schemas.KindLike).Feedback
		r.fold(&rules, f, i, items)
		hashes = append(hashes, schemas.EventHash(f.EventID))
		left := slices.Sorted(slices.Values(hashes[:max(0, len(hashes)-rules.Newest)]))
		var got []uint64
		for _, e := range r.older {
			got = append(got, e.hash)
		}
		if slices.Sort(got); !slices.Equal(got, left[:min(len(left), rules.Liked)]) {
			t.Fatalf("after %d likes: %v, want %v", i+1, got, left[:min(len(left), rules.Liked)])
		}
	}
}

// Over many users each like that left has the same chance: the mean rank of what stays is the mean of all ranks.
func TestReservoirIsUniform(t *testing.T) {
	rules := DefaultRules()
	const events, users = 228, 200
	left := events - rules.Newest
	sum, n := 0., 0
	for u := range users {
		r, items := row{}, newInterner()
		for i := range int64(events) {
			f := event(i, "u", "x", schemas.KindLike).Feedback
			f.EventID = fmt.Sprint(u, "/", i)
			r.fold(&rules, f, i, items)
		}
		for _, e := range r.older {
			sum += float64(e.offset)
			n++
		}
	}
	// The standard error of the mean of n uniform ranks in 0..left-1 is left/sqrt(12 n) = .83; five of them.
	if mean, want := sum/float64(n), float64(left-1)/2; n != users*rules.Liked || mean < want-4.2 || mean > want+4.2 {
		t.Errorf("mean rank %.1f of %d kept, want %.1f of %d", mean, n, want, users*rules.Liked)
	}
}

func TestDedupeBoundary(t *testing.T) {
	for _, c := range []struct {
		others int
		fresh  bool
	}{{0, false}, {1, false}, {63, false}, {64, true}, {65, true}} {
		rules := DefaultRules()
		r, items := row{}, newInterner()
		first := event(0, "u", "x", schemas.KindLike).Feedback
		r.fold(&rules, first, 0, items)
		for i := range int64(c.others) {
			r.fold(&rules, event(i+1, "u", "y", schemas.KindView).Feedback, i+1, items)
		}
		if fresh := r.fold(&rules, first, 1000, items); fresh != c.fresh {
			t.Errorf("resent after %d other ids: fresh %v, want %v", c.others, fresh, c.fresh)
		}
	}
}

// A resend does not move its id: the ring is in order of first arrival.
func TestResendDoesNotRefreshItsID(t *testing.T) {
	rules := DefaultRules()
	rules.Dedupe = 3
	r, items := row{}, newInterner()
	id := func(n int64) *schemas.Feedback { return event(n, "u", "x", schemas.KindLike).Feedback }
	for _, step := range []struct {
		id    int64
		fresh bool
	}{{1, true}, {2, true}, {3, true}, {1, false}, {4, true}, {1, true}, {4, false}, {3, false}, {2, true}} {
		if fresh := r.fold(&rules, id(step.id), 0, items); fresh != step.fresh {
			t.Fatalf("id %d: fresh %v, want %v (ring %d)", step.id, fresh, step.fresh, len(r.seen))
		}
	}
}

// A resend leaves the row as it is, byte for byte.
func TestResendChangesNothing(t *testing.T) {
	rules := DefaultRules()
	r, items := row{}, newInterner()
	for i := range int64(100) {
		r.fold(&rules, event(i, "u", fmt.Sprint(i%7), schemas.KindLike).Feedback, i, items)
	}
	before := r.encode()
	f := event(90, "u", "never seen", schemas.KindUndo).Feedback
	if r.fold(&rules, f, 100, items) {
		t.Fatal("a resend was folded")
	}
	if _, ok := items.find("never seen"); ok || !slices.Equal(before, r.encode()) {
		t.Error("a resend changed the facts")
	}
}

func TestWindowOrder(t *testing.T) {
	rules := DefaultRules()
	rules.Newest, rules.Liked = 3, 2
	r, items := row{}, newInterner()
	for i, kind := range []schemas.Kind{"like", "dislike", "like", "view", "click", "skip", "like"} {
		r.fold(&rules, event(int64(i), "u", fmt.Sprint("i", i), kind).Feedback, int64(i), items)
	}
	got, err := r.public("u", 0, items.names())
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, e := range got.Window {
		order = append(order, fmt.Sprintf("%s %v %v", e.ItemID, e.Class, e.Older))
	}
	want := []string{"i6 strong_positive false", "i5 weak_negative false", "i4 weak_positive false", "i2 strong_positive true", "i0 strong_positive true"}
	if !slices.Equal(order, want) {
		t.Errorf("window %q, want %q", order, want)
	}
	if got.Events != 7 || got.Positives != 4 || got.Negatives != 2 || got.LastOffset != 6 {
		t.Errorf("counts %+v", got)
	}
}

func TestUndo(t *testing.T) {
	rules := DefaultRules()
	rules.Newest, rules.Liked = 2, 3
	for _, c := range []struct {
		name string
		log  []string // kind item
		want []string // items, newest first
	}{
		{"without a like", []string{"undo a"}, nil},
		{"before the like", []string{"undo a", "like a"}, []string{"a"}},
		{"newest", []string{"like a", "like b", "undo b"}, []string{"a"}},
		{"newest and older, repeats too", []string{"like a", "like b", "like a", "click a", "like c", "undo a"}, []string{"c", "b"}},
		{"what left is not brought back", []string{"dislike z", "like a", "like b", "undo b", "undo a"}, nil},
		{"liked again", []string{"like a", "undo a", "like a"}, []string{"a"}},
		{"other items stay", []string{"like a", "dislike b", "undo c"}, []string{"b", "a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, items := row{}, newInterner()
			for i, s := range c.log {
				var kind, item string
				fmt.Sscan(s, &kind, &item)
				r.fold(&rules, event(int64(i), "u", item, schemas.Kind(kind)).Feedback, int64(i), items)
			}
			got, err := r.public("u", 0, items.names())
			if err != nil {
				t.Fatal(err)
			}
			var order []string
			for _, e := range got.Window {
				order = append(order, e.ItemID)
			}
			if !slices.Equal(order, c.want) || got.Events != uint64(len(c.log)) {
				t.Errorf("window %q of %d events, want %q of %d", order, got.Events, c.want, len(c.log))
			}
		})
	}
}

func TestClasses(t *testing.T) {
	value := func(v float64) *float64 { return &v }
	for _, c := range []struct {
		kind            schemas.Kind
		value           *float64
		standard, paper prior.Class
	}{
		{"like", nil, prior.StrongPositive, prior.StrongPositive},
		{"like", value(-3), prior.StrongPositive, prior.StrongPositive},
		{"share", nil, prior.StrongPositive, prior.StrongPositive},
		{"save", nil, prior.StrongPositive, prior.StrongPositive},
		{"click", nil, prior.WeakPositive, prior.WeakPositive},
		{"skip", nil, prior.WeakNegative, prior.WeakNegative},
		{"dislike", nil, prior.StrongNegative, prior.StrongNegative},
		{"hide", nil, prior.StrongNegative, prior.StrongNegative},
		{"undo", nil, prior.ClassNone, prior.ClassNone},
		{"view", nil, prior.ClassNone, prior.ClassNone},
		{"view", value(9.99), prior.ClassNone, prior.ClassNone},
		{"view", value(10), prior.WeakPositive, prior.WeakPositive},
		{"rating", value(1), prior.StrongNegative, prior.StrongNegative},
		{"rating", value(2), prior.StrongNegative, prior.StrongNegative},
		{"rating", value(2.5), prior.WeakNegative, prior.StrongNegative},
		{"rating", value(3.5), prior.WeakNegative, prior.StrongNegative},
		{"rating", value(4), prior.StrongPositive, prior.StrongPositive},
		{"rating", value(5), prior.StrongPositive, prior.StrongPositive},
	} {
		f := schemas.Feedback{Kind: c.kind, Value: c.value}
		if got := DefaultClasses().Of(f); got != c.standard {
			t.Errorf("default %s %v: %v, want %v", c.kind, c.value, got, c.standard)
		}
		if got := PaperClasses().Of(f); got != c.paper {
			t.Errorf("paper %s %v: %v, want %v", c.kind, c.value, got, c.paper)
		}
	}
}

func TestKindCodesAreOneToOne(t *testing.T) {
	for _, k := range schemas.Kinds() {
		if code := kindCode(k); code == 0 || kindCodes[code] != k {
			t.Errorf("kind %s has code %d, which is %q", k, code, kindCodes[code])
		}
	}
}

func TestRulesValidate(t *testing.T) {
	for _, c := range []struct {
		change func(*Rules)
		want   string
	}{
		{func(*Rules) {}, ""},
		{func(r *Rules) { r.Newest = 0 }, "newest: 0 is not between 1 and 4096"},
		{func(r *Rules) { r.Liked = -1 }, "liked: -1 is not between 0 and 4096"},
		{func(r *Rules) { r.Dedupe = 70000 }, "dedupe: 70000 is not between 1 and 65535"},
		{func(r *Rules) { r.Classes.Like = 9 }, "classes.like: 9 is no class"},
		{func(r *Rules) { r.Classes.Rating.Low = 4.5 }, "classes.rating: low 4.5 is above high 4"},
	} {
		r := DefaultRules()
		c.change(&r)
		got := ""
		if err := r.Validate(); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestRowSizeAtTheDefaults(t *testing.T) {
	rules := DefaultRules()
	r, items := row{}, newInterner()
	for i := range int64(300) {
		r.fold(&rules, event(i, "u", fmt.Sprint(i), schemas.KindLike).Feedback, i, items)
	}
	if n := len(r.encode()); n != rowSize(rules) || n != 1851 {
		t.Errorf("a full row has %d bytes, rowSize says %d", n, rowSize(rules))
	}
}

func FuzzDecodeRow(f *testing.F) {
	rules := DefaultRules()
	rng := rand.New(rand.NewPCG(1, 2))
	r, items := row{}, newInterner()
	f.Add([]byte{})
	f.Add(r.encode())
	for i := range int64(100) {
		r.fold(&rules, randomEvent(rng, i, "u").Feedback, i, items)
	}
	f.Add(r.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		var r row
		if r.decode(b) != nil {
			return
		}
		if !slices.Equal(r.encode(), b) {
			t.Error("a row that decodes does not encode to the same bytes")
		}
		r.public("u", 0, items.names())
	})
}

// Every single-byte change and every cut of a row either decodes to something or is refused; nothing panics.
func TestDecodeRowSurvivesDamage(t *testing.T) {
	rules := DefaultRules()
	r, items := row{}, newInterner()
	for i := range int64(60) {
		r.fold(&rules, event(i, "u", fmt.Sprint(i), schemas.KindLike).Feedback, i, items)
	}
	good := r.encode()
	for i := range good {
		var d row
		if err := d.decode(good[:i]); err == nil {
			t.Fatalf("a row cut to %d bytes decodes", i)
		}
		bad := slices.Clone(good)
		bad[i] ^= 0x5a
		if d.decode(bad) == nil {
			d.public("u", 0, items.names())
		}
	}
	bad := slices.Clone(good)
	bad[0] = 2
	if err := new(row).decode(bad); err == nil {
		t.Error("a row of version 2 decodes")
	}
}
