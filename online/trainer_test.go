package online

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"

	"rebeca/internal/ort"
	"rebeca/prior"
	"rebeca/schemas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// openRuntime loads ONNX Runtime once for the process.
func openRuntime(t testing.TB) {
	t.Helper()
	path, err := ort.Locate("")
	if err != nil {
		t.Fatal(err)
	}
	if err := ort.Open(path); err != nil {
		t.Fatal(err)
	}
}

// quick is the default recipe at the size of a test: no version by the clock,
// one at rest.
func quick() Config {
	c := DefaultConfig()
	c.FirstEvents, c.FirstSteps, c.MinItems = 64, 4, 32
	c.BirthSteps, c.PseudoShare, c.IdleSteps = 0, 0, 0
	c.Idle, c.AnnounceEvery, c.AnnounceSteps = 20*time.Millisecond, time.Hour, 1<<30
	return c
}

// station is a trainer in a test, with the versions it announced.
type station struct {
	*Trainer
	t        testing.TB
	cursor   map[int32]int64
	mu       sync.Mutex
	versions []schemas.PriorVersion
	refuse   error // of announce
	stop     func()
}

func (s *station) hear(_ context.Context, v schemas.PriorVersion) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil {
		return s.refuse
	}
	s.versions = append(s.versions, v)
	return nil
}

func (s *station) heard() []schemas.PriorVersion {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]schemas.PriorVersion(nil), s.versions...)
}

func (s *station) last() schemas.PriorVersion {
	v := s.heard()
	if len(v) == 0 {
		return schemas.PriorVersion{}
	}
	return v[len(v)-1]
}

// newStation opens a trainer without running it.
func newStation(t testing.TB, cfg Config, w *clusters, dir string) *station {
	t.Helper()
	openRuntime(t)
	s := &station{t: t}
	s.Trainer = newTrainer(cfg, smallPrior(), w, w.shop, dir, s.hear, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	var err error
	if s.cursor, err = s.Open(); err != nil {
		t.Fatal(err)
	}
	return s
}

// run starts the trainer; it is stopped with the test or by stop.
func (s *station) run() *station {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Errorf("Run: %v", err)
		}
	})
	s.t.Cleanup(s.stop)
	return s
}

func (s *station) push(events []Example) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.Push(ctx, events); err != nil {
		s.t.Fatal(err)
	}
}

