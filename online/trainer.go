package online

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/bits"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rebeca/internal/ort"
	"rebeca/prior"
	"rebeca/schemas"
)

// Example is one record of `feedback` as the trainer sees it. One without a
// UserID stands for a record that teaches nothing (a dead letter, a forget
// mark): it moves the cursor only.
type Example struct {
	Partition      int32
	Offset         int64
	UserID, ItemID string
	Class          prior.Class // ClassNone: never a target
	EventHash      uint64      // schemas.EventHash of the event's id
	At             time.Time   // the record's Kafka timestamp
}

// User is a person as the trainer reads them.
type User struct {
	Events uint64  // feedback folded so far; it falls only when the user is forgotten and begins anew
	Window []Entry // newest first, then the older likes
}

// Entry is one event of a window.
type Entry struct {
	ItemID    string
	Class     prior.Class
	Offset    int64
	EventHash uint64
	Older     bool // from the reservoir of older likes
}

// Source is what the trainer reads of the table, its replay buffer. Embeddings
// that it hands out are read only and must not change afterwards.
type Source interface {
	User(user string) (User, bool, error)
	UserCount() int
	UserAt(i int) string
	Resolve(user, item string) ([]float32, bool)
	Catalogue() Catalogue
}

// Catalogue is the items and their embeddings.
type Catalogue interface {
	items
	Len() int
	Revision() uint64 // changes with every change
	Each(fn func(id string, e []float32) bool)
}

// learner is the trainer's use of [prior.Learner].
type learner interface {
	scorer
	Step(b *prior.Batch, lr float64, rng *rand.Rand) (prior.StepStats, error)
	State() *prior.State
	Close() error
}

// Trainer learns a prior from pushed events and announces its versions.
// Push, Status and CatalogueReady may be called from any goroutine.
type Trainer struct {
	cfg      Config
	priorCfg prior.Config
	people   people
	items    Catalogue
	store    checkpoints
	announce func(context.Context, schemas.PriorVersion) error
	log      *slog.Logger
	metrics  *metrics
	now      func() time.Time
	learn    func(*prior.State) (learner, error)

	queue chan Example // Config.Queue events: what Push may be ahead of the steps
	ready chan struct{}
	once  sync.Once // closes ready

	wishes chan promotion // of operators

	// What follows up to mu belongs to Run, and to Open before it.
	loaded   *standing // by Open
	learner  learner
	drawer   *drawer
	heldOut  heldOutSet
	guard    guard
	school   school
	seed     uint64
	step     int64 // optimizer steps in the weights
	record   record
	taken    map[int32]int64 // next offset by partition, pending events included
	pending  []Example       // taken and not yet in a round
	times    ring[time.Time] // of events in untold steps
	untold   int             // steps since the last announcement
	awaited  bool            // whether some of them are no idle ones
	resting  bool            // an idle step is under way
	idleAt   time.Time       // no idle step before
	number   int64           // highest version number in use
	untoldCP *checkpoint     // saved, its announcement still to be made

	lastEvent, pendingSince, lastAnnounce, retryAt time.Time

	roomErr error     // of Config.Room when it was asked last
	roomAt  time.Time // when to ask again

	lossEMA            runningMean
	usable, unresolved runningMean
	fewAt              time.Time // when the last warning of few usable events was given

	waiting atomic.Int64 // pending and owed events

	mu struct {
		sync.Mutex
		// Guards what Status reads.
		status  Status
		history ring[Point]
		times   ring[time.Time] // of steps
		heldOut []HeldOutAnswer // of the newest candidate
	}
}

// New returns a trainer of priors of shape priorCfg that keeps its checkpoints
// in dir and hands every version to announce once its file is durable. The
// same version may be handed over again, after an error and after a restart;
// an error from announce is logged and the version tried again. reg may be nil.
// New panics on a Config that Validate refuses. It does no I/O.
func New(cfg Config, priorCfg prior.Config, src Source, dir string,
	announce func(context.Context, schemas.PriorVersion) error, log *slog.Logger, reg prometheus.Registerer) *Trainer {
	return newTrainer(cfg, priorCfg, src, src.Catalogue(), dir, announce, log, reg)
}

