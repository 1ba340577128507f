package consumer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"rebeca/internal/broker"
	"rebeca/schemas"
	"rebeca/table"
)

var _ Outbox = (*table.Table)(nil)

// memoryOutbox is an outbox of one partition.
type memoryOutbox struct {
	mu       sync.Mutex
	messages []table.Outgoing
	seq      uint64
	notify   chan struct{}
	broken   error
	known    map[string]int64 // positions by topic
}

func newOutbox() *memoryOutbox {
	return &memoryOutbox{notify: make(chan struct{}, 1), known: map[string]int64{}}
}

func (o *memoryOutbox) put(msgs ...table.Message) {
	o.mu.Lock()
	o.seq++
	for i, m := range msgs {
		o.messages = append(o.messages, table.Outgoing{Seq: o.seq, Index: i, Message: m})
	}
	o.mu.Unlock()
	select {
	case o.notify <- struct{}{}:
	default:
	}
}

func (o *memoryOutbox) Outbox(_ int32, after uint64, limit int) ([]table.Outgoing, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []table.Outgoing
	for _, m := range o.messages {
		if m.Seq > after && len(out) < limit {
			out = append(out, m)
		}
	}
	return out, o.broken
}

func (o *memoryOutbox) Offset(topic string, _ int32) (int64, uint64, bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	next, ok := o.known[topic]
	return next, 0, ok, o.broken
}

func (o *memoryOutbox) Sent(_ int32, found []table.Message, behind table.Position) (out []table.Outgoing, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.known[behind.Topic] = behind.Next
	o.messages = slices.DeleteFunc(o.messages, func(m table.Outgoing) bool {
		there := slices.ContainsFunc(found, func(f table.Message) bool {
			return string(f.Value) == string(m.Value) && string(f.Key) == string(m.Key)
		})
		if there {
			out = append(out, m)
		}
		return there
	})
	return out, o.broken
}

func (o *memoryOutbox) Trim(_ int32, out []table.Outgoing, behind table.Position) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if behind.Topic != "" {
		o.known[behind.Topic] = behind.Next
	}
	o.messages = slices.DeleteFunc(o.messages, func(m table.Outgoing) bool {
		return slices.ContainsFunc(out, func(sent table.Outgoing) bool { return sent.Seq == m.Seq && sent.Index == m.Index })
	})
	return o.broken
}

func (o *memoryOutbox) Notify(int32) <-chan struct{} { return o.notify }

func (o *memoryOutbox) len() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.messages)
}

// relayTopics makes the topics of all roles with two partitions.
func relayTopics(t *testing.T, b *broker.Broker) map[string]string {
	t.Helper()
	for topic, limit := range map[string]string{"generated": "1048588", "vectors": "1048588", "deadletter": "9437184"} {
		if err := b.Cluster().CreateTopic(topic, 2, map[string]string{"max.message.bytes": limit}); err != nil {
			t.Fatal(err)
		}
	}
	return map[string]string{table.RoleGenerated: "generated", table.RoleVectors: "vectors", table.RoleDeadletter: "deadletter"}
}

// runRelay runs a relay and stops it at the end of the test.
func runRelay(t *testing.T, r *Relay) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() { _ = stop() })
	return stop
}

// readAll reads a partition by another library until it has n records.
func readAll(t *testing.T, b *broker.Broker, topic string, partition int32, n int) []*kgo.Record {
	t.Helper()
	o := oracle(t, b, kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().AtStart()}}))
	var out []*kgo.Record
	for len(out) < n {
		f := o.PollFetches(within(t))
		if err := f.Err(); err != nil {
			t.Fatalf("reading %s[%d] after %d of %d records: %v", topic, partition, len(out), n, err)
		}
		out = append(out, f.Records()...)
	}
	return out
}

func generated(i int) table.Message {
	return table.Message{
		Role: table.RoleGenerated, Key: fmt.Appendf(nil, "user %d", i%7), Value: fmt.Appendf(nil, "image %d", i),
		Headers: schemas.CloudEvent("rebeca.generated.v1", fmt.Sprint(i), "rebeca", time.Unix(0, 0), "application/json"),
	}
}

