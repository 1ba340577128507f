package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// stream is a producer of everything that may come: feedback of all kinds, resends, undos, poison, clocks that jump, requests, forgets,
// and a catalogue that changes. It may write a record twice, as producers without idempotence do, and forgets none that was acknowledged.
type stream struct {
	rng      *rand.Rand
	cl       *kgo.Client
	settings settings
	tx       transactions
	run      string // distinguishes the ids of several streams
	members  []*member
	n        int
	asking   bool // requests are sent
	aimed    atomic.Int64

	mu           sync.Mutex
	acknowledged map[source]uint32 // guarded by mu; since the last take
	newest       map[int32]int64   // guarded by mu; last acknowledged offset of feedback
	failed       error             // guarded by mu; the first record that could not be written
}

// member is a user as the producer knows them.
type member struct {
	name      string
	partition int32
	sent      []map[string]any // the last events
	asked     []string         // the last request ids
	forgets   bool             // is forgotten now and then; of the others every answer can be demanded
}

func newStream(broker string, s settings, seed uint64) (*stream, error) {
	// Retries for ever and without idempotence: an answer that is lost makes a second record, never none.
	cl, err := kgo.NewClient(kgo.SeedBrokers(broker), direct(broker), kgo.DisableIdempotentWrite(), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.RecordRetries(1<<30), kgo.ProducerLinger(5*time.Millisecond),
		kgo.ProducerBatchMaxBytes(8<<20), kgo.ProduceRequestTimeout(5*time.Second), kgo.RequestTimeoutOverhead(3*time.Second),
		kgo.RetryTimeout(time.Hour), kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }),
		kgo.UnknownTopicRetries(-1))
	if err != nil {
		return nil, err
	}
	w := &stream{
		rng: rand.New(rand.NewPCG(seed, 1)), cl: cl, settings: s, run: fmt.Sprintf("%x", seed), acknowledged: map[source]uint32{}, newest: map[int32]int64{},
		tx: transactions{broker: broker, id: fmt.Sprintf("chaos-%x", seed)},
	}
	for i := range s.users {
		name := fmt.Sprintf("user-%d", i)
		if i%10 == 3 {
			name = fmt.Sprintf("Größe %d/ü\"😀", i)
		}
		w.members = append(w.members, &member{name: name, partition: partitionOf([]byte(name), s.partitions), forgets: i%3 == 0})
	}
	return w, nil
}

// produce writes at the rate (records a second, in bursts) until ctx ends.
func (w *stream) produce(ctx context.Context, rate int) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		n := rate / 50
		if w.rng.IntN(100) == 0 {
			n *= 30
		}
		for range n {
			w.step()
		}
	}
}

// flush waits until all is acknowledged, and returns the first record that never will be.
func (w *stream) flush(ctx context.Context) error {
	if err := w.cl.Flush(ctx); err != nil {
		return fmt.Errorf("waiting for the acknowledgement of %d records: %w", w.cl.BufferedProduceRecords(), err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed
}

// take returns what was acknowledged since the last call.
func (w *stream) take() map[source]uint32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	got := w.acknowledged
	w.acknowledged = map[source]uint32{}
	return got
}

func (w *stream) close() {
	w.tx.close()
	w.cl.Close()
}

func (w *stream) send(topic string, partition int32, key string, value []byte, at time.Time) {
	r := &kgo.Record{Topic: topic, Partition: partition, Key: []byte(key), Value: value, Timestamp: at}
	if key == "" {
		r.Key = nil
	}
	w.cl.Produce(context.Background(), r, func(r *kgo.Record, err error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if err != nil {
			if w.failed == nil {
				w.failed = fmt.Errorf("writing to %s[%d]: %w (%.100q)", r.Topic, r.Partition, err, r.Value)
			}
			return
		}
		if topic != topicItems { // compacted: a record may be gone when it is looked for
			w.acknowledged[source{r.Topic, r.Partition, r.Offset}] = checksum(r.Key, r.Value)
		}
		if topic == topicFeedback {
			w.newest[r.Partition] = r.Offset
		}
	})
}

// one in n.
func (w *stream) one(n int) bool { return w.rng.IntN(n) == 0 }

// pick favours the members in front.
func (w *stream) pick() *member {
	x := w.rng.Float64()
	return w.members[int(x*x*float64(len(w.members)))]
}

// step writes one record.
func (w *stream) step() {
	w.n++
	m := w.pick()
	switch x := w.rng.IntN(1000); {
	case x < 50:
		w.rottenFeedback(m)
	case x < 54:
		w.rottenItem()
	case x < 64 && w.asking:
		w.rottenRequest(m)
	case x < 100 && w.asking:
		w.request(m)
	case x < 103 && m.forgets:
		w.send(topicFeedback, m.partition, m.name, nil, time.Now())
	case x < 123:
		w.item(w.rng.IntN(2 * w.settings.items))
	case x < 126:
		w.transaction(m)
	case x < 210 && len(m.sent) > 0:
		w.resend(m)
	default:
		e, at := w.event(m)
		w.sendEvent(m, e, at)
	}
}

// catalogue writes the items that a prior is born from.
func (w *stream) catalogue() {
	for i := range w.settings.items {
		w.listItem(i)
	}
}

func (w *stream) item(i int) {
	if w.one(6) {
		w.send(topicItems, partitionOf([]byte(itemName(i)), w.settings.partitions), itemName(i), nil, time.Now())
		return
	}
	w.listItem(i)
}

func itemName(i int) string { return fmt.Sprintf("item-%d", i) }

func (w *stream) listItem(i int) {
	e := make([]float64, w.settings.dim)
	for d := range e {
		e[d] = w.rng.NormFloat64() * .3
	}
	e[i%len(e)] += 2
	key := itemName(i)
	w.send(topicItems, partitionOf([]byte(key), w.settings.partitions), key, encode(map[string]any{"item_id": key, "embedding": e}), time.Now())
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("chaos: " + err.Error())
	}
	return b
}

