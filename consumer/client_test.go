package consumer

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"rebeca/internal/broker"
)

func TestNewClientChecksOptions(t *testing.T) {
	for want, o := range map[string]Options{
		"no Kafka broker":            {},
		`SASL mechanism "GSSAPI"`:    {Brokers: []string{"b"}, SASL: SASL{Mechanism: "GSSAPI"}},
		`SASL mechanism "SCRAM-SHA"`: {Brokers: []string{"b"}, SASL: SASL{Mechanism: "SCRAM-SHA"}},
	} {
		if _, err := NewClient(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func TestPing(t *testing.T) {
	_, c := setup(t, "feedback", 1)
	if err := c.Ping(within(t)); err != nil {
		t.Fatal(err)
	}
}

// free returns an address on which nobody listens.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestPingWithoutABrokerSaysSoInOneLine(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	closing, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer closing.Close()
	go func() {
		for {
			conn, err := closing.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	for addr, want := range map[string]string{
		free(t):                     "connection refused",
		silent.Addr().String():      "no answer in time",
		closing.Addr().String():     "",
		"no-such-host.invalid:9092": "no-such-host.invalid",
	} {
		c, err := NewClient(Options{Brokers: []string{addr}, DialTimeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(within(t), 2*time.Second)
		err = c.Ping(ctx)
		cancel()
		c.Close()
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), addr) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %q, want one line with %q", addr, err, want)
		}
	}
}

func TestOffsets(t *testing.T) {
	b, c := setup(t, "feedback", 2)
	produce(t, c, "feedback", 1, values(0, 7)...)
	produce(t, c, "feedback", 1, values(7, 9)...)
	if err := b.Cluster().DeleteRecords("feedback", 1, 7); err != nil {
		t.Fatal(err)
	}
	for p, want := range [][2]int64{{0, 0}, {7, 9}} {
		first, last, err := c.Offsets(within(t), "feedback", int32(p))
		if err != nil || first != want[0] || last != want[1] {
			t.Errorf("partition %d: %d..%d (%v), want %v", p, first, last, err, want)
		}
	}
	if _, _, err := c.Offsets(within(t), "nobody-made-it", 0); err == nil || !strings.Contains(err.Error(), "nobody-made-it[0]") {
		t.Errorf("error %v does not name the topic", err)
	}
}

func TestProduceSplitsByBytes(t *testing.T) {
	b, c := setup(t, "feedback", 1)
	var msgs []Message
	for i := range 40 {
		msgs = append(msgs, Message{Key: fmt.Append(nil, i), Value: bytes.Repeat([]byte{'x'}, 100_000)})
	}
	if base := produce(t, c, "feedback", 0, msgs...); base != 0 {
		t.Errorf("base offset %d", base)
	}
	for i, r := range readAll(t, b, "feedback", 0, len(msgs)) {
		if string(r.Key) != fmt.Sprint(i) || len(r.Value) != 100_000 {
			t.Fatalf("record %d has key %q and %d bytes", i, r.Key, len(r.Value))
		}
	}
	_, err := c.Produce(within(t), "feedback", 0, []Message{{Value: make([]byte, 2<<20)}})
	if !tooLarge(err) || Retriable(err) {
		t.Errorf("2 MiB: %v, want the broker's refusal for good", err)
	}
	if base, err := c.Produce(within(t), "feedback", 0, nil); err != nil || base != -1 {
		t.Errorf("nothing: %d, %v", base, err)
	}
}

// Each message's offset is told although another producer writes between the batches, and, when a later batch is
// refused, those of the batches before it.
func TestProduceEachTellsEveryOffset(t *testing.T) {
	b, c := setup(t, "feedback", 1)
	var msgs []Message
	for i := range 12 {
		msgs = append(msgs, Message{Key: fmt.Append(nil, i), Value: bytes.Repeat([]byte{'x'}, 300_000)})
	}
	batches, other := 0, newClient(t, b)
	b.Cluster().ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		b.Cluster().KeepControl()
		if batches++; batches == 2 { // between the first and the second batch, by another client
			b.Cluster().SleepControl(func() {
				if _, err := other.Produce(t.Context(), "feedback", 0, []Message{{Key: []byte("other")}}); err != nil {
					t.Error(err)
				}
			})
		}
		return nil, nil, false
	})
	offsets, err := c.ProduceEach(within(t), "feedback", 0, msgs)
	if err != nil || len(offsets) != len(msgs) {
		t.Fatalf("%d offsets, %v", len(offsets), err)
	}
	log := readAll(t, b, "feedback", 0, len(msgs)+1)
	if string(log[len(log)-1].Key) == "other" || string(log[0].Key) == "other" {
		t.Fatal("nothing was written between the batches")
	}
	for i, offset := range offsets {
		if got := string(log[offset].Key); got != fmt.Sprint(i) {
			t.Errorf("offset %d of message %d holds %q", offset, i, got)
		}
	}
	offsets, err = c.ProduceEach(within(t), "feedback", 0, append(msgs[:3:3], Message{Value: make([]byte, 2<<20)}, msgs[3]))
	if !tooLarge(err) || len(offsets) != 3 {
		t.Errorf("%d offsets, %v; want 3 and a refusal", len(offsets), err)
	}
}

func TestProduceTriesAgain(t *testing.T) {
	b, c := setup(t, "feedback", 1)
	b.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "feedback", Err: kerr.NotLeaderForPartition, Count: 3})
	if base := produce(t, c, "feedback", 0, values(0, 2)...); base != 0 {
		t.Errorf("base offset %d", base)
	}
	refusal := b.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "feedback", Err: kerr.TopicAuthorizationFailed, Count: -1})
	if _, err := c.Produce(within(t), "feedback", 0, values(0, 1)); !errors.Is(err, kafka.TopicAuthorizationFailed) {
		t.Errorf("error %v", err)
	}
	if refusal.Hits() != 1 {
		t.Errorf("a refusal for good was met %d times, want once", refusal.Hits())
	}
}

