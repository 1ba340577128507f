package rebeca

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"rebeca/consumer"
	"rebeca/internal/broker"
	"rebeca/prior"
	"rebeca/schemas"
	"rebeca/snapshot"
	"rebeca/table"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
		goleak.IgnoreAnyFunction("github.com/segmentio/kafka-go.(*connPool).discover"))
}

const testDim = 8

// stand is a broker with topics and a configuration to run services on.
type stand struct {
	t      *testing.T
	config Config
	client *consumer.Client
	free   func(string) (int64, error) // of the disk; nil is the real one
}

func newStand(t *testing.T) *stand { return newStandOf(t, 2) }

// newStandOf is a stand whose topics have the given number of partitions.
func newStandOf(t *testing.T, partitions int) *stand {
	t.Helper()
	b, err := broker.Start(broker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return standOver(t, b.Addr(), partitions)
}

// standOn is a stand on a running broker.
func standOn(t *testing.T, addr string) *stand { return standOver(t, addr, 2) }

func standOver(t *testing.T, addr string, partitions int) *stand {
	t.Helper()
	c := DefaultConfig()
	c.Kafka.Brokers = []string{addr}
	c.Kafka.Partitions = partitions
	c.State.Dir = t.TempDir()
	c.Prior = PriorConfig{Kind: "auto", Dim: testDim, Hidden: 16, Blocks: 1, Heads: 2}
	c.Train.BirthSteps, c.Train.IdleSteps = 100, 0
	c.HTTP.Listen = "127.0.0.1:0"
	s := &stand{t: t, config: c}
	var err error
	if s.client, err = c.NewClient(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.client.Close() })
	if _, err := consumer.EnsureTopics(t.Context(), s.client, c.WantedTopics(), 1); err != nil {
		t.Fatal(err)
	}
	return s
}

// serve runs a service until stop is called, which fails the test on an error.
func (s *stand) serve() (svc *Service, stop func()) {
	s.t.Helper()
	return s.serveWith(Options{Free: s.free})
}

func (s *stand) serveWith(o Options) (svc *Service, stop func()) {
	s.t.Helper()
	svc, stop = s.startWith(o)
	soon, over := context.WithTimeout(s.t.Context(), 60*time.Second)
	defer over()
	if !poll(soon, 10*time.Millisecond, func() bool { return len(svc.Ready()) == 0 }) {
		s.t.Fatalf("not ready after a minute: %v", svc.Ready())
	}
	return svc, stop
}

// startWith runs a service that need not become ready.
func (s *stand) startWith(o Options) (svc *Service, stop func()) {
	s.t.Helper()
	o.Logger, o.Registry = slog.New(slog.NewTextHandler(io.Discard, nil)), prometheus.NewRegistry()
	svc = New(s.config, o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- svc.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				s.t.Errorf("the service ended with %v", err)
			}
		case <-time.After(30 * time.Second):
			s.t.Error("the service does not stop")
		}
	}
	s.t.Cleanup(stop)
	select {
	case <-svc.Serving():
	case err := <-done:
		s.t.Fatalf("the service did not start: %v", err)
	}
	return svc, stop
}

func (s *stand) until(what string, done func() bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 60*time.Second)
	defer cancel()
	if !poll(ctx, 10*time.Millisecond, done) {
		s.t.Fatalf("not %s after a minute", what)
	}
}

func (s *stand) produce(topic string, key, value []byte) schemas.Position {
	s.t.Helper()
	return s.produceTo(topic, schemas.Partition(key, s.config.Kafka.Partitions), key, value)
}

func (s *stand) produceTo(topic string, p int32, key, value []byte) schemas.Position {
	s.t.Helper()
	at, err := s.client.Produce(s.t.Context(), topic, p, []consumer.Message{{Key: key, Value: value, Time: time.Now()}})
	if err != nil {
		s.t.Fatal(err)
	}
	return schemas.Position{Partition: p, Offset: at}
}

