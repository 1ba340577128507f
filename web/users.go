package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
)

// Bounds of ?limit=.
const (
	defaultLimit = 8
	maxLimit     = 1000
)

func (s *Server) getUser(w http.ResponseWriter, r *http.Request) {
	user, ok, err := s.o.Users.User(r.Context(), r.PathValue("id"))
	switch {
	case err != nil:
		writeError(w, asError(err, CodeInternal))
	case !ok:
		writeError(w, unknownUser(r))
	default:
		writeJSON(w, http.StatusOK, user)
	}
}

// getGenerated answers [] for somebody who gave feedback and got nothing yet, and 404 only for one
// of whom nothing at all is known: images may be asked for before the first feedback.
func (s *Server) getGenerated(w http.ResponseWriter, r *http.Request) {
	limit, err := numberParam(r, "limit", defaultLimit, 1, maxLimit)
	if err != nil {
		writeError(w, asError(err, CodeBadRequest))
		return
	}
	id := r.PathValue("id")
	items, err := s.o.Users.Generated(r.Context(), id, int(limit))
	if err == nil && len(items) == 0 {
		var known bool
		if _, known, err = s.o.Users.User(r.Context(), id); err == nil && !known {
			err = unknownUser(r)
		}
	}
	if err != nil {
		writeError(w, asError(err, CodeInternal))
		return
	}
	if items == nil {
		items = []json.RawMessage{}
	}
	writeJSON(w, http.StatusOK, itemsAnswer{items})
}

func unknownUser(r *http.Request) *Error {
	return &Error{Code: CodeUnknownUser, Message: fmt.Sprintf("nothing is known of user %.64q", r.PathValue("id"))}
}

// numberParam reads a whole number from the query.
func numberParam(r *http.Request, name string, absent, lo, hi uint64) (uint64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return absent, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n < lo || n > hi {
		return 0, &Error{Code: CodeBadRequest, Message: fmt.Sprintf("%s must be a whole number in %d..%d, is %.64q", name, lo, hi, text)}
	}
	return n, nil
}
