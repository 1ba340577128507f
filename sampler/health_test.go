package sampler

import (
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"rebeca/prior"
)

// claims is a mixture that says more, or less, of its label than it knows: u + factor (c-u).
type claims struct {
	*mixture
	factor float64
}

func (c claims) Denoise(dst, x []float32, rows []prior.Row) error {
	if err := c.mixture.Denoise(dst, x, rows); err != nil {
		return err
	}
	u := make([]float32, len(dst))
	nobody := make([]prior.Row, len(rows))
	for i, r := range rows {
		nobody[i] = prior.Row{T: r.T}
	}
	if err := c.mixture.Denoise(u, x, nobody); err != nil {
		return err
	}
	for i := range dst {
		dst[i] = u[i] + float32(c.factor)*(dst[i]-u[i])
	}
	return nil
}

// drawn are examples of what the mixture's likes are.
func drawn(m *mixture, n int) []Example {
	rng := rand.New(rand.NewPCG(5, 5))
	out := make([]Example, n)
	for i := range out {
		k, p := 0, rng.Float64()
		for weights := m.weights[prior.StrongPositive]; p > weights[k]; k++ {
			p -= weights[k]
		}
		item := make([]float32, m.dim)
		for d := range item {
			item[d] = m.stats.Mean[d] + m.stats.Scale[d]*float32(m.means[k][d]+m.stds[k]*rng.NormFloat64())
		}
		out[i] = Example{Item: item, Label: prior.StrongPositive}
	}
	return out
}

func TestMeasureGuidance(t *testing.T) {
	levels := []float64{-3, -2, -1, -.25} // above, the label says next to nothing
	for _, factor := range []float64{1, .5, 2} {
		m := likesOfThree(4)
		m.stats = prior.Stats{Mean: []float32{1, 2, 3, 4}, Scale: []float32{2, .5, 2, 1}}
		got, err := MeasureGuidance(claims{m, factor}, drawn(m, 4000), levels, 7)
		if err != nil {
			t.Fatal(err)
		}
		for i, g := range got {
			if math.Abs(g.LogSNR-levels[i]) > .02 {
				t.Errorf("level %.3f, want %.2f", g.LogSNR, levels[i])
			}
			// The standard error grows where the label says little.
			if bound := .15 / factor; math.Abs(g.Guidance-1/factor) > bound {
				t.Errorf("factor %v at %.2f: w* = %.3f, want %.2f", factor, g.LogSNR, g.Guidance, 1/factor)
			}
			if i > 0 && !(g.Distance < got[i-1].Distance) {
				t.Errorf("the distance rises to %.3f at %.2f: less noise leaves less to the label", g.Distance, g.LogSNR)
			}
		}
	}
}

func TestMeasureGuidanceRefuses(t *testing.T) {
	m := likesOfThree(4)
	if _, err := MeasureGuidance(m, []Example{{Item: []float32{1}}}, []float64{0}, 1); err == nil || !strings.Contains(err.Error(), "example 0: item of 1") {
		t.Errorf("error %v", err)
	}
	one := []Example{{Item: make([]float32, 4), Label: prior.StrongPositive}}
	boom := errors.New("device lost")
	m.fail = func([]float32, []prior.Row) error { return boom }
	if _, err := MeasureGuidance(m, one, []float64{0}, 1); !errors.Is(err, boom) {
		t.Errorf("error %v", err)
	}
	m.fail = func(dst []float32, _ []prior.Row) error { dst[0] = float32(math.NaN()); return nil }
	if _, err := MeasureGuidance(m, one, []float64{0}, 1); err == nil || !strings.Contains(err.Error(), "not finite") {
		t.Errorf("error %v", err)
	}
	m.fail = nil
	if got, err := MeasureGuidance(m, nil, []float64{0}, 1); err != nil || len(got) != 1 || !math.IsNaN(got[0].Guidance) {
		t.Errorf("no examples give %v, %v", got, err)
	}
}
