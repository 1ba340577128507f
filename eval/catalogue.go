package eval

import (
	"context"
	"fmt"
	"image"
	"io"
	"math"
	"sync"

	"rebeca/eval/shapes"
	"rebeca/internal/meter"
	"rebeca/internal/ort"
	"rebeca/sampler"
)

// catalogue is items and the taste of each.
type catalogue struct {
	items [][]float32
	cells []int
}

// Worlds makes worlds. Pictures, which do not depend on the seed, are encoded once and kept in memory.
type Worlds struct {
	Runtime  ort.Options // of the encoder of pictures
	Progress io.Writer   // where encoding shows how far it is; nil shows nothing

	mu       sync.Mutex
	pictures map[string]catalogue // guarded by mu
}

// New makes the world of a shape. The same shape and seed give the same world and the same stream.
func (m *Worlds) New(ctx context.Context, s Shape, seed uint64) (*World, error) {
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("world %s: %w", s.Name, err)
	}
	k, err := kindOf(s.Name)
	if err != nil {
		return nil, err
	}
	var c catalogue
	if k.preset != nil {
		c, err = m.encoded(ctx, k.preset(), s)
	} else {
		c, err = k.latents(s, seed)
	}
	if err != nil {
		return nil, fmt.Errorf("world %s: making its catalogue: %w", s.Name, err)
	}
	w, err := newWorld(s, seed, k.law(), c)
	if err != nil {
		return nil, fmt.Errorf("world %s: %w", s.Name, err)
	}
	return w, nil
}

// encoded draws and encodes as many pictures of the preset's tastes as the shape asks for.
func (m *Worlds) encoded(ctx context.Context, p shapes.Preset, s Shape) (c catalogue, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p.Items, p.People = s.Items+s.Fresh, 1
	if s.Tastes > len(p.Tastes) {
		return c, fmt.Errorf("tastes: %d, but there are %d kinds of pictures", s.Tastes, len(p.Tastes))
	}
	p.Tastes, p.MaxTastes = p.Tastes[:s.Tastes], min(p.MaxTastes, s.Tastes)
	key := fmt.Sprint(p.Name, p.Items, s.Tastes)
	if c, ok := m.pictures[key]; ok {
		return c, nil
	}
	w, err := shapes.NewWorld(p, 0)
	if err != nil {
		return c, err
	}
	if c.items, err = m.encode(ctx, w.Items); err != nil {
		return c, err
	}
	for i := range w.Items {
		c.cells = append(c.cells, i%s.Tastes)
	}
	if m.pictures == nil {
		m.pictures = map[string]catalogue{}
	}
	m.pictures[key] = c
	return c, nil
}

func (m *Worlds) encode(ctx context.Context, items []shapes.Item) ([][]float32, error) {
	enc, err := sampler.OpenEncoder(shapes.Codec(), "manifest.json", m.Runtime)
	if err != nil {
		return nil, fmt.Errorf("opening the encoder: %w", err)
	}
	defer enc.Close()
	out := io.Discard
	if m.Progress != nil {
		out = m.Progress
	}
	const batch = 64
	progress, embeddings := meter.New(out, "encoding pictures", int64(len(items))), make([][]float32, 0, len(items))
	for at := 0; at < len(items); at += batch {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		some := items[at:min(at+batch, len(items))]
		images := make([]image.Image, len(some))
		for i, item := range some {
			images[i] = item.Image()
		}
		e, err := enc.Encode(images)
		if err != nil {
			return nil, err
		}
		embeddings = append(embeddings, e...)
		progress.Set(int64(len(embeddings)))
	}
	progress.Done()
	return embeddings, nil
}

// standardise moves items to mean 0 and scales all of them by one number to a standard deviation of 1.
func standardise(items [][]float32) {
	dim := len(items[0])
	mean := make([]float64, dim)
	for _, e := range items {
		for d, v := range e {
			mean[d] += float64(v) / float64(len(items))
		}
	}
	sum := 0.
	for _, e := range items {
		for d, v := range e {
			sum += (float64(v) - mean[d]) * (float64(v) - mean[d])
		}
	}
	scale := 1.
	if sum > 0 {
		scale = 1 / math.Sqrt(sum/float64(dim*len(items)))
	}
	for _, e := range items {
		for d, v := range e {
			e[d] = float32((float64(v) - mean[d]) * scale)
		}
	}
}