// item is in one of four corners.
func (s *stand) items(n int) {
	for i := range n {
		e := make([]float32, testDim)
		rng := rand.New(rand.NewPCG(1, uint64(i)))
		for d := range e {
			e[d] = float32(rng.NormFloat64() * .2)
		}
		e[i%4] += 2
		v, err := schemas.Item{ItemID: fmt.Sprintf("item-%d", i), Embedding: e}.Encode()
		if err != nil {
			s.t.Fatal(err)
		}
		s.produce("items", fmt.Appendf(nil, "item-%d", i), v)
	}
}

func (s *stand) feedback(f schemas.Feedback) schemas.Position {
	s.t.Helper()
	if f.OccurredAt.IsZero() {
		f.OccurredAt = time.Now()
	}
	v, err := f.Encode()
	if err != nil {
		s.t.Fatal(err)
	}
	return s.produce("feedback", []byte(f.UserID), v)
}

// crowd sends n events of ten users who each like one corner.
func (s *stand) crowd(run string, n int) {
	for i := range n {
		user, item := i%10, rand.New(rand.NewPCG(2, uint64(i))).IntN(300)
		kind := schemas.KindSkip
		if item%4 == user%4 {
			kind = schemas.KindLike
		}
		s.feedback(schemas.Feedback{
			EventID: fmt.Sprintf("%s-%d", run, i), UserID: fmt.Sprintf("user-%d", user), ItemID: fmt.Sprintf("item-%d", item), Kind: kind,
		})
	}
}

// at returns the record of a topic at a position.
func (s *stand) at(topic string, p schemas.Position) consumer.Record {
	s.t.Helper()
	for _, r := range s.read(topic) {
		if r.Partition == p.Partition && r.Offset == p.Offset {
			return consumer.Record{Offset: r.Offset, Time: r.Timestamp, Key: r.Key, Value: r.Value}
		}
	}
	s.t.Fatalf("%s[%d] has no record at %d", topic, p.Partition, p.Offset)
	return consumer.Record{}
}

// read returns all committed records of a topic as another client library sees
// them.
func (s *stand) read(topic string) []*kgo.Record {
	s.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.config.Kafka.Brokers...), kgo.ConsumeTopics(topic), kgo.KeepControlRecords(),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		s.t.Fatal(err)
	}
	defer cl.Close()
	left := map[int32]int64{} // ends of the partitions that are not read yet
	for _, t := range s.config.WantedTopics() {
		for p := range int32(t.Partitions) {
			if t.Name != topic {
				continue
			}
			_, end, err := s.client.Offsets(s.t.Context(), topic, p)
			if err != nil {
				s.t.Fatal(err)
			}
			if end > 0 {
				left[p] = end
			}
		}
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	var out []*kgo.Record
	for len(left) > 0 {
		f := cl.PollFetches(ctx)
		if err := f.Err(); err != nil {
			s.t.Fatalf("reading %s, %d records, then up to %v: %v", topic, len(out), left, err)
		}
		for _, r := range f.Records() {
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
			if !r.Attrs.IsControl() {
				out = append(out, r)
			}
		}
	}
	return out
}

// generated returns the records of the topic by id and fails on an id that
// stands twice.
func (s *stand) generated() map[string]schemas.Generated {
	s.t.Helper()
	out := map[string]schemas.Generated{}
	for _, r := range s.read("generated") {
		g, err := schemas.DecodeGenerated(r.Value)
		if err != nil {
			s.t.Fatalf("generated[%d] at %d: %v", r.Partition, r.Offset, err)
		}
		if _, ok := out[g.ID]; ok {
			s.t.Errorf("id %s is published twice", g.ID)
		}
		if string(r.Key) != g.UserID {
			s.t.Errorf("id %s of user %q has the key %q", g.ID, g.UserID, r.Key)
		}
		out[g.ID] = g
	}
	return out
}

func atRest(svc *Service) func() bool {
	return func() bool {
		l := svc.Status().Lag
		return l.Fold != nil && *l.Fold == 0 && *l.Publish == 0 && l.Train != nil && *l.Train == 0
	}
}