func TestRetriable(t *testing.T) {
	for err, want := range map[error]bool{
		kafka.NotLeaderForPartition: true, kafka.RequestTimedOut: true, kafka.NotEnoughReplicas: true,
		kafka.UnknownTopicOrPartition: true, kafka.BrokerNotAvailable: true, errors.New("connection reset"): true,
		kafka.MessageSizeTooLarge: false, kafka.TopicAuthorizationFailed: false, kafka.InvalidTopic: false,
		fmt.Errorf("dialing: %w", errClosed): false,
	} {
		if got := Retriable(fmt.Errorf("producing: %w", err)); got != want {
			t.Errorf("Retriable(%v) = %t", err, got)
		}
	}
}

func TestCommitIsSeenByLagTools(t *testing.T) {
	b, c := setup(t, "feedback", 2)
	ctx := within(t)
	eventually(t, "a commit", func() bool {
		return c.Commit(ctx, Membership{Group: "rebeca"}, map[string]map[int32]Committed{"feedback": {0: {Offset: 5}, 1: {Offset: 9}}}) == nil
	})
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group = "rebeca"
	group := kmsg.NewOffsetFetchRequestGroup()
	group.Group = "rebeca"
	req.Groups = append(req.Groups, group)
	resp, err := req.RequestWith(ctx, oracle(t, b))
	if err != nil {
		t.Fatal(err)
	}
	got := map[int32]int64{}
	for _, topic := range resp.Groups[0].Topics {
		for _, p := range topic.Partitions {
			got[p.Partition] = p.Offset
		}
	}
	if fmt.Sprint(got) != "map[0:5 1:9]" {
		t.Errorf("committed %v", got)
	}
}

func TestClosedClientFails(t *testing.T) {
	_, c := setup(t, "feedback", 1)
	c.Close()
	c.Close()
	if _, err := c.Produce(within(t), "feedback", 0, values(0, 1)); !errors.Is(err, errClosed) {
		t.Errorf("error %v", err)
	}
}

func TestStopIsQuick(t *testing.T) {
	const n = 8
	_, c := setup(t, "feedback", n)
	for i := range int32(n) {
		p := &Partition{Client: c, Topic: "feedback", ID: i, Start: Latest, Handler: &sink{}}
		stop := run(t, p)
		eventually(t, "the end", func() bool { _, at := p.End(); return !at.IsZero() })
		if err := stop(); err != nil {
			t.Errorf("stopping an idle partition: %v", err)
		}
	}
	// A handler under way is waited for and its context has ended.
	produce(t, c, "feedback", 0, values(0, 1)...)
	entered := make(chan struct{})
	p := &Partition{Client: c, Topic: "feedback", Start: Earliest, Handler: waiting{entered}}
	stop := run(t, p)
	<-entered
	if err := stop(); err != nil {
		t.Errorf("stopping a busy partition: %v", err)
	}
}

// waiting handles until it is told to stop.
type waiting struct{ entered chan struct{} }

func (w waiting) Handle(ctx context.Context, _ []Record, _ int64) error {
	close(w.entered)
	<-ctx.Done()
	return ctx.Err()
}

