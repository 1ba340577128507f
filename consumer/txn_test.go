package consumer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"rebeca/internal/broker"
	"rebeca/table"
)

// sender is a relay of one partition over a state, on a client of its own.
type sender struct {
	*Relay
	wire *wire
	told map[string]int // by place in the outbox; guarded by mu
	mu   sync.Mutex
}

// stage is a broker and the topics of one test on it. The state under test has two partitions; this one is used.
type stage struct {
	address string
	topics  map[string]string
}

const partition = 1

func newStage(t *testing.T) *stage {
	t.Helper()
	b := startBroker(t, broker.Options{})
	return &stage{b.Addr(), relayTopics(t, b)}
}

func (g *stage) transactionalID() string { return "rebeca-" + g.topics[table.RoleGenerated] + "-1" }

// sender returns a relay over a state.
func (g *stage) sender(t *testing.T, o Outbox) *sender {
	t.Helper()
	c := clientAt(t, g.address)
	s := &sender{wire: between(t, c, g.address), told: map[string]int{}}
	s.Relay = &Relay{
		Client: c, Outbox: o, Partition: partition, TransactionalID: g.transactionalID(), Topics: g.topics,
		OnAck: func(out []table.Outgoing, _ time.Time) {
			s.mu.Lock()
			defer s.mu.Unlock()
			for _, m := range out {
				s.told[fmt.Sprint(m.Seq, "/", m.Index)]++
			}
		},
	}
	return s
}

// toldOnce fails unless n messages were told of, each once.
func (s *sender) toldOnce(t *testing.T, n int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.told) != n {
		t.Errorf("told of %d messages, want %d", len(s.told), n)
	}
	for place, times := range s.told {
		if times != 1 {
			t.Errorf("told %d times of %s", times, place)
		}
	}
}

func places(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprint(2*i+1))
	}
	return out
}

// check compares what the topics of a partition hold at read_committed with what the first n requests make.
func (g *stage) check(t *testing.T, images, n int) {
	t.Helper()
	c := clientAt(t, g.address)
	var offsets []int64
	for i := range n {
		offsets = append(offsets, int64(2*i))
	}
	if got, want := ids(t, g.address, c, g.topics[table.RoleGenerated], partition), wanted(partition, images, offsets...); !slices.Equal(got, want) {
		t.Errorf("published %v, want %v", got, want)
	}
	if got, want := ids(t, g.address, c, g.topics[table.RoleDeadletter], partition), places(n); !slices.Equal(got, want) {
		t.Errorf("dead letters %v, want %v", got, want)
	}
}

// trial is what happens to relays on a stage.
type trial struct {
	name string
	run  func(t *testing.T, g *stage)
}

// trials are all that have to hold on any broker: a reader at read_committed sees each id once, none is missing, and the order is kept.
func trials() []trial {
	out := []trial{{"late request of a dead process", lateRequestOfADeadProcess}}
	fates := map[string]fate{"passes": passes, "lost": lost, "unanswered": unanswered, "late": late}
	add := func(name string, key protocol.ApiKey, n int, run func(t *testing.T, g *stage, key protocol.ApiKey, n int, f fate), of ...string) {
		for _, f := range of {
			out = append(out, trial{fmt.Sprintf("%s/%v/%s/%d", name, key, f, n), func(t *testing.T, g *stage) { run(t, g, key, n, fates[f]) }})
		}
	}
	inTransaction := []protocol.ApiKey{protocol.AddPartitionsToTxn, protocol.Produce, protocol.EndTxn}
	for n := 1; n <= 2; n++ {
		for _, key := range append(inTransaction, protocol.InitProducerId, protocol.FindCoordinator) {
			add("bad network", key, n, overABadNetwork, "lost", "unanswered", "late")
		}
	}
	for _, key := range inTransaction {
		add("two owners", key, 1, twoOwners, "passes", "lost", "unanswered")
		for n := 1; n <= 2; n++ {
			add("killed", key, n, killedWithin, "lost", "unanswered")
		}
	}
	return out
}

func TestTransactions(t *testing.T) {
	for _, trial := range trials() {
		t.Run(trial.name, func(t *testing.T) {
			t.Parallel()
			trial.run(t, newStage(t))
		})
	}
}

