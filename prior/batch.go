package prior

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

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
	// Users stand in the place of Contexts for kinds with a learned user table: rows of the table, NoUser for the null row.
	Users   []int
	Targets []Target // at most Config.Targets for each context
}

// NoUser is nobody in particular, the null row of a user table.
const NoUser = -1

// windowTensors hold contexts in the form the network reads (see window and rows in network.go).
type windowTensors struct {
	items, marks, share, mask, size *ort.Tensor // nil where the kind has no such input
	slots                           int         // of a context
	used                            []int       // slots of each context that are not zero, for cheap clearing
}

func (c Config) newWindowTensors(contexts, slots int) *windowTensors {
	n, s := int64(contexts), int64(slots)
	if c.HasUserTable() {
		w := &windowTensors{marks: ort.NewTensor(n, int64(c.Users+1)), slots: slots}
		for i := range contexts {
			w.choose(c, i, NoUser)
		}
		return w
	}
	w := &windowTensors{
		items: ort.NewTensor(n*s, int64(c.Dim)), marks: ort.NewTensor(n*s, numMarks), share: ort.NewTensor(n, 1, s),
		mask: ort.NewTensor(n, 1, s), size: ort.NewTensor(n, 1), slots: slots, used: make([]int, contexts),
	}
	for i := range contexts {
		w.set(c, Stats{}, i, nil)
	}
	return w
}

// inputs lists the tensors in the order of windowInputs.
func (w *windowTensors) inputs() []*ort.Tensor { return present(w.items, w.marks, w.share) }

func (w *windowTensors) close() {
	for _, t := range present(w.items, w.marks, w.share, w.mask, w.size) {
		t.Close()
	}
}

// present leaves out the tensors that are nil.
func present(tensors ...*ort.Tensor) []*ort.Tensor {
	return slices.DeleteFunc(tensors, func(t *ort.Tensor) bool { return t == nil })
}

// choose writes a user, who must be in the table or NoUser, to place i.
func (w *windowTensors) choose(c Config, i, user int) {
	row := w.marks.Data()[i*(c.Users+1) : (i+1)*(c.Users+1)]
	clear(row)
	if user == NoUser {
		user = c.Users
	}
	row[user] = 1
}

