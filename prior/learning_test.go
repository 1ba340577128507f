package prior

import (
	"math"
	"math/rand/v2"
	"testing"

	"rebeca/internal/ort"
)

// toyWorld is a catalogue of Gaussian clusters, and users who like some of them.
type toyWorld struct {
	centres [][]float32
	spread  float64
	liked   int // clusters a user likes, 1..liked
	rng     *rand.Rand
}

func newToyWorld(seed uint64, clusters, dim, liked int, spread float64) *toyWorld {
	w := &toyWorld{spread: spread, liked: liked, rng: newRand(seed)}
	for range clusters {
		w.centres = append(w.centres, randomItem(w.rng, dim))
	}
	return w
}

func (w *toyWorld) item(cluster int) []float32 {
	e := randomItem(w.rng, len(w.centres[0]))
	for d, c := range w.centres[cluster] {
		e[d] = c + float32(w.spread)*e[d]
	}
	return e
}

// user draws the clusters of a new user.
func (w *toyWorld) user() []int { return w.rng.Perm(len(w.centres))[:1+w.rng.IntN(w.liked)] }

// window draws entries of a user, half of them aimed at what they like.
func (w *toyWorld) window(likes []int, n int) Context {
	var ctx Context
	for range n {
		cluster := w.rng.IntN(len(w.centres))
		if w.rng.IntN(2) == 0 {
			cluster = likes[w.rng.IntN(len(likes))]
		}
		class := StrongNegative
		for _, l := range likes {
			if l == cluster {
				class = StrongPositive
			}
		}
		ctx = append(ctx, Entry{Item: w.item(cluster), Class: class})
	}
	return ctx
}

// batch draws contexts of random length with liked items as targets. Labels and windows are dropped as in training.
func (w *toyWorld) batch(cfg Config) *Batch {
	b := new(Batch)
	for c := range cfg.Contexts {
		likes := w.user()
		ctx := w.window(likes, w.rng.IntN(cfg.MaxTokens+1))
		if w.rng.Float64() < .17 {
			ctx = nil
		}
		b.Contexts = append(b.Contexts, ctx)
		for range cfg.Targets {
			label := StrongPositive
			if w.rng.Float64() < .12 {
				label = ClassNone
			}
			b.Targets = append(b.Targets, Target{Context: c, Item: w.item(likes[w.rng.IntN(len(likes))]), Label: label})
		}
	}
	return b
}

func (w *toyWorld) nearest(e []float32) int {
	best, at := math.Inf(1), 0
	for i, c := range w.centres {
		var sum float64
		for d := range c {
			sum += float64(e[d]-c[d]) * float64(e[d]-c[d])
		}
		if sum < best {
			best, at = sum, i
		}
	}
	return at
}

func (w *toyWorld) stats() Stats {
	var sample [][]float32
	for i := range 512 {
		sample = append(sample, w.item(i%len(w.centres)))
	}
	return NewStats(sample)
}

// sampleDDIM draws one embedding per condition with plain deterministic DDIM (Song et al. 2021), uniform in t, without guidance.
func sampleDDIM(t testing.TB, m *Model, conditions []*Condition, steps int, rng *rand.Rand) [][]float32 {
	t.Helper()
	cfg := m.Config()
	dim, T := cfg.Dim, cfg.Timesteps
	x, z := make([]float32, len(conditions)*dim), make([]float32, len(conditions)*dim)
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	rows := make([]Row, len(conditions))
	for k := steps; k > 0; k-- {
		at, next := cfg.AlphaBar(T*k/steps), cfg.AlphaBar(T*(k-1)/steps)
		for i, c := range conditions {
			rows[i] = Row{T: T * k / steps, Label: StrongPositive, Cond: c}
		}
		if err := m.Denoise(z, x, rows); err != nil {
			t.Fatal(err)
		}
		for i := range x {
			noise := (float64(x[i]) - math.Sqrt(at)*float64(z[i])) / math.Sqrt(1-at)
			x[i] = float32(math.Sqrt(next)*float64(z[i]) + math.Sqrt(1-next)*noise)
		}
	}
	out := make([][]float32, len(conditions))
	for i := range out {
		out[i] = make([]float32, dim)
		m.Stats().Denormalize(out[i], x[i*dim:(i+1)*dim])
	}
	return out
}

