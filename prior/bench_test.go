package prior

import (
	"fmt"
	"testing"

	"rebeca/internal/ort"
)

func BenchmarkStep(b *testing.B) {
	for _, threads := range []int{1, 2} {
		b.Run(fmt.Sprintf("dim=16/hidden=96/contexts=64x52/targets=4/threads=%d", threads), func(b *testing.B) {
			cfg := DefaultConfig(16)
			l := newLearner(b, cfg, 1, ort.Options{Threads: threads})
			rng := newRand(1)
			batch := randomBatch(rng, cfg, cfg.Contexts, cfg.MaxTokens, cfg.Targets)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := l.Step(batch, 1e-3, rng); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