// set writes context ctx, which must be valid and have a slot for each entry, to place i.
func (w *windowTensors) set(c Config, stats Stats, i int, ctx Context) {
	slots := w.slots
	items, marks := w.items.Data()[i*slots*c.Dim:], w.marks.Data()[i*slots*numMarks:]
	share, mask := w.share.Data()[i*slots:(i+1)*slots], w.mask.Data()[i*slots:(i+1)*slots]
	used := len(ctx) + 1
	clear(items[:max(used, w.used[i])*c.Dim])
	clear(marks[:max(used, w.used[i])*numMarks])
	w.used[i] = used
	marks[markNull] = 1
	rank := 0
	for k, e := range ctx {
		slot := k + 1
		stats.Normalize(items[slot*c.Dim:(slot+1)*c.Dim], e.Item)
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
	w.size.Data()[i] = sizeFeature(len(ctx))
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

// checkUser holds a row of the user table against the configuration.
func (c Config) checkUser(user int) error {
	if user < NoUser || user >= c.Users {
		return fmt.Errorf("user %d of a table of %d", user, c.Users)
	}
	if user == NoUser && c.Kind == kindSimulation {
		return fmt.Errorf("no user, which kind %s has no row for", c.Kind)
	}
	return nil
}

// checkContexts holds the contexts or users of a batch against the configuration and returns their number.
func (c Config) checkContexts(b *Batch) (int, error) {
	if c.HasUserTable() {
		if len(b.Contexts) > 0 {
			return 0, fmt.Errorf("batch with windows, but kind %s has a table of users", c.Kind)
		}
		for i, user := range b.Users {
			if err := c.checkUser(user); err != nil {
				return 0, fmt.Errorf("context %d: %w", i, err)
			}
		}
		return len(b.Users), nil
	}
	if len(b.Users) > 0 {
		return 0, fmt.Errorf("batch with rows of a user table, but kind %s reads windows", c.Kind)
	}
	for i, ctx := range b.Contexts {
		if err := c.checkContext(ctx); err != nil {
			return 0, fmt.Errorf("context %d: %w", i, err)
		}
	}
	return len(b.Contexts), nil
}

// checkBatch holds a batch against the configuration and counts the targets of each context into counts, [Contexts].
func (a *architecture) checkBatch(b *Batch, counts []int) error {
	contexts, err := a.checkContexts(b)
	if err != nil {
		return err
	}
	if contexts > a.Contexts {
		return fmt.Errorf("batch of %d contexts, more than %d", contexts, a.Contexts)
	}
	if len(b.Targets) == 0 {
		return fmt.Errorf("batch without targets")
	}
	clear(counts)
	for i, t := range b.Targets {
		if t.Context < 0 || t.Context >= contexts {
			return fmt.Errorf("target %d names context %d of %d", i, t.Context, contexts)
		}
		if counts[t.Context]++; counts[t.Context] > a.Targets {
			return fmt.Errorf("context %d has more than %d targets", t.Context, a.Targets)
		}
		if _, ok := a.labelColumn(t.Label); !ok {
			return fmt.Errorf("target %d has label %v", i, t.Label)
		}
		if err := a.checkItem(t.Item); err != nil {
			return fmt.Errorf("target %d: %w", i, err)
		}
	}
	return nil
}

// batchTensors hold a batch in the form the training graph reads.
type batchTensors struct {
	*windowTensors
	x, goal  *ort.Tensor // [R, Dim]
	features *ort.Tensor // [R, features]
	weight   *ort.Tensor // [R, 1], w_t/(Dim · real targets), or 0 for padding
	counts   []int
	noise    []float64 // [Dim]
}

func (a *architecture) newBatchTensors(slots int) *batchTensors {
	r, d := int64(a.Contexts*a.Targets), int64(a.Dim)
	return &batchTensors{
		windowTensors: a.newWindowTensors(a.Contexts, slots),
		x:             ort.NewTensor(r, d), goal: ort.NewTensor(r, d),
		features: ort.NewTensor(r, int64(a.sizes.features())), weight: ort.NewTensor(r, 1),
		counts: make([]int, a.Contexts), noise: make([]float64, a.Dim),
	}
}

func (t *batchTensors) close() {
	t.windowTensors.close()
	for _, tensor := range []*ort.Tensor{t.x, t.goal, t.features, t.weight} {
		tensor.Close()
	}
}

// inputs lists the tensors in the order of batchLoss.
func (t *batchTensors) inputs() []*ort.Tensor {
	return append(t.windowTensors.inputs(), present(t.x, t.features, t.mask, t.size, t.goal, t.weight)...)
}

// noising draws the timestep and the noise of a target.
type noising interface {
	// draw fills noise, [Dim], and returns a timestep in 1..T.
	draw(noise []float64) (t int)
}

// randomNoising is the noising of training: a timestep by the loss's sampling, then standard normal noise.
type randomNoising struct {
	diffusion *diffusion
	rng       *rand.Rand
}

func (r *randomNoising) draw(noise []float64) int {
	t := r.diffusion.drawTime(r.rng)
	for d := range noise {
		noise[d] = r.rng.NormFloat64()
	}
	return t
}

// set writes a batch, noising each target in order.
func (t *batchTensors) set(a *architecture, stats Stats, b *Batch, noising noising) error {
	if err := a.checkBatch(b, t.counts); err != nil {
		return err
	}
	t.setContexts(a, stats, b)
	for _, tensor := range []*ort.Tensor{t.x, t.goal, t.features, t.weight} {
		clear(tensor.Data())
	}
	clear(t.counts)
	weight := 1 / float32(a.Dim*len(b.Targets))
	for _, target := range b.Targets {
		row := target.Context*a.Targets + t.counts[target.Context]
		t.counts[target.Context]++
		step := noising.draw(t.noise)
		goal, x := t.goal.Data()[row*a.Dim:(row+1)*a.Dim], t.x.Data()[row*a.Dim:(row+1)*a.Dim]
		stats.Normalize(goal, target.Item)
		alpha, sigma := a.diffusion.scales(step)
		for d, z := range goal {
			x[d] = float32(alpha*float64(z) + sigma*t.noise[d])
			goal[d] = a.diffusion.target(z, t.noise[d], alpha, sigma)
		}
		a.setFeatures(t.features.Data(), row, step, target.Label)
		t.weight.Data()[row] = weight * float32(a.diffusion.weight(step))
	}
	return nil
}

// setContexts writes the contexts of a batch and empty ones after them.
func (t *batchTensors) setContexts(a *architecture, stats Stats, b *Batch) {
	for i := range a.Contexts {
		switch {
		case i < len(b.Users):
			t.choose(a.Config, i, b.Users[i])
		case a.HasUserTable():
			t.choose(a.Config, i, NoUser)
		case i < len(b.Contexts):
			t.windowTensors.set(a.Config, stats, i, b.Contexts[i])
		default:
			t.windowTensors.set(a.Config, stats, i, nil)
		}
	}
}

// setFeatures writes the features of a row: those of its timestep and its label, which must be known to the kind.
func (a *architecture) setFeatures(features []float32, row, t int, label Class) {
	n := a.sizes.features()
	dst := features[row*n : (row+1)*n]
	copy(dst, a.times[t])
	clear(dst[a.sizes.time:])
	if column, ok := a.labelColumn(label); ok {
		dst[a.sizes.time+column] = 1
	}
}
