package eval

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"rebeca/internal/meter"
	"rebeca/prior"
	"rebeca/schemas"
)

// FileOptions say what is measured on a recording. Start from [DefaultFileOptions].
type FileOptions struct {
	HeldOut int // items of each person whose answers nobody learns, at most a third of theirs
	Queries int // samples of each person for precision and recall
	Asked   int // likes of the stream that are ranked before they are learned, at most
	Draws   int // samples for such a rank
	People  int // whose held-out answers are asked for, at most

	Progress io.Writer    // nil shows nothing
	Logger   *slog.Logger // nil discards
}

// DefaultFileOptions hold out 10 answers and draw 25 samples a person, as published (arXiv 2502.18477).
func DefaultFileOptions() FileOptions {
	return FileOptions{HeldOut: 10, Queries: 25, Asked: 1000, Draws: 16, People: 500}
}

// others is how many items stand beside the one that was liked next.
const others = 100

// fewLikes is the number of held-out likes below which nobody's precision counts, as published.
const fewLikes = 3

// FileReport is what was measured on a recording.
type FileReport struct {
	Seed    uint64 `json:"seed"`
	Items   int    `json:"items"`
	Dim     int    `json:"dim"`
	People  int    `json:"people"`
	Events  int    `json:"events"`   // learned
	HeldOut int    `json:"held_out"` // answers, each of an item that its person's stream does not have
	Bad     int    `json:"bad"`
	Unknown int    `json:"unknown_item"`
	Resent  int    `json:"resent"`

	Next        []FileRow          `json:"next"` // ranks of the next liked item
	HeldLikes   []FileRow          `json:"held_out_likes"`
	Prequential []Prequential      `json:"prequential"`
	Spent       Spent              `json:"spent"`
	Seconds     map[string]float64 `json:"seconds"`
}

// FileRow is what one contestant scored.
//
//	rank       mean share of the 100 others that are nearer to the samples than the item that was liked next: chance is .5
//	mrr        mean of 1/rank among the 101
//	hit_10     share of such items among the first ten
//	p_K, r_K, f1_K  precision and recall of the union of the K nearest held-out answers of every sample against those liked
//	base       share of held-out answers that are likes
type FileRow struct {
	Of       string   `json:"of"`
	Count    int      `json:"count"` // likes ranked, or people
	Note     string   `json:"note,omitempty"`
	Measures Measures `json:"measures,omitempty"`
}

// playback is one run over a recording.
type playback struct {
	run
	o       FileOptions
	held    map[string][]act
	rng     *rand.Rand
	ranks   map[string][]float64 // by contestant: ranks of the next liked item, 1 to others+1
	rivals  []Contestant
	every   int // of so many likes one is ranked
	likes   int // met so far
	filed   *FileReport
	popular []int // likes of each item so far
}

