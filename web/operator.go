package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
)

// Operator is what the verbs of operators ask of a service that holds the state they would open.
type Operator interface {
	// Inspect writes a part of the state as JSON lines; what is one of Inspectable.
	Inspect(what string, w io.Writer) error
	// Snapshot writes a consistent cut of the state to the service's own directory of snapshots and
	// returns its manifest, of some partitions ("2-3") or of all (""). It goes on until it is done
	// or ctx ends.
	Snapshot(ctx context.Context, partitions string) (manifest any, err error)
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
