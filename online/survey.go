package online

import (
	"math"
	"math/rand/v2"
	"slices"

	"rebeca/prior"
)

const (
	// surveyItems bounds the items that a law is fitted over, surveyWork the
	// multiplications that bring windows onto them: at 16 dimensions seconds are
	// not worth more items, at 1,024 there are a third of them.
	surveyItems = 1024
	surveyWork  = 1 << 30
	fewestItems = 128
	// surveyNewest bounds the entries of a window that are looked at.
	surveyNewest = 28
)

// survey is a sample of the catalogue and which of its items are near which.
type survey struct {
	items  []listed
	order  []int32          // [items][items]: by rising distance from the first, itself first
	nearer []uint16         // [items][items]: place of the second in the order of the first
	places map[string]int32 // by id of an item, looked up before
	least  int              // items of the smallest taste
}

// newSurvey samples some of the items of a catalogue.
func newSurvey(rng *rand.Rand, of []listed) *survey {
	n := surveyItems
	if len(of) > 0 {
		n = min(max(surveyWork/(fitPeople*surveyNewest*len(of[0].e)), fewestItems), n)
	}
	s := &survey{places: map[string]int32{}}
	s.items = sampleItems(rng, n, func(fn func(string, []float32) bool) {
		for _, it := range of {
			fn(it.id, it.e)
		}
	})
	n = len(s.items)
	s.least = max(1, fewestInBall*n/max(len(of), 1))
	s.order, s.nearer = make([]int32, n*n), make([]uint16, n*n)
	far := make([]float32, n)
	for i := range n {
		for j := range n {
			far[j] = apart(s.items[i].e, s.items[j].e)
		}
		far[i] = -1 // first, whatever its twins
		row := s.order[i*n : (i+1)*n]
		for j := range row {
			row[j] = int32(j)
		}
		slices.SortFunc(row, func(a, b int32) int {
			if far[a] != far[b] {
				if far[a] < far[b] {
					return -1
				}
				return 1
			}
			return int(a - b)
		})
		for k, j := range row {
			s.nearer[i*n+int(j)] = uint16(k)
		}
	}
	for i, it := range s.items {
		s.places[it.id] = int32(i)
	}
	return s
}

// apart is the squared distance of two embeddings.
func apart(a, b []float32) (d float32) {
	for i, x := range a {
		d += (x - b[i]) * (x - b[i])
	}
	return d
}

// place is the item of the sample that e is nearest to.
func (s *survey) place(id string, e []float32) int32 {
	if at, ok := s.places[id]; ok {
		return at
	}
	best, at := float32(math.Inf(1)), int32(0)
	for i, it := range s.items {
		if d := apart(it.e, e); d < best {
			best, at = d, int32(i)
		}
	}
	s.places[id] = at
	return at
}

// glimpse is a window, newest first, of items of a survey.
type glimpse struct {
	items   []int32
	classes []prior.Class
}

// glimpse brings a person's window onto the survey.
func (s *survey) glimpse(window []Entry, catalogue items) (g glimpse) {
	for _, e := range window {
		if e.Older || len(g.items) == surveyNewest {
			break
		}
		if e.Class == prior.ClassNone {
			continue
		}
		if x, ok := catalogue.Get(e.ItemID); ok {
			g.items, g.classes = append(g.items, s.place(e.ItemID, x)), append(g.classes, e.Class)
		}
	}
	return g
}

// imagine draws the window of so many entries of somebody by the law w, into g.
func (s *survey) imagine(rng *rand.Rand, w law, entries int, g *glimpse) {
	g.items, g.classes = g.items[:0], g.classes[:0]
	type taste struct{ centre, size int }
	n, h := len(s.items), w.habits(rng)
	draw := func() taste {
		return taste{rng.IntN(n), min(max(int(w.size.logUniform(rng)*float64(n)+.5), s.least), n)}
	}
	tastes := make([]taste, 1+rng.IntN(w.tastes))
	for i := range tastes {
		tastes[i] = draw()
	}
	for range entries {
		if h.hazard > 0 && rng.Float64() < h.hazard {
			for i := range tastes {
				if !h.partly || rng.IntN(2) == 0 {
					tastes[i] = draw()
				}
			}
		}
		var item int
		inside := rng.Float64() < h.aimed
		if inside {
			t := tastes[rng.IntN(len(tastes))]
			item = int(s.order[t.centre*n+rng.IntN(t.size)])
		} else {
			item = rng.IntN(n)
			for _, t := range tastes {
				inside = inside || int(s.nearer[t.centre*n+item]) < t.size
			}
		}
		g.items, g.classes = append(g.items, int32(item)), append(g.classes, h.answer(rng, inside))
	}
	slices.Reverse(g.items)
	slices.Reverse(g.classes)
}

