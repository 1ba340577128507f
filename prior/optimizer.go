package prior

import (
	"fmt"

	"rebeca/internal/ort"
	"rebeca/prior/graph"
)

// The optimizer works on chunks of the flat vectors. Its dozen elementwise passes over a chunk find their operands in the second
// and third level caches, where whole vectors of a larger prior would come from memory in every pass; smaller chunks cost more in
// nodes than they save.
const chunkSize = 1 << 18

// chunk is a range of the flat vectors: whole parameters, or a part of a large one.
type chunk struct{ from, to int }

func (c chunk) size() int { return c.to - c.from }

// chunks cuts the layout into chunks of at most limit: small parameters lie together, large ones are cut into equal parts.
func (l *layout) chunks(limit int) []chunk {
	var out []chunk
	open := chunk{}
	end := func() {
		if open.size() > 0 {
			out = append(out, open)
		}
		open = chunk{open.to, open.to}
	}
	for _, p := range l.parameters {
		if open.size()+p.size > limit {
			end()
		}
		if open.to += p.size; p.size <= limit {
			continue
		}
		count := (p.size + limit - 1) / limit
		for i := range count {
			open = chunk{p.offset + i*p.size/count, p.offset + (i+1)*p.size/count}
			end()
		}
	}
	end()
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

// gather returns the values of each chunk as a vector, given one value for each parameter, such as its gradient.
func (l *layout) gather(g *graph.Graph, chunks []chunk, values []*graph.Value) []*graph.Value {
	out := make([]*graph.Value, 0, len(chunks))
	at := 0 // the next parameter
	for len(out) < len(chunks) {
		c, p := chunks[len(out)], l.parameters[at]
		if flat := g.Reshape(values[at], p.size); p.size > c.size() {
			var sizes []int
			for _, part := range chunks[len(out):] {
				if part.to > p.offset+p.size {
					break
				}
				sizes = append(sizes, part.size())
			}
			out = append(out, g.Split(flat, 0, sizes...)...)
			at++
			continue
		}
		var parts []*graph.Value
		for ; at < len(values) && l.parameters[at].offset < c.to; at++ {
			parts = append(parts, g.Reshape(values[at], l.parameters[at].size))
		}
		out = append(out, g.Concat(0, parts...))
	}
	return out
}

// adamW adds the optimizer to a training graph that has gradient, one value for each parameter: inputs for the chunks of the flat
// vectors and for the schedule, outputs for the chunks after the step and for the norm of the whole gradient before clipping.
func (l *layout) adamW(g *graph.Graph, gradient []*graph.Value) {
	defer g.Scope("adamw")()
	chunks := l.chunks(chunkSize)
	var in, next [4][]*graph.Value // by vector, in the order of State.vectors
	for v, name := range vectorNames() {
		for i, c := range chunks {
			in[v] = append(in[v], g.Input(fmt.Sprintf("%s.%d", name, i), c.size()))
		}
		next[v] = make([]*graph.Value, len(chunks))
	}
	at := g.Split(g.Input("schedule", numSchedule), 0, 1, 1, 1, 1)
	keep, rate, tiny, mix := at[0], at[1], at[2], at[3]

	parts := l.gather(g, chunks, gradient)
	squares := make([]*graph.Value, len(parts))
	for i, d := range parts {
		squares[i] = g.ReduceSumSquare(d, true, 0)
	}
	norm := g.Sqrt(g.ReduceSum(g.Concat(0, squares...), true, 0))
	clip := g.Min(g.Scalar(1), g.Div(g.Scalar(clipNorm), g.Add(norm, g.Scalar(1e-6))))
	first, second := g.Mul(clip, g.Scalar(1-beta1)), g.Mul(g.Square(clip), g.Scalar(1-beta2))
	for i, d := range parts {
		m := g.Add(g.Mul(in[2][i], g.Scalar(beta1)), g.Mul(d, first))
		v := g.Add(g.Mul(in[3][i], g.Scalar(beta2)), g.Mul(g.Square(d), second))
		update := g.Mul(g.Div(m, g.Add(g.Sqrt(v), tiny)), rate)
		params := g.Sub(g.Mul(in[0][i], keep), update)
		ema := g.Add(in[1][i], g.Mul(g.Sub(params, in[1][i]), mix))
		next[0][i], next[1][i], next[2][i], next[3][i] = params, ema, m, v
	}
	for v, name := range vectorNames() {
		for i := range chunks {
			g.Output(fmt.Sprintf("next.%s.%d", name, i), next[v][i])
		}
	}
	g.Output("norm", norm)
}

// side is one set of flat vectors, with views of their memory.
type side struct {
	vectors [4][]float32     // in the order of State.vectors
	whole   [2][]*ort.Tensor // weights and moving average by parameter
	chunks  [4][]*ort.Tensor // all vectors by chunk
}

const (
	sideParams = iota // places in side.vectors
	sideEMA
	sideM
	sideV
)

func (l *layout) newSide() (side, error) {
	var s side
	view := func(v int, from int, shape ...int) (*ort.Tensor, error) {
		dims, size := make([]int64, len(shape)), 1
		for i, n := range shape {
			dims[i] = int64(n)
			size *= n
		}
		return ort.NewTensorFrom(s.vectors[v][from:from+size], dims...)
	}
	for v := range s.vectors {
		s.vectors[v] = make([]float32, l.size)
		for _, c := range l.chunks(chunkSize) {
			t, err := view(v, c.from, c.size())
			if err != nil {
				return s, err
			}
			s.chunks[v] = append(s.chunks[v], t)
		}
	}
	for v := range s.whole {
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

// allChunks lists the chunks in the order of the training graph's inputs and outputs.
func (s side) allChunks() []*ort.Tensor {
	var out []*ort.Tensor
	for _, c := range s.chunks {
		out = append(out, c...)
	}
	return out
}

func (s side) close() {
	for _, t := range append(s.allChunks(), append(s.whole[0], s.whole[1]...)...) {
		t.Close()
	}
}
