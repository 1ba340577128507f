package sampler

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rebeca/internal/ort"
	"rebeca/prior"
)

func mustAncestral(t testing.TB, d Denoiser, guidance float64, js []Job) [][]float32 {
	t.Helper()
	out, err := Ancestral(t.Context(), d, Everywhere(guidance), js, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestAncestralInDistribution holds Ancestral against DDIM and against the shares of the exact denoiser.
func TestAncestralInDistribution(t *testing.T) {
	m := likesOfThree(4)
	const n = 400
	slow, fast := mustAncestral(t, m, 1, jobs(n)), mustSample(t, m, plain(100), jobs(n))
	shares := m.shares(slow)
	for k, want := range []float64{.6, .2, .2} {
		if math.Abs(shares[k]-want) > .09 { // 3.5 standard errors
			t.Errorf("share of component %d is %.3f, want %.1f", k, shares[k], want)
		}
	}
	for d := range m.dim {
		a, b := column(slow, d), column(fast, d)
		slices.Sort(a)
		slices.Sort(b)
		for _, q := range []int{n / 4, n / 2, 3 * n / 4} {
			if math.Abs(a[q]-b[q]) > .5 {
				t.Errorf("dimension %d, rank %d of %d: DDPM %.2f, DDIM %.2f", d, q, n, a[q], b[q])
			}
		}
	}
}

func TestAncestralGuidance(t *testing.T) {
	m := likesOfThree(4)
	js := jobs(100)
	if one, five := m.shares(mustAncestral(t, m, 1, js))[0], m.shares(mustAncestral(t, m, 5, js))[0]; !(five > one+.2) {
		t.Errorf("share of the label's mode is %.2f at guidance 1 and %.2f at 5", one, five)
	}
	// A timestep is a call, and a guided job two rows of it at every noise level.
	m = likesOfThree(4)
	mustAncestral(t, m, 5, js[:3])
	if m.calls.Load() != 1000 || m.rows.Load() != 6000 {
		t.Errorf("%d calls of %d rows, want 1000 of 6000", m.calls.Load(), m.rows.Load())
	}
}

func TestAncestralJobsAreIndependent(t *testing.T) {
	m := likesOfThree(4)
	js := jobs(5)
	js[3].Label, js[4].Guidance = prior.StrongNegative, 2
	whole := mustAncestral(t, m, 3, js)
	for i, j := range js {
		if alone := mustAncestral(t, m, 3, []Job{j})[0]; !slices.Equal(alone, whole[i]) {
			t.Errorf("job %d alone gives %v, among others %v", i, alone, whole[i])
		}
	}
}

func TestAncestralStops(t *testing.T) {
	m := likesOfThree(4)
	ctx, cancel := context.WithCancel(t.Context())
	var told int
	_, err := Ancestral(ctx, m, Everywhere(1), jobs(1), func(done, total int) {
		if told++; done != told || total != 1000 {
			t.Fatalf("progress %d of %d, want %d", done, total, told)
		}
		if done == 3 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || m.calls.Load() != 3 {
		t.Errorf("%v after %d timesteps, want 3", err, m.calls.Load())
	}
	for _, c := range []struct {
		guidance float64
		job      Job
		want     string
	}{{0, Job{}, "guidance: 0"}, {math.NaN(), Job{}, "guidance: NaN"}, {1, Job{Guidance: -1}, "job 0: guidance"}, {1, Job{Label: 9}, "job 0: label"}} {
		if _, err := Ancestral(t.Context(), m, Everywhere(c.guidance), []Job{c.job}, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want one with %q", err, c.want)
		}
	}
	boom := errors.New("device lost")
	m.fail = func([]float32, []prior.Row) error { return boom }
	if _, err := Ancestral(t.Context(), m, Everywhere(1), jobs(1), nil); !errors.Is(err, boom) || !strings.Contains(err.Error(), "t=1000") {
		t.Errorf("error %v of a broken denoiser", err)
	}
}

// TestAncestralIsThePublishedSampler imports the published prior, in a small size, and holds a whole chain with guidance 5 against
// what PyTorch computed on the same noise (tools/parity/fixtures.py).
func TestAncestralIsThePublishedSampler(t *testing.T) {
	f := readFixture(t, "../prior/testdata/reference.safetensors")
	state, err := prior.ImportReference(f.stateDict(t))
	if err != nil {
		t.Fatal(err)
	}
	state.Config.Timesteps = f.config.Timesteps
	m, err := prior.NewModel(state, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	users, err := m.Users([]int{0})
	if err != nil {
		t.Fatal(err)
	}
	r, err := newRun(m, m.Config(), Everywhere(5), []Job{{Cond: users[0]}}, []start{{}})
	if err != nil {
		t.Fatal(err)
	}
	noise, dim := f.values(t, "chain.noise"), m.Config().Dim
	at := f.config.Timesteps // the last row is x_T, row i the noise of timestep i + 1
	got, err := r.ancestral(t.Context(), func(_ int, dst []float64) {
		for i := range dst {
			dst[i] = float64(noise[at*dim+i])
		}
		at--
	}, func(int, int) {})
	if err != nil {
		t.Fatal(err)
	}
	var off, size float64
	for i, want := range f.values(t, "chain.z") {
		off += math.Pow(float64(got[0][i]-want), 2)
		size += math.Pow(float64(want), 2)
	}
	if e := math.Sqrt(off / size); !(e <= 1e-5) {
		t.Errorf("relative error %.2g", e)
	}
}

// fixture is a safetensors file of PyTorch's results.
type fixture struct {
	header map[string]json.RawMessage
	body   []byte
	config prior.Config
}

func readFixture(t testing.TB, path string) *fixture {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := binary.LittleEndian.Uint64(data)
	f := &fixture{body: data[8+n:]}
	var meta struct{ Config string }
	if err := errors.Join(json.Unmarshal(data[8:8+n], &f.header), json.Unmarshal(f.header["__metadata__"], &meta),
		json.Unmarshal([]byte(meta.Config), &f.config)); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) values(t testing.TB, name string) []float32 {
	t.Helper()
	var info struct {
		Offsets [2]int `json:"data_offsets"`
	}
	if err := json.Unmarshal(f.header[name], &info); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	raw := f.body[info.Offsets[0]:info.Offsets[1]]
	out := make([]float32, len(raw)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return out
}

// stateDict writes the tensors under params. as a file of their own.
func (f *fixture) stateDict(t testing.TB) string {
	t.Helper()
	header := map[string]any{"__metadata__": map[string]string{"heads": "2"}}
	for name, info := range f.header {
		if own, ok := strings.CutPrefix(name, "params."); ok {
			header[own] = info
		}
	}
	text, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "published.safetensors")
	file := slices.Concat(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text, f.body)
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