// What windows look like, in some tens of figures: how often each class is
// given; how near an item is to the nearest other like of its window, by class;
// how near two likes are, by how far apart in time; how people differ.
var (
	nearby = []float64{.004, .01, .025, .06, .15, .4} // shares of the catalogue
	ages   = []int{3, 10, surveyNewest}               // of a pair of likes, up to
)

// sameTaste is the index in nearby by which people are compared.
const sameTaste = 3

var answers = []prior.Class{prior.StrongPositive, prior.WeakPositive, prior.WeakNegative, prior.StrongNegative}

// look adds up what windows look like.
type look struct {
	survey *survey
	bucket []uint8     // by place in an order: the first of nearby that it is within
	given  []float64   // by class
	near   [][]float64 // by class and bucket
	pairs  []float64   // by age
	alike  [][]float64 // by age and bucket
	people float64
	never  float64 // people without a like

	likes, weakly, tasteful, together spreadOf // over people

	at []int32 // scratch: indices of likes
}

// spreadOf is the mean and the variance of what is added.
type spreadOf struct{ n, sum, squares float64 }

func (s *spreadOf) add(part, of float64) {
	if of > 0 {
		x := part / of
		s.n, s.sum, s.squares = s.n+1, s.sum+x, s.squares+x*x
	}
}

func (s *spreadOf) deviation() float64 {
	if s.n < 2 {
		return 0
	}
	m := s.sum / s.n
	return math.Sqrt(max(0, s.squares/s.n-m*m))
}

func newLook(s *survey) *look {
	l := &look{survey: s, given: make([]float64, len(answers)), pairs: make([]float64, len(ages))}
	n := len(s.items)
	l.bucket = make([]uint8, n+1) // the last is nowhere
	for place := range l.bucket {
		for b, share := range nearby {
			if float64(place) >= share*float64(n) {
				l.bucket[place] = uint8(b) + 1
			}
		}
	}
	for range answers {
		l.near = append(l.near, make([]float64, len(nearby)+1))
	}
	for range ages {
		l.alike = append(l.alike, make([]float64, len(nearby)+1))
	}
	return l
}

// add looks at a window.
func (l *look) add(g *glimpse) {
	l.at = l.at[:0]
	for i, c := range g.classes {
		if c == prior.StrongPositive {
			l.at = append(l.at, int32(i))
		}
	}
	given, close := l.items(g)
	alike, pairs := l.couples(g)
	l.people++
	if len(l.at) == 0 {
		l.never++
	}
	entries := float64(len(g.items))
	l.likes.add(given[0], given[0]+given[3])
	l.weakly.add(given[1], entries)
	l.tasteful.add(close, entries)
	l.together.add(alike, pairs)
}

// items counts a window's entries by class and by how near they are to the
// nearest other like; close are the near ones.
func (l *look) items(g *glimpse) (given [4]float64, close float64) {
	n := len(l.survey.items)
	for i, item := range g.items {
		c, nearest := slices.Index(answers, g.classes[i]), uint16(n)
		for _, k := range l.at {
			if int(k) != i {
				nearest = min(nearest, l.survey.nearer[int(g.items[k])*n+int(item)])
			}
		}
		b := l.bucket[nearest]
		given[c]++
		l.given[c]++
		l.near[c][b]++
		if b <= sameTaste {
			close++
		}
	}
	return given, close
}

// couples counts pairs of a window's likes by how far apart they are in time
// and how near to each other; alike are the near ones.
func (l *look) couples(g *glimpse) (alike, pairs float64) {
	n := len(l.survey.items)
	for a, i := range l.at {
		for _, k := range l.at[a+1:] {
			age := 0
			for int(k-i) > ages[age] {
				age++
			}
			b := l.bucket[l.survey.nearer[int(g.items[i])*n+int(g.items[k])]]
			l.pairs[age]++
			l.alike[age][b]++
			pairs++
			if b <= sameTaste {
				alike++
			}
		}
	}
	return alike, pairs
}

// figures are the outcome.
func (l *look) figures() (out []float64) {
	share := func(part, of float64) { out = append(out, logit((part+.5)/(of+1))) }
	within := func(buckets []float64, of float64) {
		part := 0.
		for _, n := range buckets[:len(nearby)] {
			part += n
			share(part, of)
		}
	}
	entries := 0.
	for _, n := range l.given {
		entries += n
	}
	for c, n := range l.given {
		share(n, entries)
		within(l.near[c], n)
	}
	for a, n := range l.pairs {
		within(l.alike[a], n)
	}
	share(l.never, l.people)
	return append(out, l.likes.deviation(), l.weakly.deviation(), l.tasteful.deviation(), l.together.deviation())
}
