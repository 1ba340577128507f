package prior

import (
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestClass(t *testing.T) {
	for c, want := range map[Class]struct {
		name     string
		positive bool
	}{
		ClassNone: {"none", false}, StrongPositive: {"strong_positive", true}, WeakPositive: {"weak_positive", true},
		WeakNegative: {"weak_negative", false}, StrongNegative: {"strong_negative", false}, 7: {"class(7)", false},
	} {
		if c.String() != want.name || c.Positive() != want.positive {
			t.Errorf("class %d is %q, positive %v", uint8(c), c, c.Positive())
		}
	}
}

func TestConfigValidate(t *testing.T) {
	if err := DefaultConfig(16).Validate(); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		want   string
		change func(*Config)
	}{
		{"kind: ", func(c *Config) { c.Kind = "gan" }},
		{"dim: 0", func(c *Config) { c.Dim = 0 }},
		{"hidden: 98", func(c *Config) { c.Hidden = 98 }},
		{"hidden: 9 ", func(c *Config) { c.Hidden, c.Heads = 9, 3 }},
		{"blocks: -1", func(c *Config) { c.Blocks = -1 }},
		{"heads: 0", func(c *Config) { c.Heads = 0 }},
		{"max_tokens: 99999", func(c *Config) { c.MaxTokens = 99999 }},
		{"contexts: 0", func(c *Config) { c.Contexts = 0 }},
		{"targets: 0", func(c *Config) { c.Targets = 0 }},
		{"timesteps: 0", func(c *Config) { c.Timesteps = 0 }},
		{"users: 3, but kind mlp", func(c *Config) { c.Users = 3 }},
		{"users: 0", func(c *Config) { c.Kind, c.Tokens = "reference", 4 }},
		{"users: -1", func(c *Config) { c.Kind, c.Users = "simulation", -1 }},
		{"tokens: 0", func(c *Config) { c.Kind, c.Users = "reference", 1 }},
		{"tokens: 5 does not divide dim (16)", func(c *Config) { c.Kind, c.Tokens = "transformer", 5 }},
		{"tokens: -4", func(c *Config) { c.Kind, c.Tokens = "transformer", -4 }},
	} {
		cfg := DefaultConfig(16)
		c.change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("error %v, want %q", err, c.want)
		}
		if _, err := NewState(cfg, unitStats(16), 1); err == nil {
			t.Errorf("%s: a state was made", c.want)
		}
	}
}

func TestAlphaBar(t *testing.T) {
	const T = 1000
	last := math.Inf(1)
	for step := range T + 1 {
		a := AlphaBar(step, T)
		if !(a > 0 && a <= 1 && a < last) {
			t.Fatalf("AlphaBar(%d) = %v after %v", step, a, last)
		}
		last = a
	}
	// Half way, cos²(.508/1.008 · π/2) / cos²(.008/1.008 · π/2).
	for _, c := range []struct{ got, want float64 }{
		{AlphaBar(0, T), 1}, {AlphaBar(500, T), .4938436}, {AlphaBar(T, T), 1e-8},
		{LogSNR(500, T), math.Log(.4938436/.5061564) / 2}, {LogSNR(0, T), math.Inf(1)},
	} {
		if c.got != c.want && math.Abs(c.got-c.want) > 1e-6 {
			t.Errorf("%v, want %v", c.got, c.want)
		}
	}
}

func TestAgeOf(t *testing.T) {
	for rank, want := range map[int]int{0: 0, 1: 1, 2: 2, 3: 2, 4: 3, 7: 3, 8: 4, 15: 4, 16: 5, 31: 5, 1000: 5} {
		if got := ageOf(rank); got != want {
			t.Errorf("rank %d is in bucket %d, want %d", rank, got, want)
		}
	}
}

