package rebeca

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"rebeca/internal/nearest"
	"rebeca/schemas"
	"rebeca/table"
)

// chunkOf is a chunk of a request of ada's.
func (g *generator) chunkOf(r schemas.Request, from, n int) chunk {
	asked := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	partition := schemas.Partition([]byte("ada"), int(g.table.Partitions()))
	return chunk{&queued{Intent: table.Intent{
		Partition: partition, UserID: "ada", Trigger: schemas.TriggerRequest, RequestID: r.RequestID, Count: r.Count, Seed: r.Seed,
		Guidance: r.Guidance, Candidates: r.Candidates, Source: schemas.Source{Topic: "requests", Partition: partition, Offset: 1 << 40}, At: asked,
	}}, from, n}
}

// make makes the images of chunks of one request, one chunk a batch, beside another's.
func (g *generator) make(t *testing.T, r schemas.Request, sizes ...int) []schemas.Generated {
	t.Helper()
	c := g.chunkOf(r, 0, 0)
	for _, n := range sizes {
		c.from, c.n = len(c.made), n
		other := g.chunkOf(schemas.Request{RequestID: "other", Count: 2}, 0, 2)
		other.Source.Offset--
		all, err := g.sample([]chunk{other, c})
		if err != nil {
			t.Fatal(err)
		}
		c.made = append(c.made, all[1].records...)
	}
	for i := range c.made {
		c.made[i].CreatedAt = time.Time{}
	}
	return c.made
}

// TestChoiceIsAFunctionOfItsInputs: in one chunk or many, again after a crash that lost or kept part of the results, the images of a request
// are the same; the first candidate is what would be made without a choice, and each can be made again by its seed.
func TestChoiceIsAFunctionOfItsInputs(t *testing.T) {
	g := stocked(t, DefaultConfig())
	r := schemas.Request{RequestID: "r", Count: 6, Candidates: new(4)}
	whole := g.make(t, r, 6)
	if parts := g.make(t, r, 1, 3, 2); !reflect.DeepEqual(parts, whole) {
		t.Errorf("in chunks:\n%+v\nat once:\n%+v", parts, whole)
	}
	alone, chosen := g.make(t, schemas.Request{RequestID: "r", Count: 6, Candidates: new(1)}, 6), 0
	for i, one := range whole {
		if one.Candidates != 4 || one.Score == nil || one.ID != alone[i].ID || one.Seed != alone[i].Seed || alone[i].Candidates != 0 || alone[i].Score != nil {
			t.Errorf("image %d: %+v, alone %+v", i, one, alone[i])
		}
		if one.Candidate != 0 {
			chosen++
		}
		seed := schemas.CandidateSeed(one.Seed, one.Candidate)
		again := g.make(t, schemas.Request{RequestID: "s", Count: 1, Seed: &seed}, 1)[0]
		if !slices.Equal(again.Embedding, one.Embedding) || again.Candidates != 0 {
			t.Errorf("image %d is not made again by its seed", i)
		}
	}
	if chosen == 0 {
		t.Error("the first candidate is always taken")
	}
	plain := 1.
	if one := g.make(t, schemas.Request{RequestID: "r", Count: 1, Guidance: &plain}, 1)[0]; one.Candidates != 0 {
		t.Errorf("guidance 1 is sharpened by a choice among %d", one.Candidates)
	}
}

// TestChoiceAfterACrash: what an intent has put into the state before a crash does not change what it makes after it; what others have does.
func TestChoiceAfterACrash(t *testing.T) {
	config := DefaultConfig()
	config.Sampler.Choice.Given, config.Sampler.Choice.Spread = 10, 1
	g := stocked(t, config)
	first := g.ask(t, schemas.Request{RequestID: "r", Count: 5})
	c := g.chunkOf(schemas.Request{RequestID: "r", Count: 5}, 0, 5)
	c.Source, c.At = first[0].Source, first[0].CausedAt
	all, err := g.sample([]chunk{c})
	if err != nil {
		t.Fatal(err)
	}
	c.made = all[0].records
	for i := range first {
		if c.made[i].ID != first[i].ID || !slices.Equal(c.made[i].Embedding, first[i].Embedding) {
			t.Errorf("image %d is another after a crash", i)
		}
	}
	given, err := g.chooser.given(g.chunkOf(schemas.Request{}, 0, 1).queued)
	if err != nil || len(given) != 5 || !slices.Equal(given[0], first[4].Embedding) {
		t.Errorf("another cause finds %d images, the newest %v; %v", len(given), given, err)
	}
	late := g.chunkOf(schemas.Request{}, 0, 1)
	late.At = time.Now().Add(config.Sampler.Choice.GivenFor + time.Hour)
	if given, err := g.chooser.given(late.queued); err != nil || len(given) != 0 {
		t.Errorf("after the window of time %d images are remembered; %v", len(given), err)
	}
}

