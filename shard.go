package rebeca

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"rebeca/consumer"
	"rebeca/table"
	"rebeca/web"
)

// States of a partition in this process.
const (
	stateClaiming = "claiming"    // asking who owns it
	stateStopped  = "stopped"     // not served, for the reason given
	stateCatching = "catching_up" // folding what the log held at the start; nothing is generated yet
	stateServing  = "serving"
)

// shard is one partition in the hands of this process, from its assignment
// until it is revoked or the process ends.
type shard struct {
	id int32
	as consumer.Membership // by which its offsets are committed

	mu       sync.Mutex
	state    string                  // guarded by mu
	why      error                   // guarded by mu; of claiming and stopped
	claim    consumer.Claim          // guarded by mu
	feedback *consumer.Partition     // guarded by mu; nil until claimed
	requests *consumer.Partition     // guarded by mu; nil until caught up
	relay    *consumer.Relay         // guarded by mu; nil until claimed, and in a process that only trains
	let      context.CancelCauseFunc // guarded by mu; ends the holding
}

func (sh *shard) setClaim(c consumer.Claim) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.claim = c
}

func (sh *shard) currentClaim() consumer.Claim {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.claim
}

func (sh *shard) set(state string, why error) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.state, sh.why = state, why
}

func (sh *shard) now() (state string, why error) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.state, sh.why
}

// lose ends the holding of the partition without another word to its outputs.
func (sh *shard) lose(why error) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.let != nil {
		sh.let(why)
	}
}

// parts returns what runs now; each may be nil.
func (sh *shard) parts() (feedback, requests *consumer.Partition, relay *consumer.Relay) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.feedback, sh.requests, sh.relay
}

func (s *Service) enter(sh *shard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shards[sh.id] = sh
}

func (s *Service) leave(sh *shard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shards[sh.id] == sh {
		delete(s.shards, sh.id)
	}
}

// current returns the partitions in hand, by number.
func (s *Service) current() []*shard {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*shard, 0, len(s.shards))
	for _, sh := range s.shards {
		out = append(out, sh)
	}
	slices.SortFunc(out, func(a, b *shard) int { return int(a.id - b.id) })
	return out
}

// count returns how many partitions are in a state.
func (s *Service) count(state string) (n int) {
	for _, sh := range s.current() {
		if is, _ := sh.now(); is == state {
			n++
		}
	}
	return n
}

func (s *Service) shard(partition int32) *shard {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shards[partition]
}

// claimed returns the partitions whose claim is to be renewed.
func (s *Service) claimed() []*shard {
	return slices.DeleteFunc(s.current(), func(sh *shard) bool {
		state, _ := sh.now()
		return state != stateCatching && state != stateServing
	})
}

// claimedPartitions returns the numbers of those.
func (s *Service) claimedPartitions() (out []int32) {
	for _, sh := range s.claimed() {
		out = append(out, sh.id)
	}
	return out
}

// refuse notes why the partition is not served and logs only what changed.
func (s *Service) refuse(sh *shard, why error) {
	state := stateClaiming
	if errors.Is(why, consumer.ErrNotOwner) {
		state = stateStopped
	}
	_, before := sh.now()
	sh.set(state, why)
	if before == nil || errors.Is(before, consumer.ErrNotOwner) != errors.Is(why, consumer.ErrNotOwner) {
		s.log.Error("partition is not served", "partition", sh.id, "err", why)
	}
}

// runShard serves one partition, which was entered as claiming, until ctx ends. A partition that another state
// owns stops by name, is looked at again, and disturbs no other.
func (s *Service) runShard(ctx context.Context, sh *shard) error {
	defer s.leave(sh)
	for ctx.Err() == nil {
		at := place{requests: -1}
		if s.generator != nil { // who only trains sends nothing and owns nothing
			var err error
			if at, err = s.claim(ctx, sh); err != nil {
				return orEnded(ctx, err)
			}
		}
		err := s.hold(ctx, sh, at)
		if !errors.Is(err, consumer.ErrNotOwner) {
			return orEnded(ctx, err)
		}
		s.refuse(sh, err)
	}
	return nil
}

// orEnded turns what the end of ctx causes into nil.
func orEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// hold folds and serves a claimed partition until ctx ends or somebody else
// takes it. After the end of ctx what was made is sent, for drainTimeout at
// most, and the claim is released. Requests are read and images made once the
// fold has reached the end of the log that it found: until then the rows are of
// the past.
func (s *Service) hold(ctx context.Context, sh *shard, at place) error {
	held, let := context.WithCancelCause(ctx)
	defer let(nil)
	if err := s.begin(sh, let); err != nil {
		return err
	}
	defer sh.end()
	relayCtx, stopRelay := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRelay()
	relayed := make(chan error, 1)
	go func() {
		err := s.send(relayCtx, sh)
		if err != nil {
			let(err)
		}
		relayed <- err
	}()
	s.setDuty(sh.id, s.generator != nil)
	g, run := errgroup.WithContext(held)
	g.Go(func() error { return s.fetch(run, sh.feedback) })
	g.Go(func() error { return s.serveWhenCaughtUp(run, sh, at, g) })
	err := g.Wait()
	s.setDuty(sh.id, false)
	if s.generator != nil {
		s.generator.leave(sh.id)
	}
	why := context.Cause(held) // of another end than ctx's: lost, or a relay that gave up
	if s.generator != nil && (why == nil || ctx.Err() != nil) {
		s.drain(relayCtx, sh.id)
	}
	stopRelay()
	sent := <-relayed
	if sh.relay != nil {
		s.sending.end(sh.relay)
	}
	switch {
	case errors.Is(why, consumer.ErrNotOwner):
		return why
	case s.generator == nil:
		return err
	}
	s.release(ctx, sh)
	return errors.Join(err, sent)
}

