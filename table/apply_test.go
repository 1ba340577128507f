package table

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"rebeca/schemas"
)

// The same log gives the model's facts and one digest, however it is cut into batches and however often the table is opened again, with a
// cache that holds everything or next to nothing.
func TestAnyBatchesAndRestartsGiveTheSameFacts(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			log := randomLog(seed, 1500)
			m := newModel(DefaultRules())
			for _, r := range log {
				m.apply(r)
			}
			var want string
			for _, way := range []struct {
				name                   string
				largest, reopen, cache int
			}{{"whole", len(log), 0, 0}, {"single", 1, 400, 1}, {"mixed", 90, 25, 5000}} {
				table := replay(t, log, way.largest, way.reopen, way.cache, seed, m)
				compare(t, table, m)
				got := digest(t, table)
				if want == "" {
					want = got
				}
				if got != want {
					t.Errorf("%s: digest %s, want %s", way.name, got, want)
				}
			}
		})
	}
}

func replay(t *testing.T, log []Record, largest, reopenEvery, cache int, seed uint64, m *model) *Table {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 2))
	o := options(t.TempDir())
	o.CacheBytes = cache
	table := open(t, o)
	var sum Folded
	for batches := 1; len(log) > 0; batches++ {
		n := min(len(log), 1+rng.IntN(largest))
		if largest > len(log) {
			n = len(log)
		}
		f := fold(t, table, log[:n]...)
		sum.Events, sum.Duplicates, sum.Forgotten = sum.Events+f.Events, sum.Duplicates+f.Duplicates, sum.Forgotten+f.Forgotten
		log = log[n:]
		if reopenEvery > 0 && batches%reopenEvery == 0 {
			table = reopen(t, table)
		}
	}
	if sum.Events != m.events || sum.Duplicates != m.duplicates || sum.Forgotten != m.forgotten {
		t.Errorf("%d events, %d duplicates, %d forgotten; model %d, %d, %d",
			sum.Events, sum.Duplicates, sum.Forgotten, m.events, m.duplicates, m.forgotten)
	}
	return table
}

