package web

import (
	"net/http"
	"time"
)

const (
	// keepAlive is shorter than the idle limits of common proxies.
	keepAlive = 15 * time.Second
	// frameDeadline is how long a page may block one write before its stream is ended.
	frameDeadline = 10 * time.Second
)

// getEvents streams server-sent events: history, status, people, feedback, generated. ?user= adds
// one user's events to those of the people on show.
func (s *Server) getEvents(w http.ResponseWriter, r *http.Request) {
	stream, start, err := s.hub.open(r.Context(), r.URL.Query().Get("user"))
	if err != nil {
		writeError(w, asError(err, CodeInternal))
		return
	}
	defer s.hub.close(stream)
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would hold the events back
	out := http.NewResponseController(w)
	write := func(frames ...[]byte) bool {
		_ = out.SetWriteDeadline(time.Now().Add(frameDeadline)) // no deadlines: a test's writer
		for _, f := range frames {
			if _, err := w.Write(f); err != nil {
				return false
			}
		}
		return out.Flush() == nil
	}
	if !write(start...) {
		return
	}
	idle := time.NewTicker(keepAlive)
	defer idle.Stop()
	for {
		ok := true
		select {
		case f := <-stream.frames:
			ok = write(f)
		case <-idle.C:
			ok = write([]byte(": \n\n"))
		case <-r.Context().Done():
			return
		case <-s.closing:
			return
		}
		if !ok {
			return
		}
	}
}
