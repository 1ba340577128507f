package sampler

import (
	"fmt"
	"testing"

	"rebeca/prior"
)

// shrink is the cheapest denoiser there is, so that a benchmark of Sample shows the sampler's own cost.
type shrink struct{ dim int }

func (s shrink) Config() prior.Config                               { return prior.DefaultConfig(s.dim) }
func (s shrink) Stats() prior.Stats                                 { return unitStats(s.dim) }
func (s shrink) Encode([]prior.Context) ([]*prior.Condition, error) { return nil, nil }
func (s shrink) Denoise(dst, x []float32, rows []prior.Row) error {
	for i, v := range x {
		dst[i] = .9 * v
	}
	return nil
}

func BenchmarkSample(b *testing.B) {
	for _, size := range []struct{ dim, jobs int }{{16, 1}, {16, 64}, {1024, 64}} {
		b.Run(fmt.Sprintf("dim=%d/jobs=%d", size.dim, size.jobs), func(b *testing.B) {
			js := jobs(size.jobs)
			b.ReportAllocs()
			for b.Loop() {
				mustSample(b, shrink{size.dim}, DefaultOptions(), js)
			}
			b.ReportMetric(float64(size.jobs*b.N)/b.Elapsed().Seconds(), "samples/s")
		})
	}
}

func BenchmarkPNG(b *testing.B) {
	for _, side := range []int{64, 512} {
		b.Run(fmt.Sprintf("side=%d", side), func(b *testing.B) {
			img := disc(side)
			b.ReportAllocs()
			for b.Loop() {
				data, err := PNG(img)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(len(data)), "bytes")
			}
		})
	}
}

func BenchmarkPixels(b *testing.B) {
	p := &Part{Range: [2]float64{0, 1}, Width: 64, Height: 64}
	src := make([]float32, 3*64*64)
	for i := range src {
		src[i] = float32(i%97) / 97
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.pixels(src); err != nil {
			b.Fatal(err)
		}
	}
}
