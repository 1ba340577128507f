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
	got, _ := play(t, w, quick(w), o)
	cost := map[string]int64{}
	for _, r := range got.Rivals {
		cost[r.Of] = r.Examples
	}
	events := int64(w.Shape.Events)
	for name, passes := range map[string]int64{"vectors_8": 8, "vectors_13": 13, "vectors_51": 51} {
		// Steps are whole batches of lessons, most of them full.
		if n := cost[name]; n < (passes-1)*events || n > passes*events {
			t.Errorf("%s learned %d examples of %d events", name, n, events)
		}
	}
	if cost["vectors_online"] == 0 || cost["vectors_seconds"] == 0 || cost["window_offline"] == 0 {
		t.Errorf("somebody learned nothing: %v", cost)
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
	for _, name := range []string{"rebeca", "vectors_online", "vectors_fitted", "window_offline", "real"} {
		if !strings.Contains(table.String(), "\n"+name+" ") {
			t.Errorf("%s is not in the table:\n%s", name, &table)
		}
	}
}
