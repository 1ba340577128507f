//go:build kafka

package kafka

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"rebeca/internal/process"
	"rebeca/schemas"
)

// admin asks the broker for a change as an operator's tool would.
func (b *broker) admin(t *testing.T, request kmsg.Request) kmsg.Response {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Address))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	answer, err := client.Request(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// cut deletes the records of a partition of feedback below an offset, as retention does.
func (b *broker) cut(t *testing.T, partition int32, offset int64) {
	t.Helper()
	p := kmsg.NewDeleteRecordsRequestTopicPartition()
	p.Partition, p.Offset = partition, offset
	topic := kmsg.NewDeleteRecordsRequestTopic()
	topic.Topic, topic.Partitions = "feedback", append(topic.Partitions, p)
	r := kmsg.NewPtrDeleteRecordsRequest()
	r.Topics, r.TimeoutMillis = append(r.Topics, topic), 10_000
	got := b.admin(t, r).(*kmsg.DeleteRecordsResponse).Topics[0].Partitions[0]
	if got.ErrorCode != 0 || got.LowWatermark != offset {
		t.Fatalf("deleting records: error %d, the log begins at %d", got.ErrorCode, got.LowWatermark)
	}
}

// remove deletes feedback and waits until the broker knows it no more.
func (b *broker) remove(t *testing.T) {
	t.Helper()
	name := "feedback"
	topic := kmsg.NewDeleteTopicsRequestTopic()
	topic.Topic = &name
	r := kmsg.NewPtrDeleteTopicsRequest()
	r.TopicNames, r.Topics, r.TimeoutMillis = []string{name}, append(r.Topics, topic), 10_000
	if got := b.admin(t, r).(*kmsg.DeleteTopicsResponse).Topics[0]; got.ErrorCode != 0 {
		t.Fatalf("deleting the topic: error %d", got.ErrorCode)
	}
	ctx, cancel := context.WithTimeout(context.Background(), settle)
	defer cancel()
	if err := process.Until(ctx, "the topic is gone", func() (bool, error) {
		topic := kmsg.NewMetadataRequestTopic()
		topic.Topic = &name
		m := kmsg.NewPtrMetadataRequest()
		m.Topics = append(m.Topics, topic)
		return b.admin(t, m).(*kmsg.MetadataResponse).Topics[0].ErrorCode != 0, nil
	}); err != nil {
		t.Fatal(err)
	}
}

// userOf is a user of a partition of feedback.
func userOf(partition int32) string {
	for i := 0; ; i++ {
		if user := userID(i); schemas.Partition([]byte(user), partitions) == partition {
			return user
		}
	}
}

// likes are n events of a user of a partition.
func likes(partition int32, run string, n int) (all []message) {
	for i := range n {
		e := happened{EventID: fmt.Sprintf("%s-%d-%d", run, partition, i), UserID: userOf(partition), ItemID: itemID(i), Kind: "like",
			OccurredAt: time.Now().UTC().Format(time.RFC3339Nano)}
		all = append(all, message{e.UserID, marshal(e)})
	}
	return all
}

// TestGapsOnApacheKafka takes from the log what was to be read next, and puts another log in its place: the partition stops by name, the
// others go on, and told to record it the fold goes on from where the log begins.
func TestGapsOnApacheKafka(t *testing.T) {
	b := startBroker(t)
	s := configure(t, b.Address, "roles: [worker]", "generate: {count: 0}")
	s.worker = true
	s.run(t, "topics", "create", "-c", s.config)
	s.serve(t)
	b.produce(t, "feedback", slices.Concat(likes(0, "a", 5), likes(1, "a", 5)))
	s.rest(t)
	s.stop(t)

	stops := func(t *testing.T, code, kind string) {
		t.Helper()
		s.start(t)
		s.says(t, "/readyz", kind+": feedback[0]")
		got, err := s.status()
		if err != nil || !slices.ContainsFunc(got.Stopped, func(st struct{ Partition, Code, Message string }) bool {
			return st.Partition == "feedback[0]" && st.Code == code && strings.HasPrefix(st.Message, kind+": feedback[0]: ")
		}) {
			t.Errorf("/v1/status says %s, %v; want %s", marshal(got), err, code)
		}
	}
	goesOn := func(t *testing.T, want map[int32]int) {
		t.Helper()
		s.stop(t)
		s.kafka = ", on_gap: record"
		s.write(t, b.Address, s.state(), "roles: [worker]", "generate: {count: 0}")
		s.serve(t)
		s.rest(t)
		s.kafka = ""
		s.write(t, b.Address, s.state(), "roles: [worker]", "generate: {count: 0}")
		s.stop(t)
		rows := inspectUsers(t, s)
		for p, events := range want {
			if got := rows[userOf(p)].Events; got != events {
				t.Errorf("%s has %d events, want %d", userOf(p), got, events)
			}
		}
	}

	t.Run("records deleted", func(t *testing.T) {
		b.produce(t, "feedback", slices.Concat(likes(0, "b", 5), likes(1, "b", 5)))
		b.cut(t, 0, 8)
		stops(t, "gap", "gap")
		ctx, cancel := context.WithTimeout(context.Background(), settle)
		defer cancel()
		if err := process.Until(ctx, "the other partition goes on", func() (bool, error) {
			got, err := s.status()
			return got.EventsFolded == 5, err
		}); err != nil {
			t.Error(err)
		}
		goesOn(t, map[int32]int{0: 7, 1: 10})
	})
	t.Run("topic made anew, and longer", func(t *testing.T) {
		b.remove(t)
		s.run(t, "topics", "create", "-c", s.config)
		b.produce(t, "feedback", slices.Concat(likes(0, "c", 20), likes(1, "c", 20)))
		stops(t, "other_record", "other record")
		goesOn(t, map[int32]int{0: 27, 1: 30})
	})
	t.Run("topic made anew, and shorter", func(t *testing.T) {
		b.remove(t)
		s.run(t, "topics", "create", "-c", s.config)
		b.produce(t, "feedback", slices.Concat(likes(0, "d", 2), likes(1, "d", 2)))
		stops(t, "recreated", "recreated")
		goesOn(t, map[int32]int{0: 29, 1: 32})
	})
}
