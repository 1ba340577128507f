package main

import (
	"context"
	"os"

	"rebeca/eval"
	"rebeca/internal/figures"
	"rebeca/sampler"
)

// quality has a prior learn the demonstration's world and compares what people are given in few steps with what a thousand give.
func quality(ctx context.Context, s settings, got figures.Figures) error {
	shape, err := eval.Named("demo")
	if err != nil {
		return err
	}
	shape.Events = s.events
	worlds := eval.Worlds{Progress: os.Stderr}
	worlds.Runtime.Threads = s.threads
	w, err := worlds.New(ctx, shape, s.seed)
	if err != nil {
		return err
	}
	recipe := eval.DefaultRecipe(w.Dim)
	// Birth and steps as the demonstration has them: what few steps lose does not wait for the last hundredth of precision.
	recipe.Train.Steps, recipe.Train.BirthSteps, recipe.Train.BirthTargets = 4, 400, 4
	recipe.Train.Threads = s.threads
	o := eval.DefaultOptions()
	o.Asked, o.Samples, o.Visitors, o.FewSamples, o.Controls = s.people, 24, s.people, 1, false
	o.Progress = os.Stderr
	o.Ways = ways()
	report, err := eval.Run(ctx, w, recipe, o)
	if err != nil {
		return err
	}
	compare(report, got)
	return nil
}

// thousand is the name of the chain that the others are held against.
const thousand = "thousand"

// compared are the ways by the suffix of their figures.
func compared() map[string]sampler.Options {
	plain := func(steps int) sampler.Options {
		o := sampler.DefaultOptions()
		o.Steps, o.Anchor = steps, sampler.Anchor{}
		return o
	}
	second := func(o sampler.Options) sampler.Options {
		o.Solver = sampler.DPMSolver2M
		return o
	}
	guarded := plain(8)
	guarded.NormGuard = 1.1
	away := plain(8)
	away.Away = .5
	return map[string]sampler.Options{
		"": plain(8), "_fast": fast(), "_anchored": sampler.DefaultOptions(), "_4_steps": plain(4),
		"_dpmpp_2m": second(plain(8)), "_dpmpp_2m_6_steps": second(plain(6)), "_anchored_dpmpp_2m": second(sampler.DefaultOptions()), "_norm_guard": guarded, "_away": away,
	}
}

func ways() []eval.Way {
	exact := sampler.DefaultOptions()
	out := []eval.Way{{Name: thousand, Draw: func(ctx context.Context, d sampler.Denoiser, jobs []sampler.Job) ([][]float32, error) {
		return sampler.Ancestral(ctx, d, exact, jobs, nil)
	}}}
	for suffix, o := range compared() {
		out = append(out, eval.Way{Name: "way" + suffix, Draw: func(_ context.Context, d sampler.Denoiser, jobs []sampler.Job) ([][]float32, error) {
			return sampler.Sample(d, o, jobs)
		}})
	}
	return out
}

// compare takes the means over the groups that every way was asked for.
func compare(report *eval.Report, got figures.Figures) {
	mean := func(name, measure string) float64 {
		sum, n := 0., 0
		for _, row := range report.Rows {
			if v, ok := row.Measures[measure]; ok && row.When == "all" && row.Of == name {
				sum, n = sum+v, n+1
			}
		}
		return sum / float64(n)
	}
	for _, measure := range []string{"p", "cov", "tv", "w2", "catalogue", "own"} {
		got["thousand_steps_"+measure] = mean(thousand, measure)
	}
	for suffix := range compared() {
		name := "way" + suffix
		got["precision"+suffix], got["coverage"+suffix] = mean(name, "p"), mean(name, "cov")
		got["own_distance"+suffix], got["catalogue_distance"+suffix] = mean(name, "own"), mean(name, "catalogue")
		got["precision_loss"+suffix] = mean(thousand, "p") - mean(name, "p")
		got["coverage_loss"+suffix] = mean(thousand, "cov") - mean(name, "cov")
		got["wasserstein_ratio"+suffix] = mean(name, "w2") / mean(thousand, "w2")
	}
	got["events"] = float64(report.World.Events)
}
