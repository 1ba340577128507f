// Command prior measures the learning engine against PyTorch: whole training steps and forward passes of the same networks, in
// alternating blocks on one machine, and writes all figures as one flat JSON object of numbers.
//
//	go run ./bench/prior -python "$(python3 tools/bench_prior.py prepare)" -out bench/results/prior.json
//
// A figure <case>_vs_<mode> is our shortest time over PyTorch's shortest; _median compares medians instead. Shortest times say what
// the engines need, medians what a busy machine makes of them.
package main

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"rebeca/internal/figures"
	"rebeca/internal/meter"
	"rebeca/internal/ort"
	"rebeca/internal/pytorch"
)

// settings are the flags.
type settings struct {
	python, script string
	threads        int
	rounds         int
	only           string
	profile        string
	spin           time.Duration
}

func main() {
	var s settings
	flag.StringVar(&s.python, "python", "python3", "interpreter that has torch")
	flag.StringVar(&s.script, "script", "tools/bench_prior.py", "the PyTorch side; empty measures ours alone")
	flag.IntVar(&s.threads, "threads", runtime.NumCPU(), "threads of every side")
	flag.IntVar(&s.rounds, "rounds", 12, "blocks of runs of each side")
	flag.DurationVar(&s.spin, "spin", 200*time.Microsecond, "how long our threads look for work before they sleep; PyTorch's look for it too")
	flag.StringVar(&s.only, "case", "", "measure this case alone")
	flag.StringVar(&s.profile, "profile", "", "write ONNX Runtime's profiles to files with this prefix; slows the runs down")
	out := flag.String("out", "bench/results/prior.json", "file for the figures")
	flag.Parse()
	got, err := measure(s)
	if err == nil {
		err = complete(s, got)
	}
	if err == nil {
		err = figures.Publish(os.Stdout, *out, got)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench/prior: %v\n", err)
		os.Exit(1)
	}
}

func measure(s settings) (got figures.Figures, err error) {
	path, err := ort.Locate("")
	if err == nil {
		err = ort.Open(path)
	}
	if err != nil {
		return nil, err
	}
	got = figures.Figures{"threads": float64(s.threads), "spin_us": float64(s.spin.Microseconds()), "cores": float64(runtime.NumCPU()), "onnxruntime": release(ort.Version)}
	var peers []*pytorch.Peer
	if s.script != "" {
		for _, mode := range []string{"eager", "compile"} {
			p, err := pytorch.Start(s.python, s.script, mode, s.threads)
			if err != nil {
				return nil, err
			}
			defer func() { err = errors.Join(err, p.Close()) }()
			peers = append(peers, p)
			got["torch"] = release(p.Version)
		}
	}
	for _, c := range cases() {
		if s.only != "" && s.only != c.name {
			continue
		}
		if err := c.measure(s, peers, got); err != nil {
			return nil, fmt.Errorf("measuring %s: %w", c.name, err)
		}
	}
	return got, nil
}

// complete says which figure of a whole comparison is not there or makes no sense. A run of one case or without PyTorch is none.
func complete(s settings, got figures.Figures) error {
	if s.only != "" || s.script == "" {
		return nil
	}
	keys := []string{"torch", "onnxruntime", "threads", "cores", "sgemm_peak_gflops", "sgemm_share"}
	for _, c := range cases() {
		for _, side := range []string{"ours", "eager", "compile"} {
			keys = append(keys, c.name+"_"+side+"_min_ms", c.name+"_"+side+"_median_ms")
		}
		keys = append(keys, c.name+"_vs_eager", c.name+"_vs_compile", c.name+"_gflop")
	}
	for _, key := range keys {
		if v, ok := got[key]; !ok || !(v > 0) || math.IsInf(v, 0) {
			return fmt.Errorf("figure %s is %v, want a number above 0", key, v)
		}
	}
	for _, c := range cases() {
		if n, ok := got[c.name+"_allocs"]; !ok || strings.HasSuffix(c.name, "_step") && n != 0 {
			return fmt.Errorf("figure %s_allocs is %v: a step must allocate nothing", c.name, n)
		}
	}
	return nil
}

// release is a version as a number: 1.30.0 is 1.30.
func release(version string) float64 {
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
		return 0
	}
	return float64(major) + float64(minor)/100
}

// measure takes turns: a block of ours, one of every peer, and again.
func (c benchCase) measure(s settings, peers []*pytorch.Peer, got figures.Figures) error {
	ours, err := c.open(options(s, c.name))
	if err != nil {
		return err
	}
	defer ours.close()
	got[c.name+"_gflop"] = ours.flops / 1e9
	sides := []side{{"ours", ours.block}}
	for _, p := range peers {
		sides = append(sides, side{p.Mode, func(runs int) ([]float64, error) { return p.Block(c.name, runs) }})
	}
	if c.peak {
		product, err := openProduct(options(s, "sgemm"))
		if err != nil {
			return err
		}
		defer product.close()
		sides = append(sides, side{"sgemm", product.block})
		defer func() { share(got, c.name, ours, product) }()
	}
	times := make([][]float64, len(sides))
	m := meter.New(os.Stderr, c.name, int64(s.rounds*len(sides)))
	defer m.Done()
	for round := range s.rounds {
		for i, side := range sides {
			ms, err := side.block(c.runs)
			if err != nil {
				return fmt.Errorf("%s: %w", side.name, err)
			}
			times[i] = append(times[i], ms...)
			m.Set(int64(round*len(sides) + i + 1))
		}
	}
	for i, side := range sides {
		slices.Sort(times[i])
		prefix := c.name + "_" + side.name
		got[prefix+"_min_ms"], got[prefix+"_median_ms"] = times[i][0], times[i][len(times[i])/2]
		if i > 0 && side.name != "sgemm" {
			got[c.name+"_vs_"+side.name] = times[0][0] / times[i][0]
			got[c.name+"_vs_"+side.name+"_median"] = times[0][len(times[0])/2] / times[i][len(times[i])/2]
		}
	}
	got[c.name+"_allocs"] = ours.allocs()
	return nil
}

// share compares the useful arithmetic of a case with that of one large product in the same time.
func share(got figures.Figures, name string, ours, product *engine) {
	ms, best := got[name+"_ours_min_ms"], got[name+"_sgemm_min_ms"]
	if ms == 0 || best == 0 {
		return
	}
	delete(got, name+"_sgemm_median_ms")
	delete(got, name+"_sgemm_min_ms")
	got["sgemm_peak_gflops"] = product.flops / best / 1e6
	got["sgemm_share"] = ours.flops / ms / 1e6 / got["sgemm_peak_gflops"]
}

// side is one of those that take turns; block returns the time of each of so many runs in milliseconds.
type side struct {
	name  string
	block func(runs int) ([]float64, error)
}

func options(s settings, name string) ort.Options {
	o := ort.Options{Threads: s.threads, Spin: s.spin}
	if s.profile != "" {
		o.Profile = s.profile + name
	}
	return o
}
