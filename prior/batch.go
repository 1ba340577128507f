package prior

import (
	"fmt"
	"math"
	"math/rand/v2"

	"rebeca/internal/ort"
)

// Target is an item that the user of a context gave Label to.
type Target struct {
	Context int       // index into Batch.Contexts
	Item    []float32 // [Dim], in the catalogue's scale; read only
	Label   Class     // ClassNone for a dropped label
}

// Batch is what one training step sees. It may be smaller than the configuration allows; the rest is padded and does not count.
type Batch struct {
	Contexts []Context // at most Config.Contexts
	Targets  []Target  // at most Config.Targets for each context
}

// windowTensors hold contexts in the form the network reads (see window in mlp.go).
type windowTensors struct {
	items, marks, share, mask, size *ort.Tensor
	used                            []int // slots of each context that are not zero, for cheap clearing
}

func (a mlp) newWindowTensors(contexts int) *windowTensors {
	c, s := int64(contexts), int64(a.slots())
	w := &windowTensors{
		items: ort.NewTensor(c*s, int64(a.Dim)), marks: ort.NewTensor(c*s, numMarks), share: ort.NewTensor(c, 1, s),
		mask: ort.NewTensor(c, 1, s), size: ort.NewTensor(c, 1), used: make([]int, contexts),
	}
	for c := range contexts {
		w.set(a, Stats{}, c, nil)
	}
	return w
}

func (w *windowTensors) close() {
	for _, t := range []*ort.Tensor{w.items, w.marks, w.share, w.mask, w.size} {
		t.Close()
	}
}

// set writes context ctx, which must be valid, to place c.
func (w *windowTensors) set(a mlp, stats Stats, c int, ctx Context) {
	slots := a.slots()
	items, marks := w.items.Data()[c*slots*a.Dim:], w.marks.Data()[c*slots*numMarks:]
	share, mask := w.share.Data()[c*slots:(c+1)*slots], w.mask.Data()[c*slots:(c+1)*slots]
	used := len(ctx) + 1
	clear(items[:max(used, w.used[c])*a.Dim])
	clear(marks[:max(used, w.used[c])*numMarks])
	w.used[c] = used
	marks[markNull] = 1
	rank := 0
	for i, e := range ctx {
		slot := i + 1
		stats.Normalize(items[slot*a.Dim:(slot+1)*a.Dim], e.Item)
		row := marks[slot*numMarks : (slot+1)*numMarks]
		row[e.Class-1] = 1
		if e.Older {
			row[markOlder] = 1
		} else {
			row[markAge+ageOf(rank)] = 1
			rank++
		}
	}
	for slot := range slots {
		share[slot], mask[slot] = 0, masked
		if slot < used {
			share[slot], mask[slot] = 1/float32(used), 0
		}
	}
	w.size.Data()[c] = sizeFeature(len(ctx))
}

func sizeFeature(entries int) float32 { return float32(math.Log1p(float64(entries))) }

// checkContext holds a context against the configuration.
func (c Config) checkContext(ctx Context) error {
	if len(ctx) > c.MaxTokens {
		return fmt.Errorf("%d entries, more than the %d this prior reads", len(ctx), c.MaxTokens)
	}
	for i, e := range ctx {
		if e.Class < StrongPositive || e.Class > NumClasses {
			return fmt.Errorf("entry %d has class %v", i, e.Class)
		}
		if err := c.checkItem(e.Item); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
	}
	return nil
}

func (c Config) checkItem(item []float32) error {
	if len(item) != c.Dim {
		return fmt.Errorf("embedding of %d dimensions for a prior of %d", len(item), c.Dim)
	}
	for d, v := range item {
		if !finite(v) {
			return fmt.Errorf("embedding holds %v in dimension %d", v, d)
		}
	}
	return nil
}

