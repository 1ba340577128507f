package rebeca

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rebeca/consumer"
	"rebeca/schemas"
	"rebeca/table"
)

// writer makes of a feedback's JSON what a producer of an encoding sends.
type writer struct {
	name  string
	write func(text []byte) ([]schemas.Header, []byte)
}

func writers(testing.TB) []writer {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	return []writer{
		{"JSON", func(text []byte) ([]schemas.Header, []byte) { return nil, text }},
		{"CloudEvents, binary", func(text []byte) ([]schemas.Header, []byte) {
			return schemas.CloudEvent("like", "n", "/shop", at, "application/json"), text
		}},
		{"CloudEvents, structured", func(text []byte) ([]schemas.Header, []byte) {
			return []schemas.Header{{Key: "content-type", Value: []byte("application/cloudevents+json")}},
				fmt.Appendf(nil, `{"specversion":"1.0","id":"n","source":"/shop","type":"like","data":%s}`, text)
		}},
	}
}

// stream is feedback of some users with resends, in the order of the log.
func stream(n int) (out []schemas.Feedback) {
	rng := rand.New(rand.NewPCG(6, 10))
	kinds := schemas.Kinds()
	for i := range n {
		if i > 0 && rng.IntN(4) == 0 {
			out = append(out, out[rng.IntN(i)]) // a resend, most of them soon
			continue
		}
		f := schemas.Feedback{
			EventID: fmt.Sprint("e-", i), UserID: fmt.Sprint("user ", rng.IntN(12)), ItemID: fmt.Sprint("ítem/", rng.IntN(90)),
			Kind: kinds[rng.IntN(len(kinds))], OccurredAt: time.Date(2026, 1, 5, 10, 0, i, rng.IntN(1e6)*1e3, time.UTC),
		}
		if f.Kind == schemas.KindRating || f.Kind == schemas.KindView {
			value := float64(1+rng.IntN(9)) / 2
			f.Value = &value
			*f.Value = max(1, *f.Value)
		}
		out = append(out, f)
	}
	return out
}

// refold folds a stream, each record written by the writer that choose gives, in batches of the given size.
func refold(t *testing.T, reg *registry, events []schemas.Feedback, batch int, choose func(i int) writer) (digest string, m *metrics) {
	t.Helper()
	c := DefaultConfig()
	c.Kafka.Partitions, c.Prior.Dim, c.State.Dir = 2, testDim, t.TempDir()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	tab, err := table.Open(c.TableOptions(log))
	if err != nil {
		t.Fatal(err)
	}
	defer tab.Close()
	m = newMetrics(prometheus.NewRegistry())
	w := replayer(c, tab, m, log)
	w.registry = reg
	records := make([][]consumer.Record, c.Kafka.Partitions)
	for i, f := range events {
		text, err := f.Encode()
		if err != nil {
			t.Fatal(err)
		}
		p := schemas.Partition([]byte(f.UserID), c.Kafka.Partitions)
		r := consumer.Record{Topic: "feedback", Partition: p, Offset: int64(len(records[p])), Time: f.OccurredAt, Key: []byte(f.UserID)}
		r.Headers, r.Value = choose(i).write(text)
		records[p] = append(records[p], r)
	}
	for p, rs := range records {
		for len(rs) > 0 {
			part := rs[:min(batch, len(rs))]
			rs = rs[len(part):]
			if err := w.foldFeedback(int32(p))(t.Context(), part, part[len(part)-1].Offset+1); err != nil {
				t.Fatal(err)
			}
		}
	}
	if digest, err = tab.Digest(); err != nil {
		t.Fatal(err)
	}
	return digest, m
}

// TestEncodingsGiveTheSameFacts folds one stream in each encoding and in all of them mixed, so that an event comes again in another one.
func TestEncodingsGiveTheSameFacts(t *testing.T) {
	fake := newFakeRegistry(t)
	reg, err := fake.config(DefaultConfig()).newRegistry(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	events, all := stream(600), append(writers(t), fake.writers()...)
	want, plain := refold(t, reg, events, 100, func(int) writer { return all[0] })
	if plain.duplicatesN.Load() == 0 || plain.deadN.Load() != 0 {
		t.Fatalf("%d duplicates, %d dead letters", plain.duplicatesN.Load(), plain.deadN.Load())
	}
	same := func(name string, batch int, choose func(int) writer) {
		digest, m := refold(t, reg, events, batch, choose)
		if digest != want || m.eventsN.Load() != plain.eventsN.Load() || m.duplicatesN.Load() != plain.duplicatesN.Load() || m.deadN.Load() != 0 {
			t.Errorf("%s: digest %s, %d events, %d duplicates, %d dead letters; plain JSON gave %s, %d, %d", name, digest,
				m.eventsN.Load(), m.duplicatesN.Load(), m.deadN.Load(), want, plain.eventsN.Load(), plain.duplicatesN.Load())
		}
	}
	for _, w := range all[1:] {
		same(w.name, 37, func(int) writer { return w })
	}
	rng := rand.New(rand.NewPCG(7, 7))
	same("mixed", 61, func(int) writer { return all[rng.IntN(len(all))] })
	if digest, _ := refold(t, reg, events[:len(events)-1], 100, func(int) writer { return all[0] }); digest == want {
		t.Error("the digest does not tell a stream from a shorter one")
	}
}

// TestCloudEventsThroughTheService sends events that are named by their envelope alone: one into a wrong partition, which is redriven with
// its headers, and its resends in both modes count once.
func TestCloudEventsThroughTheService(t *testing.T) {
	s := newStand(t)
	svc, dead := s.mourning()
	now := time.Now().UTC()
	data := []byte(`{"user_id":"u","item_id":"i","kind":"like"}`)
	own := schemas.Partition([]byte("u"), 2)
	send := func(p int32, headers []schemas.Header, value []byte) {
		t.Helper()
		if _, err := s.client.Produce(t.Context(), "feedback", p, []consumer.Message{{Key: []byte("u"), Value: value, Headers: headers, Time: now}}); err != nil {
			t.Fatal(err)
		}
	}
	send(1-own, schemas.CloudEvent("like", "1", "/shop", now, "application/json"), data)
	send(own, schemas.CloudEvent("like", "1", "/app", now, "application/json"), data)
	send(own, schemas.CloudEvent("like", "2", "/shop", now, "text/csv"), data)
	dead(2)
	res, stays, err := s.redrive(func(*Redrive) {})
	if err != nil || res.Redriven != 1 || res.Left != 1 {
		t.Fatalf("%+v, %v, error %v", res, stays, err)
	}
	send(own, schemas.CloudEvent("like", "1", "/shop", now, "application/json"), data)
	send(own, []schemas.Header{{Key: "content-type", Value: []byte("application/cloudevents+json")}}, fmt.Appendf(nil,
		`{"specversion":"1.0","type":"like","id":"1","source":"/shop","time":%q,"data":%s}`, now.Format(time.RFC3339Nano), data))
	s.until("folded", func() bool { return svc.metrics.eventsN.Load()+svc.metrics.duplicatesN.Load() == 4 })
	if e, d := svc.metrics.eventsN.Load(), svc.metrics.duplicatesN.Load(); e != 2 || d != 2 {
		t.Errorf("%d events and %d duplicates, want 2 and 2", e, d)
	}
	if all := s.listed(LetterFilter{Reasons: []schemas.Reason{schemas.ReasonBadCloudEvent}}); len(all) != 1 || !strings.Contains(all[0].Message, "text/csv") {
		t.Errorf("%+v", all)
	}
}
