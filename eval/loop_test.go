package eval

import (
	"context"
	"encoding/json"
	"testing"
)

// closed plays a short loop.
func closed(t *testing.T, catalogue float64, everything bool) *LoopReport {
	t.Helper()
	openRuntime(t)
	w := small(t, "demo", nil)
	o := DefaultLoopOptions()
	o.Start, o.Rounds, o.Each, o.Asked, o.Samples, o.Catalogue, o.Everything = 320, 2, 4, 8, 8, catalogue, everything
	before := w.Shape
	before.Events = 100 // fewer than the start
	w.Shape = before
	got, err := Loop(context.Background(), w, quick(w), o)
	if err != nil {
		t.Fatal(err)
	}
	if w.Shape != before || got.World.Events != o.Start {
		t.Errorf("the caller's world has become %+v, the loop played %+v", w.Shape, got.World)
	}
	return got
}

// TestLoop closes the loop: what people were given is no target unless it is passed off as one, and the same seed gives the same report.
func TestLoop(t *testing.T) {
	one, two := closed(t, 0, false), closed(t, 0, false)
	a, _ := json.Marshal(one)
	if b, _ := json.Marshal(two); string(a) != string(b) {
		t.Errorf("two loops differ:\n%s\n%s", a, b)
	}
	first, last := one.Rounds[0], one.Rounds[len(one.Rounds)-1]
	if len(one.Rounds) != 3 || first.Usable != 1 || last.Usable > .8 {
		t.Errorf("usable %v before the loop and %v after 320 of 640 events are of generated items", first.Usable, last.Usable)
	}
	for _, r := range one.Rounds {
		if r.Measures["p"] <= one.World.base() || r.Round > 0 && r.Liked <= one.World.base() {
			t.Errorf("round %d: %+v", r.Round, r)
		}
	}
	every := closed(t, 0, true)
	if u := every.Rounds[2].Usable; u != 1 {
		t.Errorf("usable %v where everything is a target", u)
	}
	if mixed := closed(t, .5, false); mixed.Rounds[2].Usable <= last.Usable || mixed.Rounds[2].Usable == 1 {
		t.Errorf("usable %v where half is of the catalogue, %v where nothing is", mixed.Rounds[2].Usable, last.Usable)
	}
}

// base is about what a random image scores.
func (s Shape) base() float64 { return float64(s.MinLiked+s.MaxLiked) / 2 / float64(s.Tastes) }

func TestLoopOptions(t *testing.T) {
	for name, change := range map[string]func(*LoopOptions){
		"start": func(o *LoopOptions) { o.Start = 0 }, "rounds": func(o *LoopOptions) { o.Rounds = 0 },
		"catalogue": func(o *LoopOptions) { o.Catalogue = 1.1 },
	} {
		o := DefaultLoopOptions()
		change(&o)
		if o.Validate() == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
