package main

import (
	"context"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rebeca/eval"
	"rebeca/internal/figures"
	"rebeca/internal/ort"
	"rebeca/prior"
)

func TestMain(m *testing.M) {
	path, err := ort.Locate("")
	if err == nil {
		err = ort.Open(path)
	}
	if err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// TestPasses: the ways are what their names say.
func TestPasses(t *testing.T) {
	want := map[string]float64{"": 12, "_fast": 3, "_student": 1, "_student2": 2}
	for _, w := range timed() {
		if got := passes(prior.DefaultConfig(16), w); got != want[w.suffix] {
			t.Errorf("time_vs_reference%s takes %v passes, want %v", w.suffix, got, want[w.suffix])
		}
	}
}

// TestReference runs the comparison against a stand-in for PyTorch.
func TestReference(t *testing.T) {
	path := filepath.Join(t.TempDir(), "peer.sh")
	text := "#!/bin/sh\necho '{\"torch\": \"2.15.0\", \"threads\": 2}'\nwhile read -r line; do echo '{\"ms\": [50, 60, 50, 70, 60]}'; done\n"
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	got := figures.Figures{}
	if err := reference(t.Context(), settings{python: "/bin/sh", script: path, threads: 1, rounds: 1}, got); err != nil {
		t.Fatal(err)
	}
	// 50 ms a step of 25 samples is 2 s an embedding.
	if got["reference_embedding_ms"] != 2000 || got["reference_embedding_median_ms"] != 2400 || got["reference_steps_timed"] != 5 {
		t.Errorf("the reference's figures are %v", got)
	}
	if ratio := 2000 / got["embedding_ms"]; got["time_vs_reference"] != ratio || !(ratio > 0) {
		t.Errorf("time_vs_reference is %v, want %v", got["time_vs_reference"], ratio)
	}
}

func TestTurns(t *testing.T) {
	var order string
	sides := []side{}
	for _, name := range []string{"a", "b"} {
		ms := 3.
		sides = append(sides, side{name: name, block: func() ([]float64, error) {
			order += name
			ms--
			return []float64{ms, 9}, nil
		}})
	}
	if err := turns(t.Context(), sides, 2); err != nil || order != "abab" || !slices.Equal(sides[1].times, []float64{1, 2, 9, 9}) {
		t.Errorf("turns %q, times %v, error %v", order, sides[1].times, err)
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if err := turns(stopped, sides, 1); err == nil {
		t.Error("goes on after the end of its context")
	}
}

func TestCompare(t *testing.T) {
	report := &eval.Report{}
	add := func(when, of string, p, cov, w2 float64) {
		report.Rows = append(report.Rows, eval.Row{When: when, Of: of, Measures: eval.Measures{"p": p, "cov": cov, "w2": w2}})
	}
	add("all", thousand, .9, .8, .5)
	add("all", thousand, .7, .8, .5)
	add("half", thousand, 0, 0, 9)
	for suffix := range compared() {
		add("all", "way"+suffix, .75, .9, .6)
	}
	got := figures.Figures{}
	compare(report, got)
	for key, want := range map[string]float64{"precision_loss": .05, "coverage_loss_fast": -.1, "wasserstein_ratio": 1.2, "thousand_steps_p": .8} {
		if math.Abs(got[key]-want) > 1e-9 {
			t.Errorf("%s is %v, want %v", key, got[key], want)
		}
	}
}

// TestComplete takes each figure of a whole run away in turn.
func TestComplete(t *testing.T) {
	s := settings{script: "bench.py"}
	whole := figures.Figures{"precision_loss": -.01, "coverage_loss": 0}
	for _, key := range wanted() {
		whole[key] = 1
	}
	if err := complete(s, whole); err != nil {
		t.Fatal(err)
	}
	for key := range whole {
		spoiled := maps.Clone(whole)
		delete(spoiled, key)
		if err := complete(s, spoiled); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s absent: error %v", key, err)
		}
		spoiled[key] = math.NaN()
		if err := complete(s, spoiled); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s NaN: error %v", key, err)
		}
	}
	if err := complete(settings{script: "bench.py", only: "decode"}, nil); err != nil {
		t.Error(err)
	}
	if _, err := measure(t.Context(), settings{only: "nothing"}); err == nil || !strings.Contains(err.Error(), `"nothing"`) {
		t.Errorf("an unknown part gives %v", err)
	}
}

// TestScript: the PyTorch side has the case that is asked for.
func TestScript(t *testing.T) {
	script, err := os.ReadFile("../../tools/bench_prior.py")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(script), `"ancestral_step": `) {
		t.Error("tools/bench_prior.py has no case ancestral_step")
	}
}
