package eval

import (
	"context"
	"encoding/json"
	"testing"
)

// report runs a world and returns the report without its seconds.
func play(t *testing.T, w *World, r Recipe, o Options) (*Report, string) {
	t.Helper()
	openRuntime(t)
	got, err := Run(context.Background(), w, r, o)
	if err != nil {
		t.Fatal(err)
	}
	got.Seconds = nil
	b, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	return got, string(b)
}

func TestSameSeedSameReport(t *testing.T) {
	openRuntime(t)
	w := small(t, "demo", nil)
	o := glance()
	o.Controls = false
	_, one := play(t, w, quick(w), o)
	_, two := play(t, small(t, "demo", nil), quick(w), o)
	if one != two {
		t.Errorf("two runs differ:\n%s\n%s", one, two)
	}
}
