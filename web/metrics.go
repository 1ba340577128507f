package web

import "github.com/prometheus/client_golang/prometheus"

// metrics of the door; without a Registerer they are kept and not shown.
type metrics struct {
	requests    *prometheus.HistogramVec
	records     *prometheus.CounterVec
	subscribers prometheus.Gauge
	dropped     prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "rebeca_http_request_duration_seconds",
			Help:    "Time from a request's header to the end of its answer, event streams left out.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"route", "method", "code"}),
		records: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rebeca_http_feedback_records_total",
			Help: "Feedback records that came by HTTP, by what became of them: accepted, or the reason of refusal.",
		}, []string{"result"}),
		subscribers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "rebeca_http_event_streams",
			Help: "Open event streams, one a page of the gallery.",
		}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rebeca_http_events_dropped_total",
			Help: "Events that slow streams did not get.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.requests, m.records, m.subscribers, m.dropped)
	}
	return m
}
