package table

import (
	"testing"
	"time"
)

// A log that is made anew begins below the forget marks. Who comes back in it is a new life, also behind the old null's offset: their vector
// is stored, now and after a restart, and what happened before the forget stays forgotten.
func TestMarksOfALogMadeAnew(t *testing.T) {
	table := open(t, options(t.TempDir()))
	fold(t, table, event(99, "a", "x", "like"), forget(100, "a"))
	if err := table.LowerMarks(0, 3); err != nil {
		t.Fatal(err)
	}
	if err := table.Skip(topic, 0, Gap{Kind: "recreated", From: 101, To: 3, At: timeAt(101)}); err != nil {
		t.Fatal(err)
	}
	late, again := event(3, "a", "x", "like"), event(5, "a", "y", "like")
	late.Feedback.OccurredAt = timeAt(99)
	again.Feedback.OccurredAt = timeAt(100).Add(time.Hour)
	if f := fold(t, table, late, again); f.Forgotten != 1 || f.Events != 1 {
		t.Errorf("folded %+v", f)
	}
	for range 2 {
		table = reopen(t, table)
		row := row1(t, table, "a")
		v := Vector{Values: make([]float32, dim), PriorVersion: "1-x", Events: row.Events, AsOf: row.LastOffset}
		if err := table.Complete(0, []Completion{{UserID: "a", Vector: &v}}); err != nil {
			t.Fatal(err)
		}
		if stale, err := table.Stale(0, 10); err != nil || len(stale) > 0 {
			t.Errorf("stale after being brought up to date: %v, error %v", stale, err)
		}
	}
}
