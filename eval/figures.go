package eval

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Figures are the summaries of equal runs with different seeds as one flat set of numbers: the mean over seeds by
// when_group_contestant_measure, of all contestants at the end and of the summary's at the other times, and as ..._range the largest minus the smallest of what the service scored.
func Figures(reports []*Report) map[string]float64 {
	seen := map[string][]float64{}
	add := func(name string, v float64) { seen[name] = append(seen[name], v) }
	for _, r := range reports {
		for _, row := range r.Rows {
			for name, v := range row.Measures {
				if figured(row, name) {
					add(fmt.Sprintf("%s_%s_%s_%s", row.When, row.Group, row.Of, name), v)
				}
			}
		}
		for _, rival := range r.Rivals {
			add(rival.Of+"_examples", float64(rival.Examples))
		}
		for part, s := range r.Seconds {
			add(part+"_s", s)
		}
		if s := r.Seconds["learn"] + r.Seconds["rest"]; s > 0 {
			add("learn_events_per_s", float64(r.World.Events)/s)
		}
		add("steps", float64(r.Spent.Steps))
		add("examples", float64(r.Spent.Examples))
		add("pseudo_examples", float64(r.Spent.Pseudo))
		add("events", float64(r.World.Events))
	}
	out := map[string]float64{"seeds": float64(len(reports))}
	for _, name := range slices.Sorted(maps.Keys(seen)) {
		v := seen[name]
		out[name] = mean(v)
		for _, c := range []string{"p", "cov", "tv"} {
			if len(v) > 1 && strings.HasSuffix(name, "_rebeca_"+c) {
				out[name+"_range"] = slices.Max(v) - slices.Min(v)
			}
		}
	}
	return out
}

// figured says whether a measure of a row is one of the figures.
func figured(row Row, measure string) bool {
	return slices.ContainsFunc(columns, func(c column) bool {
		return c.measure == measure && (c.of == row.Of || c.of == "rebeca" && row.When == "all")
	})
}
