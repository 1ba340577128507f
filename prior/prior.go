// Package prior is the user-conditioned diffusion prior p(e | window, rating): a small denoiser of item embeddings that reads what
// a user did.
//
// A user is a Context: the newest entries of their window and a few older likes. Each entry becomes a token; the denoiser attends
// to the tokens, and their mean is the user embedding that modulates it. Nothing is fitted per user, so an unseen user is one
// forward pass away, and an empty context is the taste of the population.
//
// A State is all that a prior is: configuration, embedding statistics, weights, their moving average, optimizer moments. A Learner
// takes optimizer steps on a State; a Model samples from one. Both run graphs built by prior/graph in stock ONNX Runtime, which
// must have been loaded by ort.Open.
//
// The diffusion is variance preserving with T = Config.Timesteps: x_t = sqrt(ᾱ_t) z + sqrt(1-ᾱ_t) ε with z = (e - mean) / scale.
// What the network predicts of it, and the schedule, are options of the Loss; a Model always answers with z ("x0").
//
// Config.Kind chooses the network. Two kinds read windows, the mlp and the transformer; two more, reference and simulation, are
// the published priors to the letter, with a learned row per user, for comparison and for weights trained elsewhere.
package prior

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Class is what an entry of a window says about its item, and what a target is asked for.
type Class uint8

// ClassNone is the class of kinds of feedback that say nothing about taste. As a label it is the null label of guidance.
const (
	ClassNone Class = iota
	StrongPositive
	WeakPositive
	WeakNegative
	StrongNegative
)

// NumClasses is the number of classes, ClassNone left out.
const NumClasses = 4

// String returns the class's stable name, as in "strong_positive".
func (c Class) String() string {
	switch c {
	case ClassNone:
		return "none"
	case StrongPositive:
		return "strong_positive"
	case WeakPositive:
		return "weak_positive"
	case WeakNegative:
		return "weak_negative"
	case StrongNegative:
		return "strong_negative"
	}
	return fmt.Sprintf("class(%d)", uint8(c))
}

// Positive says whether the class is a like, strong or weak.
func (c Class) Positive() bool { return c == StrongPositive || c == WeakPositive }

// Entry is one thing a user did.
type Entry struct {
	Item  []float32 // [Dim], in the catalogue's scale; read only
	Class Class     // not ClassNone
	Older bool      // from the reservoir of older likes
}

// Context is what the prior knows of a user: the newest entries first, then the older likes. The position of a newest entry is its
// age. A nil or empty context is the population's taste.
type Context []Entry

// Config is the shape of a prior. The zero value of a field is not valid, except where it says so; start from DefaultConfig.
type Config struct {
	Kind      string `json:"kind"`       // see Kinds in the package's DESIGN.md; "auto" is resolved by NewState
	Dim       int    `json:"dim"`        // of item embeddings
	Hidden    int    `json:"hidden"`     // width of tokens and of the residual stream; a multiple of Heads and even
	Blocks    int    `json:"blocks"`     // residual blocks of the denoiser
	Heads     int    `json:"heads"`      // of attention
	MaxTokens int    `json:"max_tokens"` // longest context
	Contexts  int    `json:"contexts"`   // contexts in a training batch
	Targets   int    `json:"targets"`    // targets of each context in a training batch
	// MostTargets, where it is larger than Targets, allows batches whose contexts have more targets, up to so many. It is no part of a
	// checkpoint, as it leaves no trace in the weights.
	MostTargets int  `json:"-"`
	Timesteps   int  `json:"timesteps"`       // of the diffusion
	Tokens      int  `json:"tokens,omitzero"` // that an embedding is cut into, a divisor of Dim; transformer and reference only, others ignore it
	Users       int  `json:"users,omitzero"`  // rows of the learned user table; reference and simulation only, 0 for others
	Loss        Loss `json:"loss,omitzero"`   // the zero value is DefaultLoss
}

// The kinds of prior.
const (
	kindAuto        = "auto"
	kindMLP         = "mlp"         // the embedding as one vector: mlp.go
	kindTransformer = "transformer" // the embedding as tokens: transformer.go
	kindReference   = "reference"   // the published prior to the letter: reference.go
	kindSimulation  = "simulation"  // the published prior of the synthetic study: simulation.go
)

// wideDim is the dimension from which on "auto" is the transformer. Below it an embedding is too short to be cut into tokens
// worth the name (at 32 tokens, fewer than 8 numbers each) while the transformer costs 50 M products a row against the
// mlp's half million. From there on cutting pays: a map on the whole embedding has Dim² parameters, and the blocks see an
// embedding through Hidden numbers per token in place of Hidden numbers in all.
const wideDim = 256

// DefaultConfig returns the measured default for embeddings of dim dimensions: of the mlp below 256, and from there on of the
// transformer in the size and batch of the published prior (arXiv 2502.18477).
func DefaultConfig(dim int) Config {
	c := Config{
		Kind: kindAuto, Dim: dim, Hidden: 96, Blocks: 3, Heads: 4, MaxTokens: 52, Contexts: 64, Targets: 4, Timesteps: 1000,
		Loss: DefaultLoss(),
	}
	if dim >= wideDim {
		c.Hidden, c.Blocks, c.Heads, c.Tokens, c.Contexts = 128, 6, 8, tokensOf(dim), 16
	}
	return c
}

