package sampler

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sort"

	"rebeca/prior"
)

// Anchor says how a job that knows its user's window starts: not from noise but
// from a liked entry of the window, noised to a level. It is on the way already, so
// few evaluations are left, and where a user has one or two likes it says more of
// them than the prior has learned to read.
type Anchor struct {
	Steps int     // evaluations from there on; 0: every job starts from noise
	Level float64 // ln(alpha/sigma) of the start with many likes: the higher, the nearer samples stay to the entry
	// Few is added to Level where the entry is the only like; with n likes it is
	// Few/(1 + (n-1)/4). What few likes leave open the prior fills with what most
	// people like, and that is seldom theirs.
	Few float64
	// Decay draws the entry among the strong positives: one of rank r in the
	// window has weight exp(-r/Decay), older likes that of the last newest
	// entry. So after a change of taste the old likes are soon left alone.
	Decay float64
}

// maxAnchorLevel bounds the start: beyond it a sample would be a copy.
const maxAnchorLevel = 3

// Validate names the first field that is out of range.
func (a Anchor) Validate() error {
	switch {
	case a.Steps < 0 || a.Steps > maxSteps:
		return fmt.Errorf("steps: %d is not within 0 to %d", a.Steps, maxSteps)
	case a.Steps == 0:
		return nil
	case !(math.Abs(a.Level) <= maxAnchorLevel):
		return fmt.Errorf("level: %v is not within -%d to %d", a.Level, maxAnchorLevel, maxAnchorLevel)
	case !(a.Few >= 0 && a.Level+a.Few <= maxAnchorLevel):
		return fmt.Errorf("few: %v is negative or, with level, above %d", a.Few, maxAnchorLevel)
	case !(a.Decay > 0):
		return fmt.Errorf("decay: %v is not above 0", a.Decay)
	}
	return nil
}

// anchorStream keeps the draw of an anchor apart from the noise of the seed.
const anchorStream = 0x7265626563612f61 // "rebeca/a"

// fewLikes is the number of likes beyond the first that halves Few.
const fewLikes = 4

// of reports whether j starts from an entry of its window, from which, and at
// which level: a like is asked for and there is one.
func (a Anchor) of(j Job) (item []float32, level float64, ok bool) {
	if a.Steps == 0 || j.Label != prior.StrongPositive && j.Label != prior.ClassNone {
		return nil, 0, false
	}
	likes := 0.
	weights, total, rank := make([]float64, len(j.Window)), 0., 0
	for i, e := range j.Window {
		if e.Class == prior.StrongPositive {
			likes++
			weights[i] = math.Exp(-float64(rank) / a.Decay)
			total += weights[i]
		}
		if !e.Older {
			rank++
		}
	}
	if !(total > 0) { // none, or all of them too far back for a float
		return nil, 0, false
	}
	x := rand.New(rand.NewPCG(j.Seed, anchorStream)).Float64() * total
	for i, w := range weights {
		if w == 0 {
			continue
		}
		item = j.Window[i].Item
		if x -= w; x < 0 {
			break
		}
	}
	return item, a.Level + a.Few/(1+(likes-1)/fewLikes), true
}

// timeAt is the time whose noise is nearest to a level of ln(alpha/sigma).
func timeAt(c prior.Config, level float64) int {
	// The first time at or below the level, which falls with t; the one before it may be nearer.
	t := 1 + sort.Search(c.Timesteps-2, func(i int) bool { return c.LogSNR(i+1) <= level })
	if t > 1 && c.LogSNR(t-1)-level < level-c.LogSNR(t) {
		t--
	}
	return t
}

// anchor replaces the noise x by the item, noised to time t with it.
func (r *run) anchor(x, item []float32, t int) {
	z := make([]float32, r.dim)
	alpha, sigma := scales(r.cfg, t)
	r.stats.Normalize(z, item)
	for d, e := range x {
		x[d] = float32(alpha)*z[d] + float32(sigma)*e
	}
}
