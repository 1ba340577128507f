package table

import (
	"slices"
	"testing"
	"time"

	"rebeca/schemas"
)

// TestGiven: the newest first, bounded in number and by the time of the cause, without what the cause itself made; gone with the user.
func TestGiven(t *testing.T) {
	table := open(t, options(t.TempDir()))
	fold(t, table, event(0, "a", "x", "like"))
	in := append(intents(t, table), accept(t, table, 0, ask(0, "a", "r", 3))...)
	memory := func(in Intent, id string, value float32, at time.Time) Memory {
		return Memory{ID: id, Embedding: []float32{value, 0, 0, 0}, Source: in.Source, CausedAt: at}
	}
	complete(t, table, Completion{Seq: in[0].Seq, UserID: "a", Memories: []Memory{memory(in[0], "m1", 1, timeAt(10))}})
	complete(t, table, Completion{Seq: in[1].Seq, UserID: "a", Memories: []Memory{
		memory(in[1], "m2", 2, timeAt(20)), memory(in[1], "m3", 3, time.Time{}), memory(in[1], "m4", 4, timeAt(30)),
	}})
	for name, c := range map[string]struct {
		user   string
		since  time.Time
		limit  int
		except schemas.Source
		want   []float32
	}{
		"all":                          {"a", timeAt(0), 10, schemas.Source{}, []float32{4, 3, 2, 1}},
		"the newest":                   {"a", timeAt(0), 2, schemas.Source{}, []float32{4, 3}},
		"lately, or nobody knows when": {"a", timeAt(20), 10, schemas.Source{}, []float32{4, 3, 2}},
		"later":                        {"a", timeAt(31), 10, schemas.Source{}, []float32{3}},
		"not one's own":                {"a", timeAt(0), 10, in[1].Source, []float32{1}},
		"not one's own, of few":        {"a", timeAt(0), 1, in[1].Source, []float32{1}},
		"somebody else's":              {"b", timeAt(0), 10, schemas.Source{}, nil},
		"none":                         {"a", timeAt(0), 0, schemas.Source{}, nil},
	} {
		given, err := table.Given(c.user, c.since, c.limit, c.except)
		var got []float32
		for _, e := range given {
			got = append(got, e[0])
		}
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v; %v", name, got, c.want, err)
		}
	}
	if g, err := table.GeneratedOf("a", 1); err != nil || !g[0].CausedAt.Equal(timeAt(30)) {
		t.Errorf("%+v, %v", g, err)
	}
	fold(t, table, forget(1, "a"))
	if given, err := table.Given("a", timeAt(0), 10, schemas.Source{}); err != nil || len(given) != 0 {
		t.Errorf("of somebody who was forgotten: %v, %v", given, err)
	}
}