// tokensOf returns the largest number of tokens up to 32 that divides dim.
func tokensOf(dim int) int {
	for n := 32; n > 1; n-- {
		if dim%n == 0 {
			return n
		}
	}
	return 1
}

// Bounds keep a mistyped configuration or a hostile checkpoint from asking for all memory.
const (
	maxDim       = 1 << 14
	maxHidden    = 1 << 12
	maxBlocks    = 64
	maxTokens    = 1 << 12
	maxBatch     = 1 << 14
	maxTimesteps = 1 << 20
	maxUsers     = 1 << 20
)

// Validate names the first field that is out of range.
func (c Config) Validate() error {
	if err := oneOf("kind", c.Kind, kindAuto, kindMLP, kindTransformer, kindReference, kindSimulation); err != nil {
		return err
	}
	type field struct {
		name       string
		value, max int
	}
	fields := []field{
		{"dim", c.Dim, maxDim}, {"hidden", c.Hidden, maxHidden}, {"blocks", c.Blocks, maxBlocks}, {"heads", c.Heads, maxHidden},
		{"max_tokens", c.MaxTokens, maxTokens}, {"contexts", c.Contexts, maxBatch}, {"targets", c.Targets, maxBatch},
		{"timesteps", c.Timesteps, maxTimesteps},
	}
	r := c.resolved()
	if r.HasUserTable() {
		fields = append(fields, field{"users", c.Users, maxUsers})
	} else if c.Users != 0 {
		return fmt.Errorf("users: %d, but kind %s reads windows and has no table of users", c.Users, r.Kind)
	}
	if r.Kind == kindTransformer || r.Kind == kindReference {
		fields = append(fields, field{"tokens", r.Tokens, maxDim})
	}
	for _, f := range fields {
		if f.value < 1 || f.value > f.max {
			return fmt.Errorf("%s: %d is not between 1 and %d", f.name, f.value, f.max)
		}
	}
	if c.MostTargets < 0 || c.MostTargets > maxBatch {
		return fmt.Errorf("most_targets: %d is not between 0 and %d", c.MostTargets, maxBatch)
	}
	if c.Hidden%c.Heads != 0 || c.Hidden%2 != 0 {
		return fmt.Errorf("hidden: %d is not an even multiple of heads (%d)", c.Hidden, c.Heads)
	}
	if r.Tokens != 0 && c.Dim%r.Tokens != 0 {
		return fmt.Errorf("tokens: %d does not divide dim (%d)", r.Tokens, c.Dim)
	}
	if err := c.Loss.Validate(); err != nil {
		return fmt.Errorf("loss.%w", err)
	}
	return nil
}

func oneOf(name, value string, choices ...string) error {
	if !slices.Contains(choices, value) {
		return fmt.Errorf("%s: %q is not one of %s", name, value, strings.Join(choices, ", "))
	}
	return nil
}

// resolved replaces "auto" by the kind it stands for and empty names by their defaults, and clears what the kind ignores.
func (c Config) resolved() Config {
	if c.Kind == kindAuto {
		c.Kind = kindMLP
		if c.Dim >= wideDim {
			c.Kind = kindTransformer
		}
	}
	switch {
	case c.Kind == kindMLP || c.Kind == kindSimulation:
		c.Tokens = 0
	case c.Kind == kindTransformer && c.Tokens == 0 && c.Dim > 0:
		c.Tokens = tokensOf(c.Dim)
	}
	c.Loss = c.Loss.resolved()
	return c
}

// HasUserTable says whether users are rows of a learned table, as in the published priors, and not windows.
func (c Config) HasUserTable() bool { return c.Kind == kindReference || c.Kind == kindSimulation }

// minAlphaBar keeps ln(α/σ) finite at t = T, where the cosine reaches zero; it is far below what float32 noise can tell from 0.
const minAlphaBar = 1e-8

// AlphaBar returns ᾱ_t of the default schedule, the share of signal variance at timestep t of T: the cosine schedule of Nichol & Dhariwal 2021 with offset
// .008, 1 at t = 0, floored at 1e-8.
func AlphaBar(t, T int) float64 {
	return min(max(cosine(float64(t)/float64(T))/cosine(0), minAlphaBar), 1)
}

// cosine is ᾱ at u = t/T, not yet 1 at u = 0.
func cosine(u float64) float64 {
	const offset = .008
	c := math.Cos((u + offset) / (1 + offset) * math.Pi / 2)
	return c * c
}

// LogSNR returns ln(α_t/σ_t) of the default schedule, half the logarithm of the signal-to-noise ratio; +Inf at t = 0.
func LogSNR(t, T int) float64 {
	a := AlphaBar(t, T)
	return math.Log(a/(1-a)) / 2
}
