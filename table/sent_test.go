package table

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"rebeca/schemas"
)

// made is the k-th image of an intent as a service publishes it, made at a time and by a prior, which its bytes show.
func made(t testing.TB, in Intent, k int, at time.Time, prior string) (Message, Memory) {
	t.Helper()
	g := schemas.Generated{
		ID: schemas.ID(in.Source, k), UserID: in.UserID, RequestID: in.RequestID, Trigger: in.Trigger, Embedding: []float32{1, 2, 3, float32(k)},
		Guidance: 4, Steps: 8, PriorVersion: prior, AsOf: schemas.Position{Offset: in.Source.Offset}, Source: in.Source, CreatedAt: at,
	}
	value, err := g.Encode()
	if err != nil {
		t.Fatal(err)
	}
	message := Message{
		Role: RoleGenerated, Key: []byte(in.UserID), Value: value,
		Headers: schemas.CloudEvent("rebeca.generated", g.ID, "/rebeca", at, "application/json"),
	}
	return message, Memory{ID: g.ID, Embedding: g.Embedding, Record: value, Source: in.Source}
}

// finished is the completion of an intent with all its images and a vector.
func finished(t testing.TB, in Intent, at time.Time, prior string) Completion {
	t.Helper()
	c := Completion{Seq: in.Seq, UserID: in.UserID}
	for k := range in.Count {
		message, memory := made(t, in, k, at, prior)
		c.Messages, c.Memories = append(c.Messages, message), append(c.Memories, memory)
	}
	c.Messages = append(c.Messages, Message{Role: RoleVectors, Key: []byte(in.UserID), Value: []byte("v")})
	return c
}

