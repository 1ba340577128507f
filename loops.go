package rebeca

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"rebeca/consumer"
	"rebeca/online"
)

// makeLoops makes the worker and the trainer's loops. A fetch loop starts at
// the table's offset, which is the only one that counts, else at the earliest
// record.
func (s *Service) makeLoops(ctx context.Context) error {
	c := s.config
	s.worker = &worker{
		topics: c.Kafka.Topics, generate: c.Generate, dim: c.Prior.Dim, partitions: c.Kafka.Partitions,
		samples: s.generator != nil, decodes: s.decoder != nil,
		table: s.table, registry: s.registry, progress: s.progress, generator: s.generator, room: s.room, pictures: s.pictures,
		pace: newPace(c.Limits.FoldRate), overload: s.overload,
		door: s.door, metrics: s.metrics, log: s.log,
	}
	if s.trainer == nil {
		return nil
	}
	cursor, err := s.trainer.Open()
	if err != nil {
		return fmt.Errorf("opening the trainer's checkpoints: %w", err)
	}
	for p := range int32(c.Kafka.Partitions) {
		train, err := s.trainLoop(ctx, p, cursor)
		if err != nil {
			return err
		}
		s.train = append(s.train, train)
	}
	return nil
}

func (s *Service) loop(topic string, p int32, h consumer.Handler) (*consumer.Partition, error) {
	next, _, ok, err := s.table.Offset(topic, p)
	if err != nil {
		return nil, fmt.Errorf("reading the offset of %s[%d]: %w", topic, p, err)
	}
	if !ok {
		next = consumer.Earliest
	}
	l := &consumer.Partition{Client: s.client, Topic: topic, ID: p, Start: next, Handler: s.guard.before(h), Logger: s.log}
	return l, s.watchGaps(l)
}

// requestsLoop reads requests from the table's offset. A state that has none
// answers from where the partition's last owner has answered everything, and
// reads what lies before for its ids, so that a request that is repeated is not
// answered again. Where there was no owner it begins at the end: an old request
// has nobody who waits for it.
func (s *Service) requestsLoop(ctx context.Context, p int32, at place, h consumer.Handler) (*consumer.Partition, error) {
	topic := s.config.Kafka.Topics.Requests
	loop, err := s.loop(topic, p, h)
	if err != nil {
		return nil, err
	}
	if loop.Start != consumer.Earliest {
		return loop, nil
	}
	first, end, err := bounds(ctx, s.client, topic, p, s.log)
	if err != nil {
		return nil, err
	}
	loop.Start = end
	if at.requests >= 0 {
		loop.Start = first
	}
	// Written down now, so that a request made while the service is away after
	// its first start is answered when it is back.
	if err := s.table.BeginRequests(topic, p, loop.Start, s.within(topic, p, at.requests, first, end)); err != nil {
		return nil, err
	}
	return loop, nil
}

// bounds asks for the first offset and the end of a topic's partition until a
// broker answers; its error is ctx's.
func bounds(ctx context.Context, client *consumer.Client, topic string, p int32, log *slog.Logger) (first, end int64, err error) {
	for {
		if first, end, err = client.Offsets(ctx, topic, p); err == nil {
			return first, end, nil
		}
		if ctx.Err() == nil {
			log.Warn("reading the bounds of a partition; trying again", "topic", topic, "partition", p, "err", err)
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		}
	}
}

func (s *Service) trainLoop(ctx context.Context, p int32, cursor map[int32]int64) (*consumer.Partition, error) {
	topic := s.config.Kafka.Topics.Feedback
	first, end, err := s.client.Offsets(ctx, topic, p)
	if err != nil {
		return nil, fmt.Errorf("reading the bounds of %s[%d]: %w", topic, p, err)
	}
	start := s.within(topic, p, cursor[p], first, end)
	if start > 0 {
		// What the log no longer holds counts as seen; below the cursor this says nothing.
		if err := s.trainer.Push(ctx, []online.Example{{Partition: p, Offset: start - 1}}); err != nil {
			return nil, err
		}
	}
	l := &learner{partitions: s.config.Kafka.Partitions, rules: s.config.rules(), registry: s.registry, progress: s.progress, trainer: s.trainer}
	return &consumer.Partition{Client: s.client, Topic: topic, ID: p, Start: start, Handler: l.feed(p), Logger: s.log, OnGap: s.onTrainGap}, nil
}

