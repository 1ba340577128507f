package web

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

// Options are the parts a Server is made of. Those marked optional may be nil; what depends on them
// is then not mounted, or answers without it.
type Options struct {
	// Listen is host:port; port 0 takes a free one.
	Listen string
	// Token, if set, is demanded as a bearer token by every route under /v1 and by /metrics.
	Token string

	Producer Producer
	Results  Results
	Users    Users
	// Status answers /v1/status; it is called at least once a second and must be cheap.
	Status func(ctx context.Context) Status
	// Ready answers /readyz: no reasons means ready.
	Ready func(ctx context.Context) []Reason

	Feed     Feed     // optional: /v1/events carries no people without it
	Pictures Pictures // optional: pictures of catalogue items
	Explorer Explorer // optional: catalogue pictures for a visitor
	World    World    // optional: captions and truth of simulated people
	Stored   Stored   // optional: generated pictures by their hash
	Operator Operator // optional: what the operators' verbs ask for

	// Partitions of the user-keyed topics, to check `after` against the user's own; 0 leaves the
	// check to the Producer.
	Partitions int
	// Images says whether a decoder is named; without one `images: true` is answered no_decoder.
	Images bool
	// Timeout bounds the wait of a request to generate, the wait for `after` included; default 30 s.
	Timeout time.Duration

	Gatherer   prometheus.Gatherer   // of /metrics
	Registerer prometheus.Registerer // optional: for the door's own metrics
	Logger     *slog.Logger          // optional
}

// shutdownGrace is how long calls in flight may take to end after Run's context is done. It stays
// well under the 30 s in which the whole process must be gone.
const shutdownGrace = 5 * time.Second

// Server is the HTTP door. Its methods are safe for concurrent use; Run may be called once.
type Server struct {
	o       Options
	token   [sha256.Size]byte
	handler http.Handler
	metrics *metrics
	hub     *hub
	closing chan struct{} // closed when Run ends: lets event streams go

	mu       sync.Mutex // guards listener
	listener net.Listener
}

// New makes a server; it does no I/O. It panics where a part that is not optional is missing.
func New(o Options) *Server {
	switch {
	case o.Producer == nil, o.Results == nil, o.Users == nil, o.Status == nil, o.Ready == nil, o.Gatherer == nil:
		panic("web: Producer, Results, Users, Status, Ready and Gatherer are required")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Timeout <= 0 {
		o.Timeout = 30 * time.Second
	}
	s := &Server{o: o, token: sha256.Sum256([]byte(o.Token)), metrics: newMetrics(o.Registerer), closing: make(chan struct{})}
	s.hub = newHub(o, s.metrics)
	s.handler = s.protect(s.mux())
	return s
}

// Handler is the door without a listener, as tests and embedders use it. Events flow while Run runs.
func (s *Server) Handler() http.Handler { return s.handler }

// Listen binds the address, so that a taken port is known before anything else is started. Run does
// it if it has not been done.
func (s *Server) Listen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil {
		return nil
	}
	if err := CheckListen(s.o.Listen, s.o.Token); err != nil {
		return err
	}
	l, err := net.Listen("tcp", s.o.Listen)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("listening on %s: the port is taken by another process, choose another", s.o.Listen)
	case err != nil:
		return fmt.Errorf("listening on %s: %w", s.o.Listen, err)
	}
	s.listener = l
	return nil
}

// Addr is the bound address, host:port; empty before Listen.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return ""
	}
	return s.listener.Addr().String()
}

// Run serves until ctx is done, then lets calls in flight end for a few seconds. It returns nil
// after an orderly end.
func (s *Server) Run(ctx context.Context) error {
	if err := s.Listen(); err != nil {
		return err
	}
	srv := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		// WriteTimeout stays 0: an event stream has no end. Each write of it has its own deadline,
		// and every other route is bounded by the deadline that instrument sets.
		ErrorLog: slog.NewLogLogger(s.o.Logger.Handler(), slog.LevelDebug),
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.hub.run(ctx) })
	g.Go(func() error {
		if err := srv.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving HTTP: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		close(s.closing)
		grace, cancel := context.WithTimeout(context.Background(), shutdownGrace)
		defer cancel()
		if err := srv.Shutdown(grace); err != nil {
			return srv.Close() // what still runs is cut off: its client sees a broken connection and may retry by id
		}
		return nil
	})
	return g.Wait()
}

// CheckListen refuses what is no address to listen on, and one that others can reach when no token
// protects it. Its errors do not name http.listen: the caller does.
func CheckListen(addr, token string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%q is not host:port, such as 127.0.0.1:8080", addr)
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		return fmt.Errorf("%q: %q is not a port, 0 to 65535", addr, port)
	}
	if token != "" || loopback(host) {
		return nil
	}
	return fmt.Errorf("%q can be reached from other machines: set http.token, or listen on 127.0.0.1", addr)
}

// loopback reports whether a host name or address is this machine's own.
func loopback(host string) bool {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return ip != nil && ip.IsLoopback()
}
