package rebeca

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rebeca/schemas"
	"rebeca/web"
)

// pretend is a disk whose free space a test sets, in MiB.
type pretend struct{ mib atomic.Int64 }

func (p *pretend) free(string) (int64, error) {
	if p.mib.Load() < 0 {
		return 0, errors.New("stale file handle")
	}
	return p.mib.Load() << 20, nil
}

func TestGuardPausesWithHysteresis(t *testing.T) {
	c := DefaultConfig()
	c.Limits.MinFree = 100
	var disk pretend
	g := newGuard(c, disk.free, slog.New(slog.DiscardHandler))
	for _, step := range []struct {
		mib    int64
		paused bool
	}{{500, false}, {100, false}, {99, true}, {100, true}, {124, true}, {-1, true}, {125, false}, {124, false}, {-1, false}, {1, true}} {
		disk.mib.Store(step.mib)
		if paused := g.look() != nil; paused != step.paused || g.status().Paused != paused || (g.low() != nil) != paused {
			t.Errorf("%d MiB free: paused %v, want %v", step.mib, paused, step.paused)
		}
	}
	if low := g.low(); low.Code != web.CodeDiskLow || !strings.Contains(low.Message, "1 MiB are free") || !strings.Contains(low.Message, "limits.min_free of 100 MiB") {
		t.Errorf("%+v", low)
	}
	for mib, ok := range map[int64]bool{149: false, 150: true} {
		disk.mib.Store(mib)
		if err := g.room(0); (err == nil) != ok {
			t.Errorf("a checkpoint with %d MiB free: %v", mib, err)
		}
	}
	if err := g.room(1 << 20); err == nil {
		t.Error("a snapshot larger than the room is let in")
	}
	if g.min = 0; g.look() != nil || g.room(1<<40) != nil {
		t.Error("a bound of 0 guards something")
	}
}

