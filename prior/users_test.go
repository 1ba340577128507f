package prior

import (
	"slices"
	"testing"
)

// A fitted row lowers the loss of its user's examples; nothing but the table changes, and people who are not in the batch keep their rows
// in effect. A prior without a table refuses.
func TestStepUsersFitsRowsAlone(t *testing.T) {
	cfg := tinyKinds()["reference"]
	known := noisyState(t, cfg, 3)
	s, err := known.WithUsers(6, 9)
	if err != nil {
		t.Fatal(err)
	}
	l := learnerOf(t, s)
	from, to := l.net.layout().span(userTable)
	width := (to - from) / 7
	if !slices.Equal(s.Params[from:to][6*width:], known.Params[from:][4*width:5*width]) {
		t.Error("nobody's row is not that of the network")
	}
	b := kindBatch(newRand(1), s.Config, 2, 0, 2)
	b.Users = []int{1, 4}
	before, err := l.Loss(b, newRand(2), true)
	if err != nil {
		t.Fatal(err)
	}
	rng := newRand(3)
	for range 60 {
		if _, err := l.StepUsers(b, .05, rng); err != nil {
			t.Fatal(err)
		}
	}
	after, err := l.Loss(b, newRand(2), true)
	if err != nil {
		t.Fatal(err)
	}
	if after > .98*before {
		t.Errorf("the loss is %v, was %v", after, before)
	}
	got := l.State()
	for _, v := range []struct {
		name      string
		got, want []float32
	}{{"weights", got.Params, s.Params}, {"averages", got.EMA, s.EMA}} {
		if !slices.Equal(v.got[:from], v.want[:from]) || !slices.Equal(v.got[to:], v.want[to:]) {
			t.Errorf("%s outside the table have changed", v.name)
		}
		if row := v.got[from:to][width : 2*width]; slices.Equal(row, v.want[from:to][width:2*width]) {
			t.Errorf("%s: the row of a user of the batch is as it was", v.name)
		}
	}
	if _, err := noisyState(t, tinyKinds()["mlp"], 1).WithUsers(3, 1); err == nil {
		t.Error("a prior of windows has got a table of users")
	}
}
