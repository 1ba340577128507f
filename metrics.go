package rebeca

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rebeca/consumer"
	"rebeca/schemas"
	"rebeca/table"
)

// metrics are the service's own numbers; packages below register theirs.
type metrics struct {
	eventsN, duplicatesN, deadN, generatedN, gapsN atomic.Uint64 // behind the counters of their names

	forgotten   prometheus.Counter
	deadletters *prometheus.CounterVec
	gaps        *prometheus.CounterVec
	masked      prometheus.Counter
	failures    prometheus.Counter
	copies      prometheus.Counter
	givenAgain  prometheus.Counter
	stale       prometheus.Counter

	windowsEncoded, windowsReused prometheus.Counter

	eventToFact  prometheus.Histogram
	eventToImage prometheus.Histogram
	batchSeconds prometheus.Histogram

	latencies latencies // what eventToImage has seen of late
}

// newMetrics registers them; topics are those that the table follows.
func newMetrics(reg prometheus.Registerer, topics ...string) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "rebeca_" + name, Help: help})
	}
	histogram := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "rebeca_" + name, Help: help, Buckets: prometheus.ExponentialBuckets(.002, 1.6, 22),
		})
	}
	m := &metrics{
		forgotten: counter("forgotten_total", "Feedback events dropped because their user was forgotten after them."),
		deadletters: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rebeca_deadletters_total", Help: "Records sent to the dead-letter topic, by reason class.",
		}, []string{"reason"}),
		gaps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rebeca_gaps_accepted_total", Help: "Gaps of the log that were passed by kafka.on_gap: record, by topic and kind.",
		}, []string{"topic", "kind"}),
		masked:         counter("masked_entries_total", "Window entries without an embedding, left out when a window was read."),
		windowsEncoded: counter("windows_encoded_total", "Windows encoded by the prior."),
		windowsReused:  counter("windows_reused_total", "Windows that the version in use had encoded before."),
		failures:       counter("generate_failures_total", "Batches that failed to generate and were tried again."),
		eventToFact:    histogram("event_to_fact_seconds", "From a feedback event's Kafka timestamp to its fold's commit."),
		eventToImage:   histogram("event_to_image_seconds", "From the first feedback event behind an image to the broker's acknowledgement of the image."),
		batchSeconds:   histogram("generate_batch_seconds", "One batch of the generator, from reading windows to the embeddings."),
		copies:         counter("candidates_copies_total", "Candidates left out because an item of the catalogue is too near."),
		givenAgain:     counter("candidates_given_total", "Candidates left out because something too near was given to the user lately."),
		stale:          counter("images_not_novel_total", "Images chosen among candidates that were all left out."),
	}
	for _, reason := range schemas.Reasons() {
		m.deadletters.WithLabelValues(string(reason)) // so that a rate exists before the first
	}
	for _, topic := range topics {
		for _, kind := range []consumer.GapKind{consumer.GapLost, consumer.GapRecreated, consumer.GapOther} {
			m.gaps.WithLabelValues(topic, string(kind))
		}
	}
	counted := func(name, help string, n *atomic.Uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "rebeca_" + name, Help: help}, func() float64 { return float64(n.Load()) })
	}
	reg.MustRegister(
		counted("events_folded_total", "Feedback events folded into the table.", &m.eventsN),
		counted("duplicates_total", "Feedback events whose event_id had been folded before.", &m.duplicatesN),
		counted("generated_total", "Generated records acknowledged by the broker.", &m.generatedN),
		m.forgotten, m.deadletters, m.gaps, m.masked, m.failures, m.copies, m.givenAgain, m.stale, m.windowsEncoded, m.windowsReused,
		m.eventToFact, m.eventToImage, m.batchSeconds)
	return m
}

func (m *metrics) folded(f table.Folded, records []consumer.Record, now time.Time) {
	m.eventsN.Add(uint64(f.Events))
	m.duplicatesN.Add(uint64(f.Duplicates))
	m.deadN.Add(uint64(f.Dead))
	m.forgotten.Add(float64(f.Forgotten))
	for reason, n := range f.DeadByReason {
		m.deadletters.WithLabelValues(string(reason)).Add(float64(n))
	}
	for _, r := range records {
		m.eventToFact.Observe(now.Sub(r.Time).Seconds())
	}
}

func (m *metrics) gap(g *consumer.GapError) {
	m.gapsN.Add(1)
	m.gaps.WithLabelValues(g.Topic, string(g.Kind)).Inc()
}

func (m *metrics) dead(r *schemas.Rejection) {
	if r != nil {
		m.deadN.Add(1)
		m.deadletters.WithLabelValues(string(r.Reason)).Inc()
	}
}
