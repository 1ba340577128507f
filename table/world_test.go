package table

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"rebeca/prior"
	"rebeca/schemas"
)

const (
	topic = "feedback"
	dim   = 4
)

// epoch is the Kafka timestamp of offset 0 in these tests; a record comes a second later each.
var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func timeAt(offset int64) time.Time { return epoch.Add(time.Duration(offset) * time.Second) }

func options(dir string) Options {
	return Options{Dir: dir, Partitions: 1, Dim: dim, Rules: DefaultRules()}
}

func open(t testing.TB, o Options) *Table {
	t.Helper()
	table, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := table.Close(); err != nil {
			t.Error(err)
		}
	})
	return table
}

func reopen(t testing.TB, table *Table) *Table {
	t.Helper()
	if err := table.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, table.options)
}

// event is a feedback as it comes from the log.
func event(offset int64, user, item string, kind schemas.Kind) Record {
	return Record{
		Offset: offset, Time: timeAt(offset), Key: []byte(user), Value: []byte("{}"), Fingerprint: uint64(offset) * 7,
		Feedback: &schemas.Feedback{
			EventID: fmt.Sprintf("e%d", offset), UserID: user, ItemID: item, Kind: kind, OccurredAt: timeAt(offset).Add(-time.Minute),
		},
	}
}

func forget(offset int64, user string) Record {
	return Record{Offset: offset, Time: timeAt(offset), Key: []byte(user), Forget: true, Fingerprint: uint64(offset) * 7}
}

func dead(offset int64, key, value string) Record {
	return Record{
		Offset: offset, Time: timeAt(offset), Key: []byte(key), Value: []byte(value), Fingerprint: uint64(offset) * 7,
		Dead: &schemas.Rejection{Reason: schemas.ReasonBadJSON, Message: "not JSON"},
	}
}

func batch(records ...Record) Batch {
	b := Batch{Topic: topic, Records: records, IntentCount: 1}
	if n := len(records); n > 0 {
		b.Next = records[n-1].Offset + 1
	}
	return b
}

