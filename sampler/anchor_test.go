package sampler

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"rebeca/prior"
)

func anchored() Options {
	o := DefaultOptions()
	o.Anchor = Anchor{Steps: 4, Level: -.5, Decay: 8}
	return o
}

func fromNoise() Options {
	o := DefaultOptions()
	o.Anchor = Anchor{}
	return o
}

// liked is a window of likes of the given items, newest first.
func liked(items ...[]float32) prior.Context {
	var c prior.Context
	for _, e := range items {
		c = append(c, prior.Entry{Item: e, Class: prior.StrongPositive})
	}
	return c
}

// TestAnchorsAreDrawnByRank counts which entry jobs of many seeds start from.
func TestAnchorsAreDrawnByRank(t *testing.T) {
	window := liked([]float32{0}, []float32{1}, []float32{2}, []float32{3}, []float32{4}, []float32{5})
	window[1].Class, window[2].Class = prior.StrongNegative, prior.WeakPositive
	window[4].Older, window[5].Older = true, true // both of rank 4
	a := Anchor{Steps: 4, Decay: 3}
	const n = 20000
	counts := map[float32]float64{}
	for seed := range uint64(n) {
		item, _, ok := a.of(Job{Seed: seed, Window: window})
		if !ok {
			t.Fatal("no anchor in a window with likes")
		}
		counts[item[0]]++
	}
	total := 0.
	weight := map[float32]float64{0: 1, 3: math.Exp(-1), 4: math.Exp(-4. / 3), 5: math.Exp(-4. / 3)}
	for _, w := range weight {
		total += w
	}
	for _, item := range []float32{0, 1, 2, 3, 4, 5} {
		want := weight[item] / total
		if got := counts[item] / n; math.Abs(got-want) > 5*math.Sqrt(.25/n) {
			t.Errorf("entry %v was taken %.3f of the times, its weight is %.3f", item, got, want)
		}
	}
}

// TestFewLikesStartHigher: what counts are the likes, wherever they are, and nothing else.
func TestFewLikesStartHigher(t *testing.T) {
	a := Anchor{Steps: 4, Level: -.5, Few: 1.5, Decay: 8}
	for likes, want := range map[int]float64{1: 1, 2: .7, 5: .25, 13: -.125} {
		items := make([][]float32, likes)
		for i := range items {
			items[i] = []float32{float32(i)}
		}
		window := liked(items...)
		window[likes-1].Older = true
		window = append(window, prior.Entry{Item: []float32{-1}, Class: prior.StrongNegative}, prior.Entry{Item: []float32{-2}, Class: prior.WeakPositive})
		if _, level, ok := a.of(Job{Window: window}); !ok || math.Abs(level-want) > 1e-12 {
			t.Errorf("%d likes start at %v, expected %v", likes, level, want)
		}
	}
	for _, bad := range []Anchor{{Steps: 4, Decay: 8, Few: -1}, {Steps: 4, Decay: 8, Level: 2, Few: 1.5}, {Steps: 4, Decay: 8, Few: math.NaN()}} {
		if bad.Validate() == nil {
			t.Errorf("%+v is valid", bad)
		}
	}
}

func TestNoAnchor(t *testing.T) {
	likes := liked([]float32{1})
	disliked := slices.Clone(likes)
	disliked[0].Class = prior.StrongNegative
	for name, c := range map[string]struct {
		anchor Anchor
		job    Job
	}{
		"switched off":       {Anchor{Decay: 8}, Job{Window: likes}},
		"an empty window":    {Anchor{Steps: 4, Decay: 8}, Job{}},
		"dislikes only":      {Anchor{Steps: 4, Decay: 8}, Job{Window: disliked}},
		"asked for dislikes": {Anchor{Steps: 4, Decay: 8}, Job{Window: likes, Label: prior.StrongNegative}},
	} {
		if item, _, ok := c.anchor.of(c.job); ok {
			t.Errorf("%s: starts from %v", name, item)
		}
	}
}

