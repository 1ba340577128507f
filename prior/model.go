package prior

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"rebeca/internal/ort"
	"rebeca/prior/graph"
)

// The compiled row shapes. Larger calls are several runs and smaller ones are padded, so a row meets the same kernels, and gives the
// same bits, whatever shares its batch.
const (
	encodeRows  = 8  // contexts
	denoiseRows = 16 // rows
	// fewRows and manyRows are further shapes for kinds that cut embeddings into tokens, whose rows are dear. That all give a row the
	// same bits is no promise of the runtime; TestRowShapesGiveTheSameBits holds it.
	fewRows, manyRows = 1, 64
)

// denoiseShapes lists the row shapes, in rising order.
func (a *architecture) denoiseShapes() []int {
	if a.Tokens > 0 {
		return []int{fewRows, denoiseRows, manyRows}
	}
	return []int{denoiseRows}
}

// Model samples from a prior: the moving average of a State's weights, compiled for inference. It never changes and is safe for
// concurrent use.
type Model struct {
	net      *architecture
	stats    Stats
	identity *identity // shared with the conditions this model encodes
	empty    *Condition
	encoder  *ort.Session

	// running is held shared by calls and exclusively by Close.
	running   sync.RWMutex
	encoders  pool[*encodeTensors]
	denoisers []*denoiser // in rising order of rows
	leapers   []*denoiser // the same of the student; nil without one
	student   bool        // whether there is one
	fidelity  Fidelity    // the student's
	attention attention
}

// denoiser is the compiled denoiser of one row shape.
type denoiser struct {
	rows    int
	session *ort.Session
	tensors pool[*denoiseTensors]
}

func (d *denoiser) close() error {
	d.tensors.close()
	return d.session.Close()
}

// Bytes is about the memory that c takes.
func (c *Condition) Bytes() int { return 4*(len(c.Vector)+len(c.memory)) + 64 }

type identity struct{ _ byte } // not of size zero, so that pointers differ

// NewModel compiles the encoder and the denoiser of s, which it does not keep.
func NewModel(s *State, o ort.Options) (*Model, error) {
	if err := s.validate(); err != nil {
		return nil, fmt.Errorf("opening prior: %w", err)
	}
	m := &Model{net: newArchitecture(s.Config), stats: s.Stats.clone(), identity: new(identity)}
	m.attention.weights, m.attention.options = slices.Clone(s.EMA), o
	err := m.compile(s.EMA, o)
	if err == nil && s.Student != nil {
		err = m.compileStudent(s, o)
	}
	if err != nil {
		m.Close()
		return nil, fmt.Errorf("building prior: %w", err)
	}
	m.encoders.make = func() *encodeTensors { return m.net.newEncodeTensors() }
	if m.net.Kind == kindSimulation {
		return m, nil
	}
	nobody, err := m.encode(1, func(t *encodeTensors, place, _ int) int { return t.clear(m, place) })
	if err != nil {
		m.Close()
		return nil, fmt.Errorf("encoding the empty context: %w", err)
	}
	m.empty = nobody[0]
	return m, nil
}

func (m *Model) compile(flat []float32, o ort.Options) (err error) {
	if m.encoder, err = m.net.encoderGraph(flat).Compile(o); err != nil {
		return err
	}
	for _, rows := range m.net.denoiseShapes() {
		session, err := m.net.denoiserGraph(m.net.layout(), flat, rows, false).Compile(o)
		if err != nil {
			return err
		}
		d := &denoiser{rows: rows, session: session}
		d.tensors.make = func() *denoiseTensors { return m.net.newDenoiseTensors(rows, false) }
		m.denoisers = append(m.denoisers, d)
	}
	return nil
}

// encoderGraph encodes encodeRows contexts with the given weights.
func (a *architecture) encoderGraph(flat []float32) *graph.Graph {
	g := graph.New("encoder")
	memory, user := a.encode(g, a.layout().constants(g, flat), a.windowInputs(g, encodeRows, a.slots()))
	if memory != nil {
		g.Output("memory", memory)
	}
	g.Output("user", user)
	return g
}

