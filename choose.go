package rebeca

import (
	"time"

	"rebeca/internal/nearest"
	"rebeca/prior"
	"rebeca/sampler"
	"rebeca/schemas"
	"rebeca/table"
)

// The rankers of sampler.choice.ranker.
const (
	rankEvidence = "evidence" // [sampler.Evidence]
	rankPlain    = "plain"    // [sampler.Plain]
	rankNone     = "none"     // novelty and spread alone
)

// batchCandidates bounds the candidates that are drawn together.
const batchCandidates = 8 * schemas.MaxCandidates

// chooser chooses each image among its candidates. It is the generator
// goroutine's own.
type chooser struct {
	config  SamplerConfig
	table   *table.Table
	novelty novelty
	metrics *metrics
}

func newChooser(c SamplerConfig, t *table.Table, m *metrics) *chooser {
	return &chooser{config: c, table: t, novelty: novelty{catalogue: t.Catalogue()}, metrics: m}
}

// candidates is how many are drawn for each image of an intent. Who names a
// seed wants what it gives, and guidance 1 is the plain model: one, unless the
// request says otherwise.
func (c *chooser) candidates(q *queued) int {
	switch {
	case q.Candidates != nil:
		return *q.Candidates
	case q.Seed != nil || q.Guidance != nil && *q.Guidance == 1:
		return 1
	}
	return c.config.Candidates
}

// ranker returns that of the configuration for a prior; nil for none.
func (c *chooser) ranker(m *prior.Model) sampler.Ranker {
	switch c.config.Choice.Ranker {
	case rankEvidence:
		return sampler.Evidence{Denoiser: m}
	case rankPlain:
		return sampler.Plain{}
	}
	return nil
}

// drawn is the images of a batch with their candidates, image after image.
type drawn struct {
	jobs       []sampler.Job // of all candidates
	embeddings [][]float32
	near       []float64 // nil where nothing is chosen or the catalogue is empty
	scores     []float64 // nil without a ranker
}

// draw samples the candidates of a batch. The first candidate of an image is
// the image that it would be alone.
func (c *chooser) draw(m *prior.Model, o sampler.Options, batch []chunk, images []sampler.Job) (d drawn, err error) {
	choice := false
	for _, b := range batch {
		n := c.candidates(b.queued)
		choice = choice || n > 1
		for _, job := range images[:b.n] {
			for k := range n {
				one := job
				if k > 0 {
					one.Seed = schemas.CandidateSeed(job.Seed, k)
				}
				d.jobs = append(d.jobs, one)
			}
		}
		images = images[b.n:]
	}
	if d.embeddings, err = sampler.Sample(m, o, d.jobs); err != nil || !choice {
		return d, err
	}
	d.near = c.novelty.distances(d.embeddings)
	if r := c.ranker(m); r != nil {
		d.scores, err = r.Rank(d.jobs, d.embeddings)
	}
	return d, err
}

// choose writes into the records what was chosen for each image, and returns
// the jobs that it is of. What a person was given is what the state holds when
// the batch is made, without what the same cause made, and then the images
// before it of the same intent: so an intent that is worked on again after a
// crash chooses the same, and so does one in other chunks.
func (c *chooser) choose(m *prior.Model, o sampler.Options, batch []chunk, images []sampler.Job, records []schemas.Generated) ([]sampler.Job, error) {
	d, err := c.draw(m, o, batch, images)
	if err != nil {
		return nil, err
	}
	out, at := make([]sampler.Job, 0, len(images)), 0
	for _, b := range batch {
		n := c.candidates(b.queued)
		var given [][]float32
		if n > 1 {
			if given, err = c.given(b.queued); err != nil {
				return nil, err
			}
		}
		for range b.n {
			place := 0
			r := &records[len(out)]
			if n > 1 {
				place = c.pick(d, at, n, given)
				r.Candidates, r.Candidate = n, place
				if d.scores != nil {
					r.Score = &d.scores[at+place]
				}
			}
			r.Embedding = d.embeddings[at+place]
			given = append([][]float32{r.Embedding}, given...)
			out = append(out, d.jobs[at+place])
			at += n
		}
	}
	return out, nil
}

// given is what the person of an intent was given lately, the newest first,
// and before it what is made of the intent already.
func (c *chooser) given(q *queued) ([][]float32, error) {
	var out [][]float32
	for i := len(q.made) - 1; i >= 0; i-- {
		out = append(out, q.made[i].Embedding)
	}
	before, err := c.table.Given(q.UserID, q.At.Add(-c.config.Choice.GivenFor), c.config.Choice.GivenMost, q.Source)
	if err != nil {
		return nil, err
	}
	return append(out, before...), nil
}

// pick returns the place, among the n candidates from at on, of the one chosen.
func (c *chooser) pick(d drawn, at, n int, given [][]float32) int {
	of := sampler.Candidates{
		Embeddings: d.embeddings[at : at+n], Window: d.jobs[at].Window, Label: d.jobs[at].Label,
		Given: given, Spacing: c.novelty.spacing,
	}
	if d.near != nil {
		of.Near = d.near[at : at+n]
	}
	if d.scores != nil {
		of.Scores = d.scores[at : at+n]
	}
	v := c.config.Choice.choice().Choose(of)
	c.metrics.copies.Add(float64(v.Copies))
	c.metrics.givenAgain.Add(float64(v.Given))
	if v.Stale(n) {
		c.metrics.stale.Inc()
	}
	return v.Place
}

// novelty knows how near the catalogue is. It follows the catalogue at a pace
// that takes a twentieth of a core at most.
type novelty struct {
	catalogue *table.Catalogue
	index     *nearest.Flat
	revision  uint64
	spacing   float64
	again     time.Time
}

const (
	noveltyShare = 20 // of the time that looking at the catalogue takes, until it is looked at again
	noveltyPause = time.Second
)

// distances returns how far each embedding is from the nearest item; nil where
// there is none.
func (n *novelty) distances(embeddings [][]float32) []float64 {
	n.follow(time.Now())
	if n.index.Len() == 0 {
		return nil
	}
	_, distances := n.index.Nearest(embeddings, nil)
	return distances
}

func (n *novelty) follow(now time.Time) {
	if n.index != nil && (now.Before(n.again) || n.catalogue.Revision() == n.revision) {
		return
	}
	blocks, gone, revision := n.catalogue.Blocks()
	n.index, n.revision = nearest.NewFlat(n.catalogue.Dim(), blocks, func(place int) bool { return gone[place] }), revision
	n.spacing = n.index.Spacing()
	n.again = now.Add(max(noveltyPause, noveltyShare*time.Since(now)))
}