// TestImagesAreNovel: with a wide notion of a copy, what is chosen is farther from the catalogue and from what was given than what is not.
func TestImagesAreNovel(t *testing.T) {
	near := func(t *testing.T, set func(*ChoiceConfig)) (item, given float64) {
		config := DefaultConfig()
		config.Sampler.Candidates, config.Sampler.Choice = 8, ChoiceConfig{Ranker: rankNone, GivenFor: time.Hour, GivenMost: 64}
		set(&config.Sampler.Choice)
		g := stocked(t, config)
		var all [][]float32
		for i := range 4 {
			for _, r := range g.ask(t, schemas.Request{RequestID: fmt.Sprint(i), Count: 4}) {
				_, d := nearestItem(g, r.Embedding)
				item += d / 16
				far := 1e9
				for _, e := range all {
					far = min(far, nearest.Square(e, r.Embedding))
				}
				if len(all) > 0 {
					given += far / 15
				}
				all = append(all, r.Embedding)
			}
		}
		return item, given
	}
	item, given := near(t, func(*ChoiceConfig) {})
	farther, _ := near(t, func(c *ChoiceConfig) { c.Copy = 5 })
	_, newer := near(t, func(c *ChoiceConfig) { c.Given = 10 })
	if farther <= item || newer <= given {
		t.Errorf("distance to the nearest item %v, with copies left out %v; to what was given %v, left out %v", item, farther, given, newer)
	}
}

func nearestItem(g *generator, e []float32) (int, float64) {
	blocks, gone, _ := g.table.Catalogue().Blocks()
	places, distances := nearest.NewFlat(4, blocks, func(p int) bool { return gone[p] }).Nearest([][]float32{e}, nil)
	return places[0], distances[0]
}

// TestCandidatesFillABatch: candidates count, so that a batch stays short, and a request with many comes to its end.
func TestCandidatesFillABatch(t *testing.T) {
	g := testGenerator(t, DefaultConfig())
	g.offer(0, []table.Intent{{Seq: 1, UserID: "a", Trigger: schemas.TriggerRequest, Count: 16, Candidates: new(16)}}, nil)
	g.offer(0, []table.Intent{{Seq: 2, UserID: "b", Trigger: schemas.TriggerRequest, Count: 3, Candidates: new(16)}}, nil)
	later := time.Now().Add(time.Minute)
	total := map[uint64]int{}
	for range 10 {
		batch, _ := g.take(later)
		drawn := 0
		for i := range batch {
			c := &batch[i]
			drawn += 16 * c.n
			total[c.Seq] += c.n
			c.made = append(c.made, make([]schemas.Generated, c.n)...)
			if len(c.made) < c.Count {
				g.again(batch[i:i+1], later)
			}
		}
		if drawn > batchCandidates || len(batch) > 0 && drawn == 0 {
			t.Fatalf("%d candidates in a batch", drawn)
		}
	}
	if total[1] != 16 || total[2] != 3 {
		t.Errorf("made %v", total)
	}
}

// TestNoveltyFollowsTheCatalogue: new items and those that are gone show at the next look, which comes after a pause.
func TestNoveltyFollowsTheCatalogue(t *testing.T) {
	g := stocked(t, DefaultConfig())
	n := &g.chooser.novelty
	item, ok := g.table.Catalogue().Get("i-7")
	if !ok {
		t.Fatal("no item")
	}
	if d := n.distances([][]float32{item}); d[0] != 0 || n.spacing <= 0 {
		t.Errorf("an item is %v from the catalogue, whose spacing is %v", d, n.spacing)
	}
	if err := g.table.List("items", 0, []table.Listed{{Offset: 60, Key: []byte("i-7"), Delete: true}}, 61); err != nil {
		t.Fatal(err)
	}
	if n.follow(time.Now()); n.index.Len() != 60 {
		t.Error("the catalogue is looked at without a pause")
	}
	if n.follow(time.Now().Add(time.Hour)); n.index.Len() != 59 {
		t.Errorf("%d items of 59", n.index.Len())
	}
	if d := n.distances([][]float32{item}); d[0] == 0 {
		t.Error("an item that was deleted is still there")
	}
}
