package web

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCheckListen(t *testing.T) {
	tests := []struct {
		addr, token string
		wrong       string // part of the error, empty for none
	}{
		{"127.0.0.1:8080", "", ""},
		{"127.8.9.1:0", "", ""},
		{"localhost:8080", "", ""},
		{"[::1]:8080", "", ""},
		{":8080", "", "http.token"},
		{"0.0.0.0:8080", "", "http.token"},
		{"[::]:8080", "", "http.token"},
		{"10.0.0.1:8080", "", "http.token"},
		{"example.org:8080", "", "http.token"},
		{"localhost.example.org:80", "", "http.token"},
		{"0.0.0.0:8080", "hush", ""},
		{":8080", "hush", ""},
		{"8080", "", "host:port"},
		{"", "hush", "host:port"},
		{"::1:8080:9", "", "host:port"},
		{"127.0.0.1:70000", "", "65535"},
		{"127.0.0.1:-1", "", "65535"},
		{"127.0.0.1:door", "", "65535"},
	}
	for _, tt := range tests {
		err := CheckListen(tt.addr, tt.token)
		if (err != nil) != (tt.wrong != "") || (err != nil && !strings.Contains(err.Error(), tt.wrong)) {
			t.Errorf("CheckListen(%q, %q) = %v, want %q", tt.addr, tt.token, err, tt.wrong)
		}
	}
}

func TestToken(t *testing.T) {
	o := populated().options()
	o.Token = "hush"
	s := New(o)
	for _, r := range s.routes() {
		path := strings.NewReplacer("{$}", "", "{id}", "ada", "{name}", "main.js", "{what}", "users").Replace(r.pattern)
		for header, allowed := range map[string]bool{"": false, "Bearer wrong": false, "hush": false, "Basic hush": false, "Bearer": false, "Bearer hush": true, "bearer  hush": true} {
			if r.stream && allowed && path == "/v1/events" {
				continue // does not end; TestEventsNeedTheToken opens it
			}
			var a answer
			if header == "" {
				a = call(t, s, r.method, path, `{"count":1,"user_id":"ada","item_id":"i","kind":"like"}`)
			} else {
				a = call(t, s, r.method, path, `{"count":1,"user_id":"ada","item_id":"i","kind":"like"}`, "Authorization", header)
			}
			if refused := a.code == http.StatusUnauthorized; refused == (allowed || r.public) {
				t.Errorf("%s %s with %q answers %d", r.method, path, header, a.code)
			} else if refused && (a.errorCode() != "unauthorized" || a.header.Get("WWW-Authenticate") == "") {
				t.Errorf("%s %s: %v %s", r.method, path, a.header, a.body)
			}
		}
	}
}

func TestForeignPagesAreRefused(t *testing.T) {
	tests := []struct {
		name, method, host, origin, site, token string
		code                                    int
	}{
		{"curl", "POST", "127.0.0.1:8080", "", "", "", 202},
		{"own page", "POST", "localhost:8080", "http://localhost:8080", "same-origin", "", 202},
		{"another site", "POST", "localhost:8080", "https://evil.example", "cross-site", "", 403},
		{"an old browser on another site", "POST", "localhost:8080", "https://evil.example", "", "", 403},
		{"a rebound name", "POST", "evil.example:8080", "http://evil.example:8080", "same-origin", "", 403},
		{"a rebound name reads", "GET", "evil.example", "", "same-origin", "", 403},
		{"IPv6", "POST", "[::1]:8080", "", "", "", 202},
		{"a proxy, with a token", "POST", "rebeca.example", "", "", "hush", 202},
		{"another site, with a token", "POST", "rebeca.example", "https://evil.example", "cross-site", "hush", 403},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := newFake().options()
			o.Token = tt.token
			r := httptest.NewRequest(tt.method, "http://"+tt.host+"/v1/feedback", strings.NewReader(like))
			for name, value := range map[string]string{"Origin": tt.origin, "Sec-Fetch-Site": tt.site, "Authorization": "Bearer " + tt.token} {
				if value != "" {
					r.Header.Set(name, value)
				}
			}
			w := httptest.NewRecorder()
			New(o).Handler().ServeHTTP(w, r)
			if w.Code != tt.code {
				t.Errorf("answered %d %s, want %d", w.Code, w.Body, tt.code)
			}
		})
	}
}

func TestWrongMethods(t *testing.T) {
	s := New(newFake().options())
	for target, allow := range map[string]string{"GET /v1/feedback": "POST", "DELETE /v1/users/ada": "GET, HEAD", "POST /": "GET, HEAD", "PUT /v1/users/ada/generate": "POST"} {
		method, path, _ := strings.Cut(target, " ")
		a := call(t, s, method, path, "")
		if a.code != 405 || a.errorCode() != "method_not_allowed" || a.header.Get("Allow") != allow {
			t.Errorf("%s answers %d, Allow %q: %s", target, a.code, a.header.Get("Allow"), a.body)
		}
	}
}

func TestSecurityHeaders(t *testing.T) {
	a := call(t, New(newFake().options()), "GET", "/", "")
	if !strings.Contains(a.header.Get("Content-Security-Policy"), "default-src 'none'") || a.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("headers %v", a.header)
	}
}

