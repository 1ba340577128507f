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
)

// Model samples from a prior: the moving average of a State's weights, compiled for inference. It never changes and is safe for
// concurrent use.
type Model struct {
	net      mlp
	stats    Stats
	times    [][]float32
	identity *identity // shared with the conditions this model encodes
	empty    *Condition
	encoder  *ort.Session
	denoiser *ort.Session

	// running is held shared by calls and exclusively by Close.
	running   sync.RWMutex
	encoders  pool[*encodeTensors]
	denoisers pool[*denoiseTensors]
}

type identity struct{ _ byte } // not of size zero, so that pointers differ

// NewModel compiles the encoder and the denoiser of s, which it does not keep.
func NewModel(s *State, o ort.Options) (*Model, error) {
	if err := s.validate(); err != nil {
		return nil, fmt.Errorf("opening prior: %w", err)
	}
	m := &Model{net: mlp{s.Config.resolved()}, stats: s.Stats.clone(), identity: new(identity)}
	m.times = m.net.timeFeatures()
	if err := m.compile(s.EMA, o); err != nil {
		m.Close()
		return nil, fmt.Errorf("building prior: %w", err)
	}
	m.encoders.make = func() *encodeTensors { return m.net.newEncodeTensors() }
	m.denoisers.make = func() *denoiseTensors { return m.net.newDenoiseTensors() }
	conditions, err := m.Encode([]Context{nil})
	if err != nil {
		m.Close()
		return nil, fmt.Errorf("encoding the empty context: %w", err)
	}
	m.empty = conditions[0]
	return m, nil
}

func (m *Model) compile(flat []float32, o ort.Options) (err error) {
	if m.encoder, err = m.net.encoderGraph(flat).Compile(o); err != nil {
		return err
	}
	m.denoiser, err = m.net.denoiserGraph(flat).Compile(o)
	return err
}

// encoderGraph encodes encodeRows contexts with the given weights.
func (a mlp) encoderGraph(flat []float32) *graph.Graph {
	g := graph.New("encoder")
	tokens, user := a.encode(g, a.layout().constants(g, flat), a.windowInputs(g, encodeRows))
	g.Output("tokens", tokens)
	g.Output("user", user)
	return g
}

// denoiserGraph denoises denoiseRows rows, each with a context of its own, with the given weights.
func (a mlp) denoiserGraph(flat []float32) *graph.Graph {
	g := graph.New("denoiser")
	in := rows{
		x:        g.Input("x", denoiseRows, a.Dim),
		features: g.Input("features", denoiseRows, a.features()),
		tokens:   g.Input("tokens", denoiseRows, a.slots(), a.Hidden),
		mask:     g.Input("mask", denoiseRows, 1, a.slots()),
		user:     g.Input("user", denoiseRows, a.Hidden),
		size:     g.Input("size", denoiseRows, 1),
	}
	g.Output("prediction", a.denoise(g, a.layout().constants(g, flat), in))
	return g
}

// Config returns the prior's configuration, with its kind resolved.
func (m *Model) Config() Config { return m.net.Config }

// Stats returns the statistics that map embeddings to the model's scale and back. The slices are the model's: read only.
func (m *Model) Stats() Stats { return m.stats }

// Condition is an encoded context: what the denoiser reads of a user. It belongs to the model that encoded it and never changes.
type Condition struct {
	// Vector is the user embedding [Hidden]: the layer norm of the mean token. Read only.
	Vector []float32

	tokens   []float32 // [present, Hidden]: the null token, then the entries
	size     float32   // ln(1 + entries)
	identity *identity
}

// encodeTensors are the tensors of one encoder run.
type encodeTensors struct {
	*windowTensors
	tokens, user *ort.Tensor
}

func (a mlp) newEncodeTensors() *encodeTensors {
	return &encodeTensors{
		windowTensors: a.newWindowTensors(encodeRows),
		tokens:        ort.NewTensor(encodeRows, int64(a.slots()), int64(a.Hidden)),
		user:          ort.NewTensor(encodeRows, int64(a.Hidden)),
	}
}

func (t *encodeTensors) close() {
	t.windowTensors.close()
	t.tokens.Close()
	t.user.Close()
}

// Encode returns the condition of each context, in order. A context that is too long, or an entry of another dimension or without a
// class, is an error.
func (m *Model) Encode(ctxs []Context) ([]*Condition, error) {
	for i, ctx := range ctxs {
		if err := m.net.checkContext(ctx); err != nil {
			return nil, fmt.Errorf("encoding context %d: %w", i, err)
		}
	}
	m.enter()
	defer m.running.RUnlock()
	t := m.encoders.get()
	defer m.encoders.put(t)
	out := make([]*Condition, 0, len(ctxs))
	for chunk := range slices.Chunk(ctxs, encodeRows) {
		for i := range encodeRows {
			var ctx Context
			if i < len(chunk) {
				ctx = chunk[i]
			}
			t.set(m.net, m.stats, i, ctx)
		}
		if err := m.encoder.Run([]*ort.Tensor{t.items, t.marks, t.share}, []*ort.Tensor{t.tokens, t.user}); err != nil {
			return nil, fmt.Errorf("encoding contexts: %w", err)
		}
		for i, ctx := range chunk {
			out = append(out, m.condition(t, i, len(ctx)))
		}
	}
	return out, nil
}

