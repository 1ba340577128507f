package consumer

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"rebeca/internal/broker"
	"rebeca/schemas"
	"rebeca/table"
)

// openTable opens a state of two partitions.
func openTable(t *testing.T, dir string) *table.Table {
	t.Helper()
	state, err := table.Open(table.Options{Dir: dir, Partitions: 2, Dim: 2, Rules: table.DefaultRules(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = state.Close() })
	return state
}

// userOf returns a user of a partition.
func userOf(partition int32) string {
	for i := 0; ; i++ {
		if user := fmt.Sprint("user-", i); schemas.Partition([]byte(user), 2) == partition {
			return user
		}
	}
}

// ask has a state make n images for a request, and bury a record behind it. version is the prior's, which the bytes of the images show.
func ask(t *testing.T, state *table.Table, partition int32, offset int64, n int, version string) {
	t.Helper()
	user := userOf(partition)
	now := time.Now()
	asked := []table.Asked{
		{Offset: offset, Time: now, Key: []byte(user), Request: &schemas.Request{RequestID: fmt.Sprint("r", offset), UserID: user, Count: n}},
		{Offset: offset + 1, Time: now, Key: []byte(user), Value: []byte("?"), Dead: &schemas.Rejection{Reason: schemas.ReasonBadJSON, Message: "?"}},
	}
	intents, err := state.Accept("requests", partition, asked, offset+2)
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range intents {
		c := table.Completion{Seq: in.Seq, UserID: user}
		for k := range n {
			g := schemas.Generated{
				ID: schemas.ID(in.Source, k), UserID: user, Trigger: schemas.TriggerRequest, Embedding: []float32{1, 2}, Guidance: 1, Steps: 8,
				PriorVersion: version, AsOf: schemas.Position{Partition: partition, Offset: -1}, Source: in.Source, CreatedAt: now,
			}
			value, err := g.Encode()
			if err != nil {
				t.Fatal(err)
			}
			c.Messages = append(c.Messages, table.Message{
				Role: table.RoleGenerated, Key: []byte(user), Value: value, Headers: schemas.CloudEvent("rebeca.generated", g.ID, "/rebeca", now, "application/json"),
			})
			c.Memories = append(c.Memories, table.Memory{ID: g.ID, Embedding: g.Embedding, Record: value, Source: in.Source})
		}
		if err := state.Complete(partition, []table.Completion{c}); err != nil {
			t.Fatal(err)
		}
	}
}

func drained(state *table.Table) func() bool {
	return func() bool { intents, messages := state.Depths(); return intents == 0 && messages == 0 }
}

// sendAll runs a relay until the outbox of its state is empty.
func sendAll(t *testing.T, r *Relay, state *table.Table) {
	t.Helper()
	stop := runRelay(t, r)
	eventually(t, "an empty outbox", drained(state))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// committed reads a partition at read_committed, by another library, to its present end.
func committed(t *testing.T, address string, c *Client, topic string, partition int32) (out []*kgo.Record) {
	t.Helper()
	_, end, err := c.Offsets(within(t), topic, partition)
	if err != nil {
		t.Fatal(err)
	}
	o := oracleAt(t, address, kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().AtStart()}}))
	for next := int64(0); next < end; {
		f := o.PollFetches(within(t))
		if err := f.Err(); err != nil {
			t.Fatalf("reading %s[%d] at %d of %d: %v", topic, partition, next, end, err)
		}
		for _, r := range f.Records() {
			if next = r.Offset + 1; !r.Attrs.IsControl() {
				out = append(out, r)
			}
		}
	}
	return out
}

// ids reads a topic to its end and returns the ids, or the places of the dead letters, in order.
func ids(t *testing.T, address string, c *Client, topic string, partition int32) (out []string) {
	t.Helper()
	for _, m := range committed(t, address, c, topic, partition) {
		name := ""
		for _, h := range m.Headers {
			if h.Key == "ce_id" || h.Key == table.HeaderOffset {
				name = string(h.Value)
			}
		}
		out = append(out, name)
	}
	return out
}

// wanted are the ids of the images of requests.
func wanted(partition int32, n int, offsets ...int64) (out []string) {
	for _, offset := range offsets {
		for k := range n {
			out = append(out, schemas.ID(schemas.Source{Topic: "requests", Partition: partition, Offset: offset}, k))
		}
	}
	return out
}

// dying is an outbox whose process ends before a trim.
type dying struct {
	*table.Table
	left atomic.Int64 // trims that succeed
}

var errKilled = errors.New("killed")

func (d *dying) Trim(partition int32, out []table.Outgoing, behind table.Position) error {
	if d.left.Add(-1) < 0 {
		return errKilled
	}
	return d.Table.Trim(partition, out, behind)
}