// event makes a new event and the time of its record.
func (w *stream) event(m *member) (e map[string]any, at time.Time) {
	now := time.Now()
	e, at = map[string]any{
		"event_id": fmt.Sprintf("%s-%d", w.run, w.n), "user_id": m.name, "item_id": w.thing(m), "kind": kinds[w.rng.IntN(len(kinds)-1)],
	}, now
	switch e["kind"] {
	case "rating":
		e["value"] = float64(2+w.rng.IntN(9)) / 2
	case "view":
		if !w.one(4) {
			e["value"] = float64(w.rng.IntN(25))
		}
	}
	if w.one(10) { // of something that was seen before, or never
		e["kind"] = "undo"
		if n := len(m.sent); n > 0 && !w.one(3) {
			e["item_id"] = m.sent[w.rng.IntN(n)]["item_id"]
		}
	}
	if w.one(8) {
		e["page"] = "unknown fields are passed over"
	}
	occurred := now
	switch w.rng.IntN(40) {
	case 0: // a phone whose clock was wrong for long
		occurred = now.Add(-time.Duration(48+w.rng.IntN(20*365*24)) * time.Hour)
	case 1:
		occurred = now.Add(time.Duration(w.rng.IntN(22)) * time.Hour)
	case 2: // the producer's clock jumps back, and the event's with it
		at = now.Add(-time.Duration(48+w.rng.IntN(1000)) * time.Hour)
		occurred = at
	case 3: // the record's clock alone jumps back: the event lies in its future
		at = now.Add(-time.Duration(48+w.rng.IntN(1000)) * time.Hour)
	case 4:
		at = now.Add(time.Duration(w.rng.IntN(50)) * time.Minute)
	}
	e["occurred_at"] = occurred.UTC().Format(time.RFC3339Nano)
	return e, at
}

// thing is an item, one that is not listed yet, or something that may have been generated for the member.
func (w *stream) thing(m *member) string {
	if w.one(12) {
		w.mu.Lock()
		newest := w.newest[m.partition]
		w.mu.Unlock()
		return outputID(source{topicFeedback, m.partition, max(0, newest-int64(w.rng.IntN(200)))}, w.rng.IntN(2))
	}
	return itemName(w.rng.IntN(w.settings.items * 5 / 4))
}

func (w *stream) sendEvent(m *member, e map[string]any, at time.Time) {
	m.sent = append(m.sent, e)
	if n := len(m.sent) - 4*w.settings.rules.dedupe; n > 0 {
		m.sent = m.sent[n:]
	}
	w.send(topicFeedback, m.partition, m.name, encode(e), at)
}

// resend writes an event again: mostly one of the last, within the ring of event ids, sometimes one from beyond it.
func (w *stream) resend(m *member) {
	back := w.rng.IntN(w.settings.rules.dedupe + 2)
	if w.one(4) {
		back = w.rng.IntN(4 * w.settings.rules.dedupe)
	}
	e := m.sent[max(0, len(m.sent)-1-back)]
	if w.one(5) { // the id decides, whatever else it says
		e = maps.Clone(e)
		e["item_id"] = w.thing(m)
	}
	w.send(topicFeedback, m.partition, m.name, encode(e), time.Now())
}

func (w *stream) request(m *member) {
	id := fmt.Sprintf("%s-r%d", w.run, w.n)
	if len(m.asked) > 0 && w.one(4) {
		id = m.asked[w.rng.IntN(len(m.asked))]
	} else {
		m.asked = append(m.asked, id)
		m.asked = m.asked[max(0, len(m.asked)-w.settings.rules.requests*5/4):]
	}
	r := map[string]any{"request_id": id, "user_id": m.name, "count": 1 + w.rng.IntN(3)}
	if w.one(25) { // several chunks
		r["count"] = 17 + w.rng.IntN(20)
	}
	if w.one(4) {
		r["seed"] = w.rng.IntN(1 << 30)
	}
	if w.one(4) {
		r["guidance"] = 1 + w.rng.Float64()
	}
	if w.one(4) {
		r["rating"] = []string{"like", "dislike"}[w.rng.IntN(2)]
	}
	if w.one(3) {
		w.mu.Lock()
		if at, ok := w.newest[m.partition]; ok {
			r["after"] = map[string]any{"partition": m.partition, "offset": at}
		}
		w.mu.Unlock()
	}
	w.send(topicRequests, m.partition, m.name, encode(r), time.Now())
}

