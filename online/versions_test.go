package online

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"rebeca/prior"
)

// versionsOf runs a trainer until it has made n versions of 4 steps each.
func versionsOf(t *testing.T, cfg Config, w *clusters, dir string, n int) *station {
	t.Helper()
	cfg.AnnounceSteps, cfg.Idle = 4, time.Hour
	s := newStation(t, cfg, w, dir)
	s.CatalogueReady()
	s.push(w.events(64+(n-1)*2*64, 9))
	s.run()
	await(t, "versions", func() bool { return len(s.heard()) == n })
	return s
}

func sameWeights(a, b *prior.State) bool {
	return a.Step == b.Step && slices.Equal(a.Params, b.Params) && slices.Equal(a.EMA, b.EMA) && slices.Equal(a.M, b.M) && slices.Equal(a.V, b.V)
}

func loadState(t *testing.T, path string) *prior.State {
	t.Helper()
	st, err := prior.LoadState(path)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// TestPromote makes an older version current, in a running trainer and in a
// stopped one's directory: its weights and moments under a new number, the
// cursor where it was, and learning goes on from there.
func TestPromote(t *testing.T) {
	for _, running := range []bool{true, false} {
		t.Run(fmt.Sprintf("running %t", running), func(t *testing.T) {
			w, dir := newClusters(1, 3, 60), t.TempDir()
			s := versionsOf(t, quick(), w, dir, 4)
			old, cursor := s.heard()[1], s.Status().Cursor
			if running {
				v, err := s.Promote(t.Context(), 2, 0)
				if err != nil || v.Number != 5 || s.last().Version != v.Version || v.Metrics["promoted_from"] != 2 {
					t.Fatalf("promoted to %+v, announced %+v: %v", v, s.last(), err)
				}
				if st := s.Status(); st.Step != old.Step || st.Verdict != Promoted || st.Untold != 0 || !maps.Equal(st.Announced, cursor) {
					t.Errorf("status %+v", st)
				}
			} else {
				s.stop()
				v, err := Promote(dir, 2, 0, slog.New(slog.DiscardHandler))
				if err != nil || v.Number != 5 || v.Step != old.Step {
					t.Fatalf("promoted to %+v, %v", v, err)
				}
				s = newStation(t, quick(), w, dir)
				if !maps.Equal(s.cursor, cursor) {
					t.Errorf("cursor %v, it was %v", s.cursor, cursor)
				}
				s.run()
				await(t, "the promoted version is announced", func() bool { return s.last().Version == v.Version })
			}
			if v := s.last(); !sameWeights(loadState(t, v.URI), loadState(t, old.URI)) {
				t.Errorf("version %d has other weights than %d", v.Number, old.Number)
			}
			s.push(w.events(128, 9))
			await(t, "learning goes on", func() bool { return s.Status().Step >= old.Step+4 })
			s.stop()
			if before := loadState(t, old.URI).Step; s.Status().Step != before+4 {
				t.Errorf("at step %d after 4 steps from %d", s.Status().Step, before)
			}
			list, err := List(dir)
			if err != nil || len(list) < 5 {
				t.Fatalf("%v, %v", list, err)
			}
			for _, v := range list {
				if v.Number == 5 && (v.Verdict != Promoted || v.From != 2 || v.Step != old.Step) || v.Number < 5 && v.Current {
					t.Errorf("listed %+v", v)
				}
			}
		})
	}
}

// TestPromotedTwiceDrawsAnew: going on from the same weights again repeats no
// random number.
func TestPromotedTwiceDrawsAnew(t *testing.T) {
	w := newClusters(1, 3, 60)
	s := versionsOf(t, quick(), w, t.TempDir(), 3)
	at := func() int64 { return s.step + s.record.Refused + s.record.Undone }
	if _, err := s.Promote(t.Context(), 1, 0); err != nil {
		t.Fatal(err)
	}
	s.push(w.events(128, 9))
	await(t, "a version from 1", func() bool { return s.last().Number == 5 })
	if _, err := s.Promote(t.Context(), 1, 0); err != nil {
		t.Fatal(err)
	}
	s.stop()
	if got := at(); got != 12+4 {
		t.Errorf("the random streams are at %d after 16 steps", got)
	}
}

// TestPromotedInTheMiddleOfBirth: a version knows how many steps of birth are in
// its weights, so the rest is taken anew and the rate is not that of steps to come.
func TestPromotedInTheMiddleOfBirth(t *testing.T) {
	c := quick()
	c.BirthSteps, c.FirstSteps, c.BirthTargets = 16, 4, 4
	w := newClusters(1, 3, 60)
	s, d := driven(t, c, w)
	first := s.heard()[0]
	if s.record.Birth != 16 || first.Step != 4 {
		t.Fatalf("born in %d steps, the first version is of step %d", s.record.Birth, first.Step)
	}
	d.Close()
	if _, err := Promote(s.store.dir, first.Number, 0, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	again := newStation(t, c, w, s.store.dir)
	if again.record.Birth != 4 || again.unborn() != 12 {
		t.Errorf("%d steps of birth are said to be in the weights of step 4, %d are left", again.record.Birth, again.unborn())
	}
}

func TestPromoteWhatIsNotThere(t *testing.T) {
	w, dir := newClusters(1, 3, 60), t.TempDir()
	idle := newStation(t, quick(), w, t.TempDir())
	if _, err := idle.Promote(t.Context(), 1, 0); !errors.Is(err, ErrNotLearning) {
		t.Errorf("before birth: %v", err)
	}
	if _, err := Promote(t.TempDir(), 1, 0, slog.New(slog.DiscardHandler)); !errors.Is(err, ErrNoVersion) {
		t.Errorf("in an empty directory: %v", err)
	}
	s := versionsOf(t, quick(), w, dir, 2)
	if _, err := s.Promote(t.Context(), 9, 0); !errors.Is(err, ErrNoVersion) {
		t.Errorf("a number that is not there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Promote(ctx, 1, 0); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if st := s.Status(); st.Step == 0 {
		t.Errorf("%+v", st)
	}
}

// TestHold: what is learned after an operator's choice is announced by nobody
// before the hold ends, in this process or the next, and counts as decided.
func TestHold(t *testing.T) {
	w, dir := newClusters(1, 3, 60), t.TempDir()
	s := versionsOf(t, quick(), w, dir, 3)
	chosen, err := s.Promote(t.Context(), 1, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	held := func(s *station) {
		t.Helper()
		s.push(w.events(128, 9))
		s.caughtUp(w)
		if st := s.Status(); st.Verdict != Held || st.Version != chosen.Version || s.last().Version != chosen.Version || st.Untold > 0 || st.HeldUntil.IsZero() {
			t.Errorf("%+v; announced %+v", st, s.last())
		}
	}
	held(s)
	s.stop()
	if cp, ok, err := Newest(dir, slog.New(slog.DiscardHandler)); err != nil || !ok || cp.Version.Version != chosen.Version {
		t.Errorf("in use is %+v, %v", cp.Version, err)
	}
	again := newStation(t, quick(), w, dir).run()
	await(t, "the choice is announced again", func() bool { return again.last().Version == chosen.Version })
	if st := again.Status(); st.Step != chosen.Step+4 {
		t.Errorf("at step %d, learned up to %d", st.Step, chosen.Step+4)
	}
	held(again)
	// Its own weights again, without a hold: what was learned meanwhile is gone.
	if _, err := again.Promote(t.Context(), chosen.Number, 0); err != nil {
		t.Fatal(err)
	}
	again.push(w.events(64, 9))
	again.caughtUp(w)
	if v := again.last(); v.Step != chosen.Step+2 || v.Metrics["unguarded"] != 1 {
		t.Errorf("after the hold: %+v", v)
	}
}

// TestRestartAfterRefusals: a trainer that is started again after it went back
// goes on as the one that was not, bit for bit.
func TestRestartAfterRefusals(t *testing.T) {
	w := newClusters(3, 4, 400)
	cfg := judged()
	cfg.Tamper = FlipLabels(64*64, 1<<40)
	s, d := driven(t, cfg, w)
	for i := 0; counted(t, s.metrics.returns) == 0; i++ {
		if i == 200 {
			t.Fatal("it never went back")
		}
		stream64(t, d, w, 64)
	}
	newest, _, err := s.store.newest()
	if err != nil || !newest.record.spent(cfg.GuardPatience) {
		t.Fatalf("the newest checkpoint is %+v, %v", newest.record, err)
	}
	if at, taken := s.step+s.record.Refused+s.record.Undone, counted(t, s.metrics.steps); float64(at) != taken {
		t.Errorf("the random streams are at %d after %v steps: some are drawn again", at, taken)
	}
	again := newStation(t, cfg, w, s.store.dir)
	if !maps.Equal(again.cursor, newest.record.Cursor) {
		t.Errorf("cursor %v, the newest candidate knew %v", again.cursor, newest.record.Cursor)
	}
	other := again.Drive()
	defer other.Close()
	if err := other.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again.last().Number != newest.record.Current || again.heldOut.len() < DefaultConfig().GuardEvents {
		t.Errorf("announced %+v, %d is in use; %d held-out events", again.last(), newest.record.Current, again.heldOut.len())
	}
	more := heldOutOften(w, 64, 40)
	for _, d := range []*Drive{d, other} {
		if err := d.Learn(t.Context(), more); err != nil {
			t.Fatal(err)
		}
	}
	if !sameWeights(s.learner.State(), again.learner.State()) {
		t.Errorf("at steps %d and %d the weights differ", s.step, again.step)
	}
}

func TestBefore(t *testing.T) {
	list := func(current int64, versions ...Version) []Version {
		for i := range versions {
			versions[i].Number = int64(i + 1)
			versions[i].Current = versions[i].Number == current
		}
		return versions
	}
	g, r, p1 := Version{Verdict: Guarded}, Version{Verdict: Refused}, Version{Verdict: Promoted, From: 1}
	for i, c := range []struct {
		versions []Version
		want     int64
	}{
		{list(3, g, g, g), 2},
		{list(3, g, r, g), 1},
		{list(2, g, g, r, r), 1},
		{list(3, g, Version{Damage: "bits"}, g), 1},
		{list(5, g, g, g, r, Version{Verdict: Promoted, From: 3}), 2}, // rolled back once more
		{list(6, g, g, g, r, Version{Verdict: Promoted, From: 3}, Version{Verdict: Promoted, From: 5}), 2}, // the choice repeated
		{list(3, g, g, p1), 0},
		{list(1, g), 0},
		{nil, 0},
	} {
		got, err := Before(c.versions)
		if got != c.want || (err == nil) != (c.want > 0) || err != nil && !errors.Is(err, ErrNoVersion) {
			t.Errorf("case %d: %d, %v; want %d", i, got, err, c.want)
		}
	}
}

// TestKept: beside the newest versions older ones stay at growing distances,
// the newest that were withheld, and what is in use.
func TestKept(t *testing.T) {
	dir := t.TempDir()
	store := checkpoints{dir: dir, log: slog.New(slog.DiscardHandler)}
	st, err := prior.NewState(smallPrior(), prior.NewStats([][]float32{{1, 2, 3, 4}, {2, 1, 0, 5}}), 1)
	if err != nil {
		t.Fatal(err)
	}
	numbers := func() (out []int64) {
		files, err := store.list()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			out = append(out, f.number)
		}
		return out
	}
	for n := int64(1); n <= 150; n++ {
		verdict, pinned := Guarded, n
		switch {
		case n > 140:
			verdict, pinned = Refused, 139
		case n == 128: // at an age that is kept: the version below it stands there
			verdict, pinned = Refused, 127
		}
		if _, err := store.save(st, n, record{Verdict: verdict, Current: pinned, Reference: pinned}); err != nil {
			t.Fatal(err)
		}
		store.prune(3, pinned, 131)
	}
	if got, want := numbers(), []int64{64, 127, 131, 136, 138, 139, 140, 148, 149, 150}; !slices.Equal(got, want) {
		t.Errorf("kept %v, want %v", got, want)
	}
	if err := os.WriteFile(filepath.Join(dir, "151-0123456789ab.safetensors"), []byte("no"), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := List(dir)
	if err != nil || len(list) != 11 || list[0].Damage == "" || list[1].Verdict != Refused {
		t.Fatalf("%+v, %v", list, err)
	}
	for _, v := range list {
		if v.Current != (v.Number == 139) {
			t.Errorf("current: %t for %d", v.Current, v.Number)
		}
	}
}
