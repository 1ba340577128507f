package prior

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"rebeca/internal/ort"
	"rebeca/prior/graph"
)

// A lesson is a student's training step: studentRows rows of each of a batch's contexts, all but the last of which are one cell long
// and have the teacher's guided estimate as their goal; the last spans several cells and has the goal of two leaps of the student's
// own fast average (progressive distillation over free spans, after Salimans & Ho 2022 and Frans et al. 2024).
const (
	studentRows  = 4
	studentCells = studentRows - 1 // rows of one cell
	// maxStudentWeight bounds the weight 1/σ² of a row's squared error.
	maxStudentWeight = 5
	fastDecay        = .95
	maxStudentDecay  = .99 // of the moving average that samples
)

// Guidance is how a teacher is sharpened: with strengths from 1 to MaxStudentGuidance where Low ≤ ln(α/σ) ≤ High, not at all elsewhere.
type Guidance struct{ Low, High float64 }

// pupil is what a learner needs to teach a student.
type pupil struct {
	net     *architecture // of studentRows targets
	layout  *layout
	vectors *vectors // of differences
	fast    []float32
	ofFast  []*ort.Tensor // by parameter, over fast
	step    int64
	held    Fidelity
	update  optimizer

	guide, leap, lesson       *ort.Session
	teach, guess, learn       *ort.Binding
	schedule, loss, norm      *ort.Tensor
	window                    *windowTensors
	memory, user              *ort.Tensor // of the contexts, by the teacher
	cells, all, spans         pupilRows   // the rows of one cell, all of them and the spans
	plain, conditional, blind *ort.Tensor // [C·studentCells, ·]: features without a label; the teacher's estimates
	goal, weight, estimate    *ort.Tensor
}

// pupilRows are rows of leaps as tensors.
type pupilRows struct{ x, features, leap *ort.Tensor }

func (a *architecture) newPupilRows(each int) pupilRows {
	n := int64(a.Contexts * each)
	return pupilRows{
		x: ort.NewTensor(n, int64(a.Dim)), features: ort.NewTensor(n, int64(a.sizes.features())),
		leap: ort.NewTensor(n, int64(a.leapFeatures())),
	}
}

// Teach gives the learner a student, or takes over s, which it does not keep. Priors that can have none are an error, see
// Config.CanTeach. It is called once, and not where the state had a student.
func (l *Learner) Teach(s *Student) error {
	if err := s.validate(l.net.Config); err != nil {
		return fmt.Errorf("taking a student: %w", err)
	}
	if l.pupil != nil {
		panic("prior: a learner has a student already")
	}
	p, err := l.newPupil(s)
	if err != nil {
		return errors.Join(fmt.Errorf("building the student's training graphs: %w", err), p.close())
	}
	l.pupil = p
	return nil
}

// Student returns a deep copy of the student, nil if there is none.
func (l *Learner) Student() *Student {
	if l.pupil == nil {
		return nil
	}
	p, at := l.pupil, l.pupil.vectors.flat
	return (&Student{
		Step: p.step, Params: at[flatParams], EMA: at[flatEMA], Fast: p.fast, M: at[flatM], V: at[flatV], Fidelity: p.held,
	}).clone()
}

// StudentSteps returns the steps that the student has taken, and whether there is one.
func (l *Learner) StudentSteps() (steps int64, ok bool) {
	if l.pupil == nil {
		return 0, false
	}
	return l.pupil.step, true
}

// Judge notes how near the student's samples are to its teacher's.
func (l *Learner) Judge(f Fidelity) { l.pupil.held = f }

func (l *Learner) newPupil(s *Student) (p *pupil, err error) {
	p = &pupil{net: l.net.withTargets(studentRows), layout: l.net.studentLayout(), step: s.Step, held: s.Fidelity, fast: slices.Clone(s.Fast)}
	p.allocate()
	if p.vectors, err = p.layout.newVectors(); err != nil {
		return p, err
	}
	for i, data := range [][]float32{s.Params, s.EMA, s.M, s.V} {
		copy(p.vectors.flat[i], data)
	}
	for _, at := range p.layout.parameters {
		t, err := ort.NewTensorFrom(p.fast[at.offset:at.offset+at.size], dims(at.shape)...)
		if err != nil {
			return p, err
		}
		p.ofFast = append(p.ofFast, t)
	}
	if p.update, err = p.layout.newOptimizer(p.vectors, p.schedule, l.options); err != nil {
		return p, err
	}
	return p, p.compile(l)
}

