package prior

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// State is all that a prior is. The four vectors have one layout, the order of the parameters of its configuration.
type State struct {
	Config Config
	Stats  Stats
	Seed   uint64 // of the initial weights
	Step   int64  // optimizer steps taken
	Params []float32
	EMA    []float32         // moving average of Params; what samples
	M, V   []float32         // Adam's moments
	Meta   map[string]string // the owner's, kept as it is
	// Student, if not nil, is learned beside the prior and samples in its place in few passes.
	Student *Student
}

// NewState returns a prior that has learned nothing yet: it predicts the mean. The same seed gives the same weights.
func NewState(cfg Config, stats Stats, seed uint64) (*State, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("creating prior: %w", err)
	}
	if err := stats.validate(cfg.Dim); err != nil {
		return nil, fmt.Errorf("creating prior: %w", err)
	}
	cfg = cfg.resolved()
	l := cfg.network().layout()
	params := l.draw(rand.New(rand.NewPCG(seed, initStream)))
	return &State{
		Config: cfg, Stats: stats.clone(), Seed: seed, Params: params, EMA: slices.Clone(params),
		M: make([]float32, l.size), V: make([]float32, l.size), Meta: map[string]string{},
	}, nil
}

// initStream separates the draw of initial weights from other uses of the same seed.
const initStream = 0x7265626563610001

// validate holds the state's parts against each other.
func (s *State) validate() error {
	if err := s.Config.Validate(); err != nil {
		return err
	}
	if err := s.Stats.validate(s.Config.Dim); err != nil {
		return err
	}
	if s.Step < 0 {
		return fmt.Errorf("step %d", s.Step)
	}
	l := s.Config.resolved().network().layout()
	for _, v := range s.vectors() {
		if err := v.check(l); err != nil {
			return err
		}
	}
	if s.Student != nil {
		return s.Student.validate(s.Config)
	}
	return nil
}

// vector is one of the state's flat vectors with its name in a checkpoint.
type vector struct {
	name string
	data []float32
}

// check holds a vector against its layout.
func (v vector) check(l *layout) error {
	if len(v.data) != l.size {
		return fmt.Errorf("%s has %d values, this configuration has %d", v.name, len(v.data), l.size)
	}
	for _, p := range l.parameters {
		for i, x := range v.data[p.offset : p.offset+p.size] {
			if !finite(x) {
				return fmt.Errorf("tensor %s.%s holds %v at %d", v.name, p.name, x, i)
			}
		}
	}
	return nil
}

// vectorNames are the names of the flat vectors, in the order of vectors.
func vectorNames() [4]string { return [4]string{"params", "ema", "m", "v"} }

func (s *State) vectors() []vector {
	names := vectorNames()
	var out []vector
	for i, data := range [][]float32{s.Params, s.EMA, s.M, s.V} {
		out = append(out, vector{names[i], data})
	}
	return out
}

func (s Stats) clone() Stats { return Stats{slices.Clone(s.Mean), slices.Clone(s.Scale)} }