// within moves a start that the log no longer holds to the nearest offset it
// does: for readers to whom a lost record does no harm. Requests that expired
// before this state had an offset have nobody who waits for them, expired events
// are missed as examples only.
func (s *Service) within(topic string, p int32, start, first, end int64) int64 {
	at := min(max(start, first), end)
	if at != start && start > 0 {
		s.log.Warn("the log does not hold the stored offset; going on from the nearest", "topic", topic, "partition", p, "stored", start, "offset", at)
	}
	return at
}

// startIntake starts all that reads, learns and generates.
func (s *Service) startIntake(ctx context.Context, g *errgroup.Group) {
	for p := range int32(s.config.Kafka.Partitions) {
		g.Go(func() error { return s.readItems(ctx, p) })
	}
	for _, l := range s.train {
		g.Go(func() error { return s.fetch(ctx, l) })
	}
	s.assign(ctx, g)
	g.Go(func() error { return s.watchReady(ctx) })
	g.Go(func() error { return s.collect(ctx) })
	g.Go(func() error { return s.guard.run(ctx) })
	g.Go(func() error { return s.eraseForgotten(ctx) })
	if s.generator != nil {
		g.Go(func() error { return s.keepClaims(ctx) })
		g.Go(func() error { return s.generator.Run(ctx) })
		g.Go(func() error { return s.follow(ctx) })
		if s.pictures != nil {
			g.Go(func() error { return s.pictures.sweep(ctx, s.claimedPartitions) })
		}
	}
	if s.trainer != nil {
		g.Go(func() error { return s.learn(ctx) })
		g.Go(func() error { return s.awaitCatalogue(ctx) })
	}
}

// fetch runs one loop. A gap in the log stops that partition by name and
// nothing else; the operator decides.
func (s *Service) fetch(ctx context.Context, l *consumer.Partition) error {
	err := l.Run(ctx)
	var gap *consumer.GapError
	if errors.As(err, &gap) {
		s.log.Error("partition stopped", "topic", l.Topic, "partition", l.ID, "err", err)
		s.mu.Lock()
		s.stopped[nameOf(l)] = err
		s.mu.Unlock()
		<-ctx.Done()
		s.mu.Lock()
		delete(s.stopped, nameOf(l)) // another owner, or the next assignment, looks for itself
		s.mu.Unlock()
		return nil
	}
	return err
}

func nameOf(l *consumer.Partition) string { return fmt.Sprintf("%s[%d]", l.Topic, l.ID) }

// hasStopped reports whether a loop has stopped by name.
func (s *Service) hasStopped(l *consumer.Partition) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped[nameOf(l)] != nil
}

// follow loads announced priors.
func (s *Service) follow(ctx context.Context) error {
	topic := s.config.Kafka.Topics.Prior
	for {
		_, end, err := s.client.Offsets(ctx, topic, 0)
		if err == nil {
			s.follower.end = end
			break
		}
		s.log.Warn("reading the end of the prior topic; trying again", "err", err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil
		}
	}
	l := &consumer.Partition{Client: s.client, Topic: topic, Start: consumer.Earliest, Handler: s.follower, Logger: s.log}
	return s.fetch(ctx, l)
}

// awaitCatalogue tells the trainer when the catalogue has been read to the end
// seen at start.
func (s *Service) awaitCatalogue(ctx context.Context) error {
	if poll(ctx, 50*time.Millisecond, s.catalogueRead) {
		s.trainer.CatalogueReady()
	}
	return nil
}

// poll asks until done says yes; false when ctx ends first.
func poll(ctx context.Context, every time.Duration, done func() bool) bool {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// collect gives the disk space of large dead letters back that were sent.
func (s *Service) collect(ctx context.Context) error {
	return every(ctx, collectEvery, func() {
		if err := s.table.Collect(); err != nil {
			s.log.Warn("collecting disk space; trying again", "err", err)
		}
	})
}

// every calls do at each tick until ctx ends.
func every(ctx context.Context, pause time.Duration, do func()) error {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			do()
		case <-ctx.Done():
			return nil
		}
	}
}
