package prior

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"rebeca/internal/ort"
	"rebeca/prior/graph"
)

// The optimizer works on chunks of the flat vectors and in place. Its dozen elementwise passes over a chunk find their operands in the
// caches, where whole vectors of a larger prior would come from memory in every pass; smaller chunks cost more in nodes than they save.
const chunkSize = 1 << 17

// chunk is a range of the flat vectors.
type chunk struct{ from, to int }

func (c chunk) size() int { return c.to - c.from }

// chunks cuts the flat vectors into as few parts of at most limit as there can be, of equal size but for one number.
func (l *layout) chunks(limit int) []chunk {
	count := (l.size + limit - 1) / limit
	out := make([]chunk, count)
	for i := range out {
		out[i] = chunk{i * l.size / count, (i + 1) * l.size / count}
	}
	return out
}

// inputs declares one input for each parameter, in order, and returns them by name too.
func (l *layout) inputs(g *graph.Graph) (weights, []*graph.Value) {
	w := make(weights)
	ordered := make([]*graph.Value, len(l.parameters))
	for i, p := range l.parameters {
		ordered[i] = g.Input("params."+p.name, p.shape...)
		w[p.name] = ordered[i]
	}
	return w, ordered
}

// schedule is what changes from step to step besides the data; the optimizer reads its fields as inputs in this order.
type schedule struct {
	keep   float64 // 1 - lr · weight decay
	rate   float64 // lr · sqrt(1 - β₂ᵗ) / (1 - β₁ᵗ)
	tiny   float64 // ε · sqrt(1 - β₂ᵗ)
	ema    float64 // weight of the new weights in the moving average
	first  float64 // weight of the gradient in the first moment: clip · (1 - β₁)
	second float64 // weight of its square in the second: clip² · (1 - β₂)
}

const numSchedule = 6

// scheduleOf is the schedule of step n, counted from 1, for a gradient of the given norm.
func scheduleOf(n int64, lr, norm float64) schedule {
	t := float64(n)
	bias1, bias2 := 1-math.Pow(beta1, t), 1-math.Pow(beta2, t)
	clip := min(1, clipNorm/(norm+1e-6))
	return schedule{
		keep:   1 - lr*weightDecay,
		rate:   lr * math.Sqrt(bias2) / bias1,
		tiny:   adamEpsilon * math.Sqrt(bias2),
		ema:    1 - min(maxEMADecay, (1+t)/(10+t)),
		first:  clip * (1 - beta1),
		second: clip * clip * (1 - beta2),
	}
}

func (s schedule) write(dst []float32) {
	for i, v := range []float64{s.keep, s.rate, s.tiny, s.ema, s.first, s.second} {
		dst[i] = float32(v)
	}
}

// optimizerGraph is AdamW with the moving average. Inputs are the chunks of the flat vectors in the order of State.vectors, those of
// the gradient, and the schedule; outputs are the chunks after the step. Each output may lie over its input: nothing reads a number
// of a chunk after the node that writes the new one, which reads it at the same place.
func (l *layout) optimizerGraph() *graph.Graph {
	g := graph.New("optimizer")
	chunks := l.chunks(chunkSize)
	names := vectorNames()
	var in [5][]*graph.Value // by vector
	for v, name := range append(names[:], "gradient") {
		for i, c := range chunks {
			in[v] = append(in[v], g.Input(fmt.Sprintf("%s.%d", name, i), c.size()))
		}
	}
	at := g.Split(g.Input("schedule", numSchedule), 0, 1, 1, 1, 1, 1, 1)
	keep, rate, tiny, mix, first, second := at[0], at[1], at[2], at[3], at[4], at[5]
	var next [4][]*graph.Value
	for i, d := range in[4] {
		m := g.Add(g.Mul(in[2][i], g.Scalar(beta1)), g.Mul(d, first))
		v := g.Add(g.Mul(in[3][i], g.Scalar(beta2)), g.Mul(g.Square(d), second))
		update := g.Mul(g.Div(m, g.Add(g.Sqrt(v), tiny)), rate)
		params := g.Sub(g.Mul(in[0][i], keep), update)
		ema := g.Add(in[1][i], g.Mul(g.Sub(params, in[1][i]), mix))
		for k, x := range [4]*graph.Value{params, ema, m, v} {
			next[k] = append(next[k], x)
		}
	}
	for v, name := range vectorNames() {
		for i := range chunks {
			g.Output(fmt.Sprintf("next.%s.%d", name, i), next[v][i])
		}
	}
	return g
}

// optimizer is the compiled optimizer over a set of vectors.
type optimizer struct {
	session *ort.Session
	binding *ort.Binding
}

func (l *layout) newOptimizer(v *vectors, schedule *ort.Tensor, o ort.Options) (op optimizer, err error) {
	if op.session, err = l.optimizerGraph().Compile(o); err != nil {
		return op, err
	}
	in := slices.Concat(v.state(), v.chunks[flatGradient], []*ort.Tensor{schedule})
	op.binding, err = op.session.Bind(in, v.state())
	return op, err
}

// close does nothing for what was not compiled.
func (op optimizer) close() error {
	var errs []error
	if op.binding != nil {
		errs = append(errs, op.binding.Close())
	}
	if op.session != nil {
		errs = append(errs, op.session.Close())
	}
	return errors.Join(errs...)
}

// vectors are the flat vectors of training with views of their memory.
type vectors struct {
	flat   [5][]float32     // in the order of State.vectors, then the gradient
	whole  [5][]*ort.Tensor // by parameter: weights, moving average and gradient; the moments have none
	chunks [5][]*ort.Tensor
}

// Places in vectors.
const (
	flatParams = iota
	flatEMA
	flatM
	flatV
	flatGradient
)

func (l *layout) newVectors() (*vectors, error) {
	s := new(vectors)
	view := func(v int, from int, shape ...int) (*ort.Tensor, error) {
		dims, size := make([]int64, len(shape)), 1
		for i, n := range shape {
			dims[i] = int64(n)
			size *= n
		}
		return ort.NewTensorFrom(s.flat[v][from:from+size], dims...)
	}
	for v := range s.flat {
		s.flat[v] = make([]float32, l.size)
		for _, c := range l.chunks(chunkSize) {
			t, err := view(v, c.from, c.size())
			if err != nil {
				return s, err
			}
			s.chunks[v] = append(s.chunks[v], t)
		}
	}
	for _, v := range []int{flatParams, flatEMA, flatGradient} {
		for _, p := range l.parameters {
			t, err := view(v, p.offset, p.shape...)
			if err != nil {
				return s, err
			}
			s.whole[v] = append(s.whole[v], t)
		}
	}
	return s, nil
}

// state lists the chunks of all vectors but the gradient, the optimizer's outputs.
func (s *vectors) state() []*ort.Tensor { return slices.Concat(s.chunks[:flatGradient]...) }

func (s *vectors) close() {
	for _, t := range append(slices.Concat(s.chunks[:]...), slices.Concat(s.whole[:]...)...) {
		t.Close()
	}
}
