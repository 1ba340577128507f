package sampler

import (
	"math"
	"slices"
	"strings"
	"testing"

	"rebeca/prior"
)

// TestSecondOrder holds few steps of both solvers against a thousand of the same noise.
func TestSecondOrder(t *testing.T) {
	m := likesOfThree(4)
	js := jobs(300)
	exact := mustSample(t, m, plain(1000), js)
	off := func(s Solver, steps int) float64 {
		o, sum := plain(steps), 0.
		o.Solver = s
		for i, e := range mustSample(t, m, o, js) {
			for d, v := range e {
				sum += math.Abs(float64(v - exact[i][d]))
			}
		}
		return sum / float64(len(js)*m.dim)
	}
	for _, steps := range []int{15, 30} {
		if first, second := off(DDIM, steps), off(DPMSolver2M, steps); !(second < .6*first) {
			t.Errorf("%d steps are %.4f off by DDIM and %.4f by 2M", steps, first, second)
		}
	}
	// Twice the steps halve an error of the first order and quarter one of the second.
	if first, second := off(DDIM, 30)/off(DDIM, 60), off(DPMSolver2M, 30)/off(DPMSolver2M, 60); !(second > 1.25*first) {
		t.Errorf("twice the steps divide the error of DDIM by %.2f, that of 2M by %.2f", first, second)
	}
}

// TestFirstStepsAgree: where there is no step before, or noise ends, the second order is the first.
func TestFirstStepsAgree(t *testing.T) {
	m := likesOfThree(4)
	for steps := 1; steps <= 5; steps++ {
		o := plain(steps)
		first := mustSample(t, m, o, jobs(5))
		o.Solver = DPMSolver2M
		second := mustSample(t, m, o, jobs(5))
		if same := slices.EqualFunc(first, second, slices.Equal[[]float32]); same != (steps <= 3) {
			t.Errorf("%d steps: DDIM gives %v, 2M %v", steps, first, second)
		}
	}
}

// TestStartsShareCalls: jobs of both starts go to the denoiser together, each with its own time, and those with fewer steps end first.
func TestStartsShareCalls(t *testing.T) {
	m := likesOfThree(4)
	js := jobs(6)
	for _, i := range []int{0, 3, 4} {
		js[i].Window = liked([]float32{1, 1, 0, -1})
	}
	var sizes []int
	m.seen = func(rows []prior.Row) {
		conditional := 0
		for _, r := range rows {
			if r.Label == prior.StrongPositive {
				conditional++
			}
		}
		sizes = append(sizes, conditional)
	}
	o := anchored()
	together := mustSample(t, m, o, js)
	if want := []int{6, 6, 6, 6, 3, 3, 3, 3}; !slices.Equal(sizes, want) {
		t.Errorf("calls of %v jobs, want %v", sizes, want)
	}
	for i := range js {
		if alone := mustSample(t, m, o, js[i:i+1]); !slices.Equal(alone[0], together[i]) {
			t.Errorf("job %d alone gives %v, among others %v", i, alone[0], together[i])
		}
	}
}

func TestUnknownSolver(t *testing.T) {
	o := DefaultOptions()
	o.Solver = "heun"
	if _, err := Sample(likesOfThree(4), o, jobs(1)); err == nil || !strings.Contains(err.Error(), `solver: "heun" is not ddim or dpmpp_2m`) {
		t.Errorf("error %v", err)
	}
}
