package broker

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, o Options) *Broker {
	t.Helper()
	b, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func client(t *testing.T, b *Broker, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(append(opts, kgo.SeedBrokers(b.Addr()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func createTopic(t *testing.T, c *kgo.Client, name string) {
	t.Helper()
	req := kmsg.NewPtrCreateTopicsRequest()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, 2, -1
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(within(t), c)
	if err != nil {
		t.Fatal(err)
	}
	if code := resp.Topics[0].ErrorCode; code != 0 {
		t.Fatalf("creating %s: error code %d", name, code)
	}
}

func TestDataIsKeptOverReopening(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "dir")
	b := start(t, Options{DataDir: dir})
	addr := b.Addr()
	c := client(t, b)
	createTopic(t, c, "feedback")
	for i := range 10 {
		r := &kgo.Record{Topic: "feedback", Key: []byte("u"), Value: fmt.Appendf(nil, "event %d", i)}
		if err := c.ProduceSync(within(t), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}

	b = start(t, Options{Listen: addr, DataDir: dir})
	if b.Addr() != addr {
		t.Fatalf("reopened on %s, want %s", b.Addr(), addr)
	}
	c = client(t, b, kgo.ConsumeTopics("feedback"))
	var got []string
	for len(got) < 10 {
		f := c.PollFetches(within(t))
		if err := f.Err(); err != nil {
			t.Fatal(err)
		}
		f.EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
	}
	for i, v := range got {
		if want := fmt.Sprintf("event %d", i); v != want {
			t.Errorf("record %d is %q, want %q", i, v, want)
		}
	}
}

func TestTopicsAreNotMadeByBeingNamed(t *testing.T) {
	b := start(t, Options{})
	c := client(t, b, kgo.AllowAutoTopicCreation(), kgo.UnknownTopicRetries(1), kgo.RecordDeliveryTimeout(3*time.Second))
	err := c.ProduceSync(within(t), &kgo.Record{Topic: "nobody-made-it", Value: []byte("x")}).FirstErr()
	if err == nil {
		t.Fatal("a record went to a topic that nobody made")
	}
	if info := b.Cluster().TopicInfo("nobody-made-it"); info != nil {
		t.Fatalf("the topic exists: %+v", info)
	}
}

func TestOneBrokerPerDirectory(t *testing.T) {
	dir := t.TempDir()
	first := start(t, Options{DataDir: dir})
	second, err := Start(Options{DataDir: dir})
	if err == nil {
		_ = second.Close()
		t.Fatal("two brokers share a directory")
	}
	if !strings.Contains(err.Error(), dir+" is in use by another broker") || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q, want one line with the directory", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	start(t, Options{DataDir: dir})
}

func TestStartRefusesInOneLine(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		o    Options
		want string
	}{
		"port taken":      {Options{Listen: taken.Addr().String()}, "is taken by another process"},
		"bad address":     {Options{Listen: "127.0.0.1"}, "missing port"},
		"data not a dir":  {Options{DataDir: file}, file},
		"port and memory": {Options{Listen: taken.Addr().String(), DataDir: t.TempDir()}, taken.Addr().String()},
	} {
		b, err := Start(c.o)
		if err == nil {
			_ = b.Close()
			t.Errorf("%s: started", name)
			continue
		}
		if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %q, want one line with %q", name, err, c.want)
		}
	}
}

// Clients are sent to the address that is advertised, and the broker itself to none: it ends what a killed one left all the same.
func TestAdvertise(t *testing.T) {
	b := start(t, Options{Advertise: "broker.test:19092", DataDir: t.TempDir()})
	c := client(t, b)
	resp, err := kmsg.NewPtrMetadataRequest().RequestWith(within(t), c)
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Brokers) != 1 || resp.Brokers[0].Host != "broker.test" || resp.Brokers[0].Port != 19092 {
		t.Errorf("the broker says that it is %+v", resp.Brokers)
	}
	if host, _, err := net.SplitHostPort(b.Addr()); err != nil || host != "127.0.0.1" {
		t.Errorf("it listens on %s", b.Addr())
	}
}