func sent(t testing.TB, table *Table, topic string, next int64, found ...Message) []Outgoing {
	t.Helper()
	out, err := table.Sent(0, found, Position{Topic: topic, Next: next})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// messages are what the topics hold once these are sent.
func messages(out ...Outgoing) (found []Message) {
	for _, o := range out {
		found = append(found, o.Message)
	}
	return found
}

func remembered(t testing.TB, table *Table, user string) (records []string) {
	t.Helper()
	g, err := table.GeneratedOf(user, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range g {
		records = append(records, string(m.Record))
	}
	return records
}

// What is on the topics leaves the outbox by its name and nothing else does, over a restart between acknowledgement and trim.
func TestSentTrimsWhatIsThere(t *testing.T) {
	table := open(t, options(t.TempDir()))
	in := accept(t, table, 0, ask(0, "a", "r", 3))[0]
	fold(t, table, dead(0, "b", "one"), dead(1, "b", "one"))
	complete(t, table, finished(t, in, timeAt(1), "1-a"))
	out := outbox(t, table) // three images and a vector, two dead letters
	if len(out) != 6 {
		t.Fatalf("outbox %+v", out)
	}
	if err := table.Trim(0, out[:1], Position{Topic: "generated", Next: 1}); err != nil {
		t.Fatal(err)
	}
	table = reopen(t, table)
	if next, _, ok, err := table.Offset("generated", 0); next != 1 || !ok || err != nil {
		t.Errorf("position %d, %v, %v", next, ok, err)
	}
	before := remembered(t, table, "a")
	stranger := Message{Role: RoleGenerated, Key: []byte("a"), Value: []byte("no JSON"), Headers: []schemas.Header{{Key: headerID, Value: []byte("x")}}}
	bare := Message{Role: RoleDeadletter, Key: []byte("b"), Value: []byte("one")}
	for range 2 { // the second finds nothing left to do
		sent(t, table, "generated", 3, out[1].Message, stranger, Message{Role: RoleVectors, Key: []byte("a"), Value: []byte("v")})
		sent(t, table, "deadletter", 7, bare, out[5].Message)
	}
	if left := outbox(t, table); !reflect.DeepEqual(left, []Outgoing{out[2], out[3], out[4]}) {
		t.Errorf("outbox %+v, want the third image, the vector and the first dead letter", left)
	}
	if after := remembered(t, table, "a"); !slices.Equal(before, after) {
		t.Errorf("memory %q, was %q", after, before)
	}
	for topic, want := range map[string]int64{"generated": 3, "deadletter": 7} {
		if next, _, _, _ := table.Offset(topic, 0); next != want {
			t.Errorf("position in %s %d, want %d", topic, next, want)
		}
	}
	sent(t, table, "generated", 4)
	if next, _, _, _ := table.Offset("generated", 0); next != 4 {
		t.Errorf("position %d after nothing was found below 4", next)
	}
	// An image too large for its topic lies among the dead letters, without an offset of its own.
	buried := out[2].Message
	buried.Role = RoleDeadletter
	buried.Headers = append(slices.Clone(buried.Headers), schemas.Header{Key: HeaderTopic, Value: []byte("generated")})
	if got := sent(t, table, "deadletter", 8, buried); !reflect.DeepEqual(got, []Outgoing{out[2]}) {
		t.Errorf("trimmed %+v, want the third image", got)
	}
}

// A state restored from before its images were published folds their causes again: what the topic holds is not sent again, whether the
// intent was completed before the topic was read back or after it, and the rest of a request is.
func TestRestoredStateSendsNothingTwice(t *testing.T) {
	for _, first := range []string{"topic", "intent"} {
		t.Run(first, func(t *testing.T) {
			old, table := open(t, options(t.TempDir())), open(t, options(t.TempDir()))
			var intents [2][]Intent
			for i, table := range []*Table{old, table} {
				intents[i] = append(fold(t, table, event(0, "a", "x", "like")).Intents, accept(t, table, 0, ask(0, "a", "r", 3))...)
			}
			if !reflect.DeepEqual(intents[0], intents[1]) {
				t.Fatalf("the same records made %+v and %+v", intents[0], intents[1])
			}
			for _, in := range intents[0] {
				complete(t, old, finished(t, in, timeAt(1), "1-a"))
			}
			out := outbox(t, old)                                 // image, vector, three images, vector
			there := messages(out[0], out[1], out[2], out[3])[:4] // died before the last image was sent
			again := func() {
				for _, in := range intents[1] {
					complete(t, table, finished(t, in, timeAt(9), "2-b"))
				}
			}
			var trimmed []Outgoing
			if first == "topic" {
				trimmed = sent(t, table, "generated", 3, there...)
				again()
			} else {
				again()
				trimmed = sent(t, table, "generated", 3, there...)
			}
			if want := map[string]int{"topic": 0, "intent": 3}[first]; len(trimmed) != want {
				t.Errorf("%d trimmed, want %d", len(trimmed), want)
			}
			var left []string
			for _, o := range outbox(t, table) {
				left = append(left, fmt.Sprintf("%s/%d", o.Role, o.Index))
			}
			if want := []string{"vectors/1", "generated/2", "vectors/3"}; !slices.Equal(left, want) {
				t.Errorf("outbox %v, want %v", left, want)
			}
			if n, _ := table.Depths(); n != 0 {
				t.Errorf("%d intents wait", n)
			}
			// The memory tells of what was published.
			records := remembered(t, table, "a")
			want := []string{string(outbox(t, table)[1].Value), string(out[3].Value), string(out[2].Value), string(out[0].Value)}
			if !slices.Equal(records, want) {
				t.Errorf("memory %q, want %q", records, want)
			}
			if e, ok := table.Resolve("a", schemas.ID(intents[0][1].Source, 1)); !ok || e[3] != 1 {
				t.Errorf("a published image resolves to %v, %v", e, ok)
			}
		})
	}
}

// An image of a life that was forgotten does not come back with the topic, one of the next life does.
func TestSentKeepsForgottenImagesOut(t *testing.T) {
	table := open(t, options(t.TempDir()))
	in := fold(t, table, event(0, "a", "x", "like")).Intents[0]
	early, _ := made(t, in, 0, timeAt(1), "1-a")
	fold(t, table, forget(1, "a"))
	next := fold(t, table, late2(2, timeAt(10))).Intents[0]
	late, _ := made(t, next, 0, timeAt(11), "1-a")
	other := in
	other.UserID = "b"
	theirs, _ := made(t, other, 1, timeAt(1), "1-a")
	sent(t, table, "generated", 3, early, late, theirs)
	if got := remembered(t, table, "a"); !slices.Equal(got, []string{string(late.Value)}) {
		t.Errorf("memory %q, want that of the new life alone", got)
	}
	if got := remembered(t, table, "b"); len(got) != 1 {
		t.Errorf("memory of another %q", got)
	}
	fold(t, table, forget(3, "a"))
	if got := remembered(t, table, "a"); len(got) != 0 {
		t.Errorf("memory %q after the forget came", got)
	}
}

// Images of users who belong to another partition are not ours to remember.
func TestSentIsOfOnePartition(t *testing.T) {
	o := options(t.TempDir())
	o.Partitions = 2
	table := open(t, o)
	own := table.userPartition("a")
	m, _ := made(t, Intent{UserID: "a", Trigger: "request", Source: schemas.Source{Topic: "requests"}}, 0, timeAt(0), "1-a")
	keys := func() (n int) {
		if err := table.Export(func(c Cut) error { return c.Each(prefixMemory, func(_, _ []byte) error { n++; return nil }) }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, p := range []int32{1 - own, own} {
		if n := keys(); n != 0 {
			t.Errorf("%d keys of memory", n)
		}
		if _, err := table.Sent(p, []Message{m}, Position{Topic: "generated", Partition: p, Next: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if got := remembered(t, table, "a"); len(got) != 1 {
		t.Errorf("memory %q", got)
	}
	if _, err := table.Sent(2, nil, Position{}); err == nil {
		t.Error("a partition that is not there took records")
	}
}

// A log made anew gives its records the ids of the old one's. An image from before its cause is the old log's and holds up no new one.
func TestImagesOfAnotherLogDoNotCount(t *testing.T) {
	table := open(t, options(t.TempDir()))
	in := fold(t, table, event(0, "a", "x", "like")).Intents[0]
	old, _ := made(t, in, 0, in.At.Add(-maxSkew-time.Second), "1-a")
	sent(t, table, "generated", 1, old)
	complete(t, table, finished(t, in, in.At, "2-b"))
	if out := outbox(t, table); len(out) != 2 || out[0].Role != RoleGenerated {
		t.Errorf("outbox %+v, want the image and the vector", out)
	}
	// A cause whose clock runs ahead by less is still the image's own.
	in = fold(t, table, event(1, "a", "y", "like")).Intents[0]
	skewed, _ := made(t, in, 0, in.At.Add(-maxSkew+time.Second), "1-a")
	sent(t, table, "generated", 2, skewed)
	complete(t, table, finished(t, in, in.At, "2-b"))
	if out := outbox(t, table); len(out) != 3 || out[2].Role != RoleVectors {
		t.Errorf("outbox %+v, want one vector more", out)
	}
}

// More images than a transaction holds are taken in all the same, and those in the outbox leave it in several.
func TestSentTakesManyAtOnce(t *testing.T) {
	table := open(t, options(t.TempDir()))
	var found []Message
	for i := range int64(600) {
		in := Intent{UserID: fmt.Sprintf("user-%d", i%3), Trigger: "request", Source: schemas.Source{Topic: "requests", Offset: i}}
		m, _ := made(t, in, 0, timeAt(0), fmt.Sprintf("%0200d", i))
		m.Value = append(m.Value, fmt.Sprintf("%10000s", "")...) // JSON may end in spaces
		found = append(found, m)
	}
	if size := int64(600 * 2 * 10_000); size < 2*table.budget {
		t.Fatalf("%d bytes fit a transaction of %d", size, table.budget)
	}
	sent(t, table, "generated", 600, found...)
	g, err := table.GeneratedOf("user-1", 1000)
	if err != nil || len(g) != 200 || string(g[0].Record) != string(found[598].Value) || string(g[199].Record) != string(found[1].Value) {
		t.Errorf("%d memories, %v", len(g), err)
	}
	var log []Record
	for i := range int64(trimChunk + 10) {
		log = append(log, dead(i, "b", "?"))
	}
	fold(t, table, log...)
	out, err := table.Outbox(0, 0, len(log))
	if err != nil || len(out) != len(log) {
		t.Fatalf("outbox %d, %v", len(out), err)
	}
	if got := sent(t, table, "deadletter", int64(len(out)), messages(out...)...); len(got) != len(out) {
		t.Errorf("%d of %d trimmed", len(got), len(out))
	}
	if _, m := table.Depths(); m != 0 {
		t.Errorf("%d messages left", m)
	}
}

// A dead letter on its topic whose record this state has still to fold is not sent again by that fold. Another record in its place is.
func TestDeadLettersFoundBeforeTheirFold(t *testing.T) {
	const topics = 3 // feedback, requests, items
	old, table := open(t, options(t.TempDir())), open(t, options(t.TempDir()))
	bury := func(table *Table, value string) (written int) {
		before := len(outbox(t, table))
		fold(t, table, dead(0, "a", "same"), dead(1, "a", value))
		r := &schemas.Rejection{Reason: schemas.ReasonBadCount, Message: "m"}
		accept(t, table, 0, Asked{Time: timeAt(0), Key: []byte("a"), Value: []byte(value), Dead: r})
		if err := table.List("items", 5, []Listed{{Offset: 7, Time: timeAt(0), Value: []byte(value), Dead: r}}, 8); err != nil {
			t.Fatal(err)
		}
		return len(outbox(t, table)) - before
	}
	if n := bury(old, "?"); n != topics+1 {
		t.Fatalf("%d dead letters", n)
	}
	there := messages(outbox(t, old)...)
	foreign := there[0]
	foreign.Headers = []schemas.Header{{Key: HeaderTopic, Value: []byte("feedback")}, {Key: HeaderPartition, Value: []byte("x")}, {Key: HeaderOffset, Value: []byte("0")}}
	for _, c := range []struct {
		value string
		want  int
	}{{"?", 0}, {"other", topics}} {
		table = open(t, options(t.TempDir()))
		for range 2 {
			if got := sent(t, table, "deadletter", 5, append(there, foreign)...); len(got) != 0 {
				t.Errorf("trimmed %+v of an empty outbox", got)
			}
		}
		table = reopen(t, table)
		if n := bury(table, c.value); n != c.want {
			t.Errorf("%d dead letters of %q sent, want %d", n, c.value, c.want)
		}
		// What has been folded is not waited for.
		sent(t, table, "deadletter", 5, there...)
		marks := 0
		if err := table.Export(func(c Cut) error { return c.Each(prefixBuried, func(_, _ []byte) error { marks++; return nil }) }); err != nil {
			t.Fatal(err)
		}
		if marks != c.want {
			t.Errorf("%d marks are left, want %d", marks, c.want)
		}
	}
}
