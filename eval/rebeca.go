package eval

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sync/errgroup"

	"rebeca/online"
	"rebeca/online/people"
	"rebeca/prior"
	"rebeca/sampler"
	"rebeca/schemas"
)

// Rebeca is the service as a contestant: its trainer over a table, and samples by the last version that the trainer announced.
type Rebeca struct {
	recipe  Recipe
	dir     string // of checkpoints
	trainer *online.Trainer
	drive   *online.Drive

	version schemas.PriorVersion // last announced
	model   *prior.Model         // of loaded
	loaded  string               // version
}

// newRebeca makes the service's trainer over a table.
func newRebeca(r Recipe, h *house, log *slog.Logger) (*Rebeca, error) {
	return newRebecaOf(r, h, people.Table{Table: h.Table}, log)
}

// newRebecaOf is newRebeca over what stands for the table.
func newRebecaOf(r Recipe, h *house, from online.Source, log *slog.Logger) (*Rebeca, error) {
	c := &Rebeca{recipe: r, dir: filepath.Join(h.dir, "prior")}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, fmt.Errorf("making a directory for checkpoints: %w", err)
	}
	r.Train.StudentLow, r.Train.StudentHigh = r.Sampler.Low, r.Sampler.High
	r.Train.Distances = sampler.Examiner(r.Sampler, r.Runtime)
	c.trainer = online.New(r.Train, r.Prior, from, c.dir, c.announced, log, nil)
	if _, err := c.trainer.Open(); err != nil {
		return nil, err
	}
	c.drive = c.trainer.Drive()
	return c, nil
}

func (c *Rebeca) announced(_ context.Context, v schemas.PriorVersion) error {
	c.version = v
	return nil
}

// Name implements [Contestant].
func (c *Rebeca) Name() string { return "rebeca" }

// Begin implements [Learner].
func (c *Rebeca) Begin(ctx context.Context) error {
	if err := c.drive.Begin(ctx); err != nil {
		return err
	}
	return c.Rest(ctx)
}

// Learn implements [Learner].
func (c *Rebeca) Learn(ctx context.Context, events []online.Example) error {
	if err := c.drive.Learn(ctx, events); err != nil {
		return err
	}
	return c.load()
}

// Rest implements [Learner].
func (c *Rebeca) Rest(ctx context.Context) error {
	if err := c.drive.Rest(ctx); err != nil {
		return err
	}
	return c.load()
}

// load makes the announced version the one that samples.
func (c *Rebeca) load() error {
	if c.version.Version == c.loaded {
		return nil
	}
	st, err := prior.LoadState(c.version.URI)
	if err != nil {
		return fmt.Errorf("loading version %s: %w", c.version.Version, err)
	}
	m, err := prior.NewModel(st, c.recipe.Runtime)
	if err != nil {
		return fmt.Errorf("loading version %s: %w", c.version.Version, err)
	}
	if c.model != nil {
		err = c.model.Close()
	}
	c.model, c.loaded = m, c.version.Version
	return err
}

// Ready implements [Learner].
func (c *Rebeca) Ready() string {
	if c.model == nil {
		return "no_prior"
	}
	return ""
}

// Spent implements [Learner].
func (c *Rebeca) Spent() Spent {
	s := c.trainer.Status()
	return Spent{Steps: s.Step, Examples: s.Examples, Pseudo: s.Pseudo, Versions: s.Number, Refused: s.RefusedVersions, Returns: s.Returns}
}

// Close implements [Learner].
func (c *Rebeca) Close() error {
	c.drive.Close()
	if c.model == nil {
		return nil
	}
	return c.model.Close()
}

// Sample implements [Contestant]: by the recipe's guidance.
func (c *Rebeca) Sample(ctx context.Context, subjects []Subject, n int, seed uint64) ([][][]float32, error) {
	return c.sample(ctx, subjects, n, seed, c.recipe.Sampler)
}

func (c *Rebeca) sample(ctx context.Context, subjects []Subject, n int, seed uint64, o sampler.Options) ([][][]float32, error) {
	return c.draw(ctx, subjects, n, seed, few(o))
}

// Draw makes an embedding for each job.
type Draw func(ctx context.Context, d sampler.Denoiser, jobs []sampler.Job) ([][]float32, error)