func TestRelaySendsInOrderAndTrims(t *testing.T) {
	b := startBroker(t, broker.Options{})
	c, o := newClient(t, b), newOutbox()
	var mu sync.Mutex
	acked := map[string]int{}
	r := &Relay{Client: c, Outbox: o, TransactionalID: "test-0", Partition: 1, Topics: relayTopics(t, b), OnAck: func(out []table.Outgoing, at time.Time) {
		mu.Lock()
		defer mu.Unlock()
		for _, m := range out {
			acked[string(m.Value)]++
		}
		if at.IsZero() || time.Since(at) < 0 {
			t.Errorf("acknowledged at %v", at)
		}
	}}
	const n = 1200 // more than one batch, before and while it runs
	for i := range n / 2 {
		o.put(generated(i), table.Message{Role: table.RoleVectors, Key: []byte("user"), Value: fmt.Appendf(nil, "vector %d", i)})
	}
	stop := runRelay(t, r)
	for i := n / 2; i < n; i++ {
		o.put(generated(i))
	}
	o.put(table.Message{Role: table.RoleVectors, Key: []byte("user")})
	eventually(t, "an empty outbox", func() bool { return o.len() == 0 })
	eventually(t, "nothing in hand", func() bool { return r.Stats().Depth == 0 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for i, m := range readAll(t, b, "generated", 1, n) {
		want := generated(i)
		if string(m.Value) != string(want.Value) || string(m.Key) != string(want.Key) {
			t.Fatalf("record %d is %q of %q, want %q", i, m.Value, m.Key, want.Value)
		}
		if len(m.Headers) != len(want.Headers) || m.Headers[1].Key != "ce_id" || string(m.Headers[1].Value) != fmt.Sprint(i) {
			t.Fatalf("record %d has headers %v", i, m.Headers)
		}
	}
	vectors := readAll(t, b, "vectors", 1, n/2+1)
	for i, m := range vectors[:n/2] {
		if string(m.Value) != fmt.Sprintf("vector %d", i) {
			t.Fatalf("vector %d is %q", i, m.Value)
		}
	}
	if last := vectors[n/2]; last.Value != nil {
		t.Errorf("the tombstone came as %q, not as null", last.Value)
	}
	for i := range n {
		if acked[fmt.Sprintf("image %d", i)] != 1 {
			t.Fatalf("image %d was acknowledged %d times", i, acked[fmt.Sprintf("image %d", i)])
		}
	}
}

func TestRelayOutlivesErrors(t *testing.T) {
	for _, e := range []*kerr.Error{kerr.NotLeaderForPartition, kerr.RequestTimedOut, kerr.NotEnoughReplicas, kerr.UnknownTopicOrPartition, kerr.TopicAuthorizationFailed} {
		t.Run(e.Message, func(t *testing.T) {
			b := startBroker(t, broker.Options{})
			c, o := newClient(t, b), newOutbox()
			r := &Relay{Client: c, Outbox: o, TransactionalID: "test-0", Topics: relayTopics(t, b)}
			fault := b.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "generated", Err: e, Count: 2})
			for i := range 5 {
				o.put(generated(i))
			}
			runRelay(t, r)
			eventually(t, "an empty outbox", func() bool { return o.len() == 0 })
			if fault.Hits() != 2 {
				t.Errorf("%d faults met, want 2", fault.Hits())
			}
			if got := r.Stats().Retries; got != 2 {
				t.Errorf("%d retries counted, want 2", got)
			}
			if got, want := ids(t, b.Addr(), c, "generated", 0), []string{"0", "1", "2", "3", "4"}; !slices.Equal(got, want) {
				t.Errorf("published %v, want %v", got, want)
			}
		})
	}
}

