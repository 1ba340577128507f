package rebeca

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"rebeca/consumer"
	"rebeca/table"
	"rebeca/web"
)

// What is done about a log that does not hold what was to be read next.
const (
	OnGapFail   = "fail"   // the partition stops by name
	OnGapRecord = "record" // the gap is noted, and the fold goes on from the first record that the log holds
)

// watchGaps tells a loop over a topic of the table what it must find in the
// log and what is done where it does not.
func (s *Service) watchGaps(l *consumer.Partition) error {
	offset, fingerprint, ok, err := s.table.Last(l.Topic, l.ID)
	if err != nil {
		return fmt.Errorf("reading the last record of %s[%d]: %w", l.Topic, l.ID, err)
	}
	if ok {
		l.Applied = &consumer.Applied{Offset: offset, Fingerprint: fingerprint}
	}
	l.Dense = l.Topic != s.config.Kafka.Topics.Items // which is compacted
	l.OnGap = s.onGap
	return nil
}

// onGap decides by the configuration. A log that begins behind 0 at the first
// start is noted only, and so is a catalogue of which the beginning is gone:
// compaction takes it, and what counts of each item is its newest record.
func (s *Service) onGap(g *consumer.GapError) error {
	compacted := g.Kind == consumer.GapLost && g.Topic == s.config.Kafka.Topics.Items
	if g.Kind != consumer.GapBegin && !compacted && s.config.Kafka.OnGap != OnGapRecord {
		return g
	}
	if g.Topic == s.config.Kafka.Topics.Feedback && g.First < g.Stored {
		if err := s.table.LowerMarks(g.Partition, g.First); err != nil {
			return err
		}
	}
	skip := table.Gap{Kind: string(g.Kind), From: g.Stored, To: g.First, At: time.Now()}
	if err := s.table.Skip(g.Topic, g.Partition, skip); err != nil {
		return err
	}
	s.log.Warn("the log does not hold what was to be read next; going on", "kind", g.Kind,
		"topic", g.Topic, "partition", g.Partition, "stored", g.Stored, "offset", g.First)
	if g.Kind != consumer.GapBegin {
		s.metrics.gap(g)
	}
	if g.Topic == s.config.Kafka.Topics.Feedback {
		s.progress.set(g.Partition, g.First)
	}
	return nil
}

// onTrainGap lets the trainer go on where the fold does: what is lost is missed
// as an example only.
func (s *Service) onTrainGap(g *consumer.GapError) error {
	if g.Kind != consumer.GapBegin && s.config.Kafka.OnGap != OnGapRecord {
		return g
	}
	return nil
}

// codeRegistry is of a partition that waits for the schema registry.
const codeRegistry = "registry_unavailable"

// stoppedReasons says which partitions stand still and why, in order.
func (s *Service) stoppedReasons() []web.Stopped {
	out := []web.Stopped{}
	add := func(name string, err error) {
		code := "stopped"
		var gap *consumer.GapError
		switch {
		case errors.As(err, &gap):
			code = strings.ReplaceAll(string(gap.Kind), " ", "_")
		case errors.As(err, new(*otherTrainer)):
			code = "other_trainer"
		case errors.Is(err, consumer.ErrNotOwner):
			code = "not_owner"
		}
		out = append(out, web.Stopped{Partition: name, Code: code, Message: err.Error()})
	}
	for _, sh := range s.current() {
		if state, why := sh.now(); state == stateStopped {
			add(fmt.Sprintf("%s[%d]", s.config.Kafka.Topics.Generated, sh.id), why)
		}
	}
	s.mu.Lock()
	for name, err := range s.stopped {
		add(name, err)
	}
	s.mu.Unlock()
	for name, why := range s.registry.waiting() {
		out = append(out, web.Stopped{Partition: name, Code: codeRegistry, Message: why})
	}
	slices.SortFunc(out, func(a, b web.Stopped) int { return strings.Compare(a.Partition, b.Partition) })
	return out
}
