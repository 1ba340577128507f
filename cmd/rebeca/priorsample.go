package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"rebeca"
	"rebeca/internal/meter"
	"rebeca/internal/ort"
	"rebeca/prior"
)

func priorSample() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sample CHECKPOINT",
		Short: "Draw embeddings from a checkpoint alone, such as one that `prior import` wrote",
		Long: `Draw embeddings from a checkpoint alone, without a state and without Kafka.

The published priors know users as rows of a learned table: --user names one, and
the default sampler is theirs, DDPM over all timesteps with guidance 5. A prior
of the service reads windows of events; from its checkpoint alone come the
tastes of nobody in particular (for a user of a state see ` + "`rebeca sample`" + `).`,
		Args: exactly(1, "the path of one checkpoint"),
	}
	f := cmd.Flags()
	p := rebeca.PriorSample{Label: prior.StrongPositive}
	f.IntVar(&p.User, "user", prior.NoUser, "row of the table of users; -1 is nobody in particular")
	f.IntVarP(&p.Count, "count", "n", 8, "how many")
	f.Uint64Var(&p.Seed, "seed", 1, "seed; the same seed gives the same embeddings")
	f.Float64Var(&p.Guidance, "guidance", 0, "strength of the user and the rating; 0 is the default of the sampler, 1 is none")
	rating := f.String("rating", "like", "what the embeddings are to the user: like or dislike")
	method := f.String("sampler", "ddpm", "ddpm, over all timesteps, or ddim, in a few steps")
	c := rebeca.DefaultConfig()
	f.IntVar(&c.Sampler.Steps, "steps", c.Sampler.Steps, "steps of ddim")
	f.StringVar(&c.Decoder.Manifest, "decoder", c.Decoder.Manifest, "none, shapes, or the path of a decoder's manifest")
	f.IntVar(&c.ONNXRuntime.Threads, "threads", c.ONNXRuntime.Threads, "threads of a run")
	f.StringVar(&c.ONNXRuntime.Provider, "provider", ort.CPU, "execution provider: cpu or cuda")
	f.StringVar(&c.ONNXRuntime.Library, "onnxruntime", "", "ONNX Runtime's shared library (default: $REBECA_ONNXRUNTIME, then the cache)")
	out := f.String("out", "", "directory for samples.jsonl and the PNGs (required)")
	require(cmd, "out")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case p.Count < 1 || p.Count > 1000:
			return usageError{fmt.Errorf("-n is %d, outside 1..1000", p.Count)}
		case *rating != "like" && *rating != "dislike":
			return usageError{fmt.Errorf("--rating is %q, not like or dislike", *rating)}
		case *method != "ddpm" && *method != "ddim":
			return usageError{fmt.Errorf("--sampler is %q, not ddpm or ddim", *method)}
		case f.Changed("steps") && *method == "ddpm":
			return usageError{fmt.Errorf("--steps is for --sampler ddim: ddpm takes every timestep")}
		case p.User < prior.NoUser:
			return usageError{fmt.Errorf("--user is %d, below -1", p.User)}
		}
		if *rating == "dislike" {
			p.Label = prior.StrongNegative
		}
		p.Checkpoint, p.Ancestral = args[0], *method == "ddpm"
		if err := c.OpenRuntime(); err != nil {
			return err
		}
		var sampled, decoded func()
		p.Progress, sampled = watch(cmd.ErrOrStderr(), "timesteps", 0)
		p.Decoding, decoded = watch(cmd.ErrOrStderr(), "decoding", slow)
		samples, err := rebeca.SamplePrior(cmd.Context(), c, p)
		sampled()
		decoded()
		if err != nil {
			return err
		}
		return writeSamples(*out, samples)
	}
	return cmd
}

// slow is how long work is watched for before it is worth a meter: a decoder may take milliseconds or minutes.
const slow = 2 * time.Second

// watch returns a function that shows progress, and one that ends the display; nothing is shown where progress is told for less than after.
func watch(w io.Writer, label string, after time.Duration) (progress func(done, total int), end func()) {
	var m *meter.Meter
	var start time.Time
	progress = func(done, total int) {
		if start.IsZero() {
			start = time.Now()
		}
		if m == nil && time.Since(start) >= after {
			m = meter.New(w, label, int64(total))
		}
		if m != nil {
			m.Set(int64(done))
		}
	}
	return progress, func() {
		if m != nil {
			m.Done()
		}
	}
}
