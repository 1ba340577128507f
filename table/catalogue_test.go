package table

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"rebeca/schemas"
)

func item(offset int64, id string, value float32) Listed {
	return Listed{
		Offset: offset, Time: timeAt(offset), Key: []byte(id), Value: []byte("{}"),
		Item: &schemas.Item{ItemID: id, Embedding: []float32{value, value, value, value}, URI: "https://pictures/" + id},
	}
}

func list(t testing.TB, table *Table, first int64, items ...Listed) {
	t.Helper()
	if err := table.List("items", 0, items, first+int64(len(items))); err != nil {
		t.Fatal(err)
	}
}

func TestCatalogue(t *testing.T) {
	table := open(t, options(t.TempDir()))
	c := table.Catalogue()
	if c.Len() != 0 || c.Revision() != 0 {
		t.Errorf("a new catalogue has %d items, revision %d", c.Len(), c.Revision())
	}
	rng := rand.New(rand.NewPCG(5, 5))
	want := map[string]float32{}
	offset := int64(0)
	for range 60 {
		var items []Listed
		for range 1 + rng.IntN(200) {
			id := fmt.Sprint("i", rng.IntN(1500))
			switch rng.IntN(5) {
			case 0:
				items = append(items, Listed{Offset: offset, Key: []byte(id), Delete: true})
				delete(want, id)
			default:
				items = append(items, item(offset, id, float32(offset)))
				want[id] = float32(offset)
			}
			offset++
		}
		before := c.Revision()
		list(t, table, items[0].Offset, items...)
		if c.Revision() <= before {
			t.Fatalf("revision %d after %d", c.Revision(), before)
		}
		blocks, gone, revision := c.Blocks()
		var lie []float32
		place := 0
		for _, b := range blocks {
			for i := 0; i < len(b); i += c.Dim() {
				if !gone[place] {
					lie = append(lie, b[i])
				}
				place++
			}
		}
		if slices.Sort(lie); revision != c.Revision() || !slices.Equal(lie, slices.Sorted(maps.Values(want))) {
			t.Fatalf("%d rows lie in the blocks of %d items", len(lie), len(want))
		}
		n := 0
		c.Each(func(id string, e []float32) bool {
			if n++; e[0] != want[id] {
				t.Fatalf("item %s is %v, want %v", id, e, want[id])
			}
			return true
		})
		if n != len(want) {
			t.Fatalf("Each gives %d items, want %d", n, len(want))
		}
	}
	check := func(c *Catalogue) {
		t.Helper()
		var ids []string
		c.Each(func(id string, e []float32) bool {
			ids = append(ids, id)
			if got, ok := c.Get(id); !ok || len(e) != dim || got[0] != want[id] || e[3] != want[id] {
				t.Errorf("item %s is %v and %v, want %v", id, e, got, want[id])
			}
			return true
		})
		if c.Len() != len(want) || !slices.Equal(ids, slices.Sorted(maps.Keys(want))) {
			t.Errorf("%d items, want %d in order", c.Len(), len(want))
		}
		n := 0
		c.Each(func(string, []float32) bool { n++; return n < 3 })
		if n != 3 {
			t.Errorf("Each went on to %d", n)
		}
		if _, ok := c.Get("none"); ok {
			t.Error("an item that never was is there")
		}
		if c.used > 2*len(want)+blockItems+200 {
			t.Errorf("%d places for %d items", c.used, len(want))
		}
	}
	check(c)
	check(reopen(t, table).Catalogue())
}

// What a reader got stays as it is while the item is replaced a thousand times.
func TestCatalogueReadersKeepWhatTheyGot(t *testing.T) {
	c := newCatalogue(dim)
	put := func(v float32) {
		c.apply([]listed{{"x", []float32{v, v, v, v}}, {fmt.Sprint(v), []float32{v, v, v, v}}})
	}
	put(1)
	held, _ := c.Get("x")
	var wait sync.WaitGroup
	for range 2 {
		wait.Go(func() {
			for range 3000 {
				e, ok := c.Get("x")
				if !ok || e[0] != e[3] {
					t.Errorf("item %v, %v", e, ok)
					return
				}
			}
			c.Each(func(id string, e []float32) bool { return e[0] == e[3] })
		})
	}
	for v := range 3000 {
		put(float32(v))
	}
	wait.Wait()
	if held[0] != 1 || held[3] != 1 {
		t.Errorf("held %v", held)
	}
}

func TestListAnyPartitionAndDeadLetters(t *testing.T) {
	table := open(t, options(t.TempDir()))
	bad := Listed{Offset: 1, Key: []byte("y"), Value: []byte("?"), Dead: &schemas.Rejection{Reason: schemas.ReasonBadEmbedding, Message: "5 dimensions"}}
	long := Listed{Offset: 2, Key: []byte(strings.Repeat("k", 70_000)), Delete: true}
	if err := table.List("items", 9, []Listed{item(0, "x", 1), bad, long}, 3); err != nil {
		t.Fatal(err)
	}
	out := outbox(t, table)
	if len(out) != 1 || header(out[0].Message, HeaderPartition) != "9" || header(out[0].Message, HeaderOffset) != "1" || header(out[0].Message, HeaderTopic) != "items" {
		t.Errorf("outbox %+v", out)
	}
	if next, _, ok, _ := table.Offset("items", 9); next != 3 || !ok {
		t.Errorf("offset %d, %v", next, ok)
	}
	if err := table.List("items", 9, []Listed{item(2, "x", 1)}, 3); !errors.Is(err, ErrStale) {
		t.Errorf("error %v", err)
	}
}

// More items than one transaction takes.
func TestListManyItems(t *testing.T) {
	o := options(t.TempDir())
	o.Dim = 1024
	table := open(t, o)
	var items []Listed
	for i := range int64(3000) {
		items = append(items, Listed{Offset: i, Item: &schemas.Item{ItemID: fmt.Sprint(i), Embedding: make([]float32, 1024)}})
	}
	list(t, table, 0, items...)
	if n := table.Catalogue().Len(); n != 3000 {
		t.Errorf("%d items", n)
	}
}
