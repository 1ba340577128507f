package online

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"rebeca/prior"
)

const (
	// fitPeople and fitLaws are the people whose windows a law is fitted to and
	// the laws that they are held against.
	fitPeople = 160
	fitLaws   = 256
	// A law is fitted at fitFirst events, then each time their number has
	// doubled, and every fitEvery events.
	fitFirst = 128
	fitEvery = 50_000
	// What is not read off windows but counted, such as how many events people
	// have, is believed as far as there are fitDoubt people or more.
	fitDoubt = 64
	// Nothing that is seen counts for more than farthest standard deviations, and
	// no number moves farther than furthest of its spreads.
	farthest = 3
	furthest = 2
)

// fitLaw fits the law of pseudo-users to windows: of so many laws around the
// default windows as long as those given are imagined and looked at, and a
// ridge regression of what the laws are on what their windows look like reads
// the given windows. What few windows do not tell it does not move, because
// the imagined ones are as few; without any it returns the default. (Beaumont,
// Zhang and Balding, Approximate Bayesian computation in population genetics,
// 2002; the figures of look are its summary statistics.)
func fitLaw(rng *rand.Rand, s *survey, seen []glimpse) law {
	seen = slices.DeleteFunc(slices.Clone(seen), func(g glimpse) bool { return len(g.items) == 0 })
	if len(seen) == 0 || len(s.items) < fewestItems {
		return defaultLaw()
	}
	given := newLook(s)
	for i := range seen {
		given.add(&seen[i])
	}
	target := given.figures()
	ns := numbers()
	figures := make([][]float64, fitLaws)
	moves := make([][]float64, fitLaws) // in spreads
	var g glimpse
	for k := range fitLaws {
		moves[k] = make([]float64, len(ns))
		by := make([]float64, len(ns))
		for i, n := range ns {
			moves[k][i] = min(max(rng.NormFloat64(), -furthest), furthest)
			by[i] = moves[k][i] * n.spread
		}
		w, l := defaultLaw().moved(by), newLook(s)
		for i := range seen {
			s.imagine(rng, w, len(seen[i].items), &g)
			l.add(&g)
		}
		figures[k] = l.figures()
	}
	standardize(figures, target)
	by := ridge(figures, moves, target)
	for i, n := range ns {
		by[i] = min(max(by[i], -furthest), furthest) * n.spread
	}
	return defaultLaw().moved(by)
}

// standardize brings each column of rows to mean 0 and deviation 1, and x with
// it. Columns that do not vary become 0.
func standardize(rows [][]float64, x []float64) {
	for j := range x {
		var s spreadOf
		for _, r := range rows {
			s.add(r[j], 1)
		}
		mean, sd := s.sum/s.n, s.deviation()
		at := func(v float64) float64 {
			if sd < 1e-9 {
				return 0
			}
			return min(max((v-mean)/sd, -farthest), farthest)
		}
		for _, r := range rows {
			r[j] = at(r[j])
		}
		x[j] = at(x[j])
	}
}

// penalties are those of ridge, per row.
var penalties = []float64{.003, .01, .03, .1, .3, 1}

// ridge returns the prediction at x of each column of ys by a linear regression
// without intercept on rows, with the penalty whose leave-one-out error is the
// smallest; 0 for a column that none predicts.
func ridge(rows, ys [][]float64, x []float64) []float64 {
	n, p, q := len(rows), len(x), len(ys[0])
	out, best := make([]float64, q), make([]float64, q)
	for k := range q {
		for _, y := range ys {
			best[k] += y[k] * y[k]
		}
		best[k] *= .98
	}
	gram := make([]float64, p*p)
	for _, r := range rows {
		for i := range p {
			for j := range p {
				gram[i*p+j] += r[i] * r[j]
			}
		}
	}
	for _, penalty := range penalties {
		a := slices.Clone(gram)
		for i := range p {
			a[i*p+i] += penalty * float64(n)
		}
		inv := inverse(a, p)
		levers := make([]float64, n) // 1 - the share of a row's own y in its prediction
		for i, r := range rows {
			levers[i] = 1
			for a := range p {
				levers[i] -= r[a] * dot(inv[a*p:(a+1)*p], r)
			}
		}
		for k := range q {
			xy, weights := make([]float64, p), make([]float64, p)
			for i, r := range rows {
				for j := range p {
					xy[j] += r[j] * ys[i][k]
				}
			}
			for i := range p {
				weights[i] = dot(inv[i*p:(i+1)*p], xy)
			}
			loss := 0.
			for i, r := range rows {
				e := (ys[i][k] - dot(weights, r)) / levers[i]
				loss += e * e
			}
			if loss < best[k] {
				best[k], out[k] = loss, dot(weights, x)
			}
		}
	}
	return out
}

func dot(a, b []float64) (sum float64) {
	for i, x := range a {
		sum += x * b[i]
	}
	return sum
}

// inverse of a positive definite matrix [p][p], by Gauss and Jordan; a is spoilt.
func inverse(a []float64, p int) []float64 {
	out := make([]float64, p*p)
	for i := range p {
		out[i*p+i] = 1
	}
	for i := range p {
		d := a[i*p+i]
		if !(d > 0) {
			panic(fmt.Sprintf("online: a matrix with pivot %v is not positive definite", d))
		}
		for j := range p {
			a[i*p+j] /= d
			out[i*p+j] /= d
		}
		for k := range p {
			if f := a[k*p+i]; k != i && f != 0 {
				for j := range p {
					a[k*p+j] -= f * a[i*p+j]
					out[k*p+j] -= f * out[i*p+j]
				}
			}
		}
	}
	return out
}

// lengths are how many events people have.
type lengths struct {
	people float64
	pasts  []float64 // events before the newest part of a window, of those who have any
}

