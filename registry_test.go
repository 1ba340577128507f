package rebeca

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hamba/avro/v2"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"
	"google.golang.org/protobuf/encoding/protowire"

	"rebeca/consumer"
	"rebeca/schemas"
)

// fakeRegistry is a registry behind HTTP with the shipped schemas, Avro under odd ids and Protobuf under even ones.
type fakeRegistry struct {
	t     testing.TB
	fake  *srfake.Registry
	asked atomic.Int64
	// away is what it answers instead, 0 for nothing.
	away atomic.Int64
}

func newFakeRegistry(t testing.TB) *fakeRegistry {
	f := &fakeRegistry{t: t, fake: srfake.New(srfake.WithAuth("Basic dTpzZWNyZXQ="))} // u:secret
	t.Cleanup(f.fake.Close)
	for i, topic := range []string{"feedback", "items", "requests"} {
		f.fake.SeedSchema(topic+"-value", 1, 2*i+1, sr.Schema{Schema: shippedSchema(t, topic+".avsc")})
		f.fake.SeedSchema(topic+"-proto", 1, 2*i+2, sr.Schema{Schema: shippedSchema(t, topic+".proto"), Type: sr.TypeProtobuf})
	}
	f.fake.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
		f.asked.Add(1)
		code := int(f.away.Load())
		if code != 0 {
			http.Error(w, "<html>nothing here</html>", code)
		}
		return code != 0
	})
	return f
}

