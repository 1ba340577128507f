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
// The diffusion is variance preserving with a cosine schedule and T = Config.Timesteps: x_t = sqrt(ᾱ_t) z + sqrt(1-ᾱ_t) ε with
// z = (e - mean) / scale, and the network predicts z ("x0").
package prior

import (
	"fmt"
	"math"
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

// Config is the shape of a prior. The zero value of a field is not valid; start from DefaultConfig.
type Config struct {
	Kind      string `json:"kind"`       // "mlp"; "auto" is resolved to it by NewState
	Dim       int    `json:"dim"`        // of item embeddings
	Hidden    int    `json:"hidden"`     // width of tokens and of the residual stream; a multiple of Heads and even
	Blocks    int    `json:"blocks"`     // residual blocks of the denoiser
	Heads     int    `json:"heads"`      // of the attention to the window
	MaxTokens int    `json:"max_tokens"` // longest context
	Contexts  int    `json:"contexts"`   // contexts in a training batch
	Targets   int    `json:"targets"`    // targets of each context in a training batch
	Timesteps int    `json:"timesteps"`  // of the diffusion
}

// DefaultConfig returns the measured default for embeddings of dim dimensions.
func DefaultConfig(dim int) Config {
	return Config{Kind: "auto", Dim: dim, Hidden: 96, Blocks: 3, Heads: 4, MaxTokens: 52, Contexts: 64, Targets: 4, Timesteps: 1000}
}

// Bounds keep a mistyped configuration or a hostile checkpoint from asking for all memory.
const (
	maxDim       = 1 << 14
	maxHidden    = 1 << 12
	maxBlocks    = 64
	maxTokens    = 1 << 12
	maxBatch     = 1 << 14
	maxTimesteps = 1 << 20
)

// Validate names the first field that is out of range.
func (c Config) Validate() error {
	if c.Kind != "auto" && c.Kind != kindMLP {
		return fmt.Errorf("kind: %q is not one of auto, mlp", c.Kind)
	}
	for _, f := range []struct {
		name       string
		value, max int
	}{
		{"dim", c.Dim, maxDim}, {"hidden", c.Hidden, maxHidden}, {"blocks", c.Blocks, maxBlocks}, {"heads", c.Heads, maxHidden},
		{"max_tokens", c.MaxTokens, maxTokens}, {"contexts", c.Contexts, maxBatch}, {"targets", c.Targets, maxBatch},
		{"timesteps", c.Timesteps, maxTimesteps},
	} {
		if f.value < 1 || f.value > f.max {
			return fmt.Errorf("%s: %d is not between 1 and %d", f.name, f.value, f.max)
		}
	}
	if c.Hidden%c.Heads != 0 || c.Hidden%2 != 0 {
		return fmt.Errorf("hidden: %d is not an even multiple of heads (%d)", c.Hidden, c.Heads)
	}
	return nil
}

const kindMLP = "mlp"

// resolved replaces "auto" by the kind it stands for.
func (c Config) resolved() Config {
	if c.Kind == "auto" {
		c.Kind = kindMLP
	}
	return c
}

// minAlphaBar keeps ln(α/σ) finite at t = T, where the cosine reaches zero; it is far below what float32 noise can tell from 0.
const minAlphaBar = 1e-8

// AlphaBar returns ᾱ_t, the share of signal variance at timestep t of T: the cosine schedule of Nichol & Dhariwal 2021 with offset
// .008, 1 at t = 0, floored at 1e-8.
func AlphaBar(t, T int) float64 {
	const offset = .008
	f := func(u float64) float64 {
		c := math.Cos((u + offset) / (1 + offset) * math.Pi / 2)
		return c * c
	}
	return min(max(f(float64(t)/float64(T))/f(0), minAlphaBar), 1)
}

// LogSNR returns ln(α_t/σ_t), half the logarithm of the signal-to-noise ratio; +Inf at t = 0.
func LogSNR(t, T int) float64 {
	a := AlphaBar(t, T)
	return math.Log(a/(1-a)) / 2
}