// compare holds every door to the rows against the model.
func compare(t *testing.T, table *Table, m *model) {
	t.Helper()
	seen := map[string]bool{}
	last := ""
	if err := table.Users(func(r Row) error {
		if r.UserID <= last && last != "" {
			t.Errorf("user %q follows %q", r.UserID, last)
		}
		last = r.UserID
		seen[r.UserID] = true
		if m.users[r.UserID] == nil {
			t.Errorf("user %q is not in the model", r.UserID)
			return nil
		}
		if want := m.row(r.UserID); !reflect.DeepEqual(r, want) {
			t.Errorf("user %q\n got %+v\nwant %+v", r.UserID, r, want)
		}
		if direct := row1(t, table, r.UserID); !reflect.DeepEqual(r, direct) {
			t.Errorf("User(%q) differs from Users", r.UserID)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(seen) != len(m.users) || table.UserCount() != len(m.users) {
		t.Errorf("%d users, count %d, model %d", len(seen), table.UserCount(), len(m.users))
	}
	for i := range table.UserCount() {
		delete(seen, table.UserAt(i))
	}
	if len(seen) != 0 {
		t.Errorf("UserAt misses %v", seen)
	}
}

func TestFoldReports(t *testing.T) {
	table := open(t, options(t.TempDir()))
	again := event(3, "a", "y", schemas.KindLike)
	again.Feedback.EventID = "e0"
	f := fold(t, table,
		event(0, "a", "x", schemas.KindLike), event(1, "b", "x", schemas.KindView), dead(2, "c", "?"), again, event(5, "a", "z", schemas.KindSkip))
	if f.Next != 6 || f.Events != 3 || f.Duplicates != 1 || f.Dead != 1 || f.DeadByReason[schemas.ReasonBadJSON] != 1 {
		t.Errorf("folded %+v", f)
	}
	if !slices.Equal(f.Users, []string{"a", "b"}) {
		t.Errorf("users %q", f.Users)
	}
	if len(f.Intents) != 2 {
		t.Fatalf("intents %+v", f.Intents)
	}
	source := schemas.Source{Topic: topic, Partition: 0, Offset: 5}
	want := Intent{
		Seq: f.Intents[0].Seq, ID: schemas.ID(source, 0), UserID: "a", Trigger: "feedback", Count: 1, Source: source, At: timeAt(5),
	}
	if !reflect.DeepEqual(f.Intents[0], want) {
		t.Errorf("intent %+v, want %+v", f.Intents[0], want)
	}
	if table.partitions[0].rows.peek("a") == nil {
		t.Error("the row written is not cached")
	}
	next, print, ok, err := table.Offset(topic, 0)
	if next != 6 || print != 35 || !ok || err != nil {
		t.Errorf("offset %d, fingerprint %d, %v, %v", next, print, ok, err)
	}
	if _, _, ok, err := table.Offset("other", 0); ok || err != nil {
		t.Errorf("offset of an unread topic: %v, %v", ok, err)
	}
}

// A resend alone moves the offset and nothing else: no intent, no user, no stale vector.
func TestResendAloneMovesTheOffsetOnly(t *testing.T) {
	table := open(t, options(t.TempDir()))
	fold(t, table, event(0, "a", "x", schemas.KindLike))
	complete(t, table, Completion{UserID: "a", Vector: &Vector{Values: []float32{1}, PriorVersion: "v", Events: 1}})
	before := digest(t, table)
	again := event(1, "a", "x", schemas.KindLike)
	again.Feedback.EventID = "e0"
	f := fold(t, table, again)
	stale, err := table.Stale(0, 10)
	if err != nil || len(stale) != 0 || len(f.Users) != 0 || len(f.Intents) != 0 || len(f.Superseded) != 0 || digest(t, table) != before {
		t.Errorf("folded %+v, stale %v, %v", f, stale, err)
	}
	if next, _, _, _ := table.Offset(topic, 0); next != 2 {
		t.Errorf("offset %d", next)
	}
}

func TestFoldRefusesWhatIsBelowTheOffset(t *testing.T) {
	table := open(t, options(t.TempDir()))
	fold(t, table, event(4, "a", "x", schemas.KindLike), event(5, "a", "y", schemas.KindLike))
	before := digest(t, table)
	for _, b := range []Batch{
		batch(event(5, "a", "y", schemas.KindLike)),
		batch(event(5, "b", "y", schemas.KindLike), event(6, "b", "z", schemas.KindLike)),
		{Topic: topic, Next: 5},
	} {
		if _, err := table.Fold(b); !errors.Is(err, ErrStale) || !strings.Contains(err.Error(), "feedback[0]") {
			t.Errorf("error %v", err)
		}
	}
	if digest(t, table) != before || table.UserCount() != 1 {
		t.Error("a refused batch changed the facts")
	}
	// A gap above is not ours to judge, and an empty batch moves the offset.
	fold(t, table, event(9, "a", "z", schemas.KindLike))
	if _, err := table.Fold(Batch{Topic: topic, Next: 12}); err != nil {
		t.Fatal(err)
	}
	if next, print, _, _ := table.Offset(topic, 0); next != 12 || print != 63 {
		t.Errorf("offset %d, fingerprint %d", next, print)
	}
}

func TestFoldRefusesOffsetsThatDoNotRise(t *testing.T) {
	table := open(t, options(t.TempDir()))
	for _, b := range []Batch{
		{Topic: topic, Records: []Record{event(2, "a", "x", "like"), event(2, "a", "y", "like")}, Next: 3},
		{Topic: topic, Records: []Record{event(2, "a", "x", "like")}, Next: 2},
		{Topic: topic, Records: []Record{event(1<<50, "a", "x", "like")}, Next: 1<<50 + 1},
		{Topic: topic, Partition: 7, Next: 1},
		{Topic: topic, Partition: -1, Next: 1},
	} {
		if _, err := table.Fold(b); err == nil {
			t.Errorf("batch %+v was folded", b)
		}
	}
}

// A batch that fails leaves nothing behind in memory: the next is folded as if it had not been.
func TestFailedFoldLeavesNothing(t *testing.T) {
	o := options(t.TempDir())
	table := open(t, o)
	fold(t, table, event(0, "a", "x", schemas.KindLike))
	failed := errors.New("made to fail")
	p := table.partitions[0]
	p.mu.Lock()
	users := newDrafts()
	err := table.update(p, func(c *change) error {
		f := folding{change: c, batch: &Batch{Topic: topic, IntentCount: 1}, out: &Folded{}, users: &users}
		for _, r := range []Record{event(1, "b", "new item", "like"), dead(2, "b", "?")} {
			if _, err := f.record(&r, false); err != nil {
				return err
			}
		}
		if err := f.finish(); err != nil {
			return err
		}
		return failed
	})
	p.mu.Unlock()
	if !errors.Is(err, failed) {
		t.Fatal(err)
	}
	if intents, messages := table.Depths(); intents != 1 || messages != 0 || table.UserCount() != 1 {
		t.Errorf("%d intents, %d messages, %d users", intents, messages, table.UserCount())
	}
	fold(t, table, event(1, "b", "another", schemas.KindLike), event(2, "b", "new item", schemas.KindLike))
	clean := open(t, options(t.TempDir()))
	fold(t, clean, event(0, "a", "x", schemas.KindLike), event(1, "b", "another", schemas.KindLike), event(2, "b", "new item", schemas.KindLike))
	if digest(t, table) != digest(t, clean) {
		t.Error("the facts differ from those without the failed batch")
	}
	if reopened := reopen(t, table); digest(t, reopened) != digest(t, clean) || row1(t, reopened, "b").Window[0].ItemID != "new item" {
		t.Error("item numbers of the failed batch stayed")
	}
}

func TestFreshAfterDecidesAboutIntents(t *testing.T) {
	table := open(t, options(t.TempDir()))
	b := batch(event(0, "old", "x", "like"), event(1, "both", "x", "like"), event(10, "both", "y", "like"), event(11, "new", "x", "like"))
	late, history := event(12, "both", "z", "like"), event(13, "both", "w", "like")
	for _, r := range b.Records {
		r.Feedback.OccurredAt = r.Time
	}
	late.Time, late.Feedback.OccurredAt = timeAt(2), timeAt(12)
	history.Feedback.OccurredAt = timeAt(3) // sent now, and long ago
	b.Records = append(b.Records, late, history)
	b.Next, b.FreshAfter, b.IntentCount = 14, timeAt(10), 3
	f, err := table.Fold(b)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, in := range f.Intents {
		got = append(got, fmt.Sprint(in.UserID, in.Source.Offset, "x", in.Count))
	}
	if want := []string{"both10x3", "new11x3"}; !slices.Equal(got, want) {
		t.Errorf("intents %v, want %v", got, want)
	}
	b = batch(event(20, "old", "x", "like"))
	b.IntentCount = 0
	if f, err := table.Fold(b); err != nil || len(f.Intents) != 0 {
		t.Errorf("intents without a count: %+v, %v", f, err)
	}
}

func TestDeadLettersKeepTheirBytes(t *testing.T) {
	table := open(t, options(t.TempDir()))
	big := strings.Repeat("x", 5<<20)
	// Together far beyond one transaction: the records around them must still be folded, and in order.
	fold(t, table, event(0, "a", "x", "like"), dead(1, "a", big), dead(2, "b", strings.Repeat("y", 900_000)),
		dead(3, "b", strings.Repeat("z", 900_000)), dead(4, "", big), dead(5, "c", strings.Repeat("w", 1_000_000)),
		dead(6, "c", strings.Repeat("v", 1_000_000)), dead(7, "c", strings.Repeat("u", 1_000_000)), event(8, "a", "y", "like"))
	table = reopen(t, table)
	var got []Outgoing
	for {
		out, err := table.Outbox(0, 0, 3)
		if err != nil {
			t.Fatal(err)
		}
		if len(out) == 0 {
			break
		}
		if err := table.Trim(0, out, Position{}); err != nil {
			t.Fatal(err)
		}
		got = append(got, out...)
	}
	if len(got) != 7 {
		t.Fatalf("%d dead letters", len(got))
	}
	for i, o := range got {
		if o.Role != RoleDeadletter || header(o.Message, HeaderOffset) != fmt.Sprint(i+1) || header(o.Message, HeaderReason) != "bad_json" ||
			header(o.Message, HeaderMessage) != "not JSON" || header(o.Message, HeaderTopic) != topic || header(o.Message, HeaderPartition) != "0" {
			t.Errorf("dead letter %d: role %s, headers %s", i, o.Role, o.Headers)
		}
	}
	if string(got[0].Value) != big || string(got[0].Key) != "a" || got[3].Key == nil || len(got[3].Key) != 0 {
		t.Error("bytes of a dead letter changed")
	}
	if r := row1(t, table, "a"); r.Events != 2 {
		t.Errorf("row %+v", r)
	}
	if err := table.Sync(); err != nil {
		t.Error(err)
	}
}

// A dead letter has the headers that its producer gave it, none that could pass for ours, and no more than a message holds.
func TestDeadLettersKeepHeaders(t *testing.T) {
	table := open(t, options(t.TempDir()))
	record := dead(0, "a", "x")
	record.Headers = []schemas.Header{{Key: "ce_id", Value: []byte("1")}, {Key: HeaderOffset, Value: []byte("77")}, {Key: "empty"}}
	many := dead(1, "a", "y")
	many.Headers = slices.Repeat([]schemas.Header{{Key: "h", Value: []byte("v")}}, 70_000)
	fold(t, table, record, many)
	if _, err := table.Accept("requests", 0, []Asked{{Key: []byte("a"), Headers: record.Headers, Dead: record.Dead}}, 1); err != nil {
		t.Fatal(err)
	}
	if err := table.List("items", 0, []Listed{{Key: []byte("a"), Headers: record.Headers, Dead: record.Dead}}, 1); err != nil {
		t.Fatal(err)
	}
	table = reopen(t, table)
	out, err := table.Outbox(0, 0, 10)
	if err != nil || len(out) != 4 {
		t.Fatalf("%d dead letters, error %v", len(out), err)
	}
	for i, o := range out {
		if i == 1 {
			if n := len(o.Headers); n < 1000 || n > 1010 {
				t.Errorf("%d headers of 70,000 are kept", n)
			}
			continue
		}
		if n := len(o.Headers); n != 7 || header(o.Message, "ce_id") != "1" || header(o.Message, HeaderOffset) != "0" {
			t.Errorf("dead letter %d: headers %s", i, o.Headers)
		}
	}
}

func header(m Message, key string) string {
	for _, h := range m.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

func TestRulesWithLongRowsSplit(t *testing.T) {
	o := options(t.TempDir())
	o.Rules.Dedupe = 4096
	table := open(t, o)
	var records []Record
	for i := range int64(1000) {
		records = append(records, event(i, fmt.Sprint("u", i), "x", "like"))
	}
	f := fold(t, table, records...)
	if len(f.Users) != 1000 || len(f.Intents) != 1000 || f.Events != 1000 || f.Next != 1000 {
		t.Errorf("%d users, %d intents, %d events", len(f.Users), len(f.Intents), f.Events)
	}
}

// Within one batch that is split, an intent that a later part replaces is not reported at all.
func TestSplitBatchReportsEachUserOnce(t *testing.T) {
	table := open(t, options(t.TempDir()))
	f := fold(t, table, event(0, "a", "x", "like"), event(1, "c", "x", "like"), forget(2, "b"), event(3, "a", "y", "like"), forget(4, "c"))
	if !slices.Equal(f.Users, []string{"a"}) || len(f.Intents) != 1 || f.Intents[0].Source.Offset != 3 || len(f.Superseded) != 0 {
		t.Errorf("folded %+v", f)
	}
	in, err := table.Intents(0)
	if err != nil || !reflect.DeepEqual(in, f.Intents) {
		t.Errorf("intents %+v, %v", in, err)
	}
}

func TestForget(t *testing.T) {
	table := open(t, options(t.TempDir()))
	f := fold(t, table, event(0, "a", "x", "like"), event(1, "b", "x", "like"))
	complete(t, table, Completion{
		Seq: f.Intents[0].Seq, UserID: "a", Messages: []Message{{Role: RoleGenerated, Key: []byte("a"), Value: []byte("img")}},
		Memories: []Memory{{ID: "mine", Embedding: []float32{1, 2, 3, 4}, Record: []byte("{}")}},
		Vector:   &Vector{Values: []float32{1}, PriorVersion: "v", Events: 1},
	})
	f = fold(t, table, event(2, "a", "mine", "like"), dead(3, "a", "?"))
	late := event(5, "a", "before", "like")
	late.Feedback.OccurredAt = timeAt(4)
	f = fold(t, table, forget(4, "a"), late)
	if f.Forgotten != 1 || f.Events != 0 || len(f.Users) != 0 || len(f.Superseded) != 1 {
		t.Errorf("folded %+v", f)
	}
	check := func(t *testing.T, table *Table) {
		t.Helper()
		if _, ok, _ := table.User("a"); ok {
			t.Error("the row is there")
		}
		if _, ok, _ := table.VectorOf("a"); ok {
			t.Error("the vector is there")
		}
		if g, err := table.GeneratedOf("a", 10); len(g) != 0 || err != nil {
			t.Errorf("memory %v, %v", g, err)
		}
		if _, ok := table.Resolve("a", "mine"); ok {
			t.Error("a generated item resolves")
		}
		in, _ := table.Intents(0)
		if len(in) != 1 || in[0].UserID != "b" {
			t.Errorf("intents %+v", in)
		}
		out, _ := table.Outbox(0, 0, 10)
		if len(out) != 2 || out[0].Role != RoleDeadletter || out[1].Role != RoleVectors || string(out[1].Key) != "a" || out[1].Value != nil {
			t.Errorf("outbox %+v", out)
		}
		if stale, _ := table.Stale(0, 10); !slices.Equal(stale, []string{"b"}) {
			t.Errorf("stale %v", stale)
		}
		if table.UserCount() != 1 || table.UserAt(0) != "b" || table.UserAt(1) != "" {
			t.Errorf("%d users", table.UserCount())
		}
		if err := table.Export(func(c Cut) error {
			return c.Each("", func(key, value []byte) error {
				if bytes.Contains(value, []byte("img")) || bytes.HasPrefix(key, []byte("g/")) {
					t.Errorf("key %q is left", key)
				}
				return nil
			})
		}); err != nil {
			t.Fatal(err)
		}
	}
	check(t, table)
	table = reopen(t, table)
	check(t, table)

	// What occurred up to the mark stays away after a restart too; what occurred later begins a new user.
	f = fold(t, table, late2(6, timeAt(4)), late2(7, timeAt(4).Add(time.Millisecond)))
	if f.Forgotten != 1 || f.Events != 1 {
		t.Errorf("folded %+v", f)
	}
	if r := row1(t, table, "a"); r.Events != 1 || r.LastOffset != 7 || len(r.Window) != 1 {
		t.Errorf("row %+v", r)
	}
}

func late2(offset int64, occurred time.Time) Record {
	r := event(offset, "a", "x", "like")
	r.Feedback.OccurredAt = occurred
	return r
}

// The mark of a user only rises: a second null record with an older timestamp forgives nothing.
func TestForgetMarkOnlyRises(t *testing.T) {
	table := open(t, options(t.TempDir()))
	second := forget(11, "a")
	second.Time = timeAt(1)
	f := fold(t, table, forget(10, "a"), second, late2(12, timeAt(5)), late2(13, timeAt(11)))
	if f.Forgotten != 1 || f.Events != 1 {
		t.Errorf("folded %+v", f)
	}
}

func TestForgetOfAnyKey(t *testing.T) {
	table := open(t, options(t.TempDir()))
	long := strings.Repeat("k", 70_000)
	fold(t, table, forget(0, "nobody"), forget(1, long), event(2, "a", "x", "like"))
	out, err := table.Outbox(0, 0, 10)
	if err != nil || len(out) != 2 || string(out[1].Key) != long {
		t.Errorf("%d messages, %v", len(out), err)
	}
}

// Users whose ids look like other keys never surface anywhere but as users.
func TestScansDoNotMeetOtherKeys(t *testing.T) {
	table := open(t, options(t.TempDir()))
	names := []string{"u/", "o/feedback", "q/\x00", "a", "ab", "abc", "m", "g/", strings.Repeat("z", schemas.MaxID)}
	var records []Record
	for i, n := range names {
		records = append(records, event(int64(i), n, "x", "like"))
	}
	records = append(records, dead(100, "a", "?"), forget(101, "nobody"))
	fold(t, table, records...)
	accept(t, table, 0, ask(0, "ab", "r1", 2))
	list(t, table, 0, item(0, "x", 1))
	in, _ := table.Intents(0)
	for _, i := range in {
		complete(t, table, Completion{
			Seq: i.Seq, UserID: i.UserID, Messages: []Message{{Role: RoleGenerated, Key: []byte(i.UserID), Value: []byte("v")}},
			Memories: []Memory{{ID: "id-" + i.UserID[:1], Embedding: []float32{1, 2, 3, 4}, Record: []byte("r")}},
			Vector:   &Vector{Values: []float32{1}, Events: 1, PriorVersion: "v"},
		})
	}
	slices.Sort(names)
	var got []string
	if err := table.Users(func(r Row) error { got = append(got, r.UserID); return nil }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, names) {
		t.Errorf("users %q, want %q", got, names)
	}
	for user, want := range map[string]int{"a": 1, "ab": 2, "abc": 1, "b": 0} {
		if g, err := table.GeneratedOf(user, 10); err != nil || len(g) > want || (want > 0) != (len(g) > 0) {
			t.Errorf("%q has %d memories, %v", user, len(g), err)
		}
	}
	fold(t, table, forget(200, "a"))
	if g, _ := table.GeneratedOf("ab", 10); len(g) == 0 {
		t.Error("forgetting a took the memory of ab")
	}
}

func TestPartitionsAreApart(t *testing.T) {
	o := options(t.TempDir())
	o.Partitions = 4
	table := open(t, o)
	byPartition := map[int32][]Record{}
	for i := range 200 {
		user := fmt.Sprint("u", i)
		p := schemas.Partition([]byte(user), 4)
		byPartition[p] = append(byPartition[p], event(int64(len(byPartition[p])), user, fmt.Sprint("i", i%9), "like"))
	}
	done := make(chan error)
	for p, records := range byPartition {
		go func() {
			var err error
			for i := 0; i < len(records) && err == nil; i += 7 {
				b := batch(records[i:min(i+7, len(records))]...)
				b.Partition = p
				_, err = table.Fold(b)
			}
			done <- err
		}()
	}
	for range byPartition {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	for p, records := range byPartition {
		if next, _, _, _ := table.Offset(topic, p); next != int64(len(records)) {
			t.Errorf("partition %d is at %d", p, next)
		}
	}
	for i := range 200 {
		user := fmt.Sprint("u", i)
		if r := row1(t, table, user); r.Partition != schemas.Partition([]byte(user), 4) || r.Window[0].ItemID != fmt.Sprint("i", i%9) {
			t.Errorf("row %+v", r)
		}
	}
	before := digest(t, table)
	if after := digest(t, reopen(t, table)); after != before {
		t.Error("the digest changed by a restart")
	}
}

// Readers beside the writer meet whole rows only.
func TestReadersBesideTheFold(t *testing.T) {
	o := options(t.TempDir())
	o.CacheBytes = 4 * 2000
	table := open(t, o)
	stop, done := make(chan struct{}), make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			for i := range table.UserCount() {
				r, ok, err := table.User(table.UserAt(i))
				if err == nil && ok && uint64(len(r.Window)) != min(r.Events, 52) {
					err = fmt.Errorf("row %+v", r)
				}
				if err != nil {
					done <- err
					return
				}
				table.Context(r)
			}
		}
	}()
	for i := range int64(300) {
		fold(t, table, event(2*i, fmt.Sprint("u", i%20), fmt.Sprint("i", i), "like"), event(2*i+1, fmt.Sprint("u", i%7), "x", "like"))
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		os.Exit(child(dir))
	}
	os.Exit(run(m))
}

// Dead letters of megabytes do not stay on the disk once they are sent.
func TestLargeValuesAreCollected(t *testing.T) {
	o := options(t.TempDir())
	table := open(t, o)
	big := strings.Repeat("x", 8<<20)
	const n = 20 // of which 128 MB make a file of the value log
	for i := range int64(n) {
		fold(t, table, dead(i, "a", big))
	}
	kept := outbox(t, table)[0]
	for {
		out, err := table.Outbox(0, kept.Seq, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(out) == 0 {
			break
		}
		if err := table.Trim(0, out, Position{}); err != nil {
			t.Fatal(err)
		}
	}
	first := filepath.Join(o.Dir, "000001.vlog")
	if info, err := os.Stat(first); err != nil || info.Size() < 100<<20 {
		t.Fatalf("%s holds no 100 MB: %v", first, err)
	}
	for range 6 { // each life leaves a file of the tree; together they are worth a compaction, which comes by itself some time
		table = reopen(t, table)
	}
	if err := table.db.Flatten(1); err != nil {
		t.Fatal(err)
	}
	if err := table.Collect(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(first); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", first, err)
	}
	if out := outbox(t, table); len(out) != 1 || string(out[0].Value) != big {
		t.Errorf("%d messages are left, want the first", len(out))
	}
}
