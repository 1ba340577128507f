package rebeca

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rebeca/consumer"
	"rebeca/schemas"
	"rebeca/snapshot"
)

// versions returns the announcements on the prior topic, in order.
func (s *stand) versions() (out []schemas.PriorVersion) {
	s.t.Helper()
	for _, r := range s.read("prior") {
		if len(r.Value) == 0 {
			continue
		}
		v, err := schemas.DecodePriorVersion(r.Value)
		if err != nil {
			s.t.Fatal(err)
		}
		out = append(out, v)
	}
	return out
}

func trains(c *Config) { c.Roles = []string{RoleTrainer} }

// waits reports whether a process says by name that another one trains.
func (m *member) waits(other *member) bool {
	for _, st := range m.Status().Stopped {
		if st.Code == "other_trainer" && strings.Contains(st.Message, "state "+other.table.State()+" announces versions on topic prior") {
			return strings.Contains(fmt.Sprint(m.Ready()), "trainer_stopped")
		}
	}
	return false
}

// TestOneTrainer starts two processes with the trainer's role on one prior
// topic, the second with another state: it waits by name and announces nothing,
// until the first has ended.
func TestOneTrainer(t *testing.T) {
	f := newFlock(t, 1)
	f.items(300)
	a := f.start("a", trains)
	f.until("a first version", func() bool { return a.trainer.Status().Version != "" })
	b := f.start("b", trains)
	f.until("b waits", func() bool { return b.waits(a) })
	f.crowd("x", 300)
	f.until("a has learned", func() bool { s := a.trainer.Status(); return s.Events == 300 && s.Announced[0] == 300 })
	if s := b.trainer.Status(); s.Step != 0 || s.Born || !b.waits(a) {
		t.Errorf("b trains beside a: %+v", s)
	}
	before := f.versions()
	for _, v := range before {
		if !strings.Contains(v.URI, a.config.priorDir()) {
			t.Errorf("version %s is of %s", v.Version, v.URI)
		}
	}
	f.stop("a") // in order: b need not wait until a has been silent
	f.until("b trains", func() bool { return b.trainer.Status().Version != "" && len(b.Status().Stopped) == 0 })
	if after := f.versions(); len(after) <= len(before) || !strings.Contains(after[len(after)-1].URI, b.config.priorDir()) {
		t.Errorf("%d versions before, then %+v", len(before), after)
	}
}

// claimTrainer writes whose the prior topic is, as another process would.
func (f *flock) claimTrainer(c consumer.Claim) {
	f.t.Helper()
	c.At = time.Now()
	if err := f.client.Commit(f.t.Context(), consumer.Membership{Group: f.config.trainerGroup()},
		map[string]map[int32]consumer.Committed{"prior": {0: {Claim: &c}}}); err != nil {
		f.t.Fatal(err)
	}
}

// TestTrainerThatWasTakenForDeadEnds: a trainer that finds that another one has
// taken its place ends, with the reason.
func TestTrainerThatWasTakenForDeadEnds(t *testing.T) {
	f := newFlock(t, 1)
	f.items(300)
	a := f.start("a", trains)
	f.until("a first version", func() bool { return a.trainer.Status().Version != "" })
	f.until("a ends", func() bool {
		f.claimTrainer(consumer.Claim{State: "other", Epoch: 2}) // once more where a's renewal crossed it
		select {
		case err := <-a.done:
			a.done <- nil
			if !errors.Is(err, consumer.ErrNotOwner) || !strings.Contains(err.Error(), "other_trainer: state other announces versions") {
				t.Errorf("a ended with %v", err)
			}
			return true
		default:
			return false
		}
	})
	found, err := f.client.Committed(t.Context(), f.config.trainerGroup(), "prior", []int32{0})
	if c := found[0].Claim; err != nil || c == nil || c.State != "other" || c.Released {
		t.Errorf("a has taken the other's claim back: %+v, %v", c, err)
	}
}

// TestAnnouncementsAreTheTrainers: a version is announced by whose the topic is
// at that moment only.
func TestAnnouncementsAreTheTrainers(t *testing.T) {
	f := newFlock(t, 1)
	m := f.start("a", own(0))
	f.ready("a")
	claim, err := m.leadOnce(t.Context(), new(silence))
	if err != nil {
		t.Fatal(err)
	}
	announce := func(number int64) error {
		return m.announce(t.Context(), schemas.PriorVersion{
			Version: fmt.Sprintf("%d-x", number), Number: number, URI: "file:///nowhere", SHA256: strings.Repeat("0", 64), CreatedAt: time.Now()})
	}
	f.claimTrainer(consumer.Claim{State: "other", Epoch: claim.Epoch})
	if err := announce(1); !errors.Is(err, consumer.ErrNotOwner) {
		t.Errorf("announced beside another trainer: %v", err)
	}
	if n := len(f.versions()); n != 0 {
		t.Errorf("%d versions are announced", n)
	}
	f.claimTrainer(consumer.Claim{State: "other", Epoch: claim.Epoch - 1}) // an older one's, that came late
	if err := m.leads(t.Context(), claim); err != nil {
		t.Errorf("an older claim counts: %v", err)
	}
}

// TestRestoredStateIsTheTrainer: a state that was restored from a snapshot of
// the trainer, which was killed, need not wait until that one has been silent;
// another state does.
func TestRestoredStateIsTheTrainer(t *testing.T) {
	f := newFlock(t, 1)
	f.items(300)
	a := f.start("a", func(c *Config) { c.Roles = []string{RoleWorker, RoleTrainer} })
	f.ready("a")
	state := a.table.State()
	f.stop("a")
	killed := consumer.Claim{State: state, Epoch: 1, Writer: 1} // it could not release it
	f.claimTrainer(killed)

	c := f.config
	c.State.Dir = filepath.Join(f.config.State.Dir, "restored")
	tb, err := a.config.OpenTable(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	m, err := CreateSnapshot(t.Context(), a.config, tb, nil, slog.New(slog.DiscardHandler), snapshot.Options{})
	if err := errors.Join(err, tb.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := RestoreSnapshot(t.Context(), c, filepath.Join(a.config.SnapshotDir(), m.Name), slog.New(slog.DiscardHandler), snapshot.Options{}); err != nil {
		t.Fatal(err)
	}
	fresh, restored := f.start("fresh", func(c *Config) { c.Group = "elsewhere" }), f.start("restored", func(c *Config) { c.Roles = []string{RoleWorker} })
	f.claimTrainer(killed)
	if _, err := fresh.leadOnce(t.Context(), new(silence)); !errors.Is(err, consumer.ErrNotOwner) {
		t.Errorf("a fresh state takes the claim at once: %v", err)
	}
	f.claimTrainer(killed)
	if _, err := restored.leadOnce(t.Context(), new(silence)); err != nil {
		t.Errorf("the restored state waits: %v", err)
	}
}