// TestLearning trains tiny priors on a toy world, over the kinds that read windows and the losses: the loss must fall below what the
// same network reaches without windows, and samples for people it has never met must lie in what they like.
func TestLearning(t *testing.T) {
	mlp := Config{Kind: "mlp", Dim: 8, Hidden: 32, Blocks: 2, Heads: 4, MaxTokens: 12, Contexts: 32, Targets: 4, Timesteps: 1000}
	transformer := mlp
	transformer.Kind, transformer.Tokens = kindTransformer, 4
	v := mlp
	v.Loss = Loss{Objective: objectiveV, TimeSampling: timeLognormal, TimeMean: -.3, TimeStd: 1.2}
	epsilon := mlp
	epsilon.Loss = Loss{Objective: objectiveEpsilon, Schedule: scheduleLinear}
	weighted := mlp
	weighted.Loss = Loss{Weighting: weightMinSNR, Gamma: 6}
	for _, c := range []struct {
		name  string
		cfg   Config
		share float64 // of the samples in liked clusters, at least
	}{{"mlp", mlp, .8}, {"transformer", transformer, .8}, {"v", v, .8}, {"epsilon", epsilon, .7}, {"weighted", weighted, .8}} {
		t.Run(c.name, func(t *testing.T) { checkLearning(t, c.cfg, c.share) })
	}
}

func checkLearning(t *testing.T, cfg Config, least float64) {
	world := newToyWorld(3, 8, cfg.Dim, 2, .3)
	state, err := NewState(cfg, world.stats(), 5)
	if err != nil {
		t.Fatal(err)
	}
	l, err := NewLearner(state, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	rng := newRand(7)
	for range 600 {
		if _, err := l.Step(world.batch(cfg), 2e-3, rng); err != nil {
			t.Fatal(err)
		}
	}
	with, without := world.heldOutLoss(t, l)
	share, chance := world.likedShare(t, l)
	t.Logf("loss with windows %.3f, without %.3f; liked share %.3f, chance %.3f", with, without, share, chance)
	if cfg.Loss.Objective != objectiveEpsilon && with > .85*without {
		t.Errorf("loss with windows is %.3f, without %.3f: the windows are not read", with, without)
	}
	if share < least || chance > .35 {
		t.Errorf("%.2f of the samples lie in liked clusters, by chance %.2f would", share, chance)
	}
}

// heldOutLoss evaluates new users with their windows and without.
func (w *toyWorld) heldOutLoss(t testing.TB, l *Learner) (with, without float64) {
	t.Helper()
	const batches = 8
	for i := range batches {
		b := w.batch(l.net.Config)
		loss, err := l.Loss(b, newRand(uint64(i)), true)
		if err != nil {
			t.Fatal(err)
		}
		with += loss / batches
		for c := range b.Contexts {
			b.Contexts[c] = nil
		}
		if loss, err = l.Loss(b, newRand(uint64(i)), true); err != nil {
			t.Fatal(err)
		}
		without += loss / batches
	}
	return with, without
}

// likedShare samples for new users and returns the share of samples in liked clusters, and the share that samples for somebody else
// would have.
func (w *toyWorld) likedShare(t testing.TB, l *Learner) (share, chance float64) {
	t.Helper()
	m, err := NewModel(l.State(), ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	const users = 64
	var contexts []Context
	var likes [][]int
	for range users {
		likes = append(likes, w.user())
		contexts = append(contexts, w.window(likes[len(likes)-1], m.Config().MaxTokens))
	}
	conditions, err := m.Encode(contexts)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range sampleDDIM(t, m, conditions, 12, newRand(11)) {
		at := w.nearest(e)
		for _, liked := range likes[i] {
			if liked == at {
				share += 1. / users
			}
		}
		for _, liked := range likes[(i+1)%users] {
			if liked == at {
				chance += 1. / users
			}
		}
	}
	return share, chance
}