// overABadNetwork lets the n-th request of a kind meet a fate.
func overABadNetwork(t *testing.T, g *stage, key protocol.ApiKey, n int, f fate) {
	const images, requests = 3, 4
	state := openTable(t, t.TempDir())
	s := g.sender(t, state)
	met := s.wire.nth(key, n, f)
	stop := runRelay(t, s.Relay)
	for i := range requests {
		if key == protocol.InitProducerId && n > i+1 {
			s.wire.nth(protocol.EndTxn, 1, unanswered) // a reason to open again
		}
		ask(t, state, partition, int64(2*i), images, fmt.Sprint(i))
		eventually(t, "an empty outbox", drained(state))
		// A commit whose answer was lost took effect: nothing may stay counted as in hand.
		eventually(t, "nothing in hand", func() bool { return s.Stats().Depth == 0 })
	}
	if !met() {
		t.Error("the fault was not met")
	}
	made := requests
	if f == late { // long after everything was read back, sent again and committed
		close(s.wire.release)
		select {
		case <-s.wire.arrived:
		case <-within(t).Done():
			t.Error("the late request did not arrive")
		}
		ask(t, state, partition, 2*requests, images, "after")
		eventually(t, "an empty outbox", drained(state))
		made++
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	g.check(t, images, made)
	s.toldOnce(t, made*(images+1))
}

// lateRequestOfADeadProcess is the hole that reading the log before sending would leave: the process that sent a request is dead, the
// next one has read the topic to its stable end and sends, and then it comes.
func lateRequestOfADeadProcess(t *testing.T, g *stage) {
	const images = 3
	state := openTable(t, t.TempDir())
	first := g.sender(t, state)
	met := first.wire.nth(protocol.Produce, 1, late)
	ctx, kill := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- first.Run(ctx) }()
	ask(t, state, partition, 0, images, "1")
	eventually(t, "a request in the socket", met)
	kill()
	if err := <-done; err != nil {
		t.Fatal(err)
	}

	second := g.sender(t, state)
	arrive := sync.OnceFunc(func() { close(first.wire.release); <-first.wire.arrived })
	second.wire.each(func(key protocol.ApiKey) fate {
		if key == protocol.Produce {
			arrive() // settled, and its own transaction is open
		}
		return passes
	})
	stop := runRelay(t, second.Relay)
	eventually(t, "an empty outbox", drained(state))
	ask(t, state, partition, 2, images, "2")
	eventually(t, "an empty outbox", drained(state))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	g.check(t, images, 2)
}

// killedWithin ends a process at the n-th request of a kind, with what was sent on the broker and not committed.
func killedWithin(t *testing.T, g *stage, key protocol.ApiKey, n int, f fate) {
	const images = 3
	state := openTable(t, t.TempDir())
	first := g.sender(t, state)
	ctx, kill := context.WithCancel(t.Context())
	var seen atomic.Int64
	first.wire.each(func(k protocol.ApiKey) fate {
		if k != key || seen.Add(1) < int64(n) {
			return passes
		}
		kill()
		return f
	})
	ask(t, state, partition, 0, images, "1") // all of it, so that one transaction holds it
	done := make(chan error, 1)
	go func() { done <- first.Run(ctx) }()
	if n == 2 && key != protocol.Produce { // the second transaction, not the first
		eventually(t, "an empty outbox", drained(state))
	}
	ask(t, state, partition, 2, images, "1")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	sendAll(t, g.sender(t, state).Relay, state)
	g.check(t, images, 2)
}

// twoOwners each have a copy of the state and make what the log asks for: the later fences the earlier, whatever the earlier is about to
// send and whatever becomes of that.
func twoOwners(t *testing.T, g *stage, key protocol.ApiKey, _ int, f fate) {
	const images, requests = 2, 6
	state := openTable(t, t.TempDir())
	ask(t, state, partition, 0, images, "1")
	other := copyState(t, state)
	first, second := g.sender(t, state), g.sender(t, other)
	reached, taken := make(chan struct{}), make(chan struct{})
	var once sync.Once
	first.wire.each(func(k protocol.ApiKey) (met fate) {
		if k == key {
			once.Do(func() {
				close(reached)
				<-taken // the other has taken over and sent all that it has
				met = f
			})
		}
		return met
	})
	ended := make(chan error, 1)
	go func() { ended <- first.Run(within(t)) }()
	<-reached
	stop := runRelay(t, second.Relay)
	eventually(t, "the other's empty outbox", drained(other))
	close(taken)
	for i := 1; i < requests; i++ {
		ask(t, state, partition, int64(2*i), images, "mine")
		ask(t, other, partition, int64(2*i), images, "other")
	}
	err := <-ended
	var fenced *FencedError
	if !errors.As(err, &fenced) || !errors.Is(err, ErrNotOwner) || fenced.TransactionalID != g.transactionalID() {
		t.Errorf("the first owner ended with %v", err)
	}
	eventually(t, "the other's empty outbox", drained(other))
	if err := stop(); err != nil {
		t.Errorf("the second owner ended with %v", err)
	}
	g.check(t, images, requests)
}

