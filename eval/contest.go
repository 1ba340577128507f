package eval

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// contestGroups are the groups in whose precision contestants are compared, and contestFigures what else is said of the people of
// the stream.
var (
	contestGroups  = []string{"oldest", "spread", "full", "new_1", "new_2", "new_5", "new_10", "new_20"}
	contestFigures = []string{"cov", "tv", "catalogue", "own", "w2"}
)

// Contest writes who wins where at the end of the stream: the precision of everybody, what they cost, and the two distances that tell
// generation from copying. The highest precision of a group is marked among those who are no oracle; "real" are fresh likes.
func (r *Report) Contest(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%-16s %9s %9s %8s", "", "of events", "pseudo", "seconds")
	for _, g := range contestGroups {
		fmt.Fprintf(&b, " %7s", g)
	}
	for _, f := range contestFigures {
		fmt.Fprintf(&b, " %9s", f)
	}
	b.WriteString("   (the last five of spread)\n")
	best := map[string]float64{}
	var names []string
	for _, row := range r.Rows {
		if row.When != "all" {
			continue
		}
		if !slices.Contains(names, row.Of) {
			names = append(names, row.Of)
		}
		if p, ok := row.Measures["p"]; ok && competes(row.Of) {
			best[row.Group] = max(best[row.Group], p)
		}
	}
	for _, name := range names {
		examples, pseudo, seconds := r.cost(name)
		fmt.Fprintf(&b, "%-16s %9s %9s %8s", name, examples, pseudo, seconds)
		for _, g := range contestGroups {
			p, ok := r.figure("all", g, column{of: name, measure: "p"})
			switch {
			case !ok:
				fmt.Fprintf(&b, " %7s", "-")
			case competes(name) && p >= best[g]:
				fmt.Fprintf(&b, " %6.3f*", p)
			default:
				fmt.Fprintf(&b, " %6.3f ", p)
			}
		}
		for _, f := range contestFigures {
			if v, ok := r.figure("all", "spread", column{of: name, measure: f}); ok {
				fmt.Fprintf(&b, " %9.3f", v)
			} else {
				fmt.Fprintf(&b, " %9s", "-")
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// competes reports whether a contestant knows no more than the stream.
func competes(name string) bool { return name != "real" && !strings.HasPrefix(name, "oracle") }

// cost says what a contestant's learning took, examples of events and of pseudo-users apart; nothing for those who learn nothing.
func (r *Report) cost(name string) (examples, pseudo, seconds string) {
	spent, parts := r.Spent, []string{"birth", "learn", "rest"}
	if name != "rebeca" && name != "rebeca_noise" && name != "rebeca_g1" && name != "population" { // all of one prior
		at := slices.IndexFunc(r.Rivals, func(s RivalSpent) bool { return s.Of == name })
		if at < 0 {
			return "-", "-", "-"
		}
		spent, parts = r.Rivals[at].Spent, []string{"learn_" + name}
	}
	sum := 0.
	for _, p := range parts {
		sum += r.Seconds[p]
	}
	return fmt.Sprint(spent.ofEvents()), fmt.Sprint(spent.Pseudo), fmt.Sprintf("%.0f", sum)
}