func TestSnapshot(t *testing.T) {
	f := newFake()
	s := New(f.options())
	if a := call(t, s, "POST", "/v1/snapshots", ""); a.code != 200 || !strings.Contains(string(a.body), "2026-01-02") {
		t.Errorf("answered %d %s", a.code, a.body)
	}
	f.snapshotErr = errors.New("writing rows: no space left on device")
	if a := call(t, s, "POST", "/v1/snapshots", ""); a.code != 500 || !strings.Contains(string(a.body), "no space left") {
		t.Errorf("answered %d %s", a.code, a.body)
	}
}

func TestPromotePrior(t *testing.T) {
	s := New(newFake().options())
	for target, want := range map[string]struct {
		code int
		says string
	}{
		"/v1/prior/7/promote":               {200, "7 held 0s"},
		"/v1/prior/7/promote?hold=1h30m":    {200, "7 held 1h30m0s"},
		"/v1/prior/7/promote?hold=-1s":      {400, "bad_request"},
		"/v1/prior/7/promote?hold=tomorrow": {400, "bad_request"},
		"/v1/prior/x/promote":               {404, "not_found"},
		"/v1/prior/0/promote":               {404, "not_found"},
		"/v1/prior/404/promote":             {404, "no such version"},
	} {
		if a := call(t, s, "POST", target, ""); a.code != want.code || !strings.Contains(string(a.body), want.says) {
			t.Errorf("%s answers %d %s", target, a.code, a.body)
		}
	}
}

func TestMetrics(t *testing.T) {
	s := New(populated().options())
	call(t, s, "GET", "/v1/users/ada", "")
	call(t, s, "GET", "/v1/users/nobody", "")
	call(t, s, "GET", "/v1/users/panics", "")
	call(t, s, "POST", "/v1/feedback", `{"records":[`+like+`,{"user_id":"a","item_id":"i","kind":"adore"}]}`)
	got := string(call(t, s, "GET", "/metrics", "").body)
	for _, line := range []string{
		`rebeca_http_request_duration_seconds_count{code="200",method="GET",route="/v1/users/{id}"} 1`,
		`rebeca_http_request_duration_seconds_count{code="404",method="GET",route="/v1/users/{id}"} 1`,
		`rebeca_http_request_duration_seconds_count{code="500",method="GET",route="/v1/users/{id}"} 1`,
		`rebeca_http_feedback_records_total{result="accepted"} 1`,
		`rebeca_http_feedback_records_total{result="unknown_kind"} 1`,
		`rebeca_http_event_streams 0`,
	} {
		if !strings.Contains(got, line) {
			t.Errorf("/metrics lacks %s", line)
		}
	}
}

func TestNewNeedsItsParts(t *testing.T) {
	defer func() {
		if p, _ := recover().(string); !strings.HasPrefix(p, "web: ") {
			t.Errorf("panicked with %v", p)
		}
	}()
	o := newFake().options()
	o.Results = nil
	New(o)
}

func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o := newFake().options()
	o.Listen = l.Addr().String()
	err = New(o).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), o.Listen) || !strings.Contains(err.Error(), "taken") || strings.Contains(err.Error(), "\n") {
		t.Errorf("Run = %v", err)
	}
}

func TestListenIsChecked(t *testing.T) {
	o := newFake().options()
	o.Listen = "0.0.0.0:0"
	s := New(o)
	if err := s.Run(t.Context()); err == nil || s.Addr() != "" {
		t.Errorf("Run = %v, Addr = %q", err, s.Addr())
	}
}

// running starts a server and returns its base URL; it is stopped, and its end checked, with the test.
func running(t *testing.T, o Options) (url string, stop func()) {
	t.Helper()
	s := New(o)
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v", err)
		}
		http.DefaultClient.CloseIdleConnections()
	}
	t.Cleanup(stop)
	return "http://" + s.Addr(), stop
}

func TestRunServesUntilItsContextEnds(t *testing.T) {
	url, stop := running(t, newFake().options())
	res, err := http.Get(url + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != 200 {
		t.Errorf("answered %d, %v", res.StatusCode, err)
	}
	res.Body.Close()
	stop()
	if res, err := http.Get(url + "/healthz"); err == nil {
		res.Body.Close()
		t.Error("it still answers after Run has ended")
	}
}

// TestRunLetsACallInFlightEnd: the call is answered although the end came while it waited.
func TestRunLetsACallInFlightEnd(t *testing.T) {
	f := newFake()
	entered, leave := make(chan struct{}), make(chan struct{})
	o := f.options()
	o.Status = func(context.Context) Status {
		select {
		case entered <- struct{}{}:
			<-leave
		default: // the beat of the hub
		}
		return Status{}
	}
	url, stop := running(t, o)
	code := make(chan int, 1)
	go func() {
		res, err := http.Get(url + "/v1/status")
		if err != nil {
			code <- 0
			return
		}
		res.Body.Close()
		code <- res.StatusCode
	}()
	<-entered
	done := make(chan struct{})
	go func() { stop(); close(done) }()
	close(leave)
	if got := <-code; got != 200 {
		t.Errorf("the call in flight got %d", got)
	}
	<-done
}

func TestServerWithoutRegisterer(t *testing.T) {
	o := newFake().options()
	o.Registerer, o.Gatherer = nil, prometheus.NewRegistry()
	if a := call(t, New(o), "GET", "/healthz", ""); a.code != 200 {
		t.Errorf("answered %d", a.code)
	}
}
