package web

import (
	"crypto/sha256"
	"crypto/subtle"
	"embed"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

//go:embed openapi.yaml
var openAPI []byte

//go:embed assets
var assets embed.FS

// route is one line of the door. Public routes need no token; streams have no deadline and are not
// in the latency histogram.
type route struct {
	method, pattern string
	handler         http.HandlerFunc
	public, stream  bool
}

// routes is the door: openapi.yaml lists the same, method by method.
func (s *Server) routes() []route {
	rs := []route{
		{method: "POST", pattern: "/v1/feedback", handler: s.postFeedback},
		{method: "POST", pattern: "/v1/users/{id}/generate", handler: s.postGenerate},
		{method: "GET", pattern: "/v1/users/{id}", handler: s.getUser},
		{method: "GET", pattern: "/v1/users/{id}/generated", handler: s.getGenerated},
		{method: "GET", pattern: "/v1/status", handler: s.getStatus},
		{method: "GET", pattern: "/v1/events", handler: s.getEvents, stream: true},
		{method: "GET", pattern: "/v1/gallery/users/{id}", handler: s.getGalleryUser},
		{method: "GET", pattern: "/healthz", handler: s.getHealth, public: true},
		{method: "GET", pattern: "/readyz", handler: s.getReady, public: true},
		{method: "GET", pattern: "/metrics", handler: promhttp.HandlerFor(s.o.Gatherer, promhttp.HandlerOpts{}).ServeHTTP},
		{method: "GET", pattern: "/openapi.yaml", handler: getOpenAPI, public: true},
		{method: "GET", pattern: "/{$}", handler: getAsset, public: true},
		{method: "GET", pattern: "/assets/{name}", handler: getAsset, public: true},
	}
	if s.o.Stored != nil {
		rs = append(rs, route{method: "GET", pattern: "/v1/images/{sha256}", handler: s.getImage})
	}
	if s.o.Pictures != nil {
		rs = append(rs, route{method: "GET", pattern: "/v1/items/{id}/image", handler: s.getItemImage})
	}
	if s.o.Explorer != nil {
		rs = append(rs, route{method: "GET", pattern: "/v1/demo/pictures", handler: s.getDemoPictures})
	}
	if s.o.Operator != nil {
		rs = append(rs,
			route{method: "GET", pattern: "/v1/inspect/{what}", handler: s.getInspect, stream: true},
			route{method: "POST", pattern: "/v1/snapshots", handler: s.postSnapshot, stream: true},
			route{method: "POST", pattern: "/v1/prior/{number}/promote", handler: s.postPromotePrior})
	}
	return rs
}

func (s *Server) mux() http.Handler {
	mux := http.NewServeMux()
	methods := map[string][]string{}
	for _, r := range s.routes() {
		mux.Handle(r.method+" "+r.pattern, s.instrument(r))
		methods[r.pattern] = append(methods[r.pattern], r.method)
		if r.method == "GET" {
			methods[r.pattern] = append(methods[r.pattern], "HEAD") // the mux answers it with the GET handler
		}
	}
	for pattern, allowed := range methods {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			writeError(w, &Error{Code: CodeMethodNotAllowed, Message: "this path takes " + strings.Join(allowed, ", ")})
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, &Error{Code: CodeNotFound, Message: "no such path: /openapi.yaml lists them"})
	})
	return mux
}

// protect answers what no route may see: requests from other sites and under foreign names.
func (s *Server) protect(next http.Handler) http.Handler {
	cross := http.NewCrossOriginProtection()
	cross.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, &Error{Code: CodeForbidden, Message: "the request comes from another site's page"})
	}))
	next = cross.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Content-Security-Policy", contentPolicy)
		// Without a token the address is the only lock, and a page that rebinds its own name to
		// 127.0.0.1 has the key: the name asked for must be this machine's.
		if s.o.Token == "" && !loopback(hostOnly(r.Host)) {
			writeError(w, &Error{Code: CodeForbidden, Message: "without http.token only localhost and loopback addresses are served"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; " +
	"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// routeDeadline bounds every route but streams; generate waits up to its own timeout before it writes.
const routeDeadline = 90 * time.Second

// instrument checks the token, bounds the time, turns a panic into an answer and measures.
func (s *Server) instrument(r route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		start := time.Now()
		rec := &recorder{ResponseWriter: w}
		var deadline time.Time // none: a stream must not inherit that of an earlier call on its connection
		if !r.stream {
			deadline = start.Add(routeDeadline)
		}
		// An error means a writer without deadlines, as in tests: nothing to bound.
		_ = http.NewResponseController(w).SetWriteDeadline(deadline)
		defer func() {
			if p := recover(); p != nil {
				if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
					panic(p)
				}
				s.o.Logger.Error("handling a request", "route", r.pattern, "panic", p, "stack", string(debug.Stack()))
				if rec.code == 0 {
					writeError(rec, &Error{Code: CodeInternal, Message: "a fault of this service: its log has the details"})
				}
			}
			if !r.stream {
				s.metrics.requests.WithLabelValues(r.pattern, r.method, strconv.Itoa(max(rec.code, 200))).Observe(time.Since(start).Seconds())
			}
		}()
		if !r.public && !s.authorized(req) {
			rec.Header().Set("WWW-Authenticate", `Bearer realm="rebeca"`)
			writeError(rec, &Error{Code: CodeUnauthorized, Message: "send the service's token: Authorization: Bearer …"})
			return
		}
		r.handler(rec, req)
	})
}

func (s *Server) authorized(r *http.Request) bool {
	if s.o.Token == "" {
		return true
	}
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	sum := sha256.Sum256([]byte(strings.TrimSpace(given))) // equal lengths: the comparison tells nothing of the token's
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(sum[:], s.token[:]) == 1
}

// recorder remembers the status; Unwrap keeps deadlines and flushing reachable.
type recorder struct {
	http.ResponseWriter
	code int
}

func (r *recorder) WriteHeader(code int) {
	if r.code == 0 {
		r.code = code
	}
	r.ResponseWriter.WriteHeader(code)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.code == 0 {
		r.code = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func hostOnly(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return hostport
}

func getOpenAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = w.Write(openAPI)
}

// getAsset serves the page and its parts. They hold no data, so they need no token: the page asks for it.
func getAsset(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if name == "" {
		name = "index.html"
	}
	if _, err := fs.Stat(assets, "assets/"+name); err != nil {
		writeError(w, &Error{Code: CodeNotFound, Message: "no such asset"})
		return
	}
	w.Header().Set("Cache-Control", "no-cache") // the binary may be newer tomorrow and the files carry no version
	http.ServeFileFS(w, r, assets, "assets/"+name)
}
