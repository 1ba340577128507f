package rebeca

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rebeca/table"
)

// TestResetPriorNeedsAStoppedService: under a running one it would be undone
// by the next announcement.
func TestResetPriorNeedsAStoppedService(t *testing.T) {
	s := newStand(t)
	s.items(300)
	svc, stop := s.serve()
	s.crowd("a", 300)
	s.until("at rest", func() bool { return svc.Status().PriorVersion != "" && atRest(svc)() })
	announced := len(s.read("prior"))
	if _, err := ResetPrior(t.Context(), s.config, false); !errors.Is(err, table.ErrLocked) || !strings.Contains(err.Error(), "stop the service") {
		t.Errorf("beside a running service: %v", err)
	}
	if n := len(s.read("prior")); n != announced || !exists(s.config.priorDir()) {
		t.Errorf("%d announcements, were %d; checkpoints there: %t", n, announced, exists(s.config.priorDir()))
	}
	stop()

	away := s.config
	away.Kafka.Brokers = []string{"127.0.0.1:1"}
	if _, err := ResetPrior(t.Context(), away, false); err == nil || !strings.HasPrefix(err.Error(), "kafka.brokers: ") || !exists(away.priorDir()) {
		t.Errorf("without a broker: %v", err)
	}
	plan, err := ResetPrior(t.Context(), s.config, true)
	if err != nil || !exists(s.config.priorDir()) {
		t.Errorf("a dry run moves the checkpoints: %v", err)
	}
	done, err := ResetPrior(t.Context(), s.config, false)
	if err != nil || len(done) != len(plan) || len(done) != 2 || exists(s.config.priorDir()) {
		t.Errorf("did %q of %q, %v", done, plan, err)
	}
	records := s.read("prior")
	if last := records[len(records)-1]; last.Value != nil || string(last.Key) != priorKey {
		t.Errorf("the newest announcement is %s", last.Value)
	}
}

func TestOpenTableMakesNone(t *testing.T) {
	c := DefaultConfig()
	c.Prior.Dim = 8
	parent := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	for _, made := range []string{"", "state", "state/table"} {
		if err := os.MkdirAll(filepath.Join(parent, made), 0o755); err != nil {
			t.Fatal(err)
		}
		c.State.Dir = filepath.Join(parent, "state")
		if _, err := c.OpenTable(log); !errors.Is(err, ErrNoState) || !strings.Contains(err.Error(), c.State.Dir) || strings.Contains(err.Error(), "\n") {
			t.Errorf("with %q made: %v", made, err)
		}
		if _, err := os.Stat(filepath.Join(c.tableDir(), "MANIFEST")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("with %q made a table is there now: %v", made, err)
		}
	}
	made, err := table.Open(c.TableOptions(log))
	if err != nil {
		t.Fatal(err)
	}
	if err := made.Close(); err != nil {
		t.Fatal(err)
	}
	opened, err := c.OpenTable(log)
	if err != nil {
		t.Fatal(err)
	}
	if err := opened.Close(); err != nil {
		t.Error(err)
	}
}
