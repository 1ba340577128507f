package online

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"testing"

	"rebeca/prior"
)

// glimpses are the windows of people of a law, as a survey of the catalogue
// sees them.
func glimpses(c *crowd, s *survey, people int, catalogue items) (seen []glimpse) {
	for i := range people {
		l, _ := c.life(stream(9, streamDraw, int64(i)), 28, 24, 4, 4)
		seen = append(seen, s.glimpse(l.newest, catalogue))
	}
	return seen
}

// middles are what a law says of the mean person on the scales of its numbers,
// each in spreads.
func middles(w law) map[string]float64 {
	mean := func(s span) float64 { return odds.to((s.low+s.high)/2) / spreadOdds }
	return map[string]float64{
		"aimed": mean(w.aimed), "inside": mean(w.inside), "outside": mean(w.outside),
		"size": (sizes.to(w.size.low) + sizes.to(w.size.high)) / 2 / spreadSize, "tastes": math.Log(float64(w.tastes)) / spreadWidth,
		"weak": odds.to(min(max(w.weak, .02), .98)) / 1.2,
	}
}

// TestLawIsRecovered draws people of known laws and fits the law to their
// windows: it is nearer to theirs than the default, in all and in each number
// that is far from the default.
func TestLawIsRecovered(t *testing.T) {
	shop := plain(1500)
	for name, change := range map[string]func(w *law){
		"reliable, few tastes": func(w *law) {
			w.inside, w.outside, w.aimed = span{.93, .97}, span{.02, .04}, span{.3, .4}
			w.size, w.tastes, w.weak = span{.02, .04}, 2, .02
		},
		"noisy, wide tastes": func(w *law) {
			w.inside, w.outside, w.aimed = span{.6, .8}, span{.1, .2}, span{.3, .5}
			w.size, w.tastes, w.weak = span{.05, .2}, 2, .05
		},
		"clicks": func(w *law) { w.weak, w.weakInside, w.weakOutside = .9, span{.6, .8}, span{.2, .4} },
		"many narrow tastes, well aimed at": func(w *law) {
			w.size, w.tastes, w.aimed = span{.006, .01}, 9, span{.8, .95}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCrowd(1, shop.Len(), shop.Each)
			truth := defaultLaw()
			change(&truth)
			c.obey(truth)
			s := newSurvey(stream(2, streamLaw, 0), c.items)
			fitted := middles(fitLaw(stream(3, streamLaw, 1), s, glimpses(c, s, 128, shop)))
			is, was := middles(truth), middles(defaultLaw())
			far, near := 0., 0.
			for n := range is {
				before, after := math.Abs(was[n]-is[n]), math.Abs(fitted[n]-is[n])
				far, near = far+before*before, near+after*after
				if before > 1.2 && after > .8*before {
					t.Errorf("%s is %.2f, fitted %.2f, the default %.2f, in spreads", n, is[n], fitted[n], was[n])
				}
			}
			if near > .5*far {
				t.Errorf("the squared distance to the truth is %.2f, that of the default %.2f\ntruth %v\nfitted %v", near, far, is, fitted)
			}
		})
	}
}

// TestChangesAreRecovered has people of one and the same reliability, who
// change often or never.
func TestChangesAreRecovered(t *testing.T) {
	shop := plain(1000)
	rate := func(changing float64, hazard span) float64 {
		c := newCrowd(1, shop.Len(), shop.Each)
		truth := defaultLaw()
		truth.changing, truth.hazard, truth.tastes, truth.weak = changing, hazard, 2, 0
		c.obey(truth)
		s := newSurvey(stream(2, streamLaw, 0), c.items)
		w := fitLaw(stream(3, streamLaw, 1), s, glimpses(c, s, 128, shop))
		return w.changing * math.Sqrt(w.hazard.low*w.hazard.high)
	}
	base := defaultLaw()
	settled, restless, usual := rate(0, base.hazard), rate(1, span{1. / 12, 1. / 6}), base.changing*math.Sqrt(base.hazard.low*base.hazard.high)
	if settled >= .8*usual || restless <= 1.5*usual {
		t.Errorf("people who never change are fitted %.4f changes an event, those who do %.4f, the default is %.4f", settled, restless, usual)
	}
}

// TestLittleMovesLittle has nobody, then a few people unlike the default.
func TestLittleMovesLittle(t *testing.T) {
	shop := plain(600)
	c := newCrowd(1, shop.Len(), shop.Each)
	s := newSurvey(stream(2, streamLaw, 0), c.items)
	if w := fitLaw(stream(3, streamLaw, 1), s, nil); w != defaultLaw() {
		t.Errorf("of nobody's windows comes %+v", w)
	}
	if w := fitLaw(stream(3, streamLaw, 1), s, make([]glimpse, 5)); w != defaultLaw() {
		t.Errorf("of empty windows comes %+v", w)
	}
	if w := (&lengths{}).shape(defaultLaw()); w != defaultLaw() {
		t.Errorf("of nobody's lengths comes %+v", w)
	}
	truth := defaultLaw()
	truth.inside, truth.size, truth.tastes, truth.weak = span{.95, .99}, span{.1, .2}, 1, 0
	c.obey(truth)
	few, many := middles(fitLaw(stream(3, streamLaw, 1), s, glimpses(c, s, 2, shop))), middles(fitLaw(stream(3, streamLaw, 1), s, glimpses(c, s, 128, shop)))
	moved := func(to map[string]float64) (sum float64) {
		for n, v := range middles(defaultLaw()) {
			sum += math.Abs(to[n] - v)
		}
		return sum
	}
	if a, b := moved(few), moved(many); !(a < b/2) {
		t.Errorf("two people move the law by %.2f spreads, 128 by %.2f", a, b)
	}
}

