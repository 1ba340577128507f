package online

import (
	"math"
)

// Law is the law of pseudo-users as it is kept and told; pairs are the ends of a
// range. See [Config.FitLaw].
type Law struct {
	Events int64 `json:"events"` // consumed when it was fitted; 0: it is the default
	People int   `json:"people"` // whose windows it was fitted to

	Tastes  int        `json:"tastes"`  // a person has 1 to so many, evenly
	Size    [2]float64 `json:"size"`    // of a taste, log-uniform, as a share of the catalogue
	Regions []float64  `json:"regions"` // what likes say of where tastes come from, in logarithms: balls, then each partition
	Aimed   [2]float64 `json:"aimed"`   // share of impressions of a taste

	Inside  [2]float64 `json:"inside"`  // P(like) of a strong answer to an item of a taste
	Outside [2]float64 `json:"outside"` // and to another

	Weak        float64    `json:"weak"` // share of people who answer weakly now and then
	WeakInside  [2]float64 `json:"weak_inside"`
	WeakOutside [2]float64 `json:"weak_outside"`

	Changing float64    `json:"changing"` // share of people whose tastes change
	Partly   float64    `json:"partly"`   // of them, those who change some tastes at a time
	Hazard   [2]float64 `json:"hazard"`   // P(change) before an event, log-uniform

	Long float64    `json:"long"` // share of people with more events than the newest part of a window holds
	Past [2]float64 `json:"past"` // number of those, log-uniform
}

// told is w as it is kept.
func (w law) told() Law {
	return Law{
		Tastes: w.tastes, Size: w.size.ends(), Aimed: w.aimed.ends(), Inside: w.inside.ends(), Outside: w.outside.ends(),
		Weak: w.weak, WeakInside: w.weakInside.ends(), WeakOutside: w.weakOutside.ends(),
		Changing: w.changing, Partly: w.partly, Hazard: w.hazard.ends(), Long: w.long, Past: w.past.ends(),
	}
}

// law is the inverse of told.
func (k Law) law() law {
	between := func(ends [2]float64) span { return span{ends[0], ends[1]} }
	return law{
		tastes: k.Tastes, size: between(k.Size), aimed: between(k.Aimed), inside: between(k.Inside), outside: between(k.Outside),
		weak: k.Weak, weakInside: between(k.WeakInside), weakOutside: between(k.WeakOutside),
		changing: k.Changing, partly: k.Partly, hazard: between(k.Hazard), long: k.Long, past: between(k.Past),
	}
}

func (s span) ends() [2]float64 { return [2]float64{s.low, s.high} }

// A number of the law is one that is fitted. move changes it by so much on a
// scale without ends: logarithms of odds for what lies in (0, 1), logarithms
// else. Before anything is known, laws differ from the default by a standard
// deviation of spread on that scale.
type number struct {
	name   string
	spread float64
	move   func(w *law, by float64)
}

// Spreads: a rate of likes of .85 may well be .7 or .93, a taste half or twice
// as wide. The width of a range is that between people.
const (
	spreadOdds  = .8
	spreadSize  = .8
	spreadWidth = .5
)

// numbers are those that are fitted.
func numbers() []number {
	return []number{
		{"aimed", spreadOdds, func(w *law, by float64) { w.aimed = w.aimed.along(odds, by, 0) }},
		{"aimed_width", spreadWidth, func(w *law, by float64) { w.aimed = w.aimed.along(odds, 0, by) }},
		{"inside", spreadOdds, func(w *law, by float64) { w.inside = w.inside.along(odds, by, 0) }},
		{"inside_width", spreadWidth, func(w *law, by float64) { w.inside = w.inside.along(odds, 0, by) }},
		{"outside", spreadOdds, func(w *law, by float64) { w.outside = w.outside.along(odds, by, 0) }},
		{"outside_width", spreadWidth, func(w *law, by float64) { w.outside = w.outside.along(odds, 0, by) }},
		{"size", spreadSize, func(w *law, by float64) { w.size = w.size.along(sizes, by, 0) }},
		{"size_width", spreadWidth, func(w *law, by float64) { w.size = w.size.along(sizes, 0, by) }},
		{"tastes", spreadWidth, func(w *law, by float64) {
			w.tastes = int(min(max(math.Round(float64(w.tastes)*math.Exp(by)), 1), mostTastes))
		}},
		{"weak", 1.2, func(w *law, by float64) { w.weak = odds.by(w.weak, by) }},
		{"weak_inside", spreadOdds, func(w *law, by float64) { w.weakInside = w.weakInside.along(odds, by, 0) }},
		{"weak_outside", spreadOdds, func(w *law, by float64) { w.weakOutside = w.weakOutside.along(odds, by, 0) }},
		{"changing", spreadOdds, func(w *law, by float64) { w.changing = odds.by(w.changing, by) }},
		{"hazard", spreadSize, func(w *law, by float64) { w.hazard = w.hazard.along(hazards, by, 0) }},
	}
}

const mostTastes = 12

// scale is a number's scale without ends, and what it is kept within.
type scale struct {
	to, from  func(float64) float64
	low, high float64
}

var (
	odds    = scale{logit, expit, .005, .995}
	sizes   = scale{math.Log, math.Exp, .0005, .5}
	hazards = scale{math.Log, math.Exp, 1e-4, .5}
)

func logit(p float64) float64 { return math.Log(p / (1 - p)) }
func expit(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// by is p moved along the scale.
func (c scale) by(p, by float64) float64 {
	if by == 0 {
		return p // to the last bit
	}
	return min(max(c.from(c.to(p)+by), c.low), c.high)
}

// along is s with its middle moved by so much and its width times e^wider.
func (s span) along(c scale, by, wider float64) span {
	if wider == 0 {
		return span{c.by(s.low, by), c.by(s.high, by)}
	}
	half := (c.to(s.high) - c.to(s.low)) / 2 * (math.Exp(wider) - 1)
	return span{c.by(s.low, by-half), c.by(s.high, by+half)}
}

// moved is the law that differs from w by so much in each of the numbers.
func (w law) moved(by []float64) law {
	for i, n := range numbers() {
		n.move(&w, by[i])
	}
	return w
}
