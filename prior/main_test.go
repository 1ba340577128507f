package prior

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"rebeca/internal/ort"
)

func TestMain(m *testing.M) {
	path, err := ort.Locate("")
	if err == nil {
		err = ort.Open(path)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

func randomItem(rng *rand.Rand, dim int) []float32 {
	e := make([]float32, dim)
	for d := range e {
		e[d] = float32(rng.NormFloat64())
	}
	return e
}

// randomContext has n entries of random classes, the last third of them older likes.
func randomContext(rng *rand.Rand, dim, n int) Context {
	var ctx Context
	for i := range n {
		e := Entry{Item: randomItem(rng, dim), Class: Class(1 + rng.IntN(NumClasses)), Older: i >= n-n/3}
		ctx = append(ctx, e)
	}
	return ctx
}

func randomBatch(rng *rand.Rand, cfg Config, contexts, entries, targets int) *Batch {
	b := new(Batch)
	for c := range contexts {
		b.Contexts = append(b.Contexts, randomContext(rng, cfg.Dim, entries))
		for range targets {
			b.Targets = append(b.Targets, Target{Context: c, Item: randomItem(rng, cfg.Dim), Label: Class(rng.IntN(numLabels))})
		}
	}
	return b
}

func unitStats(dim int) Stats {
	s := Stats{Mean: make([]float32, dim), Scale: make([]float32, dim)}
	for d := range dim {
		s.Scale[d] = 1
	}
	return s
}

func newLearner(t testing.TB, cfg Config, seed uint64, o ort.Options) *Learner {
	t.Helper()
	state, err := NewState(cfg, unitStats(cfg.Dim), seed)
	if err != nil {
		t.Fatal(err)
	}
	l, err := NewLearner(state, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}
