package rebeca

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"rebeca/internal/broker"
	"rebeca/schemas"
)

// TestFullOutboxPausesItsPartition has a topic refuse what one partition
// sends: its fold stops by name with a bounded outbox, the other goes on, and
// all is there once when the topic takes records again.
func TestFullOutboxPausesItsPartition(t *testing.T) {
	b, err := broker.Start(broker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	s := standOn(t, b.Addr())
	const limit, sent = 40, 6000
	svc, stop := s.serveWith(Options{outboxLimit: limit})
	fault := b.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "deadletter", Partitions: []int32{1}, Err: kerr.NotEnoughReplicas, Count: -1})
	defer fault.Remove()
	keys := map[int32][]byte{}
	for i := 0; len(keys) < 2; i++ {
		key := fmt.Appendf(nil, "user-%d", i)
		keys[schemas.Partition(key, 2)] = key
	}
	for i := range sent {
		s.produce("feedback", keys[int32(i%2)], fmt.Appendf(nil, "no JSON %d", i))
	}
	s.until("partition 1 paused and partition 0 at its end", func() bool {
		reasons := svc.Ready()
		named := len(reasons) > 0 && reasons[0].Code == "outbox_full" && strings.HasPrefix(reasons[0].Message, "partition 1 waits")
		return named && len(svc.room.paused()) == 1 && svc.progress.get(0) == sent/2
	})
	if n := svc.table.Unsent(1); n < limit || n > limit+2000 { // and what was handed to the handler at once
		t.Errorf("%d messages in the outbox", n)
	}
	if got := svc.progress.get(1); got >= sent/2 {
		t.Errorf("the paused partition folded up to %d", got)
	}
	families, err := svc.options.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		if m := f.GetMetric(); len(m) == 1 {
			values[f.GetName()] = m[0].GetGauge().GetValue() + m[0].GetCounter().GetValue()
		}
	}
	if values["rebeca_outbox_full_partitions"] != 1 || values["rebeca_outbox_messages"] < limit || values["rebeca_relay_retries_total"] == 0 {
		t.Errorf("metrics %v", values)
	}
	fault.Remove()
	s.until("at rest", func() bool { return svc.progress.get(1) == sent/2 && svc.table.Unsent(1) == 0 && len(svc.Ready()) == 0 })
	stop()
	if got := s.read("deadletter"); len(got) != sent {
		t.Errorf("%d dead letters, want %d", len(got), sent)
	}
}
