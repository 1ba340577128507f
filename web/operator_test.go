package web

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// bounded remembers the write deadline of its connection, which a call leaves
// to the next one.
type bounded struct {
	*httptest.ResponseRecorder
	deadline time.Time
}

func (b *bounded) SetWriteDeadline(t time.Time) error {
	b.deadline = t
	return nil
}

func TestStreamsInheritNoDeadline(t *testing.T) {
	s := New(populated().options())
	for target, stream := range map[string]bool{
		"GET /v1/inspect/users": true, "POST /v1/snapshots": true, "GET /v1/status": false, "GET /healthz": false,
	} {
		method, path, _ := strings.Cut(target, " ")
		earlier := time.Now().Add(-time.Second)
		w := &bounded{httptest.NewRecorder(), earlier}
		s.Handler().ServeHTTP(w, httptest.NewRequest(method, "http://localhost"+path, nil))
		if w.Code != http.StatusOK || w.deadline.IsZero() != stream || w.deadline.Equal(earlier) {
			t.Errorf("%s answers %d under the deadline %v, a stream: %t", target, w.Code, w.deadline, stream)
		}
	}
}

// broken is a connection that takes nothing any more.
type broken struct{ *httptest.ResponseRecorder }

func (broken) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestAClientThatLeavesInspectIsNoError(t *testing.T) {
	for _, left := range []bool{true, false} {
		var log bytes.Buffer
		o := populated().options()
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		if left {
			leave()
		}
		r := httptest.NewRequestWithContext(ctx, "GET", "http://localhost/v1/inspect/users", nil)
		func() {
			defer func() {
				if p := recover(); p != http.ErrAbortHandler {
					t.Errorf("the answer that is not whole ends with %v", p)
				}
			}()
			New(o).Handler().ServeHTTP(broken{httptest.NewRecorder()}, r)
		}()
		if logged := strings.Contains(log.String(), "level=ERROR"); logged == left {
			t.Errorf("client left: %t, the log says %q", left, log.String())
		}
	}
}
