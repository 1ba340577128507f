package rebeca

import (
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"rebeca/consumer"
)

// sending counts for all relays of this process, those that have ended
// included: a counter never goes back.
type sending struct {
	mu     sync.Mutex
	relays []*consumer.Relay   // guarded by mu; those that run
	ended  consumer.RelayStats // guarded by mu; of the others
}

func (s *sending) add(r *consumer.Relay) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.relays = append(s.relays, r)
}

// end lets go of a relay that has ended.
func (s *sending) end(r *consumer.Relay) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.relays = slices.DeleteFunc(s.relays, func(other *consumer.Relay) bool { return other == r })
	one := r.Stats()
	one.Depth = 0
	s.ended = sum(s.ended, one)
}

func sum(a, b consumer.RelayStats) consumer.RelayStats {
	return consumer.RelayStats{
		Depth: a.Depth + b.Depth, Retries: a.Retries + b.Retries, TooLarge: a.TooLarge + b.TooLarge, Dropped: a.Dropped + b.Dropped,
	}
}

func (s *sending) stats() consumer.RelayStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.ended
	for _, r := range s.relays {
		all = sum(all, r.Stats())
	}
	return all
}

// sendingCollectors are the relays' numbers and the depth of the outboxes.
func (s *Service) sendingCollectors() []prometheus.Collector {
	counter := func(name, help string, of func(consumer.RelayStats) uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "rebeca_" + name, Help: help}, func() float64 { return float64(of(s.sending.stats())) })
	}
	gauge := func(name, help string, of func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "rebeca_" + name, Help: help}, func() float64 { return float64(of()) })
	}
	return []prometheus.Collector{
		counter("relay_retries_total", "Kafka transactions whose outcome was in doubt or that were refused, and whose messages were looked at again.",
			func(r consumer.RelayStats) uint64 { return r.Retries }),
		counter("relay_too_large_total", "Messages that their topic refused for their size.", func(r consumer.RelayStats) uint64 { return r.TooLarge }),
		counter("relay_dropped_total", "Messages that the dead-letter topic refused for their size too.", func(r consumer.RelayStats) uint64 { return r.Dropped }),
		gauge("relay_in_hand", "Messages read from the outboxes and not yet committed to Kafka.", func() int { return s.sending.stats().Depth }),
		gauge("outbox_messages", "Messages waiting in the outboxes.", func() int { _, n := s.table.Depths(); return n }),
		gauge("partitions_serving", "Partitions that this process owns and serves.", func() int { return s.count(stateServing) }),
		gauge("partitions_stopped", "Partitions that are given to this process and that another state owns.", func() int { return s.count(stateStopped) }),
		gauge("outbox_full_partitions", "Partitions that wait for room in their outbox.", func() int { return len(s.room.paused()) }),
	}
}
