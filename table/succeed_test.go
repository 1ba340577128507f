package table

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"rebeca/schemas"
)

// dump returns every key and value.
func dump(t *testing.T, table *Table) map[string]string {
	t.Helper()
	out := map[string]string{}
	if err := table.Export(func(c Cut) error {
		return c.Each("", func(key, value []byte) error {
			out[string(key)] = string(value)
			return nil
		})
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// pick returns the pairs of some prefixes.
func pick(pairs map[string]string, prefixes ...string) map[string]string {
	out := maps.Clone(pairs)
	maps.DeleteFunc(out, func(key, _ string) bool {
		return !slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(key, p) })
	})
	return out
}

// succession makes a state with all that a service leaves and one that a replay by other rules makes of the same log, but for one user.
func succession(t *testing.T) (old, fresh *Table) {
	t.Helper()
	old = open(t, options(t.TempDir()))
	o := options(t.TempDir())
	o.Rules.Classes, o.Silent = PaperClasses(), true
	fresh = open(t, o)
	log := append(randomLog(7, 400), event(1<<20, "only-old", "i1", schemas.KindLike))
	for _, r := range log {
		fold(t, old, r)
		if r.Feedback == nil || r.Feedback.UserID != "only-old" {
			fold(t, fresh, r)
		}
	}
	if _, err := fresh.Fold(Batch{Topic: topic, Next: 1<<20 + 1}); err != nil {
		t.Fatal(err)
	}
	asked := Asked{
		Offset: 3, Time: timeAt(3), Key: []byte("a"), Value: []byte("{}"), Request: &schemas.Request{RequestID: "r", UserID: "a", Count: 2},
	}
	if _, err := old.Accept("requests", 0, []Asked{asked}, 4); err != nil {
		t.Fatal(err)
	}
	for _, table := range []*Table{old, fresh} {
		for _, user := range []string{"user-1", "only-old"} {
			row, ok, err := table.User(user)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				continue
			}
			v := Vector{Values: make([]float32, dim), PriorVersion: "1-x", Events: row.Events, AsOf: row.LastOffset}
			if err := table.Complete(0, []Completion{{UserID: user, Vector: &v}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	fresh = reopen(t, fresh)
	fresh.options.Silent = false
	for range 5 {
		old = reopen(t, old) // a state that has been served has a high epoch
	}
	return old, fresh
}

// TestSucceed holds what a successor keeps of its own, what it takes over and
// what it drops; and that a take-over that was cut short is repeated well.
func TestSucceed(t *testing.T) {
	old, fresh := succession(t)
	before, theirs, facts := dump(t, fresh), dump(t, old), digest(t, fresh)
	for range 2 {
		if err := fresh.Succeed(old, []string{topic}, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := fresh.Fold(Batch{Topic: topic, Next: 1<<20 + 2}); !errors.Is(err, ErrFenced) {
			t.Errorf("a successor whose memory is out of date takes writes: %v", err)
		}
		fresh = reopen(t, fresh)
	}
	after := dump(t, fresh)
	if d := digest(t, fresh); d != facts {
		t.Errorf("the facts are %s, were %s", d, facts)
	}
	kept := []string{prefixRow, prefixInterned, prefixForgot, prefixItem, string(offsetKey(topic, 0))}
	if !maps.Equal(pick(after, kept...), pick(before, kept...)) {
		t.Error("the successor's own have changed")
	}
	taken := []string{queuePrefixString('i'), prefixMemory, prefixBuried, string(offsetKey("requests", 0))}
	for _, prefix := range taken {
		if want := pick(theirs, prefix); len(want) == 0 && prefix != prefixMemory && prefix != prefixBuried {
			t.Errorf("the test's state has nothing under %q", prefix)
		} else if !maps.Equal(pick(after, prefix), want) {
			t.Errorf("what is under %q is not the other's", prefix)
		}
	}
	if n := len(pick(after, prefixVector)); n != 0 {
		t.Errorf("%d vectors of other facts are left", n)
	}
	messages, dismissed := pick(theirs, queuePrefixString('m')), 0
	for key, value := range pick(after, queuePrefixString('m')) {
		if messages[key] == value {
			delete(messages, key)
			continue
		}
		m, err := decodeMessage([]byte(value))
		if err != nil || m.Role != RoleVectors || string(m.Key) != "only-old" || m.Value != nil {
			t.Errorf("an unknown message %+v is in the outbox: %v", m, err)
		}
		dismissed++
	}
	if dismissed != 1 {
		t.Errorf("%d nulls for the one user who is gone", dismissed)
	}
	if len(messages) > 0 {
		t.Errorf("%d messages are not taken over", len(messages))
	}
	if fresh.meta.State != old.meta.State || fresh.epoch <= old.epoch {
		t.Errorf("state %s, epoch %d follow %s, %d", fresh.meta.State, fresh.epoch, old.meta.State, old.epoch)
	}
	if fresh.meta.Rules.Classes != PaperClasses() {
		t.Error("the rules are not the successor's")
	}
	if in, err := fresh.Intents(0); err != nil || len(in) < 2 {
		t.Errorf("intents %v, error %v", in, err)
	}
}

func queuePrefixString(part byte) string { return string(queuePrefix(0, part)) }

// TestSucceedKeepsForgetting takes a mark over that a replay of a later part of
// the log does not have.
func TestSucceedKeepsForgetting(t *testing.T) {
	old, fresh := open(t, options(t.TempDir())), open(t, options(t.TempDir()))
	fold(t, old, forget(0, "gone"), event(1, "b", "i", schemas.KindLike))
	fold(t, fresh, event(1, "b", "i", schemas.KindLike))
	if err := fresh.Succeed(old, []string{topic}, nil); err != nil {
		t.Fatal(err)
	}
	fresh = reopen(t, fresh)
	late := event(2, "gone", "i", schemas.KindLike)
	late.Feedback.OccurredAt = timeAt(0)
	if f := fold(t, fresh, late); f.Forgotten != 1 {
		t.Errorf("an event from before the forget folds: %+v", f)
	}
}

// TestSucceedRefuses states that cannot follow each other, and changes nothing.
func TestSucceedRefuses(t *testing.T) {
	old := open(t, options(t.TempDir()))
	fold(t, old, event(4, "a", "i", schemas.KindLike))
	more, wide, apart := options(t.TempDir()), options(t.TempDir()), options(t.TempDir())
	more.Partitions, wide.Dim = 2, dim+1
	for _, c := range []struct {
		o    Options
		want error
	}{{more, ErrPartitions}, {wide, ErrDim}, {apart, ErrApart}} {
		table := open(t, c.o)
		if err := table.Succeed(old, []string{topic}, nil); !errors.Is(err, c.want) {
			t.Errorf("error %v, want %v", err, c.want)
		}
		if _, err := table.Fold(batch(event(1, "a", "i", schemas.KindLike))); err != nil {
			t.Errorf("after a refusal: %v", err)
		}
	}
}

// TestAnyRules opens a state by whichever rules it has.
func TestAnyRules(t *testing.T) {
	o := options(t.TempDir())
	o.Rules.Newest = 5
	if err := open(t, o).Close(); err != nil {
		t.Fatal(err)
	}
	o.Rules = DefaultRules()
	if _, err := Open(o); !errors.Is(err, ErrRules) {
		t.Errorf("error %v, want %v", err, ErrRules)
	}
	o.AnyRules = true
	if r := open(t, o).Rules(); r.Newest != 5 {
		t.Errorf("rules %+v, want those of the state", r)
	}
}
