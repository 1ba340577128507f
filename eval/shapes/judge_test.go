package shapes

import (
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

func cloud(rng *rand.Rand, n, dim int) [][]float32 {
	rows := make([][]float32, n)
	for i := range rows {
		rows[i] = make([]float32, dim)
		for d := range rows[i] {
			rows[i][d] = float32(rng.NormFloat64())
		}
	}
	return rows
}

func squared(a, b []float32) float64 {
	var sum float64
	for d := range a {
		diff := float64(a[d]) - float64(b[d])
		sum += diff * diff
	}
	return sum
}

// The float32 product and a float64 search may differ only between items that are
// equally near within rounding.
func TestNearestIsBruteForce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		dim := rapid.IntRange(1, 20).Draw(t, "dim")
		items := cloud(rng, rapid.IntRange(1, 300).Draw(t, "items"), dim)
		queries := cloud(rng, rapid.IntRange(0, 150).Draw(t, "queries"), dim)
		j, err := NewJudge(items, make([]Taste, len(items)))
		if err != nil {
			t.Fatal(err)
		}
		got := make([]int, len(queries))
		j.Nearest(got, queries)
		for i, q := range queries {
			least := math.Inf(1)
			for _, e := range items {
				least = min(least, squared(q, e))
			}
			if d := squared(q, items[got[i]]); d > least+1e-5*(1+least) {
				t.Fatalf("query %d: item %d at %v, the nearest is at %v", i, got[i], d, least)
			}
		}
	})
}

func TestEveryItemIsItsOwnNeighbour(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	items := cloud(rng, 4800, 16)
	tastes := make([]Taste, len(items))
	for i := range tastes {
		tastes[i] = Demo().Tastes[i%24]
	}
	j, err := NewJudge(items, tastes)
	if err != nil {
		t.Fatal(err)
	}
	for i, taste := range j.Tastes(items[:1000]) {
		if taste != tastes[i] {
			t.Fatalf("item %d is judged %v, it is %v", i, taste, tastes[i])
		}
	}
}

func TestJudgeOnBadInput(t *testing.T) {
	nan := float32(math.NaN())
	for name, c := range map[string]struct {
		items  [][]float32
		tastes int
	}{
		"empty":     {nil, 0},
		"lengths":   {[][]float32{{1}}, 2},
		"dims":      {[][]float32{{1, 2}, {1}}, 2},
		"no dims":   {[][]float32{{}}, 1},
		"nan":       {[][]float32{{1}, {nan}}, 2},
		"overflows": {[][]float32{{1e30}}, 1},
	} {
		if _, err := NewJudge(c.items, make([]Taste, c.tastes)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	j, err := NewJudge([][]float32{{0, 0}, {1, 1}}, []Taste{{Heart, Red}, {Star, Blue}})
	if err != nil {
		t.Fatal(err)
	}
	got := j.Tastes([][]float32{{nan, 0}, {.9, .8}, {float32(math.Inf(1)), 0}, {.1, -5}})
	want := []Taste{{}, {Star, Blue}, {}, {Heart, Red}}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("query %d is judged %v, want %v", i, got[i], want[i])
		}
	}
}

func TestScores(t *testing.T) {
	a, b, c, x := Taste{Heart, Red}, Taste{Star, Blue}, Taste{Ring, Cyan}, Taste{Square, Green}
	times := func(n int, t Taste) []Taste {
		out := make([]Taste, n)
		for i := range out {
			out[i] = t
		}
		return out
	}
	join := func(parts ...[]Taste) (all []Taste) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	for _, s := range []struct {
		name         string
		liked, got   []Taste
		share, cover float64
	}{
		{"all of one", []Taste{a}, times(32, a), 1, 1},
		{"none", []Taste{a}, times(32, x), 0, 0},
		{"exactly a fair quarter", []Taste{a}, join(times(8, a), times(24, x)), .25, 1},
		{"one less", []Taste{a}, join(times(7, a), times(25, x)), 7. / 32, 0},
		{"one of two", []Taste{a, b}, times(32, a), 1, .5},
		{"two, the second at its quarter", []Taste{a, b}, join(times(28, a), times(4, b)), 1, 1},
		{"three at 32/12 = 2.67: two are too few", []Taste{a, b, c}, join(times(27, a), times(3, b), times(2, c)), 1, 2. / 3},
	} {
		if got := LikedShare(s.liked, s.got); math.Abs(got-s.share) > 1e-12 {
			t.Errorf("%s: share %v, want %v", s.name, got, s.share)
		}
		if got := Coverage(s.liked, s.got); math.Abs(got-s.cover) > 1e-12 {
			t.Errorf("%s: coverage %v, want %v", s.name, got, s.cover)
		}
	}
	if !math.IsNaN(LikedShare([]Taste{a}, nil)) || !math.IsNaN(Coverage([]Taste{a}, nil)) || !math.IsNaN(Coverage(nil, times(3, a))) {
		t.Error("nothing to judge must be NaN")
	}
}

func BenchmarkJudge(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	j, err := NewJudge(cloud(rng, 4800, 16), make([]Taste, 4800))
	if err != nil {
		b.Fatal(err)
	}
	queries, dst := cloud(rng, 1000, 16), make([]int, 1000)
	b.Run("dim=16/items=4800/queries=1000", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			j.Nearest(dst, queries)
		}
	})
}
