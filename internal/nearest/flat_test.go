package nearest

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestFlatIsExact holds it against comparing by hand: with vectors far from the origin and near each other, copies, gaps and exceptions.
func TestFlatIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dim := rapid.IntRange(1, 24).Draw(t, "dim")
		far := rapid.SampledFrom([]float32{0, 1, 1000}).Draw(t, "far")
		value := rapid.Map(rapid.IntRange(-4, 4), func(n int) float32 { return far + float32(n)/64 })
		vector := rapid.SliceOfN(value, dim, dim)
		var blocks [][]float32
		var all [][]float32
		for range rapid.IntRange(0, 4).Draw(t, "blocks") {
			var b []float32
			for range rapid.IntRange(0, 9).Draw(t, "rows") {
				v := vector.Draw(t, "vector")
				b, all = append(b, v...), append(all, v)
			}
			blocks = append(blocks, b)
		}
		gone := map[int]bool{}
		for i := range all {
			gone[i] = rapid.IntRange(0, 3).Draw(t, "gone") == 0
		}
		f := NewFlat(dim, blocks, func(p int) bool { return gone[p] })
		queries := rapid.SliceOfN(vector, 0, 5).Draw(t, "queries")
		var except []int
		if rapid.Bool().Draw(t, "except") {
			for range queries {
				except = append(except, rapid.IntRange(-1, len(all)).Draw(t, "except"))
			}
		}
		places, distances := f.Nearest(queries, except)
		for i, q := range queries {
			at, best := -1, math.Inf(1)
			for p, v := range all {
				if d := Square(q, v); d < best && !gone[p] && (except == nil || except[i] != p) {
					at, best = p, d
				}
			}
			if places[i] != at || distances[i] != math.Sqrt(best) {
				t.Fatalf("query %d: %d at %v, want %d at %v", i, places[i], distances[i], at, math.Sqrt(best))
			}
		}
	})
}

// TestSpacing is a function of the set of vectors: not of order, blocks or rows that are gone.
func TestSpacing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var rows [][]float32
		for i := range rapid.IntRange(0, 200).Draw(t, "rows") {
			rows = append(rows, []float32{float32(i) * float32(i), rapid.Float32Range(-1, 1).Draw(t, "value")})
		}
		var one []float32
		for _, r := range rows {
			one = append(one, r...)
		}
		want := NewFlat(2, [][]float32{one}, func(int) bool { return false }).Spacing()
		if (want == 0) != (len(rows) < 2) {
			t.Fatalf("spacing %v of %d", want, len(rows))
		}
		var blocks [][]float32
		gone := map[int]bool{}
		place := 0
		for _, i := range rapid.Permutation(rows).Draw(t, "order") {
			b := slices.Clone(i)
			if rapid.Bool().Draw(t, "gone") {
				b = append(b, 7, 7)
				gone[place+1] = true
			}
			place += len(b) / 2
			blocks = append(blocks, b)
		}
		if got := NewFlat(2, blocks, func(p int) bool { return gone[p] }).Spacing(); got != want {
			t.Fatalf("spacing %v, in another order %v", want, got)
		}
	})
	line := []float32{0, 1, 2, 3, 4, 5, 6, 7, 8, 8}
	if got := NewFlat(1, [][]float32{line}, func(int) bool { return false }).Spacing(); got != 1 {
		t.Errorf("spacing of a line %v, with a copy in it", got)
	}
}