// TestFeedbackBecomesImages is the whole path: a catalogue, a crowd, a first
// version, images of feedback and of requests, a restart that goes on.
func TestFeedbackBecomesImages(t *testing.T) {
	s := newStand(t)
	s.items(300)
	svc, stop := s.serve()
	s.crowd("a", 400)
	s.until("at rest", func() bool { return svc.Status().EventsFolded == 400 && atRest(svc)() })
	st := svc.Status()
	if st.PriorVersion == "" || st.Users != 10 || st.Step < 50 {
		t.Errorf("status at rest is %+v", st)
	}
	got := s.generated()
	for id, g := range got {
		if want := schemas.ID(g.Source, 0); g.Trigger == schemas.TriggerFeedback && id != want {
			t.Errorf("id is %s, its source gives %s", id, want)
		}
		if g.AsOf.Offset < g.Source.Offset || g.AsOf.Partition != g.Source.Partition || g.Seed != schemas.Seed(g.ID) {
			t.Errorf("provenance does not hold together: %+v", g)
		}
	}
	seen := map[string]bool{}
	for _, g := range got {
		seen[g.UserID] = true
	}
	if len(seen) != 10 {
		t.Errorf("%d of 10 people got an image", len(seen))
	}
	vectors := map[string]bool{}
	for _, r := range s.read("vectors") {
		v, err := schemas.DecodeVector(r.Value)
		if err != nil {
			t.Fatal(err)
		}
		vectors[v.UserID] = true
	}
	if len(vectors) != 10 {
		t.Errorf("%d of 10 people have a vector", len(vectors))
	}
	before, digest := st.Step, mustDigest(t, svc)
	stop()

	svc, stop = s.serve()
	if d := mustDigest(t, svc); d != digest {
		t.Errorf("facts changed over a restart: %s, were %s", d, digest)
	}
	if got := svc.trainer.Status().Step; got != before {
		t.Errorf("the trainer goes on at step %d, was at %d", got, before)
	}
	s.crowd("a", 50) // all resent: the newest ids of each user are remembered
	s.crowd("b", 100)
	s.until("at rest again", func() bool { return svc.Status().EventsFolded == 100 && atRest(svc)() })
	if n := svc.metrics.duplicatesN.Load(); n != 50 {
		t.Errorf("%d duplicates, 50 were sent", n)
	}
	if after := s.generated(); len(after) <= len(got) {
		t.Errorf("%d images after the restart, %d before", len(after), len(got))
	}
	stop()
}

