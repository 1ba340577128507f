package online

import (
	"fmt"
	"time"

	"rebeca/prior"
)

// Config is the recipe of a [Trainer]. Start from [DefaultConfig]: zero values
// are not defaults.
type Config struct {
	// Steps is the number of optimizer steps per Round events; a partial round
	// takes its share of them, rounded up.
	Steps int
	// Round is the number of new events that make a round.
	Round int

	// FreshShare is the share of a step's contexts that are made of the
	// round's own events; replay fills the rest.
	FreshShare float64
	// Splice is the share of contexts in which all but the newest 1 to
	// SpliceNewest entries are another user's: this is how changes of taste
	// are learned.
	Splice       float64
	SpliceNewest int
	// Thinned is the share of contexts of which a uniform random share of the
	// entries is kept; the others are whole.
	Thinned float64
	// LabelDropout is the share of contexts that are emptied and whose labels
	// are dropped: the unconditional branch of guidance.
	LabelDropout float64
	// WindowDropout is the share of contexts that are emptied, those of
	// LabelDropout included.
	WindowDropout float64
	// TargetNewest is the number of newest entries that targets are drawn
	// from; an entry of rank r has weight exp(-r/TargetDecay), times
	// LikedWeight if it is a strong positive.
	TargetNewest int
	TargetDecay  float64
	LikedWeight  float64

	// LR is the learning rate after Warmup steps; it falls along a cosine to
	// LRMin over the first DecaySteps steps and stays there. BornLR stands in
	// its place for a prior that pseudo-users have taught: much of what it knows
	// is more general than a stream, and is not to be lost to one. While birth is
	// under way the rate lies between the two.
	LR, LRMin  float64
	BornLR     float64
	Warmup     int
	DecaySteps int

	// MinItems is the catalogue size at which a prior is born at once; a
	// smaller catalogue has to stop growing for Idle first.
	MinItems int
	// StatsItems bounds the sample that the prior's statistics are made from.
	StatsItems int
	// FirstEvents is the number of events after which FirstSteps steps are
	// taken at once and version 1 is announced.
	FirstEvents, FirstSteps int

	// BirthSteps is the number of steps that a new prior takes on pseudo-users,
	// drawn from the catalogue alone, whenever no event waits; the first
	// FirstSteps of them make version 1. 0 leaves pseudo-users out of birth.
	BirthSteps int
	// BirthTargets is the number of targets of each pseudo-user in those steps
	// after the first FirstSteps, which have at most as many as a step on events:
	// they cost only drawing, and share the tokens of their window.
	BirthTargets int
	// BirthLR is the learning rate of birth after Warmup steps; it falls along a
	// cosine to LRMin over BirthSteps. Rates below LRMin are LRMin.
	BirthLR float64
	// PseudoShare is the share of contexts of every later step that are
	// pseudo-users'. Neither applies to a catalogue below MinItems.
	PseudoShare float64

	// FitLaw has the law of pseudo-users follow the stream: at 128 events, each
	// time their number has doubled and every 50,000 events it is fitted to the
	// windows of some random people. Else it is the default for good.
	FitLaw bool

	// IdleSteps is the number of steps on pseudo-users that are taken after birth,
	// as its later ones are, one at a time while no event has come for Idle and all
	// that events taught is told; their rate falls along a cosine from BornLR to
	// LRMin. Over, an idle trainer does nothing; 0 takes none. IdleShare is the
	// share of the time that they may take. A version is made of AnnounceSteps of
	// them, and of the last.
	IdleSteps int
	IdleShare float64

	// Idle is the time without events after which a partial round is taken
	// and what is untold is announced.
	Idle time.Duration
	// AnnounceEvery and AnnounceSteps bound how long steps stay unannounced.
	// A partial round also waits no longer than AnnounceEvery.
	AnnounceEvery time.Duration
	AnnounceSteps int
	// Keep is the number of checkpoint files that are kept, at least 2.
	Keep int

	// Queue is the number of events that Push takes before it blocks.
	Queue int
	// MaxLag is the number of events behind above which rounds take no steps.
	MaxLag int64
	// Behind, if not nil, returns the number of events in the log that have
	// not been pushed yet. It counts towards MaxLag and the reported backlog,
	// and is called from several goroutines.
	Behind func() int64 `json:"-"`
	// Room, if not nil, returns an error while a checkpoint must not be written,
	// for want of disk space; steps go on and are announced later.
	Room func() error `json:"-"`
	// CPUShare is the share of time that steps may take while Busy says so;
	// the trainer sleeps for the rest. Busy nil means never busy.
	CPUShare float64
	Busy     func() bool `json:"-"`

	// HeldOut is the number of held-out events that a version is scored on,
	// half of them the newest, half from before the version in use.
	HeldOut int
	// A candidate is refused if the mean of its paired differences from the
	// reference is above GuardTolerance of the reference's loss plus GuardErrors
	// of its standard errors; after GuardPatience of them in a row learning goes
	// back to the reference. Nothing is judged by fewer than GuardEvents held-out
	// events.
	GuardTolerance, GuardErrors float64
	GuardPatience, GuardEvents  int
	// Tamper, if not nil, may spoil the batch of a step and its learning rate,
	// after so many events: it shows the guard at work. See [FlipLabels] and
	// [TimesRate].
	Tamper func(events int64, b *prior.Batch, lr float64) float64 `json:"-"`

	// Student learns a student beside the prior, which samples in a few passes, see prior.Student: one step for two of the prior, once a
	// third of the steps of birth are taken. StudentLow and StudentHigh are the ln(alpha/sigma) between which its teacher is guided.
	Student                 bool
	StudentLow, StudentHigh float64
	// StudentBound is the largest distance of a version's student from its teacher, as of Distances, with which it samples.
	StudentBound float64
	// Distances returns how far the samples of a state's student are from its own for the given windows, by prior.Passes, in any unit.
	// nil: a student is learned, and not used.
	Distances func(*prior.State, []prior.Context) ([3]float64, error) `json:"-"`

	// Seed is that of a new prior; one loaded from a checkpoint keeps its own.
	Seed uint64
	// Threads is the number of intra-op threads of a step. The same seed gives
	// the same weights for the same number of threads only.
	Threads int
	// Provider and Spin are those of ort.Options.
	Provider string
	Spin     time.Duration
}