// few is the sampler of few steps.
func few(o sampler.Options) Draw {
	return func(_ context.Context, d sampler.Denoiser, jobs []sampler.Job) ([][]float32, error) {
		return sampler.Sample(d, o, jobs)
	}
}

func (c *Rebeca) draw(ctx context.Context, subjects []Subject, n int, seed uint64, draw Draw) ([][][]float32, error) {
	if c.model == nil {
		return nil, errors.New("there is no prior yet")
	}
	contexts := make([]prior.Context, len(subjects))
	for i := range subjects {
		contexts[i] = subjects[i].Context
	}
	conditions, err := c.model.Encode(contexts)
	if err != nil {
		return nil, err
	}
	each := make([]sampler.Job, len(subjects))
	for i := range each {
		each[i] = sampler.Job{Cond: conditions[i], Window: contexts[i]}
	}
	return drawAll(ctx, c.model, draw, each, n, seed)
}

// drawAll draws n samples of each job, with seeds of their own.
func drawAll(ctx context.Context, m *prior.Model, draw Draw, each []sampler.Job, n int, seed uint64) ([][][]float32, error) {
	out := make([][][]float32, len(each))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0)) // a sample has the same bits whoever shares its call
	for i := range each {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			jobs := make([]sampler.Job, n)
			rng := random(seed, useControl, i)
			for k := range jobs {
				jobs[k] = each[i]
				jobs[k].Seed = rng.Uint64()
			}
			var err error
			out[i], err = draw(ctx, m, jobs)
			return err
		})
	}
	return out, g.Wait()
}

// byPasses is the same version with so many passes of its student, or by the teacher.
type byPasses struct {
	*Rebeca
	passes sampler.Passes
}

// students are the contestants that a student and its teacher are compared by, none without a student.
func (c *Rebeca) students() (out []Contestant) {
	if !c.recipe.Train.Student {
		return nil
	}
	out = []Contestant{byPasses{c, sampler.ByTeacher}}
	for _, n := range prior.Passes() {
		out = append(out, byPasses{c, sampler.Passes(n)})
	}
	return out
}

// Name implements [Contestant]: rebeca_teacher, rebeca_1, rebeca_2, rebeca_4.
func (p byPasses) Name() string { return "rebeca_" + p.passes.String() }

// Sample implements [Contestant].
func (p byPasses) Sample(ctx context.Context, subjects []Subject, n int, seed uint64) ([][][]float32, error) {
	o := p.recipe.Sampler
	o.Passes = p.passes
	return p.sample(ctx, subjects, n, seed, o)
}

// Way is the same prior by another sampler.
type Way struct {
	Name string
	Draw Draw
}

// way is a Way as a contestant.
type way struct {
	*Rebeca
	Way
}

// Name implements [Contestant].
func (w way) Name() string { return w.Way.Name }

// Sample implements [Contestant].
func (w way) Sample(ctx context.Context, subjects []Subject, n int, seed uint64) ([][][]float32, error) {
	return w.Rebeca.draw(ctx, subjects, n, seed, w.Way.Draw)
}

// unsharpened samples at guidance 1 and from noise: what the prior says by itself.
func unsharpened(c *Rebeca) Contestant {
	o := c.recipe.Sampler
	o.Guidance, o.Anchor, o.Passes = 1, sampler.Anchor{}, sampler.ByTeacher
	return way{c, Way{"rebeca_g1", few(o)}}
}

// unanchored samples as shipped, but from noise and not from likes of the window: as rivals without a window have to.
func unanchored(c *Rebeca) Contestant {
	o := c.recipe.Sampler
	o.Anchor = sampler.Anchor{}
	return way{c, Way{"rebeca_noise", few(o)}}
}

// population is the same prior without windows: what it would give anybody.
type population struct{ *Rebeca }

// Name implements [Contestant].
func (p population) Name() string { return "population" }

// Sample implements [Contestant].
func (p population) Sample(ctx context.Context, subjects []Subject, n int, seed uint64) ([][][]float32, error) {
	nobody := make([]Subject, len(subjects))
	return p.sample(ctx, nobody, n, seed, p.recipe.Sampler)
}
