package schemas

import (
	"strings"
	"testing"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"
)

func TestMurmur2KnownValues(t *testing.T) {
	for key, want := range map[string]int32{
		"21":                         -973932308,
		"foobar":                     -790332482,
		"a-little-bit-long-string":   -985981536,
		"a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		if got := int32(murmur2([]byte(key))); got != want {
			t.Errorf("murmur2(%q) = %d, want %d", key, got, want)
		}
	}
}

func TestPartitionAgreesWithOtherClients(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "key")
		n := rapid.IntRange(1, 64).Draw(t, "partitions")
		all := make([]int, n)
		for i := range all {
			all[i] = i
		}
		got := Partition(key, n)
		if want := (kafka.Murmur2Balancer{}).Balance(kafka.Message{Key: key}, all...); int(got) != want {
			t.Fatalf("Partition(%x, %d) = %d, kafka-go says %d", key, n, got, want)
		}
		topic := kgo.StickyKeyPartitioner(nil).ForTopic("feedback")
		if want := topic.Partition(&kgo.Record{Key: key}, n); int(got) != want {
			t.Fatalf("Partition(%x, %d) = %d, franz-go says %d", key, n, got, want)
		}
	})
}

// The values are frozen: a change would give old events new ids.
func TestIdentitiesNeverChange(t *testing.T) {
	source := Source{Topic: "feedback", Partition: 2, Offset: 4711}
	if got, want := ID(source, 0), "9649adc5a65f62f94ca2505e4a14ecfc"; got != want {
		t.Errorf("ID = %s, want %s", got, want)
	}
	if got, want := EventHash("0190f5c2-0000-7000-8000-000000000001"), uint64(5632248797233517489); got != want {
		t.Errorf("EventHash = %d, want %d", got, want)
	}
	if got, want := Seed("9649adc5a65f62f94ca2505e4a14ecfc"), uint64(6128827671799893); got != want {
		t.Errorf("Seed = %d, want %d", got, want)
	}
}

func TestIDsDiffer(t *testing.T) {
	seen := map[string]Source{}
	for _, topic := range []string{"feedback", "requests", "feedback\x00"} {
		for partition := range int32(3) {
			for offset := range int64(3) {
				for index := range 3 {
					s := Source{topic, partition, offset}
					id := ID(s, index)
					if other, ok := seen[id]; ok {
						t.Fatalf("%v and %v share %s", s, other, id)
					}
					if !isHex(id, 32) {
						t.Fatalf("ID %q is not 32 hex digits", id)
					}
					seen[id] = s
				}
			}
		}
	}
}

func TestSeedsStayExactInJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		if s := Seed(rapid.String().Draw(t, "id")); s >= MaxSeed {
			t.Fatalf("seed %d is not below 2^53", s)
		}
	})
}

func TestEventHashOfAnyLength(t *testing.T) {
	seen := map[uint64]int{}
	for n := range 2 * MaxID {
		h := EventHash(strings.Repeat("e", n))
		if m, ok := seen[h]; ok {
			t.Fatalf("ids of %d and %d bytes share a hash", n, m)
		}
		seen[h] = n
	}
}
