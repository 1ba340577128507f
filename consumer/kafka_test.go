//go:build kafka

package consumer

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"rebeca/internal/kafka"
	"rebeca/table"
)

// realBroker starts one node of Apache Kafka that ends with the test.
func realBroker(t testing.TB) *kafka.Broker {
	t.Helper()
	b, err := kafka.Start(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Kill)
	return b
}

// realStage makes topics of its own on a broker.
func realStage(t *testing.T, address, name string) *stage {
	t.Helper()
	g := &stage{address, map[string]string{}}
	var want []Topic
	for _, role := range []string{table.RoleGenerated, table.RoleVectors, table.RoleDeadletter} {
		g.topics[role] = role + "-" + name
		want = append(want, Topic{Name: g.topics[role], Partitions: 2, Compacted: role == table.RoleVectors})
	}
	if _, err := EnsureTopics(within(t), clientAt(t, address), want, 1); err != nil {
		t.Fatal(err)
	}
	return g
}

// The trials hold on the real broker too.
func TestOnApacheKafkaTransactions(t *testing.T) {
	b := realBroker(t)
	for i, trial := range trials() {
		t.Run(trial.name, func(t *testing.T) { trial.run(t, realStage(t, b.Address, fmt.Sprint(i))) })
	}
}

// The broker is killed and comes back, again and again, while results are sent.
func TestOnApacheKafkaKilledBroker(t *testing.T) {
	const images, kills = 3, 3
	b := realBroker(t)
	g := realStage(t, b.Address, "killed")
	state := openTable(t, t.TempDir())
	s := g.sender(t, state)
	stop := runRelay(t, s.Relay)
	requests, over := 0, make(chan struct{})
	var asking sync.WaitGroup
	asking.Go(func() {
		for tick := time.NewTicker(5 * time.Millisecond); ; requests++ {
			select {
			case <-tick.C:
				ask(t, state, partition, int64(2*requests), images, "1")
			case <-over:
				return
			}
		}
	})
	for range kills {
		before := s.sent()
		eventually(t, "a hundred more", func() bool { return s.sent() > before+100 })
		b.Kill()
		if err := b.Restart(); err != nil {
			t.Fatal(err)
		}
	}
	before := s.sent()
	eventually(t, "a hundred more", func() bool { return s.sent() > before+100 })
	close(over)
	asking.Wait()
	eventually(t, "an empty outbox", drained(state))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	g.check(t, images, requests)
	s.toldOnce(t, requests*(images+1))
	if s.Stats().Retries == 0 {
		t.Error("no transaction was in doubt")
	}
	t.Logf("%d images and %d dead letters once each, after %d kills; %d transactions in doubt", requests*images, requests, kills, s.Stats().Retries)
}

// sent counts what was told of.
func (s *sender) sent() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.told)
}

func BenchmarkOnApacheKafkaRelay(b *testing.B) {
	broker := realBroker(b)
	if err := broker.CreateTopic("generated", 1); err != nil {
		b.Fatal(err)
	}
	c, err := NewClient(Options{Brokers: []string{broker.Address}})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	benchRelay(b, c, "generated")
}
