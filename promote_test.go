package rebeca

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rebeca/consumer"
	"rebeca/schemas"
	"rebeca/table"
)

func (s *stand) promotion(from string) *Promotion {
	return &Promotion{Config: s.config, From: from, Connect: s.config.NewClient, Logger: quiet}
}

func (s *stand) promoted(from string) Promoted {
	s.t.Helper()
	done, err := s.promotion(from).Run(s.t.Context(), false)
	if err != nil {
		s.t.Fatal(err)
	}
	return done
}

// traffic is what comes in: events, a bad record of each topic, a request.
func (s *stand) traffic(run string) {
	s.t.Helper()
	s.crowd(run, 60)
	s.produce("feedback", []byte("user-1"), []byte("no JSON "+run))
	s.produce("items", []byte("item-1"), []byte("no JSON "+run))
	request, err := schemas.Request{RequestID: run, UserID: "user-2", Count: 3}.Encode()
	if err != nil {
		s.t.Fatal(err)
	}
	s.produce("requests", []byte("user-2"), request)
}

// TestPromote puts a state that other rules made in the place of a running
// service's, goes on, and takes it back. Records come before, between and after;
// in the end each output is there once, each request answered once, and the facts
// are those of a replay by the rules in force.
func TestPromote(t *testing.T) {
	s := newStand(t)
	s.items(300)
	svc, stop := s.serve()
	s.crowd("first", 300)
	s.traffic("before")
	s.until("at rest", func() bool { return s.answered("before") == 3 && atRest(svc)() })

	dir := t.TempDir()
	r := s.replay(filepath.Join(dir, "new"))
	r.Config.Dedupe.Events, r.Config.Window = 32, WindowConfig{Newest: 40, Liked: 12}
	s.replayed(r)
	s.traffic("beside") // the replay has not seen this
	s.until("at rest", func() bool { return s.answered("beside") == 3 && atRest(svc)() })
	if _, err := s.promotion(r.Into).Run(t.Context(), false); !errors.Is(err, table.ErrLocked) || !strings.Contains(err.Error(), "stop the service first") {
		t.Fatalf("beside a running service: %v", err)
	}
	stop()
	if _, err := s.promotion(r.Into).Run(t.Context(), false); !errors.Is(err, table.ErrRules) || !strings.Contains(err.Error(), "into the configuration first") {
		t.Fatalf("by other rules than the configuration's: %v", err)
	}
	old := s.config
	s.config = r.Config
	before := s.stopped(s.config.State.Dir).SHA256
	plan, err := s.promotion(r.Into).Run(t.Context(), true)
	if err != nil || len(plan.Folded) == 0 || plan.Aside != "" {
		t.Fatalf("dry run: %+v, error %v", plan, err)
	}
	if d := s.stopped(s.config.State.Dir).SHA256; d != before {
		t.Error("a dry run changed the facts")
	}
	s.traffic("away") // and this nobody has
	follow := s.replay(r.Into)
	s.replayed(follow) // now it is ahead of the service
	done := s.promoted(r.Into)
	if !slices.ContainsFunc(done.Folded, func(c Caught) bool { return c.State == "replaced" && c.Topic == "feedback" }) {
		t.Errorf("the replaced state folds nothing: %+v", done)
	}
	if _, err := os.Stat(r.Into); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the replay's directory is still there: %v", err)
	}
	s.goesOn(dir, "after")

	s.config = old
	back := s.promoted(done.Aside)
	if back.Aside == done.Aside || len(back.Folded) == 0 {
		t.Errorf("%+v", back)
	}
	s.goesOn(dir, "again")
}

// goesOn serves on a promoted state.
func (s *stand) goesOn(dir, run string) {
	s.t.Helper()
	svc, stop := s.serve()
	s.traffic(run)
	s.until("at rest", func() bool { return s.answered(run) == 3 && atRest(svc)() })
	facts := mustDigest(s.t, svc)
	vectors := 0
	if err := svc.table.Export(func(c table.Cut) error {
		return c.Users(func(r table.Row, v *table.Vector) error {
			if v != nil && v.Events == r.Events {
				vectors++
			}
			return nil
		})
	}); err != nil {
		s.t.Fatal(err)
	}
	if vectors != svc.table.UserCount() || vectors == 0 {
		s.t.Errorf("%d vectors of %d users are of the new facts", vectors, svc.table.UserCount())
	}
	stop()
	if want := s.replayed(s.replay(filepath.Join(dir, "check-"+run))).SHA256; facts != want {
		s.t.Errorf("%s: the facts are %s, a replay makes %s", run, facts, want)
	}
	s.generated() // fails on an id that stands twice
	for _, run := range []string{"before", "beside", "away", run} {
		if n := s.answered(run); n != 3 {
			s.t.Errorf("request %s has %d images, want 3", run, n)
		}
	}
	want := map[string]int{"after": 8, "again": 10}[run] // two of each traffic
	if got := len(s.places()); got != want {
		s.t.Errorf("%s: %d dead letters, want %d", run, got, want)
	}
}

