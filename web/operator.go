package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Operator is what the verbs of operators ask of a service that holds the state they would open.
type Operator interface {
	// Inspect writes a part of the state as JSON lines; what is one of Inspectable.
	Inspect(what string, w io.Writer) error
	// Snapshot writes a consistent cut of the state to the service's own directory of snapshots and
	// returns its manifest, of some partitions ("2-3") or of all (""). It goes on until it is done
	// or ctx ends.
	Snapshot(ctx context.Context, partitions string) (manifest any, err error)
	// PromotePrior makes an earlier checkpoint the version in use, for hold at least, and returns the
	// announcement of its new number.
	PromotePrior(ctx context.Context, number int64, hold time.Duration) (version any, err error)
}

// Inspectable are the parts of a state that can be looked at.
var Inspectable = []string{"users", "offsets", "outbox", "digest"}

func (s *Server) getInspect(w http.ResponseWriter, r *http.Request) {
	what := r.PathValue("what")
	if !slices.Contains(Inspectable, what) {
		writeError(w, &Error{Code: CodeNotFound, Message: fmt.Sprintf("%q is not one of %s", what, strings.Join(Inspectable, ", "))})
		return
	}
	w.Header().Set("Content-Type", "application/jsonl")
	if err := s.o.Operator.Inspect(what, w); err != nil {
		level := slog.LevelError
		if r.Context().Err() != nil {
			level = slog.LevelDebug // the client went away
		}
		s.o.Logger.Log(r.Context(), level, "inspecting the state", "what", what, "err", err)
		// The answer has begun: cutting the connection is the one way to say that it is not whole.
		panic(http.ErrAbortHandler)
	}
}

func (s *Server) postSnapshot(w http.ResponseWriter, r *http.Request) {
	m, err := s.o.Operator.Snapshot(r.Context(), r.URL.Query().Get("partitions"))
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			writeError(w, asError(err, CodeInternal))
		}
		return
	}
	writeJSON(w, http.StatusOK, m)
}

func (s *Server) postPromotePrior(w http.ResponseWriter, r *http.Request) {
	number, err := strconv.ParseInt(r.PathValue("number"), 10, 64)
	if err != nil || number < 1 {
		writeError(w, &Error{Code: CodeNotFound, Message: fmt.Sprintf("%q is no number of a version", r.PathValue("number"))})
		return
	}
	hold := time.Duration(0)
	if text := r.URL.Query().Get("hold"); text != "" {
		if hold, err = time.ParseDuration(text); err != nil || hold < 0 {
			writeError(w, &Error{Code: CodeBadRequest, Message: fmt.Sprintf("hold: %q is no duration such as 1h, from 0s on", text)})
			return
		}
	}
	v, err := s.o.Operator.PromotePrior(r.Context(), number, hold)
	if err != nil {
		writeError(w, asError(err, CodeInternal))
		return
	}
	writeJSON(w, http.StatusOK, v)
}
