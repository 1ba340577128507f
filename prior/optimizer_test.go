package prior

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"rebeca/prior/graph"
)

// TestChunksCoverTheLayout holds for any sizes of parameters that chunks follow each other, are of bounded size and never cut a small
// parameter, and that gather gives each chunk exactly its range.
func TestChunksCoverTheLayout(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const limit = 100
		l := new(layout)
		size := rapid.OneOf(rapid.IntRange(1, 30), rapid.IntRange(1, 5*limit), rapid.Just(limit))
		for i, n := range rapid.SliceOfN(size, 1, 8).Draw(t, "sizes") {
			l.add(fmt.Sprint("p", i), 0, n)
		}
		at := 0
		for _, c := range l.chunks(limit) {
			if c.from != at || c.size() < 1 || c.size() > limit {
				t.Fatalf("chunk %v after %d", c, at)
			}
			at = c.to
			for _, p := range l.parameters {
				if cut := c.from > p.offset && c.from < p.offset+p.size; cut && p.size <= limit {
					t.Fatalf("chunk %v cuts a parameter of %d at %d", c, p.size, p.offset)
				}
			}
		}
		if at != l.size {
			t.Fatalf("chunks end at %d of %d", at, l.size)
		}
		g := graph.New("gather")
		inputs := make(map[string][]float64)
		var values []*graph.Value
		for _, p := range l.parameters {
			values = append(values, g.Input(p.name, p.shape...))
			for i := range p.size {
				inputs[p.name] = append(inputs[p.name], float64(p.offset+i))
			}
		}
		for i, v := range l.gather(g, l.chunks(limit), values) {
			g.Output(fmt.Sprint(i), v)
		}
		results := g.Interpret(inputs)
		for i, c := range l.chunks(limit) {
			got := results[fmt.Sprint(i)]
			if len(got) != c.size() || got[0] != float64(c.from) || got[len(got)-1] != float64(c.to-1) || !slices.IsSorted(got) {
				t.Fatalf("chunk %v gathers %d values from %v on", c, len(got), got[0])
			}
		}
	})
}
