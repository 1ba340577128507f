package sampler

import (
	"fmt"

	"rebeca/prior"
)

// Attender is the part of a prior that says what it looks at. Implementations must be safe for concurrent use.
type Attender interface {
	Config() prior.Config
	Stats() prior.Stats
	// Attend returns for each row of x, [len(rows), Dim] row-major in the model's scale, the shares of cross-attention on the entries of
	// the row's context.
	Attend(x []float32, rows []prior.Row) ([][]float32, error)
}

// Attribute says which entries of a job's Window an embedding is owed to: for each job the share of cross-attention that each entry gets,
// in the window's order, averaged over the times of the job's walk, blocks and heads. What is looked at is the embedding, in the
// catalogue's scale, noised to each time by the noise of the job's seed. Shares of a job add up to at most 1; one without a window has none.
// A window that Cond was not made of, and what Sample refuses, are errors.
func Attribute(d Attender, o Options, jobs []Job, embeddings [][]float32) ([][]float32, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("sampler options: %w", err)
	}
	if len(embeddings) != len(jobs) {
		panic(fmt.Sprintf("sampler: %d embeddings of %d jobs", len(embeddings), len(jobs)))
	}
	var x []float32
	var rows []prior.Row
	var of []int // the job of each row
	cfg, stats := d.Config(), d.Stats()
	starts, err := startsOf(cfg, o, jobs)
	if err != nil {
		return nil, err
	}
	z, e := make([]float32, cfg.Dim), make([]float32, cfg.Dim)
	for _, s := range starts {
		i, j := s.place, jobs[s.place]
		if len(j.Window) == 0 {
			continue
		}
		stats.Normalize(z, embeddings[i])
		noise(e, j.Seed)
		label := j.Label
		if label == prior.ClassNone {
			label = prior.StrongPositive
		}
		for _, t := range s.grid {
			alpha, sigma := scales(cfg, t)
			for k := range z {
				x = append(x, float32(alpha)*z[k]+float32(sigma)*e[k])
			}
			rows, of = append(rows, prior.Row{T: t, Label: label, Cond: j.Cond}), append(of, i)
		}
	}
	shares, err := d.Attend(x, rows)
	if err != nil {
		return nil, fmt.Errorf("attributing %d embeddings: %w", len(jobs), err)
	}
	out, count := make([][]float32, len(jobs)), make([]float32, len(jobs))
	for r, i := range of {
		if len(shares[r]) != len(jobs[i].Window) {
			return nil, fmt.Errorf("job %d: the condition is of %d entries, the window has %d", i, len(shares[r]), len(jobs[i].Window))
		}
		if out[i] == nil {
			out[i] = make([]float32, len(shares[r]))
		}
		for k, v := range shares[r] {
			out[i][k] += v
		}
		count[i]++
	}
	for i, row := range out {
		for k := range row {
			row[k] /= count[i]
		}
	}
	return out, nil
}