func TestGuardWait(t *testing.T) {
	c := DefaultConfig()
	var disk pretend
	g := newGuard(c, disk.free, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("wait ends with %v", err)
	}
	done := make(chan error)
	go func() { done <- g.wait(t.Context()) }()
	disk.mib.Store(1 << 20)
	g.look()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestFreeSpaceOfADirectoryToBe(t *testing.T) {
	n, err := freeSpace(t.TempDir() + "/not/yet")
	if err != nil || n <= 0 {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// A low disk pauses fold, generator and door, says so, keeps snapshots and checkpoints out, and everything goes on by itself when there is
// room.
func TestLowDiskPausesAndResumes(t *testing.T) {
	s := newStand(t)
	var disk pretend
	disk.mib.Store(1 << 20)
	s.free = disk.free
	s.items(300)
	s.config.Train.BirthSteps = 0 // they go on while events rest
	svc, _ := s.serve()
	s.crowd("a", 300)
	s.until("at rest", func() bool { return svc.Status().EventsFolded == 300 && atRest(svc)() })
	step := svc.Status()

	disk.mib.Store(1)
	s.crowd("b", 100)
	s.until("paused", func() bool {
		l := svc.Status().Lag.Fold
		return svc.Status().Disk.Paused && l != nil && *l == 100
	})
	if r := svc.Ready(); !slices.ContainsFunc(r, func(r web.Reason) bool { return r.Code == "disk_low" && strings.Contains(r.Message, "limits.min_free") }) {
		t.Errorf("ready says %+v", r)
	}
	if err := svc.guard.room(0); err == nil {
		t.Error("there is room for a checkpoint")
	}
	if _, err := svc.Snapshot(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "free space or enlarge the disk") {
		t.Errorf("a snapshot: %v", err)
	}
	post := func(path, body string) (int, string) {
		t.Helper()
		resp, err := http.Post(svc.URL()+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	feedback := `{"records":[{"user_id":"user-1","item_id":"item-1","kind":"like"}]}`
	if code, text := post("/v1/feedback", feedback); code != http.StatusServiceUnavailable || !strings.Contains(text, "disk_low") {
		t.Errorf("feedback is answered %d %s", code, text)
	}
	if code, text := post("/v1/users/user-1/generate", `{"count":1}`); code != http.StatusServiceUnavailable || !strings.Contains(text, "disk_low") {
		t.Errorf("a request is answered %d %s", code, text)
	}
	disk.mib.Store(svc.guard.min>>20 + 1) // above the bound, not above what ends a pause
	svc.guard.look()
	if st := svc.Status(); !st.Disk.Paused || st.EventsFolded != 300 || st.Step != step.Step {
		t.Errorf("while paused: %+v", st)
	}

	disk.mib.Store(1 << 20)
	s.until("at rest again", func() bool { return svc.Status().EventsFolded == 400 && atRest(svc)() })
	if code, text := post("/v1/feedback", feedback); code != http.StatusOK && code != http.StatusAccepted {
		t.Errorf("feedback is answered %d %s", code, text)
	}
	s.until("ready", func() bool { return len(svc.Ready()) == 0 })
}

// TestForgetEndsEverything forgets a user as an operator does while the service runs.
func TestForgetEndsEverything(t *testing.T) {
	s := newStand(t)
	s.config.State.EraseEvery = time.Second
	s.items(300)
	svc, stop := s.serve()
	s.crowd("a", 300)
	const user = "user-3"
	s.until("at rest", func() bool { return svc.Status().EventsFolded == 300 && atRest(svc)() })
	s.until("published", func() bool {
		m, err := svc.table.GeneratedOf(user, 1)
		return err == nil && len(m) > 0
	})
	log := slog.New(slog.DiscardHandler)
	f, err := Forget(t.Context(), s.client, s.config, user)
	if err != nil || f.Partition != schemas.Partition([]byte(user), 2) || *f.Offset == 0 {
		t.Fatalf("%+v, %v", f, err)
	}
	wait, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := AwaitFold(wait, s.listening(svc), &f, log); err != nil || !f.Folded {
		t.Fatalf("%+v, %v", f, err)
	}
	if _, ok, err := svc.table.User(user); ok || err != nil {
		t.Errorf("the row is there: %v", err)
	}
	if m, err := svc.table.GeneratedOf(user, 10); len(m) > 0 || err != nil {
		t.Errorf("%d memories, %v", len(m), err)
	}
	if _, ok, err := svc.table.VectorOf(user); ok || err != nil {
		t.Errorf("the embedding is there: %v", err)
	}
	s.feedback(schemas.Feedback{EventID: "a-3", UserID: user, ItemID: "item-3", Kind: schemas.KindLike, OccurredAt: time.Now().Add(-time.Hour)})
	s.until("dropped", func() bool { return strings.Contains(get(t, svc.URL()+"/metrics"), "rebeca_forgotten_total 1\n") })
	s.until("erased", func() bool { return svc.Status().ErasePending == 0 })
	vectors := s.read("vectors")
	last := -1
	for i, r := range vectors {
		if string(r.Key) == user {
			last = i
		}
	}
	if last < 0 || vectors[last].Value != nil {
		t.Error("the newest record of the user on vectors is no null")
	}
	if users := svc.Status().Users; users != 9 {
		t.Errorf("%d users are left", users)
	}
	want := mustDigest(t, svc)
	stop()

	if err := AwaitFold(t.Context(), s.config, &f, log); err != nil {
		t.Errorf("asking a stopped state: %v", err)
	}
	unfolded, err := Forget(t.Context(), s.client, s.config, "user-4")
	if err != nil {
		t.Fatal(err)
	}
	if err := AwaitFold(t.Context(), s.config, &unfolded, log); !errors.Is(err, ErrNobodyFolds) || unfolded.Folded {
		t.Errorf("with nobody to fold it: %v", err)
	}
	s.config.State.Dir = t.TempDir() // a replay from the beginning
	svc, _ = s.serve()
	s.until("folded", func() bool { return *svc.Status().Lag.Fold == 0 })
	if _, ok, err := svc.table.User("user-4"); ok || err != nil {
		t.Errorf("user-4 is there: %v", err)
	}
	if got := mustDigest(t, svc); got == want {
		t.Error("the second forget changed nothing")
	}
	if _, ok, err := svc.table.User(user); ok || err != nil {
		t.Errorf("after a replay the row is there: %v", err)
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestPlanForgetRefuses(t *testing.T) {
	for _, user := range []string{"", strings.Repeat("x", schemas.MaxID+1)} {
		if _, err := PlanForget(DefaultConfig(), user); !errors.Is(err, ErrUserID) {
			t.Errorf("a user id of %d bytes: %v", len(user), err)
		}
	}
}
