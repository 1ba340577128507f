package rebeca

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rebeca/consumer"
	"rebeca/table"
)

const (
	// claimEvery is how often offsets and claims are committed, and how often a
	// partition of somebody else's is looked at again.
	claimEvery = 5 * time.Second
	// claimLease is how long a claim must not have been renewed before a state
	// that has nothing of the partition takes it: the owner renews every
	// claimEvery.
	claimLease = 4 * claimEvery
)

// notOwner is the claim of another state, as an error that is
// [consumer.ErrNotOwner] and says what to do.
type notOwner struct {
	partition int32
	claim     consumer.Claim
	why       string // beside the claim itself
}

func rival(partition int32, c consumer.Claim, why string) error { return &notOwner{partition, c, why} }

func (e *notOwner) Error() string {
	c := e.claim
	return fmt.Sprintf("not_owner: partition %d belongs to state %s since %s (epoch %d, last heard of %s)%s; restore a snapshot of it made there "+
		"(rebeca snapshot restore --partitions %d), or, when that state is lost, take it and rebuild it from the log (rebeca partitions take --partitions %d)",
		e.partition, c.State, c.Since.Format(time.RFC3339), c.Epoch, c.At.Format(time.RFC3339), e.why, e.partition, e.partition)
}

// Is makes it a [consumer.ErrNotOwner].
func (e *notOwner) Is(target error) bool { return target == consumer.ErrNotOwner }

// owner is a state directory as it claims partitions.
type owner struct {
	state  string
	writer uint64
}

// standing is what a decision about a partition rests on.
type standing struct {
	local    table.Claim
	held     bool            // local is there: this state has owned the partition
	found    *consumer.Claim // the claim in the group; nil for none
	assigned bool            // the group has assigned the partition to this process
	silent   bool            // found has not been renewed for claimLease
}

// judge decides whether the partition may be served, and under which epoch.
// An assignment by the group always may: the coordinator knows no two members
// of a generation with the same partition, and a state that is behind catches
// up from the log. Without one, the higher epoch owns it; a state that never
// had the partition takes it from an owner that has released it or is silent,
// since all it makes of it comes from the log.
func (o owner) judge(partition int32, s standing) (epoch uint64, err error) {
	switch {
	case s.held && s.local.Partial:
		return 0, fmt.Errorf("partition %d was restored by halves: run `rebeca snapshot restore` again", partition)
	case s.found == nil:
		return max(s.local.Epoch, 1), nil
	case s.found.State == o.state:
		if s.found.Writer > o.writer && !s.assigned {
			return 0, rival(partition, *s.found, ": this is an older copy of that state's directory")
		}
		return max(s.local.Epoch, s.found.Epoch), nil
	case s.assigned:
		return max(s.local.Epoch, s.found.Epoch) + 1, nil
	case s.held && s.local.Epoch > s.found.Epoch:
		return s.local.Epoch, nil
	case s.held:
		return 0, rival(partition, *s.found, fmt.Sprintf(", this state has epoch %d", s.local.Epoch))
	case s.found.Released || s.silent:
		return s.found.Epoch + 1, nil
	}
	return 0, rival(partition, *s.found, "")
}

// lost reports who has taken a partition that is held under claim; nil while
// nobody has.
func (o owner) lost(partition int32, claim consumer.Claim, found *consumer.Claim) error {
	switch {
	case found == nil, found.State != o.state && found.Epoch < claim.Epoch:
		return nil // nobody's, or an older one's, which our next commit replaces
	case found.State != o.state:
		return rival(partition, *found, "")
	case found.Writer > o.writer:
		return rival(partition, *found, ": a copy of this state's directory was opened after it")
	}
	return nil
}

// place is where a partition is continued after it was claimed.
type place struct {
	requests int64 // below it requests are answered, should the state know no offset; -1 where there was no owner
}

// claim waits until the partition may be served and writes that into the table
// and the group, in this order: the group never tells of an epoch that the
// state does not know of. It returns ctx's error when ctx ends first.
func (s *Service) claim(ctx context.Context, sh *shard) (place, error) {
	var watch silence
	for {
		at, err := s.claimOnce(ctx, sh, &watch)
		if err == nil {
			return at, nil
		}
		if ctx.Err() != nil {
			return place{}, ctx.Err()
		}
		var broken *tableError
		if errors.As(err, &broken) {
			return place{}, err
		}
		s.refuse(sh, err)
		pause := time.Second
		if errors.Is(err, consumer.ErrNotOwner) {
			pause = s.lease / 4
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return place{}, ctx.Err()
		}
	}
}

// tableError is a failure of the state itself, which no waiting mends.
type tableError struct{ err error }

func (e *tableError) Error() string { return e.err.Error() }
func (e *tableError) Unwrap() error { return e.err }

