package prior

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// ImportReference reads weights of the published priors, trained elsewhere, from a PyTorch state dict that was saved as safetensors
// (float32), and returns a State that computes the same outputs: of kind reference where the file has a tokenizer, of kind simulation
// otherwise. Sizes are read off the shapes; the number of heads is Hidden/16, as in every published variant, unless the file's
// __metadata__ says "heads". The objective and the schedule are those of the published runs, x0 and cosine, or epsilon and laplace for
// the simulation, unless __metadata__ says "objective" or "schedule".
//
// The weights become Params and EMA alike; moments are 0; embeddings are not scaled (mean 0, scale 1). The names of the modules are
// those that the tables in this file list; see tools/parity/models.py for the modules themselves. A tensor that is missing,
// left over, of another type or shape, or not finite is an error that names it.
func ImportReference(path string) (*State, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("importing prior: %w", err)
	}
	s, err := importReference(data)
	if err != nil {
		return nil, fmt.Errorf("importing prior %s: %w", path, err)
	}
	return s, nil
}

func importReference(data []byte) (*State, error) {
	f, err := decodeDict(data)
	if err != nil {
		return nil, err
	}
	var cfg Config
	if f.shapes["tok.to_tokens.weight"] != nil {
		cfg, err = f.referenceConfig()
	} else {
		cfg, err = f.simulationConfig()
	}
	if err != nil {
		return nil, err
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	stats := Stats{Mean: make([]float32, cfg.Dim), Scale: slices.Repeat([]float32{1}, cfg.Dim)}
	cfg = cfg.resolved()
	s := &State{Config: cfg, Stats: stats, Meta: map[string]string{}}
	if s.Params, err = f.flat(cfg); err != nil {
		return nil, err
	}
	s.EMA, s.M, s.V = slices.Clone(s.Params), make([]float32, len(s.Params)), make([]float32, len(s.Params))
	return s, s.validate()
}

// dict is a PyTorch state dict.
type dict struct {
	header   map[string]json.RawMessage
	body     []byte
	shapes   map[string][]int
	metadata map[string]string
	used     map[string]bool
}

func decodeDict(data []byte) (*dict, error) {
	f := &dict{shapes: make(map[string][]int), used: make(map[string]bool)}
	var err error
	if f.header, f.body, err = decodeHeader(data); err != nil {
		return nil, err
	}
	if raw := f.header[metadataKey]; raw != nil {
		if err := json.Unmarshal(raw, &f.metadata); err != nil {
			return nil, fmt.Errorf("decoding __metadata__: %w", err)
		}
		delete(f.header, metadataKey)
	}
	for name, raw := range f.header {
		var info tensorInfo
		if err := json.Unmarshal(raw, &info); err != nil {
			return nil, fmt.Errorf("tensor %s: decoding header: %w", name, err)
		}
		f.shapes[name] = info.Shape
	}
	return f, nil
}

// read returns a tensor of the given shape.
func (f *dict) read(name string, shape ...int) ([]float32, error) {
	n := 1
	for _, d := range shape {
		n *= d
	}
	if n > len(f.body)/4 {
		return nil, fmt.Errorf("tensor %s: shape %v in a file of %d bytes", name, shape, len(f.body))
	}
	t := section{name, shape, make([]float32, n)}
	if err := t.decode(f.header[name], f.body); err != nil {
		return nil, fmt.Errorf("tensor %s: %w", name, err)
	}
	f.used[name] = true
	return t.data, nil
}

// size returns a dimension of a tensor, 0 where it has none.
func (f *dict) size(name string, d int) int {
	if s := f.shapes[name]; d < len(s) {
		return s[d]
	}
	return 0
}

// count returns how many modules are called prefix.0, prefix.1, …
func (f *dict) count(prefix string) int {
	number := regexp.MustCompile(`^` + regexp.QuoteMeta(prefix) + `\.(\d{1,3})\.`)
	n := 0
	for name := range f.shapes {
		if m := number.FindStringSubmatch(name); m != nil {
			i, _ := strconv.Atoi(m[1]) // at most three digits
			n = max(n, i+1)
		}
	}
	return n
}

func (f *dict) option(name, standard string) string {
	if v, ok := f.metadata[name]; ok {
		return v
	}
	return standard
}

func (f *dict) referenceConfig() (Config, error) {
	hidden, part := f.size("in_proj.weight", 0), f.size("in_proj.weight", 1)
	heads, err := strconv.Atoi(f.option("heads", strconv.Itoa(hidden/16)))
	if err != nil {
		return Config{}, fmt.Errorf("decoding heads: %w", err)
	}
	c := importedConfig(kindReference, f.size("tok.to_tokens.weight", 0), hidden, f.count("blocks"), heads, f.size("user_emb.weight", 0)-1)
	c.Tokens = c.Dim / max(part, 1)
	c.Loss.Objective, c.Loss.Schedule = f.option("objective", objectiveX0), f.option("schedule", scheduleCosine)
	return c, nil
}

func (f *dict) simulationConfig() (Config, error) {
	c := importedConfig(kindSimulation, f.size("user_emb.weight", 1), f.size("fc_in.weight", 0), f.count("blocks"), 1, f.size("user_emb.weight", 0))
	c.Loss.Objective, c.Loss.Schedule = f.option("objective", objectiveEpsilon), f.option("schedule", scheduleLaplace)
	return c, nil
}

// importedConfig has the batch and the timesteps of the published runs.
func importedConfig(kind string, dim, hidden, blocks, heads, users int) Config {
	return Config{
		Kind: kind, Dim: dim, Hidden: hidden, Blocks: blocks, Heads: heads, Users: users,
		MaxTokens: 1, Contexts: 64, Targets: 1, Timesteps: 1000, Loss: DefaultLoss(),
	}
}

// place says where a tensor of a state dict goes: rows first..first+rows of it, transposed, to columns of ours from column on. A bias is
// a row of ours. Where rows is 0 the tensor is taken as it is.
type place struct {
	theirs      string
	first, rows int
	ours        string
	column      int
}

// flat returns the parameters of a configuration in their layout.
func (f *dict) flat(c Config) ([]float32, error) {
	l := c.network().layout()
	if given := len(f.body) / 4; l.size-c.Dim > given { // the simulation's row for nobody is ours
		return nil, fmt.Errorf("%d numbers, kind %s of these shapes has %d: cut short", given, c.Kind, l.size)
	}
	out := make([]float32, l.size)
	var places []place
	if c.Kind == kindSimulation {
		places = simulationPlaces(c)
		if err := f.norms(c, l, out); err != nil {
			return nil, err
		}
	} else {
		places = referencePlaces(c)
	}
	byName := make(map[string]parameter)
	for _, p := range l.parameters {
		byName[p.name] = p
	}
	for _, at := range places {
		p := byName[at.ours]
		if err := f.move(out[p.offset:p.offset+p.size], p.shape, at); err != nil {
			return nil, err
		}
	}
	var left []string
	for name := range f.shapes {
		if !f.used[name] && !strings.HasSuffix(name, ".num_batches_tracked") {
			left = append(left, name)
		}
	}
	if len(left) > 0 {
		slices.Sort(left)
		return nil, fmt.Errorf("tensor %s: not one of kind %s", left[0], c.Kind)
	}
	return out, nil
}

// move copies one tensor, or rows of it, into a parameter of the given shape.
func (f *dict) move(dst []float32, shape []int, at place) error {
	if at.rows == 0 {
		if at.ours == "user.weight" && f.size(at.theirs, 0) == shape[0]-1 {
			shape = []int{shape[0] - 1, shape[1]} // a table without a row for nobody
		}
		if own, ok := f.shapes[at.theirs]; ok && len(own) == 0 && len(dst) == 1 {
			shape = own // a number without dimensions
		}
		data, err := f.read(at.theirs, shape...)
		copy(dst, data)
		return err
	}
	inputs, columns := 1, shape[len(shape)-1]
	theirs := []int{f.size(at.theirs, 0)} // whose number of rows a map of several parts shares
	if len(shape) == 2 {
		inputs = shape[0]
		theirs = append(theirs, inputs)
	}
	if theirs[0] < at.first+at.rows || len(f.shapes[at.theirs]) != len(shape) {
		return fmt.Errorf("tensor %s: shape %v, want %d rows", at.theirs, f.shapes[at.theirs], at.first+at.rows)
	}
	data, err := f.read(at.theirs, theirs...)
	if err != nil {
		return err
	}
	for row := range at.rows {
		for in := range inputs {
			dst[in*columns+at.column+row] = data[(at.first+row)*inputs+in]
		}
	}
	return nil
}

// linearPlaces lists the weight and the bias of a map with the given number of outputs.
func linearPlaces(theirs string, outputs int, ours string) []place {
	return []place{
		{theirs: theirs + ".weight", rows: outputs, ours: ours + ".weight"}, {theirs: theirs + ".bias", rows: outputs, ours: ours + ".bias"},
	}
}

// referencePlaces lists the tensors of the published prior.
func referencePlaces(c Config) []place {
	h := c.Hidden
	out := slices.Concat(
		linearPlaces("tok.to_tokens", c.Dim, "in.whole"), linearPlaces("in_proj", h, "in.token"),
		linearPlaces("t_embed.0", h, "time.in"), linearPlaces("t_embed.2", h, "time.out"),
		linearPlaces("cond_mlp.0", h, "condition.in"), linearPlaces("cond_mlp.2", h, "condition.out"),
		linearPlaces("head", h, "head"), linearPlaces("out_proj", c.Dim/c.Tokens, "out.token"),
		linearPlaces("tok.from_tokens", c.Dim, "out.whole"),
		[]place{{theirs: "user_emb.weight", ours: "user.weight"}, {theirs: "score_emb.weight", ours: "score.weight"}},
	)
	for b := range c.Blocks {
		theirs, ours := fmt.Sprintf("blocks.%d.", b), blockName(b)
		for i := range 3 {
			for k, part := range []string{"scale", "shift"} {
				for _, kind := range []string{".weight", ".bias"} {
					out = append(out, place{
						theirs: fmt.Sprintf("%sada%d.%s%s", theirs, i+1, part, kind), rows: h,
						ours: "modulation" + kind, column: (modsToken*b + 2*i + k) * h,
					})
				}
			}
		}
		for _, kind := range []string{"weight", "bias"} {
			out = append(out,
				place{theirs: theirs + "self_attn.in_proj_" + kind, rows: 3 * h, ours: ours + "self.in." + kind},
				place{theirs: theirs + "cross.attn.in_proj_" + kind, rows: h, ours: ours + "cross.query." + kind},
				place{theirs: theirs + "cross.attn.in_proj_" + kind, first: h, rows: 2 * h, ours: "memory." + kind, column: 2 * b * h})
		}
		out = slices.Concat(out,
			linearPlaces(theirs+"self_attn.out_proj", h, ours+"self.out"), linearPlaces(theirs+"cross.attn.out_proj", h, ours+"cross.out"),
			[]place{{theirs: theirs + "cross.gate", ours: ours + "cross.gate"}},
			linearPlaces(theirs+"mlp.0", growthMLP*h, ours+"mlp.in"), linearPlaces(theirs+"mlp.2", h, ours+"mlp.out"))
	}
	return out
}

// simulationPlaces lists the tensors of the published prior of the synthetic study, its norms aside.
func simulationPlaces(c Config) []place {
	out := slices.Concat(
		[]place{{theirs: "user_emb.weight", ours: "user.weight"}, {theirs: "score_emb.weight", ours: "score.weight"}},
		linearPlaces("fc_in", c.Hidden, "in"), linearPlaces("fc_out", c.Dim, "out"))
	for b := range c.Blocks {
		theirs := fmt.Sprintf("blocks.%d.", b)
		out = slices.Concat(out, linearPlaces(theirs+"fc1", c.Hidden, blockName(b)+"first"), linearPlaces(theirs+"fc2", c.Hidden, blockName(b)+"second"))
	}
	return out
}

// norms folds batch normalizations into scale and shift: γ/sqrt(variance + 1e-5) and β - scale · mean. Weight and bias of a norm
// without running statistics are its scale and shift.
func (f *dict) norms(c Config, l *layout, flat []float32) error {
	names := map[string]string{"bn_in": "in.norm"}
	for b := range c.Blocks {
		names[fmt.Sprintf("blocks.%d.bn1", b)] = blockName(b) + "first.norm"
		names[fmt.Sprintf("blocks.%d.bn2", b)] = blockName(b) + "second.norm"
	}
	for theirs, ours := range names {
		parts := make(map[string][]float32)
		for _, part := range []string{"weight", "bias", "running_mean", "running_var"} {
			if part[0] == 'r' && f.shapes[theirs+"."+part] == nil {
				continue
			}
			data, err := f.read(theirs+"."+part, c.Hidden)
			if err != nil {
				return err
			}
			parts[part] = data
		}
		scale, shift := slices.Clone(parts["weight"]), slices.Clone(parts["bias"])
		if mean, variance := parts["running_mean"], parts["running_var"]; mean != nil && variance != nil {
			for i := range scale {
				scale[i] = float32(float64(scale[i]) / math.Sqrt(float64(variance[i])+normFloor))
				shift[i] -= scale[i] * mean[i]
			}
		}
		for _, p := range l.parameters {
			switch p.name {
			case ours + ".scale":
				copy(flat[p.offset:], scale)
			case ours + ".shift":
				copy(flat[p.offset:], shift)
			}
		}
	}
	return nil
}