func dims(shape []int) []int64 {
	out := make([]int64, len(shape))
	for i, n := range shape {
		out[i] = int64(n)
	}
	return out
}

func (p *pupil) allocate() {
	a := p.net
	cells, rows, d := int64(a.Contexts*studentCells), int64(a.Contexts*studentRows), int64(a.Dim)
	p.schedule, p.loss, p.norm = ort.NewTensor(numSchedule), ort.NewTensor(1), ort.NewTensor(1)
	p.window = a.newWindowTensors(a.Contexts, a.slots())
	p.memory = ort.NewTensor(int64(a.Contexts), int64(a.sizes.slots), int64(a.sizes.memory))
	p.user = ort.NewTensor(int64(a.Contexts), int64(a.sizes.user))
	p.cells, p.all, p.spans = a.newPupilRows(studentCells), a.newPupilRows(studentRows), a.newPupilRows(1)
	p.plain = ort.NewTensor(cells, int64(a.sizes.features()))
	p.conditional, p.blind = ort.NewTensor(cells, d), ort.NewTensor(cells, d)
	p.goal, p.weight, p.estimate = ort.NewTensor(rows, d), ort.NewTensor(rows, 1), ort.NewTensor(int64(a.Contexts), d)
}

// compile builds the three sessions and binds their tensors.
func (p *pupil) compile(l *Learner) (err error) {
	teacher := l.vectors.whole[flatEMA]
	history, _ := p.net.historySize()
	inner := teacher[history:]
	context := []*ort.Tensor{p.memory, p.window.mask, p.user, p.window.size}
	if p.guide, err = p.net.guideGraph().Compile(l.options); err != nil {
		return err
	}
	if p.leap, err = p.net.leapGraph().Compile(l.options); err != nil {
		return err
	}
	if p.lesson, err = p.net.lessonGraph().Compile(l.options); err != nil {
		return err
	}
	in := slices.Concat(teacher, p.window.inputs(), []*ort.Tensor{p.window.mask, p.window.size, p.cells.x, p.cells.features, p.plain})
	if p.teach, err = p.guide.Bind(in, []*ort.Tensor{p.memory, p.user, p.conditional, p.blind}); err != nil {
		return err
	}
	in = slices.Concat(inner, p.ofFast, []*ort.Tensor{p.spans.x, p.spans.features, p.spans.leap}, context)
	if p.guess, err = p.leap.Bind(in, []*ort.Tensor{p.estimate}); err != nil {
		return err
	}
	in = slices.Concat(inner, p.vectors.whole[flatParams], []*ort.Tensor{p.all.x, p.all.features, p.all.leap}, context, []*ort.Tensor{p.goal, p.weight})
	p.learn, err = p.lesson.Bind(in, slices.Concat([]*ort.Tensor{p.loss}, p.vectors.whole[flatGradient], []*ort.Tensor{p.norm}))
	return err
}

// guideGraph is the teacher's part of a lesson: the memory and the users of the contexts, and the estimates of the rows of one cell
// with their context and label, and without either.
func (a *architecture) guideGraph() *graph.Graph {
	g := graph.New("guide")
	w, _ := a.layout().inputs(g)
	count, contexts := a.Contexts*studentCells, a.Contexts
	win := a.windowInputs(g, contexts, a.slots())
	mask, size := g.Input("mask", contexts, 1, a.slots()), g.Input("size", contexts, 1)
	in := rows{x: g.Input("x", count, a.Dim), features: g.Input("features", count, a.sizes.features()), mask: mask, size: size}
	plain := g.Input("plain", count, a.sizes.features())
	in.memory, in.user = a.encode(g, w, win)
	g.Output("memory", in.memory)
	g.Output("user", in.user)
	g.Output("conditional", a.denoise(g, w, in))
	nobody := a.nobody(g, w)
	nobody.x, nobody.features = in.x, plain
	g.Output("unconditional", a.denoise(g, w, nobody))
	return g
}

