package eval

import (
	"bytes"
	"strings"
	"testing"
)

// Rivals take as many examples as they are said to, are asked of everybody, and people whom learned vectors have not met are given the
// population's taste, while a fitted vector knows them.
func TestRivals(t *testing.T) {
	openRuntime(t)
	w := small(t, "demo", nil)
	o := glance()
	o.Controls, o.Rivals = false, true
	recipe := quick(w)
	recipe.Train.BirthSteps, recipe.Train.FirstSteps = 12, 6
	got, _ := play(t, w, recipe, o)
	cost, pseudo := map[string]int64{}, map[string]int64{}
	for _, r := range got.Rivals {
		cost[r.Of], pseudo[r.Of] = r.Examples, r.Pseudo
	}
	events := int64(w.Shape.Events)
	for name, passes := range map[string]int64{"vectors_8": 8, "vectors_13": 13, "vectors_51": 51} {
		// Steps are whole batches of lessons, most of them full.
		if n := cost[name]; n < (passes-1)*events || n > passes*events {
			t.Errorf("%s learned %d examples of %d events", name, n, events)
		}
	}
	if cost["vectors_online"] == 0 || cost["vectors_seconds"] == 0 {
		t.Errorf("somebody learned nothing: %v", cost)
	}
	// Equal examples: of events and of pseudo-users together, up to a batch or a pass.
	for _, name := range []string{"vectors_equal", "window_equal"} {
		if n, all := cost[name], got.Spent.Examples; n < all-events || n > all+events || pseudo[name] != 0 {
			t.Errorf("%s learned %d examples, %d of them of pseudo-users, the service %d", name, n, pseudo[name], all)
		}
	}
	if n := cost["window_offline"] - got.Spent.Examples; n < -events || n > events || pseudo["window_offline"] == 0 {
		t.Errorf("the window prior learned %d examples afterwards, the service %d", cost["window_offline"], got.Spent.Examples)
	}
	if n := cost["window_13"] - cost["window_offline"]; n < 8*events || n > 10*events { // 13 passes in the place of this recipe's 4
		t.Errorf("13 epochs have %d examples more than 4 of %d events", n, events)
	}
	p := func(group, of string) float64 {
		v, ok := got.figure("all", group, column{of: of, measure: "p"})
		if !ok {
			t.Fatalf("%s was not asked for %s", of, group)
		}
		return v
	}
	// Margins are those of direction: chance is the base rate.
	if joint := p("spread", "vectors_51"); joint < 1.5*got.Base {
		t.Errorf("vectors learned for 51 epochs reach %v, chance is %v", joint, got.Base)
	}
	if fit, nobody := p("full", "vectors_fitted"), p("full", "vectors_51"); fit <= nobody {
		t.Errorf("fitted vectors reach %v for people who are new, nobody's %v", fit, nobody)
	}
	var table bytes.Buffer
	got.Seconds = map[string]float64{}
	if err := got.Contest(&table); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"rebeca", "rebeca_noise", "vectors_online", "vectors_fitted", "vectors_equal", "window_offline", "window_equal", "real"} {
		if !strings.Contains(table.String(), "\n"+name+" ") {
			t.Errorf("%s is not in the table:\n%s", name, &table)
		}
	}
}
