package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"rebeca"
	"rebeca/internal/meter"
	"rebeca/internal/ort"
	"rebeca/prior"
	"rebeca/prior/graph"
	"rebeca/sampler"
)

func priorBench() *cobra.Command {
	cmd := &cobra.Command{
		Use: "bench", Short: "Time training steps and samples of a prior on this machine", Args: noArgs,
		Long: `Time training steps, encoding, denoising and sampling of a new prior, of the
configuration's form with -c, of a checkpoint's with --checkpoint or of the form
that the flags give, and tell what share of the machine's speed at matrix
products they reach. Nothing else is read, and nothing is written.`,
	}
	f := cmd.Flags()
	path := f.StringP("config", "c", "", "take the prior, the window and onnxruntime from this configuration file")
	checkpoint := f.String("checkpoint", "", "take the prior from this checkpoint, such as one that `prior import` wrote")
	d := prior.DefaultConfig(16)
	dim := f.Int("dim", 16, "length of embeddings")
	kind := f.String("kind", d.Kind, "auto, mlp, transformer, reference or simulation")
	hidden := f.Int("hidden", 0, "width; 0 is the default for the length")
	blocks := f.Int("blocks", 0, "residual blocks; 0 is the default for the length")
	tokens := f.Int("tokens", 0, "tokens that an embedding is cut into; 0 is the default for the length")
	threads := f.Int("threads", 1, "threads of a run")
	spin := f.Duration("spin", 0, "how long idle threads of a run look for work")
	provider := f.String("provider", ort.CPU, "execution provider: cpu or cuda")
	runs := f.Int("runs", 30, "runs of each measurement")
	library := f.String("onnxruntime", "", "ONNX Runtime's shared library (default: $REBECA_ONNXRUNTIME, then the cache)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *runs < 1 || *runs > 10000 {
			return usageError{fmt.Errorf("--runs is %d, outside 1..10000", *runs)}
		}
		form, machine := []string{"dim", "kind", "hidden", "blocks", "tokens"}, []string{"threads", "spin", "provider", "onnxruntime"}
		for _, says := range []struct {
			flag string
			what []string
		}{{"checkpoint", append(form, "config")}, {"config", append(form, machine...)}} {
			for _, flag := range says.what {
				if f.Changed(says.flag) && f.Changed(flag) {
					return usageError{fmt.Errorf("--%s stands beside --%s, which says it: keep one", flag, says.flag)}
				}
			}
		}
		c := rebeca.DefaultConfig()
		cfg := prior.DefaultConfig(max(*dim, 1))
		switch {
		case *path != "":
			var err error
			if c, err = loadConfig(*path); err != nil {
				return err
			}
			cfg = c.PriorShape()
		case *checkpoint != "":
			state, err := prior.LoadState(*checkpoint)
			if err != nil {
				return err
			}
			cfg = state.Config
		default:
			cfg.Dim, cfg.Kind = *dim, *kind
			if *hidden != 0 {
				cfg.Hidden = *hidden
			}
			if *blocks != 0 {
				cfg.Blocks = *blocks
			}
			if *tokens != 0 {
				cfg.Tokens = *tokens
			}
			if cfg.Kind == "reference" || cfg.Kind == "simulation" {
				cfg.Users = 210 // of the published data
			}
		}
		if *path == "" {
			c.ONNXRuntime = rebeca.ONNXRuntimeConfig{Library: *library, Threads: *threads, Provider: *provider, Spin: *spin}
		}
		if err := cfg.Validate(); err != nil {
			return usageError{fmt.Errorf("prior.%w", err)}
		}
		if err := c.OpenRuntime(); err != nil {
			return err
		}
		b := &priorTimer{cfg: cfg, options: c.RuntimeOptions(), runs: *runs, out: cmd.OutOrStdout(), progress: cmd.ErrOrStderr(), stop: cmd.Context().Err}
		return b.all()
	}
	return cmd
}

// priorTimer times the parts of a prior.
type priorTimer struct {
	cfg      prior.Config
	options  ort.Options
	runs     int
	out      io.Writer
	progress io.Writer
	stop     func() error // an error when it is time to stop
	peak     float64      // operations a second of a large product
	rng      *rand.Rand
}

func (b *priorTimer) all() error {
	b.rng = rand.New(rand.NewPCG(1, 1))
	stats := prior.Stats{Mean: make([]float32, b.cfg.Dim), Scale: slices.Repeat([]float32{1}, b.cfg.Dim)}
	state, err := prior.NewState(b.cfg, stats, 1)
	if err != nil {
		return err
	}
	b.cfg = state.Config
	cost := b.cfg.Cost()
	fmt.Fprintf(b.out, "%s prior, dim %d, hidden %d, blocks %d, heads %d: %d parameters\n",
		b.cfg.Kind, b.cfg.Dim, b.cfg.Hidden, b.cfg.Blocks, b.cfg.Heads, cost.Parameters)
	if err := b.product(); err != nil {
		return err
	}
	if err := b.training(state, cost); err != nil {
		return err
	}
	return b.inference(state, cost)
}

