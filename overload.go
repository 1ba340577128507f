package rebeca

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rebeca/table"
	"rebeca/web"
)

const (
	// intentLimit is how many intents may wait in a process, in its memory and in
	// its table. Half of it is for those that feedback causes, the rest is left to
	// requests. A waiting intent takes about a kilobyte of memory.
	intentLimit = 20_000
	// unaskedLag is at how many times train.max_lag the fold is so far behind that
	// feedback makes no images: training has been shed since one time of it.
	unaskedLag = 2
	// requestLook is how often paused requests look for room.
	requestLook = 20 * time.Millisecond
)

// overload decides what is shed, in this order: training steps (the trainer
// does that by itself, above train.max_lag), then images that nobody has asked
// for, then requests, which wait in their topic. The fold is never shed.
type overload struct {
	limit   int          // intents
	waiting func() int   // intents
	lag     func() int64 // records not folded yet
	maxLag  int64        // above which feedback makes no images
	log     *slog.Logger

	supersededN, shedN atomic.Uint64 // behind the counters of their names

	mu      sync.Mutex
	unasked bool // guarded by mu; feedback makes no images now
	paused  bool // guarded by mu; requests wait now
}

func (s *Service) newOverload() *overload {
	o := &overload{
		limit: intentLimit, waiting: s.waitingIntents, lag: s.foldBehind, maxLag: unaskedLag * s.config.Train.MaxLag, log: s.log,
	}
	if n := s.options.intentLimit; n > 0 {
		o.limit = n
	}
	return o
}

// count notes what a fold's feedback led to.
func (o *overload) count(f table.Folded, shed bool) {
	if o == nil {
		return // a replay
	}
	o.supersededN.Add(uint64(len(f.Superseded)))
	if shed {
		o.shedN.Add(uint64(f.Events))
	}
}

// sheds reports whether feedback makes no images for now. Those of its users
// that wait already stay: they will know of the newer feedback when they are
// made.
func (o *overload) sheds() bool {
	if o == nil {
		return false // a replay
	}
	intents := o.waiting()
	lag := o.lag()
	o.mu.Lock()
	was := o.unasked
	half := o.limit / 2
	o.unasked = intents >= half || was && intents > half*3/4 || lag > o.maxLag || was && lag > o.maxLag*3/4
	now := o.unasked
	o.mu.Unlock()
	switch {
	case now && !was:
		o.log.Warn("overload: feedback makes no images for now", "intents", intents, "records_behind", lag)
	case was && !now:
		o.log.Info("feedback makes images again", "intents", intents, "records_behind", lag)
	}
	return now
}

// room reports whether requests may be accepted.
func (o *overload) room() bool {
	intents := o.waiting()
	o.mu.Lock()
	was := o.paused
	o.paused = intents >= o.limit || was && intents > o.limit*3/4
	now := o.paused
	o.mu.Unlock()
	switch {
	case now && !was:
		o.log.Warn("overload: requests wait in their topic for now", "intents", intents)
	case was && !now:
		o.log.Info("requests are accepted again", "intents", intents)
	}
	return !now
}

// wait returns when requests may be accepted, or with ctx's error.
func (o *overload) wait(ctx context.Context) error {
	if !poll(ctx, requestLook, o.room) {
		return ctx.Err()
	}
	return nil
}

// foldBehind counts the records that are not folded, as far as is known.
func (s *Service) foldBehind() int64 {
	var n int64
	for _, sh := range s.current() {
		behind, _ := s.foldLag(sh)
		n += behind
	}
	return n
}

// waitingIntents counts those of the partitions in hand.
func (s *Service) waitingIntents() (n int) {
	for _, sh := range s.current() {
		intents, _ := s.table.Waiting(sh.id)
		n += intents
	}
	return n
}

// overloaded is what is shed, for /v1/status.
func (s *Service) overloaded() web.Overload {
	o := s.overload
	o.mu.Lock()
	out := web.Overload{UnaskedShed: o.unasked, RequestsPaused: o.paused}
	o.mu.Unlock()
	out.FeedbackUnanswered, out.IntentsSuperseded = o.shedN.Load(), o.supersededN.Load()
	out.OutboxFull = slices.DeleteFunc(s.room.paused(), func(p int32) bool { return s.shard(p) == nil }) // not this process's any more
	if s.trainer != nil {
		out.StepsSkipped = s.trainer.Status().Skipped
	}
	return out
}

// overloadCollectors are the numbers of overload on /metrics; skipped steps are
// the trainer's own.
func (s *Service) overloadCollectors() []prometheus.Collector {
	o := s.overload
	flag := func(name, help string, of func() bool) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "rebeca_" + name, Help: help}, func() float64 {
			o.mu.Lock()
			defer o.mu.Unlock()
			if of() {
				return 1
			}
			return 0
		})
	}
	counter := func(name, help string, n *atomic.Uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "rebeca_" + name, Help: help}, func() float64 { return float64(n.Load()) })
	}
	return []prometheus.Collector{
		counter("intents_superseded_total", "Images never made because newer feedback of the same user took their place.", &o.supersededN),
		counter("feedback_unanswered_total", "Feedback events folded while overload kept feedback from making images.", &o.shedN),
		flag("unasked_shed", "1 while overload keeps feedback from making images.", func() bool { return o.unasked }),
		flag("requests_paused", "1 while requests wait in their topic because too many are being answered.", func() bool { return o.paused }),
	}
}