func fold(t testing.TB, table *Table, records ...Record) Folded {
	t.Helper()
	f, err := table.Fold(batch(records...))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func row1(t testing.TB, table *Table, user string) Row {
	t.Helper()
	r, ok, err := table.User(user)
	if err != nil || !ok {
		t.Fatalf("user %q: ok %v, err %v", user, ok, err)
	}
	return r
}

func digest(t testing.TB, table *Table) string {
	t.Helper()
	d, err := table.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// randomLog makes a stream of one partition with everything in it: all kinds, resends near and far, undo, forgets with events that happened
// before them, dead letters, gaps in the offsets, ids that contain or prefix each other.
func randomLog(seed uint64, n int) []Record {
	rng := rand.New(rand.NewPCG(seed, 1))
	users := []string{"a", "ab", "a/b", "u/\x20", "ä", "o/feedback", "q", "\xff\xfe"}
	for i := range 12 {
		users = append(users, fmt.Sprintf("user-%d", i))
	}
	var log []Record
	sent := map[string][]*schemas.Feedback{}
	offset := int64(rng.IntN(5))
	for range n {
		user := users[min(rng.IntN(len(users)), rng.IntN(len(users)))]
		r := randomEvent(rng, offset, user)
		switch p := rng.IntN(200); {
		case p < 20 && len(sent[user]) > 0: // resend: often recent, sometimes long gone
			back := 1 + rng.IntN(min(len(sent[user]), 1+rng.IntN(100)))
			f := *sent[user][len(sent[user])-back]
			r.Feedback = &f
		case p < 22:
			r = dead(offset, user, "nonsense")
		case p < 24:
			r = forget(offset, user)
			r.Time = r.Time.Add(-time.Duration(rng.IntN(60)) * time.Second)
		default:
			sent[user] = append(sent[user], r.Feedback)
		}
		log = append(log, r)
		offset += 1 + int64(rng.IntN(20)/19)
	}
	return log
}

func randomEvent(rng *rand.Rand, offset int64, user string) Record {
	kinds := append(schemas.Kinds(), schemas.KindLike, schemas.KindLike, schemas.KindLike)
	r := event(offset, user, fmt.Sprintf("item-%d", rng.IntN(60)), kinds[rng.IntN(len(kinds))])
	r.Feedback.OccurredAt = r.Time.Add(-time.Duration(rng.IntN(300_000)) * time.Millisecond)
	switch r.Feedback.Kind {
	case schemas.KindRating:
		v := 1 + .5*float64(rng.IntN(9))
		r.Feedback.Value = &v
	case schemas.KindView:
		if rng.IntN(4) > 0 {
			v := float64(rng.IntN(20))
			r.Feedback.Value = &v
		}
	}
	return r
}

// model is the facts once more, written to be read and not to be fast: it keeps everything and looks it through each time.
type model struct {
	rules  Rules
	users  map[string]*modelUser
	forgot map[string]time.Time

	events, duplicates, forgotten int
}

type modelUser struct {
	ids                          []string // all accepted
	events, positives, negatives uint64
	last                         int64
	newest                       []Entry // oldest first
	older                        []Entry
}

func newModel(r Rules) *model {
	return &model{rules: r, users: map[string]*modelUser{}, forgot: map[string]time.Time{}}
}

func (m *model) apply(r Record) {
	switch {
	case r.Dead != nil:
		return
	case r.Forget:
		user := string(r.Key)
		delete(m.users, user)
		if r.Time.After(m.forgot[user]) {
			m.forgot[user] = r.Time
		}
		return
	}
	f := r.Feedback
	if until, ok := m.forgot[f.UserID]; ok && !f.OccurredAt.After(until) {
		m.forgotten++
		return
	}
	u := m.users[f.UserID]
	if u == nil {
		u = &modelUser{}
		m.users[f.UserID] = u
	}
	if slices.Contains(u.ids[max(0, len(u.ids)-m.rules.Dedupe):], f.EventID) {
		m.duplicates++
		return
	}
	m.events++
	u.ids = append(u.ids, f.EventID)
	u.events++
	u.last = r.Offset
	if f.Kind == schemas.KindUndo {
		keep := func(es []Entry) (out []Entry) {
			for _, e := range es {
				if e.ItemID != f.ItemID {
					out = append(out, e)
				}
			}
			return out
		}
		u.newest, u.older = keep(u.newest), keep(u.older)
		return
	}
	class := modelClass(f)
	switch class {
	case prior.ClassNone:
		return
	case prior.StrongPositive, prior.WeakPositive:
		u.positives++
	default:
		u.negatives++
	}
	u.newest = append(u.newest, Entry{
		ItemID: f.ItemID, Kind: f.Kind, Class: class, OccurredAt: f.OccurredAt.Truncate(time.Millisecond), Offset: r.Offset,
		EventHash: schemas.EventHash(f.EventID),
	})
	if len(u.newest) <= m.rules.Newest {
		return
	}
	out := u.newest[0]
	u.newest = u.newest[1:]
	if out.Class != prior.StrongPositive {
		return
	}
	out.Older = true
	byHash := append(slices.Clone(u.older), out)
	slices.SortStableFunc(byHash, func(a, b Entry) int {
		if a.EventHash != b.EventHash {
			return map[bool]int{true: -1, false: 1}[a.EventHash < b.EventHash]
		}
		return int(a.Offset - b.Offset)
	})
	u.older = byHash[:min(len(byHash), m.rules.Liked)]
}

func modelClass(f *schemas.Feedback) prior.Class {
	switch f.Kind {
	case schemas.KindLike, schemas.KindShare, schemas.KindSave:
		return prior.StrongPositive
	case schemas.KindDislike, schemas.KindHide:
		return prior.StrongNegative
	case schemas.KindClick:
		return prior.WeakPositive
	case schemas.KindSkip:
		return prior.WeakNegative
	case schemas.KindView:
		if f.Value != nil && *f.Value >= 10 {
			return prior.WeakPositive
		}
	case schemas.KindRating:
		switch v := *f.Value; {
		case v >= 4:
			return prior.StrongPositive
		case v <= 2:
			return prior.StrongNegative
		default:
			return prior.WeakNegative
		}
	}
	return prior.ClassNone
}

func (m *model) row(user string) Row {
	u := m.users[user]
	r := Row{UserID: user, Events: u.events, Positives: u.positives, Negatives: u.negatives, LastOffset: u.last, Window: []Entry{}}
	newest := slices.Clone(u.newest)
	slices.Reverse(newest)
	older := slices.Clone(u.older)
	slices.SortFunc(older, func(a, b Entry) int { return int(b.Offset - a.Offset) })
	r.Window = append(append(r.Window, newest...), older...)
	for _, id := range u.ids[max(0, len(u.ids)-m.rules.Dedupe):] {
		r.Seen = append(r.Seen, schemas.EventHash(id))
	}
	return r
}
