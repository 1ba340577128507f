package rebeca

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"rebeca/consumer"
	"rebeca/table"
)

// A prior topic has one trainer: two would announce by turns what neither knows
// of the other. Whose it is stands as the owner of a partition does, as the
// metadata of a committed offset, in a group of the topic's own that never has
// members. Another process with the role waits until the trainer has ended, or
// has been silent for claimLease; one that was taken for dead ends.

// trainerGroup is the group that holds the trainer's claim.
func (c Config) trainerGroup() string { return "rebeca-" + c.Kafka.Topics.Prior }

// trainerName is what stands still while another process trains.
const trainerName = "trainer"

// otherTrainer is the claim of another process to the prior topic.
type otherTrainer struct {
	topic string
	*notOwner
}

func (e *otherTrainer) Error() string {
	c := e.claim
	return fmt.Sprintf("other_trainer: state %s announces versions on topic %s since %s (last heard of %s)%s: a prior has one trainer; "+
		"end one of the two, or give this one another kafka.topics.prior", c.State, e.topic, c.Since.Format(time.RFC3339), c.At.Format(time.RFC3339), e.why)
}

// learn trains as long as this process is the trainer of its topic, which it
// waits for.
func (s *Service) learn(ctx context.Context) error {
	claim, err := s.lead(ctx)
	if err != nil {
		return orEnded(ctx, err)
	}
	g, run := errgroup.WithContext(ctx)
	g.Go(func() error { return s.trainer.Run(run) })
	g.Go(func() error { return s.keepLead(run, claim) })
	err = orEnded(ctx, g.Wait())
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer cancel()
	claim.Released = true
	if e := s.renewLead(last, claim); e != nil && err == nil {
		s.log.Warn("releasing the trainer's claim", "err", e)
	}
	return err
}

// lead waits until this process may train, and returns the claim that says so.
func (s *Service) lead(ctx context.Context) (consumer.Claim, error) {
	var watch silence
	for {
		claim, err := s.leadOnce(ctx, &watch)
		if err == nil {
			s.resume(trainerName)
			return claim, nil
		}
		switch {
		case ctx.Err() != nil:
			return claim, ctx.Err()
		case errors.Is(err, consumer.ErrNotOwner):
			s.pause(trainerName, err)
		default:
			s.log.Warn("asking who trains; trying again", "err", err)
		}
		select {
		case <-time.After(s.lease / 8):
		case <-ctx.Done():
			return claim, ctx.Err()
		}
	}
}

// leadOnce takes the claim if it is free, and looks once more: of two that took
// it at one moment the later has it.
func (s *Service) leadOnce(ctx context.Context, watch *silence) (claim consumer.Claim, err error) {
	found, err := s.trainerClaim(ctx)
	if err != nil {
		return claim, err
	}
	rank, err := s.rank()
	if err != nil {
		return claim, err
	}
	me := s.owner()
	epoch, err := me.judge(0, standing{local: table.Claim{Epoch: rank}, held: found != nil && rank > found.Epoch, found: found, silent: watch.over(found, s.lease)})
	if err != nil {
		return claim, s.rivalTrainer(err)
	}
	claim = consumer.Claim{State: me.state, Epoch: epoch, Writer: me.writer, Since: time.Now().UTC().Truncate(time.Millisecond), URL: s.config.HTTP.Advertise}
	if found != nil && found.State == me.state {
		claim.Since = found.Since
	}
	if err := s.commitLead(ctx, claim); err != nil {
		return claim, err
	}
	return claim, s.leads(ctx, claim)
}

// rank is the highest epoch of the state's partitions: a state that was
// restored is above the one that it was made of, which may have been killed.
func (s *Service) rank() (uint64, error) {
	rank := uint64(0)
	claims, err := s.table.Claims()
	for _, c := range claims {
		rank = max(rank, c.Epoch)
	}
	return rank, err
}

// trainerClaim reads whose the prior topic is; nil for nobody's.
func (s *Service) trainerClaim(ctx context.Context) (*consumer.Claim, error) {
	committed, err := s.client.Committed(ctx, s.config.trainerGroup(), s.config.Kafka.Topics.Prior, []int32{0})
	return committed[0].Claim, err
}

// leads returns nil while nobody has taken the claim over.
func (s *Service) leads(ctx context.Context, claim consumer.Claim) error {
	found, err := s.trainerClaim(ctx)
	if err != nil {
		return err
	}
	return s.rivalTrainer(s.owner().lost(0, claim, found))
}

func (s *Service) rivalTrainer(err error) error {
	var other *notOwner
	if errors.As(err, &other) {
		return &otherTrainer{s.config.Kafka.Topics.Prior, other}
	}
	return err
}

func (s *Service) commitLead(ctx context.Context, claim consumer.Claim) error {
	claim.At = time.Now().UTC().Truncate(time.Millisecond)
	s.setLead(claim)
	return s.client.Commit(ctx, consumer.Membership{Group: s.config.trainerGroup()},
		map[string]map[int32]consumer.Committed{s.config.Kafka.Topics.Prior: {0: {Claim: &claim}}})
}

// renewLead commits the claim unless somebody else has it.
func (s *Service) renewLead(ctx context.Context, claim consumer.Claim) error {
	if err := s.leads(ctx, claim); err != nil {
		return err
	}
	return s.commitLead(ctx, claim)
}

// keepLead renews the claim until ctx ends, or returns whose it is now.
func (s *Service) keepLead(ctx context.Context, claim consumer.Claim) error {
	tick := time.NewTicker(s.lease / 4)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		err := s.renewLead(ctx, claim)
		if errors.Is(err, consumer.ErrNotOwner) {
			return err
		}
		if err != nil && ctx.Err() == nil {
			s.log.Warn("the trainer's claim cannot be renewed; trying again", "err", err)
		}
	}
}

// mayAnnounce asks, before a version is announced, whether another process
// trains by now.
func (s *Service) mayAnnounce(ctx context.Context) error {
	s.mu.Lock()
	claim := s.leading
	s.mu.Unlock()
	return s.leads(ctx, claim)
}

func (s *Service) setLead(claim consumer.Claim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leading = claim
}

// pause notes why something stands still, and logs it once.
func (s *Service) pause(name string, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped[name] == nil {
		s.log.Error("the "+name+" stands still", "err", why)
	}
	s.stopped[name] = why
}

func (s *Service) resume(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.stopped, name)
}

// silence is for how long a claim has not been renewed, by our own clock.
type silence struct {
	seen  *consumer.Claim
	since time.Time
}

// over reports whether the claim, as it was found now, has stood for a lease.
func (w *silence) over(found *consumer.Claim, lease time.Duration) bool {
	if w.seen == nil || found == nil || found.State != w.seen.State || !found.At.Equal(w.seen.At) {
		w.seen, w.since = found, time.Now()
	}
	return time.Since(w.since) >= lease
}
