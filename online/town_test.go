package online

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"sync"

	"rebeca/prior"
	"rebeca/schemas"
)

// town is a table in memory: users with windows of 28 newest entries and 24
// older likes, a catalogue, and images of their own.
type town struct {
	mu    sync.Mutex
	rows  map[string]*User
	order []string
	own   map[string][]float32 // by user + "/" + item: generated images
	shop  *shop
}

// shop is its catalogue.
type shop struct {
	mu       sync.Mutex
	ids      []string // sorted
	items    map[string][]float32
	revision uint64
}

func newTown() *town {
	return &town{rows: map[string]*User{}, own: map[string][]float32{}, shop: &shop{items: map[string][]float32{}}}
}

func (s *shop) add(id string, e []float32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.items[id]; !ok {
		s.ids = append(s.ids, id)
		sort.Strings(s.ids)
	}
	s.items[id] = e
	s.revision++
}

func (s *shop) Get(id string) ([]float32, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.items[id]
	return e, ok
}

func (s *shop) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.ids)
}

func (s *shop) Revision() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.revision
}

func (s *shop) Each(fn func(id string, e []float32) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range s.ids {
		if !fn(id, s.items[id]) {
			return
		}
	}
}

const (
	townNewest = 28
	townLiked  = 24
)

// fold makes e the newest entry of its user.
func (w *town) fold(examples ...Example) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range examples {
		r, ok := w.rows[e.UserID]
		if !ok {
			r = &User{}
			w.rows[e.UserID] = r
			w.order = append(w.order, e.UserID)
		}
		r.Events++
		if e.Class == prior.ClassNone {
			continue
		}
		i := slices.IndexFunc(r.Window, func(o Entry) bool { return o.Older })
		if i < 0 {
			i = len(r.Window)
		}
		newest := append([]Entry{{
			ItemID: e.ItemID, Class: e.Class, Offset: e.Offset, EventHash: e.EventHash,
		}}, r.Window[:i]...)
		older := slices.Clone(r.Window[i:])
		if len(newest) > townNewest {
			last := newest[townNewest]
			newest = newest[:townNewest]
			if last.Class == prior.StrongPositive {
				last.Older = true
				older = append([]Entry{last}, older...)
				if len(older) > townLiked { // the largest hash leaves
					out := 0
					for j := range older {
						if older[j].EventHash > older[out].EventHash {
							out = j
						}
					}
					older = slices.Delete(older, out, out+1)
				}
			}
		}
		r.Window = append(newest, older...)
	}
}

func (w *town) forget(user string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.rows, user)
}

func (w *town) User(user string) (User, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r, ok := w.rows[user]
	if !ok {
		return User{}, false, nil
	}
	out := *r
	out.Window = slices.Clone(r.Window)
	return out, true, nil
}

func (w *town) UserCount() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.order)
}

func (w *town) UserAt(i int) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.order[i]
}

func (w *town) Resolve(user, item string) ([]float32, bool) {
	if e, ok := w.shop.Get(item); ok {
		return e, true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	e, ok := w.own[user+"/"+item]
	return e, ok
}

// clusters is a toy world: items in clusters around far centres, every user
// likes the items of one cluster and dislikes the others.
type clusters struct {
	*town
	rng     *rand.Rand
	centres [][]float32
	byTaste [][]string // item ids
	offsets [2]int64   // next offset by partition

	hazard float64     // chance per event that its user changes to the next taste
	turned map[int]int // changes by user
}

const clusterDim = 4

func newClusters(seed uint64, tastes, items int) *clusters {
	w := &clusters{town: newTown(), rng: rand.New(rand.NewPCG(seed, 1)), turned: map[int]int{}, byTaste: make([][]string, tastes)}
	for range tastes {
		c := make([]float32, clusterDim)
		for d := range c {
			c[d] = float32(4 * w.rng.NormFloat64())
		}
		w.centres = append(w.centres, c)
	}
	for i := range items {
		w.addItem(i)
	}
	return w
}

func (w *clusters) addItem(i int) {
	taste := i % len(w.centres)
	e := slices.Clone(w.centres[taste])
	for d := range e {
		e[d] += float32(.4 * w.rng.NormFloat64())
	}
	id := fmt.Sprintf("item-%05d", i)
	w.shop.add(id, e)
	w.byTaste[taste] = append(w.byTaste[taste], id)
}

// events makes and folds n events of users.
func (w *clusters) events(n, users int) []Example {
	out := make([]Example, n)
	for i := range out {
		u := w.rng.IntN(users)
		if w.hazard > 0 && w.rng.Float64() < w.hazard {
			w.turned[u]++
		}
		taste, class := (u+w.turned[u])%len(w.centres), prior.StrongPositive
		if w.rng.Float64() < .3 {
			if other := w.rng.IntN(len(w.centres)); other != taste {
				taste, class = other, prior.StrongNegative
			}
		}
		p := int32(u % len(w.offsets))
		ids := w.byTaste[taste]
		out[i] = Example{
			Partition: p, Offset: w.offsets[p], UserID: userID(u), ItemID: ids[w.rng.IntN(len(ids))],
			Class: class, EventHash: schemas.EventHash(fmt.Sprintf("event-%d-%d", p, w.offsets[p])),
		}
		w.offsets[p]++
	}
	w.fold(out...)
	return out
}

func userID(u int) string { return fmt.Sprintf("user-%03d", u) }
