package rebeca

import (
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"rebeca/consumer"
	"rebeca/internal/broker"
	"rebeca/schemas"
)

// users returns one key for each of two partitions.
func (s *stand) users() (keys [2]string) {
	for i := 0; keys[0] == "" || keys[1] == ""; i++ {
		key := fmt.Sprintf("user-%d", i)
		keys[schemas.Partition([]byte(key), 2)] = key
	}
	return keys
}

// TestFloodOfPoison sends bad records as fast as they go, a good one between
// every hundred: the outbox stays within its bound, all facts are there, and
// the dead letters are complete, each once and with its bytes.
func TestFloodOfPoison(t *testing.T) {
	s := newStand(t)
	s.config = newFakeRegistry(t).config(s.config)
	const limit, batches, size = 500, 40, 500
	svc, stop := s.serveWith(Options{outboxLimit: limit})
	users := s.users()
	bad := map[string]int{} // by partition, offset and value
	good, most := [2]int{}, 0
	for b := range batches {
		for p := range int32(2) {
			messages := make([]consumer.Message, size)
			for i := range messages {
				m := &messages[i]
				m.Key, m.Time = []byte(users[p]), time.Now()
				switch {
				case i%100 == 7:
					good[p]++
					m.Value = fmt.Appendf(nil, `{"event_id":"e%d","user_id":%q,"item_id":"item-%d","kind":"like","occurred_at":%q}`,
						good[p], users[p], i, m.Time.UTC().Format(time.RFC3339Nano))
				case i%12 == 1: // in the name of schemas that nobody has, another one each time
					m.Value = schemas.Frame(uint32(1_000_000+(b*size+i)*2+int(p)), []byte("x"))
				case i%3 == 0:
					m.Value = fmt.Appendf(nil, "no JSON %d-%d", b, i)
				default:
					m.Value = fmt.Appendf(nil, `{"event_id":"x%d-%d","user_id":"somebody else"}`, b, i)
				}
			}
			at, err := s.client.Produce(t.Context(), "feedback", p, messages)
			if err != nil {
				t.Fatal(err)
			}
			for i, m := range messages {
				if i%100 != 7 {
					bad[fmt.Sprintf("%d/%d/%s", p, at+int64(i), m.Value)]++
				}
			}
			most = max(most, svc.table.Unsent(0), svc.table.Unsent(1))
		}
	}
	s.until("at rest", func() bool {
		most = max(most, svc.table.Unsent(0), svc.table.Unsent(1))
		st := svc.Status()
		return st.Lag.Fold != nil && *st.Lag.Fold == 0 && svc.table.Unsent(0)+svc.table.Unsent(1) == 0
	})
	if bound := 2*limit + 2*mostBatch; most > bound { // the limit, a batch of the fold and two of the generator
		t.Errorf("%d messages in an outbox, its bound is %d", most, bound)
	}
	for p, user := range users {
		if row, ok, err := svc.table.User(user); err != nil || !ok || int(row.Events) != good[p] {
			t.Errorf("%s has %d events of %d (%v)", user, row.Events, good[p], err)
		}
	}
	stop()
	got := map[string]int{}
	for _, r := range s.read("deadletter") {
		got[headerOf(r, "rebeca-partition")+"/"+headerOf(r, "rebeca-offset")+"/"+string(r.Value)]++
	}
	if !maps.Equal(got, bad) {
		t.Errorf("%d dead letters, want %d: each bad record once", len(got), len(bad))
	}
}

func headerOf(r *kgo.Record, name string) string {
	for _, h := range r.Headers {
		if h.Key == name {
			return string(h.Value)
		}
	}
	return ""
}