// claimOnce tries to take the partition. watch knows how long the claim found
// has not been renewed.
func (s *Service) claimOnce(ctx context.Context, sh *shard, watch *silence) (place, error) {
	t, group, p := s.config.Kafka.Topics, s.config.groupName(), sh.id
	local, held, err := s.table.ClaimOf(p)
	if err != nil {
		return place{}, &tableError{err}
	}
	committed, err := s.client.Committed(ctx, group, t.Feedback, []int32{p})
	if err != nil {
		return place{}, err
	}
	found := committed[p].Claim
	me := s.owner()
	epoch, err := me.judge(p, standing{local: local, held: held, found: found, assigned: sh.as.Member != "", silent: watch.over(found, s.lease)})
	if err != nil {
		return place{}, err
	}
	at := place{requests: -1}
	since := time.Now().UTC().Truncate(time.Millisecond)
	switch {
	case found == nil:
	case found.State == me.state:
		since = found.Since
	default:
		s.log.Info("taking a partition over", "partition", p, "from", found.State, "epoch", epoch)
	}
	// Also of a partition that is ours: we may have been killed between the claim and the first word on requests.
	if at.requests, err = s.answeredBefore(ctx, group, p); err != nil {
		return place{}, err
	}
	if !held || local.Epoch != epoch {
		if err := s.table.Claim(p, table.Claim{Epoch: epoch, Since: since}, t.Items); err != nil {
			return place{}, &tableError{err}
		}
	}
	sh.setClaim(consumer.Claim{State: me.state, Epoch: epoch, Writer: me.writer, Since: since, URL: s.config.HTTP.Advertise})
	return at, s.commitShards(ctx, []*shard{sh}, false)
}

// answeredBefore returns the offset of requests below which the group's owner has
// answered everything, -1 where it says nothing or the state has its own.
func (s *Service) answeredBefore(ctx context.Context, group string, p int32) (int64, error) {
	topic := s.config.Kafka.Topics.Requests
	if _, _, followed, err := s.table.Offset(topic, p); err != nil || followed {
		if err != nil {
			err = &tableError{err}
		}
		return -1, err
	}
	asked, err := s.client.Committed(ctx, group, topic, []int32{p})
	if err != nil {
		return -1, err
	}
	if c, ok := asked[p]; ok {
		return c.Offset, nil
	}
	return -1, nil
}

func (s *Service) owner() owner { return owner{s.table.State(), s.table.Writer()} }

// owned is asked before anybody else is fenced off the partition's output.
func (s *Service) owned(ctx context.Context, sh *shard) error {
	committed, err := s.client.Committed(ctx, s.config.groupName(), s.config.Kafka.Topics.Feedback, []int32{sh.id})
	if err != nil {
		return err
	}
	return s.owner().lost(sh.id, sh.currentClaim(), committed[sh.id].Claim)
}

// keepClaims renews the claims of all partitions served, with the offsets that
// lag tools show, and lets go of those that somebody else has taken.
// It learns at the same time who has the others.
func (s *Service) keepClaims(ctx context.Context) error {
	return every(ctx, s.lease/4, func() {
		held := s.claimed()
		if len(held) == 0 && !s.config.divided() {
			return
		}
		if err := s.renew(ctx, held); err != nil && ctx.Err() == nil {
			s.log.Warn("claims cannot be renewed; trying again", "err", err)
		}
	})
}

func (s *Service) renew(ctx context.Context, held []*shard) error {
	all := Config{Kafka: s.config.Kafka}.static()
	committed, err := s.client.Committed(ctx, s.config.groupName(), s.config.Kafka.Topics.Feedback, all)
	if err != nil {
		return err
	}
	s.setNeighbours(committed)
	me, still := s.owner(), held[:0]
	for _, sh := range held {
		if err := me.lost(sh.id, sh.currentClaim(), committed[sh.id].Claim); err != nil {
			sh.lose(err)
			continue
		}
		still = append(still, sh)
	}
	return s.commitShards(ctx, still, false)
}

// setNeighbours notes under which URL the owners of other partitions are
// reached.
func (s *Service) setNeighbours(committed map[int32]consumer.Committed) {
	urls := map[int32]string{}
	for p, at := range committed {
		if c := at.Claim; c != nil && c.State != s.table.State() && !c.Released {
			urls[p] = c.URL
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.neighbours = urls
}

// neighbour returns the URL of the owner of another partition: the one that it
// gave when it renewed its claim last, else that of the configuration; empty
// where neither is there.
func (s *Service) neighbour(partition int32) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.neighbours[partition]; u != "" {
		return u
	}
	return s.config.peerOf(partition)
}

// commitShards commits offset and claim of each partition, and of requests the
// offset from which another owner has to begin.
func (s *Service) commitShards(ctx context.Context, shards []*shard, released bool) error {
	if len(shards) == 0 {
		return nil
	}
	t := s.config.Kafka.Topics
	feedback, requests := map[int32]consumer.Committed{}, map[int32]consumer.Committed{}
	for _, sh := range shards {
		next, _, _, err := s.table.Offset(t.Feedback, sh.id)
		if err != nil {
			return err
		}
		c := sh.currentClaim()
		c.At, c.Released = time.Now().UTC().Truncate(time.Millisecond), released
		feedback[sh.id] = consumer.Committed{Offset: next, Claim: &c}
		if next, ok, err := s.table.Answered(t.Requests, sh.id); err != nil {
			return err
		} else if ok {
			requests[sh.id] = consumer.Committed{Offset: next}
		}
	}
	all := map[string]map[int32]consumer.Committed{t.Feedback: feedback}
	if len(requests) > 0 {
		all[t.Requests] = requests
	}
	return s.client.Commit(ctx, shards[0].as, all)
}
