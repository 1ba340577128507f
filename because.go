package rebeca

import (
	"cmp"
	"fmt"
	"slices"

	"rebeca/prior"
	"rebeca/sampler"
	"rebeca/schemas"
)

const (
	// askedCauses is how many events a record names where a request asks and the
	// configuration names none.
	askedCauses = 3
	maxCauses   = 8
)

// causes is how many events the images of an intent are to name.
func (g *generator) causes(q *queued) int {
	switch {
	case q.Explain == nil:
		return g.config.Explain
	case !*q.Explain:
		return 0
	}
	return cmp.Or(g.config.Explain, askedCauses)
}

// explain writes into the records what they are owed to. jobs and records are
// the images of the batch, chunk after chunk. Where nobody asks it does nothing.
func (g *generator) explain(batch []chunk, subjects []subject, jobs []sampler.Job, records []schemas.Generated) error {
	var some []sampler.Job
	var embeddings [][]float32
	var of, at []int // the chunk and the record of each
	first := 0
	for i, c := range batch {
		for k := first; k < first+c.n && g.causes(c.queued) > 0; k++ {
			some, embeddings = append(some, jobs[k]), append(embeddings, records[k].Embedding)
			of, at = append(of, i), append(at, k)
		}
		first += c.n
	}
	if len(some) == 0 {
		return nil
	}
	shares, err := sampler.Attribute(g.current.model, g.sampling, some, embeddings)
	if err != nil {
		return fmt.Errorf("explaining images: %w", err)
	}
	for i, row := range shares {
		records[at[i]].Because = because(subjects[of[i]], some[i].Label, row, g.causes(batch[of[i]].queued))
	}
	return nil
}

// because names the n events with the greatest shares among those that say the
// same of their item as the image was asked for: likes for a like. An event of
// the other side is looked at too, but to be kept away from.
func because(s subject, label prior.Class, shares []float32, n int) []schemas.Cause {
	var out []schemas.Cause
	for k, share := range shares {
		if e := s.entries[k]; e.Class.Positive() == label.Positive() {
			out = append(out, schemas.Cause{ItemID: e.ItemID, Offset: e.Offset, Share: min(float64(share), 1)})
		}
	}
	slices.SortStableFunc(out, func(a, b schemas.Cause) int { return cmp.Compare(b.Share, a.Share) })
	return out[:min(n, len(out))]
}
