package prior

import (
	"errors"
	"math/rand/v2"

	"rebeca/internal/ort"
)

var errSoon = errors.New("prior: not built yet")

type State struct {
	Config            Config
	Stats             Stats
	Seed              uint64
	Step              int64
	Params, EMA, M, V []float32
	Meta              map[string]string
}

func NewState(cfg Config, stats Stats, seed uint64) (*State, error) { return nil, errSoon }
func (s *State) Save(path string) (sha256hex string, err error)     { return "", errSoon }
func LoadState(path string) (*State, error)                         { return nil, errSoon }

type Target struct {
	Context int
	Item    []float32
	Label   Class
}
type Batch struct {
	Contexts []Context
	Targets  []Target
}
type StepStats struct{ Loss, GradNorm float64 }
type Learner struct{}

func NewLearner(s *State, o ort.Options) (*Learner, error) { return nil, errSoon }
func (l *Learner) Step(b *Batch, lr float64, rng *rand.Rand) (StepStats, error) {
	return StepStats{}, errSoon
}
func (l *Learner) Loss(b *Batch, rng *rand.Rand, ema bool) (float64, error) { return 0, errSoon }
func (l *Learner) State() *State                                            { return nil }
func (l *Learner) Close() error                                             { return nil }

type Model struct{}

func NewModel(s *State, o ort.Options) (*Model, error) { return nil, errSoon }
func (m *Model) Config() Config                        { return Config{} }
func (m *Model) Stats() Stats                          { return Stats{} }
func (m *Model) Close() error                          { return nil }

type Condition struct {
	Vector []float32
}

func (m *Model) Encode(ctxs []Context) ([]*Condition, error) { return nil, errSoon }

type Row struct {
	T     int
	Label Class
	Cond  *Condition
}

func (m *Model) Denoise(dst, x []float32, rows []Row) error { return errSoon }
