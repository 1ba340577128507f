package eval

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The setting of a test: direction can be seen, no figure is a promise.
func shortPaper() PaperOptions {
	o := DefaultPaperOptions()
	o.Items, o.Samples, o.Repetitions, o.Floors, o.Steps, o.Distances = 600, 50, 5, 1, 8, true
	return o
}

func TestPaperDirection(t *testing.T) {
	openRuntime(t)
	r := DefaultRecipe(16)
	r.Prior.Hidden, r.Prior.Blocks, r.Prior.Contexts = 64, 2, 32
	r.Train.BirthSteps, r.Train.Warmup, r.Train.Steps, r.Train.LR = 150, 10, 6, 3e-3
	got, err := Paper(context.Background(), new(Worlds), r, shortPaper())
	if err != nil {
		t.Fatal(err)
	}
	if d, random := got.distance("rebeca", -1).Ratio, got.distance("random", -1).Ratio; d > .9*random {
		t.Errorf("rebeca is %.2f floors away, random items %.2f", d, random)
	}
	if d, random := got.distance("real", -1).Ratio, got.distance("random", -1).Ratio; d > .7*random {
		t.Errorf("real likes are %.2f floors away, random items %.2f", d, random)
	}
	if cell := got.row(got.B, "cell", -1, 1).P; cell < .9 {
		t.Errorf("the favourite alone has P %.3f", cell)
	}
	// What has learned nothing gives the mean, at .25; random items have about .3.
	if p, random := got.row(got.B, "rebeca", -1, 1).P, got.row(got.B, "random", -1, 1).P; p < random+.08 {
		t.Errorf("rebeca has P %.3f, random items %.3f", p, random)
	}
	if _, err := json.Marshal(got); err != nil { // NaN cannot be written
		t.Error(err)
	}
	var table, page bytes.Buffer
	if err := got.Table(&table); err != nil || strings.Contains(table.String(), "NaN") {
		t.Errorf("%v\n%s", err, table.String())
	}
	if err := got.HTML(&page); err != nil {
		t.Fatal(err)
	}
	text := page.String()
	if n := strings.Count(text, `<img src="data:image/png;base64,`); n != 4*3*pictured {
		t.Errorf("the page has %d pictures", n)
	}
	text = regexp.MustCompile(`"data:image/png;base64,[^"]*"`).ReplaceAllString(text, "")
	if fault := regexp.MustCompile(`(src|href)\s*=\s*"|url\(|@import|NaN|ZgotmplZ`).FindString(text); fault != "" {
		t.Errorf("the page asks for something outside or shows no number: %q", fault)
	}
}

// Answers follow the published law: by shared attributes, with the same noise of an item for all four, and a tenth held out.
func TestPaperAnswers(t *testing.T) {
	openRuntime(t)
	o := shortPaper()
	o.Items = 4000
	x, err := newExperiment(context.Background(), new(Worlds), o)
	if err != nil {
		t.Fatal(err)
	}
	tests := 0
	for p := range x.world.People {
		n, likes := [3]float64{}, [3]float64{}
		for i, cell := range x.world.Cells {
			shared := x.preset.Tastes[cell].Shared(x.preset.Tastes[x.world.People[p].Liked[0]])
			n[shared]++
			if x.liked[p][i] {
				likes[shared]++
			}
			if x.held[p][i] {
				tests++
			}
		}
		for shared, want := range []float64{.01, .10, .95} {
			if got := likes[shared] / n[shared]; math.Abs(got-want) > .03 {
				t.Errorf("person %d likes %.3f of what shares %d attributes, want %.2f", p, got, shared, want)
			}
		}
		if n != [3]float64{1000, 2000, 1000} {
			t.Errorf("person %d: cells %v", p, n)
		}
	}
	if want := 4 * o.Items / 10; tests != want || len(x.rows) != 4*o.Items-want {
		t.Errorf("%d test rows and %d for training", tests, len(x.rows))
	}
	// Coupled: who likes a half match of the one likes it for the other whose half match it is.
	for i, cell := range x.world.Cells {
		var half []bool
		for p := range x.world.People {
			if x.preset.Tastes[cell].Shared(x.preset.Tastes[x.world.People[p].Liked[0]]) == 1 {
				half = append(half, x.liked[p][i])
			}
		}
		if len(half) != 2 || half[0] != half[1] {
			t.Fatalf("item %d: half matches answer %v", i, half)
		}
	}
	if len(x.world.Fresh) != o.Items/10 || len(x.world.FreshOf[3]) != o.Items/40 {
		t.Errorf("%d fresh items, %d of the last taste", len(x.world.Fresh), len(x.world.FreshOf[3]))
	}
}

func TestScoreOfNeighbours(t *testing.T) {
	nearest := [][]int{{0, 1, 2}, {0, 3, 4}, {5, 1, 0}}
	liked := []bool{true, false, true, true, false, false, true}
	for k, want := range []hits{{}, {.5, .25}, {.5, .5}, {.5, .75}} {
		if got := score(nearest, k, liked); got != want {
			t.Errorf("the first %d: %v, want %v", k, got, want)
		}
	}
	if got := score(nearest, 2, make([]bool, 7)); got != (hits{}) {
		t.Errorf("nothing is liked: %v", got)
	}
}

// Neighbours are those of a plain search.
func TestNeighbours(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		items, queries := cloud(rng, rapid.IntRange(1, 60).Draw(t, "items"), 5, .2), cloud(rng, rapid.IntRange(0, 70).Draw(t, "queries"), 5, 0)
		k := rapid.IntRange(1, 8).Draw(t, "k")
		for q, got := range newNeighbours(items).top(queries, k) {
			order := make([]int, len(items))
			for i := range order {
				order[i] = i
			}
			slices.SortStableFunc(order, func(a, b int) int {
				return -compare(cosine(queries[q], items[a]), cosine(queries[q], items[b]))
			})
			if want := order[:min(k, len(order))]; !slices.Equal(got, want) {
				t.Fatalf("query %d: %v, want %v", q, got, want)
			}
		}
	})
	if got := newNeighbours(nil).top([][]float32{{1}}, 3); len(got) != 1 || len(got[0]) != 0 {
		t.Errorf("of no items: %v", got)
	}
}

func compare(a, b float64) int {
	switch {
	case a < b-1e-6:
		return -1
	case a > b+1e-6:
		return 1
	}
	return 0
}

func cosine(a, b []float32) float64 {
	dot, x, y := 0., 0., 0.
	for d := range a {
		dot, x, y = dot+float64(a[d]*b[d]), x+float64(a[d]*a[d]), y+float64(b[d]*b[d])
	}
	return dot / math.Sqrt(x*y)
}

func TestPaperOptions(t *testing.T) {
	o := DefaultPaperOptions()
	o.Samples = 10
	if _, err := Paper(context.Background(), new(Worlds), DefaultRecipe(16), o); err == nil || !strings.Contains(err.Error(), "samples: 10 is below 25") {
		t.Errorf("error %v", err)
	}
	if _, err := Paper(context.Background(), new(Worlds), DefaultRecipe(8), shortPaper()); err == nil || !strings.Contains(err.Error(), "prior.dim: 8") {
		t.Errorf("error %v", err)
	}
}