// nobody is the empty context, of all rows, encoded with weights w.
func (a *architecture) nobody(g *graph.Graph, w weights) (r rows) {
	slots := a.slots()
	if a.Kind == kindMLP {
		slots = 1 // the others have the number of slots in their graph
	}
	marks, share, mask := make([]float32, slots*numMarks), make([]float32, slots), make([]float32, slots)
	marks[markNull], share[0] = 1, 1
	for i := 1; i < slots; i++ {
		mask[i] = masked
	}
	r.memory, r.user = a.encode(g, w, window{
		items: g.Constant(make([]float32, slots*a.Dim), slots, a.Dim),
		marks: g.Constant(marks, slots, numMarks), share: g.Constant(share, 1, 1, slots),
	})
	r.mask, r.size = g.Constant(mask, 1, 1, slots), g.Constant([]float32{0}, 1, 1)
	return r
}

// student declares the weights of a student as those of its teacher's moving average plus differences, and its rows; it returns its
// predictions for each rows of each context and the differences.
func (a *architecture) student(g *graph.Graph, each int) (prediction *graph.Value, differences []*graph.Value) {
	l := a.studentLayout()
	inherited := l.parameters[:len(l.parameters)-ownParameters]
	base := make([]*graph.Value, len(inherited))
	for i, p := range inherited {
		base[i] = g.Input("teacher."+p.name, p.shape...)
	}
	w, differences := l.inputs(g)
	for i, p := range inherited {
		w[p.name] = g.Add(base[i], differences[i])
	}
	count, contexts := a.Contexts*each, a.Contexts
	in := rows{x: g.Input("x", count, a.Dim), features: g.Input("features", count, a.sizes.features())}
	in.leap = a.leapOf(g, w, g.Input("leap", count, a.leapFeatures()))
	in.memory = g.Input("memory", contexts, a.sizes.slots, a.sizes.memory)
	in.mask, in.user, in.size = g.Input("mask", contexts, 1, a.slots()), g.Input("user", contexts, a.sizes.user), g.Input("size", contexts, 1)
	return a.denoise(g, w, in), differences
}

// leapGraph predicts one row of each context.
func (a *architecture) leapGraph() *graph.Graph {
	g := graph.New("leap")
	prediction, _ := a.student(g, 1)
	g.Output("prediction", prediction)
	return g
}

// lessonGraph is a lesson up to the optimizer: the loss, the gradient of the differences and its norm.
func (a *architecture) lessonGraph() *graph.Graph {
	g := graph.New("lesson")
	prediction, differences := a.student(g, studentRows)
	count := a.Contexts * studentRows
	goal, weight := g.Input("goal", count, a.Dim), g.Input("weight", count, 1)
	loss := g.ReduceSum(g.Mul(g.Square(g.Sub(prediction, goal)), weight), false, 0, 1)
	g.Output("loss", loss)
	outputGradient(g, a.studentLayout(), loss, differences)
	return g
}

// StepStudent takes one step of the student on the contexts of b, from its targets: items that their users like, as which all are
// taken whatever their label. A context may have any number of them; without one it does not count. teacher is how the moving average
// of the weights, as it is now, is sharpened. AdamW is that of Step; the moving average has decay min(.99, 1 - 1/(1+n/5)) at step n.
// Errors are those of Step.
func (l *Learner) StepStudent(b *Batch, teacher Guidance, lr float64, rng *rand.Rand) (StepStats, error) {
	p := l.pupil
	if p == nil {
		panic("prior: a learner without a student")
	}
	stats, err := l.lesson(b, teacher, lr, rng)
	if err != nil {
		return stats, fmt.Errorf("student step %d: %w", p.step+1, err)
	}
	return stats, nil
}