func shippedSchema(t testing.TB, name string) string {
	t.Helper()
	b, err := fs.ReadFile(schemas.Files, name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// config adds the registry to a configuration.
func (f *fakeRegistry) config(c Config) Config {
	f.t.Helper()
	secret := filepath.Join(f.t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret\n"), 0o600); err != nil {
		f.t.Fatal(err)
	}
	c.Registry = RegistryConfig{URL: f.fake.URL(), Username: "u", PasswordFile: secret}
	return c
}

func (f *fakeRegistry) writers() []writer {
	schema := avro.MustParse(shippedSchema(f.t, "feedback.avsc"))
	asAvro := func(text []byte) ([]schemas.Header, []byte) {
		e := eventOf(f.t, text)
		var value any
		if e.Value != nil {
			value = *e.Value
		}
		b, err := avro.Marshal(schema, map[string]any{"event_id": e.EventID, "user_id": e.UserID, "item_id": e.ItemID,
			"kind": string(e.Kind), "value": value, "occurred_at": e.OccurredAt})
		if err != nil {
			f.t.Fatal(err)
		}
		return nil, schemas.Frame(1, b)
	}
	asProtobuf := func(text []byte) ([]schemas.Header, []byte) {
		return nil, schemas.Frame(2, protobufOf(eventOf(f.t, text)))
	}
	return []writer{{"Avro", asAvro}, {"Protobuf", asProtobuf}, {"Avro in a CloudEvent", func(text []byte) ([]schemas.Header, []byte) {
		_, b := asAvro(text)
		return schemas.CloudEvent("like", "n", "/shop", time.Now(), "application/avro"), b
	}}}
}

func eventOf(t testing.TB, text []byte) (e schemas.Feedback) {
	if err := json.Unmarshal(text, &e); err != nil {
		t.Fatal(err)
	}
	return e
}

// protobufOf writes the shipped message by hand, behind the index of a file's first message.
func protobufOf(e schemas.Feedback) []byte {
	b := []byte{0}
	for i, s := range []string{e.EventID, e.UserID, e.ItemID, string(e.Kind)} {
		b = protowire.AppendString(protowire.AppendTag(b, protowire.Number(i+1), protowire.BytesType), s)
	}
	if e.Value != nil {
		b = protowire.AppendFixed64(protowire.AppendTag(b, 5, protowire.Fixed64Type), math.Float64bits(*e.Value))
	}
	at := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(e.OccurredAt.Unix()))
	at = protowire.AppendVarint(protowire.AppendTag(at, 2, protowire.VarintType), uint64(e.OccurredAt.Nanosecond()))
	return protowire.AppendBytes(protowire.AppendTag(b, 6, protowire.BytesType), at)
}

// TestRegistryThroughTheService sends Avro and Protobuf, with the registry away at first: good records wait, by name, and only what the
// registry knows nothing of becomes a dead letter.
func TestRegistryThroughTheService(t *testing.T) {
	s := newStand(t)
	fake := newFakeRegistry(t)
	s.config = fake.config(s.config)
	svc, dead := s.mourning()
	both := fake.writers()
	now := time.Now().UTC().Truncate(time.Millisecond)
	text := func(id string) []byte {
		b, err := schemas.Feedback{EventID: id, UserID: "u", ItemID: "i", Kind: schemas.KindLike, OccurredAt: now}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	send := func(w writer, id string) {
		m := consumer.Message{Key: []byte("u"), Time: now}
		m.Headers, m.Value = w.write(text(id))
		if _, err := s.client.Produce(t.Context(), "feedback", schemas.Partition(m.Key, 2), []consumer.Message{m}); err != nil {
			t.Fatal(err)
		}
	}
	for _, code := range []int64{http.StatusServiceUnavailable, http.StatusNotFound, http.StatusUnauthorized} {
		fake.away.Store(code)
		id, w := http.StatusText(int(code)), both[int(code)%2]
		if code == http.StatusUnauthorized {
			w = writer{write: func(text []byte) ([]schemas.Header, []byte) { // a schema that is not cached yet
				_, value := both[0].write(text)
				return nil, append(slices.Clone(schemas.Frame(7, nil)), value[5:]...)
			}}
			fake.fake.SeedSchema("more", 1, 7, sr.Schema{Schema: shippedSchema(t, "feedback.avsc")})
		}
		before, asked := svc.metrics.eventsN.Load(), fake.asked.Load()
		send(w, id)
		s.until("asked again", func() bool { return fake.asked.Load() > asked+2 })
		reasons := svc.Ready()
		if len(reasons) == 0 {
			t.Errorf("%d: the service is ready while a partition waits", code)
		}
		for _, r := range reasons {
			if r.Code != "registry_unavailable" || !strings.Contains(r.Message, "feedback[") || !strings.Contains(r.Message, fake.fake.URL()) {
				t.Errorf("%d: not ready because of %+v", code, r)
			}
		}
		if st := svc.Status().Stopped; len(st) != 1 || st[0].Code != codeRegistry || !strings.HasPrefix(st[0].Partition, "feedback[") || !strings.Contains(st[0].Message, fake.fake.URL()) {
			t.Errorf("%d: /v1/status says %+v", code, st)
		}
		if n := svc.metrics.eventsN.Load(); n != before || svc.metrics.deadN.Load() != 0 {
			t.Errorf("%d: %d events more and %d dead letters while the registry is away", code, n-before, svc.metrics.deadN.Load())
		}
		fake.away.Store(0)
		s.until("folded", func() bool { return svc.metrics.eventsN.Load() == before+1 })
		s.until("ready again", func() bool { return len(svc.Ready()) == 0 && len(svc.Status().Stopped) == 0 })
	}
	asked := fake.asked.Load()
	for _, w := range append(both, writers(t)...) {
		send(w, http.StatusText(http.StatusNotFound)) // resends
	}
	s.until("duplicates", func() bool { return svc.metrics.duplicatesN.Load() == uint64(len(both)+len(writers(t))) })
	if n := fake.asked.Load(); n != asked {
		t.Errorf("the registry is asked %d times for schemas that are known", n-asked)
	}
	s.produce("feedback", []byte("u"), schemas.Frame(99, []byte("x")))
	s.produce("feedback", []byte("u"), schemas.Frame(1, []byte("x")))
	dead(2)
	for _, want := range []schemas.Reason{schemas.ReasonUnknownSchema, schemas.ReasonBadEncoding} {
		if n := len(s.listed(LetterFilter{Reasons: []schemas.Reason{want}})); n != 1 {
			t.Errorf("%d dead letters of %s, want 1", n, want)
		}
	}
	// A schema that comes late mends its records.
	fake.fake.SeedSchema("late", 1, 99, sr.Schema{Schema: `{"type":"record","name":"X","fields":[]}`})
	if res, stays, err := s.redrive(func(*Redrive) {}); err != nil || res.Left != 2 || !strings.Contains(strings.Join(slices.Collect(maps.Values(stays)), " "), "bad_encoding") {
		t.Errorf("%+v, %v, error %v", res, stays, err)
	}
}

// TestWaitEndsWithTheService stops a service whose partition waits.
func TestWaitEndsWithTheService(t *testing.T) {
	s := newStand(t)
	fake := newFakeRegistry(t)
	s.config = fake.config(s.config)
	s.config.Roles = []string{RoleWorker}
	svc, stop := s.serve()
	fake.away.Store(http.StatusBadGateway)
	if _, err := s.client.Produce(t.Context(), "feedback", schemas.Partition([]byte("u"), 2), []consumer.Message{{Key: []byte("u"), Value: schemas.Frame(1, nil)}}); err != nil {
		t.Fatal(err)
	}
	s.until("waiting", func() bool { return len(svc.Ready()) > 0 })
	stop()
	if n := svc.metrics.deadN.Load(); n != 0 {
		t.Errorf("%d dead letters", n)
	}
}

// leaning is a registry whose schemas lean on others: 1 on nothing, 2 on one that is there, 3 on a subject that is not, 4 on a version that is not, 5 on too many; 6 and
// above are not there.
func leaning(t *testing.T) (c Config, asked, connections *atomic.Int64) {
	t.Helper()
	text := shippedSchema(t, "feedback.avsc")
	lean := func(subject string, version int) map[string]any {
		return map[string]any{"name": fmt.Sprint(subject, version), "subject": subject, "version": version}
	}
	many := []map[string]any{}
	for i := range maxReferences + 1 {
		many = append(many, lean("there", i+1))
	}
	schema := map[string]map[string]any{
		"1": {"schema": text}, "2": {"schema": text, "references": []any{lean("there", 1)}},
		"3": {"schema": text, "references": []any{lean("absent", 1)}}, "4": {"schema": text, "references": []any{lean("there", 999)}},
		"5": {"schema": text, "references": many},
	}
	asked, connections = &atomic.Int64{}, &atomic.Int64{}
	answer := func(w http.ResponseWriter, code int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		if err := json.NewEncoder(w).Encode(v); err != nil {
			t.Error(err)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/schemas/ids/{id}", func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if s := schema[r.PathValue("id")]; s != nil {
			answer(w, 200, s)
			return
		}
		answer(w, 404, map[string]any{"error_code": 40403, "message": "Schema not found"})
	})
	mux.HandleFunc("/subjects/{subject}/versions/{version}", func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.PathValue("subject") != "there":
			answer(w, 404, map[string]any{"error_code": 40401, "message": "Subject not found"})
		case r.PathValue("version") == "999":
			answer(w, 404, map[string]any{"error_code": 40402, "message": "Version not found"})
		default:
			answer(w, 200, map[string]any{"subject": "there", "version": 1, "id": 100,
				"schema": fmt.Sprintf(`{"type":"record","name":"There%s","fields":[]}`, r.PathValue("version"))})
		}
	})
	server := httptest.NewUnstartedServer(mux)
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	c.Registry.URL = server.URL
	return c, asked, connections
}

