package sampler

import (
	"fmt"
	"math"

	"rebeca/prior"
)

// Example is what somebody answered: a measurement of what a denoiser knows of them.
type Example struct {
	Context prior.Context // their window before the answer
	Item    []float32     // [Dim], catalogue scale
	Label   prior.Class
}

// LeastSquares is the guidance that fits examples best at one noise level: w* minimizes the squared distance of u + w(c-u) to the clean
// embeddings, where c is the conditional and u the unconditional estimate,
//
//	w* = Σ <z-u, c-u> / Σ |c-u|²
//
// It is 1 for a denoiser that knows exactly as much as it claims. Above 1 it holds back what it knows of people (undertrained, or
// smoothed too much), below 1 it claims more than is true of examples it has not learned from (overfitted).
type LeastSquares struct {
	LogSNR   float64 `json:"log_snr"`  // ln(alpha/sigma)
	Guidance float64 `json:"guidance"` // w*; NaN where the two estimates do not differ
	Distance float64 `json:"distance"` // root mean square of |c-u|, in the model's scale
}

// MeasureGuidance computes LeastSquares at the times nearest to the given values of ln(alpha/sigma), which lie between those of the
// schedule's ends. It takes two passes of d for each example and level, in one call a level. An example that d cannot
// encode and an estimate that is not finite are errors. The noise of an example follows from seed and its place.
func MeasureGuidance(d Denoiser, examples []Example, logSNRs []float64, seed uint64) ([]LeastSquares, error) {
	contexts := make([]prior.Context, len(examples))
	for i, e := range examples {
		if contexts[i] = e.Context; len(e.Item) != d.Config().Dim {
			return nil, fmt.Errorf("example %d: item of %d dimensions for a prior of %d", i, len(e.Item), d.Config().Dim)
		}
	}
	conds, err := d.Encode(contexts)
	if err != nil {
		return nil, fmt.Errorf("encoding examples: %w", err)
	}
	var out []LeastSquares
	for _, l := range logSNRs {
		one, err := measureAt(d, examples, conds, timeAt(d.Config(), l), seed)
		if err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	return out, nil
}

func measureAt(d Denoiser, examples []Example, conds []*prior.Condition, t int, seed uint64) (LeastSquares, error) {
	n, dim := len(examples), d.Config().Dim
	clean, x, x0 := make([]float32, n*dim), make([]float32, 2*n*dim), make([]float32, 2*n*dim)
	rows := make([]prior.Row, 2*n)
	alpha, sigma := scales(d.Config(), t)
	for i, e := range examples {
		z, noised := clean[i*dim:(i+1)*dim], x[i*dim:(i+1)*dim]
		d.Stats().Normalize(z, e.Item)
		noise(noised, seed+uint64(i))
		for k := range noised {
			noised[k] = float32(alpha)*z[k] + float32(sigma)*noised[k]
		}
		rows[i], rows[n+i] = prior.Row{T: t, Label: e.Label, Cond: conds[i]}, prior.Row{T: t, Label: prior.ClassNone}
	}
	copy(x[n*dim:], x[:n*dim])
	if err := d.Denoise(x0, x, rows); err != nil {
		return LeastSquares{}, fmt.Errorf("denoising at t=%d: %w", t, err)
	}
	var known, all float64
	for i, z := range clean {
		u, c := float64(x0[n*dim+i]), float64(x0[i])
		known += (float64(z) - u) * (c - u)
		all += (c - u) * (c - u)
	}
	if math.IsNaN(all) || math.IsInf(all, 0) {
		return LeastSquares{}, fmt.Errorf("denoising at t=%d: the estimates are not finite", t)
	}
	return LeastSquares{LogSNR: d.Config().LogSNR(t), Guidance: known / all, Distance: math.Sqrt(all / float64(max(n, 1)))}, nil
}
