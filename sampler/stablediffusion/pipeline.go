package stablediffusion

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"

	"rebeca/internal/ort"
)

// pcgStream keeps the noise of pictures apart from other uses of the same seed.
const pcgStream = 0x7265626563612f64 // "rebeca/d"

// Pipeline draws pictures, one at a time: a picture takes every thread and gigabytes of memory. It is safe for concurrent use; those who
// wait for their turn wait until their context ends.
type Pipeline struct {
	config Config
	dim    int
	text   *ort.Tensor
	// checker is nil without one.
	projection, unet, vae, checker *ort.Session
	turn                           chan struct{} // capacity 1: full while a picture is drawn
}

// Open compiles the parts of a valid configuration, whose files are in the folder dir of fsys, for embeddings of dim values. Errors name the
// manifest's field and the file; ONNX Runtime must be open. A part of more than 2 GB needs fsys to be an ort.Folder.
func Open(fsys fs.FS, dir string, c Config, dim int, o ort.Options) (_ *Pipeline, err error) {
	p := &Pipeline{config: c, dim: dim, turn: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.free())
		}
	}()
	if p.text, err = c.textStates(fsys, dir, o); err != nil {
		return nil, err
	}
	for _, part := range []struct {
		to *(*ort.Session)
		graph
	}{{&p.projection, c.projection(dim)}, {&p.vae, c.vae()}, {&p.checker, c.checker()}, {&p.unet, c.unet()}} {
		if part.file == "" {
			continue
		}
		if *part.to, err = part.open(fsys, dir, o); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Evaluations is how often a picture's U-Net is run, each time with one row, or two under guidance.
func (p *Pipeline) Evaluations() int {
	times, err := p.config.Scheduler.times()
	if err != nil {
		panic("stablediffusion: a scheduler that was not validated: " + err.Error())
	}
	return len(times)
}

// Draw gives the values [3, height, width] in -1 to 1, a little beyond at most, of the picture of an embedding [dim]; nil if the safety
// checker withheld it. The same embedding, seed and build of ONNX Runtime give the same bits. progress, if not nil, is told how many
// evaluations of the U-Net are done. It ends with the error of ctx when that does, within a node of the graph.
func (p *Pipeline) Draw(ctx context.Context, embedding []float32, seed uint64, progress func(done int)) ([]float32, error) {
	rng := rand.New(rand.NewPCG(seed, pcgStream))
	noise := make([]float32, size(shape(1, p.config.Latent[:])))
	for i := range noise {
		noise[i] = float32(rng.NormFloat64())
	}
	values, concern, err := p.draw(ctx, embedding, noise, progress)
	if err != nil || concern > 0 {
		return nil, err
	}
	return values, nil
}

// draw is Draw from given noise; concern is the safety checker's largest score, above 0 where it withholds the picture.
func (p *Pipeline) draw(ctx context.Context, embedding, noise []float32, progress func(done int)) (values []float32, concern float32, err error) {
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
	if p.unet == nil {
		panic("stablediffusion: use of a closed pipeline")
	}
	latent, err := p.walk(ctx, embedding, noise, progress)
	if err != nil {
		return nil, 0, err
	}
	in, out := tensor(latent, shape(1, p.config.Latent[:])), ort.NewTensor(1, 3, int64(p.config.Height), int64(p.config.Width))
	defer in.Close()
	defer out.Close()
	if err := p.vae.RunContext(ctx, []*ort.Tensor{in}, []*ort.Tensor{out}); err != nil {
		return nil, 0, fmt.Errorf("decoding the latent: %w", err)
	}
	if p.checker == nil {
		return out.Data(), 0, nil
	}
	concern, err = p.judge(ctx, out.Data())
	return out.Data(), concern, err
}

// walk takes noise to a latent.
func (p *Pipeline) walk(ctx context.Context, embedding, noise []float32, progress func(done int)) ([]float32, error) {
	rows := 1
	if p.config.Guidance > 1 {
		rows = 2 // the embedding 0 comes first
	}
	tokens, err := p.tokens(ctx, embedding, rows)
	if err != nil {
		return nil, fmt.Errorf("projecting the embedding: %w", err)
	}
	defer tokens.Close()
	batch := shape(int64(rows), p.config.Latent[:])
	sample, predicted, timestep, scale := ort.NewTensor(batch...), ort.NewTensor(batch...), ort.NewTensor(1), ort.NewTensor(1)
	for _, t := range []*ort.Tensor{sample, predicted, timestep, scale} {
		defer t.Close()
	}
	scale.Data()[0] = float32(p.config.ImageScale)
	latent := slices.Clone(noise)
	s := newSolver(p.config.Scheduler, len(latent))
	for i, t := range s.times {
		for r := range rows {
			copy(sample.Data()[r*len(latent):], latent)
		}
		timestep.Data()[0] = float32(t)
		if err := p.unet.RunContext(ctx, []*ort.Tensor{sample, timestep, p.text, tokens, scale}, []*ort.Tensor{predicted}); err != nil {
			return nil, fmt.Errorf("step %d of %d: %w", i+1, len(s.times), err)
		}
		eps := predicted.Data()[(rows-1)*len(latent):]
		if rows == 2 {
			combine(eps, p.config.Guidance, eps, 1-p.config.Guidance, predicted.Data()[:len(latent)])
		}
		if k := slices.IndexFunc(eps, notFinite); k >= 0 {
			return nil, fmt.Errorf("step %d of %d: value %d of the noise is %v", i+1, len(s.times), k, eps[k])
		}
		s.step(i, latent, eps)
		if progress != nil {
			progress(i + 1)
		}
	}
	return latent, nil
}

// tokens projects an embedding, behind the embedding 0 where there are two rows.
func (p *Pipeline) tokens(ctx context.Context, embedding []float32, rows int) (*ort.Tensor, error) {
	in, out := ort.NewTensor(int64(rows), int64(p.dim)), ort.NewTensor(shape(int64(rows), p.config.Tokens[:])...)
	defer in.Close()
	copy(in.Data()[(rows-1)*p.dim:], embedding)
	if err := p.projection.RunContext(ctx, []*ort.Tensor{in}, []*ort.Tensor{out}); err != nil {
		out.Close()
		return nil, err
	}
	return out, nil
}

func (p *Pipeline) judge(ctx context.Context, values []float32) (float32, error) {
	in, out := ort.NewTensor(1, 3, int64(p.config.Height), int64(p.config.Width)), ort.NewTensor(1)
	defer in.Close()
	defer out.Close()
	for i, v := range values {
		in.Data()[i] = v/2 + .5
	}
	if err := p.checker.RunContext(ctx, []*ort.Tensor{in}, []*ort.Tensor{out}); err != nil {
		return 0, fmt.Errorf("checking safety: %w", err)
	}
	if concern := out.Data()[0]; !notFinite(concern) {
		return concern, nil
	}
	return 0, fmt.Errorf("checking safety: the checker says %v", out.Data()[0])
}

// Close frees everything after the picture in progress. A second Close does nothing.
func (p *Pipeline) Close() error {
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	return p.free()
}

func (p *Pipeline) free() error {
	var errs []error
	for _, s := range []*(*ort.Session){&p.projection, &p.unet, &p.vae, &p.checker} {
		if *s != nil {
			errs = append(errs, (*s).Close())
			*s = nil
		}
	}
	if p.text != nil {
		p.text.Close()
		p.text = nil
	}
	return errors.Join(errs...)
}

func tensor(data []float32, shape []int64) *ort.Tensor {
	t, err := ort.NewTensorFrom(data, shape...)
	if err != nil {
		panic("stablediffusion: " + err.Error())
	}
	return t
}
