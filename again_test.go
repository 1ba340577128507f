package rebeca

import (
	"fmt"
	"log/slog"
	"testing"

	"rebeca/schemas"
	"rebeca/snapshot"
	"rebeca/table"
)

// TestNothingIsPublishedAgain folds the same tail a second and a third time:
// from a snapshot that is older than the log, and from nothing at all. Requests,
// feedback and bad records of the tail have had their answers, and get no other.
func TestNothingIsPublishedAgain(t *testing.T) {
	s := newStand(t)
	s.items(300)
	svc, stop := s.serve()
	s.crowd("a", 300)
	s.until("at rest", func() bool { return svc.Status().EventsFolded == 300 && atRest(svc)() })
	m, err := SnapshotRunning(t.Context(), s.listening(svc), nil)
	if err != nil {
		t.Fatal(err)
	}
	tail := func(run string, events uint64) {
		t.Helper()
		s.crowd(run, 100)
		s.produce("feedback", []byte("user-1"), []byte("no JSON "+run))
		request := schemas.Request{RequestID: run, UserID: "user-2", Count: 3}
		value, err := request.Encode()
		if err != nil {
			t.Fatal(err)
		}
		s.produce("requests", []byte("user-2"), value)
		s.until("at rest after "+run, func() bool { return svc.Status().EventsFolded == events && s.answered(run) == 3 && atRest(svc)() })
	}
	tail("b", 400)
	stop()
	path := s.config.SnapshotDir() + "/" + m.Name
	for i, c := range []struct {
		restore bool
		again   uint64 // events folded again
	}{{true, 100}, {false, 500}} {
		s.config.State.Dir = t.TempDir()
		if c.restore {
			if _, err := RestoreSnapshot(t.Context(), s.config, path, slog.New(slog.DiscardHandler), snapshot.Options{}); err != nil {
				t.Fatal(err)
			}
		}
		svc, stop = s.serve()
		s.until("folded again", func() bool { return svc.Status().EventsFolded == c.again && atRest(svc)() })
		tail(fmt.Sprint("tail ", i), c.again+100)
		stop()
		s.generated() // fails on an id that stands twice
		if got, want := s.places(), 2+i; len(got) != want {
			t.Errorf("dead letters of %v, want %d", got, want)
		}
	}
}

// answered counts the images published for a request of user-2.
func (s *stand) answered(requestID string) (n int) {
	for _, r := range s.read("generated") {
		if g, err := schemas.DecodeGenerated(r.Value); err == nil && g.RequestID == requestID {
			n++
		}
	}
	return n
}

// places returns where the dead letters came from and fails on a place that
// stands twice.
func (s *stand) places() map[string]bool {
	s.t.Helper()
	out := map[string]bool{}
	for _, r := range s.read("deadletter") {
		place := ""
		for _, h := range r.Headers {
			switch h.Key {
			case table.HeaderTopic, table.HeaderPartition, table.HeaderOffset:
				place += "/" + string(h.Value)
			}
		}
		if out[place] {
			s.t.Errorf("the dead letter of %s is published twice", place)
		}
		out[place] = true
	}
	return out
}

// TestOneOfTwoProcessesSends splits the roles: a worker and a trainer fold the
// same log, and one of them sends the dead letters.
func TestOneOfTwoProcessesSends(t *testing.T) {
	s := newStand(t)
	s.produce("feedback", []byte("u"), []byte("no JSON"))
	s.produce("items", []byte("i"), []byte("no JSON"))
	s.produce("feedback", []byte("u"), nil)
	for _, role := range []string{RoleWorker, RoleTrainer} {
		s.config.Roles, s.config.State.Dir = []string{role}, t.TempDir()
		svc, stop := s.serve()
		s.until("sent", func() bool { return *svc.Status().Lag.Publish == 0 })
		stop()
	}
	if n := len(s.places()); n != 2 {
		t.Errorf("%d dead letters, want 2", n)
	}
	if n := len(s.read("vectors")); n != 1 {
		t.Errorf("%d tombstones, want 1", n)
	}
}
