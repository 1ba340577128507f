package prior

import (
	"errors"
	"slices"

	"rebeca/internal/ort"
)

// compiled is a learner's graphs for windows of at most so many slots and contexts of at most so many targets, with the tensors of a
// batch of that shape.
//
// Where all windows of a batch are short, as those of a young service are, the tokens of full windows would be padding that weighs
// nothing and costs up to half of a step. Which shape runs is a function of the batch alone, so the same batches still give the same
// weights bit for bit.
//
// Where contexts have many targets, their tokens cost next to nothing a target; so there is a shape for those too, of full windows.
type compiled struct {
	net      *architecture // whose Targets are those of the shape
	slots    int
	step     *ort.Session
	loss     *ort.Session
	batch    *batchTensors
	guess    *ort.Tensor // [R, Dim], of losses
	gradient *ort.Binding
	losses   [2]*ort.Binding // of the weights, of their moving average
}

// withTargets returns the architecture for batches of so many targets a context.
func (a *architecture) withTargets(n int) *architecture {
	b := *a
	b.Targets = n
	return &b
}

// shortSlots lists the slots, in rising order, of the shapes for short windows. Kinds other than the mlp have none: their tokens of
// windows are a small part of a step.
func (a *architecture) shortSlots() []int {
	if a.Kind != kindMLP {
		return nil
	}
	short := []int{16, 32}
	return slices.DeleteFunc(short, func(slots int) bool { return 5*slots > 4*a.slots() }) // too near the full shape
}

// compiledFor returns the smallest shape that takes a batch, compiled. A window that is too long for all of them, or a context of too
// many targets, is refused when the batch is written.
func (l *Learner) compiledFor(b *Batch) (*compiled, error) {
	if l.wide != nil && b.mostTargets() > l.net.Targets {
		return l.wide, l.compile(l.wide)
	}
	longest := 0
	for _, ctx := range b.Contexts {
		longest = max(longest, len(ctx))
	}
	for _, c := range l.shorter {
		if longest < c.slots {
			return c, l.compile(c)
		}
	}
	return l.full, nil
}

// mostTargets returns the largest number of targets that a context has.
func (b *Batch) mostTargets() int {
	counts := make(map[int]int, len(b.Contexts))
	most := 0
	for _, t := range b.Targets {
		counts[t.Context]++
		most = max(most, counts[t.Context])
	}
	return most
}

// compile makes what c lacks.
func (l *Learner) compile(c *compiled) (err error) {
	if c.batch != nil {
		return nil
	}
	if c.step, err = c.net.stepGraph(c.slots).Compile(l.options); err != nil {
		return errors.Join(err, c.close())
	}
	if c.loss, err = c.net.lossGraph(c.slots).Compile(l.options); err != nil {
		return errors.Join(err, c.close())
	}
	c.batch = c.net.newBatchTensors(c.slots)
	c.guess = ort.NewTensor(int64(c.net.Contexts*c.net.Targets), int64(c.net.Dim))
	if err := l.bind(c); err != nil {
		return errors.Join(err, c.close())
	}
	return nil
}

func (l *Learner) bind(c *compiled) (err error) {
	v := l.vectors
	in := func(which int) []*ort.Tensor { return slices.Concat(v.whole[which], c.batch.inputs()) }
	if c.gradient, err = c.step.Bind(in(flatParams), slices.Concat(l.results[:1], v.whole[flatGradient], l.results[1:])); err != nil {
		return err
	}
	for i, which := range []int{flatParams, flatEMA} {
		if c.losses[i], err = c.loss.Bind(in(which), []*ort.Tensor{l.results[0], c.guess}); err != nil {
			return err
		}
	}
	return nil
}

// close frees everything; what it leaves can be compiled again.
func (c *compiled) close() error {
	var errs []error
	for _, b := range []*ort.Binding{c.gradient, c.losses[0], c.losses[1]} {
		if b != nil {
			errs = append(errs, b.Close())
		}
	}
	for _, s := range []*ort.Session{c.step, c.loss} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	if c.batch != nil {
		c.batch.close()
	}
	if c.guess != nil {
		c.guess.Close()
	}
	*c = compiled{net: c.net, slots: c.slots}
	return errors.Join(errs...)
}
