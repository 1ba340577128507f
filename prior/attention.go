package prior

import (
	"fmt"
	"sync"

	"rebeca/internal/ort"
	"rebeca/prior/graph"
)

// attentionRows is the compiled row shape of [Model.Attend]: the rows of one walk of a few steps.
const attentionRows = 8

// attention is the denoiser once more, with what its blocks look at in place of what they predict. It is compiled when somebody asks
// first, so that a model that nobody asks pays the memory of its weights and no time.
type attention struct {
	weights []float32 // of the model
	options ort.Options

	mu      sync.Mutex
	session *ort.Session // guarded by mu until made; nil before
	err     error        // guarded by mu; of making it
	tensors pool[*attentionTensors]
}

// attentionTensors are the tensors of one run.
type attentionTensors struct {
	*denoiseTensors
	shares *ort.Tensor // [rows, slots]
}

func (t *attentionTensors) close() {
	t.denoiseTensors.close()
	t.shares.Close()
}

// attentionGraph gives for every row the mean attention on each slot of its window, the null token first, over blocks, heads and the
// tokens of the embedding.
func (a *architecture) attentionGraph(flat []float32, count int) *graph.Graph {
	g := graph.New("attention")
	var seen []*graph.Value
	in := a.rowInputs(g, count)
	in.attended = &seen
	a.denoise(g, a.layout().constants(g, flat), in)
	sum := g.ReduceMean(seen[0], false, 1)
	for _, p := range seen[1:] {
		sum = g.Add(sum, g.ReduceMean(p, false, 1))
	}
	g.Output("shares", g.Mul(sum, g.Scalar(1/float64(len(seen)))))
	return g
}

// open returns the session, compiled at the first call.
func (t *attention) open(a *architecture) (*ort.Session, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.session == nil && t.err == nil {
		t.session, t.err = a.attentionGraph(t.weights, attentionRows).Compile(t.options)
		t.tensors.make = func() *attentionTensors {
			return &attentionTensors{a.newDenoiseTensors(attentionRows, false), ort.NewTensor(attentionRows, int64(a.slots()))}
		}
	}
	return t.session, t.err
}

func (t *attention) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tensors.close()
	if t.session == nil {
		return nil
	}
	return t.session.Close()
}

// Attend returns for each row, as in Denoise, the shares of cross-attention that the entries of its context get, in the context's order:
// the mean over blocks, heads and tokens of the embedding. They add up to less than 1, the rest is on what is always there: the null
// token, and with the transformer the user, the label and the time. A row without a condition has none. The graph is a second one, compiled
// at the first call. Sizes that differ are panics; errors are those of Denoise, and that the kind reads no windows.
func (m *Model) Attend(x []float32, rows []Row) ([][]float32, error) {
	dim := m.net.Dim
	if len(x) != len(rows)*dim {
		panic(fmt.Sprintf("prior: attention of %d rows of %d dimensions from %d values", len(rows), dim, len(x)))
	}
	if m.net.HasUserTable() {
		return nil, fmt.Errorf("attention: kind %s has a table of users and reads no windows", m.net.Kind)
	}
	if err := m.net.checkRows(rows); err != nil {
		return nil, fmt.Errorf("attention of %w", err)
	}
	m.enter()
	defer m.running.RUnlock()
	session, err := m.attention.open(m.net)
	if err != nil {
		return nil, fmt.Errorf("building the graph of attention: %w", err)
	}
	t := m.attention.tensors.get()
	defer m.attention.tensors.put(t)
	out := make([][]float32, 0, len(rows))
	for first := 0; first < len(rows); first += attentionRows {
		some := rows[first:min(first+attentionRows, len(rows))]
		clear(t.x.Data()[copy(t.x.Data(), x[first*dim:(first+len(some))*dim]):])
		for i := range attentionRows {
			m.setRow(t.denoiseTensors, i, some[min(i, len(some)-1)])
		}
		if err := session.Run(t.inputs(), []*ort.Tensor{t.shares}); err != nil {
			return nil, fmt.Errorf("attention: %w", err)
		}
		for i, r := range some {
			out = append(out, m.shares(t, i, r.Cond))
		}
	}
	return out, nil
}

// shares copies those of row i, without the null token.
func (m *Model) shares(t *attentionTensors, i int, c *Condition) []float32 {
	if c == nil {
		return nil
	}
	n := m.net.slots()
	return append(make([]float32, 0, c.entries), t.shares.Data()[i*n+1:i*n+1+c.entries]...)
}
