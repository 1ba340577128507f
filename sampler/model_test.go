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

func modelJobs(t testing.TB, m *prior.Model, people, each int) []Job {
	t.Helper()
	rng := rand.New(rand.NewPCG(9, 9))
	contexts := make([]prior.Context, people)
	for i := range contexts {
		for range i % (m.Config().MaxTokens + 1) {
			item := make([]float32, m.Config().Dim)
			for d := range item {
				item[d] = float32(rng.NormFloat64())
			}
			contexts[i] = append(contexts[i], prior.Entry{Item: item, Class: prior.StrongPositive})
		}
	}
	conds, err := m.Encode(contexts)
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

// TestModelJobsAreIndependent: over the real prior, one job, a full batch of its rows and many batches give the same bits.
func TestModelJobsAreIndependent(t *testing.T) {
	cfg := prior.DefaultConfig(6)
	cfg.Hidden, cfg.Blocks, cfg.Heads, cfg.MaxTokens = 16, 2, 2, 10
	m := openModel(t, cfg)
	js := modelJobs(t, m, 13, 3)
	whole := mustSample(t, m, DefaultOptions(), js)
	seen := map[string]bool{}
	for _, e := range whole {
		seen[fmt.Sprint(e)] = true
	}
	if len(seen) != len(js) {
		t.Errorf("%d jobs gave %d different embeddings", len(js), len(seen))
	}
	order := rand.New(rand.NewPCG(4, 4)).Perm(len(js))
	for _, size := range []int{1, 8, 25} {
		for part := range slices.Chunk(order, size) {
			sub := make([]Job, len(part))
			for k, i := range part {
				sub[k] = js[i]
			}
			for k, e := range mustSample(t, m, DefaultOptions(), sub) {
				if !slices.Equal(e, whole[part[k]]) {
					t.Fatalf("job %d in a call of %d gives %v, in one of %d %v", part[k], len(part), e, len(js), whole[part[k]])
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