// condition copies the i-th result of an encoder run.
func (m *Model) condition(t *encodeTensors, i, entries int) *Condition {
	h := m.net.Hidden
	first := i * m.net.slots() * h
	return &Condition{
		Vector:   slices.Clone(t.user.Data()[i*h : (i+1)*h]),
		tokens:   slices.Clone(t.tokens.Data()[first : first+(entries+1)*h]),
		size:     sizeFeature(entries),
		identity: m.identity,
	}
}

// Row says what one row of Denoise is asked for.
type Row struct {
	T     int        // timestep, 0..Timesteps
	Label Class      // ClassNone is the null label
	Cond  *Condition // nil is the empty context
}

// denoiseTensors are the tensors of one denoiser run.
type denoiseTensors struct {
	x, features, tokens, mask, user, size, prediction *ort.Tensor
}

func (a mlp) newDenoiseTensors() *denoiseTensors {
	d, h, s := int64(a.Dim), int64(a.Hidden), int64(a.slots())
	return &denoiseTensors{
		x: ort.NewTensor(denoiseRows, d), features: ort.NewTensor(denoiseRows, int64(a.features())),
		tokens: ort.NewTensor(denoiseRows, s, h), mask: ort.NewTensor(denoiseRows, 1, s),
		user: ort.NewTensor(denoiseRows, h), size: ort.NewTensor(denoiseRows, 1), prediction: ort.NewTensor(denoiseRows, d),
	}
}

func (t *denoiseTensors) inputs() []*ort.Tensor {
	return []*ort.Tensor{t.x, t.features, t.tokens, t.mask, t.user, t.size}
}

func (t *denoiseTensors) close() {
	for _, tensor := range append(t.inputs(), t.prediction) {
		tensor.Close()
	}
}

// Denoise writes the predicted z₀ of each row to dst. dst and x are [len(rows), Dim] in model scale and may be the same slice; x is
// noised to the timestep of its row. It panics where sizes differ or a condition is of another model, and returns an error where a
// timestep or a label is out of range.
func (m *Model) Denoise(dst, x []float32, rows []Row) error {
	dim := m.net.Dim
	if len(x) != len(rows)*dim || len(dst) != len(x) {
		panic(fmt.Sprintf("prior: denoising %d rows of %d dimensions from %d values to %d", len(rows), dim, len(x), len(dst)))
	}
	for i, r := range rows {
		if r.T < 0 || r.T > m.net.Timesteps || r.Label > NumClasses {
			return fmt.Errorf("denoising row %d: timestep %d of %d, label %v", i, r.T, m.net.Timesteps, r.Label)
		}
	}
	m.enter()
	defer m.running.RUnlock()
	t := m.denoisers.get()
	defer m.denoisers.put(t)
	for first := 0; first < len(rows); first += denoiseRows {
		chunk := rows[first:min(first+denoiseRows, len(rows))]
		from, to := first*dim, (first+len(chunk))*dim
		clear(t.x.Data()[copy(t.x.Data(), x[from:to]):])
		for i := range denoiseRows {
			var r Row
			if i < len(chunk) {
				r = chunk[i]
			}
			m.setRow(t, i, r)
		}
		if err := m.denoiser.Run(t.inputs(), []*ort.Tensor{t.prediction}); err != nil {
			return fmt.Errorf("denoising: %w", err)
		}
		copy(dst[from:to], t.prediction.Data())
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
	h, slots, width := m.net.Hidden, m.net.slots(), m.net.features()
	m.net.setFeatures(t.features.Data()[i*width:(i+1)*width], m.times[r.T], r.Label)
	copy(t.user.Data()[i*h:(i+1)*h], c.Vector)
	t.size.Data()[i] = c.size
	// What earlier runs left in absent slots is finite and weighs nothing; it is cleared so that nothing rests on that.
	tokens := t.tokens.Data()[i*slots*h : (i+1)*slots*h]
	clear(tokens[copy(tokens, c.tokens):])
	mask := t.mask.Data()[i*slots : (i+1)*slots]
	for slot := range mask {
		mask[slot] = masked
		if slot*h < len(c.tokens) {
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
	for _, s := range []*ort.Session{m.encoder, m.denoiser} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	m.encoder, m.denoiser = nil, nil
	m.encoders.close()
	m.denoisers.close()
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
