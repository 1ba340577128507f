package prior

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// TargetLosses returns the loss of each target of b by the moving average of the weights, in the order of b.Targets; their mean is
// Loss. ema stands in the average's place if it is not nil: the EMA of a State of the same configuration. Nothing is changed. rng
// draws as in Step, so that two calls with equal sources hold two averages against each other on the same noise.
func (l *Learner) TargetLosses(b *Batch, rng *rand.Rand, ema []float32) ([]float64, error) {
	if own := l.vectors.flat[flatEMA]; ema != nil {
		if len(ema) != len(own) {
			return nil, fmt.Errorf("evaluating losses: an average of %d weights for a prior of %d", len(ema), len(own))
		}
		kept := slices.Clone(own)
		copy(own, ema)
		defer copy(own, kept)
	}
	if _, err := l.Loss(b, rng, true); err != nil {
		return nil, err
	}
	c, err := l.compiledFor(b) // the shape that has just run
	if err != nil {
		return nil, fmt.Errorf("evaluating losses: %w", err)
	}
	return c.batch.losses(c.net, b, c.guess.Data()), nil
}

// losses are those of the targets of b, the batch that was set last, under predictions [R, Dim].
func (t *batchTensors) losses(a *architecture, b *Batch, predictions []float32) []float64 {
	out := make([]float64, len(b.Targets))
	clear(t.counts)
	for i, target := range b.Targets {
		row := target.Context*a.Targets + t.counts[target.Context]
		t.counts[target.Context]++
		sum := 0.0
		goal := t.goal.Data()[row*a.Dim : (row+1)*a.Dim]
		for d, p := range predictions[row*a.Dim : (row+1)*a.Dim] {
			e := float64(p) - float64(goal[d])
			sum += e * e
		}
		out[i] = sum * float64(t.weight.Data()[row]) * float64(len(b.Targets))
	}
	return out
}
