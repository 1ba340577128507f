package online

import (
	"math"
	"slices"
	"testing"
	"time"

	"rebeca/internal/ort"
	"rebeca/prior"
)

// judged is a recipe at the size of a test: a candidate every 16 steps of four
// rounds, scored on what 16 of the stream's events in 64 tell.
func judged() Config {
	c := quick()
	c.FirstEvents, c.FirstSteps = 256, 50
	c.LR, c.LRMin, c.DecaySteps = 5e-3, 3e-3, 300
	c.Idle, c.AnnounceSteps = time.Hour, 16
	return c
}

// heldOutOften makes every eighth event of events one of the held-out slice,
// so that a short stream has enough of them.
func heldOutOften(w *clusters, n, users int) []Example {
	var out []Example
	for i := range n {
		if i%8 == 0 {
			out = append(out, heldOutOnly(w, 1, users)...)
			continue
		}
		out = append(out, w.events(1, users)...)
	}
	return out
}

// driven is a station led by hand, so that a run repeats to the last bit.
func driven(t *testing.T, cfg Config, w *clusters) (*station, *Drive) {
	t.Helper()
	s := newStation(t, cfg, w, t.TempDir())
	d := s.Drive()
	t.Cleanup(d.Close)
	if err := d.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s, d
}

// stream64 folds and learns n events, round by round.
func stream64(t *testing.T, d *Drive, w *clusters, n int) {
	t.Helper()
	for range n / 64 {
		if err := d.Learn(t.Context(), heldOutOften(w, 64, 40)); err != nil {
			t.Fatal(err)
		}
	}
}

// scored is the mean loss of a version's weights on the held-out events that s
// has kept.
func (s *station) scored(v *prior.State) float64 {
	s.t.Helper()
	l, err := prior.NewLearner(v, ort.Options{Threads: 1})
	if err != nil {
		s.t.Fatal(err)
	}
	defer l.Close()
	losses, err := s.heldOut.losses(l, v.Config, stream(1, streamScore, 0), nil, false)
	if err != nil {
		s.t.Fatal(err)
	}
	return mean(losses)
}

// TestGuard shows the guard at work: it lets a sound stream and people whose
// tastes change through, refuses what flipped labels and a learning rate far too
// high make of the weights, goes back, and announces again when that is over.
func TestGuard(t *testing.T) {
	const calm, spoilt, after = 64 * 80, 64 * 72, 64 * 48
	for name, tamper := range map[string]func(int64, *prior.Batch, float64) float64{
		"nothing": nil,
		"drift":   nil,
		"labels":  FlipLabels(calm, calm+spoilt),
		"rate":    TimesRate(30, calm, calm+spoilt),
	} {
		t.Run(name, func(t *testing.T) {
			w := newClusters(3, 4, 400)
			if name == "drift" {
				w.hazard = 1. / 60
			}
			cfg := judged()
			cfg.Tamper = tamper
			s, d := driven(t, cfg, w)
			stream64(t, d, w, calm)
			refused := func() int { return int(counted(t, s.metrics.refusedVersions)) }
			calmRefused, good := refused(), s.last()
			stream64(t, d, w, spoilt)
			worst := s.last()
			spoiltRefused := refused() - calmRefused
			stream64(t, d, w, after)
			t.Logf("%d versions; refused: %d in calm, %d while spoilt, %d in all; went back %v times",
				len(s.heard()), calmRefused, spoiltRefused, refused(), counted(t, s.metrics.returns))
			if good.Metrics["heldout_events"] < float64(cfg.GuardEvents) || good.Metrics["unguarded"] != 0 {
				t.Errorf("the version before is unguarded: %v", good.Metrics)
			}
			if calmRefused > 1 {
				t.Errorf("%d versions refused of a sound stream", calmRefused)
			}
			if tamper == nil {
				if refused() > 1 {
					t.Errorf("%d versions refused of a sound stream", refused())
				}
				return
			}
			if spoiltRefused < cfg.GuardPatience || counted(t, s.metrics.returns) < 1 {
				t.Errorf("%d versions refused, went back %v times", spoiltRefused, counted(t, s.metrics.returns))
			}
			if last := s.last(); last.Number <= worst.Number {
				t.Errorf("nothing is announced once it is over: %d, then %d", worst.Number, last.Number)
			}
			for _, v := range s.heard()[len(s.heard())-cfg.Keep:] {
				st, err := prior.LoadState(v.URI)
				if err != nil {
					t.Fatal(err)
				}
				if got, limit := s.scored(st), 1.3*good.Metrics["heldout_loss"]; got > limit {
					t.Errorf("a version scores %.3f, it had %.3f before", got, good.Metrics["heldout_loss"])
				}
			}
		})
	}
}

