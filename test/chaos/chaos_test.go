package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"rebeca/schemas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// buildBinary builds the program under test, with the race detector when this test has it.
func buildBinary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rebeca")
	args := []string{"build", "-o", path}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	if said, err := exec.Command("go", append(args, "rebeca/cmd/rebeca")...).CombinedOutput(); err != nil {
		t.Fatalf("building the binary: %v\n%s", err, said)
	}
	return path
}

// TestKillsLoseAndDoubleNothing is the short form of `make chaos`.
func TestKillsLoseAndDoubleNothing(t *testing.T) {
	p := plan{
		seed: 11, kills: 6, perRound: 3, rate: 120, dir: t.TempDir(), binary: buildBinary(t), settings: defaults(), say: testWriter{t},
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	got, faults, err := run(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range faults {
		t.Error(f)
	}
	if got["kills_service"]+got["kills_broker"] < 6 || got["rounds"] < 2 || got["events"] < 100 || got["outputs"] < 50 || got["deadletters"] == 0 {
		t.Errorf("the run was too thin to say anything: %v", got)
	}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// TestWireForms holds what is written here a second time against the service's own.
func TestWireForms(t *testing.T) {
	for i := range 300 {
		name := strings.Repeat("ä", i%7) + fmt.Sprint("user-", i)
		if got, want := partitionOf([]byte(name), 1+i%9), schemas.Partition([]byte(name), 1+i%9); got != want {
			t.Errorf("%q is in partition %d, the service says %d", name, got, want)
		}
		s := source{topicFeedback, int32(i % 5), int64(i) << 30}
		id := outputID(s, i)
		if want := schemas.ID(schemas.Source(s), i); id != want {
			t.Errorf("%+v makes the id %s, the service's %s", s, id, want)
		}
		if seedOf(id) != schemas.Seed(id) || eventHash(name) != schemas.EventHash(name) {
			t.Errorf("seed or hash of %q differ", name)
		}
	}
}

// world is an oracle over one user's records, and what a faultless service would hold and publish.
type world struct {
	*oracle
	partition int32
	offset    int64
	state     state
	generated []*kgo.Record
	letters   []*kgo.Record
	vector    *kgo.Record
}

const user = "user-1"

func newWorld() *world {
	s := defaults()
	w := &world{oracle: newOracle("", s), partition: partitionOf([]byte(user), s.partitions)}
	for _, topic := range []string{topicFeedback, topicRequests, topicItems} {
		w.log.next[topic] = make([]int64, s.partitions)
	}
	return w
}

func (w *world) event(id, kind, item string, at time.Time) source {
	w.record(encode(map[string]any{"event_id": id, "user_id": user, "item_id": item, "kind": kind, "occurred_at": at.Format(time.RFC3339Nano)}))
	return source{topicFeedback, w.partition, w.offset - 1}
}

func (w *world) record(value []byte) {
	r := record{source{topicFeedback, w.partition, w.offset}, time.Now(), []byte(user), value}
	if reason := w.feedback(r); reason != "" {
		w.rotten[r.source] = letter{reason, checksum(r.key, r.value)}
	}
	w.offset++
}

func (w *world) wish(id string, count int) source {
	r := record{source{topicRequests, w.partition, int64(len(w.open))}, time.Now(), []byte(user),
		encode(map[string]any{"request_id": id, "user_id": user, "count": count})}
	w.request(r)
	return r.source
}

// output is a record of the topic generated that the source's k-th must look like.
func (w *world) output(s source, k int, change func(*output)) *kgo.Record {
	c := w.causes[s]
	g := output{ID: outputID(s, k), User: c.user, Request: c.request, Trigger: "feedback", Dim: w.dim, Events: w.person(c.user).events, Source: s}
	if s.Topic == topicRequests {
		g.Trigger = "request"
	}
	g.Seed, g.AsOf.Partition, g.AsOf.Offset = seedOf(g.ID), w.partition, w.offset-1
	g.Embedding = json.RawMessage(`"` + strings.Repeat("AAAA", w.dim*4/3) + `AAA="`)
	if change != nil {
		change(&g)
	}
	return &kgo.Record{
		Topic: topicGenerated, Partition: w.partition, Key: []byte(g.User), Value: encode(g),
		Headers: []kgo.RecordHeader{{Key: "ce_id", Value: []byte(g.ID)}},
	}
}

func deadLetter(from source, reason, key, value string) *kgo.Record {
	return &kgo.Record{Topic: topicDeadLetter, Key: []byte(key), Value: []byte(value), Headers: []kgo.RecordHeader{
		{Key: "rebeca-topic", Value: []byte(from.Topic)}, {Key: "rebeca-partition", Value: fmt.Append(nil, from.Partition)},
		{Key: "rebeca-offset", Value: fmt.Append(nil, from.Offset)}, {Key: "rebeca-reason", Value: []byte(reason)},
	}}
}

// judge is all that the oracle finds.
func (w *world) judge() []fault {
	for _, g := range w.generated {
		w.oracle.generated(g)
	}
	for _, l := range w.letters {
		w.letter(l)
	}
	if w.vector != nil {
		w.oracle.vector(w.vector)
	}
	faults := append(w.checkState(w.state), w.checkOutputs()...)
	return append(append(faults, w.checkVectors(w.state.users)...), w.faults...)
}

// faultless is a world of a few events, a dead letter, a request and their outputs.
func faultless() *world {
	w := newWorld()
	now := time.Now().UTC()
	w.event("a", "like", "item-1", now)
	w.event("b", "skip", "item-2", now)
	w.event("a", "like", "item-9", now) // sent again
	w.record([]byte("no JSON"))
	last := w.event("c", "click", "item-3", now)
	wish := w.wish("r", 2)
	w.log.next[topicFeedback][w.partition] = w.offset
	w.log.next[topicRequests][w.partition] = 1
	version := "1-a"
	w.state.services = 1
	at := now.Truncate(time.Millisecond)
	w.state.users = []inspectedUser{{
		User: user, Partition: w.partition, Events: 3, Positives: 2, Negatives: 1, Version: &version, OlderLikes: []inspectedEvent{},
		LastEvents: []inspectedEvent{{"item-1", "like", "strong_positive", at, 0}, {"item-2", "skip", "weak_negative", at, 1}, {"item-3", "click", "weak_positive", at, 4}},
		LastOffset: 4, EventIDs: 3, EventHash: ringHash([]string{"a", "b", "c"}),
	}}
	for topic, next := range w.log.next {
		for p, at := range next {
			w.state.offsets = append(w.state.offsets, inspectedOffset{topic, int32(p), at})
		}
	}
	for k := range 2 {
		w.generated = append(w.generated, w.output(last, k, nil), w.output(wish, k, nil))
	}
	w.letters = []*kgo.Record{deadLetter(source{topicFeedback, w.partition, 3}, "bad_json", user, "no JSON")}
	w.vector = &kgo.Record{
		Topic: topicVectors, Partition: w.partition, Key: []byte(user),
		Value: encode(vector{User: user, Version: version, Events: 3, Vector: json.RawMessage(`"AAAA"`)}),
	}
	return w
}

// TestOracleSees spoils one thing of a faultless world after the other.
func TestOracleSees(t *testing.T) {
	if faults := faultless().judge(); len(faults) > 0 {
		t.Fatalf("a faultless world: %v", faults)
	}
	last := func(w *world) source { return *w.people[user].lastFresh }
	for name, c := range map[string]struct {
		want  kind
		spoil func(w *world)
	}{
		"an event twice":        {wrongRow, func(w *world) { w.state.users[0].Events++ }},
		"a like too few":        {wrongRow, func(w *world) { w.state.users[0].Positives-- }},
		"a window's entry gone": {wrongRow, func(w *world) { w.state.users[0].LastEvents = w.state.users[0].LastEvents[1:] }},
		"a window out of order": {wrongRow, func(w *world) { slices.Reverse(w.state.users[0].LastEvents) }},
		"an entry of a resend":  {wrongRow, func(w *world) { w.state.users[0].LastEvents[0].Item = "item-9" }},
		"another class":         {wrongRow, func(w *world) { w.state.users[0].LastEvents[0].Class = "weak_positive" }},
		"another kind":          {wrongRow, func(w *world) { w.state.users[0].LastEvents[0].Kind = "save" }},
		"another time": {wrongRow, func(w *world) {
			w.state.users[0].LastEvents[0].At = w.state.users[0].LastEvents[0].At.Add(time.Millisecond)
		}},
		"another last offset":    {wrongRow, func(w *world) { w.state.users[0].LastOffset-- }},
		"an id forgotten":        {wrongRow, func(w *world) { w.state.users[0].EventIDs-- }},
		"ids out of order":       {wrongRow, func(w *world) { w.state.users[0].EventHash = ringHash([]string{"b", "a", "c"}) }},
		"a row gone":             {wrongRow, func(w *world) { w.state.users = nil }},
		"a row twice":            {wrongRow, func(w *world) { w.state.users = append(w.state.users, w.state.users[0]) }},
		"a row of nobody":        {wrongRow, func(w *world) { w.state.users = append(w.state.users, inspectedUser{User: "x"}) }},
		"a row in a wrong place": {wrongRow, func(w *world) { w.state.users[0].Partition++ }},
		"an offset behind":       {wrongOffset, func(w *world) { w.state.offsets[0].Next-- }},
		"an offset gone":         {wrongOffset, func(w *world) { w.state.offsets = w.state.offsets[1:] }},
		"something unsent":       {lost, func(w *world) { w.state.outbox = []inspectedOutgoing{{}} }},
		"an id twice":            {duplicate, func(w *world) { w.generated = append(w.generated, w.generated[0]) }},
		"an image gone":          {lost, func(w *world) { w.generated = slices.Delete(w.generated, 2, 3) }},
		"an answer gone":         {lost, func(w *world) { w.generated = slices.Delete(w.generated, 1, 2) }},
		"an image too many":      {unexpected, func(w *world) { w.generated = append(w.generated, w.output(last(w), 2, nil)) }},
		"an image of a resend": {unexpected, func(w *world) {
			w.generated = append(w.generated, w.output(source{topicFeedback, w.partition, 2}, 0, nil))
		}},
		"an image of a bad record": {unexpected, func(w *world) {
			w.generated = append(w.generated, w.output(source{topicFeedback, w.partition, 3}, 0, nil))
		}},
		"another seed":    {unexpected, func(w *world) { w.generated[0] = w.output(last(w), 0, func(g *output) { g.Seed++ }) }},
		"somebody else's": {unexpected, func(w *world) { w.generated[0] = w.output(last(w), 0, func(g *output) { g.User = "x" }) }},
		"another id": {unexpected, func(w *world) {
			w.generated[0] = w.output(last(w), 0, func(g *output) { g.ID = outputID(g.Source, 7) })
		}},
		"ignorant of its cause":    {unexpected, func(w *world) { w.generated[0] = w.output(last(w), 0, func(g *output) { g.AsOf.Offset-- }) }},
		"events miscounted":        {unexpected, func(w *world) { w.generated[0] = w.output(last(w), 0, func(g *output) { g.Events-- }) }},
		"a request answered again": {unexpected, func(w *world) { w.generated = append(w.generated, w.output(w.wish("r", 1), 0, nil)) }},
		"a dead letter gone":       {lost, func(w *world) { w.letters = nil }},
		"a dead letter twice":      {wrongLetter, func(w *world) { w.letters = append(w.letters, w.letters[0]) }},
		"another reason": {wrongLetter, func(w *world) {
			w.letters[0] = deadLetter(source{topicFeedback, w.partition, 3}, "bad_time", user, "no JSON")
		}},
		"other bytes": {wrongLetter, func(w *world) {
			w.letters[0] = deadLetter(source{topicFeedback, w.partition, 3}, "bad_json", user, "no")
		}},
		"a dead letter of a good record": {wrongLetter, func(w *world) {
			w.letters = append(w.letters, deadLetter(source{topicFeedback, w.partition, 4}, "bad_json", user, ""))
		}},
		"a vector gone":              {wrongVector, func(w *world) { w.vector = nil }},
		"a vector taken back":        {wrongVector, func(w *world) { w.vector.Value = nil }},
		"a vector of fewer events":   {wrongVector, func(w *world) { w.vector.Value = encode(vector{User: user, Version: "1-a", Events: 2}) }},
		"a vector of other weights":  {wrongVector, func(w *world) { w.vector.Value = encode(vector{User: user, Version: "2-b", Events: 3}) }},
		"a vector of somebody there": {wrongVector, func(w *world) { w.vector.Key = []byte("nobody") }},
	} {
		w := faultless()
		c.spoil(w)
		faults := w.judge()
		if !slices.ContainsFunc(faults, func(f fault) bool { return f.kind == c.want }) {
			t.Errorf("%s: found %v, want %s", name, faults, c.want)
		}
	}
}

// TestOracleForgets begins another life, and demands no answer that a forget of the same round may have taken along.
func TestOracleForgets(t *testing.T) {
	w := newWorld()
	now := time.Now()
	w.event("a", "like", "item-1", now)
	w.wish("r", 1)
	w.record(nil)
	w.event("b", "like", "item-2", now.Add(-time.Hour)) // from before
	w.event("a", "like", "item-3", now.Add(time.Minute))
	if p := w.people[user]; p.events != 1 || len(p.newest) != 1 || p.newest[0].item != "item-3" {
		t.Errorf("after the forget: %+v", p)
	}
	for _, f := range w.checkOutputs() {
		if strings.Contains(f.text, "answers") {
			t.Errorf("demanded: %v", f)
		}
	}
	w.settle()
	w.wish("s", 1)
	if n := len(w.checkOutputs()); n != 2 {
		t.Errorf("%d faults in the next round, want the image and the answer: %v", n, w.checkOutputs())
	}
}

// TestLogKeepsWhatItAcknowledged tells the broker's faults from the service's.
func TestLogKeepsWhatItAcknowledged(t *testing.T) {
	w := newWorld()
	a, b, c := source{topicFeedback, 0, 1}, source{topicFeedback, 0, 2}, source{topicFeedback, 0, 3}
	w.seen = map[source]uint32{a: 1, b: 2}
	if faults := w.checkLog(map[source]uint32{a: 1, b: 3, c: 4}); len(faults) != 2 || faults[0].kind != lostByLog {
		t.Errorf("found %v", faults)
	}
}
