package eval

import (
	"fmt"
	"math"
	"math/rand/v2"

	"rebeca/prior"
)

// levels are the noise levels ln(α/σ) at which events are predicted.
var levels = []float64{-3, -1.5, -.75, -.25, .25, .75, 1.5}

// predicted is every how many rounds events are predicted: all of them would cost a fifth of the training.
const predicted = 4

// Prequential is the mean squared error, in the model's scale, of the items that people rated, predicted before they were learned: by the
// version that served when the events came, from the window as it was before them and the class of the answer.
type Prequential struct {
	Part   int     `json:"part"`  // quarter of the stream, 1..4
	Class  string  `json:"class"` // of the answer
	Level  float64 `json:"level"` // ln(α/σ)
	Events int     `json:"events"`
	Loss   float64 `json:"loss"`
	Blind  float64 `json:"blind"` // the same without window and class: what is known of the item without knowing anybody
}

// forecast keeps what was predicted.
type forecast struct {
	sums map[forecastKey]*Prequential
}

type forecastKey struct {
	part  int
	class prior.Class
	level int
}

// guess is an event about to be folded, and its person's window before it.
type guess struct {
	context prior.Context
	item    []float32
	class   prior.Class
}

// add predicts guesses of a quarter of the stream.
func (f *forecast) add(m *prior.Model, part int, guesses []guess, rng *rand.Rand) error {
	contexts := make([]prior.Context, len(guesses))
	for i, g := range guesses {
		contexts[i] = g.context
	}
	conditions, err := m.Encode(contexts)
	if err != nil {
		return fmt.Errorf("predicting events: %w", err)
	}
	cfg, dim := m.Config(), m.Config().Dim
	n := len(guesses) * len(levels)
	x, z, known, blind := make([]float32, n*dim), make([]float32, n*dim), make([]prior.Row, n), make([]prior.Row, n)
	times := make([]int, len(levels))
	for l, level := range levels {
		times[l] = timeOf(cfg, level)
	}
	for i, g := range guesses {
		for l, t := range times {
			k := i*len(levels) + l
			m.Stats().Normalize(z[k*dim:(k+1)*dim], g.item)
			bar := cfg.AlphaBar(t)
			for d := range dim {
				x[k*dim+d] = float32(math.Sqrt(bar)*float64(z[k*dim+d]) + math.Sqrt(1-bar)*rng.NormFloat64())
			}
			known[k], blind[k] = prior.Row{T: t, Label: g.class, Cond: conditions[i]}, prior.Row{T: t}
		}
	}
	got, without := make([]float32, n*dim), make([]float32, n*dim)
	if err := m.Denoise(got, x, known); err != nil {
		return fmt.Errorf("predicting events: %w", err)
	}
	if err := m.Denoise(without, x, blind); err != nil {
		return fmt.Errorf("predicting events: %w", err)
	}
	for i, g := range guesses {
		for l := range levels {
			k := i*len(levels) + l
			at := func(v []float32) []float32 { return v[k*dim : (k+1)*dim] }
			f.note(forecastKey{part, g.class, l}, square(at(got), at(z))/float64(dim), square(at(without), at(z))/float64(dim))
		}
	}
	return nil
}

func (f *forecast) note(key forecastKey, loss, blind float64) {
	if f.sums == nil {
		f.sums = map[forecastKey]*Prequential{}
	}
	p := f.sums[key]
	if p == nil {
		p = &Prequential{Part: key.part, Class: key.class.String(), Level: levels[key.level]}
		f.sums[key] = p
	}
	p.Events++
	p.Loss += (loss - p.Loss) / float64(p.Events)
	p.Blind += (blind - p.Blind) / float64(p.Events)
}

// rows returns what was predicted, by part, class and level.
func (f *forecast) rows() []Prequential {
	rows := []Prequential{}
	for part := 1; part <= 4; part++ {
		for class := range prior.Class(prior.NumClasses + 1) {
			for l := range levels {
				if p := f.sums[forecastKey{part, class, l}]; p != nil {
					rows = append(rows, *p)
				}
			}
		}
	}
	return rows
}

// timeOf returns the timestep whose noise level is the nearest.
func timeOf(c prior.Config, level float64) int {
	best := 1
	for t := 1; t < c.Timesteps; t++ {
		if math.Abs(c.LogSNR(t)-level) < math.Abs(c.LogSNR(best)-level) {
			best = t
		}
	}
	return best
}

// guesses reads the windows of people who are about to act. As in training, what a window says of the same item is left out.
func (r *run) guesses(acts []act) ([]guess, error) {
	var out []guess
	for _, a := range acts {
		class := r.recipe.Window.Classes.Of(feedback(a, r.house, 0))
		if class == prior.ClassNone {
			continue
		}
		s, err := r.house.subject(a.user, a.event.Person, Person{})
		if err != nil {
			return nil, err
		}
		item := r.world.Items[a.event.Item]
		s.leaveOut(item, a.event.Item)
		out = append(out, guess{s.Context, item, class})
	}
	return out, nil
}

// predict scores every fourth round before it is folded.
func (r *run) predict(acts []act, done int) error {
	round := done / max(1, r.recipe.Train.Round)
	if round%predicted != 0 || r.rebeca.Ready() != "" {
		return nil
	}
	guesses, err := r.guesses(acts)
	if err != nil || len(guesses) == 0 {
		return err
	}
	part := 1 + min(3, 4*done/max(1, r.world.Shape.Events))
	return r.forecast.add(r.rebeca.model, part, guesses, random(r.world.Seed, useForecast, round))
}