// Every error that a broker may answer, to every request of a transaction: done or not done, it is tried again and each id is there once.
func TestTransactionsOutliveTheBrokersErrors(t *testing.T) {
	for key, errs := range map[kmsg.Key][]*kerr.Error{
		kmsg.FindCoordinator: {kerr.CoordinatorNotAvailable, kerr.TransactionalIDAuthorizationFailed},
		kmsg.InitProducerID: {
			kerr.CoordinatorLoadInProgress, kerr.CoordinatorNotAvailable, kerr.NotCoordinator, kerr.ConcurrentTransactions,
			kerr.RequestTimedOut, kerr.UnknownServerError, kerr.InvalidProducerEpoch, kerr.ProducerFenced, kerr.TransactionalIDAuthorizationFailed,
		},
		kmsg.AddPartitionsToTxn: {
			kerr.NotCoordinator, kerr.ConcurrentTransactions, kerr.InvalidProducerIDMapping, kerr.InvalidTxnState, kerr.RequestTimedOut, kerr.TopicAuthorizationFailed,
		},
		kmsg.Produce: {
			kerr.RequestTimedOut, kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend, kerr.NotLeaderForPartition, kerr.OutOfOrderSequenceNumber,
			kerr.UnknownProducerID, kerr.InvalidTxnState, kerr.UnknownServerError,
		},
		kmsg.EndTxn: {kerr.UnknownServerError, kerr.RequestTimedOut, kerr.NotCoordinator, kerr.ConcurrentTransactions, kerr.CoordinatorNotAvailable, kerr.InvalidTxnState},
	} {
		for _, e := range errs {
			t.Run(key.Name()+"/"+e.Message, func(t *testing.T) {
				t.Parallel()
				const images, requests = 2, 3
				b := startBroker(t, broker.Options{})
				g := &stage{b.Addr(), relayTopics(t, b)}
				state := openTable(t, t.TempDir())
				s := g.sender(t, state)
				fault := b.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{key}, Err: e, Count: 2})
				stop := runRelay(t, s.Relay)
				for i := range requests {
					ask(t, state, partition, int64(2*i), images, "1")
					eventually(t, "an empty outbox", drained(state))
				}
				if err := stop(); err != nil {
					t.Error(err)
				}
				if fault.Hits() != 2 {
					t.Errorf("%d faults met", fault.Hits())
				}
				if got := s.Stats().Retries; undone(kafka.Error(e.Code)) && got != 0 {
					t.Errorf("%d transactions in doubt, though nothing was done", got)
				}
				g.check(t, images, requests)
				s.toldOnce(t, requests*(images+1))
			})
		}
	}
}

// copyState makes a second state from a first, as a careless operator might.
func copyState(t *testing.T, state *table.Table) *table.Table {
	t.Helper()
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
	return openTable(t, dir)
}

// An owner in doubt asks whether it still is one before it fences anybody.
func TestOwnIsAskedBeforeFencing(t *testing.T) {
	const images = 2
	g := newStage(t)
	state := openTable(t, t.TempDir())
	ask(t, state, partition, 0, images, "1")
	other := copyState(t, state)
	first, second := g.sender(t, state), g.sender(t, other)
	var asked atomic.Int64
	first.Own = func(context.Context) error {
		switch asked.Add(1) {
		case 1:
			return nil
		case 2:
			return errors.New("the coordinator is away")
		}
		return fmt.Errorf("not_owner: %w", ErrNotOwner)
	}
	reached, taken := make(chan struct{}), make(chan struct{})
	first.wire.each(func(k protocol.ApiKey) fate {
		if k != protocol.EndTxn {
			return passes
		}
		close(reached)
		<-taken
		return lost
	})
	ended := make(chan error, 1)
	go func() { ended <- first.Run(within(t)) }()
	<-reached
	stop := runRelay(t, second.Relay)
	eventually(t, "the other's empty outbox", drained(other))
	close(taken)
	if err := <-ended; !errors.Is(err, ErrNotOwner) {
		t.Errorf("the first owner ended with %v", err)
	}
	if asked.Load() != 3 {
		t.Errorf("asked %d times", asked.Load())
	}
	ask(t, other, partition, 2, images, "other")
	eventually(t, "the other's empty outbox", drained(other))
	if err := stop(); err != nil {
		t.Errorf("the second owner was fenced: %v", err)
	}
	g.check(t, images, 2)
}