// checkBatch holds a batch against the configuration and counts the targets of each context into counts, [Contexts].
func (c Config) checkBatch(b *Batch, counts []int) error {
	if len(b.Contexts) > c.Contexts {
		return fmt.Errorf("batch of %d contexts, more than %d", len(b.Contexts), c.Contexts)
	}
	if len(b.Targets) == 0 {
		return fmt.Errorf("batch without targets")
	}
	for i, ctx := range b.Contexts {
		if err := c.checkContext(ctx); err != nil {
			return fmt.Errorf("context %d: %w", i, err)
		}
	}
	clear(counts)
	for i, t := range b.Targets {
		if t.Context < 0 || t.Context >= len(b.Contexts) {
			return fmt.Errorf("target %d names context %d of %d", i, t.Context, len(b.Contexts))
		}
		if counts[t.Context]++; counts[t.Context] > c.Targets {
			return fmt.Errorf("context %d has more than %d targets", t.Context, c.Targets)
		}
		if t.Label > NumClasses {
			return fmt.Errorf("target %d has label %v", i, t.Label)
		}
		if err := c.checkItem(t.Item); err != nil {
			return fmt.Errorf("target %d: %w", i, err)
		}
	}
	return nil
}

// batchTensors hold a batch in the form the training graph reads.
type batchTensors struct {
	*windowTensors
	x, z     *ort.Tensor // [R, Dim]
	features *ort.Tensor // [R, features()]
	weight   *ort.Tensor // [R, 1], 1/(Dim · real targets), or 0 for padding
	counts   []int
}

func (a mlp) newBatchTensors() *batchTensors {
	r := int64(a.Contexts * a.Targets)
	return &batchTensors{
		windowTensors: a.newWindowTensors(a.Contexts),
		x:             ort.NewTensor(r, int64(a.Dim)), z: ort.NewTensor(r, int64(a.Dim)),
		features: ort.NewTensor(r, int64(a.features())), weight: ort.NewTensor(r, 1),
		counts: make([]int, a.Contexts),
	}
}

func (t *batchTensors) close() {
	t.windowTensors.close()
	for _, tensor := range []*ort.Tensor{t.x, t.z, t.features, t.weight} {
		tensor.Close()
	}
}

// inputs lists the tensors in the order of batchInputs.
func (t *batchTensors) inputs() []*ort.Tensor {
	return []*ort.Tensor{t.items, t.marks, t.share, t.x, t.features, t.mask, t.size, t.z, t.weight}
}

// set writes a batch, drawing a timestep in 1..T and noise for each target in order. times is [T+1][H].
func (t *batchTensors) set(a mlp, stats Stats, b *Batch, times [][]float32, rng *rand.Rand) error {
	if err := a.checkBatch(b, t.counts); err != nil {
		return err
	}
	for c := range a.Contexts {
		var ctx Context
		if c < len(b.Contexts) {
			ctx = b.Contexts[c]
		}
		t.windowTensors.set(a, stats, c, ctx)
	}
	for _, tensor := range []*ort.Tensor{t.x, t.z, t.features, t.weight} {
		clear(tensor.Data())
	}
	clear(t.counts)
	weight := 1 / float32(a.Dim*len(b.Targets))
	for _, target := range b.Targets {
		row := target.Context*a.Targets + t.counts[target.Context]
		t.counts[target.Context]++
		step := 1 + rng.IntN(a.Timesteps)
		z, x := t.z.Data()[row*a.Dim:(row+1)*a.Dim], t.x.Data()[row*a.Dim:(row+1)*a.Dim]
		stats.Normalize(z, target.Item)
		bar := AlphaBar(step, a.Timesteps)
		alpha, sigma := math.Sqrt(bar), math.Sqrt(1-bar)
		for d := range x {
			x[d] = float32(alpha*float64(z[d]) + sigma*rng.NormFloat64())
		}
		a.setFeatures(t.features.Data()[row*a.features():(row+1)*a.features()], times[step], target.Label)
		t.weight.Data()[row] = weight
	}
	return nil
}

// setFeatures writes the features of a row: those of its timestep and its label.
func (a mlp) setFeatures(dst, time []float32, label Class) {
	copy(dst, time)
	clear(dst[len(time):])
	dst[len(time)+int(label)] = 1
}
