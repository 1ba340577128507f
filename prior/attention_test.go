package prior

import (
	"math"
	"testing"

	"rebeca/internal/ort"
)

// attentive is a model of random weights, and rows of it with windows of 0 to MaxTokens entries.
func attentive(t *testing.T, kind string, count int) (*Model, []float32, []Row) {
	t.Helper()
	cfg := DefaultConfig(8)
	cfg.Kind, cfg.Hidden, cfg.Blocks, cfg.Heads, cfg.MaxTokens = kind, 16, 2, 2, 6
	state, err := NewState(cfg, unitStats(cfg.Dim), 3)
	if err != nil {
		t.Fatal(err)
	}
	rng := newRand(7)
	for i := range state.EMA {
		state.EMA[i] += float32(.3 * rng.NormFloat64())
	}
	m, err := NewModel(state, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	var contexts []Context
	for i := range count {
		contexts = append(contexts, randomContext(rng, cfg.Dim, i%(cfg.MaxTokens+1)))
	}
	conds, err := m.Encode(contexts)
	if err != nil {
		t.Fatal(err)
	}
	rows, x := make([]Row, count), make([]float32, count*cfg.Dim)
	for i := range rows {
		rows[i] = Row{T: 1 + rng.IntN(cfg.Timesteps), Label: StrongPositive, Cond: conds[i]}
	}
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	return m, x, rows
}

// TestAttentionIsThatOfTheDenoiser holds the compiled shares against the interpreted graph in float64, block by block and head by head.
func TestAttentionIsThatOfTheDenoiser(t *testing.T) {
	for _, kind := range []string{kindMLP, kindTransformer} {
		t.Run(kind, func(t *testing.T) {
			m, x, rows := attentive(t, kind, 11)
			if err := m.Denoise(make([]float32, len(x)), x, rows); err != nil || m.attention.session != nil {
				t.Fatalf("%v; the graph of attention is compiled: %v", err, m.attention.session != nil)
			}
			got, err := m.Attend(x, rows)
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range rows {
				want := m.interpretedAttention(x[i*m.net.Dim:(i+1)*m.net.Dim], r)
				if len(got[i]) != r.Cond.entries {
					t.Fatalf("row %d: %d shares of %d entries", i, len(got[i]), r.Cond.entries)
				}
				sum := 0.
				for k, v := range got[i] {
					sum += float64(v)
					if math.Abs(float64(v)-want[k+1]) > 1e-5 {
						t.Errorf("row %d entry %d: %v, interpreted %v", i, k, v, want[k+1])
					}
				}
				if kind == kindMLP && math.Abs(sum+want[0]-1) > 1e-5 {
					t.Errorf("row %d: all shares add up to %v", i, sum+want[0])
				}
				if sum > 1+1e-5 || r.Cond.entries > 0 && sum <= 0 {
					t.Errorf("row %d: shares add up to %v", i, sum)
				}
			}
			again, err := m.Attend(x[10*m.net.Dim:], rows[10:])
			if err != nil {
				t.Fatal(err)
			}
			for k, v := range again[0] {
				if v != got[10][k] {
					t.Errorf("entry %d: %v alone, %v among others", k, v, got[10][k])
				}
			}
		})
	}
}

// interpretedAttention is the mean attention on every slot by the twin of the runtime.
func (m *Model) interpretedAttention(x []float32, r Row) []float64 {
	tensors := m.net.newDenoiseTensors(1, false)
	defer tensors.close()
	copy(tensors.x.Data(), x)
	m.setRow(tensors, 0, r)
	g := m.net.attentionGraph(m.attention.weights, 1)
	in := map[string][]float64{}
	for i, name := range g.InputNames() {
		for _, v := range tensors.inputs()[i].Data() {
			in[name] = append(in[name], float64(v))
		}
	}
	return g.Interpret(in)["shares"]
}

func TestAttentionRefuses(t *testing.T) {
	m, x, rows := attentive(t, kindMLP, 2)
	rows[1].T = m.net.Timesteps + 1
	if _, err := m.Attend(x, rows); err == nil {
		t.Error("a timestep out of range is taken")
	}
	rows[1].T, rows[1].Cond = 1, nil
	if got, err := m.Attend(x, rows); err != nil || len(got[1]) != 0 {
		t.Errorf("nobody's window: %v, %v", got, err)
	}
}