// A broker that was killed raises the epochs of those whose transactions it cut off. An owner that can ask whether it is one goes on.
func TestOwnDecidesOverEpochs(t *testing.T) {
	const images = 2
	g := newStage(t)
	state := openTable(t, t.TempDir())
	ask(t, state, partition, 0, images, "1")
	s := g.sender(t, state)
	s.Own = func(context.Context) error { return nil }
	raised := &txn{client: s.Client, id: g.transactionalID(), partition: partition, timeout: time.Minute}
	var once sync.Once
	s.wire.each(func(k protocol.ApiKey) fate {
		if k == protocol.EndTxn {
			once.Do(func() {
				if err := raised.open(within(t)); err != nil {
					t.Error(err)
				}
			})
		}
		return passes
	})
	stop := runRelay(t, s.Relay)
	eventually(t, "an empty outbox", drained(state))
	ask(t, state, partition, 2, images, "2")
	eventually(t, "an empty outbox again", drained(state))
	if err := stop(); err != nil {
		t.Errorf("the owner ended with %v", err)
	}
	if s.Stats().Retries == 0 {
		t.Error("the epoch was not raised")
	}
	g.check(t, images, 2)
}

// A process that stood still for longer than a transaction may take finds it ended by the coordinator, and is not fenced by anybody.
func TestStoodStillWithinATransaction(t *testing.T) {
	const images = 2
	b := startBroker(t, broker.Options{})
	g := &stage{b.Addr(), relayTopics(t, b)}
	state := openTable(t, t.TempDir())
	s := g.sender(t, state)
	s.txnTimeout = 50 * time.Millisecond
	ask(t, state, partition, 0, images, "1")
	var stood atomic.Bool
	s.wire.each(func(k protocol.ApiKey) fate {
		if k == protocol.EndTxn && stood.CompareAndSwap(false, true) {
			for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(time.Millisecond) {
				if p := b.Cluster().PartitionInfo("generated", partition); p.LastStableOffset == p.HighWatermark {
					break // ended by the coordinator
				}
			}
		}
		return passes
	})
	sendAll(t, s.Relay, state)
	if got := s.Stats().Retries; got == 0 {
		t.Error("the coordinator did not end the transaction")
	}
	g.check(t, images, 1)
}

// Leaders and coordinators move all the time.
func TestLeadersAndCoordinatorsMove(t *testing.T) {
	const images, requests = 2, 30
	cluster, err := kfake.NewCluster(kfake.NumBrokers(3))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	for _, topic := range []string{"generated", "deadletter"} {
		if err := cluster.CreateTopic(topic, 2, nil); err != nil {
			t.Fatal(err)
		}
	}
	c, err := NewClient(Options{Brokers: cluster.ListenAddrs()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	state := openTable(t, t.TempDir())
	stop := runRelay(t, &Relay{
		Client: c, Outbox: state, TransactionalID: "test-1", Partition: partition,
		Topics: map[string]string{table.RoleGenerated: "generated", table.RoleDeadletter: "deadletter"},
	})
	for i := range requests {
		ask(t, state, partition, int64(2*i), images, "1")
		switch i % 3 {
		case 0:
			cluster.RehashCoordinators()
		case 1:
			if err := cluster.MoveTopicPartition("generated", partition, int32(i/3%3)); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "an empty outbox", drained(state))
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	o, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"generated": {partition: kgo.NewOffset().AtStart()}}))
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	var offsets []int64
	for i := range requests {
		offsets = append(offsets, int64(2*i))
	}
	want := wanted(partition, images, offsets...)
	var got []string
	for len(got) < len(want) {
		f := o.PollFetches(within(t))
		if err := f.Err(); err != nil {
			t.Fatal(err)
		}
		for _, r := range f.Records() {
			got = append(got, string(r.Headers[1].Value))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("published %v, want %v", got, want)
	}
}
