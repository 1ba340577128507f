package rebeca

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"rebeca/consumer"
	"rebeca/online"
)

// loops are the fetch loops by partition, for lag and readiness.
type loops struct {
	items    []*consumer.Partition
	feedback []*consumer.Partition
	requests []*consumer.Partition
	train    []*consumer.Partition
}

// makeLoops decides where each fetch loop starts: at the table's offset, which
// is the only one that counts, else at the earliest record; requests start at
// the end, because an old request has nobody who waits for it.
func (s *Service) makeLoops(ctx context.Context) error {
	c, t := s.config, s.config.Kafka.Topics
	w := &worker{
		topics: t, generate: c.Generate, dim: c.Prior.Dim, partitions: c.Kafka.Partitions,
		samples: s.generator != nil, decodes: s.decoder != nil,
		table: s.table, progress: s.progress, generator: s.generator, room: s.room, door: s.door, metrics: s.metrics, log: s.log,
	}
	cursor := map[int32]int64{}
	if s.trainer != nil {
		var err error
		if cursor, err = s.trainer.Open(); err != nil {
			return fmt.Errorf("opening the trainer's checkpoints: %w", err)
		}
	}
	for p := range int32(c.Kafka.Partitions) {
		if s.generator != nil {
			s.relays = append(s.relays, s.relay(p))
		}
		items, err := s.loop(t.Items, p, w.listItems(p))
		if err != nil {
			return err
		}
		feedback, err := s.loop(t.Feedback, p, w.foldFeedback(p))
		if err != nil {
			return err
		}
		if feedback.Start > 0 {
			s.progress.set(p, feedback.Start)
		}
		s.loops.items, s.loops.feedback = append(s.loops.items, items), append(s.loops.feedback, feedback)
		if s.generator != nil {
			requests, err := s.requestsLoop(ctx, p, w.acceptRequests(p))
			if err != nil {
				return err
			}
			s.loops.requests = append(s.loops.requests, requests)
		}
		if s.trainer != nil {
			train, err := s.trainLoop(ctx, p, cursor)
			if err != nil {
				return err
			}
			s.loops.train = append(s.loops.train, train)
		}
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
	return &consumer.Partition{Client: s.client, Topic: topic, ID: p, Start: next, Handler: s.guard.before(h), Logger: s.log}, nil
}

func (s *Service) requestsLoop(ctx context.Context, p int32, h consumer.Handler) (*consumer.Partition, error) {
	topic := s.config.Kafka.Topics.Requests
	loop, err := s.loop(topic, p, h)
	if err != nil {
		return nil, err
	}
	if loop.Start != consumer.Earliest {
		loop.Start, err = s.within(ctx, topic, p, loop.Start)
		return loop, err
	}
	_, end, err := s.client.Offsets(ctx, topic, p)
	if err != nil {
		return nil, fmt.Errorf("reading the end of %s[%d]: %w", topic, p, err)
	}
	// Written down now, so that a request made while the service is away after
	// its first start is answered when it is back.
	if _, err := s.table.Accept(topic, p, nil, end); err != nil {
		return nil, fmt.Errorf("storing the first offset of %s[%d]: %w", topic, p, err)
	}
	loop.Start = end
	return loop, nil
}

func (s *Service) trainLoop(ctx context.Context, p int32, cursor map[int32]int64) (*consumer.Partition, error) {
	topic := s.config.Kafka.Topics.Feedback
	start, err := s.within(ctx, topic, p, cursor[p])
	if err != nil {
		return nil, err
	}
	if start > 0 {
		// What the log no longer holds counts as seen; below the cursor this says nothing.
		if err := s.trainer.Push(ctx, []online.Example{{Partition: p, Offset: start - 1}}); err != nil {
			return nil, err
		}
	}
	l := &learner{partitions: s.config.Kafka.Partitions, rules: s.config.rules(), progress: s.progress, trainer: s.trainer}
	return &consumer.Partition{Client: s.client, Topic: topic, ID: p, Start: start, Handler: l.feed(p), Logger: s.log}, nil
}

// within moves a start that the log no longer holds to the nearest offset it
// does: for readers to whom a lost record does no harm. Expired requests have
// nobody who waits for them, expired events are missed as examples only.
func (s *Service) within(ctx context.Context, topic string, p int32, start int64) (int64, error) {
	first, end, err := s.client.Offsets(ctx, topic, p)
	if err != nil {
		return 0, fmt.Errorf("reading the bounds of %s[%d]: %w", topic, p, err)
	}
	at := min(max(start, first), end)
	if at != start && start > 0 {
		s.log.Warn("the log does not hold the stored offset; going on from the nearest", "topic", topic, "partition", p, "stored", start, "offset", at)
	}
	return at, nil
}

// startIntake starts all that reads, learns and generates.
func (s *Service) startIntake(ctx context.Context, g *errgroup.Group) {
	for _, set := range [][]*consumer.Partition{s.loops.items, s.loops.feedback, s.loops.requests, s.loops.train} {
		for _, l := range set {
			g.Go(func() error { return s.fetch(ctx, l) })
		}
	}
	g.Go(func() error { return s.watchReady(ctx) })
	g.Go(func() error { return s.collect(ctx) })
	g.Go(func() error { return s.guard.run(ctx) })
	g.Go(func() error { return s.eraseForgotten(ctx) })
	if s.generator != nil {
		g.Go(func() error { return s.commitOffsets(ctx) })
		g.Go(func() error { return s.generator.Run(ctx) })
		g.Go(func() error { return s.follow(ctx) })
	}
	if s.trainer != nil {
		g.Go(func() error { return s.trainer.Run(ctx) })
		g.Go(func() error { return s.awaitCatalogue(ctx) })
	}
}

// fetch runs one loop. A gap in the log stops that partition by name and
// nothing else; the operator decides.
func (s *Service) fetch(ctx context.Context, l *consumer.Partition) error {
	err := l.Run(ctx)
	var gap *consumer.GapError
	if errors.As(err, &gap) {
		s.stop(l.Topic, l.ID, err)
		<-ctx.Done()
		return nil
	}
	return err
}

// stop notes why a partition does not go on.
func (s *Service) stop(topic string, partition int32, err error) {
	s.log.Error("partition stopped", "topic", topic, "partition", partition, "err", err)
	s.mu.Lock()
	s.stopped[fmt.Sprintf("%s[%d]", topic, partition)] = err
	s.mu.Unlock()
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
	ends := make([]int64, len(s.loops.items))
	for p := range ends {
		_, end, err := s.client.Offsets(ctx, s.config.Kafka.Topics.Items, int32(p))
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("reading the end of the catalogue: %w", err)
		}
		ends[p] = end
	}
	reached := func() bool {
		for p, end := range ends {
			if s.loops.items[p].Position() < end {
				return false
			}
		}
		return true
	}
	if !poll(ctx, 50*time.Millisecond, reached) {
		return nil
	}
	s.trainer.CatalogueReady()
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

// commitOffsets tells lag tools how far the fold is.
func (s *Service) commitOffsets(ctx context.Context) error {
	return every(ctx, commitEvery, func() {
		offsets := map[int32]int64{}
		for p := range int32(s.config.Kafka.Partitions) {
			offsets[p] = s.progress.get(p)
		}
		all := map[string]map[int32]int64{s.config.Kafka.Topics.Feedback: offsets}
		if err := s.client.Commit(ctx, group, all); err != nil {
			s.log.Debug("committing offsets for lag tools", "err", err)
		}
	})
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
