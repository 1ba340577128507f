package eval

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
)

// PaperReport is what [Paper] measured, beside what was published. Everything but Seconds is a function of the recipe and the options,
// on one build of the runtime, one instruction set and one number of threads.
type PaperReport struct {
	Seed        uint64             `json:"seed"`
	Items       int                `json:"items"`
	Rows        int                `json:"rows"` // ratings learned, in one pass
	Samples     int                `json:"samples"`
	Repetitions int                `json:"repetitions"`
	Guidance    float64            `json:"guidance"` // as shipped, in an interval of noise levels
	Steps       int                `json:"steps"`    // as shipped
	PlainSteps  int                `json:"plain_steps"`
	Spent       Spent              `json:"spent"`
	People      []PaperPerson      `json:"people"`
	A           []PaperRow         `json:"protocol_a"`
	B           []PaperRow         `json:"protocol_b"`
	W2          []PaperDistance    `json:"w2"`
	Published   PublishedPaper     `json:"published"`
	Targets     []PaperTarget      `json:"targets"`
	Seconds     map[string]float64 `json:"seconds"`

	world   *experiment
	gallery []portrait
	maps    []dots
}

// PaperPerson is one of the four.
type PaperPerson struct {
	Favourite string `json:"favourite"`
	Likes     int    `json:"likes"`      // rows liked
	TestRows  int    `json:"test_rows"`  //
	TestLikes int    `json:"test_likes"` //
	Window    int    `json:"window"`     // entries that the prior reads
	Liked     int    `json:"liked"`      // likes among them
}

// PaperRow is the precision and recall of one giver for one person, or the mean over people (Person -1), with k samples (protocol A) or
// neighbours (B).
type PaperRow struct {
	Of     string  `json:"of"`
	Person int     `json:"person"`
	K      int     `json:"k"`
	P      float64 `json:"p"`
	SE     float64 `json:"se,omitempty"` // of P over repetitions, as published: population deviation over √repetitions
	R      float64 `json:"r"`
}

// PaperDistance is W2² to all likes of a person; Person -1 is the mean, its Ratio the mean of the ratios.
type PaperDistance struct {
	Of     string  `json:"of"`
	Person int     `json:"person"`
	W2     float64 `json:"w2,omitempty"` // 0: not found, see PaperOptions.Distances
	Floor  float64 `json:"floor"`        // of as many real likes
	Ratio  float64 `json:"ratio,omitempty"`
	Cell   float64 `json:"cell"` // share of samples whose nearest item is of the favourite
}

// PaperTarget is a figure with a bound.
type PaperTarget struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Bound string  `json:"bound"`
	Holds bool    `json:"holds"`
}

// PublishedPaper are the figures stored with the reference implementation (gapatron/REBECA at 20a4366, simulation), macro means over the
// four people, and the floors of W2² in its own latent space. Its latents, its pictures and its split are not this repository's.
type PublishedPaper struct {
	K      []int      `json:"k"`
	A      []float64  `json:"protocol_a_p"`  // of 10 repetitions
	AR     []float64  `json:"protocol_a_r"`  //
	AMean  float64    `json:"a_mean_p"`      // baselines of protocol A at every k
	ARand  []float64  `json:"a_random_p"`    //
	B      [4]figures `json:"protocol_b_p"`  // by person
	BR     [4]figures `json:"protocol_b_r"`  //
	W2     [4]float64 `json:"w2"`            //
	Floor  [4]float64 `json:"w2_floor"`      // recomputed: 1,000 real likes
	W2Mean [4]float64 `json:"w2_mean"`       // of the mean of the likes
	Fair   [4]float64 `json:"w2_catalogue"`  // recomputed: 1,000 random items
	Cell   [2]float64 `json:"ceiling_p"`     // recomputed: range of P at k=1 of resampled likes
	Cell25 [2]float64 `json:"ceiling_p_b25"` // and of protocol B at k=25
}

type figures [5]float64

func publishedPaper() PublishedPaper {
	return PublishedPaper{
		K:     paperKs,
		A:     []float64{.800, .840, .792, .767, .781},
		AR:    []float64{.00068, .00359, .00675, .01303, .01663},
		AMean: .750,
		ARand: []float64{.200, .315, .273, .288, .266},
		B: [4]figures{
			{.792, .773, .748, .701, .677}, {.813, .793, .763, .711, .683},
			{.781, .766, .736, .686, .665}, {.834, .822, .805, .763, .744},
		},
		BR: [4]figures{
			{.066, .287, .471, .681, .742}, {.069, .289, .472, .683, .736},
			{.066, .284, .466, .675, .736}, {.070, .301, .497, .703, .756},
		},
		W2:     [4]float64{1.224, .652, 1.040, .766},
		Floor:  [4]float64{.961, .491, .853, .512},
		W2Mean: [4]float64{5.964, 2.646, 8.938, 4.295},
		Fair:   [4]float64{3.15, 3.64, 5.40, 3.32},
		Cell:   [2]float64{.79, .81},
		Cell25: [2]float64{.67, .69},
	}
}

