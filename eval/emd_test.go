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

// A sample stands for itself repeated, so samples of two sizes are an assignment of their least common multiple.
func TestWassersteinIsAnAssignment(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, m := rapid.IntRange(1, 8).Draw(t, "n"), rapid.IntRange(1, 8).Draw(t, "m")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		a, b := cloud(rng, n, 2, 0), cloud(rng, m, 2, .5)
		if rapid.Bool().Draw(t, "copies") { // ties
			b[0] = a[0]
			b[m-1] = b[0]
		}
		var as, bs [][]float32
		for range m {
			as = append(as, a...)
		}
		for range n {
			bs = append(bs, b...)
		}
		want := transport(as, bs)
		for _, got := range []float64{wasserstein(a, b), wasserstein(b, a)} {
			if math.Abs(got-want) > 1e-9*(1+want) {
				t.Fatalf("%d against %d: %v, want %v", n, m, got, want)
			}
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