// TestAnchorIsNoisedToItsLevel holds the first x that is denoised against the
// law of a noised item.
func TestAnchorIsNoisedToItsLevel(t *testing.T) {
	const n = 4000
	g := gaussian{mean: []float64{0, 0}, variances: []float64{1, 1}}
	spy := &starts{Denoiser: g}
	js := jobs(n)
	for i := range js {
		js[i].Window = liked([]float32{2, -1})
	}
	mustSample(t, spy, anchored(), js)
	if n := len(spy.calls); n != 4 || spy.calls[n-1] != 0 {
		t.Fatalf("denoised at %v, expected 4 times that end at 0", spy.calls)
	}
	cfg := g.Config()
	if l := cfg.LogSNR(spy.calls[0]); math.Abs(l+.5) > .01 {
		t.Errorf("the first noise level is %.3f, expected -.5", l)
	}
	alpha, sigma := scales(cfg, spy.calls[0])
	for d, item := range []float64{2, -1} {
		var mean, square float64
		for i := range n {
			x := float64(spy.first[i*2+d])
			mean += x / n
			square += x * x / n
		}
		if math.Abs(mean-alpha*item) > 5*sigma/math.Sqrt(n) {
			t.Errorf("mean[%d] is %.3f, expected %.3f", d, mean, alpha*item)
		}
		if sd := math.Sqrt(square - mean*mean); math.Abs(sd-sigma) > .05 {
			t.Errorf("spread[%d] is %.3f, expected %.3f", d, sd, sigma)
		}
	}
}

// starts notes the times it is asked for and the first x.
type starts struct {
	Denoiser
	calls []int
	first []float32
}

func (s *starts) Denoise(dst, x []float32, rows []prior.Row) error {
	if s.calls == nil {
		s.first = slices.Clone(x)
	}
	s.calls = append(s.calls, rows[0].T)
	return s.Denoiser.Denoise(dst, x, rows)
}

// TestAnchoredJobsAreTheirOwn mixes jobs with and without likes, in any order,
// and compares bits with each alone.
func TestAnchoredJobsAreTheirOwn(t *testing.T) {
	m := likesOfThree(4)
	js := jobs(12)
	for i := range js {
		if i%3 != 0 {
			js[i].Window = liked([]float32{float32(i), 1, 0, -1}, []float32{0, float32(i), 2, 0})
		}
	}
	rng := rand.New(rand.NewPCG(1, 1))
	together := mustSample(t, m, anchored(), js)
	for _, i := range rng.Perm(len(js)) {
		if alone := mustSample(t, m, anchored(), js[i:i+1]); !slices.Equal(alone[0], together[i]) {
			t.Errorf("job %d alone is %v, among others %v", i, alone[0], together[i])
		}
		if plain := mustSample(t, m, fromNoise(), js[i:i+1]); slices.Equal(plain[0], together[i]) != (i%3 == 0) {
			t.Errorf("job %d: with and without anchor %v, %v", i, together[i], plain[0])
		}
	}
}

func TestAnchorsOutOfRange(t *testing.T) {
	for _, c := range []struct {
		anchor Anchor
		want   string
	}{
		{Anchor{Steps: -1}, "anchor.steps: -1"},
		{Anchor{Steps: 4, Level: 4, Decay: 8}, "anchor.level: 4"},
		{Anchor{Steps: 4, Level: math.NaN(), Decay: 8}, "anchor.level: NaN"},
		{Anchor{Steps: 4}, "anchor.decay: 0"},
		{Anchor{Steps: 4, Decay: math.NaN()}, "anchor.decay: NaN"},
	} {
		o := DefaultOptions()
		o.Anchor = c.anchor
		if err := o.Validate(); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.anchor, err)
		}
	}
	short := jobs(2)
	short[1].Window = liked([]float32{1})
	if _, err := Sample(likesOfThree(4), anchored(), short); err == nil || !strings.Contains(err.Error(), "job 1: window entry of 1 dimensions") {
		t.Errorf("an entry of another length: %v", err)
	}
}
