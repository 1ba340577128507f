package rebeca

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"rebeca/internal/ort"
	"rebeca/prior"
	"rebeca/schemas"
	"rebeca/table"
)

// stocked is a generator with a prior of random weights, a catalogue of 60
// items, i-0, i-1, …, and one user, ada, who judged the first 20: likes and
// dislikes by turns.
func stocked(t *testing.T, c Config) *generator {
	t.Helper()
	runtime := testRuntime(t)
	c.Generate.Count = 1
	g := testGenerator(t, c)
	rng := rand.New(rand.NewPCG(1, 1))
	var items []table.Listed
	for i := range 60 {
		e := make([]float32, 4)
		for d := range e {
			e[d] = float32(rng.NormFloat64())
		}
		items = append(items, table.Listed{Offset: int64(i), Item: &schemas.Item{ItemID: fmt.Sprintf("i-%d", i), Embedding: e}})
	}
	if err := g.table.List("items", 0, items, 60); err != nil {
		t.Fatal(err)
	}
	user := "ada"
	partition := schemas.Partition([]byte(user), int(g.table.Partitions()))
	at := time.Now().UTC().Truncate(time.Second)
	var records []table.Record
	for i := range 20 {
		kind := []schemas.Kind{schemas.KindLike, schemas.KindDislike}[i%2]
		f := schemas.Feedback{EventID: fmt.Sprint("e-", i), UserID: user, ItemID: fmt.Sprint("i-", i), Kind: kind, OccurredAt: at}
		records = append(records, table.Record{Offset: int64(i), Time: at, Key: []byte(user), Feedback: &f})
	}
	if _, err := g.table.Fold(table.Batch{Topic: "feedback", Partition: partition, Records: records, Next: 20}); err != nil {
		t.Fatal(err)
	}
	cfg := prior.DefaultConfig(4)
	cfg.Hidden, cfg.Blocks, cfg.Heads, cfg.MaxTokens = 16, 2, 2, 52
	state, err := prior.NewState(cfg, prior.Stats{Mean: make([]float32, 4), Scale: []float32{1, 1, 1, 1}}, 1)
	if err != nil {
		t.Fatal(err)
	}
	for i := range state.EMA {
		state.EMA[i] += float32(.1 * rng.NormFloat64())
	}
	model, err := prior.NewModel(state, ort.Options{Threads: runtime.Threads})
	if err != nil {
		t.Fatal(err)
	}
	g.current = &loadedPrior{model: model, version: schemas.PriorVersion{Version: "1-test"}}
	t.Cleanup(g.close)
	return g
}

// ask answers a request of ada's and returns the records.
func (g *generator) ask(t *testing.T, r schemas.Request) []schemas.Generated {
	t.Helper()
	r.UserID = "ada"
	partition := schemas.Partition([]byte(r.UserID), int(g.table.Partitions()))
	offset, _, _, err := g.table.Offset("requests", partition)
	if err != nil {
		t.Fatal(err)
	}
	intents, err := g.table.Accept("requests", partition, []table.Asked{{
		Offset: offset, Time: time.Now(), Key: []byte(r.UserID), Request: &r,
	}}, offset+1)
	if err != nil || len(intents) != 1 {
		t.Fatal(intents, err)
	}
	g.offer(partition, intents, nil)
	for range 100 {
		batch, _ := g.take(time.Now().Add(time.Minute))
		if len(batch) == 0 {
			break
		}
		if err := g.generate(batch); err != nil {
			t.Fatal(err)
		}
	}
	memories, err := g.table.GeneratedOf(r.UserID, r.Count)
	if err != nil {
		t.Fatal(err)
	}
	var out []schemas.Generated
	for _, m := range slices.Backward(memories) {
		one, err := schemas.DecodeGenerated(m.Record)
		if err != nil {
			t.Fatal(err)
		}
		if one.RequestID != r.RequestID {
			t.Fatalf("an image of request %q in place of %q", one.RequestID, r.RequestID)
		}
		out = append(out, one)
	}
	return out
}

// TestRecordsSayWhatTheyAreOwedTo: on request, by configuration, and not
// otherwise; likes for likes, the greatest share first.
func TestRecordsSayWhatTheyAreOwedTo(t *testing.T) {
	yes, no := true, false
	for name, c := range map[string]struct {
		configured int
		explain    *bool
		rating     string
		want       int
	}{
		"nobody asks":   {},
		"asked":         {explain: &yes, want: 3},
		"configured":    {configured: 5, want: 5},
		"both":          {configured: 5, explain: &yes, want: 5},
		"declined":      {configured: 5, explain: &no},
		"of a dislike":  {explain: &yes, rating: schemas.RatingDislike, want: 3},
		"more than are": {configured: 8, want: 8},
	} {
		t.Run(name, func(t *testing.T) {
			config := DefaultConfig()
			config.Generate.Explain = c.configured
			g := stocked(t, config)
			for _, r := range g.ask(t, schemas.Request{RequestID: "r", Count: 3, Explain: c.explain, Rating: c.rating}) {
				if len(r.Because) != c.want {
					t.Fatalf("%d events are named, want %d: %v", len(r.Because), c.want, r.Because)
				}
				sum, last := 0., 1.
				for _, e := range r.Because {
					if liked := e.Offset%2 == 0; liked != (c.rating != schemas.RatingDislike) || e.ItemID != fmt.Sprint("i-", e.Offset) {
						t.Errorf("it is owed to %s at %d", e.ItemID, e.Offset)
					}
					if e.Share <= 0 || e.Share > last {
						t.Errorf("a share of %v behind %v", e.Share, last)
					}
					sum, last = sum+e.Share, e.Share
				}
				if sum > 1 {
					t.Errorf("shares add up to %v", sum)
				}
			}
		})
	}
}
