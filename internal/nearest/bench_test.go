package nearest

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// clustered draws vectors around 96 centres, as items lie around tastes.
func clustered(rng *rand.Rand, centres [][]float32, dst []float32) {
	c := centres[rng.IntN(len(centres))]
	for d := range dst {
		dst[d] = c[d] + .4*float32(rng.NormFloat64())
	}
}

// BenchmarkNearest takes the queries of a batch together: the candidates of 8 images.
func BenchmarkNearest(b *testing.B) {
	const queries = 32
	for _, size := range []struct{ n, dim int }{{1e4, 16}, {1e5, 16}, {1e6, 16}, {1e5, 384}} {
		rng := rand.New(rand.NewPCG(1, 1))
		centres := make([][]float32, 96)
		for i := range centres {
			centres[i] = make([]float32, size.dim)
			for d := range centres[i] {
				centres[i][d] = float32(rng.NormFloat64())
			}
		}
		var blocks [][]float32
		for left := size.n; left > 0; left -= 1024 {
			block := make([]float32, min(left, 1024)*size.dim)
			for i := 0; i < len(block); i += size.dim {
				clustered(rng, centres, block[i:i+size.dim])
			}
			blocks = append(blocks, block)
		}
		asked := make([][]float32, queries)
		for i := range asked {
			asked[i] = make([]float32, size.dim)
			clustered(rng, centres, asked[i])
		}
		f := NewFlat(size.dim, blocks, func(int) bool { return false })
		name := fmt.Sprintf("n=%d/dim=%d", size.n, size.dim)
		b.Run("flat/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f.Nearest(asked, nil)
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/queries, "us/query")
		})
		b.Run("build/"+name, func(b *testing.B) {
			for b.Loop() {
				NewFlat(size.dim, blocks, func(int) bool { return false }).Spacing()
			}
		})
	}
}
