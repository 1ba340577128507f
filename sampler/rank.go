package sampler

import (
	"fmt"
	"math"

	"rebeca/internal/nearest"
	"rebeca/prior"
)

// Ranker says how much embeddings should be to the people that they were made for what they were asked to be.
type Ranker interface {
	// Rank returns a score for the embedding [Dim], in the catalogue's scale, of each job: the higher the better. Scores are compared among
	// the candidates of one image only. It is a function of each job and embedding alone.
	Rank(jobs []Job, embeddings [][]float32) ([]float64, error)
}

// Evidence ranks by what the prior itself knows: as a generative classifier (Li et al., arXiv 2303.16203), by how much better it restores
// an embedding from noise when it is told the label that was asked for than when it is told the other side's, given the person's window. By
// Bayes' rule that is what the window says of the chance of a like, up to a constant of the person. It costs four passes a candidate.
type Evidence struct{ Denoiser }

// evidenceLevels are the ln(alpha/sigma) at which evidence is taken: between those where all is noise and where the window says nothing new.
func evidenceLevels() []float64 { return []float64{-.5, .5} }

// evidenceStream keeps the noise of evidence apart from that of samples.
const evidenceStream = 0x7265626563612f65 // "rebeca/e"

// Rank implements [Ranker].
func (r Evidence) Rank(jobs []Job, embeddings [][]float32) ([]float64, error) {
	cfg, stats := r.Config(), r.Stats()
	levels := evidenceLevels()
	n := len(jobs) * len(levels)
	x, z := make([]float32, 2*n*cfg.Dim), make([]float32, n*cfg.Dim)
	rows := make([]prior.Row, 2*n)
	// One noise a level for all: what differs between candidates is not luck.
	noises := make([]float32, len(levels)*cfg.Dim)
	normal(noises, 0, evidenceStream)
	for i, j := range jobs {
		label, other := sides(j.Label)
		for l, level := range levels {
			t := timeAt(cfg, level)
			k := i*len(levels) + l
			of := z[k*cfg.Dim : (k+1)*cfg.Dim]
			stats.Normalize(of, embeddings[i])
			row, again := x[k*cfg.Dim:(k+1)*cfg.Dim], x[(n+k)*cfg.Dim:(n+k+1)*cfg.Dim]
			alpha, sigma := scales(cfg, t)
			for d, e := range noises[l*cfg.Dim : (l+1)*cfg.Dim] {
				row[d] = float32(alpha)*of[d] + float32(sigma)*e
			}
			copy(again, row)
			rows[k], rows[n+k] = prior.Row{T: t, Label: label, Cond: j.Cond}, prior.Row{T: t, Label: other, Cond: j.Cond}
		}
	}
	if n == 0 {
		return nil, nil
	}
	restored := make([]float32, len(x))
	if err := r.Denoise(restored, x, rows); err != nil {
		return nil, fmt.Errorf("ranking %d candidates: %w", len(jobs), err)
	}
	out := make([]float64, len(jobs))
	for k := range n {
		of := z[k*cfg.Dim : (k+1)*cfg.Dim]
		asked, other := restored[k*cfg.Dim:(k+1)*cfg.Dim], restored[(n+k)*cfg.Dim:(n+k+1)*cfg.Dim]
		out[k/len(levels)] += nearest.Square(other, of) - nearest.Square(asked, of)
	}
	for i, v := range out {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, fmt.Errorf("ranking candidate %d: the score is %v", i, v)
		}
	}
	return out, nil
}

// sides returns the label that was asked for and its opposite.
func sides(label prior.Class) (asked, other prior.Class) {
	switch {
	case label == prior.ClassNone:
		return prior.StrongPositive, prior.StrongNegative
	case label.Positive():
		return label, prior.StrongNegative
	}
	return label, prior.StrongPositive
}

// Plain ranks without a model: by how much nearer an embedding is to the nearest entry of the window on the side that was asked for than to
// the nearest one of the other side. A window without one of the two sides says nothing: score 0.
type Plain struct{}

// Rank implements [Ranker].
func (Plain) Rank(jobs []Job, embeddings [][]float32) ([]float64, error) {
	out := make([]float64, len(jobs))
	for i, j := range jobs {
		asked, _ := sides(j.Label)
		near, far := math.Inf(1), math.Inf(1)
		for _, e := range j.Window {
			if len(e.Item) != len(embeddings[i]) {
				return nil, fmt.Errorf("ranking candidate %d: window entry of %d dimensions for one of %d", i, len(e.Item), len(embeddings[i]))
			}
			d := nearest.Square(embeddings[i], e.Item)
			if e.Class.Positive() == asked.Positive() {
				near = min(near, d)
			} else {
				far = min(far, d)
			}
		}
		if !math.IsInf(near, 1) && !math.IsInf(far, 1) {
			out[i] = math.Sqrt(far) - math.Sqrt(near)
		}
	}
	return out, nil
}
