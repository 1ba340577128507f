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

// BenchmarkShortStep is BenchmarkStep where the longest window has so many entries.
func BenchmarkShortStep(b *testing.B) {
	for _, longest := range []int{15, 31, 52} {
		b.Run(fmt.Sprintf("dim=16/hidden=96/contexts=64x%d/targets=4/threads=1", longest), func(b *testing.B) {
			cfg := DefaultConfig(16)
			l := newLearner(b, cfg, 1, ort.Options{Threads: 1})
			rng := newRand(1)
			batch := randomBatch(rng, cfg, cfg.Contexts, longest, cfg.Targets)
			if _, err := l.Step(batch, 1e-3, rng); err != nil { // compiles the shape
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := l.Step(batch, 1e-3, rng); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkTransformerStep is one step of the default from 256 dimensions on, and of the published prior.
func BenchmarkTransformerStep(b *testing.B) {
	window := DefaultConfig(1024)
	published := Config{Kind: kindReference, Dim: 1024, Hidden: 128, Blocks: 6, Heads: 8, Tokens: 32, Users: 210, MaxTokens: 1, Contexts: 64, Targets: 1, Timesteps: 1000}
	for _, cfg := range []Config{window, published} {
		cfg = cfg.resolved()
		b.Run(fmt.Sprintf("kind=%s/dim=1024/hidden=128/rows=64/threads=2", cfg.Kind), func(b *testing.B) {
			l := newLearner(b, cfg, 1, ort.Options{Threads: 2})
			rng := newRand(1)
			batch := kindBatch(rng, cfg, cfg.Contexts, cfg.MaxTokens, cfg.Targets)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := l.Step(batch, 1e-4, rng); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	for _, count := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("dim=16/hidden=96/contexts=%dx52", count), func(b *testing.B) {
			cfg := DefaultConfig(16)
			m := modelOf(b, noisyState(b, cfg, 1))
			var contexts []Context
			for range count {
				contexts = append(contexts, randomContext(newRand(1), cfg.Dim, cfg.MaxTokens))
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := m.Encode(contexts); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDenoise(b *testing.B) {
	for _, count := range []int{1, 16, 128} {
		b.Run(fmt.Sprintf("dim=16/hidden=96/rows=%d", count), func(b *testing.B) {
			cfg := DefaultConfig(16)
			m := modelOf(b, noisyState(b, cfg, 1))
			conditions, err := m.Encode([]Context{randomContext(newRand(1), cfg.Dim, cfg.MaxTokens)})
			if err != nil {
				b.Fatal(err)
			}
			x := randomItem(newRand(2), count*cfg.Dim)
			z := make([]float32, len(x))
			rows := make([]Row, count)
			for i := range rows {
				rows[i] = Row{T: 500, Label: StrongPositive, Cond: conditions[0]}
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := m.Denoise(z, x, rows); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkNewModel(b *testing.B) {
	s := noisyState(b, DefaultConfig(16), 1)
	for b.Loop() {
		m, err := NewModel(s, ort.Options{})
		if err != nil {
			b.Fatal(err)
		}
		m.Close()
	}
}

func BenchmarkNewLearner(b *testing.B) {
	s := noisyState(b, DefaultConfig(16), 1)
	for b.Loop() {
		l, err := NewLearner(s, ort.Options{})
		if err != nil {
			b.Fatal(err)
		}
		l.Close()
	}
}
