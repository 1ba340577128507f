package eval

import (
	"context"
	"reflect"
	"testing"
)

// TestStreamsFollowTheirWorld holds what people do against what the world says of them.
func TestStreamsFollowTheirWorld(t *testing.T) {
	openRuntime(t)
	for _, name := range Names() {
		w := small(t, name, func(s *Shape) { s.Events = 8000 })
		stream, again := w.Stream(), small(t, name, func(s *Shape) { s.Events = 8000 }).Stream()
		inside, changed, settled := 0., 0, 0
		for i := 0; ; i++ {
			e, ok := stream.Next()
			if !ok {
				if i != 8000 {
					t.Errorf("%s: %d events", name, i)
				}
				break
			}
			if other, _ := again.Next(); !reflect.DeepEqual(e, other) {
				t.Fatalf("%s: event %d differs between two streams of one seed", name, i)
			}
			p := &stream.People[e.Person]
			if w.People[e.Person].Arrival > i {
				t.Fatalf("%s: person %d acts at %d, before their arrival", name, e.Person, i)
			}
			if p.Likes(w.Cells[e.Item]) {
				inside++
			}
		}
		want := 0.
		for i := range w.People {
			p := &w.People[i]
			for _, k := range p.Liked {
				want += w.shown(p, k) / float64(len(w.People))
			}
			if !reflect.DeepEqual(p.Liked, stream.People[i].Liked) {
				changed++
			}
			if p.Hazard == 0 {
				settled++
			}
		}
		if got := inside / 8000; got < want-.06 || got > want+.06 {
			t.Errorf("%s: %v of the impressions are of liked tastes, expected %v", name, got, want)
		}
		if restless := len(w.People) - settled; w.Shape.Hazard == 0 && changed > 0 || w.Shape.Hazard > 0 && (changed < restless/2 || changed > restless) {
			t.Errorf("%s: %d of %d people changed, %d never do", name, changed, len(w.People), settled)
		}
	}
}

// TestFreshItemsAreNew: nothing that is fresh is in the catalogue, and each taste has items.
func TestFreshItemsAreNew(t *testing.T) {
	openRuntime(t)
	for _, name := range Names() {
		w := small(t, name, nil)
		if len(w.Fresh) != 200 || len(w.Items) != 600 {
			t.Errorf("%s: %d items, %d fresh", name, len(w.Items), len(w.Fresh))
		}
		in := map[*float32]bool{}
		for _, e := range w.Items {
			in[&e[0]] = true
		}
		for _, e := range w.Fresh {
			if in[&e[0]] {
				t.Fatalf("%s: a fresh item is in the catalogue", name)
			}
		}
		sum := 0.
		for _, q := range w.Mixture(&w.People[0]) {
			sum += q
		}
		if sum < .999 || sum > 1.001 {
			t.Errorf("%s: a mixture adds up to %v", name, sum)
		}
	}
}

func TestShapesThatNoWorldIsMadeOf(t *testing.T) {
	for what, change := range map[string]func(*Shape){
		"no such name": func(s *Shape) { s.Name = "moon" },
		"items":        func(s *Shape) { s.Items = 0 },
		"people":       func(s *Shape) { s.People = 0 },
		"liked":        func(s *Shape) { s.MaxLiked = 99 },
		"a share":      func(s *Shape) { s.Aimed = 2 },
		"cells":        func(s *Shape) { s.Items, s.Fresh = 5, 5 },
		"tastes":       func(s *Shape) { s.Name, s.Tastes = "demo", 30 },
	} {
		s, _ := Named("hard")
		s.Items, s.Fresh = 600, 100
		change(&s)
		if _, err := new(Worlds).New(context.Background(), s, 1); err == nil {
			t.Errorf("%s: a world was made of %+v", what, s)
		}
	}
}
