package consumer

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"rebeca/internal/broker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// deadline bounds every wait of the tests; none lasts long on a working build.
const deadline = 30 * time.Second

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	t.Cleanup(cancel)
	return ctx
}

// eventually polls a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	ctx := within(t)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func startBroker(t *testing.T, o broker.Options) *broker.Broker {
	t.Helper()
	b, err := broker.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func newClient(t *testing.T, b *broker.Broker) *Client {
	t.Helper()
	return clientAt(t, b.Addr())
}

func clientAt(t *testing.T, address string) *Client {
	t.Helper()
	c, err := NewClient(Options{Brokers: []string{address}, ClientID: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// oracle is a client of another library.
func oracle(t *testing.T, b *broker.Broker, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	return oracleAt(t, b.Addr(), opts...)
}

func oracleAt(t *testing.T, address string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(address), kgo.RecordPartitioner(kgo.ManualPartitioner())}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// setup is a broker with one topic, and a client.
func setup(t *testing.T, topic string, partitions int) (*broker.Broker, *Client) {
	t.Helper()
	b := startBroker(t, broker.Options{})
	if err := b.Cluster().CreateTopic(topic, int32(partitions), nil); err != nil {
		t.Fatal(err)
	}
	return b, newClient(t, b)
}

func values(from, to int) []Message {
	var out []Message
	for i := from; i < to; i++ {
		out = append(out, Message{Key: []byte("key"), Value: fmt.Appendf(nil, "value %d", i)})
	}
	return out
}

func produce(t *testing.T, c *Client, topic string, partition int32, msgs ...Message) int64 {
	t.Helper()
	base, err := c.Produce(within(t), topic, partition, msgs)
	if err != nil {
		t.Fatal(err)
	}
	return base
}

// sink is a handler that keeps everything.
type sink struct {
	mu      sync.Mutex
	records []Record
	nexts   []int64
	calls   [][]Record
	handle  func(records []Record, next int64) error // called after keeping; may be nil
}

func (s *sink) Handle(_ context.Context, records []Record, next int64) error {
	s.mu.Lock()
	s.records = append(s.records, records...)
	s.calls = append(s.calls, records)
	s.nexts = append(s.nexts, next)
	handle := s.handle
	s.mu.Unlock()
	if handle != nil {
		return handle(records, next)
	}
	return nil
}

func (s *sink) all() []Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Record(nil), s.records...)
}

func (s *sink) next() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.nexts) == 0 {
		return -1
	}
	return s.nexts[len(s.nexts)-1]
}

// run starts a partition; stop ends it and returns Run's error.
func run(t *testing.T, p *Partition) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	var once sync.Once
	var err error
	stop = func() error {
		once.Do(func() {
			cancel()
			select {
			case err = <-done:
			case <-time.After(deadline):
				err = fmt.Errorf("Run did not return")
			}
		})
		return err
	}
	t.Cleanup(func() { _ = stop() })
	return stop
}

// result waits until Run ends by itself.
func result(t *testing.T, p *Partition) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	err := p.Run(ctx)
	if ctx.Err() != nil {
		t.Fatal("Run did not end by itself")
	}
	return err
}