func mustDigest(t *testing.T, svc *Service) string {
	t.Helper()
	d, err := svc.table.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestImagesFollowTheWindow asks for images of two people with opposite likes.
func TestImagesFollowTheWindow(t *testing.T) {
	s := newStand(t)
	s.config.Train.Steps = 16 // the test's events are few
	s.config.Prior.Hidden, s.config.Prior.Blocks = 32, 2
	s.items(300)
	svc, _ := s.serve()
	s.crowd("a", 1200)
	s.until("at rest", func() bool { return svc.Status().EventsFolded == 1200 && atRest(svc)() })
	for _, user := range []int{0, 1, 2, 3} {
		resp := s.post(svc, fmt.Sprintf("/v1/users/user-%d/generate", user), `{"count":32,"request_id":"r1"}`, 200)
		var body struct{ Items []json.RawMessage }
		if err := json.Unmarshal(resp, &body); err != nil {
			t.Fatal(err)
		}
		hits := 0
		for _, raw := range body.Items {
			g, err := schemas.DecodeGenerated(raw)
			if err != nil {
				t.Fatal(err)
			}
			best := 0
			for d := range 4 {
				if g.Embedding[d] > g.Embedding[best] {
					best = d
				}
			}
			if best == user {
				hits++
			}
		}
		if len(body.Items) != 32 || hits < 20 { // 8 by chance
			t.Errorf("user-%d: %d of %d images are in the liked corner", user, hits, len(body.Items))
		}
	}
	again := s.post(svc, "/v1/users/user-0/generate", `{"count":32,"request_id":"r1"}`, 200)
	first := s.post(svc, "/v1/users/user-0/generate", `{"count":32,"request_id":"r1"}`, 200)
	if !bytes.Equal(again, first) {
		t.Error("the same request id is answered differently")
	}
	n := 0
	for _, g := range s.generated() {
		if g.UserID == "user-0" && g.RequestID == "r1" {
			n++
		}
	}
	if n != 32 {
		t.Errorf("%d images published for a request of 32 that was sent three times", n)
	}
}

func (s *stand) post(svc *Service, path, body string, want int) []byte {
	s.t.Helper()
	resp, err := http.Post(svc.URL()+path, "application/json", strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	if resp.StatusCode != want {
		s.t.Fatalf("POST %s: %s: %s", path, resp.Status, b)
	}
	return b
}

// TestBadRecordsAreDeadLetters sends one record of each kind of fault among
// good ones: each comes back on the dead-letter topic with its bytes and
// reason, the rest is folded.
func TestBadRecordsAreDeadLetters(t *testing.T) {
	s := newStand(t)
	svc, _ := s.serve()
	now := time.Now().UTC().Format(time.RFC3339)
	event := func(edit string) string {
		return fmt.Sprintf(`{"event_id":"e","user_id":"u","item_id":"i","kind":"like","occurred_at":"%s"%s}`, now, edit)
	}
	own := schemas.Partition([]byte("u"), 2)
	cases := []struct {
		name, topic, key, value string
		partition               int32
		reason                  schemas.Reason
	}{
		{"not json", "feedback", "u", `{"event_id":`, own, schemas.ReasonBadJSON},
		{"wrong type", "feedback", "u", `{"event_id":5,"user_id":"u","item_id":"i","kind":"like","occurred_at":"` + now + `"}`, own, schemas.ReasonBadType},
		{"missing id", "feedback", "u", `{"user_id":"u","item_id":"i","kind":"like","occurred_at":"` + now + `"}`, own, schemas.ReasonMissingField},
		{"unknown kind", "feedback", "u", strings.Replace(event(""), "like", "stare", 1), own, schemas.ReasonUnknownKind},
		{"rating out of range", "feedback", "u", strings.Replace(event(`,"value":6`), "like", "rating", 1), own, schemas.ReasonBadValue},
		{"1970", "feedback", "u", strings.Replace(event(""), now, "1970-01-01T00:00:00Z", 1), own, schemas.ReasonBadTime},
		{"2100", "feedback", "u", strings.Replace(event(""), now, "2100-01-01T00:00:00Z", 1), own, schemas.ReasonBadTime},
		{"5 MiB", "feedback", "u", event(`,"pad":"` + strings.Repeat("x", 5<<20) + `"`), own, schemas.ReasonTooLarge},
		{"empty key", "feedback", "", event(""), 0, schemas.ReasonEmptyKey},
		{"key of another", "feedback", "w", event(""), schemas.Partition([]byte("w"), 2), schemas.ReasonKeyMismatch},
		{"wrong partition", "feedback", "u", event(""), 1 - own, schemas.ReasonWrongPartition},
		{"NaN", "items", "i", `{"item_id":"i","embedding":[NaN,1,1,1,1,1,1,1]}`, 0, schemas.ReasonBadJSON},
		{"dimensions", "items", "i", `{"item_id":"i","embedding":[1,2]}`, 0, schemas.ReasonBadEmbedding},
		{"count", "requests", "u", `{"request_id":"r","user_id":"u","count":0}`, own, schemas.ReasonBadCount},
		{"no decoder", "requests", "u", `{"request_id":"r","user_id":"u","count":1,"images":true}`, own, schemas.ReasonNoDecoder},
		{"after", "requests", "u", fmt.Sprintf(`{"request_id":"r","user_id":"u","count":1,"after":{"partition":%d,"offset":0}}`, 1-own), own, schemas.ReasonBadAfter},
	}
	for i, c := range cases {
		s.produceTo(c.topic, c.partition, []byte(c.key), []byte(c.value))
		s.feedback(schemas.Feedback{EventID: fmt.Sprint("good-", i), UserID: "u", ItemID: "i", Kind: schemas.KindLike})
	}
	s.until("drained", func() bool {
		l := svc.Status().Lag
		return svc.Status().EventsFolded == uint64(len(cases)) && *l.Publish == 0 && svc.metrics.deadN.Load() == uint64(len(cases))
	})
	found := map[string]string{} // reason by bytes
	for _, r := range s.read("deadletter") {
		for _, h := range r.Headers {
			if h.Key == table.HeaderReason {
				found[string(r.Key)+"\x00"+string(r.Value)] = string(h.Value)
			}
		}
	}
	for _, c := range cases {
		if got := found[c.key+"\x00"+c.value]; got != string(c.reason) {
			t.Errorf("%s: the dead letter's reason is %q, want %q", c.name, got, c.reason)
		}
	}
}

// TestUnknownItemsCountWhenTheyArrive folds feedback on an item before the
// item is there.
func TestUnknownItemsCountWhenTheyArrive(t *testing.T) {
	s := newStand(t)
	svc, _ := s.serve()
	s.feedback(schemas.Feedback{EventID: "1", UserID: "u", ItemID: "item-0", Kind: schemas.KindLike})
	s.until("folded", func() bool { return svc.Status().EventsFolded == 1 })
	entries := func() int {
		row, _, err := svc.table.User("u")
		if err != nil {
			t.Fatal(err)
		}
		context, masked := svc.table.Context(row)
		if len(context)+masked != 1 {
			t.Fatalf("%d entries and %d masked", len(context), masked)
		}
		return len(context)
	}
	if entries() != 0 {
		t.Error("an entry without an embedding is read")
	}
	s.items(1)
	s.until("listed", func() bool { return svc.table.Catalogue().Len() == 1 })
	if entries() != 1 {
		t.Error("the entry is still masked after its item arrived")
	}
}

// TestIntentsSurvive writes intents as a service would that dies before it
// generates: the next one makes each image, once, under the same id.
func TestIntentsSurvive(t *testing.T) {
	s := newStand(t)
	s.items(300)
	svc, stop := s.serve()
	s.crowd("a", 300)
	s.until("at rest", func() bool { return svc.Status().EventsFolded == 300 && atRest(svc)() })
	stop()
	before := s.generated()
	source := s.feedback(schemas.Feedback{EventID: "last", UserID: "user-3", ItemID: "item-3", Kind: schemas.KindLike})

	tb, err := table.Open(s.config.TableOptions(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	f := schemas.Feedback{EventID: "last", UserID: "user-3", ItemID: "item-3", Kind: schemas.KindLike, OccurredAt: time.Now()}
	last := s.at("feedback", source)
	folded, err := tb.Fold(table.Batch{
		Topic: "feedback", Partition: source.Partition, Next: source.Offset + 1, IntentCount: 1,
		Records: []table.Record{{Offset: last.Offset, Time: last.Time, Key: last.Key, Feedback: &f, Fingerprint: last.Fingerprint()}},
	})
	if err != nil || len(folded.Intents) != 1 {
		t.Fatalf("folding wrote %d intents: %v", len(folded.Intents), err)
	}
	if err := tb.Close(); err != nil {
		t.Fatal(err)
	}
	id := schemas.ID(schemas.Source{Topic: "feedback", Partition: source.Partition, Offset: source.Offset}, 0)
	for range 2 {
		svc, stop = s.serve()
		s.until("published", func() bool { return *svc.Status().Lag.Publish == 0 && svc.Status().PriorVersion != "" })
		stop()
	}
	after := s.generated()
	if _, ok := after[id]; !ok || len(after) != len(before)+1 {
		t.Errorf("%d images after, %d before, the intent's own is there: %t", len(after), len(before), ok)
	}
}

// TestForget writes the null record.
func TestForget(t *testing.T) {
	s := newStand(t)
	svc, _ := s.serve()
	s.feedback(schemas.Feedback{EventID: "1", UserID: "u", ItemID: "i", Kind: schemas.KindLike, OccurredAt: time.Now().Add(-time.Hour)})
	s.until("folded", func() bool { return svc.table.UserCount() == 1 })
	s.produce("feedback", []byte("u"), nil)
	s.until("forgotten", func() bool { _, ok, err := svc.table.User("u"); return !ok && err == nil })
	s.feedback(schemas.Feedback{EventID: "2", UserID: "u", ItemID: "i", Kind: schemas.KindLike, OccurredAt: time.Now().Add(-time.Hour)})
	s.feedback(schemas.Feedback{EventID: "3", UserID: "u", ItemID: "i", Kind: schemas.KindLike, OccurredAt: time.Now().Add(time.Minute)})
	s.until("begun anew", func() bool { row, ok, _ := svc.table.User("u"); return ok && row.Events == 1 })
	s.until("told", func() bool { return *svc.Status().Lag.Publish == 0 })
	vectors := s.read("vectors")
	if len(vectors) == 0 || vectors[0].Value != nil || string(vectors[0].Key) != "u" {
		t.Errorf("vectors has %d records and no tombstone first", len(vectors))
	}
}

// TestStartErrors holds the one clear line of each cause.
func TestStartErrors(t *testing.T) {
	s := newStand(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	locked := t.TempDir()
	other := s.config
	other.State.Dir = locked
	tb, err := table.Open(other.TableOptions(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	defer tb.Close()
	grown := t.TempDir()
	bigger := s.config
	bigger.State.Dir, bigger.Prior.Dim = grown, 9
	tb9, err := table.Open(bigger.TableOptions(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	tb9.Close()
	for _, c := range []struct {
		name string
		edit func(*Config)
		want []string
	}{
		{"no broker", func(c *Config) { c.Kafka.Brokers = []string{gone.Addr().String()} }, []string{"kafka.brokers", gone.Addr().String()}},
		{"missing topic", func(c *Config) { c.Kafka.Topics.Vectors = "elsewhere" }, []string{"elsewhere", "topics create"}},
		{"other partitions", func(c *Config) { c.Kafka.Partitions = 3 }, []string{"2", "3", "partitions"}},
		{"port taken", func(c *Config) { c.HTTP.Listen = taken.Addr().String() }, []string{"http.listen", taken.Addr().String()}},
		{"no token", func(c *Config) { c.HTTP.Listen = "0.0.0.0:0" }, []string{"http.listen", "token"}},
		{"locked", func(c *Config) { c.State.Dir = locked }, []string{"state.dir", locked, "another process"}},
		{"other dim", func(c *Config) { c.State.Dir = grown }, []string{"state.dir", "dimension"}},
		{"no library", func(c *Config) { c.ONNXRuntime.Library = "/nowhere/libonnxruntime.so" }, []string{"/nowhere/libonnxruntime.so"}},
		{"no device", func(c *Config) { c.ONNXRuntime.Provider = "cuda" }, []string{"onnxruntime.provider", "cuda", "NVIDIA"}},
		{"no decoder", func(c *Config) { c.Decoder.Manifest = "/nowhere/manifest.json" }, []string{"decoder.manifest", "/nowhere"}},
		{"decoder of another dim", func(c *Config) { c.Decoder.Manifest = "shapes" }, []string{"decoder.manifest", "16", "8"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := s.config
			c.edit(&config)
			svc := New(config, Options{Logger: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry()})
			err := svc.Run(t.Context())
			if err == nil {
				t.Fatal("it started")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("the error does not name %q: %v", w, err)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("the error is more than a line: %v", err)
			}
		})
	}
}

// TestMissingPrior announces bytes that are not there, and bytes of another
// dimension.
func TestMissingPrior(t *testing.T) {
	dir := t.TempDir()
	stats := prior.NewStats([][]float32{make([]float32, 4), {1, 2, 3, 4}})
	st, err := prior.NewState(prior.DefaultConfig(4), stats, 1)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := st.Save(dir + "/1.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	tabled := prior.Config{Kind: "reference", Dim: 8, Hidden: 8, Blocks: 1, Heads: 2, Tokens: 2, Users: 3, MaxTokens: 1, Contexts: 1, Targets: 1, Timesteps: 10}
	if st, err = prior.NewState(tabled, prior.Stats{Mean: make([]float32, 8), Scale: []float32{1, 1, 1, 1, 1, 1, 1, 1}}, 1); err != nil {
		t.Fatal(err)
	}
	tabledSum, err := st.Save(dir + "/3.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		v    schemas.PriorVersion
		want error
	}{
		{"other kind", schemas.PriorVersion{Version: "3-abc", URI: dir + "/3.safetensors", SHA256: tabledSum}, ErrPriorKind},
		{"missing", schemas.PriorVersion{Version: "1-abc", URI: dir + "/2.safetensors", SHA256: sum}, ErrPriorMissing},
		{"other bytes", schemas.PriorVersion{Version: "1-abc", URI: dir + "/1.safetensors", SHA256: strings.Repeat("0", 64)}, ErrPriorMissing},
		{"other store", schemas.PriorVersion{Version: "1-abc", URI: "s3://bucket/1", SHA256: sum}, ErrPriorMissing},
		{"other dim", schemas.PriorVersion{Version: "1-abc", URI: dir + "/1.safetensors", SHA256: sum}, ErrPriorDim},
	} {
		_, err := loadPrior(c.v, dir, prior.DefaultConfig(8), testRuntime(t))
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// TestSnapshotContinues restores a snapshot of a running service elsewhere and
// goes on from it: the facts are the same, then and after the same tail.
func TestSnapshotContinues(t *testing.T) {
	s := newStand(t)
	s.items(300)
	svc, stop := s.serve()
	s.crowd("a", 300)
	s.until("at rest", func() bool { return svc.Status().EventsFolded == 300 && atRest(svc)() })
	m, err := SnapshotRunning(t.Context(), s.listening(svc), nil)
	if err != nil {
		t.Fatal(err)
	}
	s.crowd("b", 100)
	s.until("at rest", func() bool { return svc.Status().EventsFolded == 400 && atRest(svc)() })
	digest := mustDigest(t, svc)
	var lines bytes.Buffer
	if err := InspectRunning(t.Context(), s.listening(svc), "users", &lines); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(lines.String(), "\n"); n != 10 {
		t.Errorf("inspecting the running service shows %d of 10 users", n)
	}
	stop()
	path := s.config.SnapshotDir() + "/" + m.Name

	s.config.State.Dir = t.TempDir()
	if _, err := RestoreSnapshot(t.Context(), s.config, path, slog.New(slog.DiscardHandler), snapshot.Options{}); err != nil {
		t.Fatal(err)
	}
	svc, stop = s.serve()
	s.until("at rest", atRest(svc))
	if got := mustDigest(t, svc); got != digest || svc.Status().EventsFolded != 100 {
		t.Errorf("restored and caught up by %d events: digest %s, want %s by 100", svc.Status().EventsFolded, got, digest)
	}
	stop()
	samples, err := s.sample("user-1")
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.sample("user-1")
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(samples) != fmt.Sprint(again) || len(samples) != 4 {
		t.Error("the same seed gives other samples")
	}
}

// listening is the configuration with the address the service listens on.
func (s *stand) listening(svc *Service) Config {
	c := s.config
	c.HTTP.Listen = svc.server.Addr()
	s.t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return c
}

func (s *stand) sample(user string) ([]Sampled, error) {
	tb, err := table.Open(s.config.TableOptions(slog.New(slog.DiscardHandler)))
	if err != nil {
		return nil, err
	}
	defer tb.Close()
	return SampleUser(s.t.Context(), s.config, tb, user, 4, 7, nil, slog.New(slog.DiscardHandler))
}

// TestRolesApart runs worker and trainer as two processes would, each with its
// own state: the worker samples with what the trainer announces, and a bad
// record is one dead letter.
func TestRolesApart(t *testing.T) {
	s := newStand(t)
	s.items(300)
	worker, trainer := *s, *s
	worker.config.Roles, trainer.config.Roles = []string{RoleWorker}, []string{RoleTrainer}
	trainer.config.State.Dir = t.TempDir()
	w, stopWorker := worker.serve()
	tr, stopTrainer := trainer.serve()
	s.crowd("a", 300)
	s.produce("feedback", []byte("user-1"), []byte("{"))
	s.until("learned", func() bool { l := tr.Status().Lag; return l.Train != nil && *l.Train == 0 })
	s.until("published", func() bool {
		st := w.Status()
		return st.PriorVersion != "" && st.EventsFolded == 300 && *st.Lag.Fold == 0 && *st.Lag.Publish == 0
	})
	if l := w.Status().Lag; l.Train != nil {
		t.Errorf("a worker alone is %d events behind in training", *l.Train)
	}
	if a, b := mustDigest(t, w), mustDigest(t, tr); a != b {
		t.Errorf("the same log folds to %s and %s", a, b)
	}
	stopTrainer()
	stopWorker()
	if n := len(s.read("deadletter")); n != 1 {
		t.Errorf("one bad record makes %d dead letters", n)
	}
	if len(s.generated()) == 0 {
		t.Error("no images")
	}
}

// TestNothingIsKeptOfRequestsNobodyAwaits sends requests by Kafka.
func TestNothingIsKeptOfRequestsNobodyAwaits(t *testing.T) {
	s := newStand(t)
	s.items(300)
	svc, _ := s.serve()
	s.until("a prior is there", func() bool { return svc.Status().PriorVersion != "" })
	for i := range 3 {
		v, err := schemas.Request{RequestID: fmt.Sprint("r", i), UserID: "u", Count: 40}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		s.produce("requests", []byte("u"), v)
	}
	s.until("answered", func() bool { return svc.Status().Generated == 120 })
	svc.door.mu.Lock()
	n := len(svc.door.answers.by)
	svc.door.mu.Unlock()
	if n != 0 {
		t.Errorf("%d answers are kept that nobody awaits", n)
	}
	body := s.post(svc, "/v1/users/u/generate", `{"request_id":"r1","count":50}`, 200)
	var got struct{ Items []json.RawMessage }
	if err := json.Unmarshal(body, &got); err != nil || len(got.Items) != 40 {
		t.Errorf("a request that was answered with 40 images is recalled with %d: %v", len(got.Items), err)
	}
}

// TestBrokerAway stops the broker under a running service: /readyz says so, and
// turns back when the broker does; what was sent meanwhile is not lost.
func TestBrokerAway(t *testing.T) {
	data := t.TempDir()
	b, err := broker.Start(broker.Options{DataDir: data})
	if err != nil {
		t.Fatal(err)
	}
	s := standOn(t, b.Addr())
	svc, _ := s.serve()
	s.feedback(schemas.Feedback{EventID: "1", UserID: "u", ItemID: "i", Kind: schemas.KindLike})
	s.until("folded", func() bool { return svc.Status().EventsFolded == 1 })
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	s.until("not ready", func() bool {
		reasons := svc.Ready()
		return len(reasons) == 1 && reasons[0].Code == "broker_unavailable"
	})
	if b, err = broker.Start(broker.Options{Listen: s.config.Kafka.Brokers[0], DataDir: data}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	s.until("ready again", func() bool { return len(svc.Ready()) == 0 })
	s.feedback(schemas.Feedback{EventID: "2", UserID: "u", ItemID: "i", Kind: schemas.KindLike})
	s.until("folded again", func() bool { return svc.Status().EventsFolded == 2 })
}
