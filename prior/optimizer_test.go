package prior

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"rebeca/internal/ort"
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

// TestAdamWMatchesTheTextbook holds the chunked optimizer in ONNX Runtime, with clip and moving average, against one loop over all
// numbers, for a layout of several chunks.
func TestAdamWMatchesTheTextbook(t *testing.T) {
	l := new(layout)
	l.add("small", 0, 7)
	l.add("large", 0, 3, chunkSize/2)
	l.add("last", 0, 5, 2)
	if len(l.chunks(chunkSize)) < 3 {
		t.Fatal("the layout has too few chunks to tell")
	}
	g := graph.New("adamw")
	var derivatives []*graph.Value
	for _, p := range l.parameters {
		derivatives = append(derivatives, g.Input("d."+p.name, p.shape...))
	}
	l.adamW(g, derivatives)
	session, err := g.Compile(ort.Options{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()

	rng := newRand(1)
	from, to := newTestSide(t, l), newTestSide(t, l)
	for v := range from.vectors {
		for i := range from.vectors[v] {
			from.vectors[v][i] = float32(rng.NormFloat64())
		}
	}
	var gradient []float32
	var inputs []*ort.Tensor
	var norm float64
	for _, p := range l.parameters {
		part := randomItem(rng, p.size)
		for _, d := range part {
			norm += float64(d) * float64(d)
		}
		var shape []int64
		for _, n := range p.shape {
			shape = append(shape, int64(n))
		}
		tensor, err := ort.NewTensorFrom(part, shape...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(tensor.Close)
		inputs, gradient = append(inputs, tensor), append(gradient, part...)
	}
	for i := range from.vectors[sideV] {
		from.vectors[sideV][i] = float32(math.Abs(float64(from.vectors[sideV][i])))
	}
	norm = math.Sqrt(norm)
	scheduled, gotNorm := ort.NewTensor(numSchedule), ort.NewTensor(1)
	defer scheduled.Close()
	defer gotNorm.Close()
	s := schedule{keep: .99, rate: .02, tiny: 1e-3, ema: .25}
	copy(scheduled.Data(), []float32{float32(s.keep), float32(s.rate), float32(s.tiny), float32(s.ema)})
	inputs = slices.Concat(inputs, from.allChunks(), []*ort.Tensor{scheduled})
	if err := session.Run(inputs, append(to.allChunks(), gotNorm)); err != nil {
		t.Fatal(err)
	}

	const tolerance = 1e-5
	if w := worst(t, gotNorm.Data(), []float64{norm}); w > tolerance {
		t.Errorf("norm %v, want %v", gotNorm.Data()[0], norm)
	}
	want := [4][]float64{}
	for i, d := range gradient {
		at := func(v int) float64 { return float64(from.vectors[v][i]) }
		clipped := float64(d) * min(1, clipNorm/norm)
		m := beta1*at(sideM) + (1-beta1)*clipped
		v := beta2*at(sideV) + (1-beta2)*clipped*clipped
		params := s.keep*at(sideParams) - s.rate*m/(math.Sqrt(v)+s.tiny)
		for k, x := range [4]float64{params, at(sideEMA) + s.ema*(params-at(sideEMA)), m, v} {
			want[k] = append(want[k], x)
		}
	}
	for k, name := range vectorNames() {
		if w := worst(t, to.vectors[k], want[k]); w > tolerance {
			t.Errorf("%s differs by %.2g", name, w)
		}
	}
}

func newTestSide(t *testing.T, l *layout) side {
	t.Helper()
	s, err := l.newSide()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}