// TestWindowTensors reads back what the network is given for a context, and that nothing of a longer one before it is left.
func TestWindowTensors(t *testing.T) {
	net := mlp{tinyConfig()}
	w := net.newWindowTensors(2, net.slots())
	defer w.close()
	rng := newRand(1)
	ctx := Context{
		{Item: []float32{1, 2, 3}, Class: StrongPositive},
		{Item: []float32{4, 5, 6}, Class: WeakPositive, Older: true},
		{Item: []float32{7, 8, 9}, Class: StrongNegative},
	}
	stats := Stats{Mean: []float32{1, 1, 1}, Scale: []float32{2, 2, 2}}
	w.set(net.Config, stats, 1, randomContext(rng, 3, 5))
	w.set(net.Config, stats, 1, ctx)
	s := net.slots()
	ones := map[int]bool{0*numMarks + markNull: true,
		1*numMarks + 0: true, 1*numMarks + markAge: true,
		2*numMarks + 1: true, 2*numMarks + markOlder: true,
		3*numMarks + 3: true, 3*numMarks + markAge + 1: true}
	for i, v := range w.marks.Data()[s*numMarks:] {
		if (v == 1) != ones[i] || v != 0 && v != 1 {
			t.Errorf("mark %d of slot %d is %v", i%numMarks, i/numMarks, v)
		}
	}
	items := []float32{0, 0, 0, 0, .5, 1, 1.5, 2, 2.5, 3, 3.5, 4}
	for i, v := range w.items.Data()[s*3:] {
		if i < len(items) && v != items[i] || i >= len(items) && v != 0 {
			t.Errorf("item value %d is %v", i, v)
		}
	}
	for i := range s {
		share, mask := w.share.Data()[s+i], w.mask.Data()[s+i]
		if present := i < 4; present && (share != .25 || mask != 0) || !present && (share != 0 || mask != masked) {
			t.Errorf("slot %d has share %v, mask %v", i, share, mask)
		}
	}
	if got := w.size.Data()[1]; got != float32(math.Log(4)) {
		t.Errorf("size %v", got)
	}
}

func TestStats(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.Float32Range(-100, 100)
		sample := rapid.SliceOfN(rapid.SliceOfN(value, 3, 3), 2, 20).Draw(t, "sample")
		s := NewStats(sample)
		if s.Scale[0] != s.Scale[1] || s.Scale[1] != s.Scale[2] || !(s.Scale[0] > 0) {
			t.Fatalf("scales %v", s.Scale)
		}
		z, back := make([]float32, 3), make([]float32, 3)
		var sum, squares float64
		for _, e := range sample {
			s.Normalize(z, e)
			s.Denormalize(back, z)
			for d := range e {
				sum += float64(z[d])
				squares += float64(z[d]) * float64(z[d]) / float64(3*len(sample))
				if math.Abs(float64(back[d]-e[d])) > 1e-3 {
					t.Fatalf("%v became %v", e, back)
				}
			}
		}
		if math.Abs(sum) > .1 || squares > 0 && squares > 1e-3 && math.Abs(squares-1) > 1e-2 {
			t.Fatalf("normalized sample has sum %v, mean square %v", sum, squares)
		}
	})
	if s := NewStats([][]float32{{5, 5}, {5, 5}}); s.Scale[0] != 1 || s.Mean[0] != 5 {
		t.Errorf("statistics of a point are %+v", s)
	}
	panics(t, "empty sample", func() { NewStats(nil) })
	panics(t, "ragged sample", func() { NewStats([][]float32{{1, 2}, {1}}) })
}

func TestNewStateRefusesStats(t *testing.T) {
	for name, s := range map[string]Stats{
		"dimension": unitStats(2), "NaN": {Mean: []float32{0, 0, float32(math.NaN())}, Scale: []float32{1, 1, 1}},
		"scale": {Mean: []float32{0, 0, 0}, Scale: []float32{1, 0, 1}},
	} {
		if _, err := NewState(tinyConfig(), s, 1); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestNewStatePredictsMean: a prior that has learned nothing predicts z = 0 for everything.
func TestNewStatePredictsMean(t *testing.T) {
	s, err := NewState(tinyConfig(), unitStats(3), 1)
	if err != nil {
		t.Fatal(err)
	}
	m := modelOf(t, s)
	z := []float32{1, 1, 1}
	if err := m.Denoise(z, []float32{1, 2, 3}, []Row{{T: 25, Label: StrongPositive}}); err != nil {
		t.Fatal(err)
	}
	if z[0] != 0 || z[1] != 0 || z[2] != 0 {
		t.Errorf("predicts %v", z)
	}
}

// TestParameterCount pins the size of the default prior: about half a million.
func TestParameterCount(t *testing.T) {
	if n := (mlp{DefaultConfig(16)}).layout().size; n < 450_000 || n > 600_000 {
		t.Errorf("the default prior has %d parameters", n)
	}
}