func newPaperReport(x *experiment) *PaperReport {
	return &PaperReport{
		Seed: x.o.Seed, Items: x.o.Items, Rows: len(x.rows), Samples: x.o.Samples, Repetitions: x.o.Repetitions, PlainSteps: x.o.Steps,
		Published: publishedPaper(), Seconds: map[string]float64{}, world: x,
	}
}

func (r *PaperReport) spend(part string, d time.Duration) { r.Seconds[part] += d.Seconds() }

// gather makes rows and means of what was scored.
func (r *PaperReport) gather(x *experiment, givers []giver, scores []personScores) {
	o := x.rebeca.recipe.Sampler
	r.Guidance, r.Steps = o.Guidance, o.Steps
	for p, s := range scores {
		r.People = append(r.People, PaperPerson{
			Favourite: x.favourite(p).String(), Likes: s.likes, TestRows: s.tests, TestLikes: s.hit,
			Window: len(x.subject[p].Window), Liked: len(x.subject[p].Likes()),
		})
	}
	people := float64(len(scores))
	for gi, g := range givers {
		for ki, k := range paperKs {
			a, b := PaperRow{Of: g.name, Person: -1, K: k}, PaperRow{Of: g.name, Person: -1, K: k}
			for p, s := range scores {
				one := PaperRow{Of: g.name, Person: p, K: k}
				one.P, one.SE, one.R = repeated(s.a[gi][ki])
				r.A = append(r.A, one)
				a.P, a.R, a.SE = a.P+one.P/people, a.R+one.R/people, a.SE+one.SE*one.SE/people/people
				h := s.b[gi][ki]
				r.B = append(r.B, PaperRow{Of: g.name, Person: p, K: k, P: h.P, R: h.R})
				b.P, b.R = b.P+h.P/people, b.R+h.R/people
			}
			a.SE = math.Sqrt(a.SE)
			r.A, r.B = append(r.A, a), append(r.B, b)
		}
		all := PaperDistance{Of: g.name, Person: -1}
		for p, s := range scores {
			d := PaperDistance{Of: g.name, Person: p, W2: s.w2[gi], Floor: x.floors[p], Ratio: s.w2[gi] / x.floors[p], Cell: s.cell[gi]}
			r.W2 = append(r.W2, d)
			all.W2, all.Floor, all.Ratio, all.Cell = all.W2+d.W2/people, all.Floor+d.Floor/people, all.Ratio+d.Ratio/people, all.Cell+d.Cell/people
		}
		r.W2 = append(r.W2, all)
	}
	w2, p := r.distance("rebeca_g1", -1).Ratio, r.row(r.B, "rebeca_g1", -1, 1).P
	r.Targets = []PaperTarget{
		{"W2² over its floor, guidance 1, mean of the four", w2, "≤ 1.2", w2 <= 1.2},
		{"P at 1, protocol B, guidance 1, mean of the four", p, "≥ .79", p >= .79},
	}
}

// repeated is the mean of P, its published error and the mean of R.
func repeated(all []hits) (p, se, r float64) {
	n := float64(len(all))
	for _, h := range all {
		p, r = p+h.P/n, r+h.R/n
	}
	for _, h := range all {
		se += (h.P - p) * (h.P - p) / n
	}
	return p, math.Sqrt(se / n), r
}

// row finds a row; a row that is not there is a mistake of ours.
func (r *PaperReport) row(rows []PaperRow, of string, person, k int) PaperRow {
	at := slices.IndexFunc(rows, func(o PaperRow) bool { return o.Of == of && o.Person == person && o.K == k })
	if at < 0 {
		panic("eval: no row of " + of)
	}
	return rows[at]
}

func (r *PaperReport) distance(of string, person int) PaperDistance {
	at := slices.IndexFunc(r.W2, func(d PaperDistance) bool { return d.Of == of && d.Person == person })
	if at < 0 {
		panic("eval: no distance of " + of)
	}
	return r.W2[at]
}

