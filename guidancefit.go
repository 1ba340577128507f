package rebeca

import (
	"log/slog"
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rebeca/online"
	"rebeca/prior"
	"rebeca/sampler"
	"rebeca/web"
)

const (
	// fitEvery is the least time between two measurements: one of them takes a
	// CPU some 50 ms, and a version's first image waits for it.
	fitEvery = time.Minute
	// fitExamples bounds the held-out likes of a measurement, and fewer than
	// fitLeast say nothing.
	fitExamples, fitLeast = 64, 16
)

// fitLevels are the noise levels, of ln(α/σ), where guidance decides: taste is
// settled between the first and the last.
func fitLevels() []float64 { return []float64{-2, -1, -.5, 0, .5} }

// guidanceFit measures w*(λ) of versions as they are loaded: a prior that knows
// as much as it claims has 1, see [sampler.LeastSquares].
type guidanceFit struct {
	heldOut func() []online.HeldOutAnswer
	gauge   *prometheus.GaugeVec
	log     *slog.Logger
	now     func() time.Time

	mu     sync.Mutex
	last   []sampler.LeastSquares // guarded by mu
	lastAt time.Time              // guarded by mu
}

func newGuidanceFit(heldOut func() []online.HeldOutAnswer, reg prometheus.Registerer, log *slog.Logger) *guidanceFit {
	f := &guidanceFit{heldOut: heldOut, log: log, now: time.Now, gauge: prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "rebeca_guidance_least_squares",
		Help: "Guidance that fits held-out likes best at a noise level ln(α/σ): 1 where the prior knows as much as it claims.",
	}, []string{"log_snr"})}
	reg.MustRegister(f.gauge)
	return f
}

// measure takes the fit of a version that is not in use yet. What cannot be
// measured is logged and stops nothing.
func (f *guidanceFit) measure(d sampler.Denoiser) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.now().Sub(f.lastAt) < fitEvery {
		return
	}
	var examples []sampler.Example
	answers := f.heldOut()
	for i := len(answers) - 1; i >= 0 && len(examples) < fitExamples; i-- { // the newest come last
		if a := answers[i]; a.Label == prior.StrongPositive && len(a.Context) <= d.Config().MaxTokens {
			examples = append(examples, sampler.Example{Context: a.Context, Item: a.Item, Label: a.Label})
		}
	}
	if len(examples) < fitLeast {
		return
	}
	fits, err := sampler.MeasureGuidance(d, examples, fitLevels(), 1)
	if err != nil {
		f.log.Warn("measuring the guidance that fits best", "err", err)
		return
	}
	f.last, f.lastAt = fits, f.now()
	for i, level := range fitLevels() {
		f.gauge.WithLabelValues(strconv.FormatFloat(level, 'g', -1, 64)).Set(fits[i].Guidance)
	}
}

// status is the last fit; nil before the first.
func (f *guidanceFit) status() []web.GuidanceFit {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []web.GuidanceFit
	for _, l := range f.last {
		if !math.IsNaN(l.Guidance) { // the two estimates are one
			out = append(out, web.GuidanceFit(l))
		}
	}
	return out
}
