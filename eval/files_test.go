package eval

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rebeca/schemas"
)

// recorded writes a world's catalogue and stream as files.
func recorded(t *testing.T, w *World) Reading {
	t.Helper()
	dir := t.TempDir()
	r := Reading{Items: filepath.Join(dir, "items.jsonl"), Events: filepath.Join(dir, "events.csv"), Seed: 1}
	var items, events bytes.Buffer
	for i, e := range w.Items {
		line, err := schemas.Item{ItemID: fmt.Sprint("i", i), Embedding: e}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		items.Write(append(line, '\n'))
	}
	events.WriteString("event_id,user_id,item_id,kind,occurred_at\n")
	s := w.Stream()
	for n := 0; ; n++ {
		e, ok := s.Next()
		if !ok {
			break
		}
		fmt.Fprintf(&events, "e%d,u%d,i%d,%s,2026-01-01T00:00:00Z\n", n, e.Person, e.Item, e.Kind)
	}
	put(t, r.Items, items.String())
	put(t, r.Events, events.String())
	return r
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, r Reading) *Recording {
	t.Helper()
	rec, err := r.Read()
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

func measure(t *testing.T, rows []FileRow, of, name string) float64 {
	t.Helper()
	for _, r := range rows {
		if r.Of == of {
			if v, ok := r.Measures[name]; ok {
				return v
			}
			t.Fatalf("%s has no %s: %+v", of, name, r)
		}
	}
	t.Fatalf("no row of %s", of)
	return 0
}

// A world that is told as files: what is learned beats what is not, by every measure that needs no truth.
func TestFilesDirection(t *testing.T) {
	openRuntime(t)
	w := small(t, "demo", func(s *Shape) { s.People, s.Events, s.Arrival = 20, 1280, 0 })
	rec := read(t, recorded(t, w))
	r := quick(w)
	r.Train.BirthSteps, r.Train.Steps = 150, 4
	o := DefaultFileOptions()
	o.Asked = 150
	got, err := RunFiles(context.Background(), rec, r, o)
	if err != nil {
		t.Fatal(err)
	}
	// 35 further events were of items that are held out.
	if got.HeldOut != 200 || got.Events != 1280-200-35 || got.People != 20 {
		t.Errorf("%d held out, %d events, %d people", got.HeldOut, got.Events, got.People)
	}
	if own, random := measure(t, got.Next, "rebeca", "rank"), measure(t, got.Next, "random", "rank"); own > random-.05 || random < .35 || random > .65 {
		t.Errorf("the next like has rank %.3f, by random items %.3f", own, random)
	}
	if own, base := measure(t, got.HeldLikes, "rebeca", "p_1"), measure(t, got.HeldLikes, "rebeca", "base"); own < base+.05 {
		t.Errorf("P at 1 is %.3f, of all held-out answers %.3f are likes", own, base)
	}
	if len(got.Prequential) == 0 {
		t.Error("nothing was predicted")
	}
	var table bytes.Buffer
	if err := got.Table(&table); err != nil || strings.Contains(table.String(), "NaN") {
		t.Errorf("%v\n%s", err, table.String())
	}
}

// However poor a recording is, there is a report, its empty rows marked.
func TestPoorFiles(t *testing.T) {
	openRuntime(t)
	w := small(t, "demo", nil)
	full := recorded(t, w)
	for name, c := range map[string]struct{ items, events string }{
		"nothing happens":   {"", ""},
		"one event":         {"", "e,u,i1,like,2026-01-01T00:00:00Z\n"},
		"one user":          {"", strings.Repeat("e,u,i1,like,2026-01-01T00:00:00Z\n", 3) + "f,u,i2,like,2026-01-01T00:00:00Z\ng,u,i3,skip,2026-01-01T00:00:00Z\n"},
		"all dislikes":      {"", many(60, "dislike")},
		"all likes":         {"", many(60, "like")},
		"views that say no": {"", many(60, "view")},
		"one item":          {`{"item_id":"i1","embedding":[1,2]}`, many(300, "like")},
	} {
		t.Run(name, func(t *testing.T) {
			r := full
			dir := t.TempDir()
			r.Events = filepath.Join(dir, "events.csv")
			put(t, r.Events, "event_id,user_id,item_id,kind,occurred_at\n"+c.events)
			if c.items != "" {
				r.Items = filepath.Join(dir, "items.jsonl")
				put(t, r.Items, c.items)
			}
			rec := read(t, r)
			recipe := quick(rec.world)
			recipe.Train.BirthSteps, recipe.Train.FirstSteps = 20, 10
			got, err := RunFiles(context.Background(), rec, recipe, DefaultFileOptions())
			if err != nil {
				t.Fatal(err)
			}
			line, err := json.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range append(got.Next, got.HeldLikes...) {
				if (row.Note == "") != (len(row.Measures) > 0) {
					t.Errorf("%+v in %s", row, line)
				}
			}
		})
	}
}

// many is n events of four users about one item.
func many(n int, kind string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "e%d,u%d,i1,%s,2026-01-01T00:00:00Z\n", i, i%4, kind)
	}
	return b.String()
}