// RunFiles plays a recording once and returns what was measured: how likely its events were before they were learned, where the next liked
// item stands among others, and how well what each person is given at the end finds their held-out likes.
func RunFiles(ctx context.Context, rec *Recording, recipe Recipe, o FileOptions) (report *FileReport, err error) {
	if err := recipe.Validate(); err != nil {
		return nil, err
	}
	if recipe.Prior.Dim != rec.world.Dim {
		return nil, fmt.Errorf("prior.dim: %d, but the items' embeddings have %d", recipe.Prior.Dim, rec.world.Dim)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	started, w := time.Now(), *rec.world
	p := &playback{o: o, rng: random(w.Seed, useSplit, 2), ranks: map[string][]float64{}, popular: make([]int, len(w.Items))}
	p.world, p.recipe, p.report = &w, recipe, &Report{Seconds: map[string]float64{}}
	p.run.o.Progress = o.Progress
	acts := p.holdOut(rec.acts)
	w.Shape.Events = len(acts)
	heldOut := 0
	for _, of := range p.held {
		heldOut += len(of)
	}
	p.filed = &FileReport{
		Seed: w.Seed, Items: w.Shape.Items, Dim: w.Dim, People: w.Shape.People, Events: len(acts), HeldOut: heldOut,
		Bad: rec.Bad, Unknown: rec.Unknown, Resent: rec.Resent, Next: []FileRow{}, HeldLikes: []FileRow{}, Seconds: p.report.Seconds,
	}
	if p.house, err = openHouse(&w, recipe.Window); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.house.close()) }()
	if p.rebeca, err = newRebeca(recipe, p.house, o.Logger); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.rebeca.Close()) }()
	p.rivals = append([]Contestant{p.rebeca, unsharpened(p.rebeca), population{p.rebeca}}, controls(&w, &yardstick{world: &w, scale: deviation(w.Items)})...)
	p.report.spend("prepare", time.Since(started))
	if err := p.play(ctx, acts); err != nil {
		return nil, err
	}
	if err := p.askHeld(ctx); err != nil {
		return nil, err
	}
	p.filed.Next = p.next()
	p.filed.Prequential = p.forecast.rows()
	p.filed.Spent = p.rebeca.Spent()
	p.report.spend("total", time.Since(started))
	return p.filed, nil
}

// holdOut keeps what every person said of some random items out of the stream, all that they did with those, and returns the rest. An
// undo says nothing by itself, and what says nothing of taste is no answer; where somebody answered twice, the last answer counts.
func (p *playback) holdOut(acts []act) (rest []act) {
	type pair struct {
		user string
		item int
	}
	answers := map[pair]act{}
	items := map[string][]int{}
	var order []string
	for _, a := range acts {
		if a.event.Kind == schemas.KindUndo || p.class(a) == prior.ClassNone {
			continue
		}
		if items[a.user] == nil {
			order = append(order, a.user)
		}
		of := pair{a.user, a.event.Item}
		if _, ok := answers[of]; !ok {
			items[a.user] = append(items[a.user], of.item)
		}
		answers[of] = a
	}
	out := map[pair]bool{}
	p.held = map[string][]act{}
	for _, user := range order {
		of := items[user]
		p.rng.Shuffle(len(of), func(i, j int) { of[i], of[j] = of[j], of[i] })
		for _, item := range of[:min(p.o.HeldOut, len(of)/3)] {
			out[pair{user, item}] = true
			p.held[user] = append(p.held[user], answers[pair{user, item}])
		}
	}
	liked := 0
	for _, a := range acts {
		if !out[pair{a.user, a.event.Item}] {
			rest = append(rest, a)
			if p.class(a).Positive() {
				liked++
			}
		}
	}
	p.every = max(1, (liked+p.o.Asked-1)/max(1, p.o.Asked))
	return rest
}

// class is what an act says.
func (p *playback) class(a act) prior.Class {
	return p.recipe.Window.Classes.Of(schemas.Feedback{Kind: a.event.Kind, Value: a.event.Value})
}

// play is the one pass.
func (p *playback) play(ctx context.Context, acts []act) error {
	start := time.Now()
	if err := p.rebeca.Begin(ctx); err != nil {
		return fmt.Errorf("birth: %w", err)
	}
	p.report.spend("birth", time.Since(start))
	progress := meter.New(p.o.Progress, "events learned", int64(len(acts)))
	for at := 0; at < len(acts); {
		round := acts[at:min(at+p.recipe.Train.Round, len(acts))]
		start := time.Now()
		if err := p.predict(round, at); err != nil {
			return err
		}
		if err := p.rankNext(ctx, round); err != nil {
			return err
		}
		p.report.spend("predict", time.Since(start))
		start = time.Now()
		examples, err := p.house.fold(round)
		if err != nil {
			return err
		}
		if err := p.teach(ctx, examples); err != nil {
			return err
		}
		if err := p.rebeca.load(); err != nil {
			return err
		}
		p.report.spend("learn", time.Since(start))
		at += len(round)
		progress.Set(int64(at))
	}
	progress.Done()
	return p.rebeca.Rest(ctx)
}

