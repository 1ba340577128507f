package rebeca

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"gonum.org/v1/gonum/stat"

	"rebeca/consumer"
	"rebeca/web"
)

// Status is the state of the service now, as /v1/status gives it.
func (s *Service) Status() web.Status {
	st := web.Status{Lag: s.lag(), Users: s.table.UserCount()}
	st.EventsFolded = s.metrics.eventsN.Load()
	st.Generated = s.metrics.generatedN.Load()
	st.EventToImage = s.metrics.latencies.quantiles()
	st.Partitions = s.partitions()
	st.Overload = s.overloaded()
	if s.follower != nil {
		v := s.follower.version()
		st.PriorVersion, st.PriorNumber, st.Step = v.Version, v.Number, v.Step
	}
	if s.trainer != nil {
		t := s.trainer.Status()
		st.Step = t.Step
		if t.Step > 0 {
			st.Loss = &t.LossEMA
		}
		st.Training = &web.Training{
			Verdict: string(t.Verdict), RefusedInARow: t.RefusedInARow, HeldUntil: t.HeldUntil,
			HeldOut: t.HeldOut, HeldOutLoss: t.HeldOutLoss, Usable: t.Usable, FewUsable: t.FewUsable, Unresolved: t.Unresolved,
			Examples: t.Examples, Pseudo: t.Pseudo, Law: t.Law,
		}
		if s.fit != nil {
			st.Training.GuidanceFit = s.fit.status()
		}
		if p := t.Student; p != nil {
			st.Training.Student = &web.Student{Steps: p.Steps, Distances: p.Distances, Bound: p.Bound, Passes: p.Passes}
		}
	}
	st.Stopped, st.GapsAccepted = s.stoppedReasons(), s.metrics.gapsN.Load()
	if s.pictures != nil {
		images := s.pictures.status()
		images.Decoding = s.generator.pool.depth()
		st.Images = &images
	}
	st.ErasePending, st.Disk = s.table.ErasePending(), s.guard.status()
	if s.options.World != nil {
		st.LikedShare, st.BaseRate = s.options.World.Shares()
	}
	return st
}

// lag counts what is behind. fold is unknown until every partition has heard
// of its end; publish leaves out what waits for a first prior.
func (s *Service) lag() web.Lag {
	var l web.Lag
	fold, publish, known := int64(0), int64(0), s.isAssigned()
	hasPrior := s.follower != nil && s.follower.version().Version != ""
	for _, sh := range s.current() {
		behind, heard := s.foldLag(sh)
		fold, known = fold+behind, known && heard
		intents, messages := s.table.Waiting(sh.id)
		if publish += int64(messages); hasPrior {
			publish += int64(intents)
		}
	}
	if known {
		l.Fold = &fold
	}
	l.Publish = &publish
	if s.trainer != nil && known {
		train := s.trainLag()
		l.Train = &train
	}
	return l
}

// partitions says of each partition in hand what becomes of it.
func (s *Service) partitions() []web.Partition {
	out := []web.Partition{}
	for _, sh := range s.current() {
		state, why := sh.now()
		p := web.Partition{Partition: sh.id, State: state, Offset: s.progress.get(sh.id)}
		if why != nil {
			p.Why = why.Error()
		}
		if feedback, _, _ := sh.parts(); feedback != nil {
			p.Epoch = sh.currentClaim().Epoch
			if behind, known := s.foldLag(sh); known {
				p.Lag = &behind
			}
		}
		out = append(out, p)
	}
	return out
}

// foldLag counts the records of a partition that are not folded; known is false
// before its end was heard of. One that this process does not own is not its
// to count.
func (s *Service) foldLag(sh *shard) (behind int64, known bool) {
	feedback, _, _ := sh.parts()
	if feedback == nil {
		state, _ := sh.now()
		return 0, state == stateStopped
	}
	end, at := feedback.End()
	// Position is ahead where the log begins with records that are gone.
	return max(0, end-max(s.progress.get(sh.id), feedback.Position())), !at.IsZero()
}

func (s *Service) isAssigned() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.assigned
}

// trainLag counts events that no weights in use know of, nor any that the guard
// refused or an operator's choice held back: those behind the announced cursor,
// those whose steps are still owed, or, while the newest weights are not decided
// on or not loaded yet, at least one.
func (s *Service) trainLag() int64 {
	t := s.trainer.Status()
	behind := int64(t.Backlog)
	if t.Step == 0 {
		behind = 0 // counted below, from the beginning of the log
	}
	for p, loop := range s.train {
		end, _ := loop.End()
		if sh := s.shard(int32(p)); sh != nil {
			if feedback, _, _ := sh.parts(); feedback != nil { // the fold may have heard of more
				folds, _ := feedback.End()
				end = max(end, folds)
			}
		}
		behind += max(0, end-max(0, t.Announced[int32(p)]))
	}
	if behind > 0 || s.follower == nil || t.Step == 0 {
		return behind
	}
	if v := s.follower.version(); v.Version != t.Version || t.Untold > 0 && t.Awaited {
		return 1
	}
	return 0
}

