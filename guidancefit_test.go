package rebeca

import (
	"errors"
	"log/slog"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"rebeca/online"
	"rebeca/prior"
)

// normal is a population of N(0, 1) in two dimensions, of whom those who like something like N(mean, .5²).
type normal struct {
	mean  [2]float64
	calls int
	err   error
}

func (n *normal) Config() prior.Config { return prior.DefaultConfig(2) }
func (n *normal) Stats() prior.Stats {
	return prior.Stats{Mean: []float32{0, 0}, Scale: []float32{1, 1}}
}
func (n *normal) Encode(c []prior.Context) ([]*prior.Condition, error) {
	return make([]*prior.Condition, len(c)), n.err
}
func (n *normal) Denoise(dst, x []float32, rows []prior.Row) error {
	n.calls++
	for i, r := range rows {
		bar := n.Config().AlphaBar(r.T)
		for d := range 2 {
			mean, variance := n.mean[d], .25
			if r.Label == prior.ClassNone {
				mean, variance = 0, 1
			}
			alpha := math.Sqrt(bar)
			k := alpha * variance / (bar*variance + 1 - bar)
			dst[2*i+d] = float32(mean + k*(float64(x[2*i+d])-alpha*mean))
		}
	}
	return nil
}

func TestGuidanceFit(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var answers []online.HeldOutAnswer
	answer := func(label prior.Class, at, spread float64) {
		answers = append(answers, online.HeldOutAnswer{Label: label, Item: []float32{float32(at + spread*rng.NormFloat64()), float32(spread * rng.NormFloat64())}})
	}
	for range 40 {
		answer(prior.StrongNegative, -20, 1) // dislikes are no measure of likes
	}
	reg := prometheus.NewRegistry()
	f := newGuidanceFit(func() []online.HeldOutAnswer { return answers }, reg, slog.New(slog.DiscardHandler))
	now := time.Unix(1000, 0)
	f.now = func() time.Time { return now }
	d := &normal{mean: [2]float64{3, 0}}
	if f.measure(d); f.status() != nil || d.calls != 0 {
		t.Errorf("dislikes alone give %v", f.status())
	}
	for range 100 {
		answer(prior.StrongPositive, 3, .5)
	}
	f.measure(d)
	got := f.status()
	if len(got) != len(fitLevels()) {
		t.Fatalf("fit %v", got)
	}
	for _, l := range got[:4] { // above, hardly anything is left to the label
		if math.Abs(l.Guidance-1) > .2 {
			t.Errorf("w* at %.2f is %.3f of an exact denoiser", l.LogSNR, l.Guidance)
		}
	}
	var m dto.Metric
	if err := f.gauge.WithLabelValues("-0.5").Write(&m); err != nil || m.GetGauge().GetValue() != got[2].Guidance {
		t.Errorf("the gauge says %v, the status %v, error %v", m.GetGauge().GetValue(), got[2].Guidance, err)
	}
	// What claims twice the truth fits half.
	calls := d.calls
	double := &normal{mean: [2]float64{6, 0}}
	if f.measure(double); double.calls != 0 || d.calls != calls {
		t.Error("measured twice within a minute")
	}
	now = now.Add(fitEvery)
	f.measure(double)
	if w := f.status()[0].Guidance; math.Abs(w-.5) > .15 {
		t.Errorf("w* is %.3f of a denoiser that claims twice the truth", w)
	}
	now = now.Add(fitEvery)
	before := f.status()
	f.measure(&normal{err: errors.New("device lost")})
	if after := f.status(); after[0] != before[0] {
		t.Errorf("an error changes the fit to %v", after)
	}
}
