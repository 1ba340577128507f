package rebeca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math"
	"math/big"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hamba/avro/v2"
	"google.golang.org/protobuf/encoding/protowire"

	"rebeca/consumer"
	"rebeca/schemas"
)

// Ids of the schemas in a fakeRegistry.
const (
	itemAvro, itemProtobuf       = 3, 4
	requestAvro, requestProtobuf = 5, 6
)

func (f *fakeRegistry) avro(id uint32, schema string, value any) []byte {
	f.t.Helper()
	b, err := avro.Marshal(avro.MustParse(shippedSchema(f.t, schema)), value)
	if err != nil {
		f.t.Fatal(err)
	}
	return schemas.Frame(id, b)
}

// protobufItem writes the shipped message by hand.
func protobufItem(id string, embedding []float32) []byte {
	b := protowire.AppendString(protowire.AppendTag([]byte{0}, 1, protowire.BytesType), id)
	var packed []byte
	for _, x := range embedding {
		packed = protowire.AppendFixed32(packed, math.Float32bits(x))
	}
	return schemas.Frame(itemProtobuf, protowire.AppendBytes(protowire.AppendTag(b, 2, protowire.BytesType), packed))
}

func protobufRequest(id, user string, count int, seed uint64, guidance float64) []byte {
	b := protowire.AppendString(protowire.AppendTag([]byte{0}, 1, protowire.BytesType), id)
	b = protowire.AppendString(protowire.AppendTag(b, 2, protowire.BytesType), user)
	b = protowire.AppendVarint(protowire.AppendTag(b, 3, protowire.VarintType), uint64(count))
	b = protowire.AppendVarint(protowire.AppendTag(b, 5, protowire.VarintType), seed)
	b = protowire.AppendFixed64(protowire.AppendTag(b, 6, protowire.Fixed64Type), math.Float64bits(guidance))
	return schemas.Frame(requestProtobuf, b)
}

// TestItemsAndRequestsInEncodings sends items and requests in Avro and in Protobuf through the service: they do what the same in JSON does,
// and what is no such message becomes a dead letter.
func TestItemsAndRequestsInEncodings(t *testing.T) {
	s := newStand(t)
	fake := newFakeRegistry(t)
	s.config = fake.config(s.config)
	s.items(300)
	embedding := slices.Repeat([]float32{1.5}, testDim)
	s.produce("items", []byte("in Avro"), fake.avro(itemAvro, "items.avsc", map[string]any{
		"item_id": "in Avro", "embedding": map[string]any{"array": embedding}, "embedding_f32": nil, "uri": nil, "attributes": nil}))
	s.produce("items", []byte("in Protobuf"), protobufItem("in Protobuf", embedding))
	s.produce("items", []byte("short"), protobufItem("short", embedding[1:]))
	svc, _ := s.serve()
	s.until("there is a prior", func() bool { return svc.follower.version().Version != "" })
	for _, id := range []string{"in Avro", "in Protobuf"} {
		if got, ok := svc.table.Catalogue().Get(id); !ok || !slices.Equal(got, embedding) {
			t.Errorf("item %s is %v, %v", id, got, ok)
		}
	}

	const count, seed, guidance = 2, 77, 2.5
	number, weight := uint64(seed), guidance
	text, err := schemas.Request{RequestID: "JSON", UserID: "u", Count: count, Seed: &number, Guidance: &weight}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	s.produce("requests", []byte("u"), text)
	s.produce("requests", []byte("u"), fake.avro(requestAvro, "requests.avsc", map[string]any{"request_id": "Avro", "user_id": "u", "count": count,
		"rating": nil, "seed": map[string]any{"long": int64(seed)}, "guidance": map[string]any{"double": guidance}, "images": nil, "after": nil}))
	s.produce("requests", []byte("u"), protobufRequest("Protobuf", "u", count, seed, guidance))
	s.produce("requests", []byte("u"), protobufRequest("none", "u", 5000, seed, guidance))
	answers := map[string][]schemas.Generated{}
	s.until("all are answered", func() bool {
		clear(answers)
		n := 0
		for _, g := range s.generated() {
			answers[g.RequestID] = append(answers[g.RequestID], g)
			n++
		}
		return n >= 3*count
	})
	for _, id := range []string{"JSON", "Avro", "Protobuf"} {
		got := answers[id]
		if len(got) != count {
			t.Errorf("the request in %s has %d answers, want %d", id, len(got), count)
		}
		for _, g := range got {
			if g.Guidance != guidance || !slices.ContainsFunc(answers["JSON"], func(j schemas.Generated) bool { return j.Seed == g.Seed }) {
				t.Errorf("the answer to the request in %s has seed %d and guidance %g", id, g.Seed, g.Guidance)
			}
		}
	}
	s.until("the others are dead letters", func() bool { return len(s.listed(LetterFilter{})) == 2 })
	for _, want := range []schemas.Reason{schemas.ReasonBadEmbedding, schemas.ReasonBadCount} {
		if n := len(s.listed(LetterFilter{Reasons: []schemas.Reason{want}})); n != 1 {
			t.Errorf("%d dead letters of %s, want 1", n, want)
		}
	}
}

