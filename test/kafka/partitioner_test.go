//go:build kafka

package kafka

import (
	"fmt"
	"testing"

	"rebeca/schemas"
)

// The service refuses keys in partitions that they do not hash to, so its partitioner must be that of librdkafka's clients, too.
func TestPartitionerIsThatOfKcat(t *testing.T) {
	const partitions, keys = 7, 500
	b := startBroker(t)
	if err := b.CreateTopic("keys", partitions); err != nil {
		t.Fatal(err)
	}
	var messages []message
	for i := range keys {
		key := fmt.Sprintf("user-%d", i*i*i)
		if i%5 == 0 {
			key = fmt.Sprintf("ユーザー%dé", i)
		}
		messages = append(messages, message{key, "{}"})
	}
	b.produce(t, "keys", messages)
	got := b.consume(t, "keys")
	if len(got) != keys {
		t.Fatalf("%d records came back, want %d", len(got), keys)
	}
	for _, r := range got {
		if want := schemas.Partition([]byte(r.Key), partitions); r.Partition != want {
			t.Errorf("key %q: kcat chose partition %d, schemas.Partition says %d", r.Key, r.Partition, want)
		}
	}
}