// product times one large matrix product, which every share is of.
func (b *priorTimer) product() error {
	const n = 1024
	g := graph.New("product")
	g.Output("c", g.MatMul(g.Input("a", n, n), g.Input("b", n, n)))
	session, err := g.Compile(b.options)
	if err != nil {
		return err
	}
	defer session.Close()
	a, c := ort.NewTensor(n, n), ort.NewTensor(n, n)
	defer a.Close()
	defer c.Close()
	for i := range a.Data() {
		a.Data()[i] = b.rng.Float32()
	}
	return b.time(fmt.Sprintf("product of %d x %d", n, n), g.Flops(), func() error {
		return session.Run([]*ort.Tensor{a, a}, []*ort.Tensor{c})
	})
}

func (b *priorTimer) training(state *prior.State, cost prior.Cost) error {
	l, err := prior.NewLearner(state, b.options)
	if err != nil {
		return err
	}
	defer l.Close()
	batch := b.batch()
	name := fmt.Sprintf("step, %d x %d targets", b.cfg.Contexts, b.cfg.Targets)
	return b.time(name, cost.Step, func() error {
		_, err := l.Step(batch, 1e-4, b.rng)
		return err
	})
}

func (b *priorTimer) inference(state *prior.State, cost prior.Cost) error {
	m, err := prior.NewModel(state, b.options)
	if err != nil {
		return err
	}
	defer m.Close()
	batch := b.batch()
	const count = 8
	encode := func() ([]*prior.Condition, error) {
		if batch.Users != nil {
			return m.Users(batch.Users[:count])
		}
		return m.Encode(batch.Contexts[:count])
	}
	conditions, err := encode()
	if err != nil {
		return err
	}
	if err := b.time(fmt.Sprintf("encode %d users", count), count*cost.Encode, func() error {
		_, err := encode()
		return err
	}); err != nil {
		return err
	}
	for _, n := range []int{1, 16, 64} {
		rows := make([]prior.Row, n)
		for i := range rows {
			rows[i] = prior.Row{T: b.cfg.Timesteps / 2, Label: prior.StrongPositive, Cond: conditions[i%count]}
		}
		x := b.item(n * b.cfg.Dim)
		z := make([]float32, len(x))
		if err := b.time(fmt.Sprintf("denoise %d rows", n), float64(n)*cost.Denoise, func() error { return m.Denoise(z, x, rows) }); err != nil {
			return err
		}
	}
	for _, n := range []int{1, 16} {
		jobs := make([]sampler.Job, n)
		for i := range jobs {
			jobs[i] = sampler.Job{Cond: conditions[i%count], Seed: uint64(i)}
		}
		o := sampler.DefaultOptions()
		o.Steps = min(o.Steps, b.cfg.Timesteps)
		if err := b.time(fmt.Sprintf("sample %d in %d steps", n, o.Steps), 0, func() error {
			_, err := sampler.Sample(m, o, jobs)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// batch is a full batch of full windows, or of users for a kind with a table of them.
func (b *priorTimer) batch() *prior.Batch {
	batch := new(prior.Batch)
	for c := range b.cfg.Contexts {
		if b.cfg.Users > 0 {
			batch.Users = append(batch.Users, b.rng.IntN(b.cfg.Users))
		} else {
			var context prior.Context
			for range b.cfg.MaxTokens {
				context = append(context, prior.Entry{Item: b.item(b.cfg.Dim), Class: prior.Class(1 + b.rng.IntN(prior.NumClasses))})
			}
			batch.Contexts = append(batch.Contexts, context)
		}
		for range b.cfg.Targets {
			batch.Targets = append(batch.Targets, prior.Target{Context: c, Item: b.item(b.cfg.Dim), Label: prior.StrongPositive})
		}
	}
	return batch
}

func (b *priorTimer) item(n int) []float32 {
	e := make([]float32, n)
	for i := range e {
		e[i] = float32(b.rng.NormFloat64())
	}
	return e
}

// time makes warm runs, then those that count, and prints their shortest and median time. flops, 0 where it is not known, is the
// arithmetic of a run; the first measurement is the peak that later ones are a share of.
func (b *priorTimer) time(name string, flops float64, run func() error) error {
	const warm = 2
	m := meter.New(b.progress, name, int64(b.runs))
	times := make([]time.Duration, 0, b.runs)
	for i := range warm + b.runs {
		if err := b.stop(); err != nil {
			return err
		}
		start := time.Now()
		if err := run(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if i >= warm {
			times = append(times, time.Since(start))
			m.Set(int64(len(times)))
		}
	}
	if isTerminal(b.progress) {
		m.Done()
	}
	slices.Sort(times)
	ms := func(d time.Duration) float64 { return d.Seconds() * 1e3 }
	fmt.Fprintf(b.out, "%-28s %9.3f ms min %9.3f ms median", name, ms(times[0]), ms(times[len(times)/2]))
	if speed := flops / times[0].Seconds(); flops > 0 {
		if b.peak == 0 {
			b.peak = speed
		}
		fmt.Fprintf(b.out, " %8.3f GFLOP %6.1f GFLOP/s %4.0f %% of peak", flops/1e9, speed/1e9, 100*speed/b.peak)
	}
	fmt.Fprintln(b.out)
	return nil
}
