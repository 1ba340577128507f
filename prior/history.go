package prior

import (
	"math"

	"rebeca/prior/graph"
)

// The history encoder is common to the kinds that read windows:
//
//	token_j = W₂ gelu(W₁ z_j) + mark_j                     z_j the item, mark_j the class, age or null embeddings
//	user    = layernorm(mean of tokens)
const (
	numAges   = 6                 // buckets of a newest entry's rank
	markAge   = NumClasses        // first column of the ages in a row of marks
	markOlder = markAge + numAges // an older like, in place of an age
	markNull  = markOlder + 1     // the token that is always there
	numMarks  = markNull + 1      // columns of a row of marks
	numLabels = NumClasses + 1    // ClassNone is the null label
	normFloor = 1e-5              // added to variances in layer norms
	masked    = -1e9              // added to the scores of absent tokens: their weight is exactly 0
	longWave  = 10000             // longest period of the time features, over 2π (Vaswani et al. 2017)
	growthIn  = 2                 // width of the token's and condition's MLPs over H
	markScale = .5                // spread of mark embeddings, near that of token content
)

func (c Config) historyLayout(l *layout) {
	l.linear("token.in", fanIn(c.Dim), c.Dim, growthIn*c.Hidden)
	l.linear("token.out", fanIn(growthIn*c.Hidden), growthIn*c.Hidden, c.Hidden)
	l.add("token.mark", markScale, numMarks, c.Hidden)
}

// encodeHistory returns the tokens [C, S, H] and the user embeddings [C, H].
func (c Config) encodeHistory(g *graph.Graph, w weights, in window) (tokens, user *graph.Value) {
	contexts, slots := in.share.Shape()[0], in.share.Shape()[2]
	hidden := g.Gelu(g.Linear(in.items, w["token.in.weight"], w["token.in.bias"]))
	content := g.Linear(hidden, w["token.out.weight"], w["token.out.bias"])
	tokens = g.Add(content, g.Linear(in.marks, w["token.mark"], nil))
	tokens = g.Reshape(tokens, contexts, slots, c.Hidden)
	mean := g.Reshape(g.MatMul(in.share, tokens), contexts, c.Hidden)
	return tokens, g.LayerNorm(mean, normFloor)
}

// waves writes sines, then cosines, of t/10000^(i/half).
func waves(dst []float32, t int) {
	half := len(dst) / 2
	for i := range half {
		angle := float64(t) * math.Pow(longWave, -float64(i)/float64(half))
		dst[i] = float32(math.Sin(angle))
		dst[half+i] = float32(math.Cos(angle))
	}
}

// ageOf returns the bucket of a newest entry's rank: 0, 1, 2-3, 4-7, 8-15, 16 and more.
func ageOf(rank int) int {
	age := 0
	for rank > 0 && age < numAges-1 {
		rank >>= 1
		age++
	}
	return age
}
