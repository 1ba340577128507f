package prior

import (
	"fmt"

	"rebeca/prior/graph"
)

// network is one kind of prior: its parameters, and how a graph computes predictions from them. Everything else — batches, loss,
// optimizer, inference, checkpoints — is the same for all kinds.
//
// Shapes: C contexts of S slots (the null token, then entries), R rows of noised embeddings; each context has R/C rows, one after
// another.
type network interface {
	// layout lists the parameters in the order of a state's flat vectors.
	layout() *layout
	// sizes are the widths of what the graphs exchange.
	sizes() sizes
	// encode computes what all rows of a context share: the memory [C, slots, memory], nil for a kind that has none, and the user
	// embeddings [C, user].
	encode(g *graph.Graph, w weights, in window) (memory, user *graph.Value)
	// denoise returns the predictions [R, Dim] of the loss's objective.
	denoise(g *graph.Graph, w weights, in rows) *graph.Value
	// timeFeatures writes the features [time] of timestep t.
	timeFeatures(dst []float32, t int)
	// labelColumn returns which of the label columns a class is, or false for a class that the kind does not know.
	labelColumn(c Class) (int, bool)
}

// sizes are the widths of what the graphs of a kind exchange.
type sizes struct {
	time, labels  int // columns of a row's features
	slots, memory int // of what attention reads of a context: tokens, and numbers of each
	user          int // width of the user embedding
}

func (s sizes) features() int { return s.time + s.labels }

// network returns the network of a resolved configuration.
func (c Config) network() network {
	switch c.Kind {
	case kindMLP:
		return mlp{c}
	case kindTransformer:
		return transformer{c}
	case kindReference:
		return reference{c}
	case kindSimulation:
		return simulation{c}
	}
	panic(fmt.Sprintf("prior: no network of kind %q", c.Kind))
}

// architecture is a configuration with all that follows from it.
type architecture struct {
	Config
	network
	diffusion *diffusion
	sizes     sizes
	times     [][]float32 // [T+1][time]
}

func newArchitecture(c Config) *architecture {
	c = c.resolved()
	a := &architecture{Config: c, network: c.network(), diffusion: newDiffusion(c)}
	a.sizes = a.network.sizes()
	a.times = make([][]float32, c.Timesteps+1)
	for t := range a.times {
		a.times[t] = make([]float32, a.sizes.time)
		a.timeFeatures(a.times[t], t)
	}
	return a
}

// slots returns the slots of a window.
func (c Config) slots() int { return c.MaxTokens + 1 }

// window is what a network reads of contexts, as values of a graph.
type window struct {
	items *graph.Value // [C·S, Dim], model scale; zero for the null token and absent entries; nil for a kind with a user table
	marks *graph.Value // [C·S, numMarks], 0 or 1; of a kind with a user table [C, Users+1], 1 in the user's column, the last for nobody
	share *graph.Value // [C, 1, S], 1/n for the n present tokens; nil for a kind with a user table
}

func (c Config) windowInputs(g *graph.Graph, contexts, slots int) window {
	if c.HasUserTable() {
		return window{marks: g.Input("marks", contexts, c.Users+1)}
	}
	return window{
		items: g.Input("items", contexts*slots, c.Dim),
		marks: g.Input("marks", contexts*slots, numMarks),
		share: g.Input("share", contexts, 1, slots),
	}
}

// rows is what the denoiser reads, as values of a graph.
type rows struct {
	x        *graph.Value // [R, Dim], noised, model scale
	features *graph.Value // [R, features]: time features and the label, one-hot
	memory   *graph.Value // [C, slots, memory]; nil for a kind that has none
	mask     *graph.Value // [C, 1, S], 0 or masked; nil for a kind with a user table
	user     *graph.Value // [C, user]
	size     *graph.Value // [C, 1], ln(1 + entries); nil for a kind with a user table
	leap     *graph.Value // [R, Hidden], what a student adds to the vector that modulates the blocks; nil for its teacher

	attended *[]*graph.Value // where not nil, every block appends its attention to the window, [C, ·, S]; only kinds that read windows
}

// leaping adds what a student knows of its leap to the vector that modulates the blocks, [R, Hidden], before its activation.
func (r rows) leaping(g *graph.Graph, modulator *graph.Value) *graph.Value {
	if r.leap == nil {
		return modulator
	}
	return g.Add(modulator, r.leap)
}

// attend notes the attention of a block where somebody asks for it.
func (r rows) attend(p *graph.Value) {
	if r.attended != nil {
		*r.attended = append(*r.attended, p)
	}
}

// contexts returns C.
func (r rows) contexts() int { return r.user.Shape()[0] }

// count returns R.
func (r rows) count() int { return r.x.Shape()[0] }

// perRow repeats a value per context, [C, n], for its rows: [R, n].
func (r rows) perRow(g *graph.Graph, v *graph.Value) *graph.Value {
	contexts, n := r.contexts(), v.Shape()[1]
	each := r.count() / contexts
	return g.Reshape(g.Expand(g.Reshape(v, contexts, 1, n), contexts, each, n), r.count(), n)
}
