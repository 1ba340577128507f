package rebeca

import (
	"context"
	"fmt"
	"image"
	"log/slog"

	"rebeca/online"
	"rebeca/prior"
	"rebeca/sampler"
	"rebeca/schemas"
	"rebeca/table"
)

// Sampled is one image made by [SampleUser] or [SamplePrior].
type Sampled struct {
	Seed         uint64      `json:"seed"`
	PriorVersion string      `json:"prior_version"`
	Events       uint64      `json:"events_folded"`
	Embedding    []float32   `json:"embedding"` // [dim], catalogue scale
	Image        image.Image `json:"-"`         // nil without a decoder, and where its safety checker withheld it
}

// SampleUser makes n images for a user from a state and the newest checkpoint
// beside it, without Kafka. A user without feedback gets population taste.
// The same state, checkpoint and seed give the same images. progress, if not
// nil, is told how far decoding is.
func SampleUser(ctx context.Context, c Config, t *table.Table, user string, n int, seed uint64, progress func(done, total int), log *slog.Logger) ([]Sampled, error) {
	cp, ok, err := online.Newest(c.priorDir(), log)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("no checkpoint in %s: the prior is born by `rebeca serve` after the first feedback", c.priorDir())
	}
	lp, err := loadPrior(cp.Version, c.priorDir(), c.priorConfig(), c.RuntimeOptions())
	if err != nil {
		return nil, err
	}
	defer lp.model.Close()
	d, err := c.OpenDecoder()
	if err != nil {
		return nil, err
	}
	if d != nil {
		defer d.Close()
	}
	row, _, err := t.User(user)
	if err != nil {
		return nil, fmt.Errorf("reading user %q: %w", user, err)
	}
	window, _ := t.Context(row)
	conds, err := lp.model.Encode([]prior.Context{window})
	if err != nil {
		return nil, fmt.Errorf("encoding the window of %q: %w", user, err)
	}
	jobs := sampleJobs(sampler.Job{Cond: conds[0], Window: window, Label: prior.StrongPositive, Guidance: c.Sampler.Guidance}, n, seed)
	embeddings, err := sampler.Sample(lp.model, c.samplerOptions(), jobs)
	if err != nil {
		return nil, fmt.Errorf("sampling for %q: %w", user, err)
	}
	out, err := decoded(ctx, d, jobs, embeddings, progress)
	if err != nil {
		return nil, fmt.Errorf("decoding for %q: %w", user, err)
	}
	for i := range out {
		out[i].PriorVersion, out[i].Events = cp.Version.Version, row.Events
	}
	return out, nil
}

// sampleJobs repeats a job with n seeds that follow from one.
func sampleJobs(job sampler.Job, n int, seed uint64) []sampler.Job {
	jobs := make([]sampler.Job, n)
	for i := range jobs {
		jobs[i] = job
		jobs[i].Seed = schemas.Seed(fmt.Sprintf("%d/%d", seed, i))
	}
	return jobs
}

// decoded puts the embeddings of jobs together with their pictures, of which
// there are none where d is nil.
func decoded(ctx context.Context, d *sampler.Decoder, jobs []sampler.Job, embeddings [][]float32, progress func(done, total int)) ([]Sampled, error) {
	out := make([]Sampled, len(jobs))
	for i, j := range jobs {
		out[i] = Sampled{Seed: j.Seed, Embedding: embeddings[i]}
	}
	if d == nil {
		return out, nil
	}
	seeds := make([]uint64, len(jobs))
	for i, j := range jobs {
		seeds[i] = j.Seed
	}
	images, err := d.Decode(ctx, embeddings, seeds, progress)
	if err != nil {
		return nil, err
	}
	for i := range out {
		out[i].Image = images[i]
	}
	return out, nil
}
