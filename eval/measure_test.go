package eval

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"
)

func TestIndexIsExact(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, n := range []int{1, 2, 700} {
		vectors := make([][]float32, n)
		for i := range vectors {
			vectors[i] = []float32{float32(rng.NormFloat64()), float32(rng.NormFloat64()), float32(rng.NormFloat64())}
		}
		x, err := newIndex(vectors, rng)
		if err != nil {
			t.Fatal(err)
		}
		for range 300 {
			q := []float32{float32(2 * rng.NormFloat64()), float32(2 * rng.NormFloat64()), float32(rng.NormFloat64())}
			want, best := 0, math.Inf(1)
			for i, v := range vectors {
				if s := square(q, v); s < best {
					want, best = i, s
				}
			}
			if at, d := x.nearest(q); at != want || math.Abs(d-math.Sqrt(best)) > 1e-6 {
				t.Fatalf("nearest of %v: %d at %v, want %d at %v", q, at, d, want, math.Sqrt(best))
			}
		}
	}
	x, _ := newIndex([][]float32{{0}}, rng)
	if at, _ := x.nearest([]float32{float32(math.NaN())}); at != -1 {
		t.Errorf("what is not a number has a neighbour, %d", at)
	}
}

// line is a world on a line: taste k has its items at k, k+.01 and so on.
func line() *World {
	w := &World{Shape: Shape{Tastes: 4}, Dim: 1, ItemsOf: make([][]int, 4), FreshOf: make([][]int, 4)}
	for t := range 4 {
		for i := range 10 {
			w.ItemsOf[t] = append(w.ItemsOf[t], len(w.Items))
			w.Items, w.Cells = append(w.Items, []float32{float32(t) + .01*float32(i)}), append(w.Cells, t)
			w.FreshOf[t] = append(w.FreshOf[t], len(w.Fresh))
			w.Fresh = append(w.Fresh, []float32{float32(t) + .01*float32(i) + .004})
		}
	}
	w.law = binary(nil)
	return w
}

func TestMeasures(t *testing.T) {
	w := line()
	y, err := newYardstick(w)
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(y.near-.004) > 1e-6 {
		t.Errorf("fresh items lie %v off the catalogue, want .004", y.near)
	}
	y.taste, y.scale = .05, 1
	s := Subject{Person: Person{Liked: []int{0, 2}}, Window: []Seen{{Item: 0, Class: 1}, {Item: 15, Class: 4}}}
	samples := [][]float32{{.002}, {.002}, {.002}, {1}, {2}, {3.5}, {0}, {0}}
	likes := [][]float32{{.002}, {.002}, {.002}, {1}, {2}, {3.5}, {0}, {.5}}
	got := y.person(&s, &truth{mixture: []float64{.5, 0, .5, 0}, likes: likes}, samples)
	for name, want := range map[string]float64{
		"p": 6. / 8, "cov": 1, "tv": (1./8 + 1./8 + 3./8 + 1./8) / 2,
		"catalogue": (3*.002 + .41) / 8 / y.near,
		"own":       (3*.002 + 1 + 2 + 3.5) / 8 / .05,
		"w2":        (.498*.498 + .002*.002) / 8, // the odd like moves to a copy, a copy to the odd sample
	} {
		if math.Abs(got[name]-want) > 1e-4*max(1, want) {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	// A quarter of a fair share covers, less does not.
	if got := y.person(&s, &truth{mixture: make([]float64, 4), likes: likes}, [][]float32{{0}, {0}, {0}, {0}, {0}, {0}, {0}, {1}}); got["cov"] != .5 {
		t.Errorf("coverage of one of two tastes is %v", got["cov"])
	}
}

func TestControls(t *testing.T) {
	w := line()
	y, err := newYardstick(w)
	if err != nil {
		t.Fatal(err)
	}
	subjects := []Subject{
		{Window: []Seen{{Item: 20, Class: 1}, {Item: 29, Class: 1}, {Item: 3, Class: 4}}, Person: Person{Liked: []int{2}}},
		{Person: Person{Liked: []int{2}}}, // no window
	}
	want := map[string]func(m Measures) bool{
		"random":      func(m Measures) bool { return m["p"] < .6 && m["catalogue"] == 0 },
		"resampled":   func(m Measures) bool { return m["p"] == 1 && m["own"] == 0 },
		"mean":        func(m Measures) bool { return m["p"] == 1 && m["diversity"] == 0 && m["own"] > 0 },
		"jitter_0.05": func(m Measures) bool { return m["own"] > 0 && m["catalogue"] > 0 },
	}
	for _, c := range controls(w, y) {
		check := want[c.Name()]
		got, err := c.Sample(context.Background(), subjects, 32, 1)
		if err != nil || len(got) != 2 || len(got[1]) != 32 {
			t.Fatalf("%s: %d subjects, %v", c.Name(), len(got), err)
		}
		g := group{name: "g", subjects: subjects[:1], samples: 32}
		if m := y.score(g, y.truths(g), got[:1]); check != nil && !check(m) {
			t.Errorf("%s scores %v", c.Name(), m)
		}
	}
}
