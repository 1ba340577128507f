package sampler

import (
	"errors"
	"math"
	"sync/atomic"

	"rebeca/prior"
)

// mixture is an exact denoiser: the posterior mean E[x_0 | x_t] of a mixture of isotropic Gaussians, whose weights depend
// on the label. One component makes it a Gaussian.
type mixture struct {
	dim     int
	means   [][]float64
	stds    []float64
	weights map[prior.Class][]float64
	stats   prior.Stats

	calls, rows atomic.Int64
	seen        func(rows []prior.Row)
	fail        func(dst []float32, rows []prior.Row) error
}

func unitStats(dim int) prior.Stats {
	s := prior.Stats{Mean: make([]float32, dim), Scale: make([]float32, dim)}
	for d := range dim {
		s.Scale[d] = 1
	}
	return s
}

func (m *mixture) Config() prior.Config { return prior.DefaultConfig(m.dim) }

func (m *mixture) Stats() prior.Stats {
	if m.stats.Mean == nil {
		return unitStats(m.dim)
	}
	return m.stats
}

func (m *mixture) Encode(ctxs []prior.Context) ([]*prior.Condition, error) {
	return make([]*prior.Condition, len(ctxs)), nil
}

func (m *mixture) Denoise(dst, x []float32, rows []prior.Row) error {
	m.calls.Add(1)
	m.rows.Add(int64(len(rows)))
	if len(dst) != len(rows)*m.dim || len(x) != len(dst) {
		return errors.New("buffers do not match the rows")
	}
	if m.seen != nil {
		m.seen(rows)
	}
	for i, r := range rows {
		m.posterior(dst[i*m.dim:(i+1)*m.dim], x[i*m.dim:(i+1)*m.dim], r.T, m.weights[r.Label])
	}
	if m.fail != nil {
		return m.fail(dst, rows)
	}
	return nil
}

// posterior: p(k|x) by the marginal N(alpha m_k, alpha² s_k² + sigma²), then the mean of each component's Gaussian posterior.
func (m *mixture) posterior(dst, x []float32, t int, weights []float64) {
	bar := prior.AlphaBar(t, m.Config().Timesteps)
	alpha := math.Sqrt(bar)
	logits, top := make([]float64, len(m.means)), math.Inf(-1)
	for k, mean := range m.means {
		v := bar*m.stds[k]*m.stds[k] + 1 - bar
		q := 0.
		for d := range m.dim {
			diff := float64(x[d]) - alpha*mean[d]
			q += diff * diff
		}
		logits[k] = math.Log(weights[k]) - q/(2*v) - float64(m.dim)/2*math.Log(v)
		top = max(top, logits[k])
	}
	total := 0.
	for k := range logits {
		logits[k] = math.Exp(logits[k] - top)
		total += logits[k]
	}
	for d := range m.dim {
		sum := 0.
		for k, mean := range m.means {
			v := bar*m.stds[k]*m.stds[k] + 1 - bar
			sum += logits[k] / total * (mean[d] + alpha*m.stds[k]*m.stds[k]/v*(float64(x[d])-alpha*mean[d]))
		}
		dst[d] = float32(sum)
	}
}

// moments are the mean and the covariance of the mixture with the given weights.
func (m *mixture) moments(weights []float64) (mean []float64, cov [][]float64) {
	mean, cov = make([]float64, m.dim), make([][]float64, m.dim)
	for d := range mean {
		for k, w := range weights {
			mean[d] += w * m.means[k][d]
		}
	}
	for i := range cov {
		cov[i] = make([]float64, m.dim)
		for k, w := range weights {
			for j := range cov[i] {
				cov[i][j] += w * (m.means[k][i] - mean[i]) * (m.means[k][j] - mean[j])
			}
			cov[i][i] += w * m.stds[k] * m.stds[k]
		}
	}
	return mean, cov
}

// shares counts to which component's mean the samples are nearest.
func (m *mixture) shares(samples [][]float32) []float64 {
	out := make([]float64, len(m.means))
	for _, s := range samples {
		best, at := math.Inf(1), 0
		for k, mean := range m.means {
			q := 0.
			for d := range m.dim {
				diff := float64(s[d]) - mean[d]
				q += diff * diff
			}
			if q < best {
				best, at = q, k
			}
		}
		out[at] += 1 / float64(len(samples))
	}
	return out
}

// gaussian is an exact denoiser for N(mean, cov) with cov = Q diag(variances) Qᵀ, where Q rotates each pair of dimensions
// (0,1), (2,3), … by angle.
type gaussian struct {
	mean      []float64
	variances []float64
	angle     float64
	schedule  string // of the prior; "" is the default
}

func (g gaussian) Config() prior.Config {
	cfg := prior.DefaultConfig(len(g.mean))
	cfg.Loss.Schedule = g.schedule
	return cfg
}
func (g gaussian) Stats() prior.Stats { return unitStats(len(g.mean)) }
func (g gaussian) Encode([]prior.Context) ([]*prior.Condition, error) {
	return nil, errors.New("not asked for")
}

func (g gaussian) Denoise(dst, x []float32, rows []prior.Row) error {
	dim, bar := len(g.mean), 0.
	for i, r := range rows {
		if i == 0 || r.T != rows[i-1].T {
			bar = g.Config().AlphaBar(r.T)
		}
		alpha := math.Sqrt(bar)
		c := make([]float64, dim)
		for d := range dim {
			c[d] = float64(x[i*dim+d]) - alpha*g.mean[d]
		}
		g.rotate(c, -g.angle)
		for d := range dim {
			c[d] *= alpha * g.variances[d] / (bar*g.variances[d] + 1 - bar)
		}
		g.rotate(c, g.angle)
		for d := range dim {
			dst[i*dim+d] = float32(g.mean[d] + c[d])
		}
	}
	return nil
}

func (g gaussian) rotate(v []float64, angle float64) {
	s, c := math.Sincos(angle)
	for d := 0; d+1 < len(v); d += 2 {
		v[d], v[d+1] = c*v[d]-s*v[d+1], s*v[d]+c*v[d+1]
	}
}

func (g gaussian) cov(i, j int) float64 {
	if i/2 != j/2 {
		return 0
	}
	s, c := math.Sincos(g.angle)
	a, b := g.variances[i-i%2], g.variances[i-i%2+1]
	switch {
	case i != j:
		return s * c * (a - b)
	case i%2 == 0:
		return c*c*a + s*s*b
	}
	return s*s*a + c*c*b
}