// counted returns a counter's value.
func counted(t testing.TB, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

// await polls until cond holds.
func await(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// caughtUp waits until the announced version knows all of w's events.
func (s *station) caughtUp(w *clusters) {
	s.t.Helper()
	await(s.t, "the announced version knows all events", func() bool {
		a := s.Status().Announced
		for p, next := range w.offsets {
			if next > 0 && a[int32(p)] != next {
				return false
			}
		}
		return a != nil
	})
}

func TestBirth(t *testing.T) {
	w := newClusters(1, 3, 60)
	s := newStation(t, quick(), w, t.TempDir()).run()
	if s.cursor != nil {
		t.Errorf("a trainer without checkpoints starts at %v", s.cursor)
	}
	s.push(w.events(63, 9))
	s.CatalogueReady()
	s.CatalogueReady()
	await(t, "birth", func() bool { st := s.Status(); return st.Born && st.Events == 63 })
	if v := s.Status().Version; v != "" {
		t.Fatalf("version %q after 63 of 64 events", v)
	}
	s.push(w.events(1, 9))
	await(t, "version 1", func() bool { return len(s.heard()) == 1 })
	v := s.last()
	if v.Number != 1 || v.Step != 4 || v.Metrics["events"] != 64 || v.Metrics["unguarded"] != 1 || v.CreatedAt.IsZero() {
		t.Errorf("first version: %+v", v)
	}
	if v.Version != "1-"+v.SHA256[:12] || filepath.Base(v.URI) != v.Version+".safetensors" {
		t.Errorf("version %q of hash %s at %s", v.Version, v.SHA256, v.URI)
	}
	if sum, err := fileSHA256(v.URI); err != nil || sum != v.SHA256 {
		t.Errorf("the file's hash is %s, %v", sum, err)
	}
	if _, err := v.Encode(); err != nil {
		t.Errorf("encoding the announcement: %v", err)
	}
	s.caughtUp(w)
	st := s.Status()
	if st.Step != 4 || len(st.History) != 4 || st.History[3].Step != 4 || st.Loss <= 0 || st.Examples == 0 || st.Usable != 1 {
		t.Errorf("status: %+v", st)
	}
}

func TestNoBirthBeforeTheCatalogueIsRead(t *testing.T) {
	w := newClusters(1, 3, 60)
	s := newStation(t, quick(), w, t.TempDir()).run()
	s.push(w.events(200, 9))
	await(t, "events consumed", func() bool { return s.Status().Events == 200 })
	if s.Status().Born {
		t.Fatal("born before CatalogueReady")
	}
	s.CatalogueReady()
	// 64 events have the first steps, the 136 that came meanwhile their two per 64.
	await(t, "owed steps", func() bool { st := s.Status(); return st.Step == 4+2+2+1 && st.Backlog == 0 })
	s.caughtUp(w)
}

func TestSmallCatalogueIsBornAtRest(t *testing.T) {
	w := newClusters(1, 3, 6)
	s := newStation(t, quick(), w, t.TempDir()).run()
	s.CatalogueReady()
	s.push(w.events(63, 9))
	await(t, "events consumed", func() bool { return s.Status().Events == 63 })
	if s.Status().Born {
		t.Error("born of a small catalogue before the first events")
	}
	s.push(w.events(1, 9))
	await(t, "version 1", func() bool { return len(s.heard()) == 1 })
}

func TestRounds(t *testing.T) {
	w := newClusters(1, 3, 60)
	s := newStation(t, quick(), w, t.TempDir())
	s.CatalogueReady()
	s.push(w.events(64+3*64+10, 9))
	s.run()
	s.caughtUp(w)
	if st := s.Status(); st.Step != 4+3*2+1 || st.Events != 64+3*64+10 {
		t.Errorf("%d steps for %d events, expected 4 first ones, 2 for each of 3 rounds, 1 for 10 events", st.Step, st.Events)
	}
	if got, want := counted(t, s.metrics.steps), 11.; got != want {
		t.Errorf("rebeca_train_steps_total is %v, expected %v", got, want)
	}
}

func TestAnnounceBySteps(t *testing.T) {
	w := newClusters(1, 3, 60)
	cfg := quick()
	cfg.AnnounceSteps, cfg.Idle, cfg.Keep = 4, time.Hour, 3
	dir := t.TempDir()
	s := newStation(t, cfg, w, dir)
	s.CatalogueReady()
	s.push(w.events(64+8*64, 9))
	s.run()
	await(t, "five versions", func() bool { return len(s.heard()) == 5 })
	s.stop()
	for i, v := range s.heard() {
		if v.Number != int64(i+1) || v.Step != int64(4+4*i) {
			t.Errorf("announcement %d: number %d at step %d", i, v.Number, v.Step)
		}
	}
	files, err := s.store.list()
	if err != nil || len(files) != cfg.Keep || files[0].number != 3 {
		t.Errorf("kept %+v, %v", files, err)
	}
}

// A second of 0 AnnounceEvery: every check announces what is untold, and a
// partial round need not wait for rest.
func TestAnnounceByTime(t *testing.T) {
	w := newClusters(1, 3, 60)
	cfg := quick()
	cfg.AnnounceEvery, cfg.Idle = time.Millisecond, time.Hour
	s := newStation(t, cfg, w, t.TempDir())
	s.CatalogueReady()
	s.push(w.events(64+5, 9))
	s.run()
	s.caughtUp(w)
}

func TestRestartContinues(t *testing.T) {
	dir, w := t.TempDir(), newClusters(1, 3, 60)
	s := newStation(t, quick(), w, dir)
	s.CatalogueReady()
	s.push(w.events(200, 9))
	s.run().caughtUp(w)
	s.stop()
	before := s.last()

	again := newStation(t, quick(), w, dir)
	for p, next := range w.offsets {
		if again.cursor[int32(p)] != next {
			t.Errorf("partition %d: cursor %d, expected %d", p, again.cursor[int32(p)], next)
		}
	}
	again.run()
	await(t, "the loaded version is announced again", func() bool { return len(again.heard()) == 1 })
	if v := again.last(); v.Version != before.Version || v.Step != before.Step || v.SHA256 != before.SHA256 {
		t.Errorf("announced %+v, had %+v", v, before)
	}
	again.push(w.events(64, 9))
	again.caughtUp(w)
	if v := again.last(); v.Number <= before.Number || v.Step != before.Step+2 || v.Metrics["events"] != 264 {
		t.Errorf("went on to %+v from %+v", v, before)
	}
}

func TestPushedAgainIsDropped(t *testing.T) {
	w := newClusters(1, 3, 60)
	s := newStation(t, quick(), w, t.TempDir())
	s.CatalogueReady()
	events := w.events(128, 9)
	s.push(events)
	s.push(events)
	s.run().caughtUp(w)
	if st := s.Status(); st.Events != 128 {
		t.Errorf("%d events, expected 128", st.Events)
	}
}

// The same checkpoint and examples give the same weights, whatever ran before.
func TestSameExamplesSameWeights(t *testing.T) {
	dir, w := t.TempDir(), newClusters(1, 3, 60)
	s := newStation(t, quick(), w, dir)
	s.CatalogueReady()
	s.push(w.events(128, 9))
	s.run().caughtUp(w)
	s.stop()
	more := w.events(256, 9)
	weights := func() string {
		copied := t.TempDir()
		if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		s := newStation(t, quick(), w, copied)
		s.push(more)
		s.run().caughtUp(w)
		s.stop()
		return s.last().SHA256
	}
	if a, b := weights(), weights(); a != b {
		t.Errorf("weights %s and %s", a, b)
	}
}

func TestDamagedCheckpoints(t *testing.T) {
	dir, w := t.TempDir(), newClusters(1, 3, 60)
	cfg := quick()
	cfg.AnnounceSteps = 2
	s := newStation(t, cfg, w, dir)
	s.CatalogueReady()
	s.push(w.events(64+4*64, 9))
	s.run().caughtUp(w)
	s.stop()
	files, err := s.store.list()
	if err != nil || len(files) < 4 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	n := len(files)
	flip(t, files[n-1].path)
	if err := os.Truncate(files[n-2].path, 100); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "999999-0123456789ab.safetensors"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	again := newStation(t, cfg, w, dir)
	if again.loaded == nil || again.loaded.newest.number != files[n-3].number {
		t.Fatalf("loaded %+v, expected version %d", again.loaded, files[n-3].number)
	}
	again.run()
	again.push(w.events(64, 9))
	await(t, "a new version", func() bool { return again.last().Number > files[n-1].number })
	if got := again.last().Number; got != 1_000_000 {
		t.Errorf("version %d follows a damaged 999999", got)
	}
}

func flip(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAllCheckpointsDamaged(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "7-0123456789ab.safetensors"), []byte("no"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newClusters(1, 3, 60)
	s := newStation(t, quick(), w, dir)
	if s.cursor != nil {
		t.Errorf("cursor %v of no checkpoint", s.cursor)
	}
	s.CatalogueReady()
	s.push(w.events(64, 9))
	s.run().caughtUp(w)
	if got := s.last().Number; got != 8 {
		t.Errorf("version %d, expected 8", got)
	}
}

func TestCheckpointOfAnotherPrior(t *testing.T) {
	dir, w := t.TempDir(), newClusters(1, 3, 60)
	s := newStation(t, quick(), w, dir)
	s.CatalogueReady()
	s.push(w.events(64, 9))
	s.run().caughtUp(w)
	s.stop()
	for name, change := range map[string]func(*prior.Config){
		"dim":                func(c *prior.Config) { c.Dim = 5 },
		"hidden":             func(c *prior.Config) { c.Hidden = 32 },
		"blocks":             func(c *prior.Config) { c.Blocks = 2 },
		"timesteps":          func(c *prior.Config) { c.Timesteps = 10 },
		"heads":              func(c *prior.Config) { c.Heads *= 2 },
		"kind":               func(c *prior.Config) { c.Kind, c.Tokens = "transformer", c.Dim },
		"loss.objective":     func(c *prior.Config) { c.Loss.Objective = "v" },
		"loss.schedule":      func(c *prior.Config) { c.Loss.Schedule = "linear" },
		"loss.time_sampling": func(c *prior.Config) { c.Loss.TimeSampling, c.Loss.TimeStd = "lognormal", 1 },
		"loss.weighting":     func(c *prior.Config) { c.Loss.Weighting, c.Loss.Gamma = "min_snr", 5 },
	} {
		p := smallPrior()
		change(&p)
		other := newTrainer(quick(), p, w, w.shop, dir, nil, slog.New(slog.DiscardHandler), nil)
		_, err := other.Open()
		if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "prior."+name+" is ") || !strings.Contains(err.Error(), "rebeca prior reset") {
			t.Errorf("%s: %v", name, err)
		}
	}
	p := smallPrior()
	p.Contexts, p.Targets = 4, 2
	other := newTrainer(quick(), p, w, w.shop, dir, nil, slog.New(slog.DiscardHandler), nil)
	if _, err := other.Open(); err != nil {
		t.Fatal(err)
	}
	cp := other.loaded.newest
	if err := other.replaceWeights(cp); err != nil || other.drawer.prior.Contexts != 4 {
		t.Errorf("another batch shape: %v", err)
	}
	other.close()
}

func TestBackPressure(t *testing.T) {
	w := newClusters(1, 3, 60)
	cfg := quick()
	cfg.Queue = 16
	s := newStation(t, cfg, w, t.TempDir())
	events := w.events(200, 9)
	ctx, cancel := context.WithCancel(context.Background())
	blocked := make(chan error, 1)
	go func() { blocked <- s.Push(ctx, events) }()
	await(t, "a full queue", func() bool { return s.Status().Backlog == 16 })
	select {
	case err := <-blocked:
		t.Fatalf("Push of 200 into 16 returned %v", err)
	default:
	}
	cancel()
	if err := <-blocked; !errors.Is(err, context.Canceled) {
		t.Errorf("Push: %v", err)
	}
	s.run()
	s.CatalogueReady()
	s.push(events[16:])
	s.caughtUp(w)
	if st := s.Status(); st.Events != 200 {
		t.Errorf("%d events, expected 200", st.Events)
	}
}

// spy wraps a learner; before runs ahead of each step and may refuse it.
type spy struct {
	learner
	before func(step int) error
	steps  int
	rates  []float64
}

func (s *spy) Step(b *prior.Batch, lr float64, rng *rand.Rand) (prior.StepStats, error) {
	s.steps++
	s.rates = append(s.rates, lr)
	if s.before != nil {
		if err := s.before(s.steps); err != nil {
			return prior.StepStats{Loss: math.NaN()}, err
		}
	}
	return s.learner.Step(b, lr, rng)
}

// spied makes s learn through a spy.
func (s *station) spied(before func(step int) error) *spy {
	sp := &spy{before: before}
	inner := s.learn
	s.learn = func(st *prior.State) (learner, error) {
		l, err := inner(st)
		sp.learner = l
		return sp, err
	}
	return sp
}

func TestRefusedStepsAreCountedAndTrainingGoesOn(t *testing.T) {
	w := newClusters(1, 3, 60)
	s := newStation(t, quick(), w, t.TempDir())
	s.spied(func(step int) error {
		if step == 2 || step == 6 {
			return fmt.Errorf("training step: %w", prior.ErrNotFinite)
		}
		return nil
	})
	s.CatalogueReady()
	s.push(w.events(64+3*64, 9))
	s.run().caughtUp(w)
	if st := s.Status(); st.Refused != 2 || st.Step != 4+3*2-2 {
		t.Errorf("%d refused, %d taken", st.Refused, st.Step)
	}
}

// TestFailedStepsEndTheTrainer: an update that failed half way is no refused step, nor is one that the runtime could not take, and what
// they left becomes no version.
func TestFailedStepsEndTheTrainer(t *testing.T) {
	for _, failure := range []error{prior.ErrSpoilt, errors.New("out of memory")} {
		t.Run(failure.Error(), func(t *testing.T) { failedStepEnds(t, failure) })
	}
}

func failedStepEnds(t *testing.T, failure error) {
	w := newClusters(1, 3, 60)
	dir := t.TempDir()
	s := newStation(t, quick(), w, dir)
	s.spied(func(step int) error {
		if step == 3 {
			return fmt.Errorf("training step 3: %w", failure)
		}
		return nil
	})
	s.CatalogueReady()
	s.push(w.events(64, 9))
	if err := s.Run(t.Context()); !errors.Is(err, failure) {
		t.Errorf("the trainer ended with %v", err)
	}
	if st := s.Status(); st.Refused != 0 || st.Step != 2 || len(s.heard()) != 0 {
		t.Errorf("%+v", st)
	}
}

func TestRunEndsWithinAStep(t *testing.T) {
	w := newClusters(1, 3, 60)
	cfg := quick()
	cfg.FirstSteps = 1 << 20
	s := newStation(t, cfg, w, t.TempDir())
	ctx, cancel := context.WithCancel(context.Background())
	sp := s.spied(func(step int) error {
		if step == 3 {
			cancel()
		}
		return nil
	})
	s.CatalogueReady()
	s.push(w.events(64, 9))
	if err := s.Run(ctx); err != nil {
		t.Errorf("Run: %v", err)
	}
	if sp.steps != 3 {
		t.Errorf("%d steps, cancelled during the third", sp.steps)
	}
}

func TestTooFarBehindSkipsSteps(t *testing.T) {
	w := newClusters(1, 3, 60)
	cfg := quick()
	cfg.Behind = func() int64 { return cfg.MaxLag }
	s := newStation(t, cfg, w, t.TempDir())
	s.CatalogueReady()
	s.push(w.events(64+5*64, 9))
	s.run().caughtUp(w)
	st := s.Status()
	// The last round leaves nothing in the queue: just at the limit, not above.
	if st.Skipped != 5*2 || st.Step != 4 {
		t.Errorf("%d steps skipped, %d taken: %+v", st.Skipped, st.Step, st.Backlog)
	}
}

func TestBusyThins(t *testing.T) {
	w := newClusters(1, 3, 60)
	cfg := quick()
	asked := 0
	cfg.Busy = func() bool { asked++; return true }
	s := newStation(t, cfg, w, t.TempDir())
	s.CatalogueReady()
	s.push(w.events(64+64, 9))
	s.run().caughtUp(w)
	s.stop()
	if asked != 6 {
		t.Errorf("asked %d times in 6 steps", asked)
	}
}

func TestAnnouncementIsTriedAgain(t *testing.T) {
	w := newClusters(1, 3, 60)
	s := newStation(t, quick(), w, t.TempDir())
	s.mu.Lock()
	s.refuse = errors.New("broker away")
	s.mu.Unlock()
	s.CatalogueReady()
	s.push(w.events(64, 9))
	s.run()
	await(t, "a failed announcement", func() bool { return counted(t, s.metrics.announceErrors) > 0 })
	if st := s.Status(); st.Announced != nil || st.Version != "" {
		t.Errorf("announced %v as %q", st.Announced, st.Version)
	}
	s.push(w.events(64, 9))
	await(t, "learning goes on", func() bool { return s.Status().Step == 6 })
	s.mu.Lock()
	s.refuse = nil
	s.mu.Unlock()
	s.caughtUp(w)
	if v := s.heard(); len(v) != 2 || v[0].Number != 1 || v[1].Number != 2 {
		t.Errorf("announced %+v", v)
	}
}

// Records that teach nothing move the cursor, and at rest the announced
// version knows them too.
func TestBlankRecordsMoveTheCursor(t *testing.T) {
	w := newClusters(1, 3, 60)
	s := newStation(t, quick(), w, t.TempDir())
	s.CatalogueReady()
	s.push(w.events(64, 9))
	s.run().caughtUp(w)
	s.push([]Example{{Partition: 0, Offset: w.offsets[0]}, {Partition: 5, Offset: 41}})
	await(t, "the cursor", func() bool {
		a := s.Status().Announced
		return a[0] == w.offsets[0]+1 && a[5] == 42
	})
	if st := s.Status(); st.Step != 4 || st.Events != 64 || st.Number != 1 {
		t.Errorf("blank records taught something: %+v", st)
	}
}

func TestLearningRate(t *testing.T) {
	w := newClusters(1, 3, 60)
	tr := newTrainer(DefaultConfig(), smallPrior(), w, w.shop, t.TempDir(), nil, slog.New(slog.DiscardHandler), nil)
	for _, c := range []struct {
		step int64
		want float64
	}{{0, 2e-5}, {49, 1e-3}, {1000, 5.5e-4}, {2000, 1e-4}, {1 << 40, 1e-4}} {
		if got := tr.rate(c.step); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("rate at step %d is %v, expected %v", c.step, got, c.want)
		}
	}
	for n := int64(51); n < 2100; n++ {
		if tr.rate(n) > tr.rate(n-1) {
			t.Fatalf("the rate rises at step %d", n)
		}
	}
}

// heldOutOnly makes every event of events one of the held-out slice.
func heldOutOnly(w *clusters, n, users int) []Example {
	events := w.events(0, users)
	for range n {
		events = append(events, w.events(1, users)...)
		e := &events[len(events)-1]
		e.EventHash = 64 * uint64(e.Offset+1)
		w.mu.Lock()
		w.rows[e.UserID].Window[0].EventHash = e.EventHash
		w.mu.Unlock()
	}
	return events
}

func TestHeldOutScore(t *testing.T) {
	w := newClusters(1, 3, 60)
	cfg := quick()
	cfg.HeldOut = 20
	s := newStation(t, cfg, w, t.TempDir())
	s.CatalogueReady()
	first := w.events(128, 9)
	before := len(slices.DeleteFunc(slices.Clone(first), func(e Example) bool { return !heldOut(e.EventHash) }))
	s.push(first)
	s.run().caughtUp(w)
	s.push(heldOutOnly(w, 30, 9))
	s.caughtUp(w)
	// Half of the set are the newest, the others those from before version 1.
	if v := s.last(); v.Metrics["heldout_events"] != float64(10+before) || !(v.Metrics["heldout_loss"] > 0) {
		t.Errorf("metrics %v", v.Metrics)
	}
	told := s.HeldOut()
	if len(told) != 10+before {
		t.Errorf("tells %d held-out answers, keeps %d", len(told), 10+before)
	}
	for _, a := range told {
		if a.Label == prior.ClassNone || len(a.Item) != clusterDim {
			t.Errorf("a held-out answer is %+v", a)
		}
	}
	for u := range 9 {
		w.forget(userID(u))
	}
	s.push(w.events(2, 1)) // one user comes back
	s.caughtUp(w)
	s.stop()
	for _, e := range s.heldOut.all() {
		t.Errorf("a held-out event of %s outlived its user: it had %d events", e.user, e.counted)
	}
	if left := s.HeldOut(); len(left) != 0 {
		t.Errorf("%d held-out answers are still told of", len(left))
	}
}

// The real table in place of the town.
func TestOnATable(t *testing.T) {
	openRuntime(t)
	tab, events := fullTable(t, 100, 300)
	p := prior.DefaultConfig(16)
	p.Hidden, p.Blocks, p.Contexts = 16, 1, 8
	cfg := quick()
	s := &station{t: t}
	s.Trainer = New(cfg, p, rows{tab}, t.TempDir(), s.hear, slog.New(slog.DiscardHandler), nil)
	if _, err := s.Open(); err != nil {
		t.Fatal(err)
	}
	s.CatalogueReady()
	s.push(events)
	s.run()
	await(t, "all events are known", func() bool {
		st := s.Status()
		return st.Announced != nil && st.Events == 100 && maps.Equal(st.Announced, st.Cursor)
	})
	s.stop()
	if st := s.Status(); st.Step != 4+2 || st.Usable != 1 || st.Unresolved != 0 {
		t.Errorf("status: %+v", st)
	}
	st, err := prior.LoadState(s.last().URI)
	if err != nil || st.Step != 6 {
		t.Fatalf("loading the announced version: %v", err)
	}
}

func TestHeldOutSetKeepsTheNewestOfItsSlice(t *testing.T) {
	w := randomTown(4, 3, true)
	d := newDrawer(DefaultConfig(), smallPrior(), w, w.shop)
	event := map[string]Example{}
	var want []Example
	for _, e := range w.events {
		event[e.ItemID] = e
		row, _, _ := w.User(e.UserID)
		inWindow := slices.ContainsFunc(row.Window, func(o Entry) bool { return o.Offset == e.Offset && !o.Older })
		if _, ok := w.shop.Get(e.ItemID); ok && inWindow && heldOut(e.EventHash) && e.Class != prior.ClassNone {
			want = append(want, e)
		}
	}
	if len(want) < 8 {
		t.Fatalf("only %d held-out events to choose from", len(want))
	}
	h := heldOutSet{limit: 8}
	if err := h.keep(d, w.events); err != nil {
		t.Fatal(err)
	}
	if len(h.all()) != 4 {
		t.Fatalf("%d events before any mark, half of the set is 4", h.len())
	}
	for i, e := range want[len(want)-4:] {
		got := h.newest[i]
		if id := w.item[&got.item[0]]; id != e.ItemID || got.user != e.UserID || got.label != e.Class {
			t.Errorf("kept %s of %s, expected %s of %s", id, got.user, e.ItemID, e.UserID)
		}
		for _, entry := range got.context {
			if o := event[w.item[&entry.Item[0]]]; o.UserID != e.UserID || o.Offset >= e.Offset {
				t.Errorf("context of event %d holds event %d of %s", e.Offset, o.Offset, o.UserID)
			}
		}
	}
}

func TestGrowthWaitsForRestAndEvents(t *testing.T) {
	w := newClusters(1, 3, 6)
	tr := newTrainer(DefaultConfig(), smallPrior(), w, w.shop, t.TempDir(), nil, slog.New(slog.DiscardHandler), nil)
	clock := time.Unix(1_700_000_000, 0)
	tr.now = func() time.Time { return clock }
	g := growth{trainer: tr, ready: true}
	for i, c := range []struct {
		after  time.Duration
		grows  bool
		events int64
		want   bool
	}{
		{0, false, 1000, false},
		{1500 * time.Millisecond, true, 1000, false},
		{1500 * time.Millisecond, false, 1000, false}, // still for 1.5 s
		{600 * time.Millisecond, false, 255, false},
		{0, false, 256, true},
	} {
		clock = clock.Add(c.after)
		if c.grows {
			w.addItem(100 + i)
		}
		if got := g.done(c.events); got != c.want {
			t.Errorf("check %d: %v, expected %v", i, got, c.want)
		}
	}
	for i := range 250 {
		w.addItem(200 + i)
	}
	if !g.done(0) {
		t.Error("a catalogue of 256 items has to wait")
	}
}

// On a toy world the averaged weights predict what a user likes: better than
// the same weights that are told nobody, and than before they learned.
func TestLearns(t *testing.T) {
	w := newClusters(3, 4, 400)
	cfg := quick()
	cfg.FirstEvents, cfg.FirstSteps, cfg.HeldOut = 256, 50, 256
	cfg.LR, cfg.LRMin, cfg.DecaySteps = 5e-3, 1e-3, 600
	s := newStation(t, cfg, w, t.TempDir())
	s.CatalogueReady()
	s.push(w.events(256, 40))
	s.run().caughtUp(w)
	for range 96 { // as the stream runs: the fold is not far ahead
		s.push(w.events(128, 40))
		await(t, "room in the queue", func() bool { return s.Status().Backlog < 128 })
	}
	s.caughtUp(w)
	s.stop()
	// Scored by the weights of the last version, as a worker loads them.
	st, err := prior.LoadState(s.last().URI)
	if err != nil {
		t.Fatal(err)
	}
	l, err := prior.NewLearner(st, ort.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	score := func(l *prior.Learner, blind bool) float64 {
		losses, err := s.heldOut.losses(l, st.Config, stream(1, streamScore, 0), nil, blind)
		if err != nil {
			t.Fatal(err)
		}
		return mean(losses)
	}
	known, blind := score(l, false), score(l, true)
	newborn, err := prior.NewState(smallPrior(), st.Stats, 1)
	if err != nil {
		t.Fatal(err)
	}
	l0, err := prior.NewLearner(newborn, ort.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer l0.Close()
	start := score(l0, false)
	t.Logf("%d held-out events at step %d: loss %.3f, told nobody %.3f, newborn %.3f", s.heldOut.len(), st.Step, known, blind, start)
	if known > .7*blind || known > .5*start {
		t.Errorf("held-out loss %.3f; told nobody %.3f; newborn %.3f", known, blind, start)
	}
}

// TestAutoTakesNoUserTable: an imported checkpoint in the trainer's directory is no start for learning from windows.
func TestAutoTakesNoUserTable(t *testing.T) {
	have := prior.Config{Kind: "reference", Dim: 4, Users: 3}
	for _, kind := range []string{"auto", "", "mlp"} {
		if err := compatible(have, prior.Config{Kind: kind, Dim: 4}); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "prior.kind is reference") {
			t.Errorf("%q: %v", kind, err)
		}
	}
	for _, kind := range []string{"mlp", "transformer"} {
		if err := compatible(prior.Config{Kind: kind, Dim: 4}, prior.Config{Kind: "auto", Dim: 4}); err != nil {
			t.Errorf("auto: %v", err)
		}
	}
}
