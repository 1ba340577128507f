package rebeca

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"net/url"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/sr"

	"rebeca/consumer"
	"rebeca/schemas"
)

const (
	registryTimeout = 5 * time.Second // of one request
	registryBackoff = 5 * time.Second // at most between two of them; the first follows after a fiftieth
	// A schema never changes under its id, so it is kept. That there is none may
	// change, and is asked again after unknownFor.
	unknownFor = 30 * time.Second
	// maxSchemas is far more than a topic has; beyond it all are forgotten and
	// asked anew.
	maxSchemas = 4096
	// maxUnknown bounds what is kept of ids that the registry does not know. They
	// have a place of their own: whoever sends nonsense displaces no schema.
	maxUnknown = 4096
	// registryIdle is how long a connection is kept for the next question: ids that
	// are not known yet come one behind the other.
	registryIdle = time.Second
	// maxReferences bounds how many schemas one may lean on.
	maxReferences = 256
)

func (c RegistryConfig) validate() (errs []error) {
	if c.URL == "" {
		if c != (RegistryConfig{}) {
			errs = append(errs, errors.New("registry.url: is empty: the other keys of registry need it"))
		}
		return errs
	}
	if u, err := url.Parse(c.URL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		errs = append(errs, fmt.Errorf("registry.url: %q is not http:// or https:// with a host", c.URL))
	} else if u.User != nil {
		errs = append(errs, errors.New("registry.url: holds a user: use registry.username and registry.password_file"))
	}
	if (c.Username == "") != (c.PasswordFile == "") {
		errs = append(errs, errors.New("registry.username: goes with registry.password_file: set both or none"))
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		errs = append(errs, errors.New("registry.cert_file: goes with registry.key_file: set both or none"))
	}
	return errs
}

// tlsConfig reads the certificates; nil where the system's do.
func (c RegistryConfig) tlsConfig() (*tls.Config, error) {
	if c.CAFile == "" && c.CertFile == "" {
		return nil, nil
	}
	out := new(tls.Config)
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("registry.ca_file: %w", err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("registry.ca_file: %s holds no certificate in PEM", c.CAFile)
		}
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("registry.cert_file and key_file: %w", err)
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}

// registry finds schemas by their ids and keeps them. A registry that is away
// is waited for: what it would say decides between facts and dead letters.
type registry struct {
	client *sr.Client
	url    string
	log    *slog.Logger

	mu      sync.Mutex
	known   map[uint32]found  // guarded by mu; for ever
	unknown map[uint32]found  // guarded by mu; each until its time
	waits   map[string]string // guarded by mu; why a partition waits, by topic[partition]
}

// found is a schema, or that there is none to use.
type found struct {
	schema *schemas.Schema
	none   *schemas.Rejection
	until  time.Time // ask again then; zero: never
}

// newRegistry returns the configured registry, nil for none, and asks it nothing.
func (c Config) newRegistry(log *slog.Logger) (*registry, error) {
	rc := c.Registry
	if rc.URL == "" {
		return nil, nil
	}
	options := []sr.ClientOpt{sr.URLs(rc.URL), sr.UserAgent("rebeca")}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	var err error
	if transport.TLSClientConfig, err = rc.tlsConfig(); err != nil {
		return nil, err
	}
	transport.IdleConnTimeout, transport.MaxIdleConnsPerHost = registryIdle, 16
	options = append(options, sr.HTTPClient(&http.Client{Timeout: registryTimeout, Transport: transport}))
	if rc.Username != "" {
		password, err := firstLine("registry.password_file", rc.PasswordFile)
		if err != nil {
			return nil, err
		}
		options = append(options, sr.BasicAuth(rc.Username, password))
	}
	client, err := sr.NewClient(options...)
	if err != nil {
		return nil, fmt.Errorf("registry.url: %w", err)
	}
	return &registry{client: client, url: rc.URL, log: log, known: map[uint32]found{}, unknown: map[uint32]found{}, waits: map[string]string{}}, nil
}

// content opens a record. Errors are *[schemas.Rejection], or ctx's when it
// ends while the registry is waited for. A nil registry reads no framed values.
func (g *registry) content(ctx context.Context, r consumer.Record) (schemas.Content, error) {
	if g == nil {
		return schemas.Open(r.Headers, r.Value, nil)
	}
	return schemas.Open(r.Headers, r.Value, func(id uint32) (*schemas.Schema, error) {
		return g.await(ctx, id, fmt.Sprintf("%s[%d]", r.Topic, r.Partition))
	})
}

// await asks until the registry has answered, and notes who waits and why.
func (g *registry) await(ctx context.Context, id uint32, partition string) (*schemas.Schema, error) {
	for wait := registryBackoff / 50; ; wait = min(2*wait, registryBackoff) {
		f, err := g.find(ctx, id)
		g.note(partition, id, err)
		switch {
		case err == nil && f.none != nil:
			return nil, f.none
		case err == nil:
			return f.schema, nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			g.note(partition, id, nil)
			return nil, ctx.Err()
		}
	}
}