// spoil changes one thing of a record's fields; nil removes the field.
type spoil struct {
	field string
	value any
}

// rottenFeedback writes a record that must become a dead letter, for one reason or another.
func (w *stream) rottenFeedback(m *member) {
	e, at := w.event(m)
	e["kind"], e["occurred_at"] = "like", at.UTC().Format(time.RFC3339)
	delete(e, "value")
	if w.raw(topicFeedback, m, e, at) {
		return
	}
	for field, v := range w.oneOf([][]spoil{
		{{"event_id", 7}}, {{"user_id", []int{1}}}, {{"value", "much"}}, {{"event_id", nil}}, {{"item_id", ""}}, {{"occurred_at", nil}}, {{"kind", nil}},
		{{"item_id", strings.Repeat("x", 300)}}, {{"event_id", "line\nbreak"}}, {{"item_id", "\x7f"}}, {{"kind", "love"}}, {{"kind", "Like"}},
		{{"kind", "rating"}, {"value", 7}}, {{"kind", "rating"}}, {{"kind", "view"}, {"value", -1}}, {{"occurred_at", "yesterday"}},
		{{"occurred_at", "1999-12-31T23:59:59Z"}}, {{"occurred_at", at.Add(30 * time.Hour).UTC().Format(time.RFC3339)}},
	}) {
		change(e, field, v)
	}
	w.send(topicFeedback, m.partition, m.name, encode(e), at)
}

func (w *stream) rottenRequest(m *member) {
	r := map[string]any{"request_id": fmt.Sprintf("%s-x%d", w.run, w.n), "user_id": m.name, "count": 1}
	if w.raw(topicRequests, m, r, time.Now()) {
		return
	}
	for field, v := range w.oneOf([][]spoil{
		{{"count", nil}}, {{"count", 0}}, {{"count", 1001}}, {{"count", 2.5}}, {{"count", "two"}}, {{"request_id", ""}}, {{"request_id", "\t"}},
		{{"rating", "meh"}}, {{"guidance", 0}}, {{"guidance", 50}}, {{"seed", -1}}, {{"images", true}}, {{"guidance", true}},
		{{"after", map[string]any{"partition": m.partition, "offset": -1}}},
		{{"after", map[string]any{"partition": (int(m.partition) + 1) % w.settings.partitions, "offset": 0}}},
	}) {
		change(r, field, v)
	}
	w.send(topicRequests, m.partition, m.name, encode(r), time.Now())
}

func (w *stream) rottenItem() {
	key := fmt.Sprintf("%s-i%d", w.run, w.n) // of its own: compaction leaves it
	e := map[string]any{"item_id": key, "embedding": make([]float64, w.settings.dim)}
	for field, v := range w.oneOf([][]spoil{
		{{"embedding", nil}}, {{"embedding", []float64{1}}}, {{"embedding_f32", "AAAA"}}, {{"item_id", "another"}}, {{"item_id", nil}},
	}) {
		change(e, field, v)
	}
	w.send(topicItems, partitionOf([]byte(key), w.settings.partitions), key, encode(e), time.Now())
}

// raw spoils, now and then, the record around the fields: its key, its place or its bytes.
func (w *stream) raw(topic string, m *member, fields map[string]any, at time.Time) bool {
	value := encode(fields)
	switch w.rng.IntN(12) {
	case 0:
		w.send(topic, m.partition, m.name, value[:len(value)-2], at)
	case 1:
		w.send(topic, m.partition, m.name, []byte("no \xff JSON"), at)
	case 2:
		w.send(topic, int32(w.rng.IntN(w.settings.partitions)), "", value, at)
	case 3:
		w.send(topic, (m.partition+1)%int32(w.settings.partitions), m.name, value, at)
	case 4:
		fields["user_id"] = "somebody else"
		w.send(topic, m.partition, m.name, encode(fields), at)
	case 5:
		if w.one(10) {
			fields["pad"] = strings.Repeat("x", 1<<20)
			w.send(topic, m.partition, m.name, encode(fields), at)
			return true
		}
		w.send(topic, m.partition, m.name, []byte("[1]"), at)
	default:
		return false
	}
	return true
}

func (w *stream) oneOf(all [][]spoil) map[string]any {
	out := map[string]any{}
	for _, s := range all[w.rng.IntN(len(all))] {
		out[s.field] = s.value
	}
	return out
}

func change(fields map[string]any, field string, v any) {
	if v == nil {
		delete(fields, field)
	} else {
		fields[field] = v
	}
}
