//go:build kafka

package kafka

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"rebeca/schemas"
)

// noJSON begins every record of a flow that must come back as a dead letter.
const noJSON = "no JSON"

// flow sends feedback with resends, requests, and what is neither, until it ends, by another client than the service's. An outage of the
// broker is waited for.
type flow struct {
	end  context.CancelFunc
	done chan error
}

// start begins a flow; one that is not ended ends with the test.
func (b *broker) start(t *testing.T, seed uint64) *flow {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Address), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	f := &flow{cancel, make(chan error, 1)}
	go func() {
		defer client.Close()
		f.done <- send(ctx, client, rand.New(rand.NewPCG(seed, 7)))
	}()
	t.Cleanup(cancel)
	return f
}

// stop ends the flow; all that was sent is in the log then.
func (f *flow) stop(t *testing.T) {
	t.Helper()
	f.end()
	if err := <-f.done; err != nil {
		t.Fatalf("the flow: %v", err)
	}
}

// send sends some records each tick. A record under way when ctx ends is waited for.
func send(ctx context.Context, client *kgo.Client, rng *rand.Rand) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n += 10 {
		var all []*kgo.Record
		add := func(topic, key, value string) {
			all = append(all, &kgo.Record{Topic: topic, Key: []byte(key), Value: []byte(value)})
		}
		for _, m := range stream(rng, n, 10) {
			add("feedback", m.key, m.value)
		}
		if n%50 == 0 {
			user, id := userID(rng.IntN(users)), fmt.Sprintf("request-%d", n)
			add("requests", user, marshal(map[string]any{"request_id": id, "user_id": user, "count": 1 + rng.IntN(3)}))
			add("feedback", user, fmt.Sprintf("%s %d", noJSON, n))
		}
		if n%200 == 0 {
			add("items", fmt.Sprintf("bad-%d", n), fmt.Sprintf("%s %d", noJSON, n))
		}
		if err := client.ProduceSync(context.WithoutCancel(ctx), all...).FirstErr(); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// checkOutputs holds generated and deadletter, as a reader at read_committed sees them, against the log: every id once, every request
// answered in full, one dead letter for every record that is none.
func (b *broker) checkOutputs(t *testing.T) {
	t.Helper()
	records := b.consume(t, "generated")
	checkGenerated(t, records)
	images := map[string]int{}
	for _, g := range decodeGenerated(t, records) {
		images[g.RequestID]++
	}
	asked := readLog(t, b, "requests")
	for _, r := range asked {
		var q schemas.Request
		if err := json.Unmarshal([]byte(r.Payload), &q); err != nil {
			t.Fatal(err)
		}
		if images[q.RequestID] != q.Count {
			t.Errorf("request %s of %s (partition %d, offset %d) has %d images of %d", q.RequestID, q.UserID, r.Partition, r.Offset, images[q.RequestID], q.Count)
		}
	}
	want := map[string]int{}
	for _, topic := range []string{"feedback", "items"} {
		for _, r := range readLog(t, b, topic) {
			if strings.HasPrefix(r.Payload, noJSON) {
				want[fmt.Sprintf("%s[%d]@%d %s", topic, r.Partition, r.Offset, r.Payload)]++
			}
		}
	}
	n := len(want)
	for _, r := range b.consume(t, "deadletter") {
		place := fmt.Sprintf("%s[%s]@%s %s", r.header("rebeca-topic"), r.header("rebeca-partition"), r.header("rebeca-offset"), r.Payload)
		if want[place]--; want[place] < 0 {
			t.Errorf("a dead letter too many: %s", place)
		}
	}
	for place, missing := range want {
		if missing > 0 {
			t.Errorf("no dead letter for %s", place)
		}
	}
	t.Logf("%d requests answered, %d images that nobody asked for, %d dead letters", len(asked), images[""], n)
}

// checkRows holds the rows of each partition, at the worker that owns it, against a fold of the log.
func (b *broker) checkRows(t *testing.T, owners map[int32]*service) {
	t.Helper()
	log := readLog(t, b, "feedback")
	all := foldLog(t, log)
	events := 0
	for p, s := range owners {
		want, got := map[string]*counts{}, inspectUsers(t, s)
		mine := func(user string) bool { return schemas.Partition([]byte(user), partitions) == p }
		for user, c := range all {
			if mine(user) {
				want[user] = c
			}
		}
		for user := range got {
			if !mine(user) {
				delete(got, user)
			}
		}
		events += compareRows(t, got, want)
	}
	t.Logf("%d records of feedback, %d events folded once each", len(log), events)
}