func TestReadingFiles(t *testing.T) {
	dir := t.TempDir()
	r := Reading{Items: filepath.Join(dir, "i.csv"), Events: filepath.Join(dir, "e.jsonl")}
	event := func(id, item string) string {
		return fmt.Sprintf(`{"event_id":%q,"user_id":"u","item_id":%q,"kind":"like","occurred_at":"2026-01-01T00:00:00Z"}`+"\n", id, item)
	}
	put(t, r.Items, "item_id,embedding\na,\"[1,2]\"\nb,\"[3]\"\na,\"[5,6]\"\n")
	put(t, r.Events, event("1", "a")+event("2", "b")+event("1", "a")+"{\n"+event("3", "a"))
	if _, err := r.Read(); err == nil || !strings.HasPrefix(err.Error(), r.Items+": line 3: ") {
		t.Errorf("error %v", err)
	}
	var said []string
	r.Skip, r.OnBad = true, func(err error) { said = append(said, err.Error()) }
	rec, err := r.Read()
	if err != nil {
		t.Fatal(err)
	}
	if rec.Bad != 2 || rec.Unknown != 1 || rec.Resent != 1 || len(rec.acts) != 2 || len(rec.world.Items) != 1 || rec.world.Items[0][0] != 5 {
		t.Errorf("read %+v, said %q", rec, said)
	}
	if len(said) != 2 || !strings.HasPrefix(said[1], r.Events+": line 4: ") {
		t.Errorf("said %q", said)
	}
	put(t, r.Items, "item_id,embedding\n")
	if _, err := r.Read(); err == nil || !strings.Contains(err.Error(), "holds no item") {
		t.Errorf("error %v", err)
	}
}

func TestPlace(t *testing.T) {
	costs := []float64{3, 1, 2, 3, 9}
	if got := place(0, []int{1, 2, 3, 4}, func(k int) float64 { return costs[k] }); got != 3.5 {
		t.Errorf("rank %v, want 3.5: two are nearer, one is as near", got)
	}
}

// Nothing that somebody did with a held-out item is left in the stream, and each such item is asked once, by the last answer.
func TestHeldOutItemsLeaveTheStream(t *testing.T) {
	var acts []act
	for i := range 60 {
		for _, kind := range []schemas.Kind{schemas.KindView, schemas.KindDislike, schemas.KindLike} {
			acts = append(acts, act{fmt.Sprint("u", i%4), Event{Item: i / 4, Kind: kind}})
		}
	}
	p := &playback{run: run{recipe: DefaultRecipe(16)}, o: FileOptions{HeldOut: 3, Asked: 10}, rng: random(1, useSplit, 0)}
	rest := p.holdOut(acts)
	held := 0
	for user, of := range p.held {
		held += len(of)
		for i, a := range of {
			if a.event.Kind != schemas.KindLike {
				t.Errorf("%s is asked for a %s, the last answer was a like", user, a.event.Kind)
			}
			if slices.ContainsFunc(of[:i], func(b act) bool { return b.event.Item == a.event.Item }) {
				t.Errorf("%s is asked twice for item %d", user, a.event.Item)
			}
			if slices.ContainsFunc(rest, func(b act) bool { return b.user == user && b.event.Item == a.event.Item }) {
				t.Errorf("%s has item %d in the stream, and is asked for it", user, a.event.Item)
			}
		}
	}
	if held != 4*3 || len(rest) != len(acts)-3*held {
		t.Errorf("%d answers are held out of %d acts, %d are left", held, len(acts), len(rest))
	}
}
