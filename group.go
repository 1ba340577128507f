package rebeca

import (
	"context"

	"golang.org/x/sync/errgroup"

	"rebeca/consumer"
)

// assign gives this process its partitions: those of the configuration at
// once, those of a group as it is told.
func (s *Service) assign(ctx context.Context, g *errgroup.Group) {
	if s.config.Group != "" {
		g.Go(func() error { return s.join(ctx) })
		return
	}
	s.take(ctx, g, consumer.Membership{Group: s.config.groupName()}, s.config.static())
}

// take serves partitions until ctx ends.
func (s *Service) take(ctx context.Context, g *errgroup.Group, as consumer.Membership, partitions []int32) {
	for _, p := range partitions {
		sh := &shard{id: p, as: as, state: stateClaiming}
		s.enter(sh)
		g.Go(func() error { return s.runShard(ctx, sh) })
	}
	s.setAssigned(true)
}

// join is a member of the group until ctx ends. All partitions of a generation
// have stopped, and committed once more, before the member joins the next.
func (s *Service) join(ctx context.Context) error {
	member := consumer.Group{
		Client: s.client, Name: s.config.Group, Topic: s.config.Kafka.Topics.Feedback, Held: s.folded, Logger: s.log, Heartbeat: s.heartbeat,
		Assigned: func(ctx context.Context, as consumer.Membership, partitions []int32) error {
			defer s.setAssigned(false)
			g, run := errgroup.WithContext(ctx)
			s.take(run, g, as, partitions)
			return g.Wait()
		},
	}
	return member.Run(ctx)
}

// folded says how far this state is in the partitions that it has had.
func (s *Service) folded() map[int32]int64 {
	claims, err := s.table.Claims()
	if err != nil {
		s.log.Warn("reading the state's claims; joining as if it had none", "err", err)
	}
	out := map[int32]int64{}
	for p, c := range claims {
		if next, _, ok, err := s.table.Offset(s.config.Kafka.Topics.Feedback, p); err == nil && ok && !c.Partial {
			out[p] = next
		}
	}
	return out
}

func (s *Service) setAssigned(is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.assigned = is
}
