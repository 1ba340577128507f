package shapes

import (
	"bytes"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"rebeca/schemas"
)

func mustWorld(t testing.TB, p Preset, seed uint64) *World {
	t.Helper()
	w, err := NewWorld(p, seed)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestPresets(t *testing.T) {
	paper, demo := mustWorld(t, Paper(), 1), mustWorld(t, Demo(), 1)
	if len(paper.Preset.Tastes) != 4 || len(paper.People) != 4 {
		t.Errorf("paper has %d tastes and %d people", len(paper.Preset.Tastes), len(paper.People))
	}
	if len(demo.Preset.Tastes) != 24 || len(demo.People) != 240 || len(demo.Items) != 3600 {
		t.Errorf("demo has %d tastes, %d people, %d items", len(demo.Preset.Tastes), len(demo.People), len(demo.Items))
	}
	favourites := map[Taste]bool{}
	for _, p := range paper.People {
		favourites[p.Tastes[0]] = true
	}
	if len(favourites) != 4 {
		t.Errorf("the paper's people have %d different favourites", len(favourites))
	}
	if rate := paper.BaseRate(); math.Abs(rate-.25) > 1e-9 {
		t.Errorf("the paper's base rate is %v", rate)
	}
	if rate := demo.BaseRate(); rate < .07 || rate > .1 {
		t.Errorf("the demo's base rate is %v", rate)
	}
	if last := demo.People[239].Arrival; last >= 30*time.Second || last < 29*time.Second {
		t.Errorf("the last person arrives at %v", last)
	}
	if paper.People[3].Arrival != 0 {
		t.Errorf("a person of the paper arrives at %v", paper.People[3].Arrival)
	}
}

func TestPeopleLikeOneToThree(t *testing.T) {
	w := mustWorld(t, Demo(), 5)
	var sizes [4]int
	for _, p := range w.People {
		seen := map[Taste]bool{}
		for _, taste := range p.Tastes {
			if seen[taste] {
				t.Errorf("%s likes %v twice", p.ID, taste)
			}
			seen[taste] = true
			if !p.Likes(taste) {
				t.Errorf("%s does not like %v", p.ID, taste)
			}
		}
		sizes[len(p.Tastes)]++
	}
	if sizes[0] != 0 || sizes[1] < 50 || sizes[2] < 50 || sizes[3] < 50 {
		t.Errorf("people by number of tastes: %v", sizes)
	}
}

func TestWorldsAreDeterministicAndStable(t *testing.T) {
	small := Demo()
	small.Items, small.People, small.Arrival = 100, 30, 0
	large := small
	large.Items, large.People = 250, 70
	a, b, c := mustWorld(t, small, 9), mustWorld(t, small, 9), mustWorld(t, large, 9)
	if !reflect.DeepEqual(a, b) {
		t.Error("the same seed gives two worlds")
	}
	if !reflect.DeepEqual(a.Items, c.Items[:100]) || !reflect.DeepEqual(a.People, c.People[:30]) {
		t.Error("a larger world changes the first items or people")
	}
	other := mustWorld(t, small, 10)
	if reflect.DeepEqual(a.People, other.People) {
		t.Error("another seed gives the same people")
	}
	if !reflect.DeepEqual(a.Items, other.Items) {
		t.Error("another seed gives another catalogue")
	}
	ids := map[string]bool{}
	for _, item := range c.Items {
		ids[item.ID] = true
		if taste, ok := TasteOf(item.ID); !ok || taste != item.Taste {
			t.Errorf("%s reads back as %v", item.ID, taste)
		}
	}
	if len(ids) != 250 {
		t.Errorf("%d different ids of 250", len(ids))
	}
	if !bytes.Equal(a.Items[7].Image().Pix, c.Items[7].Image().Pix) {
		t.Error("an item has two pictures")
	}
}

func TestTasteOfRefusesOtherNames(t *testing.T) {
	for _, name := range []string{"", "red", "red-heart", "beige-heart-0001", "red-blob-0001", "0123456789abcdef0123456789abcdef"} {
		if taste, ok := TasteOf(name); ok {
			t.Errorf("%q reads as %v", name, taste)
		}
	}
}

func TestCaption(t *testing.T) {
	if got := Caption([]Taste{{Heart, Red}, {Star, Blue}}); got != "red hearts, blue stars" {
		t.Errorf("got %q", got)
	}
}

func TestValidateNamesTheField(t *testing.T) {
	for want, change := range map[string]func(*Preset){
		"items":              func(p *Preset) { p.Items = 3 },
		"people":             func(p *Preset) { p.People = 0 },
		"tastes: need":       func(p *Preset) { p.Tastes = nil },
		`tastes: "red blob"`: func(p *Preset) { p.Tastes = []Taste{{"blob", Red}} },
		"tastes per":         func(p *Preset) { p.MaxTastes = 25 },
		"[0, 3]":             func(p *Preset) { p.MinTastes = 0 },
		"arrival":            func(p *Preset) { p.Arrival = -1 },
		"like[1]":            func(p *Preset) { p.Like[1] = math.NaN() },
		"dislike":            func(p *Preset) { p.Dislike = 1.01 },
		"aimed":              func(p *Preset) { p.Aimed = -.01 },
	} {
		p := Demo()
		change(&p)
		if _, err := NewWorld(p, 1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want a word on %s", err, want)
		}
	}
}

// near tells whether a count of n draws with probability p is within five standard
// deviations: wrong once in two million.
func near(got, n int, p float64) bool {
	return math.Abs(float64(got)-float64(n)*p) <= 5*math.Sqrt(float64(n)*p*(1-p))
}

func TestAnswersFollowTheRates(t *testing.T) {
	const n = 40000
	rng := rand.New(rand.NewPCG(1, 2))
	for _, preset := range []Preset{Paper(), Demo()} {
		w := mustWorld(t, preset, 3)
		for _, taste := range preset.Tastes[:4] {
			p := preset.Like[w.People[0].shared(taste)]
			kinds := map[schemas.Kind]int{}
			for range n {
				kinds[w.Answer(0, taste, rng)]++
			}
			if !near(kinds[schemas.KindLike], n, p) || !near(kinds[schemas.KindDislike], n, (1-p)/2) || !near(kinds[schemas.KindSkip], n, (1-p)/2) {
				t.Errorf("%s: answers of somebody who likes %v to %v: %v of %d, P(like) %v", preset.Name, w.People[0].Tastes, taste, kinds, n, p)
			}
		}
	}
	w := mustWorld(t, Paper(), 3)
	for shared, taste := range []Taste{{Square, Blue}, {Square, Red}, {Heart, Red}} {
		if got := w.People[0].shared(taste); got != shared {
			t.Errorf("%v and %v share %d", w.People[0].Tastes, taste, got)
		}
	}
}

func TestStream(t *testing.T) {
	w := mustWorld(t, Demo(), 4)
	const n, rate = 24000, 200
	a, b := w.Stream(7, rate), w.Stream(7, rate)
	liked, likes, fromLiked := 0, 0, 0
	seen := map[int]int{}
	for i := range n {
		e := a.Next()
		if e != b.Next() {
			t.Fatal("the same seed gives two streams")
		}
		if want := time.Duration(i) * time.Second / rate; e.At != want {
			t.Fatalf("event %d comes at %v, want %v", i, e.At, want)
		}
		if e.At < w.People[e.Person].Arrival {
			t.Fatalf("person %d acts at %v and arrives at %v", e.Person, e.At, w.People[e.Person].Arrival)
		}
		if e.At >= 30*time.Second {
			seen[e.Person]++
		}
		match := w.People[e.Person].Likes(w.Items[e.Item].Taste)
		if match {
			liked++
		}
		if e.Kind == schemas.KindLike {
			likes++
			if match {
				fromLiked++
			}
		}
	}
	// Half of the impressions are aimed; the others match by chance, at about the base rate.
	if got, want := float64(liked)/n, .5+.5*w.BaseRate(); math.Abs(got-want) > .02 {
		t.Errorf("%.3f of the impressions match, want %.3f", got, want)
	}
	if !near(fromLiked, liked, .95) || !near(likes-fromLiked, n-liked, .03) {
		t.Errorf("%d likes of %d matches, %d of %d others", fromLiked, liked, likes-fromLiked, n-liked)
	}
	if len(seen) != len(w.People) {
		t.Errorf("only %d of %d people act", len(seen), len(w.People))
	}
	if other := w.Stream(8, rate); other.Next() == (w.Stream(7, rate)).Next() && other.Next() == b.Next() {
		t.Error("another seed gives the same stream")
	}
}

func TestPaperShowsUniformly(t *testing.T) {
	w := mustWorld(t, Paper(), 4)
	s := w.Stream(1, 1)
	const n = 40000
	shown, liked := map[Taste]int{}, 0
	for range n {
		e := s.Next()
		shown[w.Items[e.Item].Taste]++
		if e.Kind == schemas.KindLike {
			liked++
		}
	}
	for taste, got := range shown {
		if !near(got, n, .25) {
			t.Errorf("%v is shown %d times of %d", taste, got, n)
		}
	}
	// (.95 + 2 x .10 + .01) / 4, the paper's rate of likes.
	if !near(liked, n, .29) {
		t.Errorf("%d likes of %d, want .29", liked, n)
	}
}
