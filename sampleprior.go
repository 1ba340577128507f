package rebeca

import (
	"context"
	"fmt"
	"path/filepath"

	"rebeca/prior"
	"rebeca/sampler"
)

// publishedGuidance is that of the published prior's evaluation (arXiv
// 2502.18477).
const publishedGuidance = 5

// PriorSample says what [SamplePrior] draws.
type PriorSample struct {
	Checkpoint string // the file
	// User is a row of the learned table that the published kinds have;
	// prior.NoUser is nobody in particular, which is all that other kinds know
	// without a table of events.
	User  int
	Label prior.Class // what the embedding should be to the user
	Count int
	Seed  uint64
	// Ancestral walks every timestep, as the published prior did, in place of
	// the steps of Config.Sampler.
	Ancestral bool
	// Guidance 0 is 5 for Ancestral, Config.Sampler.Guidance otherwise, and 1
	// for the simulation, which knows none.
	Guidance float64
	Progress func(done, total int) // of Ancestral's timesteps; nil for none
	Decoding func(done, total int) // of the decoder's passes; nil for none
}

// SamplePrior draws from a checkpoint alone, such as an imported one, without a
// state and without Kafka. Of c it reads the sampler, the decoder and the
// runtime, which must be open. The same checkpoint, request and seed give the
// same embeddings.
func SamplePrior(ctx context.Context, c Config, p PriorSample) ([]Sampled, error) {
	state, err := prior.LoadState(p.Checkpoint)
	if err != nil {
		return nil, err
	}
	m, err := prior.NewModel(state, c.RuntimeOptions())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.Checkpoint, err)
	}
	defer m.Close()
	c.Prior.Dim = state.Config.Dim
	d, err := c.OpenDecoder()
	if err != nil {
		return nil, err
	}
	if d != nil {
		defer d.Close()
	}
	job := sampler.Job{Label: p.Label, Guidance: p.guidance(state.Config, c)}
	if state.Config.HasUserTable() || p.User != prior.NoUser {
		users, err := m.Users([]int{p.User})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.Checkpoint, err)
		}
		job.Cond = users[0]
	}
	jobs := sampleJobs(job, p.Count, p.Seed)
	var embeddings [][]float32
	if p.Ancestral {
		embeddings, err = sampler.Ancestral(ctx, m, sampler.Everywhere(job.Guidance), jobs, p.Progress)
	} else {
		embeddings, err = sampler.Sample(m, c.samplerOptions(), jobs)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.Checkpoint, err)
	}
	out, err := decoded(ctx, d, jobs, embeddings, p.Decoding)
	if err != nil {
		return nil, fmt.Errorf("decoding samples of %s: %w", p.Checkpoint, err)
	}
	for i := range out {
		out[i].PriorVersion = filepath.Base(p.Checkpoint)
	}
	return out, nil
}

func (p PriorSample) guidance(prior prior.Config, c Config) float64 {
	switch {
	case p.Guidance != 0:
		return p.Guidance
	case prior.Kind == "simulation":
		return 1
	case p.Ancestral:
		return publishedGuidance
	}
	return c.Sampler.Guidance
}
