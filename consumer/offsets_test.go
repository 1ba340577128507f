package consumer

import (
	"errors"
	"testing"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestOffsetsWaitForALeader: topics that were just made, and brokers that were just started, have partitions without one.
func TestOffsetsWaitForALeader(t *testing.T) {
	b, c := setup(t, "feedback", 1)
	produce(t, c, "feedback", 0, values(0, 3)...)
	fault := b.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: "feedback", Err: kerr.NotLeaderForPartition, Count: 2})
	first, last, err := c.Offsets(within(t), "feedback", 0)
	if first != 0 || last != 3 || err != nil || fault.Hits() != 2 {
		t.Errorf("Offsets = %d, %d, %v after %d refusals", first, last, err, fault.Hits())
	}
	b.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: "feedback", Err: kerr.TopicAuthorizationFailed, Count: 1})
	if _, _, err := c.Offsets(within(t), "feedback", 0); !errors.Is(err, kafka.TopicAuthorizationFailed) {
		t.Errorf("a refusal for good: %v", err)
	}
}