// TestPromoteKilled leaves what a kill leaves after each rename; whatever opens
// the state next finishes the promotion.
func TestPromoteKilled(t *testing.T) {
	for name, kill := range map[string]func(t *testing.T, s *stand, into string){
		"after the first rename": func(t *testing.T, s *stand, into string) {
			s.rename(s.config.at(into).tableDir(), filepath.Join(s.config.State.Dir, promotedName))
		},
		"after the second": func(t *testing.T, s *stand, into string) {
			s.rename(s.config.at(into).tableDir(), filepath.Join(s.config.State.Dir, promotedName))
			aside := filepath.Join(s.config.State.Dir, asidePrefix+"x")
			if err := os.Mkdir(aside, 0o755); err != nil {
				t.Fatal(err)
			}
			s.rename(s.config.tableDir(), filepath.Join(aside, "table"))
		},
	} {
		for _, next := range []string{"inspect", "serve", "promote", "reset"} {
			t.Run(name+", then "+next, func(t *testing.T) {
				s := newStand(t)
				s.config.Roles = []string{RoleWorker}
				s.history(1, 100)
				r := s.replay(s.config.State.Dir + "-live")
				s.replayed(r)
				s.rename(r.Into, s.config.State.Dir)
				s.history(2, 50)
				r = s.replay(filepath.Join(t.TempDir(), "new"))
				want := s.replayed(r).SHA256
				kill(t, s, r.Into)
				switch next {
				case "serve":
					_, stop := s.serve()
					stop()
				case "promote":
					if done := s.promoted(r.Into); done.Aside == "" {
						t.Errorf("%+v", done)
					}
				case "reset":
					if _, err := ResetPrior(t.Context(), s.config, false); err != nil {
						t.Error(err)
					}
				}
				if got := s.stopped(s.config.State.Dir).SHA256; got != want {
					t.Errorf("the facts are %s, the promoted were %s", got, want)
				}
				if found, _ := filepath.Glob(filepath.Join(s.config.State.Dir, asidePrefix+"*", "table", "MANIFEST")); len(found) != 1 {
					t.Errorf("the replaced state is in %v", found)
				}
			})
		}
	}
}

// rename moves a directory, in place of an empty one.
func (s *stand) rename(from, to string) {
	s.t.Helper()
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.t.Fatal(err)
	}
	if err := os.Rename(from, to); err != nil {
		s.t.Fatal(err)
	}
}

