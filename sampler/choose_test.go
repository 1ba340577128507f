package sampler

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"rebeca/internal/nearest"
	"rebeca/prior"
)

func likes(items ...[]float32) (w prior.Context) {
	for _, x := range items {
		w = append(w, prior.Entry{Item: x, Class: prior.StrongPositive})
	}
	return w
}

// TestChoose goes through what decides, one after the other.
func TestChoose(t *testing.T) {
	left, right := []float32{-5, 0}, []float32{5, 0}
	tastes := likes(left, []float32{-5, 1}, right, []float32{5, 1})
	disliked := slices.Concat(tastes, prior.Context{{Item: []float32{0, 9}, Class: prior.StrongNegative}, {Item: []float32{0, 8}, Class: prior.WeakNegative}})
	two := [][]float32{{-5, .5}, {5, .5}}
	for name, c := range map[string]struct {
		choice Choice
		of     Candidates
		want   Verdict
	}{
		"only one":                           {DefaultChoice(), Candidates{Embeddings: two[:1]}, Verdict{}},
		"nothing is known":                   {DefaultChoice(), Candidates{Embeddings: two}, Verdict{}},
		"a copy of an item":                  {DefaultChoice(), Candidates{Embeddings: two, Near: []float64{.4, 1}, Spacing: 1}, Verdict{Place: 1, Copies: 1}},
		"copies count in spacings":           {DefaultChoice(), Candidates{Embeddings: two, Near: []float64{.4, 1}, Spacing: .5}, Verdict{}},
		"copies may be taken":                {Choice{Spread: .5}, Candidates{Embeddings: two, Near: []float64{0, 1}, Spacing: 1}, Verdict{}},
		"given before":                       {DefaultChoice(), Candidates{Embeddings: two, Given: [][]float32{{9, 9}, {-5, .6}}, Spacing: 1}, Verdict{Place: 1, Given: 1}},
		"the less of two copies":             {DefaultChoice(), Candidates{Embeddings: two, Near: []float64{.1, .2}, Spacing: 1}, Verdict{Place: 1, Copies: 2}},
		"a copy and given":                   {DefaultChoice(), Candidates{Embeddings: two, Near: []float64{.1, 9}, Given: two[1:], Spacing: 1}, Verdict{Place: 0, Copies: 1, Given: 1}},
		"the ranker alone":                   {Choice{}, Candidates{Embeddings: two, Scores: []float64{1, 2}, Window: tastes, Given: two[1:]}, Verdict{Place: 1}},
		"a copy is not ranked":               {Choice{Copy: .5}, Candidates{Embeddings: two, Scores: []float64{1, 2}, Near: []float64{9, 0}, Spacing: 1}, Verdict{Copies: 1}},
		"the taste that was not served":      {Choice{Spread: 1}, Candidates{Embeddings: two, Window: tastes, Given: [][]float32{{-5, 0}, {-5, 1}}}, Verdict{Place: 1}},
		"the other one":                      {Choice{Spread: 1}, Candidates{Embeddings: two, Window: tastes, Given: [][]float32{{5, 0}, {5, 1}}}, Verdict{Place: 0}},
		"a taste and not nowhere":            {Choice{Spread: 1}, Candidates{Embeddings: [][]float32{{0, 20}, {5, .5}}, Window: tastes}, Verdict{Place: 1}},
		"dislikes for a dislike":             {Choice{Spread: 1}, Candidates{Embeddings: [][]float32{{5, .5}, {0, 8.5}}, Window: disliked, Label: prior.StrongNegative}, Verdict{Place: 1}},
		"likes for a like":                   {Choice{Spread: 1}, Candidates{Embeddings: [][]float32{{0, 8.5}, {5, .5}}, Window: disliked, Label: prior.StrongPositive}, Verdict{Place: 1}},
		"the new taste":                      {Choice{Spread: 1}, Candidates{Embeddings: two, Window: slices.Concat(likes(right, []float32{5, 1}), make(prior.Context, 20), likes(left, []float32{-5, 1}))}, Verdict{Place: 1}},
		"away from what was given, no likes": {Choice{Spread: 1}, Candidates{Embeddings: two, Given: [][]float32{{-5, .5}}, Spacing: 1}, Verdict{Place: 1}},
	} {
		if got := c.choice.Choose(c.of); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// TestChooseTakesWhatIsNovel: whatever the candidates, the one chosen is novel if any is, and the counts add up; nothing is not a number.
func TestChooseTakesWhatIsNovel(t *testing.T) {
	value := rapid.Map(rapid.IntRange(-8, 8), func(n int) float32 { return float32(n) / 4 })
	vectors := func(most int) *rapid.Generator[[][]float32] {
		return rapid.SliceOfN(rapid.SliceOfN(value, 2, 2), 0, most)
	}
	rapid.Check(t, func(t *rapid.T) {
		of := Candidates{
			Embeddings: append(vectors(6).Draw(t, "candidates"), []float32{0, 0}), Given: vectors(6).Draw(t, "given"),
			Window: likes(vectors(6).Draw(t, "likes")...), Spacing: rapid.SampledFrom([]float64{0, .25, 1}).Draw(t, "spacing"),
		}
		for range of.Embeddings {
			of.Near = append(of.Near, rapid.Float64Range(0, 2).Draw(t, "near"))
			of.Scores = append(of.Scores, rapid.Float64Range(-1, 1).Draw(t, "score"))
		}
		c := DefaultChoice()
		novel := func(i int) bool {
			if of.Spacing == 0 {
				return true
			}
			for _, g := range of.Given {
				if math.Sqrt(nearest.Square(of.Embeddings[i], g)) < .5*of.Spacing {
					return false
				}
			}
			return of.Near[i] >= .5*of.Spacing
		}
		v := c.Choose(of)
		some := false
		for i := range of.Embeddings {
			some = some || novel(i)
		}
		if novel(v.Place) != some || v.Stale(len(of.Embeddings)) == some {
			t.Fatalf("%+v; a novel one is there: %v", v, some)
		}
		if again := c.Choose(of); again != v {
			t.Fatalf("%+v, then %+v", v, again)
		}
	})
}

func TestChoiceValidate(t *testing.T) {
	for want, c := range map[string]Choice{
		"":                                 DefaultChoice(),
		"copy: -1 is not within 0 to 10":   {Copy: -1},
		"given: NaN is not within 0 to 10": {Given: math.NaN()},
		"spread: 2 is not within 0 to 1":   {Spread: 2},
	} {
		got := ""
		if err := c.Validate(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestPlainRanks(t *testing.T) {
	window := prior.Context{{Item: []float32{1, 0}, Class: prior.WeakPositive}, {Item: []float32{-1, 0}, Class: prior.WeakNegative}}
	jobs := []Job{{Window: window}, {Window: window}, {Window: window, Label: prior.StrongNegative}, {Window: window[:1]}, {}}
	at := [][]float32{{1, 0}, {-1, 0}, {-1, 0}, {5, 5}, {5, 5}}
	got, err := Plain{}.Rank(jobs, at)
	if err != nil || !slices.Equal(got, []float64{2, -2, 2, 0, 0}) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := (Plain{}).Rank(jobs[:1], [][]float32{{1, 2, 3}}); err == nil {
		t.Error("an embedding of another dimension is ranked")
	}
}

// sided restores everything to one place for likes and to another for dislikes.
type sided struct{ Denoiser }

func (s sided) Denoise(dst, _ []float32, rows []prior.Row) error {
	dim := s.Config().Dim
	for i, r := range rows {
		for d := range dim {
			dst[i*dim+d] = 1
			if !r.Label.Positive() {
				dst[i*dim+d] = -1
			}
		}
	}
	return nil
}

// TestEvidenceIsOfTheLabel: what looks like the likes that the prior knows is better for a like, and worse for a dislike; the score of a
// candidate is the same whoever is ranked beside it.
func TestEvidenceIsOfTheLabel(t *testing.T) {
	cfg := prior.DefaultConfig(6)
	cfg.Hidden, cfg.Blocks, cfg.Heads, cfg.MaxTokens = 16, 2, 2, 10
	m := openModel(t, cfg)
	like, dislike := slices.Repeat([]float32{.8}, 6), slices.Repeat([]float32{-.8}, 6)
	got, err := Evidence{sided{m}}.Rank([]Job{{}, {}, {Label: prior.StrongNegative}}, [][]float32{like, dislike, dislike})
	if err != nil || !(got[0] > 0 && got[1] < 0 && got[2] > 0) {
		t.Errorf("%v, %v", got, err)
	}
	jobs := modelJobs(t, m, 5, 3)
	x := mustSample(t, m, DefaultOptions(), jobs)
	all, err := Evidence{m}.Rank(jobs, x)
	if err != nil {
		t.Fatal(err)
	}
	for i := range jobs {
		one, err := Evidence{m}.Rank(jobs[i:i+1], x[i:i+1])
		if err != nil || one[0] != all[i] {
			t.Errorf("candidate %d: %v alone, %v among others; %v", i, one, all[i], err)
		}
	}
	if none, err := (Evidence{m}).Rank(nil, nil); err != nil || len(none) != 0 {
		t.Errorf("%v, %v", none, err)
	}
}