// denoiserGraph denoises count rows, each with a context of its own, with the given weights; a student's rows have a leap.
func (a *architecture) denoiserGraph(l *layout, flat []float32, count int, leap bool) *graph.Graph {
	g := graph.New("denoiser")
	w := l.constants(g, flat)
	in := a.rowInputs(g, count)
	if leap {
		in.leap = a.leapOf(g, w, g.Input("leap", count, a.leapFeatures()))
	}
	g.Output("prediction", a.denoise(g, w, in))
	return g
}

// rowInputs declares what count rows are denoised from.
func (a *architecture) rowInputs(g *graph.Graph, count int) rows {
	in := rows{x: g.Input("x", count, a.Dim), features: g.Input("features", count, a.sizes.features())}
	if a.sizes.memory > 0 {
		in.memory = g.Input("memory", count, a.sizes.slots, a.sizes.memory)
	}
	if !a.HasUserTable() {
		in.mask = g.Input("mask", count, 1, a.slots())
	}
	in.user = g.Input("user", count, a.sizes.user)
	if !a.HasUserTable() {
		in.size = g.Input("size", count, 1)
	}
	return in
}

// Config returns the prior's configuration, with its kind resolved.
func (m *Model) Config() Config { return m.net.Config }

// Stats returns the statistics that map embeddings to the model's scale and back. The slices are the model's: read only.
func (m *Model) Stats() Stats { return m.stats }

// Condition is an encoded context: what the denoiser reads of a user. It belongs to the model that encoded it and never changes.
type Condition struct {
	// Vector is the user embedding: the layer norm of the mean token, [Hidden], or the user's row of the table. Read only.
	Vector []float32

	memory   []float32 // [present, memory]: what attention reads of the null token, then of the entries
	entries  int
	identity *identity
}

// encodeTensors are the tensors of one encoder run.
type encodeTensors struct {
	*windowTensors
	memory, user *ort.Tensor
}

func (a *architecture) newEncodeTensors() *encodeTensors {
	t := &encodeTensors{windowTensors: a.newWindowTensors(encodeRows, a.slots()), user: ort.NewTensor(encodeRows, int64(a.sizes.user))}
	if a.sizes.memory > 0 {
		t.memory = ort.NewTensor(encodeRows, int64(a.sizes.slots), int64(a.sizes.memory))
	}
	return t
}

func (t *encodeTensors) close() {
	t.windowTensors.close()
	for _, tensor := range present(t.memory, t.user) {
		tensor.Close()
	}
}

// clear writes the empty context, or nobody, to a place. It returns the number of entries, 0.
func (t *encodeTensors) clear(m *Model, place int) int {
	if m.net.HasUserTable() {
		t.choose(m.net.Config, place, NoUser)
	} else {
		t.set(m.net.Config, m.stats, place, nil)
	}
	return 0
}

// Encode returns the condition of each context, in order. A context that is too long, or an entry of another dimension or without a
// class, is an error, and so is a model with a table of users, which reads no windows: see Users.
func (m *Model) Encode(ctxs []Context) ([]*Condition, error) {
	for i, ctx := range ctxs {
		err := m.net.checkContext(ctx)
		if err == nil && m.net.HasUserTable() {
			err = fmt.Errorf("kind %s has a table of users and reads no windows", m.net.Kind)
		}
		if err != nil {
			return nil, fmt.Errorf("encoding context %d: %w", i, err)
		}
	}
	return m.encode(len(ctxs), func(t *encodeTensors, place, i int) int {
		t.set(m.net.Config, m.stats, place, ctxs[i])
		return len(ctxs[i])
	})
}

// Users returns the conditions of rows of the user table; NoUser is the null row. A row outside the table is an error, and so is a
// model of a kind that reads windows.
func (m *Model) Users(users []int) ([]*Condition, error) {
	for i, user := range users {
		err := m.net.checkUser(user)
		if !m.net.HasUserTable() {
			err = fmt.Errorf("kind %s has no table of users", m.net.Kind)
		}
		if err != nil {
			return nil, fmt.Errorf("encoding user %d: %w", i, err)
		}
	}
	return m.encode(len(users), func(t *encodeTensors, place, i int) int {
		t.choose(m.net.Config, place, users[i])
		return 0
	})
}