// authority signs certificates for a test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	var der []byte
	der, a.key = a.sign(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	var err error
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

// sign makes a certificate and its key; the authority's own when it has none yet.
func (a *authority) sign(template *x509.Certificate) (der []byte, key *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	if der, err = x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer); err != nil {
		a.t.Fatal(err)
	}
	return der, key
}

// files writes a certificate and its key in PEM.
func (a *authority) files(der []byte, key *ecdsa.PrivateKey) (cert, secret string) {
	a.t.Helper()
	b, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(a.t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			a.t.Fatal(err)
		}
		return path
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", b)
}

// TestRegistryOverTLS asks a registry that shows a certificate of its own authority, wants one of it from the client, and a password: each
// of the three is needed.
func TestRegistryOverTLS(t *testing.T) {
	fake, ca := newFakeRegistry(t), newAuthority(t)
	inner, err := url.Parse(fake.fake.URL())
	if err != nil {
		t.Fatal(err)
	}
	der, key := ca.sign(&x509.Certificate{DNSNames: []string{"localhost"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	clients := x509.NewCertPool()
	clients.AddCert(ca.cert)
	proxy := httputil.NewSingleHostReverseProxy(inner)
	server := httptest.NewUnstartedServer(proxy)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // refused handshakes
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert,
	}
	server.StartTLS()
	defer server.Close()
	address, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	good := fake.config(DefaultConfig())
	good.Registry.URL = "https://localhost:" + address.Port()
	good.Registry.CAFile, _ = ca.files(ca.cert.Raw, ca.key)
	good.Registry.CertFile, good.Registry.KeyFile = ca.files(ca.sign(&x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}))
	ask := func(c Config) error {
		g, err := c.newRegistry(slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		f, err := g.find(t.Context(), 1)
		if err == nil && f.schema == nil {
			t.Errorf("found %+v", f)
		}
		return err
	}
	if err := ask(good); err != nil {
		t.Errorf("with all three: %v", err)
	}
	for name, without := range map[string]func(*RegistryConfig){
		"authority":   func(c *RegistryConfig) { c.CAFile = "" },
		"certificate": func(c *RegistryConfig) { c.CertFile, c.KeyFile = "", "" },
		"password":    func(c *RegistryConfig) { c.Username, c.PasswordFile = "", "" },
	} {
		c := good
		without(&c.Registry)
		if err := ask(c); err == nil {
			t.Errorf("the registry answers without the %s", name)
		}
	}
	for _, c := range []RegistryConfig{{CAFile: "nowhere"}, {CertFile: good.Registry.CertFile, KeyFile: good.Registry.CAFile}} {
		c.URL = good.Registry.URL
		if _, err := (Config{Registry: c}).newRegistry(slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("taken: %+v", c)
		}
	}
}

// BenchmarkEncodings opens and decodes one event in each encoding, its schema known. On 2 busy cores: JSON 1.3 µs, CloudEvents 1.4 (binary)
// and 2.4 (structured), Avro 2.6, Protobuf 6.3.
func BenchmarkEncodings(b *testing.B) {
	fake := newFakeRegistry(b)
	reg, err := fake.config(DefaultConfig()).newRegistry(slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	event := stream(1)[0]
	text, err := event.Encode()
	if err != nil {
		b.Fatal(err)
	}
	for _, w := range append(writers(b), fake.writers()...) {
		b.Run(w.name, func(b *testing.B) {
			r := consumer.Record{Topic: "feedback", Time: event.OccurredAt, Key: []byte(event.UserID)}
			r.Headers, r.Value = w.write(text)
			b.SetBytes(int64(len(r.Value)))
			b.ReportAllocs()
			for b.Loop() {
				content, err := reg.content(b.Context(), r)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := content.Feedback(r.Key, r.Time); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