// A schema that leans on too many others, or on one that is not there, is an answer: nobody waits for the registry. The one that is missing may come.
func TestSchemasThatLean(t *testing.T) {
	c, _, _ := leaning(t)
	g, err := c.newRegistry(quiet)
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[uint32]schemas.Reason{1: "", 2: "", 3: schemas.ReasonUnknownSchema, 4: schemas.ReasonUnknownSchema, 5: schemas.ReasonBadSchema, 6: schemas.ReasonUnknownSchema} {
		f, err := g.find(t.Context(), id)
		if err != nil {
			t.Errorf("%d: error %v", id, err)
			continue
		}
		if got := f.none; got == nil && want != "" || got != nil && got.Reason != want {
			t.Errorf("%d: %v, want %q", id, got, want)
		}
		if f.until.IsZero() != (want != schemas.ReasonUnknownSchema) {
			t.Errorf("%d: kept until %v", id, f.until)
		}
	}
}

// Ids that nobody knows displace no schema, what is kept of them is bounded, and asking for them makes no connection each.
func TestUnknownIDsAreBounded(t *testing.T) {
	c, asked, connections := leaning(t)
	g, err := c.newRegistry(quiet)
	if err != nil {
		t.Fatal(err)
	}
	find := func(id uint32) {
		t.Helper()
		if _, err := g.find(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	find(1)
	for i := range uint32(maxUnknown + 500) {
		find(1000 + i)
	}
	before := asked.Load()
	find(1)
	find(1000 + maxUnknown + 499) // the newest, too
	if n := asked.Load() - before; n != 0 {
		t.Errorf("%d ids are asked for again", n)
	}
	if len(g.unknown) > maxUnknown || len(g.known) != 1 {
		t.Errorf("%d unknown and %d known ids are kept", len(g.unknown), len(g.known))
	}
	if n := connections.Load(); n > maxUnknown/10 {
		t.Errorf("%d connections for %d questions", n, asked.Load())
	}
}