func (l *Learner) lesson(b *Batch, teacher Guidance, lr float64, rng *rand.Rand) (StepStats, error) {
	p := l.pupil
	if !(lr >= 0) || math.IsInf(lr, 0) {
		return StepStats{}, fmt.Errorf("learning rate %v", lr)
	}
	if l.spoilt != nil {
		return StepStats{}, l.spoilt
	}
	leaps, err := p.set(l.stats, b, rng)
	if err != nil {
		return StepStats{}, err
	}
	if err := p.goals(leaps, teacher); err != nil {
		return StepStats{}, err
	}
	if err := p.learn.Run(); err != nil {
		return StepStats{}, err
	}
	stats := StepStats{Loss: float64(p.loss.Data()[0]), GradNorm: float64(p.norm.Data()[0])}
	if !isFinite(stats.Loss) || !isFinite(stats.GradNorm) {
		return stats, fmt.Errorf("loss %v, gradient norm %v at learning rate %v: %w", stats.Loss, stats.GradNorm, lr, ErrNotFinite)
	}
	s := scheduleOf(p.step+1, lr, stats.GradNorm)
	s.ema = 1 - min(maxStudentDecay, 1-1/(1+float64(p.step+1)/5))
	s.write(p.schedule.Data())
	if err := p.update.binding.Run(); err != nil {
		l.spoilt = fmt.Errorf("%w: student step %d: %w", ErrSpoilt, p.step+1, err)
		return stats, l.spoilt
	}
	for i, x := range p.vectors.flat[flatParams] {
		p.fast[i] += (1 - fastDecay) * (x - p.fast[i])
	}
	p.step++
	return stats, nil
}

// leap is a row of a lesson: from node from over node via, to node to. via is to for a row of one cell.
type leap struct {
	from, via, to int
	guidance      float64
}

// set writes contexts and rows of a lesson and returns the leaps, by row; the goals are still to be made.
func (p *pupil) set(stats Stats, b *Batch, rng *rand.Rand) ([]leap, error) {
	a := p.net
	contexts, err := a.checkContexts(b)
	switch {
	case err != nil:
		return nil, err
	case contexts > a.Contexts:
		return nil, fmt.Errorf("batch of %d contexts, more than %d", contexts, a.Contexts)
	case len(b.Targets) == 0:
		return nil, fmt.Errorf("batch without targets")
	}
	starts := make([][][]float32, a.Contexts)
	for i, t := range b.Targets {
		if t.Context < 0 || t.Context >= contexts {
			return nil, fmt.Errorf("target %d names context %d of %d", i, t.Context, contexts)
		}
		if err := a.checkItem(t.Item); err != nil {
			return nil, fmt.Errorf("target %d: %w", i, err)
		}
		starts[t.Context] = append(starts[t.Context], t.Item)
	}
	used := 0
	for c, items := range starts {
		ctx := Context(nil)
		if c < contexts {
			ctx = b.Contexts[c]
		}
		p.window.set(a.Config, stats, c, ctx)
		if len(items) > 0 {
			used += studentRows
		}
	}
	leaps := make([]leap, a.Contexts*studentRows)
	for row := range leaps {
		c, i := row/studentRows, row%studentRows
		leaps[row] = drawLeap(rng, i < studentCells)
		var item []float32
		weight := 0.
		if items := starts[c]; len(items) > 0 {
			item = items[i%len(items)]
			weight = 1 / float64(used*a.Dim)
		}
		p.setRow(stats, row, leaps[row], item, weight, rng)
	}
	return leaps, nil
}

// drawLeap draws a cell, or a span of 2 cells and more with a node on its way, and a guidance.
func drawLeap(rng *rand.Rand, cell bool) leap {
	l := leap{guidance: 1 + (MaxStudentGuidance-1)*rng.Float64()}
	if cell {
		l.from = 1 + rng.IntN(StudentCells)
		l.to = l.from - 1
		l.via = l.to
		return l
	}
	length := 2 + rng.IntN(StudentCells-1)
	l.from = length + rng.IntN(StudentCells-length+1)
	l.to = l.from - length
	l.via = l.to + 1 + rng.IntN(length-1)
	return l
}

// setRow writes a row that starts from an item, nil for a row that does not count, noised.
func (p *pupil) setRow(stats Stats, row int, l leap, item []float32, weight float64, rng *rand.Rand) {
	a := p.net
	t := a.StudentTime(l.from)
	alpha, sigma := a.diffusion.scales(t)
	x := p.all.x.Data()[row*a.Dim : (row+1)*a.Dim]
	clear(x)
	if item != nil {
		stats.Normalize(x, item)
	}
	for d, z := range x {
		x[d] = float32(alpha*float64(z) + sigma*rng.NormFloat64())
	}
	a.setFeatures(p.all.features.Data(), row, t, StrongPositive)
	a.setLeap(p.all.leap.Data(), row, t, a.StudentTime(l.to), l.guidance)
	p.weight.Data()[row] = float32(weight * min(1/(sigma*sigma), maxStudentWeight))
	c, i := row/studentRows, row%studentRows
	if i == studentCells {
		copy(p.spans.x.Data()[c*a.Dim:], x)
		return
	}
	cell := c*studentCells + i
	copy(p.cells.x.Data()[cell*a.Dim:], x)
	a.setFeatures(p.cells.features.Data(), cell, t, StrongPositive)
	a.setFeatures(p.plain.Data(), cell, t, ClassNone)
}

