package prior

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/stat"
)

// Stats map embeddings between the catalogue's scale, e, and the model's, z = (e - Mean) / Scale. They are fixed when a prior is
// born.
type Stats struct {
	Mean  []float32 // [Dim]
	Scale []float32 // [Dim], positive; NewStats gives every dimension the same scale
}

// NewStats returns the mean of each dimension and one scale, the root of the mean variance, for all: a common scale keeps the
// geometry of the catalogue. It panics where sample is empty or ragged. A catalogue without spread gets scale 1.
func NewStats(sample [][]float32) Stats {
	if len(sample) == 0 {
		panic("prior: statistics of an empty sample")
	}
	dim := len(sample[0])
	s := Stats{Mean: make([]float32, dim), Scale: make([]float32, dim)}
	column := make([]float64, len(sample))
	var variance float64
	for d := range dim {
		for i, e := range sample {
			if len(e) != dim {
				panic(fmt.Sprintf("prior: statistics of a ragged sample: %d and %d dimensions", dim, len(e)))
			}
			column[i] = float64(e[d])
		}
		mean, v := stat.PopMeanVariance(column, nil)
		s.Mean[d] = float32(mean)
		variance += v / float64(dim)
	}
	scale := float32(math.Sqrt(variance))
	if !(scale > 0) {
		scale = 1
	}
	for d := range dim {
		s.Scale[d] = scale
	}
	return s
}

// Normalize writes the model-scale form of the embedding e to dst; both are [Dim] and may be the same slice.
func (s Stats) Normalize(dst, e []float32) {
	for d, v := range e[:len(s.Mean)] {
		dst[d] = (v - s.Mean[d]) / s.Scale[d]
	}
}

// Denormalize writes the catalogue-scale form of z to dst; both are [Dim] and may be the same slice.
func (s Stats) Denormalize(dst, z []float32) {
	for d, v := range z[:len(s.Mean)] {
		dst[d] = v*s.Scale[d] + s.Mean[d]
	}
}

// validate holds the statistics against the dimension they should have.
func (s Stats) validate(dim int) error {
	if len(s.Mean) != dim || len(s.Scale) != dim {
		return fmt.Errorf("statistics have %d means and %d scales for %d dimensions", len(s.Mean), len(s.Scale), dim)
	}
	for d := range dim {
		if !finite(s.Mean[d]) || !finite(s.Scale[d]) || s.Scale[d] <= 0 {
			return fmt.Errorf("statistics of dimension %d are mean %v, scale %v", d, s.Mean[d], s.Scale[d])
		}
	}
	return nil
}

func finite(v float32) bool { return v-v == 0 }