func newTrainer(cfg Config, priorCfg prior.Config, who people, what Catalogue, dir string,
	announce func(context.Context, schemas.PriorVersion) error, log *slog.Logger, reg prometheus.Registerer) *Trainer {
	if err := cfg.Validate(); err != nil {
		panic("online: " + err.Error())
	}
	if err := priorCfg.Validate(); err != nil {
		panic("online: prior: " + err.Error())
	}
	priorCfg.MostTargets = max(priorCfg.MostTargets, cfg.BirthTargets)
	t := &Trainer{
		cfg: cfg, priorCfg: priorCfg, people: who, items: what,
		store: checkpoints{dir: dir, log: log}, announce: announce, log: log, now: time.Now,
		queue: make(chan Example, cfg.Queue), ready: make(chan struct{}), wishes: make(chan promotion),
		heldOut: heldOutSet{limit: cfg.HeldOut}, record: record{Cursor: map[int32]int64{}}, taken: map[int32]int64{},
		times: newEventTimes(),
	}
	t.learn = func(st *prior.State) (learner, error) {
		return prior.NewLearner(st, ort.Options{Threads: cfg.Threads, Provider: cfg.Provider, Spin: cfg.Spin})
	}
	t.mu.history, t.mu.times = newRing[Point](historyPoints), newRing[time.Time](ratePoints)
	t.school = newSchool(cfg, reg)
	t.metrics = newMetrics(reg, func() float64 { return float64(t.backlog()) })
	return t
}

// Open loads the newest whole checkpoint and returns the next offset of each
// partition that its weights have not consumed, nil if there is none: the
// events to push start there. Damaged files are passed over with a warning.
// Errors wrap [ErrConfig] when the checkpoint is of another prior. Open is
// called once, before Run.
func (t *Trainer) Open() (cursor map[int32]int64, err error) {
	s, err := t.store.standing()
	if err != nil {
		return nil, err
	}
	t.number = s.highest
	cp := s.newest
	if cp == nil {
		return nil, nil
	}
	if err := compatible(cp.state.Config, t.priorCfg); err != nil {
		return nil, fmt.Errorf("%s: %w", cp.path, err)
	}
	t.loaded, t.record = &s, cp.record
	t.record.Current, t.record.Reference = s.current.number, s.reference.number
	t.step = cp.step
	t.record.Cursor = maps.Clone(cp.record.Cursor)
	t.record.Grown = t.record.Grown || cp.record.Birth == 0 // its first steps were on events
	t.lossEMA = runningMean{n: 1 / lossDecay, mean: cp.record.LossEMA}
	if t.record.Cursor == nil {
		t.record.Cursor = map[int32]int64{}
	}
	t.taken = maps.Clone(t.record.Cursor)
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.cfg.FitLaw {
		t.record.Law = nil
	}
	t.mu.status.Law = t.record.Law
	t.mu.status.Step, t.mu.status.Loss, t.mu.status.LossEMA = cp.step, cp.record.Loss, cp.record.LossEMA
	t.publishCounts()
	return maps.Clone(t.taken), nil
}

