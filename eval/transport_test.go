package eval

import (
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

func cloud(rng *rand.Rand, n, dim int, at float64) [][]float32 {
	out := make([][]float32, n)
	for i := range out {
		for range dim {
			out[i] = append(out[i], float32(at+rng.NormFloat64()))
		}
	}
	return out
}

// least is the least sum over all matches, by trying every one.
func least(a, b [][]float32, row int, taken []bool) float64 {
	if row == len(a) {
		return 0
	}
	best := math.Inf(1)
	for j := range taken {
		if !taken[j] {
			taken[j] = true
			best = min(best, square(a[row], b[j])+least(a, b, row+1, taken))
			taken[j] = false
		}
	}
	return best
}

// A sample stands for itself repeated, so samples of two sizes are a match of their least common multiple.
func TestWassersteinIsTheLeast(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SampledFrom([][2]int{{1, 1}, {1, 5}, {2, 2}, {2, 3}, {2, 4}, {2, 6}, {3, 6}, {6, 6}, {7, 7}}).Draw(t, "sizes")
		n, m := sizes[0], sizes[1]
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		a, b := cloud(rng, n, 2, 0), cloud(rng, m, 2, .5)
		if rapid.Bool().Draw(t, "copies") { // ties
			b[0] = a[0]
			b[m-1] = b[0]
		}
		both := n * m / gcd(n, m)
		var as, bs [][]float32
		for len(as) < both {
			as = append(as, a...)
		}
		for len(bs) < both {
			bs = append(bs, b...)
		}
		want := least(as, bs, 0, make([]bool, both)) / float64(both)
		for _, got := range []float64{wasserstein(a, b), wasserstein(b, a)} {
			if math.Abs(got-want) > 1e-9*(1+want) {
				t.Fatalf("%d against %d: %v, want %v", n, m, got, want)
			}
		}
	})
}

// No transport is cheaper than what prices prove: Σ_c price/n + Σ_j min_c(cost - price)/m is a bound from below (the dual problem), so
// a flow that costs no more is exact, whatever its size.
func TestWassersteinIsProvedByItsPrices(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 30).Draw(t, "columns")
		m := n + rapid.IntRange(0, 150).Draw(t, "more rows")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		f := solve(cloud(rng, n, 3, rapid.Float64Range(0, 9).Draw(t, "apart")), append(cloud(rng, m/2, 3, 0), cloud(rng, m-m/2, 3, 5)...))
		bound := 0.
		for _, p := range f.price {
			bound += p / float64(n)
		}
		for _, costs := range f.cost {
			cheapest := math.Inf(1)
			for c, x := range costs {
				cheapest = min(cheapest, x-f.price[c])
			}
			bound += cheapest / float64(m)
		}
		full, shipped := 0, 0
		for c, bag := range f.bags {
			full += f.room[c]
			for _, l := range bag {
				shipped += l.units
			}
		}
		if got := f.total(); full != 0 || shipped != m*f.supply || math.Abs(got-bound) > 1e-9*(1+bound) {
			t.Fatalf("%d against %d: cost %v, proved %v; room left %d, shipped %d", n, m, got, bound, full, shipped)
		}
	})
}

func TestWassersteinKnown(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	a := cloud(rng, 60, 3, 0)
	if got := wasserstein(a, append(append([][]float32(nil), a...), a...)); got > 1e-12 {
		t.Errorf("a sample against itself twice: %v", got)
	}
	// Against one point it is the mean square distance, there is no choice.
	want := 0.
	for _, x := range a {
		want += square(x, a[0]) / 60
	}
	if got := wasserstein(a, a[:1]); math.Abs(got-want) > 1e-9 {
		t.Errorf("against a point: %v, want %v", got, want)
	}
	// A shift costs its square.
	b := cloud(rng, 120, 3, 0)
	moved := make([][]float32, len(b))
	for i, x := range b {
		moved[i] = []float32{x[0] + 100, x[1], x[2]}
	}
	near := wasserstein(b[:40], b)
	mean := 0.
	for i := range b {
		mean += float64(b[i][0]) / 120
		if i < 40 {
			mean -= float64(b[i][0]) / 40
		}
	}
	if got, want := wasserstein(b[:40], moved), near+1e4+200*mean; math.Abs(got-want) > 1e-3 {
		t.Errorf("moved by 100: %v, want %v", got, want)
	}
}

func BenchmarkWasserstein(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	x, y := cloud(rng, 1000, 16, 0), cloud(rng, 11600, 16, .1)
	for b.Loop() {
		wasserstein(x, y)
	}
}
