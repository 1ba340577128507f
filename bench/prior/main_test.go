package main

import (
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rebeca/internal/figures"
	"rebeca/internal/ort"
	"rebeca/internal/pytorch"
	"rebeca/prior/graph"
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

// standIn writes a program that speaks the protocol of tools/bench_prior.py without torch: an interpreter and a script in one.
func standIn(t *testing.T, answer string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "peer.sh")
	text := "#!/bin/sh\necho '{\"torch\": \"2.15.0\", \"threads\": 2}'\nwhile read -r line; do echo '" + answer + "'; done\n"
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// product is a case of one small product, whose runs are counted.
func product(runs *int) benchCase {
	return benchCase{name: "product", runs: 3, peak: true, open: func(o ort.Options) (*engine, error) {
		g := graph.New("product")
		g.Output("c", g.MatMul(g.Input("a", 8, 8), g.Input("b", 8, 8)))
		e, err := openGraph(g, o)
		if err != nil {
			return nil, err
		}
		inner := e.run
		e.run = func() error { *runs++; return inner() }
		return e, nil
	}}
}

func TestSidesTakeTurns(t *testing.T) {
	p, err := pytorch.Start("/bin/sh", standIn(t, `{"ms": [4, 2, 3]}`), "eager", 2)
	if err != nil {
		t.Fatal(err)
	}
	got, runs := make(figures.Figures), 0
	if err := product(&runs).measure(settings{threads: 1, rounds: 2}, []*pytorch.Peer{p}, got); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if got["product_eager_min_ms"] != 2 || got["product_eager_median_ms"] != 3 {
		t.Errorf("the peer's figures are %v", got)
	}
	if ratio := got["product_ours_min_ms"] / 2; got["product_vs_eager"] != ratio || ratio <= 0 {
		t.Errorf("product_vs_eager is %v, want %v", got["product_vs_eager"], ratio)
	}
	if got["sgemm_peak_gflops"] <= 0 || got["sgemm_share"] <= 0 || got["product_gflop"] != 2*8*8*8/1e9 {
		t.Errorf("shares are %v", got)
	}
	if runs < 6 {
		t.Errorf("%d runs of ours, want 6 at least", runs)
	}
	if _, found := got["product_sgemm_min_ms"]; found {
		t.Error("the peak's own times are among the figures")
	}
}

func TestBadPeers(t *testing.T) {
	for _, c := range []struct{ answer, want string }{
		{`{"ms": [1]}`, "answered 1 times to a request for 3"},
		{`no json`, "reading PyTorch's answer"},
	} {
		p, err := pytorch.Start("/bin/sh", standIn(t, c.answer), "eager", 2)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Block("product", 3); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want one with %q", err, c.want)
		}
		p.Close()
	}
	if _, err := pytorch.Start("/bin/sh", "/nowhere/bench.py", "eager", 2); err == nil || !strings.Contains(err.Error(), "tools/bench_prior.py") {
		t.Errorf("a missing script gives %v", err)
	}
}

// TestCases names each case once; tools/bench_prior.py has the same.
func TestCases(t *testing.T) {
	script, err := os.ReadFile("../../tools/bench_prior.py")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, c := range cases() {
		seen[c.name] = true
		if !strings.Contains(string(script), `"`+c.name+`": `) {
			t.Errorf("tools/bench_prior.py has no case %s", c.name)
		}
	}
	if got := slices.Sorted(maps.Keys(seen)); len(got) != len(cases()) {
		t.Errorf("cases are %v", got)
	}
}

// TestComplete takes each figure of a whole comparison away in turn.
func TestComplete(t *testing.T) {
	s := settings{script: "bench.py"}
	whole := figures.Figures{"torch": 2.15, "onnxruntime": 1.3, "threads": 2, "cores": 2, "sgemm_peak_gflops": 190, "sgemm_share": .6}
	for _, c := range cases() {
		for _, suffix := range []string{"ours_min_ms", "ours_median_ms", "eager_min_ms", "eager_median_ms", "compile_min_ms", "compile_median_ms", "vs_eager", "vs_compile", "gflop"} {
			whole[c.name+"_"+suffix] = 1
		}
		whole[c.name+"_allocs"] = 0
	}
	if err := complete(s, whole); err != nil {
		t.Fatal(err)
	}
	for key := range whole {
		for name, spoil := range map[string]func(figures.Figures){
			"absent": func(f figures.Figures) { delete(f, key) },
			"NaN":    func(f figures.Figures) { f[key] = math.NaN() },
		} {
			if name == "NaN" && strings.HasSuffix(key, "forward1_allocs") || name == "NaN" && strings.HasSuffix(key, "forward64_allocs") {
				continue // reported, with no bound
			}
			spoiled := maps.Clone(whole)
			spoil(spoiled)
			if err := complete(s, spoiled); err == nil || !strings.Contains(err.Error(), key) {
				t.Errorf("%s %s: error %v", key, name, err)
			}
		}
	}
	if err := complete(settings{script: "bench.py", only: "train_step"}, nil); err != nil {
		t.Error(err)
	}
	if err := complete(settings{}, nil); err != nil {
		t.Error(err)
	}
}

func TestRelease(t *testing.T) {
	for version, want := range map[string]float64{"1.30.0": 1.3, "2.15.0": 2.15, "text": 0} {
		if got := release(version); got != want {
			t.Errorf("release(%q) = %v, want %v", version, got, want)
		}
	}
}