func (c *lengths) add(u User) {
	newest := 0
	for newest < len(u.Window) && !u.Window[newest].Older {
		newest++
	}
	c.people++
	if past := float64(u.Events) - float64(newest); past > 0 && newest < len(u.Window) {
		c.pasts = append(c.pasts, past)
	}
}

// shape gives w windows such as people have, within bounds: a prior has to read
// short windows and full ones whoever is there now.
func (c *lengths) shape(w law) law {
	long := float64(len(c.pasts))
	w.long = min(max((fitDoubt*w.long+long)/(fitDoubt+c.people), .4), .8)
	if long > 0 {
		slices.Sort(c.pasts)
		most := c.pasts[int(.95*(long-1))]
		trust := long / (long + fitDoubt)
		w.past.high = min(max(math.Exp((1-trust)*math.Log(w.past.high)+trust*math.Log(1.5*most)), 60), 2000)
	}
	return w
}

// populate makes the crowd of pseudo-users anew where the catalogue has become
// another one, and fits its law where the stream has told more.
func (t *Trainer) populate() error {
	if !t.crowded() {
		return nil
	}
	c := t.drawer.crowd
	if n := t.items.Len(); c.outgrown(n) {
		c = newCrowd(t.seed, n, t.items.Each)
		if t.cfg.FitLaw && t.record.Law != nil {
			c.obey(t.record.Law.law())
			c.regions.believe(t.record.Law.Regions)
		}
		t.drawer.crowd = c
		t.tellLaw()
	}
	if !t.fitDue() {
		return nil
	}
	law, seen, err := t.fitCrowd(c)
	if err != nil {
		return fmt.Errorf("fitting the law of pseudo-users: %w", err)
	}
	law = law.keptSize(c.law)
	c.obey(law)
	told := law.told()
	told.Events, told.People = t.record.Events, len(seen)
	if likes := c.likes(seen, t.items); len(likes) > 0 {
		told.Regions = c.regions.evidence(likes)
	}
	c.regions.believe(told.Regions)
	t.record.Law = &told
	t.log.Info("law of pseudo-users fitted", "events", told.Events, "people", len(seen), "tastes", law.tastes, "size", told.Size, "aimed", told.Aimed,
		"inside", told.Inside, "outside", told.Outside, "weak", law.weak, "changing", law.changing)
	t.tellLaw()
	return nil
}

// fitDue reports whether the stream has told enough since the last fit.
func (t *Trainer) fitDue() bool {
	if !t.cfg.FitLaw {
		return false
	}
	due := int64(fitFirst)
	if t.record.Law != nil {
		due = max(due, min(2*t.record.Law.Events, t.record.Law.Events+fitEvery))
	}
	return t.record.Events >= due
}

const (
	// likedOf bounds the likes of a person that say where tastes lie, and
	// likedWork the multiplications that find out where likes lie.
	likedOf   = 16
	likedWork = 4e9
)

// likes are the items of the crowd that are nearest to the likes of people who
// have two or more.
func (c *crowd) likes(windows [][]Entry, catalogue items) (people [][]int32) {
	var liked []listed
	var ends []int
	for _, w := range windows {
		first := len(liked)
		if float64(first)*float64(len(c.items))*float64(len(c.items[0].e)) > likedWork {
			break
		}
		for _, e := range w {
			if e.Class != prior.StrongPositive || len(liked) == first+likedOf {
				continue
			}
			if x, ok := catalogue.Get(e.ItemID); ok {
				liked = append(liked, listed{e.ItemID, x})
			}
		}
		if len(liked) < first+2 {
			liked = liked[:first]
			continue
		}
		ends = append(ends, len(liked))
	}
	if len(ends) == 0 {
		return nil
	}
	at, first := nearest(liked, embeddings(c.items)), 0
	for _, end := range ends {
		people = append(people, at[first:end])
		first = end
	}
	return people
}

// fitCrowd fits the law to the windows of random people, which it returns.
func (t *Trainer) fitCrowd(c *crowd) (law, [][]Entry, error) {
	rng := stream(t.seed, streamLaw, t.record.Events)
	s := newSurvey(rng, c.items)
	var seen []glimpse
	var windows [][]Entry
	var have lengths
	n := t.people.UserCount()
	known := map[int]bool{}
	for range 2 * min(fitPeople, n) {
		at := rng.IntN(n)
		if known[at] || len(seen) == fitPeople {
			continue
		}
		known[at] = true
		u, ok, err := t.people.User(t.people.UserAt(at))
		if err != nil {
			return law{}, nil, err
		}
		if g := s.glimpse(u.Window, t.items); ok && len(g.items) > 0 {
			seen, windows = append(seen, g), append(windows, u.Window)
			have.add(u)
		}
	}
	return have.shape(fitLaw(rng, s, seen)), windows, nil
}

// sameSize is how much both ends of the range of sizes may move, in logarithms,
// before regions are made anew: partitions are dear.
const sameSize = .5

// keptSize is w with the sizes of old where they differ by little.
func (w law) keptSize(old law) law {
	if math.Abs(math.Log(w.size.low/old.size.low)) < sameSize && math.Abs(math.Log(w.size.high/old.size.high)) < sameSize {
		w.size = old.size
	}
	return w
}

// obey makes w the law of those who are drawn from now on.
func (c *crowd) obey(w law) {
	if w.size != c.law.size {
		c.regions = newRegions(c.regions.seed, c.items, w.size)
	}
	c.law = w
}

// tellLaw copies the law to the status.
func (t *Trainer) tellLaw() {
	told := t.drawer.crowd.law.told()
	if t.cfg.FitLaw && t.record.Law != nil {
		told = *t.record.Law
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.status.Law = &told
}
