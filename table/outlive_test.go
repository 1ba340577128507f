package table

import (
	"slices"
	"testing"
	"time"

	"rebeca/schemas"
)

// earlier returns what was published of an intent in an earlier life of the state: its images know of all feedback up to asOf.
func earlier(t *testing.T, in Intent, asOf int64) (out []Message) {
	t.Helper()
	for k := range in.Count {
		m, _ := made(t, in, k, in.At.Add(time.Second), "1-a")
		g, err := schemas.DecodeGenerated(m.Value)
		if err != nil {
			t.Fatal(err)
		}
		g.AsOf.Offset, g.CausedAt = asOf, in.At
		if m.Value, err = g.Encode(); err != nil {
			t.Fatal(err)
		}
		out = append(out, m)
	}
	return out
}

// A state restored from before a request, its answer and a forget reads the topic back first. The forget that it folds again takes the
// memory of the answer along; the request that it reads again must not be answered a second time. What was made for the life behind the
// forget stays remembered.
func TestForgetKeepsWhatIsPublished(t *testing.T) {
	const user = "a"
	for name, c := range map[string]struct {
		asOf       int64 // of the images on the topic; the forget is at 3
		remembered int
	}{"before the forget": {2, 0}, "behind the forget": {100, 2}} {
		t.Run(name, func(t *testing.T) {
			first := open(t, options(t.TempDir()))
			request := accept(t, first, 5, ask(5, user, "r", 2))[0]
			feedback := fold(t, first, event(100, user, "x", schemas.KindLike)).Intents[0]

			table := open(t, options(t.TempDir()))
			fold(t, table, event(0, user, "x", schemas.KindLike))
			for _, in := range intents(t, table) {
				complete(t, table, finished(t, in, timeAt(1), "1-a"))
			}
			trimAll(t, table)
			accept(t, table, 0)
			sent(t, table, "generated", 9, append(earlier(t, request, c.asOf), earlier(t, feedback, 100)...)...)
			fold(t, table, forget(3, user))
			want := c.remembered + feedback.Count
			if got := remembered(t, table, user); len(got) != want {
				t.Errorf("%d images are remembered behind the forget, want %d: %q", len(got), want, got)
			}
			trimAll(t, table)

			table = reopen(t, table)
			again := accept(t, table, 5, ask(5, user, "r", 2))
			again = append(again, fold(t, table, event(100, user, "x", schemas.KindLike)).Intents...)
			for _, in := range again {
				complete(t, table, finished(t, in, timeAt(20), "2-b"))
			}
			if len(again) != 2 {
				t.Fatalf("intents %+v", again)
			}
			if i := slices.IndexFunc(outbox(t, table), func(o Outgoing) bool { return o.Role == RoleGenerated }); i >= 0 {
				t.Errorf("published again: %s", outbox(t, table)[i].Value)
			}
			if got := remembered(t, table, user); len(got) != want {
				t.Errorf("%d images are remembered at last, want %d", len(got), want)
			}
		})
	}
}

// An older snapshot may find more images on the topic than a user's memory holds: those that left it are known by name.
func TestMemoryThatIsFullKeepsNames(t *testing.T) {
	const user = "a"
	first := open(t, options(t.TempDir()))
	old, many := accept(t, first, 5, ask(5, user, "old", 2))[0], accept(t, first, 6, ask(6, user, "many", maxMemories))[0]
	for name, before := range map[string]bool{"answers found before their requests are read": true, "while they wait": false} {
		t.Run(name, func(t *testing.T) {
			table := open(t, options(t.TempDir()))
			accept(t, table, 0)
			find := func() { sent(t, table, "generated", 2000, append(earlier(t, old, 100), earlier(t, many, 100)...)...) }
			if before {
				find()
				table = reopen(t, table)
			}
			again := accept(t, table, 5, ask(5, user, "old", 2))
			if !before {
				find()
			}
			if len(again) != 1 || slices.Contains(remembered(t, table, user), schemas.ID(old.Source, 0)) {
				t.Fatalf("intents %+v; the old answer is remembered", again)
			}
			complete(t, table, finished(t, again[0], timeAt(20), "2-b"))
			if i := slices.IndexFunc(outbox(t, table), func(o Outgoing) bool { return o.Role == RoleGenerated }); i >= 0 {
				t.Errorf("published again: %s", outbox(t, table)[i].Value)
			}
		})
	}
}

// The topic is read back while the log is folded: forget and request may both have had their turn when the answer is found.
func TestForgetBeforeTheTopicIsReadBack(t *testing.T) {
	const user = "a"
	request := accept(t, open(t, options(t.TempDir())), 5, ask(5, user, "r", 2))[0]
	table := open(t, options(t.TempDir()))
	fold(t, table, forget(3, user))
	in := accept(t, table, 5, ask(5, user, "r", 2))[0]
	sent(t, table, "generated", 9, earlier(t, request, 2)...)
	if got := remembered(t, table, user); len(got) > 0 {
		t.Errorf("remembered of a life that is forgotten: %q", got)
	}
	complete(t, table, finished(t, in, timeAt(20), "2-b"))
	if i := slices.IndexFunc(outbox(t, table), func(o Outgoing) bool { return o.Role == RoleGenerated }); i >= 0 {
		t.Errorf("published again: %s", outbox(t, table)[i].Value)
	}
}

// An image belongs to its cause by the cause's own timestamp, whatever the clocks of producers say: one that runs ahead makes no second
// image, and a log that was made anew does.
func TestImagesKnowTheirCause(t *testing.T) {
	for name, c := range map[string]struct {
		ahead time.Duration // of the cause's clock
		anew  bool          // another record has come to stand in its place
		sent  bool
	}{
		"clock ahead by an hour":    {ahead: time.Hour},
		"clock behind":              {ahead: -time.Hour},
		"another log, clock ahead":  {ahead: time.Hour, anew: true, sent: true},
		"another log, clock behind": {ahead: -time.Hour, anew: true, sent: true},
	} {
		t.Run(name, func(t *testing.T) {
			table := open(t, options(t.TempDir()))
			r := event(4, "a", "x", schemas.KindLike)
			r.Time = r.Time.Add(c.ahead)
			in := fold(t, table, r).Intents[0]
			before := in
			if c.anew {
				before.At = in.At.Add(-time.Millisecond)
			}
			there := earlier(t, before, 4)
			for i := range there { // as of the service's clock, which has gone its own way
				g, err := schemas.DecodeGenerated(there[i].Value)
				if err != nil {
					t.Fatal(err)
				}
				g.CreatedAt = timeAt(5)
				if there[i].Value, err = g.Encode(); err != nil {
					t.Fatal(err)
				}
			}
			sent(t, table, "generated", 1, there...)
			complete(t, table, finished(t, in, timeAt(20), "2-b"))
			got := slices.ContainsFunc(outbox(t, table), func(o Outgoing) bool { return o.Role == RoleGenerated })
			if got != c.sent {
				t.Errorf("sent: %t, want %t", got, c.sent)
			}
		})
	}
}

// trimAll takes everything out of the outbox.
func trimAll(t *testing.T, table *Table) {
	t.Helper()
	if err := table.Trim(0, outbox(t, table), Position{}); err != nil {
		t.Fatal(err)
	}
}
