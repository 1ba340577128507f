package eval

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// least is the least sum over all matches, by trying every one.
func least(cost [][]float64, row int, taken []bool) float64 {
	if row == len(cost) {
		return 0
	}
	best := math.Inf(1)
	for j := range taken {
		if !taken[j] {
			taken[j] = true
			best = min(best, cost[row][j]+least(cost, row+1, taken))
			taken[j] = false
		}
	}
	return best
}

func TestAssignmentIsTheLeast(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(t, "n")
		cost := make([][]float64, n)
		for i := range cost {
			cost[i] = rapid.SliceOfN(rapid.Float64Range(0, 10), n, n).Draw(t, "row")
		}
		if got, want := assignment(cost), least(cost, 0, make([]bool, n)); math.Abs(got-want) > 1e-9 {
			t.Fatalf("assignment %v, least %v of %v", got, want, cost)
		}
	})
}

func TestTransportOfAShift(t *testing.T) {
	a, b := [][]float32{{0, 0}, {5, 1}, {2, 7}}, [][]float32{{2.5, 7}, {.5, 0}, {5.5, 1}}
	if got := transport(a, b); math.Abs(got-.25) > 1e-9 {
		t.Errorf("W2² of a shift by .5 is %v, want .25", got)
	}
}