// note keeps why a partition waits, nil when it does not, and logs only what
// changed.
func (g *registry) note(partition string, id uint32, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, waited := g.waits[partition]
	switch {
	case err != nil:
		g.waits[partition] = fmt.Sprintf("%s waits for schema %d of %s: %v", partition, id, g.url, err)
		if !waited {
			g.log.Warn("the schema registry does not answer; the partition waits and tries again", "partition", partition, "schema", id, "err", err)
		}
	case waited:
		delete(g.waits, partition)
		g.log.Info("the partition waits no longer for the schema registry", "partition", partition)
	}
}

// waiting returns why partitions wait, by topic[partition].
func (g *registry) waiting() map[string]string {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.waits)
}

// find returns what is known of an id or else asks. An error says that the
// registry gave no answer that decides.
func (g *registry) find(ctx context.Context, id uint32) (found, error) {
	g.mu.Lock()
	f, ok := g.known[id]
	none, asked := g.unknown[id]
	g.mu.Unlock()
	switch {
	case ok:
		return f, nil
	case asked && time.Now().Before(none.until):
		return none, nil
	}
	f, err := g.ask(ctx, id)
	if err == nil {
		g.keep(id, f)
	}
	return f, err
}

func (g *registry) keep(id uint32, f found) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.unknown, id)
	if f.until.IsZero() {
		if len(g.known) >= maxSchemas {
			clear(g.known)
		}
		g.known[id] = f
		return
	}
	if len(g.unknown) >= maxUnknown {
		now := time.Now()
		maps.DeleteFunc(g.unknown, func(_ uint32, f found) bool { return now.After(f.until) })
	}
	for other := range g.unknown { // any one
		if len(g.unknown) < maxUnknown {
			break
		}
		delete(g.unknown, other)
	}
	g.unknown[id] = f
}

func (g *registry) ask(ctx context.Context, id uint32) (f found, err error) {
	unknown := found{until: time.Now().Add(unknownFor), none: &schemas.Rejection{
		Reason: schemas.ReasonUnknownSchema, Message: fmt.Sprintf("the registry knows no schema of id %d", id)}}
	if id > math.MaxInt32 {
		return unknown, nil // ids are signed
	}
	s, err := g.client.SchemaByID(ctx, int(id))
	if notThere(err, sr.ErrSchemaNotFound) {
		return unknown, nil
	}
	if err != nil {
		return f, err
	}
	d := schemas.Definition{Type: s.Type.String(), Text: s.Schema}
	if err := g.references(ctx, s, &d, map[string]bool{}); err != nil {
		if !errors.As(err, &f.none) {
			return f, err
		}
		if f.none.Reason == schemas.ReasonUnknownSchema {
			f.until = unknown.until // what it leans on may come
		}
		return f, nil
	}
	if f.schema, err = schemas.Compile(d); err != nil {
		f.none = rejection(err)
	}
	return f, nil
}

// notThere reports whether the registry says of itself that it has none. A 404
// without one of these codes is another server's, or another path's.
func notThere(err error, codes ...*sr.Error) bool {
	answer := (*sr.ResponseError)(nil)
	return errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound && slices.Contains(codes, answer.SchemaError())
}

// references fetches what a schema leans on, each before who needs it. A
// *[schemas.Rejection] says that the schema cannot be used.
func (g *registry) references(ctx context.Context, s sr.Schema, d *schemas.Definition, seen map[string]bool) error {
	for _, r := range s.References {
		if seen[r.Name] {
			continue
		}
		if seen[r.Name] = true; len(seen) > maxReferences {
			return &schemas.Rejection{Reason: schemas.ReasonBadSchema, Message: fmt.Sprintf("the schema leans on more than %d others", maxReferences)}
		}
		at, err := g.client.SchemaByVersion(ctx, r.Subject, r.Version)
		if notThere(err, sr.ErrSubjectNotFound, sr.ErrVersionNotFound, sr.ErrSchemaNotFound) {
			return &schemas.Rejection{Reason: schemas.ReasonUnknownSchema,
				Message: fmt.Sprintf("the registry knows no version %d of %s, which the schema leans on as %s", r.Version, r.Subject, r.Name)}
		}
		if err != nil {
			return fmt.Errorf("reference %s, version %d of %s: %w", r.Name, r.Version, r.Subject, err)
		}
		if err := g.references(ctx, at.Schema, d, seen); err != nil {
			return err
		}
		d.References = append(d.References, schemas.Reference{Name: r.Name, Text: at.Schema.Schema})
	}
	return nil
}