// Push hands over events, of each partition in offset order and after the
// table has folded them. It blocks while the queue is full; the error is ctx's.
// Events below the cursor are dropped.
func (t *Trainer) Push(ctx context.Context, events []Example) error {
	for _, e := range events {
		select {
		case t.queue <- e:
		default:
			select {
			case t.queue <- e:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// CatalogueReady says that the catalogue has been read to the end seen at
// start; no prior is born before.
func (t *Trainer) CatalogueReady() { t.once.Do(func() { close(t.ready) }) }

// Run learns until ctx ends, which takes at most the step under way, and then
// returns nil: untold steps are dropped, the next start takes them again from
// the last checkpoint. It returns an error when the table cannot be read, a
// checkpoint cannot be written or the model cannot be run. It is called once.
func (t *Trainer) Run(ctx context.Context) error {
	t.lastEvent, t.lastAnnounce = t.now(), t.now()
	defer t.close()
	err := t.begin(ctx)
	if err == nil {
		err = t.rounds(ctx)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (t *Trainer) close() {
	if t.learner != nil {
		if err := t.learner.Close(); err != nil {
			t.log.Warn("closing the learner", "err", err)
		}
	}
}

// begin continues from the loaded checkpoint or waits for birth.
func (t *Trainer) begin(ctx context.Context) error {
	if t.loaded == nil {
		return t.birth(ctx)
	}
	s := t.loaded
	t.loaded = nil
	from := s.newest
	if t.record.spent(t.cfg.GuardPatience) {
		from = s.reference
	}
	if err := t.replaceWeights(from); err != nil {
		return err
	}
	if err := t.heldOut.refill(t.drawer, stream(t.seed, streamRefill, t.step)); err != nil {
		return err
	}
	t.guard.ema, t.guard.settled = s.reference.state.EMA, maps.Clone(t.record.Cursor)
	t.untoldCP = s.current
	t.untoldCP.state = nil // nobody needs it
	t.log.Info("continuing from a checkpoint", "version", from.version(), "step", t.step, "in_use", s.current.version())
	return t.tell(ctx)
}

// fit gives the weights of cp the configured shape of a training batch, which
// is no part of them.
func (t *Trainer) fit(cp *checkpoint) {
	c := &cp.state.Config
	c.Contexts, c.Targets, c.MaxTokens = t.priorCfg.Contexts, t.priorCfg.Targets, t.priorCfg.MaxTokens
	c.MostTargets = t.priorCfg.MostTargets
}

// adopt makes st the weights that learn on.
func (t *Trainer) adopt(st *prior.State) error {
	if !t.cfg.Student {
		st.Student, t.record.Student = nil, nil
	}
	t.school.drawer = nil
	l, err := t.learn(st)
	if err != nil {
		return fmt.Errorf("preparing the learner: %w", err)
	}
	t.learner, t.seed, t.step = l, st.Seed, st.Step
	crowd := (*crowd)(nil)
	if t.drawer != nil { // going back, or an operator's choice: the people are the same
		crowd = t.drawer.crowd
	}
	t.drawer = newDrawer(t.cfg, st.Config, t.people, t.items)
	t.drawer.crowd = crowd
	t.mu.Lock()
	t.mu.status.Born = true
	t.mu.Unlock()
	return nil
}

// rounds is the loop after birth.
func (t *Trainer) rounds(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		t.drain()
		now := t.now()
		var err error
		select {
		case w := <-t.wishes:
			if err = t.grant(ctx, w); err != nil {
				return err
			}
			continue
		default:
		}
		switch {
		case len(t.pending) >= t.cfg.Round:
			err = t.round(ctx, t.cfg.Round)
		case t.record.Owed > 0:
			err = t.round(ctx, 0)
		case len(t.pending) > 0 && (now.Sub(t.lastEvent) >= t.cfg.Idle || now.Sub(t.pendingSince) >= t.cfg.AnnounceEvery):
			err = t.round(ctx, len(t.pending))
		case t.unborn() > 0:
			err = t.birthStep(ctx)
		case t.idleDue(now):
			err = t.idleStep(ctx)
		default:
			timer.Reset(t.wait(now))
			select {
			case e := <-t.queue:
				t.take(e)
			case w := <-t.wishes:
				err = t.grant(ctx, w)
			case <-timer.C:
			case <-ctx.Done():
			}
		}
		if err == nil {
			err = t.announceIfDue(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// drain takes what waits in the queue, up to a round.
func (t *Trainer) drain() {
	for len(t.pending) < t.cfg.Round {
		select {
		case e := <-t.queue:
			t.take(e)
		default:
			return
		}
	}
}

// wait is the time until something other than an event may be due.
func (t *Trainer) wait(now time.Time) time.Duration {
	d := time.Hour
	until := func(at time.Time) { d = min(d, max(at.Sub(now), time.Millisecond)) }
	if len(t.pending) > 0 {
		until(t.lastEvent.Add(t.cfg.Idle))
		until(t.pendingSince.Add(t.cfg.AnnounceEvery))
	}
	switch {
	case t.untoldCP != nil:
		until(t.retryAt)
	case t.awaited, t.untold > 0 && t.idling() == 0:
		until(t.lastEvent.Add(t.cfg.Idle))
		until(t.lastAnnounce.Add(t.cfg.AnnounceEvery))
	}
	if at, ok := t.idleFrom(); ok {
		until(at)
	}
	return d
}

// take moves an event from the queue to the pending ones.
func (t *Trainer) take(e Example) {
	if next, ok := t.taken[e.Partition]; ok && e.Offset < next {
		return
	}
	t.taken[e.Partition] = e.Offset + 1
	if e.UserID == "" {
		if len(t.pending) == 0 {
			t.settle()
		}
		return
	}
	t.lastEvent = t.now()
	if len(t.pending) == 0 {
		t.pendingSince = t.lastEvent
	}
	t.pending = append(t.pending, e)
	t.waiting.Add(1)
	_, inCatalogue := t.items.Get(e.ItemID)
	t.noteUsable(inCatalogue && e.Class != prior.ClassNone)
	t.metrics.events.Inc()
}

// settle makes the cursor that of all taken events: none is pending.
func (t *Trainer) settle() {
	maps.Copy(t.record.Cursor, t.taken)
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.awaited && t.untoldCP == nil && t.record.Owed == 0 && t.mu.status.Announced != nil {
		// Nothing was learned of events since the newest candidate: it knows these too.
		t.guard.settled = maps.Clone(t.record.Cursor)
		t.mu.status.Announced = maps.Clone(t.record.Cursor)
	}
	t.publishCounts()
}

// publishCounts copies the counts to the status; mu is held.
func (t *Trainer) publishCounts() {
	s := &t.mu.status
	s.Cursor = maps.Clone(t.record.Cursor)
	s.Events, s.Examples, s.Pseudo, s.Refused = t.record.Events, t.record.Examples, t.record.Pseudo, t.record.Refused
	s.Usable, s.Unresolved, s.Idle = t.usable.mean, t.unresolved.mean, t.record.IdleTaken
	t.waiting.Store(int64(len(t.pending)) + t.record.Owed)
}

// behind is the number of events in the log that are not pushed yet.
func (t *Trainer) behind() int64 {
	if t.cfg.Behind == nil {
		return 0
	}
	return max(0, t.cfg.Behind())
}

// backlog is the number of events that wait for their steps.
func (t *Trainer) backlog() int64 { return int64(len(t.queue)) + t.waiting.Load() + t.behind() }

// round takes the steps of the first n pending events, or, with n = 0, of
// events that are owed. The cursor moves once all of them are taken.
func (t *Trainer) round(ctx context.Context, n int) error {
	fresh := t.pending[:n]
	events := n
	if n == 0 {
		events = int(min(t.record.Owed, int64(t.cfg.Round)))
	}
	steps := (t.cfg.Steps*events + t.cfg.Round - 1) / t.cfg.Round
	pseudo := 0
	if t.crowded() {
		pseudo = int(math.Round(t.cfg.PseudoShare * float64(t.drawer.prior.Contexts)))
	}
	if err := t.heldOut.keep(t.drawer, fresh); err != nil {
		return err
	}
	if lag := t.backlog(); lag > t.cfg.MaxLag {
		t.skip(steps, lag)
	} else {
		for i := range steps {
			if err := t.stepOn(ctx, fresh[i*n/steps:(i+1)*n/steps], pseudo); err != nil {
				return err
			}
		}
	}
	for _, e := range fresh {
		t.times.push(e.At)
	}
	if n == 0 {
		t.record.Owed -= int64(events)
	}
	t.record.Events += int64(n)
	t.pending = append(t.pending[:0], t.pending[n:]...)
	t.settle()
	return nil
}

func (t *Trainer) skip(steps int, lag int64) {
	t.metrics.skipped.Add(float64(steps))
	t.mu.Lock()
	t.mu.status.Skipped += int64(steps)
	first := t.mu.status.Skipped == int64(steps)
	t.mu.Unlock()
	if first {
		t.log.Warn("too far behind: events are consumed without training steps", "events_behind", lag, "max_lag", t.cfg.MaxLag)
	}
}

// stepOn takes one optimizer step whose fresh contexts are of the given events
// and of which pseudo contexts are pseudo-users'.
func (t *Trainer) stepOn(ctx context.Context, fresh []Example, pseudo int) error {
	return t.stepWith(ctx, t.rate(t.step), func(rng *rand.Rand) (*prior.Batch, tally, error) {
		return t.drawer.batchOf(rng, fresh, pseudo)
	})
}

// stepWith takes one optimizer step on the batch that draw returns.
func (t *Trainer) stepWith(ctx context.Context, lr float64, draw func(*rand.Rand) (*prior.Batch, tally, error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := t.populate(); err != nil {
		return err
	}
	start := t.now() // a new crowd is no part of a step's time, which is rested after
	at := t.step + t.record.Refused + t.record.Undone
	batch, tally, err := draw(stream(t.seed, streamDraw, at))
	if err != nil {
		return fmt.Errorf("drawing a batch: %w", err)
	}
	drawn := t.now()
	t.metrics.drawSeconds.Observe(drawn.Sub(start).Seconds())
	t.metrics.cut.Add(float64(tally.Cut + tally.Gone))
	if tally.Entries > 0 {
		t.unresolved.add(float64(tally.Unsolved)/float64(tally.Entries), lossDecay)
	}
	if len(batch.Targets) == 0 {
		t.metrics.skipped.Inc()
		return nil
	}
	if t.cfg.Tamper != nil {
		lr = t.cfg.Tamper(t.record.Events, batch, lr)
	}
	stats, err := t.learner.Step(batch, lr, stream(t.seed, streamNoise, at))
	switch {
	case errors.Is(err, prior.ErrNotFinite):
		return t.refuse(err)
	case err != nil:
		return err // the runtime's failure, or weights of which nothing may become a version
	}
	if math.IsNaN(stats.Loss) || math.IsInf(stats.Loss, 0) {
		return t.refuse(fmt.Errorf("the loss is %v", stats.Loss))
	}
	t.step++
	t.untold++
	t.awaited = t.awaited || !t.resting
	t.record.Examples += int64(tally.Targets)
	t.record.Pseudo += int64(tally.PseudoTargets)
	end := t.now()
	t.noteStep(stats.Loss, lr, tally, end)
	t.metrics.stepSeconds.Observe(end.Sub(start).Seconds())
	if err := t.teachStudent(); err != nil {
		return err
	}
	return t.rest(ctx, t.now().Sub(start))
}

// refuse counts a step that was not taken. The weights are unchanged; the next
// step has its own draws and noise.
func (t *Trainer) refuse(err error) error {
	t.record.Refused++
	t.metrics.refused.Inc()
	t.mu.Lock()
	t.mu.status.Refused = t.record.Refused
	t.mu.Unlock()
	if bits.OnesCount64(uint64(t.record.Refused)) == 1 { // the 1st, 2nd, 4th…: a sick model must not fill the disk
		t.log.Warn("training step refused", "err", err, "refused", t.record.Refused, "step", t.step)
	}
	return nil
}

func (t *Trainer) noteStep(loss, lr float64, tally tally, at time.Time) {
	t.lossEMA.add(loss, lossDecay)
	t.record.Loss, t.record.LossEMA = loss, t.lossEMA.mean
	m := t.metrics
	m.steps.Inc()
	m.examples.Add(float64(tally.Targets))
	m.pseudo.Add(float64(tally.PseudoTargets))
	m.loss.Set(loss)
	m.lossEMA.Set(t.lossEMA.mean)
	m.unresolved.Set(t.unresolved.mean)
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &t.mu.status
	s.Awaited = t.awaited
	s.Step, s.Untold, s.Loss, s.LossEMA, s.LR = t.step, t.untold, loss, t.lossEMA.mean, lr
	s.Examples, s.Pseudo = t.record.Examples, t.record.Pseudo
	s.Usable, s.Unresolved, s.Idle = t.usable.mean, t.unresolved.mean, t.record.IdleTaken
	t.mu.history.push(Point{Step: t.step, Loss: loss})
	t.mu.times.push(at)
}

// rest yields, and under load sleeps so that steps take CPUShare of the time.
func (t *Trainer) rest(ctx context.Context, step time.Duration) error {
	runtime.Gosched()
	if t.cfg.Busy == nil || t.cfg.CPUShare >= 1 || !t.cfg.Busy() {
		return nil
	}
	timer := time.NewTimer(time.Duration(float64(step) * (1/t.cfg.CPUShare - 1)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// rate is the learning rate of the step after n: a linear warm-up, then a cosine
// from LR to LRMin over DecaySteps, or from BornLR as far as pseudo-users have
// been the teachers. Steps on pseudo-users alone do not count: what events teach is
// worth the whole of it.
func (t *Trainer) rate(n int64) float64 {
	c, born := t.cfg, 0.
	if c.BirthSteps > 0 {
		born = min(1, float64(t.record.Birth)/float64(c.BirthSteps))
	}
	return rate(max(0, n-t.record.Birth-t.record.Idle), c.Warmup, c.DecaySteps, c.LR+(c.BornLR-c.LR)*born, c.LRMin)
}

// rate rises in a line to high over warmup steps, then falls along a cosine to
// low, which it reaches at step decay. A high below low is low.
func rate(n int64, warmup, decay int, high, low float64) float64 {
	high = max(high, low)
	switch {
	case n < int64(warmup):
		return high * float64(n+1) / float64(warmup)
	case n >= int64(decay):
		return low
	}
	return low + (high-low)*(1+math.Cos(math.Pi*float64(n)/float64(decay)))/2
}
