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
	slots  int
	step   *ort.Session
	loss   *ort.Session
	batch  *batchTensors
	runs   [2]*ort.Binding    // runs[i] reads side i and writes the other
	losses [2][2]*ort.Binding // by side, then of the weights and of their moving average
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
	for i := range l.sides {
		if err := l.bind(c, i); err != nil {
			return errors.Join(err, c.close())
		}
	}
	return nil
}

func (l *Learner) bind(c *compiled, i int) (err error) {
	outputs := slices.Concat(l.results[:1], l.sides[1-i].allChunks(), l.results[1:])
	if c.runs[i], err = c.step.Bind(l.stepInputs(c, i), outputs); err != nil {
		return err
	}
	for k, params := range l.sides[i].whole {
		in := slices.Concat(params, c.batch.inputs())
		if c.losses[i][k], err = c.loss.Bind(in, []*ort.Tensor{l.results[0], l.guess}); err != nil {
			return err
		}
	}
	return nil
}

// stepInputs are the tensors of stepGraph's inputs where side i holds the state.
func (l *Learner) stepInputs(c *compiled, i int) []*ort.Tensor {
	from := l.sides[i]
	return slices.Concat(from.whole[sideParams], c.batch.inputs(), from.allChunks(), []*ort.Tensor{l.schedule})
}

// close frees everything; what it leaves can be compiled again.
func (c *compiled) close() error {
	var errs []error
	for i := range c.runs {
		for _, b := range []*ort.Binding{c.runs[i], c.losses[i][0], c.losses[i][1]} {
			if b != nil {
				errs = append(errs, b.Close())
			}
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
