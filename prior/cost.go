package prior

// Cost is the work of a prior's graphs, counted in the matrix products as they are written: floating point operations, two for each
// product of two numbers.
type Cost struct {
	Parameters int
	Step       float64 // a training step on full windows
	Encode     float64 // of one context
	Denoise    float64 // of one row
}

// Cost returns the work of a valid configuration. It builds the graphs and runs nothing.
func (c Config) Cost() Cost {
	a := newArchitecture(c)
	size := a.layout().size
	flat := make([]float32, size)
	return Cost{
		Parameters: size,
		Step:       a.stepGraph(a.slots()).Flops(),
		Encode:     a.encoderGraph(flat).Flops() / encodeRows,
		Denoise:    a.denoiserGraph(a.layout(), flat, denoiseRows, false).Flops() / denoiseRows,
	}
}