func TestPaired(t *testing.T) {
	events := func(users ...string) (out []heldOutEvent) {
		for _, u := range users {
			out = append(out, heldOutEvent{user: u})
		}
		return out
	}
	mine, theirs := []float64{2, 1, 4, 1}, []float64{1, 1, 2, 2}
	worse, se := paired(mine, theirs, events("a", "b", "c", "d"))
	// Differences 1, 0, 2, -1: mean .5, standard deviation √(5/3).
	if math.Abs(worse-.5) > 1e-12 || math.Abs(se-math.Sqrt(5./3)/2) > 1e-12 {
		t.Errorf("%v ± %v", worse, se)
	}
	// Two people whose events agree know less than four.
	if _, wider := paired([]float64{1, 1, 0, 0}, make([]float64, 4), events("a", "a", "b", "b")); wider < .49 {
		t.Errorf("standard error %v of two people", wider)
	}
	if worse, se := paired([]float64{1, 1}, make([]float64, 2), events("a", "a")); (comparison{Worse: worse, WorseSE: se, ReferenceLoss: 1}).beyond(.01, 2) {
		t.Error("one person alone has a version refused")
	}
}

func TestJudge(t *testing.T) {
	now := time.Unix(1000, 0)
	for name, c := range map[string]struct {
		comparison
		first bool
		hold  int64
		want  Verdict
	}{
		"first":                {first: true, want: Unguarded},
		"too few events":       {comparison: comparison{HeldOut: 63, HeldOutLoss: 9}, want: Unguarded},
		"better":               {comparison: comparison{HeldOut: 64, HeldOutLoss: 1, ReferenceLoss: 2, Worse: -1}, want: Guarded},
		"worse, within":        {comparison: comparison{HeldOut: 64, HeldOutLoss: 1.1, ReferenceLoss: 1, Worse: .1, WorseSE: .05}, want: Guarded},
		"worse":                {comparison: comparison{HeldOut: 64, HeldOutLoss: 1.1, ReferenceLoss: 1, Worse: .1, WorseSE: .04}, want: Refused},
		"sure, but hardly":     {comparison: comparison{HeldOut: 64, HeldOutLoss: 1, ReferenceLoss: 1, Worse: .009}, want: Guarded},
		"no number":            {comparison: comparison{HeldOut: 64, NotFinite: true, ReferenceLoss: 1}, want: Refused},
		"no number, few":       {comparison: comparison{HeldOut: 2, NotFinite: true}, want: Refused},
		"held":                 {comparison: comparison{HeldOut: 64, ReferenceLoss: 2, Worse: -1}, hold: 1001, want: Held},
		"held, too few events": {hold: 1001, want: Held},
		"held, and worse":      {comparison: comparison{HeldOut: 64, ReferenceLoss: 1, Worse: 1}, hold: 1001, want: Refused},
		"no longer held":       {comparison: comparison{HeldOut: 64, ReferenceLoss: 2, Worse: -1}, hold: 1000, want: Guarded},
	} {
		tr := &Trainer{cfg: DefaultConfig(), now: func() time.Time { return now }}
		tr.record.HoldUntil = c.hold
		if !c.first {
			tr.guard.ema = []float32{1}
		}
		if got := tr.judge(c.comparison); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// TestReferenceStaysWhileVersionsGetWorse: versions that are each a little worse
// than the reference are announced, and yet all are held against the same one.
func TestReferenceStaysWhileVersionsGetWorse(t *testing.T) {
	tr := &Trainer{}
	for _, c := range []struct {
		number    int64
		verdict   Verdict
		worse     float64
		reference int64
		current   int64
		strikes   int
	}{
		{0, Unguarded, 0, 0, 0, 0}, {1, Unguarded, 0, 1, 1, 0}, {2, Guarded, -.1, 2, 2, 0}, {3, Guarded, .005, 2, 3, 0}, {4, Guarded, .009, 2, 4, 0},
		{5, Refused, .02, 2, 4, 1}, {6, Refused, .02, 2, 4, 2}, {7, Held, -1, 2, 4, 0}, {8, Guarded, 0, 8, 8, 0},
		{9, Unguarded, 0, 8, 9, 0}, // too few events now: it serves, but nobody knows that it is good
	} {
		tr.decided(c.number, c.verdict, comparison{ReferenceLoss: 1, Worse: c.worse})
		r := tr.record
		if r.Reference != c.reference || r.Current != c.current || r.Strikes != c.strikes || r.Verdict != c.verdict {
			t.Errorf("after %d: reference %d, current %d, %d refused in a row", c.number, r.Reference, r.Current, r.Strikes)
		}
	}
}

// TestHalves: one half of the set are the newest events, the other the newest of
// those that came before the mark.
func TestHalves(t *testing.T) {
	w := newClusters(1, 3, 60)
	d := newDrawer(DefaultConfig(), smallPrior(), w, w.shop)
	h := heldOutSet{limit: 8}
	push := func(n int) {
		for range n {
			if err := h.keep(d, heldOutOnly(w, 1, 9)); err != nil {
				t.Fatal(err)
			}
		}
	}
	expect := func(before, newest []int64) {
		t.Helper()
		seen := func(events []heldOutEvent) (out []int64) {
			for _, e := range events {
				out = append(out, e.seen)
			}
			return out
		}
		if !slices.Equal(seen(h.before), before) || !slices.Equal(seen(h.newest), newest) {
			t.Errorf("before %v, newest %v; want %v and %v", seen(h.before), seen(h.newest), before, newest)
		}
	}
	push(6)
	expect(nil, []int64{2, 3, 4, 5})
	h.renew() // at 6
	push(2)
	expect([]int64{2, 3}, []int64{4, 5, 6, 7})
	push(20)
	expect([]int64{2, 3, 4, 5}, []int64{24, 25, 26, 27})
	h.renew()
	push(5)
	expect([]int64{24, 25, 26, 27}, []int64{29, 30, 31, 32})
}

// TestRefill: a restarted trainer finds held-out events in the windows, with
// nothing later in their contexts, none of the forgotten, and takes none twice.
func TestRefill(t *testing.T) {
	w := newClusters(1, 3, 60)
	events := heldOutOften(w, 2000, 20)
	w.forget(userID(3))
	d := newDrawer(DefaultConfig(), smallPrior(), w, w.shop)
	h := heldOutSet{limit: 40}
	if err := h.refill(d, stream(1, streamRefill, 0)); err != nil {
		t.Fatal(err)
	}
	if h.len() != 40 || len(h.before) != 20 {
		t.Fatalf("%d and %d events", len(h.before), len(h.newest))
	}
	for _, e := range h.all() {
		row, _, _ := w.User(e.user)
		later := 0
		for _, o := range row.Window {
			if !o.Older && o.Offset >= e.offset {
				later++
			}
		}
		if e.user == userID(3) || len(e.context) > len(row.Window)-later || e.seen >= h.mark {
			t.Errorf("%s at %d: context of %d, %d entries of the window are not earlier", e.user, e.offset, len(e.context), later)
		}
	}
	if err := h.keep(d, events); err != nil {
		t.Fatal(err)
	}
	at := map[string]map[int64]bool{}
	for _, e := range h.all() {
		if at[e.user] == nil {
			at[e.user] = map[int64]bool{}
		}
		if at[e.user][e.offset] {
			t.Errorf("%s at %d is there twice", e.user, e.offset)
		}
		at[e.user][e.offset] = true
	}
}
