package table

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"rebeca/prior"
	"rebeca/schemas"
)

func complete(t testing.TB, table *Table, cs ...Completion) {
	t.Helper()
	if err := table.Complete(0, cs); err != nil {
		t.Fatal(err)
	}
}

func ask(offset int64, user, id string, count int) Asked {
	return Asked{
		Offset: offset, Time: timeAt(offset), Key: []byte(user), Value: []byte("{}"),
		Request: &schemas.Request{RequestID: id, UserID: user, Count: count},
	}
}

func accept(t testing.TB, table *Table, first int64, asked ...Asked) []Intent {
	t.Helper()
	in, err := table.Accept("requests", 0, asked, first+int64(len(asked)))
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func image(user, value string) Message {
	return Message{Role: RoleGenerated, Key: []byte(user), Value: []byte(value), Headers: []schemas.Header{{Key: "ce_id", Value: []byte(value)}}}
}

func outbox(t testing.TB, table *Table) []Outgoing {
	t.Helper()
	out, err := table.Outbox(0, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func seqs(in []Intent) (out []uint64) {
	for _, i := range in {
		out = append(out, i.Seq)
	}
	return out
}

func intents(t testing.TB, table *Table) []Intent {
	t.Helper()
	in, err := table.Intents(0)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// One intent of a user waits, one flies.
func TestSuperseding(t *testing.T) {
	table := open(t, options(t.TempDir()))
	first := fold(t, table, event(0, "a", "x", "like"), event(1, "b", "x", "like")).Intents
	f := fold(t, table, event(2, "a", "y", "like"))
	if !slices.Equal(f.Superseded, []uint64{first[0].Seq}) {
		t.Fatalf("superseded %v, want the first of %v", f.Superseded, seqs(first))
	}
	flying := f.Intents[0]
	table.Begin(0, []uint64{flying.Seq})
	if begun, err := table.Begun(0); err != nil || !slices.Equal(seqs(begun), []uint64{flying.Seq}) {
		t.Errorf("begun %+v, %v", begun, err)
	}
	f = fold(t, table, event(3, "a", "z", "like"))
	if len(f.Superseded) != 0 {
		t.Fatalf("an intent in flight was superseded: %v", f.Superseded)
	}
	waits := f.Intents[0]
	f = fold(t, table, event(4, "a", "z", "like"))
	if !slices.Equal(f.Superseded, []uint64{waits.Seq}) {
		t.Fatalf("superseded %v, want %d", f.Superseded, waits.Seq)
	}
	if got := intents(t, table); !slices.Equal(seqs(got), []uint64{first[1].Seq, f.Intents[0].Seq}) {
		t.Errorf("waiting %+v", got)
	}
	// The one in flight fails and comes back; both wait until newer feedback replaces both.
	table.Release(0, []uint64{flying.Seq})
	if got := intents(t, table); len(got) != 3 {
		t.Errorf("waiting %+v", got)
	}
	g := fold(t, table, event(5, "a", "z", "like"))
	if !slices.Equal(g.Superseded, []uint64{flying.Seq, f.Intents[0].Seq}) {
		t.Errorf("superseded %v", g.Superseded)
	}
	if n, _ := table.Depths(); n != 2 {
		t.Errorf("depth %d", n)
	}
	table = reopen(t, table)
	if got := intents(t, table); !slices.Equal(seqs(got), []uint64{first[1].Seq, g.Intents[0].Seq}) || !reflect.DeepEqual(got[1], g.Intents[0]) {
		t.Errorf("after a restart %+v, want %+v", got, g.Intents)
	}
	// What was superseded is gone: its completion is dropped whole.
	complete(t, table, Completion{Seq: flying.Seq, UserID: "a", Messages: []Message{image("a", "late")}})
	if out := outbox(t, table); len(out) != 0 {
		t.Errorf("outbox %+v", out)
	}
}

// After a crash nothing flies, and what flew is there to be made again.
func TestReopenReturnsWhatFlew(t *testing.T) {
	table := open(t, options(t.TempDir()))
	a := fold(t, table, event(0, "a", "x", "like")).Intents[0]
	table.Begin(0, []uint64{a.Seq})
	b := fold(t, table, event(1, "a", "y", "like")).Intents[0]
	table = reopen(t, table)
	if got := intents(t, table); !reflect.DeepEqual(got, []Intent{a, b}) {
		t.Fatalf("intents %+v", got)
	}
	if f := fold(t, table, event(2, "a", "z", "like")); !slices.Equal(f.Superseded, []uint64{a.Seq, b.Seq}) {
		t.Errorf("superseded %v", f.Superseded)
	}
}

func TestRequests(t *testing.T) {
	table := open(t, options(t.TempDir()))
	seed, guidance, images := uint64(9), 2.5, false
	full := ask(0, "a", "r1", 7)
	full.Request.Rating, full.Request.Seed, full.Request.Guidance, full.Request.Images = "dislike", &seed, &guidance, &images
	full.Request.After = &schemas.Position{Partition: 0, Offset: 3}
	bad := Asked{Offset: 2, Time: timeAt(2), Key: []byte("a"), Value: []byte("?"), Dead: &schemas.Rejection{Reason: "bad_count", Message: "m"}}
	in := accept(t, table, 0, full, ask(1, "a", "r2", 1), bad, ask(3, "a", "r1", 7), ask(4, "b", "r1", 1))
	if len(in) != 3 {
		t.Fatalf("intents %+v", in)
	}
	source := schemas.Source{Topic: "requests", Partition: 0, Offset: 0}
	want := Intent{
		Seq: in[0].Seq, ID: schemas.ID(source, 0), UserID: "a", Trigger: "request", RequestID: "r1", Count: 7, Rating: "dislike", Seed: &seed,
		Guidance: &guidance, Images: &images, After: &schemas.Position{Partition: 0, Offset: 3}, Source: source, At: timeAt(0),
	}
	if !reflect.DeepEqual(in[0], want) {
		t.Errorf("intent %+v, want %+v", in[0], want)
	}
	if f := fold(t, table, event(0, "a", "x", "like"), event(1, "a", "y", "like")); len(f.Superseded) != 0 {
		t.Errorf("feedback superseded requests: %v", f.Superseded)
	}
	if out := outbox(t, table); len(out) != 1 || header(out[0].Message, HeaderTopic) != "requests" || header(out[0].Message, HeaderReason) != "bad_count" {
		t.Errorf("outbox %+v", out)
	}
	table = reopen(t, table)
	if got := intents(t, table); len(got) != 4 || !reflect.DeepEqual(got[:3], in) {
		t.Errorf("after a restart %+v", got)
	}
	if again := accept(t, table, 5, ask(5, "a", "r2", 1)); len(again) != 0 {
		t.Errorf("a request sent again after a restart made %+v", again)
	}
	if _, err := table.Accept("requests", 0, []Asked{ask(5, "a", "r9", 1)}, 6); err == nil {
		t.Error("a request below the offset was accepted")
	}
	if next, _, ok, _ := table.Offset("requests", 0); next != 6 || !ok {
		t.Errorf("offset %d", next)
	}
}

// The newest 128 request ids of a user are remembered, not one more.
func TestRequestMemoryIsBounded(t *testing.T) {
	table := open(t, options(t.TempDir()))
	var asked []Asked
	for i := range int64(129) {
		asked = append(asked, ask(i, "a", fmt.Sprint("r", i), 1))
	}
	accept(t, table, 0, asked...)
	if in := accept(t, table, 129, ask(129, "a", "r1", 1)); len(in) != 0 {
		t.Error("the 128th newest id is forgotten")
	}
	if in := accept(t, table, 130, ask(130, "a", "r0", 1)); len(in) != 1 {
		t.Error("the 129th newest id is remembered")
	}
}

func TestCompletion(t *testing.T) {
	table := open(t, options(t.TempDir()))
	fold(t, table, event(0, "a", "x", "like"))
	in := append(intents(t, table), accept(t, table, 0, ask(0, "a", "r", 2))...)
	table.Begin(0, seqs(in))
	memory := func(id string) Memory {
		return Memory{ID: id, Embedding: []float32{1, 2, 3, 4}, Record: []byte(`{"id":"` + id + `"}`), Source: in[0].Source}
	}
	vector := Vector{Values: []float32{.5, -1}, PriorVersion: "1-ab", Events: 1, AsOf: 0}
	// The later intent is completed first; the outbox is in order of the intents all the same.
	complete(t, table, Completion{Seq: in[1].Seq, UserID: "a", Messages: []Message{image("a", "two"), image("a", "three")}, Memories: []Memory{memory("m1"), memory("m2")}})
	complete(t, table, Completion{
		Seq: in[0].Seq, UserID: "a", Messages: []Message{image("a", "one"), {Role: RoleVectors, Key: []byte("a"), Value: []byte("v")}},
		Memories: []Memory{memory("m3")}, Vector: &vector,
	})
	check := func(table *Table) {
		t.Helper()
		var order []string
		for _, o := range outbox(t, table) {
			order = append(order, fmt.Sprintf("%d/%d %s %s", o.Seq, o.Index, o.Role, o.Value))
		}
		want := []string{
			fmt.Sprintf("%d/0 generated one", in[0].Seq), fmt.Sprintf("%d/1 vectors v", in[0].Seq),
			fmt.Sprintf("%d/0 generated two", in[1].Seq), fmt.Sprintf("%d/1 generated three", in[1].Seq),
		}
		if !slices.Equal(order, want) {
			t.Errorf("outbox %q, want %q", order, want)
		}
		g, err := table.GeneratedOf("a", 10)
		if err != nil || len(g) != 3 || !reflect.DeepEqual(g, []Memory{memory("m3"), memory("m2"), memory("m1")}) {
			t.Errorf("memory %+v, %v", g, err)
		}
		if g, _ := table.GeneratedOf("a", 1); len(g) != 1 || g[0].ID != "m3" {
			t.Errorf("newest memory %+v", g)
		}
		if v, ok, err := table.VectorOf("a"); !ok || err != nil || !reflect.DeepEqual(v, vector) {
			t.Errorf("vector %+v, %v, %v", v, ok, err)
		}
		if i, m := table.Depths(); i != 0 || m != 4 {
			t.Errorf("depths %d, %d", i, m)
		}
		select {
		case <-table.Notify(0):
		default:
			t.Error("no signal though messages are there")
		}
	}
	check(table)
	table = reopen(t, table)
	check(table)
	// The same completion once more changes nothing: its intent is gone.
	complete(t, table, Completion{Seq: in[0].Seq, UserID: "a", Messages: []Message{image("a", "again")}, Memories: []Memory{memory("m9")}})
	check2 := outbox(t, table)
	if len(check2) != 4 {
		t.Errorf("outbox %+v", check2)
	}
	if out, _ := table.Outbox(0, in[0].Seq, 10); len(out) != 2 || out[0].Seq != in[1].Seq {
		t.Errorf("outbox above the first: %+v", out)
	}
	if out, _ := table.Outbox(0, 0, 3); len(out) != 3 {
		t.Errorf("a limit of 3 gives %d", len(out))
	}
	// Trimming in the middle, twice, and at the end.
	for range 2 {
		if err := table.Trim(0, check2[1:3], Position{}); err != nil {
			t.Fatal(err)
		}
	}
	if out := outbox(t, table); !reflect.DeepEqual(out, []Outgoing{check2[0], check2[3]}) {
		t.Errorf("outbox %+v", out)
	}
	if err := table.Trim(0, check2, Position{}); err != nil {
		t.Fatal(err)
	}
	if _, m := table.Depths(); m != 0 || len(outbox(t, table)) != 0 {
		t.Errorf("%d messages after trimming all", m)
	}
	if _, m := reopen(t, table).Depths(); m != 0 {
		t.Errorf("%d messages after a restart", m)
	}
}

// Sequence numbers are never given twice, though the outbox is empty between.
func TestSequenceNumbersRiseOverRestarts(t *testing.T) {
	table := open(t, options(t.TempDir()))
	last := uint64(0)
	for i := range int64(3) {
		in := fold(t, table, event(i, "a", fmt.Sprint(i), "like")).Intents[0]
		if in.Seq <= last {
			t.Fatalf("sequence number %d follows %d", in.Seq, last)
		}
		last = in.Seq
		complete(t, table, Completion{Seq: in.Seq, UserID: "a"})
		table = reopen(t, table)
	}
}

func TestCompletionAfterForgetIsDropped(t *testing.T) {
	table := open(t, options(t.TempDir()))
	in := fold(t, table, event(0, "a", "x", "like")).Intents[0]
	table.Begin(0, []uint64{in.Seq})
	old := Vector{Values: []float32{1}, PriorVersion: "v", Events: 1, AsOf: 1}
	fold(t, table, event(1, "a", "y", "like"), forget(2, "a"))
	late := func() {
		t.Helper()
		complete(t, table,
			Completion{Seq: in.Seq, UserID: "a", Messages: []Message{image("a", "late")}, Memories: []Memory{{ID: "m", Embedding: make([]float32, dim)}}, Vector: &old},
			Completion{UserID: "a", Messages: []Message{{Role: RoleVectors, Key: []byte("a"), Value: []byte("late")}}, Vector: &old})
		if out := outbox(t, table); len(out) != 1 || out[0].Value != nil {
			t.Errorf("outbox %+v", out)
		}
		if _, ok, _ := table.VectorOf("a"); ok {
			t.Error("a forgotten vector was stored")
		}
		if g, _ := table.GeneratedOf("a", 1); len(g) != 0 {
			t.Error("a forgotten memory was stored")
		}
	}
	late()
	// The user comes back with as many events as the old vector knew: it is still the old life's.
	fold(t, table, late2(10, timeAt(10)))
	late()
	unknown := old
	unknown.AsOf, unknown.Events = 0, 2
	complete(t, table, Completion{UserID: "a", Messages: []Message{{Role: RoleVectors, Key: []byte("a"), Value: []byte("late")}}, Vector: &unknown})
	late()
	fresh := Vector{Values: []float32{2}, PriorVersion: "v", Events: 1, AsOf: 10}
	complete(t, table, Completion{UserID: "a", Vector: &fresh})
	if v, ok, _ := table.VectorOf("a"); !ok || v.Values[0] != 2 {
		t.Errorf("vector %+v, %v", v, ok)
	}
}

// The requests topic may be ahead of the feedback topic: a request made after a forget that is read before it waits for the next life.
func TestForgetKeepsLaterRequests(t *testing.T) {
	table := open(t, options(t.TempDir()))
	fold(t, table, event(0, "a", "x", "like"))
	in := accept(t, table, 1, ask(1, "a", "before", 1), ask(2, "a", "after", 1))
	table.Begin(0, []uint64{in[0].Seq, in[1].Seq})
	forgetting := forget(2, "a")
	forgetting.Time = timeAt(1)
	f := fold(t, table, forgetting)
	if len(f.Intents) != 1 || f.Intents[0].ID != in[1].ID || f.Intents[0].Seq == in[1].Seq || len(f.Superseded) != 3 {
		t.Fatalf("folded %+v", f)
	}
	// What was begun for the forgotten life finds no intent.
	complete(t, table, Completion{Seq: in[1].Seq, UserID: "a", Messages: []Message{image("a", "old life")}})
	if out := outbox(t, table); len(out) != 1 || out[0].Role != RoleVectors {
		t.Errorf("outbox %+v", out)
	}
	table = reopen(t, table)
	if waiting, _ := table.Intents(0); len(waiting) != 1 || waiting[0].RequestID != "after" {
		t.Errorf("waiting %+v", waiting)
	}
	if again := accept(t, table, 4, ask(4, "a", "after", 1)); len(again) != 0 {
		t.Errorf("the same request is taken twice: %+v", again)
	}
	complete(t, table, Completion{Seq: f.Intents[0].Seq, UserID: "a", Messages: []Message{image("a", "next life")}})
	if out := outbox(t, table); len(out) != 2 || string(out[0].Value) != "next life" {
		t.Errorf("outbox %+v", out)
	}
}

// Requests of somebody without events are answered; there is no vector to keep.
func TestCompletionOfAnUnknownUser(t *testing.T) {
	table := open(t, options(t.TempDir()))
	in := accept(t, table, 0, ask(0, "new", "r", 1))[0]
	complete(t, table, Completion{
		Seq: in.Seq, UserID: "new", Messages: []Message{image("new", "img"), {Role: RoleVectors, Key: []byte("new")}},
		Memories: []Memory{{ID: "m", Embedding: []float32{1, 2, 3, 4}}}, Vector: &Vector{Values: []float32{1}},
	})
	if out := outbox(t, table); len(out) != 1 || out[0].Role != RoleGenerated {
		t.Errorf("outbox %+v", out)
	}
	if g, _ := table.GeneratedOf("new", 5); len(g) != 1 {
		t.Errorf("memory %+v", g)
	}
	if _, ok, _ := table.VectorOf("new"); ok || table.UserCount() != 0 {
		t.Error("a completion made a user")
	}
}

// 1,000 results of 8 KB twice over exceed a transaction. They enter in several, and an attempt that ends between two goes on behind it.
func TestLargeCompletionEntersOnce(t *testing.T) {
	table := open(t, options(t.TempDir()))
	in := accept(t, table, 0, ask(0, "a", "r", 1000))[0]
	c := Completion{Seq: in.Seq, UserID: "a"}
	for i := range 1000 {
		value := bytes.Repeat([]byte{byte(i)}, 8000)
		c.Messages = append(c.Messages, Message{Role: RoleGenerated, Key: []byte("a"), Value: value})
		c.Memories = append(c.Memories, Memory{ID: schemas.ID(in.Source, i), Embedding: []float32{float32(i), 0, 0, 0}, Record: value})
	}
	// The first transaction alone, as if the process had died behind it.
	p := table.partitions[0]
	p.mu.Lock()
	var reached progress
	err := table.update(p, func(ch *change) (err error) {
		reached, err = ch.complete([]Completion{c}, progress{})
		return err
	})
	p.mu.Unlock()
	if err != nil || reached.completion != 0 || reached.unit == 0 || reached.unit > 900 {
		t.Fatalf("reached %+v, %v", reached, err)
	}
	table = reopen(t, table)
	if got := intents(t, table); !reflect.DeepEqual(got, []Intent{in}) {
		t.Fatalf("intents %+v", got)
	}
	early := outbox(t, table)
	if err := table.Trim(0, early[:5], Position{}); err != nil {
		t.Fatal(err)
	}
	for i := range c.Messages { // made again with a newer prior
		c.Messages[i].Value = bytes.Repeat([]byte{byte(i + 1)}, 8000)
	}
	complete(t, table, c)
	got := slices.Clone(early[:5])
	for {
		out := outbox(t, table)
		if len(out) == 0 {
			break
		}
		got = append(got, out...)
		if err := table.Trim(0, out, Position{}); err != nil {
			t.Fatal(err)
		}
	}
	for i, o := range got {
		first := byte(i)
		if i >= reached.unit {
			first++
		}
		if o.Index != i || o.Value[0] != first {
			t.Fatalf("message %d is %d/%d of %d", i, o.Seq, o.Index, o.Value[0])
		}
	}
	if g, err := table.GeneratedOf("a", 2000); len(got) != 1000 || len(g) != 1000 || err != nil || len(intents(t, table)) != 0 {
		t.Errorf("%d messages, %d memories, %v", len(got), len(g), err)
	}
}

func TestMemoryKeepsTheNewestThousand(t *testing.T) {
	table := open(t, options(t.TempDir()))
	fold(t, table, event(0, "a", "x", "like"))
	c := Completion{UserID: "a"}
	for i := range maxMemories + 50 {
		c.Memories = append(c.Memories, Memory{ID: fmt.Sprint("m", i), Embedding: []float32{float32(i), 0, 0, 0}})
	}
	c.Memories = append(c.Memories, c.Memories[len(c.Memories)-1]) // known already
	complete(t, table, c)
	g, err := table.GeneratedOf("a", 10_000)
	if err != nil || len(g) != maxMemories || g[0].ID != "m1049" || g[999].ID != "m50" {
		t.Fatalf("%d memories, %v", len(g), err)
	}
	if _, ok := table.Resolve("a", "m49"); ok {
		t.Error("a memory beyond the newest 1,000 resolves")
	}
	if e, ok := table.Resolve("a", "m50"); !ok || e[0] != 50 {
		t.Errorf("m50 resolves to %v, %v", e, ok)
	}
}

func TestContextResolvesCatalogueAndMemory(t *testing.T) {
	table := open(t, options(t.TempDir()))
	in := accept(t, table, 0, ask(0, "a", "r", 1))[0]
	complete(t, table, Completion{Seq: in.Seq, UserID: "a", Memories: []Memory{{ID: in.ID, Embedding: []float32{4, 3, 2, 1}}}})
	list(t, table, 0, item(0, "x", 7))
	fold(t, table, event(0, "a", "x", "like"), event(1, "a", in.ID, "dislike"), event(2, "a", "later", "click"), event(3, "b", in.ID, "like"))
	got, masked := table.Context(row1(t, table, "a"))
	want := prior.Context{
		{Item: []float32{4, 3, 2, 1}, Class: prior.StrongNegative}, {Item: []float32{7, 7, 7, 7}, Class: prior.StrongPositive},
	}
	if masked != 1 || !reflect.DeepEqual(got, want) {
		t.Errorf("context %+v, %d masked", got, masked)
	}
	if c, masked := table.Context(row1(t, table, "b")); masked != 1 || len(c) != 0 {
		t.Errorf("somebody else's image resolves: %+v", c)
	}
	list(t, table, 1, item(1, "later", 2))
	if c, masked := table.Context(row1(t, table, "a")); masked != 0 || len(c) != 3 || c[0].Class != prior.WeakPositive {
		t.Errorf("context %+v, %d masked", c, masked)
	}
	if r, ok, err := table.User("nobody"); ok || err != nil || r.LastOffset != -1 || r.UserID != "nobody" {
		t.Errorf("row %+v, %v, %v", r, ok, err)
	}
	if c, masked := table.Context(Row{}); len(c) != 0 || masked != 0 {
		t.Errorf("context of nobody: %+v", c)
	}
}

func TestStale(t *testing.T) {
	table := open(t, options(t.TempDir()))
	stale := func(limit int) []string {
		t.Helper()
		users, err := table.Stale(0, limit)
		if err != nil {
			t.Fatal(err)
		}
		return users
	}
	fold(t, table, event(0, "c", "x", "like"), event(1, "a", "x", "like"), event(2, "b", "x", "like"))
	if got := stale(10); !slices.Equal(got, []string{"c", "a", "b"}) {
		t.Errorf("stale %v", got)
	}
	vector := func(user string, events uint64, version string) {
		t.Helper()
		complete(t, table, Completion{UserID: user, Vector: &Vector{Values: []float32{1}, Events: events, PriorVersion: version}})
	}
	vector("c", 1, "1")
	vector("a", 1, "2")
	fold(t, table, event(3, "c", "y", "like"))
	if got := stale(10); !slices.Equal(got, []string{"b", "c"}) {
		t.Errorf("stale %v", got)
	}
	if got := stale(1); !slices.Equal(got, []string{"b"}) {
		t.Errorf("stale %v", got)
	}
	vector("c", 1, "1") // made before the event was folded
	table = reopen(t, table)
	if got := stale(10); !slices.Equal(got, []string{"b", "c"}) {
		t.Errorf("after a restart stale %v", got)
	}
	vector("b", 1, "2")
	vector("c", 2, "1")
	if got := stale(10); len(got) != 0 {
		t.Errorf("stale %v", got)
	}
}

// The set forgets what was cleaned and stays small.
func TestStaleSetIsBounded(t *testing.T) {
	s := newStaleSet()
	for i := range 10_000 {
		s.mark("a")
		s.mark(fmt.Sprint("u", i%10))
		s.clean("a")
	}
	if len(s.order) > 200 || len(s.first(100)) != 10 {
		t.Errorf("%d entries for %d users", len(s.order), len(s.first(100)))
	}
}

// A silent state folds as any other and has nothing to send.
func TestSilentStateSendsNothing(t *testing.T) {
	o := options(t.TempDir())
	loud := open(t, options(t.TempDir()))
	o.Silent = true
	silent := open(t, o)
	for _, table := range []*Table{loud, silent} {
		f := fold(t, table, event(0, "a", "x", "like"), dead(1, "b", "?"), forget(2, "a"), event(3, "c", "x", "like"))
		if f.Dead != 1 || f.Events != 2 {
			t.Errorf("folded %+v", f)
		}
	}
	if digest(t, loud) != digest(t, silent) {
		t.Error("silence changed the facts")
	}
	if n := len(outbox(t, loud)); n != 2 {
		t.Errorf("%d messages, want a dead letter and a tombstone", n)
	}
	if _, n := silent.Depths(); n != 0 || len(outbox(t, silent)) != 0 {
		t.Errorf("%d messages of a silent state", n)
	}
}

// Outbox stops near 8 MiB; EachUnsent goes on to the end, within one sequence number too.
func TestEachUnsentHasNoBound(t *testing.T) {
	table := open(t, options(t.TempDir()))
	f := fold(t, table, event(0, "a", "x", "like"))
	const n = 5
	large := make([]byte, outboxBytes/4)
	var messages []Message
	for range n {
		messages = append(messages, Message{Role: RoleGenerated, Key: []byte("a"), Value: large})
	}
	if err := table.Complete(0, []Completion{{Seq: f.Intents[0].Seq, UserID: "a", Messages: messages}}); err != nil {
		t.Fatal(err)
	}
	if out, err := table.Outbox(0, 0, 100); err != nil || len(out) >= n {
		t.Fatalf("the outbox gives %d messages at once: %v", len(out), err)
	}
	seen := 0
	if err := table.EachUnsent(0, func(Outgoing) error { seen++; return nil }); err != nil || seen != n {
		t.Errorf("%d messages are seen, want %d: %v", seen, n, err)
	}
}
