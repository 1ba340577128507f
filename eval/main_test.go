package eval

import (
	"context"
	"testing"

	"go.uber.org/goleak"

	"rebeca/internal/ort"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// openRuntime loads ONNX Runtime once for the process.
func openRuntime(t testing.TB) {
	t.Helper()
	path, err := ort.Locate("")
	if err != nil {
		t.Fatal(err)
	}
	if err := ort.Open(path); err != nil {
		t.Fatal(err)
	}
}

// small is a world at the size of a test.
func small(t testing.TB, name string, change func(*Shape)) *World {
	t.Helper()
	s, err := Named(name)
	if err != nil {
		t.Fatal(err)
	}
	s.Items, s.Fresh, s.People, s.Events = 600, 200, min(s.People, 40), 640
	if change != nil {
		change(&s)
	}
	w, err := new(Worlds).New(context.Background(), s, 1)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// quick is the default recipe with a small network and a short birth.
func quick(w *World) Recipe {
	r := DefaultRecipe(w.Dim)
	r.Prior.Hidden, r.Prior.Blocks, r.Prior.Contexts = 32, 1, 32
	r.Train.BirthSteps, r.Train.Warmup = 60, 10
	return r
}

// glance asks few people.
func glance() Options {
	o := DefaultOptions()
	o.Asked, o.Samples, o.Visitors, o.FewSamples = 10, 16, 12, 4
	return o
}