// begin makes the fold and the relay of a partition, from the table's offsets.
func (s *Service) begin(sh *shard, let context.CancelCauseFunc) error {
	feedback, err := s.loop(s.config.Kafka.Topics.Feedback, sh.id, s.worker.foldFeedback(sh.id))
	if err != nil {
		return err
	}
	// A batch of nothing but dead letters may fill the outbox once more, so it is no larger than that.
	feedback.MaxBatch, feedback.MaxBytes = min(s.worker.pace.batch(), s.room.limit), s.worker.pace.bytes(s.worker.partitions)
	if feedback.Start > 0 {
		s.progress.set(sh.id, feedback.Start)
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.state, sh.why, sh.let, sh.feedback = stateCatching, nil, let, feedback
	if s.generator != nil {
		sh.relay = s.relay(sh)
	}
	return nil
}

func (sh *shard) end() {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.state, sh.let, sh.feedback, sh.requests, sh.relay = stateClaiming, nil, nil, nil, nil
}

// send runs the relay where there is one.
func (s *Service) send(ctx context.Context, sh *shard) error {
	if sh.relay == nil {
		return nil
	}
	return orEnded(ctx, sh.relay.Run(ctx))
}

// release commits once more and says that the owner has ended.
func (s *Service) release(ctx context.Context, sh *shard) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer cancel()
	if err := s.commitShards(ctx, []*shard{sh}, true); err != nil {
		s.log.Warn("releasing a partition", "partition", sh.id, "err", err)
	}
}

// serveWhenCaughtUp waits for fold and catalogue, then reads requests and has
// images made.
func (s *Service) serveWhenCaughtUp(ctx context.Context, sh *shard, at place, g *errgroup.Group) error {
	var requests *consumer.Partition
	if s.generator != nil {
		// Its start is taken now: what is asked while the fold catches up is answered after it.
		var err error
		if requests, err = s.requestsLoop(ctx, sh.id, at, s.worker.acceptRequests(sh.id)); err != nil {
			return orEnded(ctx, err)
		}
	}
	if !s.catchUp(ctx, sh) {
		return nil
	}
	sh.mu.Lock()
	sh.state, sh.requests = stateServing, requests
	sh.mu.Unlock()
	if s.generator == nil {
		return nil
	}
	s.log.Info("partition is served", "partition", sh.id)
	g.Go(func() error { return s.fetch(ctx, requests) })
	return s.generator.open(sh.id)
}

// catchUp returns true once the fold has reached the end of the log that it
// heard of first, and the catalogue has been read; false when ctx ends first.
// It logs how far it is where that takes long.
func (s *Service) catchUp(ctx context.Context, sh *shard) bool {
	target, told := int64(-1), time.Now()
	return poll(ctx, 20*time.Millisecond, func() bool {
		end, at := sh.feedback.End()
		if at.IsZero() {
			return false
		}
		if target < 0 {
			target = end
		}
		position := sh.feedback.Position()
		if time.Since(told) > 5*time.Second {
			told = time.Now()
			s.log.Info("partition catches up", "partition", sh.id, "offset", position, "to", target)
		}
		return position >= target && s.catalogueRead()
	})
}

// drain waits until the partition's outbox is sent, drainTimeout at most.
func (s *Service) drain(ctx context.Context, partition int32) {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	sent := func() bool { _, messages := s.table.Waiting(partition); return messages == 0 }
	if !poll(ctx, 10*time.Millisecond, sent) {
		_, messages := s.table.Waiting(partition)
		s.log.Warn("stopping with messages unsent; the outbox keeps them", "partition", partition, "messages", messages)
	}
}

// answers returns nil where this process answers for a user's partition, else
// why it does not, and who does if that is known.
func (s *Service) answers(partition int32) error {
	sh := s.shard(partition)
	if sh == nil {
		e := &web.Error{Code: web.CodeNotOwner, Message: fmt.Sprintf("partition %d of this user is another worker's", partition)}
		if e.Owner = s.neighbour(partition); e.Owner != "" {
			e.Message += ": ask " + e.Owner
		}
		return e
	}
	switch state, why := sh.now(); state {
	case stateServing:
		return nil
	case stateStopped:
		return &web.Error{Code: web.CodeNotOwner, Message: why.Error(), Owner: s.neighbour(partition)}
	case stateCatching:
		feedback, _, _ := sh.parts()
		message := fmt.Sprintf("partition %d of this user catches up with the log", partition)
		if feedback != nil {
			end, _ := feedback.End()
			message += fmt.Sprintf(", at %d of %d", feedback.Position(), end)
		}
		return &web.Error{Code: web.CodeNotReady, Message: message}
	}
	return &web.Error{Code: web.CodeNotReady, Message: fmt.Sprintf("partition %d of this user is being claimed", partition)}
}

// relay makes the sender of a partition's outbox.
func (s *Service) relay(sh *shard) *consumer.Relay {
	t := s.config.Kafka.Topics
	r := &consumer.Relay{
		Client: s.client, Outbox: s.table, Partition: sh.id, Logger: s.log,
		TransactionalID: s.config.TransactionalID(sh.id), Own: func(ctx context.Context) error { return s.owned(ctx, sh) },
		Topics: map[string]string{table.RoleGenerated: t.Generated, table.RoleVectors: t.Vectors, table.RoleDeadletter: t.DeadLetter},
		OnAck: func(out []table.Outgoing, at time.Time) {
			s.generator.published(out, at)
			s.door.published(out)
			if s.options.OnPublished != nil {
				s.options.OnPublished(sh.id, out, at)
			}
		},
	}
	s.sending.add(r)
	return r
}
