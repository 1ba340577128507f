package prior

import (
	"math"
	"slices"
	"testing"
)

// TestTargetLosses holds the losses of targets against the loss of their batch, by the learner's own average and by another's, in every
// kind of batch; and sees that nothing is left of the other's.
func TestTargetLosses(t *testing.T) {
	l, other := learnerOf(t, noisyState(t, tinyConfig(), 6)), learnerOf(t, noisyState(t, tinyConfig(), 8))
	full := randomBatch(newRand(1), l.net.Config, 3, 5, 2)
	ragged := &Batch{Contexts: full.Contexts[:2], Targets: []Target{full.Targets[2], full.Targets[0], full.Targets[1]}}
	before := l.State()
	for _, b := range []*Batch{full, ragged} {
		for _, by := range []*Learner{l, other} {
			want, err := by.Loss(b, newRand(2), true)
			if err != nil {
				t.Fatal(err)
			}
			ema := by.State().EMA
			if by == l {
				ema = nil
			}
			got, err := l.TargetLosses(b, newRand(2), ema)
			if err != nil {
				t.Fatal(err)
			}
			sum := 0.0
			for _, x := range got {
				sum += x / float64(len(got))
			}
			if len(got) != len(b.Targets) || math.Abs(sum-want) > 1e-5*want {
				t.Errorf("%d losses of mean %v, the batch has %v", len(got), sum, want)
			}
		}
	}
	sameState(t, "before and after", before, l.State())
	// One target alone has the loss that it has among others: the first draws the same noise.
	alone := &Batch{Contexts: full.Contexts, Targets: full.Targets[:1]}
	one, err := l.TargetLosses(alone, newRand(2), nil)
	if err != nil {
		t.Fatal(err)
	}
	all, err := l.TargetLosses(full, newRand(2), nil)
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(one[0]-all[0]) > 1e-5*all[0] || slices.Max(all) == slices.Min(all) {
		t.Errorf("the first target's loss is %v alone and %v among others: %v", one[0], all[0], all)
	}
	if _, err := l.TargetLosses(full, newRand(2), before.EMA[1:]); err == nil {
		t.Error("an average of another size is taken")
	}
}