// Killed between the broker's acknowledgement and the trim, at each of them in turn, the relay of the next life sends nothing again and
// tells of all that was sent.
func TestCrashBetweenAcknowledgementAndTrim(t *testing.T) {
	const partition, n = 1, 3
	b := startBroker(t, broker.Options{})
	c, topics := newClient(t, b), relayTopics(t, b)
	dir := t.TempDir()
	var offsets []int64
	kills := 0
	for life := range 6 {
		state := openTable(t, dir)
		ask(t, state, partition, int64(2*life), n, fmt.Sprint(life))
		offsets = append(offsets, int64(2*life))
		d := &dying{Table: state}
		d.left.Store(int64(life % 3)) // the images, the dead letter, or nothing of this life is in doubt
		told := map[string]int{}
		r := &Relay{Client: c, TransactionalID: "test-0", Outbox: d, Partition: partition, Topics: topics, OnAck: func(out []table.Outgoing, _ time.Time) {
			for _, m := range out {
				told[string(m.Value)]++
			}
		}}
		if life%3 < 2 {
			if err := r.Run(within(t)); !errors.Is(err, errKilled) {
				t.Fatalf("life %d ended with %v", life, err)
			}
			kills++
		} else {
			sendAll(t, r, state)
		}
		if life%3 != 2 && life > 0 && len(told) == 0 {
			t.Errorf("life %d told of nothing", life)
		}
		if err := state.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := ids(t, b.Addr(), c, "generated", partition), wanted(partition, n, offsets...); !slices.Equal(got, want) {
		t.Errorf("published %v, want %v", got, want)
	}
	if got, want := ids(t, b.Addr(), c, "deadletter", partition), []string{"1", "3", "5", "7", "9", "11"}; !slices.Equal(got, want) {
		t.Errorf("dead letters %v, want %v", got, want)
	}
	if kills != 4 {
		t.Errorf("%d kills", kills)
	}
}

// A snapshot older than the topics is restored: what its outbox holds and what the log makes it do again is there already.
func TestRestoredSnapshotSendsNothingAgain(t *testing.T) {
	const partition, n = 0, 2
	b := startBroker(t, broker.Options{})
	c, topics := newClient(t, b), relayTopics(t, b)
	state := openTable(t, t.TempDir())
	live := func(state *table.Table) {
		sendAll(t, &Relay{Client: c, TransactionalID: "test-0", Outbox: state, Topics: topics, Partition: partition}, state)
	}
	ask(t, state, partition, 0, n, "1")
	live(state)
	ask(t, state, partition, 2, n, "1") // in the snapshot's outbox
	type pair struct{ key, value []byte }
	var pairs []pair
	if err := state.Export(func(cut table.Cut) error {
		return cut.Each("", func(key, value []byte) error {
			pairs = append(pairs, pair{slices.Clone(key), slices.Clone(value)})
			return nil
		})
	}); err != nil {
		t.Fatal(err)
	}
	ask(t, state, partition, 4, n, "1") // in the log behind the snapshot
	live(state)

	dir := t.TempDir() + "/state"
	if err := table.Load(table.Options{Dir: dir, Partitions: 2, Dim: 2, Rules: table.DefaultRules()}, func() (key, value []byte, ok bool, err error) {
		if len(pairs) == 0 {
			return nil, nil, false, nil
		}
		p := pairs[0]
		pairs = pairs[1:]
		return p.key, p.value, true, nil
	}); err != nil {
		t.Fatal(err)
	}
	restored := openTable(t, dir)
	stop := runRelay(t, &Relay{Client: c, TransactionalID: "test-0", Outbox: restored, Topics: topics, Partition: partition})
	ask(t, restored, partition, 4, n, "2")
	ask(t, restored, partition, 6, n, "2")
	eventually(t, "an empty outbox", drained(restored))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got, want := ids(t, b.Addr(), c, "generated", partition), wanted(partition, n, 0, 2, 4, 6); !slices.Equal(got, want) {
		t.Errorf("published %v, want %v", got, want)
	}
	if got, want := ids(t, b.Addr(), c, "deadletter", partition), []string{"1", "3", "5", "7"}; !slices.Equal(got, want) {
		t.Errorf("dead letters %v, want %v", got, want)
	}
}

// A state that never sent anything reads the whole topic back; one that knows a position reads from there; one that knows a position
// which the topic no longer has, or not yet, goes on all the same.
func TestSettleFindsItsPlace(t *testing.T) {
	const n = 9
	for _, tc := range []struct {
		name                   string
		stored, deleted, there int64 // stored < 0: none
	}{
		{"never sent", -1, 0, 0},
		{"in the middle", 4, 0, 4},
		{"at the end", n, 0, n},
		{"gone by retention", 2, 5, 5},
		{"all gone", 2, n, n},
		{"made anew", n + 4, 3, 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := startBroker(t, broker.Options{})
			c, o := newClient(t, b), newOutbox()
			topics := relayTopics(t, b)
			var there []Message
			for i := range n {
				m := generated(i)
				there = append(there, Message{Key: m.Key, Value: m.Value, Headers: m.Headers})
				o.put(m)
			}
			produce(t, c, "generated", 0, there...)
			if tc.deleted > 0 {
				if err := b.Cluster().DeleteRecords("generated", 0, tc.deleted); err != nil {
					t.Fatal(err)
				}
			}
			if tc.stored >= 0 {
				o.known["generated"] = tc.stored
			}
			r := &Relay{Client: c, TransactionalID: "test-0", Outbox: o, Topics: topics, Logger: slog.New(slog.DiscardHandler)}
			if err := r.settle(within(t)); err != nil {
				t.Fatal(err)
			}
			if o.len() != int(tc.there) {
				t.Errorf("%d of %d are left in the outbox, want %d", o.len(), n, tc.there)
			}
			if o.known["generated"] != n || o.known["deadletter"] != 0 || len(o.known) != 2 {
				t.Errorf("positions %v", o.known)
			}
		})
	}
}

// A relay that waits for the broker before it knows what is there ends with its context.
func TestSettleEndsWithItsContext(t *testing.T) {
	b := startBroker(t, broker.Options{})
	c, o := newClient(t, b), newOutbox()
	r := &Relay{Client: c, TransactionalID: "test-0", Outbox: o, Topics: map[string]string{table.RoleGenerated: "nowhere"}}
	o.put(generated(0))
	stop := runRelay(t, r)
	eventually(t, "the loss to be seen", func() bool { ok, _ := r.Connected(); return !ok })
	if err := stop(); err != nil {
		t.Error(err)
	}
	if o.len() != 1 {
		t.Error("the message is gone")
	}
}
