package rebeca

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"rebeca/online"
)

// TestPromotePrior goes back to an earlier version in a running service, which
// keeps to it while people go on, and in the stopped one, whose next start
// announces it.
func TestPromotePrior(t *testing.T) {
	s := newStand(t)
	s.items(300)
	s.config.Train.BirthSteps = 0
	svc, stop := s.serve()
	s.crowd("a", 300)
	first := func() bool { return svc.Status().PriorVersion != "" && atRest(svc)() }
	s.until("version 1", first)
	s.crowd("b", 128)
	s.until("a later version", func() bool { return svc.Status().PriorNumber > 1 && atRest(svc)() })
	log := slog.New(slog.DiscardHandler)

	before := svc.Status()
	versions, err := PriorVersions(s.config)
	if err != nil || len(versions) < 2 || !versions[0].Current || versions[0].Version != before.PriorVersion {
		t.Fatalf("versions %+v, %v; in use is %s", versions, err, before.PriorVersion)
	}
	want, err := online.Before(versions)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := PlanPromotePrior(s.config, 0, time.Hour)
	if err != nil || plan.From.Number != want || plan.Version != "" || svc.Status().PriorVersion != before.PriorVersion {
		t.Errorf("the plan is %+v, %v; in use is %s", plan, err, svc.Status().PriorVersion)
	}
	listening := s.listening(svc)
	done, err := PromotePrior(t.Context(), listening, 0, time.Hour, log)
	if err != nil || !done.Running || done.From.Number != want || done.Number != before.PriorNumber+1 {
		t.Fatalf("promoted %+v, %v", done, err)
	}
	s.until("the choice is in use", func() bool { return svc.Status().PriorVersion == done.Version && atRest(svc)() })
	s.crowd("c", 128)
	s.until("at rest", func() bool { return svc.Status().EventsFolded >= before.EventsFolded+128 && atRest(svc)() })
	if st := svc.Status(); st.PriorVersion != done.Version || st.Training.Verdict != string(online.Held) || !st.Training.HeldUntil.After(time.Now()) {
		t.Errorf("in use is %s; %+v", st.PriorVersion, st.Training)
	}
	if _, err := PromotePrior(t.Context(), listening, 12345, 0, log); !errors.Is(err, online.ErrNoVersion) {
		t.Errorf("a number that is not there: %v", err)
	}
	if _, err := promoteRunning(t.Context(), listening, 12345, 0); err == nil {
		t.Error("the running service promotes what is not there")
	}
	stop()

	again, err := PromotePrior(t.Context(), s.config, want, 0, log)
	if err != nil || again.Running || again.Number <= done.Number {
		t.Fatalf("promoted %+v, %v", again, err)
	}
	svc, _ = s.serve()
	s.until("the choice is in use", func() bool { return svc.Status().PriorVersion == again.Version })
}
