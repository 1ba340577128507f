package prior

import (
	"math"
	"math/rand/v2"

	"rebeca/prior/graph"
)

// parameter is one tensor of the weights.
type parameter struct {
	name   string
	shape  []int
	start  float64 // mean of the initial draw
	spread float64 // standard deviation of the initial normal draw; 0 starts every value at start
	offset int     // in the flat vector
	size   int
}

// layout is the one order in which all parameters lie in the flat vectors of a State.
type layout struct {
	parameters []parameter
	size       int
}

// add appends a parameter.
func (l *layout) add(name string, spread float64, shape ...int) {
	p := parameter{name: name, shape: shape, spread: spread, offset: l.size, size: 1}
	for _, n := range shape {
		p.size *= n
	}
	l.size += p.size
	l.parameters = append(l.parameters, p)
}

// fill appends a parameter that starts at a value.
func (l *layout) fill(name string, start float64, shape ...int) {
	l.add(name, 0, shape...)
	l.parameters[len(l.parameters)-1].start = start
}

// fanIn is the spread that keeps the variance of a sum over n unit inputs at 1 (LeCun 1998).
func fanIn(n int) float64 { return 1 / math.Sqrt(float64(n)) }

// linear appends the weight [in, out] and the bias [out] of a linear map.
func (l *layout) linear(name string, spread float64, in, out int) {
	l.add(name+".weight", spread, in, out)
	l.add(name+".bias", 0, out)
}

// draw returns initial values for all parameters.
func (l *layout) draw(rng *rand.Rand) []float32 {
	out := make([]float32, l.size)
	for _, p := range l.parameters {
		for i := range p.size {
			out[p.offset+i] = float32(p.start)
			if p.spread != 0 {
				out[p.offset+i] += float32(rng.NormFloat64() * p.spread)
			}
		}
	}
	return out
}

// largest returns the parameter that holds the value farthest from 0, and that value.
func (l *layout) largest(flat []float32) (name string, value float32) {
	name = l.parameters[0].name
	for _, p := range l.parameters {
		for _, x := range flat[p.offset : p.offset+p.size] {
			if math.Abs(float64(x)) > math.Abs(float64(value)) {
				name, value = p.name, x
			}
		}
	}
	return name, value
}

// weights are the parameters as values of a graph, by name.
type weights map[string]*graph.Value

// constants stores the parameters in the model.
func (l *layout) constants(g *graph.Graph, flat []float32) weights {
	w := make(weights)
	for _, p := range l.parameters {
		w[p.name] = g.Constant(flat[p.offset:p.offset+p.size], p.shape...)
	}
	return w
}
