package online

import "rebeca/prior"

// FlipLabels returns a [Config.Tamper] that turns the labels of all targets
// round, likes to dislikes, after from and before until events.
func FlipLabels(from, until int64) func(int64, *prior.Batch, float64) float64 {
	flipped := map[prior.Class]prior.Class{
		prior.StrongPositive: prior.StrongNegative, prior.StrongNegative: prior.StrongPositive,
		prior.WeakPositive: prior.WeakNegative, prior.WeakNegative: prior.WeakPositive,
	}
	return func(events int64, b *prior.Batch, lr float64) float64 {
		if events < from || events >= until {
			return lr
		}
		for i := range b.Targets {
			if to, ok := flipped[b.Targets[i].Label]; ok {
				b.Targets[i].Label = to
			}
		}
		return lr
	}
}

// TimesRate returns a [Config.Tamper] that multiplies the learning rate after
// from and before until events.
func TimesRate(factor float64, from, until int64) func(int64, *prior.Batch, float64) float64 {
	return func(events int64, _ *prior.Batch, lr float64) float64 {
		if events < from || events >= until {
			return lr
		}
		return factor * lr
	}
}