// rankNext ranks some of the likes of a round before it is folded: by the window as it was at its beginning.
func (p *playback) rankNext(ctx context.Context, round []act) error {
	var subjects []Subject
	var items []int
	for _, a := range round {
		if !p.class(a).Positive() {
			continue
		}
		if p.likes++; p.likes%p.every == 0 && p.rebeca.Ready() == "" {
			s, err := p.house.subject(a.user, a.event.Person, Person{})
			if err != nil {
				return err
			}
			s.leaveOut(p.world.Items[a.event.Item], a.event.Item)
			subjects, items = append(subjects, s), append(items, a.event.Item)
		}
	}
	if len(subjects) > 0 && len(p.world.Items) > 1 {
		if err := p.rank(ctx, subjects, items); err != nil {
			return err
		}
	}
	for _, a := range round {
		if p.class(a).Positive() {
			p.popular[a.event.Item]++
		}
	}
	return nil
}

// rank places items among others, by the distance to the nearest sample and, for the rival popular, by likes. Equal ones share a place.
func (p *playback) rank(ctx context.Context, subjects []Subject, items []int) error {
	beside := make([][]int, len(items))
	for i, item := range items {
		for range others {
			o := p.rng.IntN(len(p.world.Items) - 1)
			if o >= item {
				o++
			}
			beside[i] = append(beside[i], o)
		}
	}
	for _, c := range p.rivals {
		samples, err := c.Sample(ctx, subjects, p.o.Draws, p.world.Seed^uint64(p.likes))
		if err != nil {
			return fmt.Errorf("asking %s: %w", c.Name(), err)
		}
		for i, item := range items {
			p.ranks[c.Name()] = append(p.ranks[c.Name()], place(item, beside[i], func(k int) float64 {
				near := square(samples[i][0], p.world.Items[k])
				for _, s := range samples[i][1:] {
					near = min(near, square(s, p.world.Items[k]))
				}
				return near
			}))
		}
	}
	for i, item := range items {
		p.ranks["popular"] = append(p.ranks["popular"], place(item, beside[i], func(k int) float64 { return -float64(p.popular[k]) }))
	}
	return nil
}

// place is the rank of an item among others by rising cost, from 1.
func place(item int, beside []int, cost func(int) float64) float64 {
	own, rank := cost(item), 1.
	for _, k := range beside {
		switch other := cost(k); {
		case other < own:
			rank++
		case other == own:
			rank += .5
		}
	}
	return rank
}

// next makes rows of ranks.
func (p *playback) next() []FileRow {
	names := []string{}
	for _, c := range p.rivals {
		names = append(names, c.Name())
	}
	rows := []FileRow{}
	for _, name := range append(names, "popular") {
		ranks := p.ranks[name]
		row := FileRow{Of: name, Count: len(ranks)}
		if len(ranks) == 0 {
			row.Note = "no like was met once there was a prior"
		} else {
			var share, inverse, first []float64
			for _, r := range ranks {
				hit := 0.
				if r <= 10 {
					hit = 1
				}
				share, inverse, first = append(share, (r-1)/others), append(inverse, 1/r), append(first, hit)
			}
			row.Measures = Measures{"rank": mean(share), "mrr": mean(inverse), "hit_10": mean(first)}
		}
		rows = append(rows, row)
	}
	return rows
}