// TestLawsStayLaws moves every number as far as it goes.
func TestLawsStayLaws(t *testing.T) {
	for _, far := range []float64{-furthest, furthest} {
		by := make([]float64, len(numbers()))
		for i, n := range numbers() {
			by[i] = far * n.spread
		}
		w := defaultLaw().moved(by)
		for name, s := range map[string]span{"size": w.size, "aimed": w.aimed, "inside": w.inside, "outside": w.outside, "weak inside": w.weakInside, "hazard": w.hazard} {
			if !(s.low > 0 && s.low < s.high && s.high < 1) {
				t.Errorf("%s, %v spreads away, is %v", name, far, s)
			}
		}
		if w.tastes < 1 || w.weak <= 0 || w.weak >= 1 || w.changing <= 0 || w.changing >= 1 {
			t.Errorf("%v spreads away is %+v", far, w)
		}
		if back := w.told().law(); back != w {
			t.Errorf("%+v is told as %+v", w, back)
		}
	}
	if w := defaultLaw().moved(make([]float64, len(numbers()))); w != defaultLaw() {
		t.Errorf("not moved at all the default is %+v", w)
	}
}

func TestLengthsOfWindows(t *testing.T) {
	var c lengths
	window := append(make([]Entry, 28), Entry{Older: true})
	for range 1000 {
		c.add(User{Events: 28 + 400, Window: window})
	}
	if w := c.shape(defaultLaw()); w.long != .8 || w.past.high < 400 {
		t.Errorf("of people with 428 events %v are long, with a past of %v", w.long, w.past)
	}
	c = lengths{}
	for range 1000 {
		c.add(User{Events: 3, Window: window[:3]})
	}
	if w := c.shape(defaultLaw()); w.long != .4 || w.past != defaultLaw().past {
		t.Errorf("of people with 3 events %v are long, with a past of %v", w.long, w.past)
	}
}

// TestFittedLawIsResumed leads a trainer through 384 events, without and with a
// restart at 192: the law is fitted at 128 and 256, kept, told, obeyed, and the
// weights are the same.
func TestFittedLawIsResumed(t *testing.T) {
	openRuntime(t)
	run := func(fit, restart bool) (*Trainer, checkpoint) {
		cfg := quick()
		cfg.BirthSteps, cfg.PseudoShare, cfg.FitLaw = 4, .5, fit
		w, dir := newClusters(4, 8, 300), t.TempDir()
		s := newStation(t, cfg, w, dir)
		d := s.Drive()
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		must(d.Begin(t.Context()))
		for i := range 6 {
			must(d.Learn(t.Context(), w.events(64, 8)))
			if i != 2 {
				continue
			}
			must(d.Rest(t.Context()))
			if restart {
				d.Close()
				s = newStation(t, cfg, w, dir)
				d = s.Drive()
				must(d.Begin(t.Context()))
			}
		}
		must(d.Rest(t.Context()))
		d.Close()
		cp, _, err := s.store.newest()
		must(err)
		return s.Trainer, *cp
	}
	text := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	t1, whole := run(true, false)
	t2, resumed := run(true, true)
	_, fixed := run(false, false)
	law := t1.Status().Law
	if law == nil || law.Events != 256 || law.People == 0 || law.law() == defaultLaw() {
		t.Fatalf("the law is %s", text(law))
	}
	if text(whole.record.Law) != text(law) || text(resumed.record.Law) != text(law) || text(t2.Status().Law) != text(law) {
		t.Errorf("the law is told as %s, kept as %s; after a restart it is %s", text(law), text(whole.record.Law), text(resumed.record.Law))
	}
	if t1.drawer.crowd.law != law.law() || t1.drawer.crowd.regions.size != law.law().size {
		t.Errorf("%s is told, pseudo-users obey %+v", text(law), t1.drawer.crowd.law)
	}
	if !slices.Equal(whole.state.Params, resumed.state.Params) {
		t.Error("after a restart the weights are others")
	}
	if slices.Equal(whole.state.Params, fixed.state.Params) || fixed.record.Law != nil {
		t.Error("the fitted law changes nothing, or is fitted against its option")
	}
	versions, err := List(t1.store.dir)
	if err != nil || versions[0].Law == nil || text(versions[0].Law) != text(law) {
		t.Errorf("versions tell the law %s: %v", text(versions[0].Law), err)
	}
}

// TestPlaces holds what is near what against distances.
func TestPlaces(t *testing.T) {
	shop := plain(200)
	c := newCrowd(1, shop.Len(), shop.Each)
	s := newSurvey(stream(2, streamLaw, 0), c.items)
	n := len(s.items)
	for i := range n {
		last := float32(-1)
		for k, j := range s.order[i*n : (i+1)*n] {
			d := apart(s.items[i].e, s.items[j].e)
			if d < last || int(s.nearer[i*n+int(j)]) != k || k == 0 && int(j) != i {
				t.Fatalf("item %d is in place %d of the neighbours of %d", j, k, i)
			}
			last = d
		}
	}
	g := s.glimpse([]Entry{
		{ItemID: "00007", Class: prior.StrongPositive}, {ItemID: "gone", Class: prior.StrongPositive}, {ItemID: "00008"},
		{ItemID: "00009", Class: prior.WeakNegative}, {ItemID: "00010", Class: prior.StrongPositive, Older: true},
	}, shop)
	if got := fmt.Sprint(s.items[g.items[0]].id, s.items[g.items[1]].id, g.classes); len(g.items) != 2 || got != fmt.Sprint("0000700009 ", []prior.Class{prior.StrongPositive, prior.WeakNegative}) && got != fmt.Sprint("00007", "00009", []prior.Class{prior.StrongPositive, prior.WeakNegative}) {
		t.Errorf("the glimpse is %s", got)
	}
}
