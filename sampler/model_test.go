package sampler

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"rebeca/internal/ort"
	"rebeca/prior"
)

var _ Denoiser = (*prior.Model)(nil)

// openModel compiles a prior whose weights are noise: a new prior predicts the mean, whatever it is given.
func openModel(t testing.TB, cfg prior.Config) *prior.Model {
	t.Helper()
	state, err := prior.NewState(cfg, unitStats(cfg.Dim), 1)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(2, 3))
	for i := range state.EMA {
		state.EMA[i] += float32(.1 * rng.NormFloat64())
	}
	m, err := prior.NewModel(state, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// modelJobs are jobs of people with windows of every length, or of every row of a table of users.
func modelJobs(t testing.TB, m *prior.Model, people, each int) []Job {
	t.Helper()
	rng := rand.New(rand.NewPCG(9, 9))
	contexts, rows := make([]prior.Context, people), make([]int, people)
	for i := range contexts {
		if rows[i] = i; m.Config().HasUserTable() {
			continue
		}
		for range i % (m.Config().MaxTokens + 1) {
			item := make([]float32, m.Config().Dim)
			for d := range item {
				item[d] = float32(rng.NormFloat64())
			}
			contexts[i] = append(contexts[i], prior.Entry{Item: item, Class: prior.StrongPositive})
		}
	}
	encode := func() ([]*prior.Condition, error) {
		if m.Config().HasUserTable() {
			return m.Users(rows)
		}
		return m.Encode(contexts)
	}
	conds, err := encode()
	if err != nil {
		t.Fatal(err)
	}
	var out []Job
	for i, c := range conds {
		for k := range each {
			out = append(out, Job{Cond: c, Seed: uint64(i*each + k)})
		}
	}
	return out
}

// TestModelJobsAreIndependent: over the real priors, jobs of many people, strengths and starts give the same bits one by one, in calls
// of 8 and of 64 and all together, in any order.
func TestModelJobsAreIndependent(t *testing.T) {
	window := prior.DefaultConfig(6)
	window.Hidden, window.Blocks, window.Heads, window.MaxTokens = 16, 2, 2, 10
	published := prior.DefaultConfig(16)
	published.Kind, published.Users, published.Tokens, published.Hidden, published.Blocks, published.Heads = "reference", 11, 4, 16, 2, 2
	second := Everywhere(3)
	second.Steps, second.Solver, second.Away, second.NormGuard = 4, DPMSolver2M, .5, 1.2
	for name, cfg := range map[string]prior.Config{"window": window, "reference": published} {
		m := openModel(t, cfg)
		js := modelJobs(t, m, 11, 8)
		for i := range js {
			js[i].Guidance = []float64{0, 1, 2}[i%3]
			js[i].Label = []prior.Class{prior.ClassNone, prior.StrongPositive, prior.StrongNegative, prior.StrongPositive}[i%4]
			if i%5 == 0 { // a start from a like
				item := make([]float32, cfg.Dim)
				item[i%cfg.Dim] = 1
				js[i].Window = liked(item)
			}
		}
		for of, o := range map[string]Options{"default": DefaultOptions(), "2m": second} {
			whole := mustSample(t, m, o, js)
			seen := map[string]bool{}
			for _, e := range whole {
				seen[fmt.Sprint(e)] = true
			}
			if len(seen) != len(js) {
				t.Errorf("%s, %s: %d jobs gave %d different embeddings", name, of, len(js), len(seen))
			}
			order := rand.New(rand.NewPCG(4, 4)).Perm(len(js))
			for _, size := range []int{1, 8, 64} {
				for part := range slices.Chunk(order, size) {
					sub := make([]Job, len(part))
					for k, i := range part {
						sub[k] = js[i]
					}
					for k, e := range mustSample(t, m, o, sub) {
						if !slices.Equal(e, whole[part[k]]) {
							t.Fatalf("%s, %s: job %d in a call of %d gives %v, in one of %d %v", name, of, part[k], len(part), e, len(js), whole[part[k]])
						}
					}
				}
			}
		}
	}
}

func BenchmarkSampleModel(b *testing.B) {
	for _, people := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("dim=16/hidden=96/window=52/jobs=%d", people), func(b *testing.B) {
			m := openModel(b, prior.DefaultConfig(16))
			js := modelJobs(b, m, 53+people, 1)[53-1:][:people]
			b.ReportAllocs()
			for b.Loop() {
				mustSample(b, m, DefaultOptions(), js)
			}
			b.ReportMetric(float64(people*b.N)/b.Elapsed().Seconds(), "samples/s")
		})
	}
}