// secured starts a cluster with options that the development broker does not offer.
func secured(t *testing.T, opts ...kfake.Opt) string {
	t.Helper()
	cluster, err := kfake.NewCluster(append(opts, kfake.NumBrokers(1), kfake.SeedTopics(1, "feedback"))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster.ListenAddrs()[0]
}

func TestSASL(t *testing.T) {
	addr := secured(t, kfake.EnableSASL(),
		kfake.Superuser("PLAIN", "ann", "secret"), kfake.Superuser("SCRAM-SHA-256", "ann", "secret"), kfake.Superuser("SCRAM-SHA-512", "ann", "secret"))
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		for password, welcome := range map[string]bool{"secret": true, "wrong": false} {
			c, err := NewClient(Options{Brokers: []string{addr}, SASL: SASL{mechanism, "ann", password}})
			if err != nil {
				t.Fatal(err)
			}
			err = c.Ping(within(t))
			if welcome && err == nil {
				_, err = c.Produce(within(t), "feedback", 0, values(0, 1))
			}
			c.Close()
			switch {
			case welcome && err != nil:
				t.Errorf("%s: %v", mechanism, err)
			case !welcome && (err == nil || !strings.Contains(err.Error(), `refused user "ann" by `+mechanism)):
				t.Errorf("%s with a wrong password: %v", mechanism, err)
			case !welcome && strings.Contains(err.Error(), password+`"`):
				t.Errorf("%s: the password is in the error: %v", mechanism, err)
			}
		}
	}
	c, err := NewClient(Options{Brokers: []string{addr}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(within(t), 2*time.Second)
	defer cancel()
	if err := c.Ping(ctx); err == nil {
		t.Error("a client without a name was let in")
	}
}

func TestTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	addr := secured(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}))
	trusted := x509.NewCertPool()
	trusted.AddCert(certificate)
	ping := func(o Options) error {
		o.Brokers = []string{addr}
		c, err := NewClient(o)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(within(t), 3*time.Second)
		defer cancel()
		return c.Ping(ctx)
	}
	if err := ping(Options{TLSConfig: &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12}}); err != nil {
		t.Errorf("trusted: %v", err)
	}
	if err := ping(Options{TLS: true}); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("the system's pool trusts it: %v", err)
	}
	if err := ping(Options{}); err == nil {
		t.Error("no TLS got an answer")
	}
}

func TestEnsureTopics(t *testing.T) {
	b := startBroker(t, broker.Options{})
	c := newClient(t, b)
	want := []Topic{
		{Name: "items", Partitions: 4, Compacted: true},
		{Name: "feedback", Partitions: 4},
		{Name: "deadletter", Partitions: 4, Config: map[string]string{"max.message.bytes": "9437184"}},
		{Name: "prior", Partitions: 1, Compacted: true},
	}
	if err := CheckTopics(within(t), c, want); err == nil || !strings.Contains(err.Error(), "missing topics: items, feedback, deadletter, prior") {
		t.Errorf("checking an empty cluster: %v", err)
	}
	created, err := EnsureTopics(within(t), c, want, 0)
	if err != nil || fmt.Sprint(created) != "[items feedback deadletter prior]" {
		t.Fatalf("created %v, %v", created, err)
	}
	// At once usable, by the client that made them and by others.
	produce(t, c, "deadletter", 3, Message{Value: make([]byte, 8<<20)})
	produce(t, newClient(t, b), "prior", 0, values(0, 1)...)
	for range 2 {
		if created, err := EnsureTopics(within(t), c, want, 0); err != nil || len(created) != 0 {
			t.Errorf("again: created %v, %v", created, err)
		}
	}
	if err := CheckTopics(within(t), c, want); err != nil {
		t.Error(err)
	}
	for name, wrong := range map[string]Topic{
		"topic feedback has 4 partitions, want 8":                {Name: "feedback", Partitions: 8},
		"topic feedback has cleanup.policy delete, want compact": {Name: "feedback", Partitions: 4, Compacted: true},
		"topic items has cleanup.policy compact, want delete":    {Name: "items", Partitions: 4},
	} {
		both := []Topic{{Name: "new", Partitions: 1}, wrong}
		if _, err := EnsureTopics(within(t), c, both, 1); err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "\n") {
			t.Errorf("error %v, want one line with %q", err, name)
		}
		if b.Cluster().TopicInfo("new") != nil {
			t.Error("a topic was made beside one that is wrong")
		}
		if err := CheckTopics(within(t), c, both); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "missing topics: new") {
			t.Errorf("check: %v", err)
		}
	}
}

func TestTopicsMadeByOthersMeanwhileAreChecked(t *testing.T) {
	b := startBroker(t, broker.Options{})
	c := newClient(t, b)
	if err := b.Cluster().CreateTopic("feedback", 2, nil); err != nil {
		t.Fatal(err)
	}
	created, err := c.createTopics(within(t), []kafka.TopicConfig{Topic{Name: "feedback", Partitions: 2}.creation(0)})
	if err != nil || len(created) != 0 {
		t.Errorf("created %v, %v; want none and no error", created, err)
	}
	if err := c.awaitTopics(within(t), []Topic{{Name: "feedback", Partitions: 2}}); err != nil {
		t.Error(err)
	}
}

func TestDeletedTopicIsSeenDespiteTheCache(t *testing.T) {
	b, c := setup(t, "feedback", 2)
	want := []Topic{{Name: "feedback", Partitions: 2}}
	if err := CheckTopics(within(t), c, want); err != nil {
		t.Fatal(err)
	}
	if err := b.Cluster().DeleteTopic("feedback"); err != nil {
		t.Fatal(err)
	}
	if err := CheckTopics(within(t), c, want); err == nil {
		t.Error("a deleted topic passes")
	}
}
