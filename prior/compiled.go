package prior

import (
	"errors"
	"slices"

	"rebeca/internal/ort"
)

// compiled is a learner's graphs for windows of at most so many slots, with the tensors of a batch of that shape.
//
// Where all windows of a batch are short, as those of a young service are, the tokens of full windows would be padding that weighs
// nothing and costs up to half of a step. Which shape runs is a function of the batch alone, so the same batches still give the same
// weights bit for bit.
type compiled struct {
	slots    int
	step     *ort.Session
	loss     *ort.Session
	batch    *batchTensors
	gradient *ort.Binding
	losses   [2]*ort.Binding // of the weights, of their moving average
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

// compiledFor returns the smallest shape that takes the windows of a batch, compiled. A window that is too long for all of them is
// refused when the batch is written.
func (l *Learner) compiledFor(b *Batch) (*compiled, error) {
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

// compile makes what c lacks.
func (l *Learner) compile(c *compiled) (err error) {
	if c.batch != nil {
		return nil
	}
	if c.step, err = l.net.stepGraph(c.slots).Compile(l.options); err != nil {
		return errors.Join(err, c.close())
	}
	if c.loss, err = l.net.lossGraph(c.slots).Compile(l.options); err != nil {
		return errors.Join(err, c.close())
	}
	c.batch = l.net.newBatchTensors(c.slots)
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
		if c.losses[i], err = c.loss.Bind(in(which), []*ort.Tensor{l.results[0], l.guess}); err != nil {
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
	*c = compiled{slots: c.slots}
	return errors.Join(errs...)
}