// encode runs the encoder for n contexts; write puts the i-th into a place and returns its number of entries.
func (m *Model) encode(n int, write func(t *encodeTensors, place, i int) (entries int)) ([]*Condition, error) {
	m.enter()
	defer m.running.RUnlock()
	t := m.encoders.get()
	defer m.encoders.put(t)
	out := make([]*Condition, 0, n)
	for first := 0; first < n; first += encodeRows {
		var entries [encodeRows]int
		count := min(encodeRows, n-first)
		for place := range encodeRows {
			if place < count {
				entries[place] = write(t, place, first+place)
			} else {
				t.clear(m, place)
			}
		}
		if err := m.encoder.Run(t.inputs(), present(t.memory, t.user)); err != nil {
			return nil, fmt.Errorf("encoding contexts: %w", err)
		}
		for place := range count {
			out = append(out, m.condition(t, place, entries[place]))
		}
	}
	return out, nil
}

// condition copies the result of an encoder run at a place.
func (m *Model) condition(t *encodeTensors, place, entries int) *Condition {
	n := m.net.sizes.user
	c := &Condition{Vector: slices.Clone(t.user.Data()[place*n : (place+1)*n]), entries: entries, identity: m.identity}
	if t.memory != nil {
		absent := m.net.MaxTokens - entries
		first, present := place*m.net.sizes.slots, m.net.sizes.slots-absent
		c.memory = slices.Clone(t.memory.Data()[first*m.net.sizes.memory : (first+present)*m.net.sizes.memory])
	}
	return c
}

// Row says what one row of Denoise is asked for.
type Row struct {
	T     int        // timestep, 0..Timesteps
	Label Class      // ClassNone is the null label
	Cond  *Condition // nil is the empty context, or the null row of a user table
}

// denoiseTensors are the tensors of one denoiser run; nil where the kind has no such input.
type denoiseTensors struct {
	x, features, memory, mask, user, size, leap, prediction *ort.Tensor
}

func (a *architecture) newDenoiseTensors(rows int, leap bool) *denoiseTensors {
	n, d := int64(rows), int64(a.Dim)
	t := &denoiseTensors{
		x: ort.NewTensor(n, d), features: ort.NewTensor(n, int64(a.sizes.features())),
		user: ort.NewTensor(n, int64(a.sizes.user)), prediction: ort.NewTensor(n, d),
	}
	if a.sizes.memory > 0 {
		t.memory = ort.NewTensor(n, int64(a.sizes.slots), int64(a.sizes.memory))
	}
	if !a.HasUserTable() {
		t.mask, t.size = ort.NewTensor(n, 1, int64(a.slots())), ort.NewTensor(n, 1)
	}
	if leap {
		t.leap = ort.NewTensor(n, int64(a.leapFeatures()))
	}
	return t
}

// inputs lists the tensors in the order of denoiserGraph.
func (t *denoiseTensors) inputs() []*ort.Tensor {
	return present(t.x, t.features, t.memory, t.mask, t.user, t.size, t.leap)
}

func (t *denoiseTensors) close() {
	for _, tensor := range append(t.inputs(), t.prediction) {
		tensor.Close()
	}
}

// Denoise writes the estimated z₀ of each row to dst, whatever the objective of the loss. dst and x are [len(rows), Dim] in model
// scale and may be the same slice; x is noised to the timestep of its row. It panics where sizes differ or a condition is of another
// model, and returns an error where a timestep or a label is out of range or the kind has no empty context.
func (m *Model) Denoise(dst, x []float32, rows []Row) error {
	dim := m.net.Dim
	if len(x) != len(rows)*dim || len(dst) != len(x) {
		panic(fmt.Sprintf("prior: denoising %d rows of %d dimensions from %d values to %d", len(rows), dim, len(x), len(dst)))
	}
	if err := m.net.checkRows(rows); err != nil {
		return fmt.Errorf("denoising %w", err)
	}
	m.enter()
	defer m.running.RUnlock()
	for len(rows) > 0 {
		d := denoiserFor(m.denoisers, len(rows))
		n := min(d.rows, len(rows))
		if err := m.denoise(d, dst[:n*dim], x[:n*dim], rows[:n], nil); err != nil {
			return err
		}
		dst, x, rows = dst[n*dim:], x[n*dim:], rows[n:]
	}
	return nil
}

