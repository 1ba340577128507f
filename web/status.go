package web

import "net/http"

func (s *Server) getStatus(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, http.StatusOK, s.o.Status(r.Context()))
}

// getHealth says that the process answers, nothing more: restarting it would not mend a lost broker.
func (s *Server) getHealth(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

type readyAnswer struct {
	Ready   bool     `json:"ready"`
	Reasons []Reason `json:"reasons"`
	Error   *Error   `json:"error,omitempty"`
}

func (s *Server) getReady(w http.ResponseWriter, r *http.Request) {
	reasons := s.o.Ready(r.Context())
	if len(reasons) == 0 {
		writeJSON(w, http.StatusOK, readyAnswer{Ready: true, Reasons: []Reason{}})
		return
	}
	writeJSON(w, http.StatusServiceUnavailable, readyAnswer{Reasons: reasons, Error: &Error{Code: CodeNotReady, Message: reasons[0].Message}})
}