// DefaultConfig returns the recipe that DESIGN.md explains row by row.
func DefaultConfig() Config {
	return Config{
		Steps: 2, Round: 64,
		FreshShare: .5, Splice: .2, SpliceNewest: 28, Thinned: .5, LabelDropout: .12, WindowDropout: .17,
		TargetNewest: 28, TargetDecay: 8, LikedWeight: 4,
		LR: 1e-3, BornLR: 3e-4, LRMin: 1e-4, Warmup: 50, DecaySteps: 2000,
		MinItems: 256, StatsItems: 4096, FirstEvents: 256, FirstSteps: 50, BirthSteps: 1000, BirthTargets: 32, BirthLR: 1.5e-3, PseudoShare: .25, FitLaw: true, IdleSteps: 3000, IdleShare: .25,
		Idle: 2 * time.Second, AnnounceEvery: 10 * time.Second, AnnounceSteps: 256, Keep: 5,
		Queue: 8192, MaxLag: 200_000, CPUShare: .5, HeldOut: 256,
		GuardTolerance: .01, GuardErrors: 2, GuardPatience: 3, GuardEvents: 64, StudentLow: -1.2, StudentHigh: 1, StudentBound: .035, Seed: 1, Threads: 1,
	}
}

// Validate names the first field that is out of range, by its name in a
// configuration file.
func (c Config) Validate() error {
	for _, f := range []struct {
		name string
		v    float64
	}{
		{"steps", float64(c.Steps)}, {"round", float64(c.Round)}, {"splice_newest", float64(c.SpliceNewest)},
		{"target_newest", float64(c.TargetNewest)}, {"target_decay", c.TargetDecay}, {"liked_weight", c.LikedWeight},
		{"lr", c.LR}, {"born_lr", c.BornLR}, {"birth_lr", c.BirthLR}, {"birth_targets", float64(c.BirthTargets)}, {"decay_steps", float64(c.DecaySteps)},
		{"min_items", float64(c.MinItems)}, {"stats_items", float64(c.StatsItems)},
		{"first_events", float64(c.FirstEvents)}, {"first_steps", float64(c.FirstSteps)},
		{"idle", float64(c.Idle)}, {"announce_every", float64(c.AnnounceEvery)},
		{"announce_steps", float64(c.AnnounceSteps)}, {"keep", float64(c.Keep)}, {"queue", float64(c.Queue)},
		{"max_lag", float64(c.MaxLag)}, {"guard_patience", float64(c.GuardPatience)}, {"guard_events", float64(c.GuardEvents)}, {"cpu_share", c.CPUShare}, {"idle_share", c.IdleShare}, {"threads", float64(c.Threads)},
	} {
		if !(f.v > 0) { // NaN too
			return fmt.Errorf("%s: %v is not above 0", f.name, f.v)
		}
	}
	for _, f := range []struct {
		name string
		v    float64
	}{
		{"fresh_share", c.FreshShare}, {"pseudo_share", c.PseudoShare}, {"splice", c.Splice}, {"thinned", c.Thinned},
		{"label_dropout", c.LabelDropout}, {"window_dropout", c.WindowDropout}, {"cpu_share", c.CPUShare}, {"idle_share", c.IdleShare},
	} {
		if !(f.v >= 0 && f.v <= 1) {
			return fmt.Errorf("%s: %v is not in [0, 1]", f.name, f.v)
		}
	}
	switch {
	case c.WindowDropout < c.LabelDropout:
		return fmt.Errorf("window_dropout: %v is below label_dropout (%v): a context whose labels are dropped is emptied too", c.WindowDropout, c.LabelDropout)
	case !(c.LRMin >= 0 && c.LRMin <= c.LR):
		return fmt.Errorf("lr_min: %v is not in [0, lr]", c.LRMin)
	case c.BirthSteps < 0:
		return fmt.Errorf("birth_steps: %d is negative", c.BirthSteps)
	case c.IdleSteps < 0:
		return fmt.Errorf("idle_steps: %d is negative", c.IdleSteps)
	case c.Warmup < 0:
		return fmt.Errorf("warmup: %d is negative", c.Warmup)
	case c.Keep < 2: // the version before may be being loaded
		return fmt.Errorf("keep: %d is below 2", c.Keep)
	case !(c.GuardTolerance >= 0) || !(c.GuardErrors >= 0):
		return fmt.Errorf("guard_tolerance, guard_errors: %v, %v: one is negative", c.GuardTolerance, c.GuardErrors)
	case !(c.StudentBound > 0):
		return fmt.Errorf("student_bound: %v is not above 0", c.StudentBound)
	case c.Student && !(c.StudentLow <= c.StudentHigh):
		return fmt.Errorf("student_low: %v is above student_high, %v", c.StudentLow, c.StudentHigh)
	case c.HeldOut < 0:
		return fmt.Errorf("held_out: %d is negative", c.HeldOut)
	}
	return nil
}