// TestGeneratedRefuses has the topic of one partition's images refuse all that
// is sent to it. Its outbox grows to the bound, the partition pauses by name,
// the other goes on; afterwards every request is answered once and the facts
// are those of the log.
func TestGeneratedRefuses(t *testing.T) {
	b, err := broker.Start(broker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	s := standOn(t, b.Addr())
	s.items(300)
	s.crowd("warm", 100)
	const limit, asked, images, events = 60, 120, 2, 400
	svc, stop := s.serveWith(Options{outboxLimit: limit})
	s.until("a prior is used and all is sent", func() bool {
		st := svc.Status()
		return st.PriorVersion != "" && *st.Lag.Publish == 0
	})
	before := map[string]bool{}
	for _, r := range s.read("generated") {
		before[idOf(t, r)] = true
	}
	fault := b.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "generated", Partitions: []int32{1}, Err: kerr.NotEnoughReplicas, Count: -1})
	defer fault.Remove()
	users := s.users()
	ask := func(p int32, i int) {
		v, err := schemas.Request{RequestID: fmt.Sprintf("r%d-%d", p, i), UserID: users[p], Count: images}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		s.produce("requests", []byte(users[p]), v)
	}
	for i := range asked {
		ask(0, i)
		ask(1, i)
	}
	s.until("partition 1 alone paused by name", func() bool { // the other may be for a moment
		reasons, full := svc.Ready(), svc.Status().Overload.OutboxFull
		return len(full) == 1 && full[0] == 1 && len(reasons) > 0 && reasons[0].Code == "outbox_full" && strings.HasPrefix(reasons[0].Message, "partition 1 waits")
	})
	folded := svc.progress.get(1)
	for i := range events {
		for p := range users {
			s.feedback(schemas.Feedback{EventID: "f" + strconv.Itoa(i), UserID: users[p], ItemID: fmt.Sprintf("item-%d", i%300), Kind: schemas.KindLike})
		}
	}
	warm := [2]uint64{} // events of the crowd's that are these users'
	for p, user := range users {
		n, _ := strconv.Atoi(strings.TrimPrefix(user, "user-"))
		if n < 10 {
			warm[p] = 10
		}
	}
	s.until("partition 0 goes on to its end", func() bool {
		row, _, err := svc.table.User(users[0])
		return err == nil && row.Events == warm[0]+events && svc.table.Unsent(0) == 0
	})
	if at := svc.progress.get(1); at > folded+1 { // a batch may have been past the gate
		t.Errorf("the paused partition folded from %d to %d", folded, at)
	}
	if n := svc.table.Unsent(1); n < limit || n > limit+2*mostBatch {
		t.Errorf("%d messages in the outbox, its bound is %d and a batch", n, limit)
	}
	fault.Remove()
	s.until("at rest", func() bool {
		st := svc.Status()
		return len(svc.Ready()) == 0 && *st.Lag.Fold == 0 && *st.Lag.Publish == 0
	})
	for p, user := range users {
		if row, ok, err := svc.table.User(user); err != nil || !ok || row.Events != warm[p]+events {
			t.Errorf("%s has %d events of %d (%v)", user, row.Events, warm[p]+events, err)
		}
	}
	stop()
	ids, answers := map[string]int{}, map[string]int{}
	for _, r := range s.read("generated") {
		var g schemas.Generated
		if err := json.Unmarshal(r.Value, &g); err != nil {
			t.Fatal(err)
		}
		if ids[g.ID]++; ids[g.ID] > 1 {
			t.Errorf("%s is there %d times", g.ID, ids[g.ID])
		}
		answers[g.RequestID]++
	}
	for i := range asked {
		for p := range users {
			if n := answers[fmt.Sprintf("r%d-%d", p, i)]; n != images {
				t.Errorf("request %d of partition %d has %d images of %d", i, p, n, images)
			}
		}
	}
	for id := range before {
		if ids[id] != 1 {
			t.Errorf("%s is gone", id)
		}
	}
}

func idOf(t *testing.T, r *kgo.Record) string {
	t.Helper()
	var g schemas.Generated
	if err := json.Unmarshal(r.Value, &g); err != nil {
		t.Fatal(err)
	}
	return g.ID
}