func TestRelayWaitsForTheBroker(t *testing.T) {
	opt := broker.Options{DataDir: t.TempDir()}
	b := startBroker(t, opt)
	opt.Listen = b.Addr()
	c, o := newClient(t, b), newOutbox()
	r := &Relay{Client: c, Outbox: o, TransactionalID: "test-0", Topics: relayTopics(t, b)}
	stop := runRelay(t, r)
	o.put(generated(0))
	eventually(t, "the first", func() bool { return o.len() == 0 })
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	o.put(generated(1))
	eventually(t, "the loss to be seen", func() bool { ok, err := r.Connected(); return !ok && err != nil })
	if o.len() != 1 || r.Stats().Depth != 1 {
		t.Errorf("outbox %d, depth %d", o.len(), r.Stats().Depth)
	}
	b = startBroker(t, opt)
	eventually(t, "the second", func() bool { return o.len() == 0 })
	if ok, err := r.Connected(); !ok {
		t.Errorf("still lost: %v", err)
	}
	if got := readAll(t, b, "generated", 0, 2); string(got[1].Value) != "image 1" {
		t.Errorf("second record is %q", got[1].Value)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

func TestTooLargeMessagesHoldUpNobody(t *testing.T) {
	b := startBroker(t, broker.Options{})
	c, o := newClient(t, b), newOutbox()
	r := &Relay{Client: c, Outbox: o, TransactionalID: "test-0", Topics: relayTopics(t, b)}
	large := func(role string, n int, id string) table.Message {
		m := table.Message{Role: role, Key: []byte("user"), Value: bytes.Repeat([]byte{'x'}, n)}
		m.Headers = []schemas.Header{{Key: "ce_id", Value: []byte(id)}}
		return m
	}
	o.put(generated(0), large(table.RoleGenerated, 2<<20, "large"), generated(1))
	o.put(large(table.RoleDeadletter, 8<<20, "dead")) // fits there
	o.put(generated(2), large(table.RoleGenerated, 10<<20, "huge"), large(table.RoleDeadletter, 10<<20, "huge dead"))
	o.put(generated(3))
	runRelay(t, r)
	eventually(t, "an empty outbox", func() bool { return o.len() == 0 })
	for i, m := range readAll(t, b, "generated", 0, 4) {
		if string(m.Value) != fmt.Sprintf("image %d", i) {
			t.Errorf("record %d is %.20q", i, m.Value)
		}
	}
	headers := func(m *kgo.Record) map[string]string {
		out := map[string]string{}
		for _, h := range m.Headers {
			out[h.Key] = string(h.Value)
		}
		return out
	}
	dead := readAll(t, b, "deadletter", 0, 2)
	sizes := map[string]int{}
	for _, m := range dead {
		h := headers(m)
		sizes[h["ce_id"]] = len(m.Value)
		if h["ce_id"] == "large" && (h[table.HeaderReason] != "too_large" || h[table.HeaderTopic] != "generated" || h[table.HeaderMessage] == "") {
			t.Errorf("headers %v", h)
		}
	}
	if len(dead) != 2 || sizes["large"] != 2<<20 || sizes["dead"] != 8<<20 {
		t.Errorf("dead letters %v", sizes)
	}
	if s := r.Stats(); s.TooLarge != 4 || s.Dropped != 2 {
		t.Errorf("stats %+v, want 4 too large (one of them twice) and 2 dropped", s)
	}
}

// A topic with a lower limit than a batch refuses the batch, not its messages: they go in smaller batches, in order.
func TestRefusedBatchesAreHalved(t *testing.T) {
	b := startBroker(t, broker.Options{})
	topics := relayTopics(t, b)
	if err := b.Cluster().CreateTopic("narrow", 1, map[string]string{"max.message.bytes": "10000"}); err != nil {
		t.Fatal(err)
	}
	topics[table.RoleGenerated] = "narrow"
	o := newOutbox()
	const n, tooLong = 21, 13
	message := func(i int) table.Message {
		m := generated(i)
		size := 3000
		if i == tooLong {
			size = 20_000
		}
		m.Value = append(m.Value, bytes.Repeat([]byte{' '}, size)...)
		return m
	}
	for i := range n {
		o.put(message(i))
	}
	r := &Relay{Client: newClient(t, b), Outbox: o, TransactionalID: "test-0", Topics: topics}
	runRelay(t, r)
	eventually(t, "an empty outbox", func() bool { return o.len() == 0 })
	got := readAll(t, b, "narrow", 0, n-1)
	for i, m := range got {
		want := i
		if i >= tooLong {
			want++
		}
		if strings.TrimSpace(string(m.Value)) != fmt.Sprintf("image %d", want) {
			t.Errorf("record %d is %.20q, want image %d", i, m.Value, want)
		}
	}
	if dead := readAll(t, b, "deadletter", 0, 1); strings.TrimSpace(string(dead[0].Value)) != fmt.Sprintf("image %d", tooLong) {
		t.Errorf("dead letter %.20q", dead[0].Value)
	}
	if s := r.Stats(); s.TooLarge != 1 || s.Dropped != 0 || s.Retries != 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestRelayReturnsTheOutboxesErrors(t *testing.T) {
	b := startBroker(t, broker.Options{})
	c, o := newClient(t, b), newOutbox()
	o.broken = errors.New("disk gone")
	ctx := within(t)
	if err := (&Relay{Client: c, Outbox: o, TransactionalID: "test-0"}).Run(ctx); !errors.Is(err, o.broken) {
		t.Errorf("Run returned %v", err)
	}
	o.broken = nil
	o.put(table.Message{Role: "nobody's"})
	if err := (&Relay{Client: c, Outbox: o, TransactionalID: "test-0", Topics: relayTopics(t, b)}).Run(ctx); err == nil || !strings.Contains(err.Error(), "nobody's") {
		t.Errorf("Run returned %v", err)
	}
}
