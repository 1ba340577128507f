package prior

import (
	"fmt"
	"slices"
	"testing"

	"rebeca/internal/ort"
)

// TestRowShapesGiveTheSameBits denoises rows in each compiled shape, at the published prior's widths, on one thread and two: the
// shape that a call happens to use must not show.
func TestRowShapesGiveTheSameBits(t *testing.T) {
	for _, kind := range []string{kindReference, kindTransformer} {
		for _, threads := range []int{1, 2} {
			t.Run(fmt.Sprint(kind, threads), func(t *testing.T) {
				cfg := DefaultConfig(1024)
				cfg.Kind, cfg.Blocks, cfg.MaxTokens = kind, 1, 5
				if cfg.HasUserTable() {
					cfg.Users = 7
				}
				m, err := NewModel(noisyState(t, cfg, 1), ort.Options{Threads: threads})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { m.Close() })
				if len(m.denoisers) < 3 {
					t.Fatal("too few shapes")
				}
				rows := make([]Row, manyRows)
				for i := range rows {
					rows[i] = Row{T: 1 + 15*i, Label: Class(i % numLabels)}
				}
				x := randomItem(newRand(2), len(rows)*cfg.Dim)
				want := make([]float32, len(x))
				if err := m.Denoise(want, x, rows); err != nil {
					t.Fatal(err)
				}
				for _, n := range []int{1, 2, 7, 9, 16, 33} {
					got := make([]float32, n*cfg.Dim)
					for first := 0; first+n <= len(rows); first += n {
						from, to := first*cfg.Dim, (first+n)*cfg.Dim
						if err := m.Denoise(got, x[from:to], rows[first:first+n]); err != nil {
							t.Fatal(err)
						}
						if !slices.Equal(got, want[from:to]) {
							t.Fatalf("rows %d to %d have other bits than in a batch of %d", first, first+n, len(rows))
						}
					}
				}
			})
		}
	}
}