// checkRows holds rows against the configuration.
func (a *architecture) checkRows(rows []Row) error {
	for i, r := range rows {
		if _, ok := a.labelColumn(r.Label); r.T < 0 || r.T > a.Timesteps || !ok {
			return fmt.Errorf("row %d: timestep %d of %d, label %v", i, r.T, a.Timesteps, r.Label)
		}
		if r.Cond == nil && a.Kind == kindSimulation {
			return fmt.Errorf("row %d: no user, which kind %s has no row for", i, a.Kind)
		}
	}
	return nil
}

// denoiserFor returns the largest denoiser that so many rows fill by half at least, or the smallest.
func denoiserFor(shapes []*denoiser, rows int) *denoiser {
	for _, d := range slices.Backward(shapes) {
		if 2*rows >= d.rows {
			return d
		}
	}
	return shapes[0]
}

// denoise is Denoise, or where there are leaps Leap, for at most as many rows as d takes.
func (m *Model) denoise(d *denoiser, dst, x []float32, rows []Row, leaps []Leap) error {
	t := d.tensors.get()
	defer d.tensors.put(t)
	clear(t.x.Data()[copy(t.x.Data(), x):])
	for i := range d.rows {
		m.setRow(t, i, rows[min(i, len(rows)-1)])
	}
	if len(leaps) > 0 {
		for i := range d.rows {
			l := leaps[min(i, len(leaps)-1)]
			m.net.setLeap(t.leap.Data(), i, l.T, l.To, l.Guidance)
		}
	}
	if err := d.session.Run(t.inputs(), []*ort.Tensor{t.prediction}); err != nil {
		return fmt.Errorf("denoising: %w", err)
	}
	dim := m.net.Dim
	for i, r := range rows {
		a, b := i*dim, (i+1)*dim
		m.net.diffusion.estimate(dst[a:b], t.x.Data()[a:b], t.prediction.Data()[a:b], r.T)
	}
	return nil
}

// setRow writes what row i is conditioned on.
func (m *Model) setRow(t *denoiseTensors, i int, r Row) {
	c := r.Cond
	if c == nil {
		c = m.empty
	}
	if c.identity != m.identity {
		panic("prior: a condition was encoded by another model")
	}
	m.net.setFeatures(t.features.Data(), i, r.T, r.Label)
	n := m.net.sizes.user
	copy(t.user.Data()[i*n:(i+1)*n], c.Vector)
	if t.memory != nil {
		// What earlier runs left in absent slots is finite and weighs nothing; it is cleared so that nothing rests on that.
		n := m.net.sizes.slots * m.net.sizes.memory
		memory := t.memory.Data()[i*n : (i+1)*n]
		clear(memory[copy(memory, c.memory):])
	}
	if m.net.HasUserTable() {
		return
	}
	t.size.Data()[i] = sizeFeature(c.entries)
	mask := t.mask.Data()[i*m.net.slots() : (i+1)*m.net.slots()]
	for slot := range mask {
		mask[slot] = masked
		if slot <= c.entries {
			mask[slot] = 0
		}
	}
}

func (m *Model) enter() {
	m.running.RLock()
	if m.encoder == nil {
		m.running.RUnlock()
		panic("prior: use of a closed model")
	}
}

// Close waits for calls in progress and frees the sessions. Conditions of the model stay readable. A second Close does nothing.
func (m *Model) Close() error {
	m.running.Lock()
	defer m.running.Unlock()
	var errs []error
	if m.encoder != nil {
		errs = append(errs, m.encoder.Close())
	}
	for _, d := range slices.Concat(m.denoisers, m.leapers) {
		errs = append(errs, d.close())
	}
	errs = append(errs, m.attention.close())
	m.encoder, m.denoisers, m.leapers = nil, nil, nil
	m.encoders.close()
	return errors.Join(errs...)
}

// pool keeps the tensors of finished runs for the next ones: as many as calls have ever run at once.
type pool[T interface{ close() }] struct {
	make func() T
	mu   sync.Mutex
	idle []T // guarded by mu
}

func (p *pool[T]) get() T {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.idle); n > 0 {
		t := p.idle[n-1]
		p.idle = p.idle[:n-1]
		return t
	}
	return p.make()
}

func (p *pool[T]) put(t T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, t)
}

func (p *pool[T]) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.idle {
		t.close()
	}
	p.idle = nil
}