// TestPromoteRefuses, and leaves both states as they are.
func TestPromoteRefuses(t *testing.T) {
	s := newStand(t)
	s.history(1, 100)
	live := s.replay(s.config.State.Dir + "-live")
	s.replayed(live)
	s.rename(live.Into, s.config.State.Dir)
	half := s.replay(t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	half.Progress = func(int64, int64) { cancel() }
	if _, err := half.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	whole := s.replay(filepath.Join(t.TempDir(), "whole"))
	s.replayed(whole)
	want := s.stopped(s.config.State.Dir).SHA256
	unlock, err := s.config.lockState()
	if err != nil {
		t.Fatal(err)
	}
	busy := s.promotion(whole.Into)
	if _, err := busy.Run(t.Context(), false); !errors.Is(err, table.ErrLocked) {
		t.Errorf("beside another promotion: %v", err)
	}
	if _, err := s.config.OpenTable(quiet); !errors.Is(err, table.ErrLocked) {
		t.Errorf("a verb beside a promotion: %v", err)
	}
	unlock()
	nowhere := s.promotion(whole.Into)
	nowhere.Config.State.Dir = filepath.Join(t.TempDir(), "absent")
	apart := s.promotion(whole.Into)
	apart.Connect = func() (*consumer.Client, error) { return nil, errors.New("no broker") }
	for name, c := range map[string]struct {
		p    *Promotion
		want string
	}{
		"half a replay": {s.promotion(half.Into), "is not finished: run it again, with --from earliest --to latest"},
		"nothing":       {s.promotion(t.TempDir()), "`rebeca replay --into "},
		"into nothing":  {nowhere, "`rebeca serve` makes one"},
	} {
		if _, err := c.p.Run(t.Context(), false); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
	s.history(2, 20)
	s.replayed(s.replay(whole.Into))
	if _, err := apart.Run(t.Context(), false); err == nil || !strings.Contains(err.Error(), "no broker") {
		t.Errorf("states apart and no broker: %v", err)
	}
	if got := s.stopped(s.config.State.Dir).SHA256; got != want {
		t.Errorf("the facts are %s, were %s", got, want)
	}
	if got := s.stopped(whole.Into).SHA256; got == want {
		t.Error("the replay is not what it was")
	}
}

// diffed runs a comparison.
func (s *stand) diffed(d Diff) (DiffTotals, map[string]UserDiff) {
	s.t.Helper()
	users, last := map[string]UserDiff{}, ""
	sum, err := d.Run(s.t.Context(), func(u UserDiff) error {
		if key := fmt.Sprintf("%d/%s", u.Partition, u.UserID); key <= last {
			s.t.Errorf("%s comes after %s", key, last)
		} else {
			last = key
		}
		users[u.UserID] = u
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return sum, users
}

// TestDiff compares states that differ in known ways, one of them through the
// service that holds it.
func TestDiff(t *testing.T) {
	s := newStand(t)
	s.config.Roles = []string{RoleWorker}
	three := 3.0
	say := func(user, event string, kind schemas.Kind) {
		f := schemas.Feedback{EventID: event, UserID: user, ItemID: "i", Kind: kind}
		if kind == schemas.KindRating {
			f.Value = &three
		}
		s.feedback(f)
	}
	for i := range 12 {
		say(fmt.Sprintf("same-%d", i), "e", schemas.KindLike)
	}
	say("rater", "e", schemas.KindRating) // of another class by the paper's rules
	svc, _ := s.serve()
	s.until("folded", func() bool { return svc.Status().EventsFolded == 13 })
	a, b := s.replay(filepath.Join(t.TempDir(), "a")), s.replay(filepath.Join(t.TempDir(), "b"))
	b.Config.Classes.Preset = "paper"
	s.replayed(a)
	s.replayed(b)
	say("late", "e", schemas.KindLike) // to the service alone
	say("same-0", "late", schemas.KindLike)
	s.until("folded", func() bool { return svc.Status().EventsFolded == 15 })

	sum, users := s.diffed(Diff{Config: s.config, A: a.Into, B: b.Into, Logger: quiet})
	if sum.UsersA != 13 || sum.UsersB != 13 || sum.Same != 12 || sum.Windows != 1 || sum.Counts != 0 || sum.Later != 0 || len(users) != 1 {
		t.Errorf("%+v, %+v", sum, users)
	}
	if u := users["rater"]; !u.Window || u.Counts || u.OnlyInA != 1 || u.OnlyInB != 1 || u.A.Negatives != 1 {
		t.Errorf("%+v", u)
	}
	running := s.listening(svc)
	sum, users = s.diffed(Diff{Config: running, A: running.State.Dir, B: b.Into, Logger: quiet})
	if u := users["late"]; sum.UsersA != 14 || sum.OnlyA != 1 || sum.Later != 2 || len(users) != 3 || u.Only != "a" || !u.Later || u.B != nil || u.A.Events != 1 {
		t.Errorf("%+v, %+v", sum, users)
	}
	if u := users["same-0"]; !u.Later || !u.Counts || u.A.Events != 2 || u.B.Events != 1 {
		t.Errorf("%+v", u)
	}
	sum, users = s.diffed(Diff{Config: running, A: b.Into, B: running.State.Dir, Logger: quiet})
	if u := users["late"]; sum.UsersB != 14 || sum.OnlyB != 1 || u.Only != "b" || !u.Later || len(sum.OffsetsA) == 0 || len(sum.OffsetsB) == 0 {
		t.Errorf("%+v, %+v", sum, users)
	}
	d := Diff{Config: s.config, A: filepath.Join(t.TempDir(), "absent"), B: b.Into, Logger: quiet}
	if _, err := d.Run(t.Context(), func(UserDiff) error { return nil }); !errors.Is(err, ErrNoState) {
		t.Errorf("a directory that is not there: %v", err)
	}
	stopped := errors.New("the reader has enough")
	if _, err := (&Diff{Config: s.config, A: a.Into, B: b.Into, Logger: quiet}).Run(t.Context(), func(UserDiff) error { return stopped }); !errors.Is(err, stopped) {
		t.Errorf("a reader that stops: %v", err)
	}
}

// TestDiffVectors compares embeddings where both states have one of the same
// prior.
func TestDiffVectors(t *testing.T) {
	s := newStand(t)
	s.feedback(schemas.Feedback{EventID: "e", UserID: "u", ItemID: "i", Kind: schemas.KindLike})
	p := schemas.Partition([]byte("u"), 2)
	var dirs []string
	for _, v := range []struct {
		first   float32
		version string
	}{{1, "1-x"}, {1, "1-x"}, {2, "1-x"}, {2, "2-y"}} {
		r := s.replay(filepath.Join(t.TempDir(), "r"))
		s.replayed(r)
		tb, err := s.config.at(r.Into).OpenTable(quiet)
		if err != nil {
			t.Fatal(err)
		}
		values := make([]float32, testDim)
		values[0] = v.first
		err = tb.Complete(p, []table.Completion{{UserID: "u", Vector: &table.Vector{Values: values, PriorVersion: v.version, Events: 1}}})
		if err := errors.Join(err, tb.Close()); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, r.Into)
	}
	for i, want := range []DiffTotals{1: {Same: 1}, 2: {Vectors: 1}, 3: {Same: 1, Uncompared: 1}} {
		if i == 0 {
			continue
		}
		sum, _ := s.diffed(Diff{Config: s.config, A: dirs[0], B: dirs[i], Logger: quiet})
		if sum.Same != want.Same || sum.Vectors != want.Vectors || sum.Uncompared != want.Uncompared {
			t.Errorf("states 0 and %d: %+v", i, sum)
		}
	}
}