// goals runs the teacher, and the fast average over the spans, and writes the goal of every row.
func (p *pupil) goals(leaps []leap, teacher Guidance) error {
	if err := p.teach.Run(); err != nil {
		return err
	}
	a := p.net
	for row, l := range leaps {
		c, i := row/studentRows, row%studentRows
		if i == studentCells {
			continue
		}
		at := (c*studentCells + i) * a.Dim
		with, without := p.conditional.Data()[at:at+a.Dim], p.blind.Data()[at:at+a.Dim]
		goal := p.goal.Data()[row*a.Dim : (row+1)*a.Dim]
		copy(goal, with)
		if lambda := a.LogSNR(a.StudentTime(l.from)); lambda >= teacher.Low && lambda <= teacher.High {
			for d, u := range without {
				goal[d] = u + float32(l.guidance)*(with[d]-u)
			}
		}
	}
	return p.spanGoals(leaps)
}

// spanGoals makes the goals of the spans: where two leaps of the fast average come to is where one is to come to.
func (p *pupil) spanGoals(leaps []leap) error {
	a := p.net
	hop := func(from, to func(leap) int) error {
		for c := range a.Contexts {
			l := leaps[c*studentRows+studentCells]
			t := a.StudentTime(from(l))
			a.setFeatures(p.spans.features.Data(), c, t, StrongPositive)
			a.setLeap(p.spans.leap.Data(), c, t, a.StudentTime(to(l)), l.guidance)
		}
		if err := p.guess.Run(); err != nil {
			return err
		}
		for c := range a.Contexts {
			l := leaps[c*studentRows+studentCells]
			ofX, ofEstimate := a.diffusion.leap(a.StudentTime(from(l)), a.StudentTime(to(l)))
			for d := c * a.Dim; d < (c+1)*a.Dim; d++ {
				p.spans.x.Data()[d] = float32(ofX*float64(p.spans.x.Data()[d]) + ofEstimate*float64(p.estimate.Data()[d]))
			}
		}
		return nil
	}
	from, via, to := func(l leap) int { return l.from }, func(l leap) int { return l.via }, func(l leap) int { return l.to }
	if err := hop(from, via); err != nil {
		return err
	}
	if err := hop(via, to); err != nil {
		return err
	}
	for c := range a.Contexts {
		row := c*studentRows + studentCells
		ofX, ofEstimate := a.diffusion.leap(a.StudentTime(leaps[row].from), a.StudentTime(leaps[row].to))
		for d := range a.Dim {
			start, end := float64(p.all.x.Data()[row*a.Dim+d]), float64(p.spans.x.Data()[c*a.Dim+d])
			p.goal.Data()[row*a.Dim+d] = float32((end - ofX*start) / ofEstimate)
		}
	}
	return nil
}

// leap returns the factors of x_t and of the estimate of x₀ in x_s, s < t.
func (d *diffusion) leap(t, s int) (ofX, ofEstimate float64) {
	alpha, sigma := d.scales(t)
	alphaTo, sigmaTo := d.scales(s)
	ofX = sigmaTo / sigma
	return ofX, alphaTo - ofX*alpha
}

func (p *pupil) close() error {
	if p == nil {
		return nil
	}
	errs := []error{p.update.close()}
	for _, b := range []*ort.Binding{p.teach, p.guess, p.learn} {
		if b != nil {
			errs = append(errs, b.Close())
		}
	}
	for _, s := range []*ort.Session{p.guide, p.leap, p.lesson} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	p.window.close()
	tensors := present(p.schedule, p.loss, p.norm, p.memory, p.user, p.plain, p.conditional, p.blind, p.goal, p.weight, p.estimate)
	for _, r := range []pupilRows{p.cells, p.all, p.spans} {
		tensors = append(tensors, r.x, r.features, r.leap)
	}
	for _, t := range append(tensors, p.ofFast...) {
		t.Close()
	}
	if p.vectors != nil {
		p.vectors.close()
	}
	return errors.Join(errs...)
}