// unlearned counts events in the log that the trainer's loops have not brought
// to it yet.
func (s *Service) unlearned() int64 {
	var n int64
	for _, l := range s.train {
		end, _ := l.End()
		n += max(0, end-max(0, l.Position()))
	}
	return n
}

// Ready returns why the service is not ready; empty when it is.
func (s *Service) Ready() []web.Reason {
	var out []web.Reason
	s.mu.Lock()
	for name, err := range s.stopped {
		code := "partition_stopped"
		if name == trainerName {
			code = "trainer_stopped"
		}
		out = append(out, web.Reason{Code: code, Message: fmt.Sprintf("%s: %v", name, err)})
	}
	assigned := s.assigned
	s.mu.Unlock()
	caughtUp := s.catalogueRead()
	for _, sh := range s.current() {
		switch state, why := sh.now(); state {
		case stateStopped:
			out = append(out, web.Reason{Code: "partition_stopped", Message: why.Error()})
		case stateClaiming:
			if why == nil {
				why = fmt.Errorf("asking who owns partition %d", sh.id)
			}
			out = append(out, web.Reason{Code: "claiming", Message: why.Error()})
		case stateCatching:
			caughtUp = false
		}
	}
	for _, why := range s.registry.waiting() {
		out = append(out, web.Reason{Code: codeRegistry, Message: why})
	}
	slices.SortFunc(out, func(a, b web.Reason) int { return strings.Compare(a.Message, b.Message) })
	switch {
	case !assigned:
		out = append(out, web.Reason{Code: "unassigned", Message: "the group has not said yet which partitions are this process's"})
	case !caughtUp:
		out = append(out, web.Reason{Code: "catching_up", Message: "the fold has not reached the end of the log yet"})
	}
	for _, p := range s.room.paused() {
		if s.shard(p) == nil {
			continue // not this process's any more
		}
		out = append(out, web.Reason{Code: "outbox_full", Message: s.room.why(p)})
	}
	if low := s.guard.low(); low != nil {
		out = append(out, web.Reason{Code: string(low.Code), Message: low.Message})
	}
	if err := s.disconnected(); err != nil {
		out = append(out, web.Reason{Code: "broker_unavailable", Message: err.Error()})
	}
	return out
}

// disconnected returns why a loop or a relay does not reach its broker.
func (s *Service) disconnected() error {
	loops := s.items.all()
	for _, sh := range s.current() {
		feedback, requests, relay := sh.parts()
		for _, l := range []*consumer.Partition{feedback, requests} {
			if l != nil {
				loops = append(loops, l)
			}
		}
		if relay == nil {
			continue
		}
		if ok, err := relay.Connected(); !ok {
			return fmt.Errorf("sending from partition %d: %w", relay.Partition, err)
		}
	}
	for _, l := range loops {
		if ok, err := l.Connected(); !ok {
			return fmt.Errorf("%s[%d]: %w", l.Topic, l.ID, err)
		}
	}
	return nil
}

// watchReady says in the log when the service is ready first.
func (s *Service) watchReady(ctx context.Context) error {
	if poll(ctx, 20*time.Millisecond, func() bool { return len(s.Ready()) == 0 }) {
		s.log.Info("ready")
	}
	return nil
}

// latencyWindow is how many of the newest latencies the status speaks of.
const latencyWindow = 2048

// latencies are the newest times from an event to its image.
type latencies struct {
	mu   sync.Mutex
	ring []float64 // guarded by mu; milliseconds
	at   int       // guarded by mu; the oldest once the ring is full
}

func (l *latencies) add(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ms := float64(d) / float64(time.Millisecond)
	if len(l.ring) < latencyWindow {
		l.ring = append(l.ring, ms)
		return
	}
	l.ring[l.at] = ms
	l.at = (l.at + 1) % latencyWindow
}

// quantiles returns nil while there is nothing to speak of.
func (l *latencies) quantiles() *web.Quantiles {
	l.mu.Lock()
	sorted := slices.Clone(l.ring)
	l.mu.Unlock()
	return quantiles(sorted)
}

// quantiles sorts ms in place; nil when it is empty.
func quantiles(ms []float64) *web.Quantiles {
	if len(ms) == 0 {
		return nil
	}
	slices.Sort(ms)
	return &web.Quantiles{P50: stat.Quantile(.5, stat.Empirical, ms, nil), P99: stat.Quantile(.99, stat.Empirical, ms, nil)}
}
