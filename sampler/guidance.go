package sampler

import (
	"math"

	"rebeca/prior"
)

// pass returns the rows of a call for the first so many jobs: their conditional ones, the unconditional ones of those that are guided at
// their time, and what is disliked by those of them that keep away from it. It copies x for the latter two.
func (r *run) pass(active int) []prior.Row {
	r.guided, r.away = r.guided[:0], r.away[:0]
	for i, t := range r.t[:active] {
		r.rows[i].T = t
		if l := r.level(t).logSNR; r.guidance[i] == 1 || l < r.options.Low || l > r.options.High {
			continue
		}
		r.guided = append(r.guided, i)
		if r.options.Away > 0 && r.rows[i].Label.Positive() {
			r.away = append(r.away, i)
		}
	}
	rows := r.rows[:active:active] // what is appended must not meet the rows of other jobs
	for k, i := range r.guided {
		rows = append(rows, prior.Row{T: r.t[i], Label: prior.ClassNone})
		copy(r.job(r.x, active+k), r.job(r.x, i))
	}
	for k, i := range r.away {
		rows = append(rows, prior.Row{T: r.t[i], Label: prior.StrongNegative, Cond: r.rows[i].Cond})
		copy(r.job(r.x, active+len(r.guided)+k), r.job(r.x, i))
	}
	return rows
}

// guide moves the estimates c of the guided jobs away from the unconditional ones u (Ho and Salimans, arXiv 2207.12598), and where asked
// away from those of dislikes n, each by its own strength (Liu et al., arXiv 2206.01714): u + g(c-u) - a(n-u).
func (r *run) guide(active int) {
	a, kept := float32(r.options.Away), 0
	for k, i := range r.guided {
		c, u := r.job(r.x0, i), r.job(r.x0, active+k)
		bound := r.options.NormGuard * norm(c)
		g := r.guidance[i]
		for d := range c {
			c[d] = u[d] + g*(c[d]-u[d])
		}
		if kept < len(r.away) && r.away[kept] == i {
			n := r.job(r.x0, active+len(r.guided)+kept)
			kept++
			for d := range c {
				c[d] -= a * (n[d] - u[d])
			}
		}
		if bound > 0 {
			shorten(c, bound)
		}
	}
}

// shorten scales v to a norm of at most bound. That guidance makes estimates too large is Lin et al., arXiv 2305.08891, section 3.4.
func shorten(v []float32, bound float64) {
	if long := norm(v); long > bound {
		f := float32(bound / long)
		for d := range v {
			v[d] *= f
		}
	}
}

func norm(v []float32) float64 {
	sum := 0.
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	return math.Sqrt(sum)
}
