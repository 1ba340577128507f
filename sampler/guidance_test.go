package sampler

import (
	"math"
	"strings"
	"testing"

	"rebeca/prior"
)

// byLabel answers each label with an estimate of its own.
type byLabel struct {
	shrink
	of    map[prior.Class][]float32
	conds map[prior.Class]*prior.Condition
}

func (b *byLabel) Denoise(dst, x []float32, rows []prior.Row) error {
	for i, r := range rows {
		copy(dst[i*b.dim:], b.of[r.Label])
		b.conds[r.Label] = r.Cond
	}
	return nil
}

func newByLabel() *byLabel {
	return &byLabel{shrink: shrink{2}, conds: map[prior.Class]*prior.Condition{}, of: map[prior.Class][]float32{
		prior.StrongPositive: {3, 1}, prior.ClassNone: {1, 1}, prior.StrongNegative: {1, -1},
	}}
}

// once is one step of constant guidance, whose estimate is the sample.
func once(guidance float64) Options {
	o := Everywhere(guidance)
	o.Steps, o.Anchor = 1, Anchor{}
	return o
}

func TestGuidedEstimates(t *testing.T) {
	window := &prior.Condition{}
	for name, c := range map[string]struct {
		guidance, away, norm float64
		label                prior.Class
		want                 [2]float64
	}{
		"plain":                      {guidance: 1, want: [2]float64{3, 1}},
		"guided":                     {guidance: 2, want: [2]float64{5, 1}},
		"away":                       {guidance: 2, away: .5, want: [2]float64{5, 2}},
		"plain stays plain":          {guidance: 1, away: .5, norm: 1, want: [2]float64{3, 1}},
		"dislikes are asked for":     {guidance: 2, away: .5, label: prior.StrongNegative, want: [2]float64{1, -3}},
		"norm":                       {guidance: 2, norm: 1, want: [2]float64{5 * math.Sqrt(10./26), math.Sqrt(10. / 26)}},
		"norm within the bound":      {guidance: 2, norm: 3, want: [2]float64{5, 1}},
		"norm after what is avoided": {guidance: 2, away: .5, norm: 1, want: [2]float64{5 * math.Sqrt(10./29), 2 * math.Sqrt(10./29)}},
	} {
		b := newByLabel()
		o := once(c.guidance)
		o.Away, o.NormGuard = c.away, c.norm
		got := mustSample(t, b, o, []Job{{Label: c.label, Cond: window}})[0]
		for d, want := range c.want {
			if math.Abs(float64(got[d])-want) > 1e-6 {
				t.Errorf("%s: %v, want %v", name, got, c.want)
			}
		}
		if b.conds[prior.ClassNone] != nil || c.away > 0 && c.guidance != 1 && b.conds[prior.StrongNegative] != window {
			t.Errorf("%s: the unconditional row saw %v, that of dislikes %v", name, b.conds[prior.ClassNone], b.conds[prior.StrongNegative])
		}
	}
}

// TestAwayFromDislikes: a mode that the person dislikes gets less, and no mode outside the mixture appears.
func TestAwayFromDislikes(t *testing.T) {
	m := likesOfThree(4)
	m.weights[prior.StrongPositive] = []float64{.45, .45, .1}
	m.weights[prior.StrongNegative] = []float64{.02, .9, .08}
	m.weights[prior.ClassNone] = []float64{.3, .4, .3}
	shares := func(away float64) []float64 {
		o := Everywhere(1.5)
		o.Steps, o.Away, o.Anchor = 40, away, Anchor{}
		return m.shares(mustSample(t, m, o, jobs(1000)))
	}
	without, with := shares(0), shares(1)
	if !(with[1] < without[1]-.1 && with[0] > without[0]+.1) {
		t.Errorf("shares %v become %v away from the second", without, with)
	}
	m = likesOfThree(4)
	o := DefaultOptions()
	o.Away = 1
	mustSample(t, m, o, jobs(5))
	if m.calls.Load() != 8 || m.rows.Load() != 5*(8+4+4) {
		t.Errorf("%d calls of %d rows, want 8 of 80", m.calls.Load(), m.rows.Load())
	}
}

// TestNormGuardOfMixture: strong guidance throws samples off the modes, the guard keeps them nearer.
func TestNormGuardOfMixture(t *testing.T) {
	m := likesOfThree(4)
	far := func(bound float64) float64 {
		o := Everywhere(8)
		o.Steps, o.NormGuard, o.Anchor = 24, bound, Anchor{}
		longest := 0.
		for _, e := range mustSample(t, m, o, jobs(400)) {
			longest = max(longest, norm(e))
		}
		return longest
	}
	if free, kept := far(0), far(1.05); !(kept < free) {
		t.Errorf("the longest sample has norm %.2f without the guard, %.2f with it", free, kept)
	}
}

func TestGuidanceOptionsOutOfRange(t *testing.T) {
	for want, change := range map[string]func(*Options){
		"away: -1":        func(o *Options) { o.Away = -1 },
		"away: NaN":       func(o *Options) { o.Away = math.NaN() },
		"away: 101":       func(o *Options) { o.Away = 101 },
		"norm_guard: 0.9": func(o *Options) { o.NormGuard = .9 },
		"norm_guard: NaN": func(o *Options) { o.NormGuard = math.NaN() },
		"norm_guard: +In": func(o *Options) { o.NormGuard = math.Inf(1) },
	} {
		o := DefaultOptions()
		change(&o)
		if err := o.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