// askHeld scores what people are given at the end against their held-out answers.
func (p *playback) askHeld(ctx context.Context) error {
	start := time.Now()
	defer func() { p.report.spend("measure", time.Since(start)) }()
	var users []string
	for user, of := range p.held {
		n := 0
		for _, a := range of {
			if p.class(a).Positive() {
				n++
			}
		}
		if n >= fewLikes {
			users = append(users, user)
		}
	}
	slices.Sort(users)
	p.rng.Shuffle(len(users), func(i, j int) { users[i], users[j] = users[j], users[i] })
	users = users[:min(len(users), p.o.People)]
	var subjects []Subject
	for _, user := range users {
		s, err := p.house.subject(user, -1, Person{})
		if err != nil {
			return err
		}
		subjects = append(subjects, s)
	}
	for _, c := range p.rivals {
		row := FileRow{Of: c.Name(), Count: len(users)}
		if l, ok := c.(Learner); ok {
			row.Note = l.Ready()
		}
		if _, ok := c.(control); !ok {
			row.Note = p.rebeca.Ready()
		}
		if len(users) == 0 {
			row.Note = fmt.Sprintf("nobody has %d held-out likes", fewLikes)
		}
		if row.Note == "" {
			samples, err := c.Sample(ctx, subjects, p.o.Queries, p.world.Seed^hash("held"))
			if err != nil {
				return fmt.Errorf("asking %s: %w", c.Name(), err)
			}
			row.Measures = p.found(users, samples)
		}
		p.filed.HeldLikes = append(p.filed.HeldLikes, row)
	}
	return nil
}

// found is the mean precision, recall and F1 over people.
func (p *playback) found(users []string, samples [][][]float32) Measures {
	m := Measures{}
	for i, user := range users {
		var pool [][]float32
		var liked []bool
		for _, a := range p.held[user] {
			pool, liked = append(pool, p.world.Items[a.event.Item]), append(liked, p.class(a).Positive())
			if liked[len(liked)-1] {
				m["base"] += 1 / float64(len(p.held[user])) / float64(len(users))
			}
		}
		nearest := newNeighbours(pool).top(samples[i], 5)
		for _, k := range []int{1, 5} {
			h := score(nearest, k, liked)
			m[fmt.Sprint("p_", k)] += h.P / float64(len(users))
			m[fmt.Sprint("r_", k)] += h.R / float64(len(users))
			if h.P+h.R > 0 {
				m[fmt.Sprint("f1_", k)] += 2 * h.P * h.R / (h.P + h.R) / float64(len(users))
			}
		}
	}
	return m
}

// Table writes the report for people.
func (r *FileReport) Table(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%d items of %d dimensions, %d people, %d events learned in one pass, %d held out; passed over: %d bad rows, %d about unknown items, %d resent\n",
		r.Items, r.Dim, r.People, r.Events, r.HeldOut, r.Bad, r.Unknown, r.Resent)
	fmt.Fprintf(&b, "%s\n", r.Spent)
	for _, part := range []struct {
		title   string
		rows    []FileRow
		columns []string
	}{
		{"the next liked item among 100 others", r.Next, []string{"rank", "mrr", "hit_10"}},
		{"held-out likes", r.HeldLikes, []string{"p_1", "r_1", "f1_1", "p_5", "r_5", "f1_5", "base"}},
	} {
		fmt.Fprintf(&b, "\n%-38s %6s", part.title, "count")
		for _, c := range part.columns {
			fmt.Fprintf(&b, " %7s", c)
		}
		b.WriteByte('\n')
		for _, row := range part.rows {
			fmt.Fprintf(&b, "%-38s %6d", row.Of, row.Count)
			for _, c := range part.columns {
				if v, ok := row.Measures[c]; ok {
					fmt.Fprintf(&b, " %7.3f", v)
				} else {
					fmt.Fprintf(&b, " %7s", "-")
				}
			}
			fmt.Fprintln(&b, "", row.Note)
		}
	}
	fmt.Fprintf(&b, "\n%-38s %6s %7s %7s\n", "error of events before they are learned", "events", "loss", "blind")
	for _, q := range r.Prequential {
		fmt.Fprintf(&b, "%-38s %6d %7.3f %7.3f\n", fmt.Sprintf("quarter %d, %s, ln(α/σ) %g", q.Part, q.Class, q.Level), q.Events, q.Loss, q.Blind)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
