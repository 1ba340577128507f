package prior

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"rebeca/internal/ort"
)

// TestChunksCoverTheLayout holds for any size that chunks follow each other from the first number to the last and are as few as the
// bound allows.
func TestChunksCoverTheLayout(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const limit = 100
		l := &layout{size: rapid.OneOf(rapid.IntRange(1, 10*limit), rapid.Just(limit), rapid.Just(3*limit)).Draw(t, "size")}
		at, chunks := 0, l.chunks(limit)
		for _, c := range chunks {
			if c.from != at || c.size() < 1 || c.size() > limit {
				t.Fatalf("chunk %v after %d", c, at)
			}
			at = c.to
		}
		if at != l.size || (len(chunks)-1)*limit >= l.size {
			t.Fatalf("%d chunks end at %d of %d", len(chunks), at, l.size)
		}
	})
}

// TestAdamWMatchesTheTextbook holds the chunked optimizer in ONNX Runtime, which writes over what it reads, with clip and moving
// average, against one loop over all numbers, for a layout of several chunks.
func TestAdamWMatchesTheTextbook(t *testing.T) {
	l := new(layout)
	l.add("small", 0, 7)
	l.add("large", 0, 3, chunkSize/2)
	l.add("last", 0, 5, 2)
	if len(l.chunks(chunkSize)) < 2 {
		t.Fatal("the layout has too few chunks to tell")
	}
	session, err := l.optimizerGraph().Compile(ort.Options{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	at, err := l.newVectors()
	if err != nil {
		t.Fatal(err)
	}
	defer at.close()
	rng := newRand(1)
	var before [5][]float32
	for v := range at.flat {
		for i := range at.flat[v] {
			at.flat[v][i] = float32(rng.NormFloat64())
			if v == flatV {
				at.flat[v][i] = float32(math.Abs(float64(at.flat[v][i])))
			}
		}
		before[v] = slices.Clone(at.flat[v])
	}
	const step, lr, norm = 5, .1, 7.
	scheduled := ort.NewTensor(numSchedule)
	defer scheduled.Close()
	scheduleOf(step, lr, norm).write(scheduled.Data())
	binding, err := session.Bind(slices.Concat(at.state(), at.chunks[flatGradient], []*ort.Tensor{scheduled}), at.state())
	if err != nil {
		t.Fatal(err)
	}
	defer binding.Close()
	if err := binding.Run(); err != nil {
		t.Fatal(err)
	}

	want := [4][]float64{}
	decay := 1 - min(.999, (1.+step)/(10+step))
	for i, d := range before[flatGradient] {
		old := func(v int) float64 { return float64(before[v][i]) }
		clipped := float64(d) / norm
		m := .9*old(flatM) + .1*clipped
		v := .999*old(flatV) + .001*clipped*clipped
		mean, variance := m/(1-math.Pow(.9, step)), v/(1-math.Pow(.999, step))
		params := old(flatParams)*(1-lr*1e-4) - lr*mean/(math.Sqrt(variance)+1e-8)
		for k, x := range [4]float64{params, old(flatEMA) + decay*(params-old(flatEMA)), m, v} {
			want[k] = append(want[k], x)
		}
	}
	const tolerance = 1e-5
	for k, name := range vectorNames() {
		if w := worst(t, at.flat[k], want[k]); w > tolerance {
			t.Errorf("%s differs by %.2g", name, w)
		}
	}
}