// paperNames say who is compared, in the order of the tables.
func (r *PaperReport) names() [][2]string {
	return [][2]string{
		{"rebeca_g1", fmt.Sprintf("rebeca, guidance 1, %d steps", r.PlainSteps)},
		{"rebeca", fmt.Sprintf("rebeca as shipped (guidance %g, %d steps)", r.Guidance, r.Steps)},
		{"real", "ceiling: new items that the person likes"},
		{"cell", "ceiling of sharpening: the favourite alone"},
		{"random", "random items"},
		{"mean", "mean of the likes"},
	}
}

// Table writes the figures for people.
func (r *PaperReport) Table(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "the paper's controlled experiment, seed %d: %d items, %d ratings in one pass, %s;", r.Seed, r.Items, r.Rows, r.Spent)
	for _, part := range []string{"prepare", "birth", "learn", "measure", "total"} {
		fmt.Fprintf(&b, " %s %.0f s", part, r.Seconds[part])
	}
	b.WriteString("\n\n")
	for _, t := range r.Targets {
		word := "missed"
		if t.Holds {
			word = "holds"
		}
		fmt.Fprintf(&b, "%-55s %6.3f  %s  %s\n", t.Name, t.Value, t.Bound, word)
	}
	for _, protocol := range []struct {
		title     string
		rows      []PaperRow
		published func(k int) (p, r float64)
	}{
		{"protocol A: k samples, the nearest test row of each", r.A, func(k int) (float64, float64) { return r.Published.A[k], r.Published.AR[k] }},
		{fmt.Sprintf("protocol B: %d samples, the k nearest of all items", r.Samples), r.B, r.Published.meanB},
	} {
		fmt.Fprintf(&b, "\n%-46s %s\n%-46s", protocol.title, "P, then R, mean of the four, at k of", "")
		for range 2 {
			for _, k := range paperKs {
				fmt.Fprintf(&b, " %6d", k)
			}
		}
		b.WriteByte('\n')
		line := func(name string, figure func(k int) (float64, float64)) {
			fmt.Fprintf(&b, "%-46s", name)
			for k := range paperKs {
				p, _ := figure(k)
				fmt.Fprintf(&b, " %6.3f", p)
			}
			for k := range paperKs {
				_, recall := figure(k)
				fmt.Fprintf(&b, " %6.4f", recall)
			}
			b.WriteByte('\n')
		}
		for _, name := range r.names() {
			line(name[1], func(k int) (float64, float64) {
				row := r.row(protocol.rows, name[0], -1, paperKs[k])
				return row.P, row.R
			})
		}
		line("published", protocol.published)
	}
	fmt.Fprintf(&b, "\n%-46s", "W2² to all likes, and over its floor")
	for _, p := range r.People {
		fmt.Fprintf(&b, " %14s", p.Favourite)
	}
	fmt.Fprintf(&b, " %14s\n", "mean")
	for _, name := range r.names() {
		fmt.Fprintf(&b, "%-46s", name[1])
		for p := range len(r.People) + 1 {
			if p == len(r.People) {
				p = -1
			}
			if d := r.distance(name[0], p); d.W2 > 0 {
				fmt.Fprintf(&b, " %7.3f %5.2fx", d.W2, d.Ratio)
			} else {
				fmt.Fprintf(&b, " %14s", "-")
			}
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "%-46s", "published, in its own space")
	ratio := 0.
	for p, w2 := range r.Published.W2 {
		ratio += w2 / r.Published.Floor[p] / 4
		fmt.Fprintf(&b, " %7.3f %5.2fx", w2, w2/r.Published.Floor[p])
	}
	fmt.Fprintf(&b, " %7.3f %5.2fx\n", (r.Published.W2[0]+r.Published.W2[1]+r.Published.W2[2]+r.Published.W2[3])/4, ratio)
	fmt.Fprintf(&b, "\n%-46s", "share of samples nearest to the favourite")
	b.WriteByte('\n')
	for _, name := range r.names()[:3] {
		fmt.Fprintf(&b, "%-46s", name[1])
		for p := range len(r.People) + 1 {
			if p == len(r.People) {
				p = -1
			}
			fmt.Fprintf(&b, " %14.3f", r.distance(name[0], p).Cell)
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// meanB is the mean of protocol B's published figures over the four.
func (p PublishedPaper) meanB(k int) (precision, recall float64) {
	for i := range p.B {
		precision, recall = precision+p.B[i][k]/4, recall+p.BR[i][k]/4
	}
	return precision, recall
}
