package sampler

import (
	"context"
	"fmt"
	"image"
	"image/draw"
	"io/fs"
	"path"
	"slices"
	"sync"

	"rebeca/internal/ort"
	"rebeca/sampler/stablediffusion"
)

// Decoder maps embeddings to images. It is safe for concurrent use.
type Decoder struct {
	m       Manifest
	network *network                  // nil with a pipeline
	drawing *stablediffusion.Pipeline // nil with a network
}

// OpenDecoder reads a manifest and compiles its decoder. The manifest's files are named relative to the manifest; those above 2 GB need
// fsys to be an ort.Folder. Errors name the file and the field; ONNX Runtime must be open.
func OpenDecoder(fsys fs.FS, manifest string, o ort.Options) (*Decoder, error) {
	m, err := readManifest(fsys, manifest)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", manifest, err)
	}
	if c := m.StableDiffusion; c != nil {
		p, err := stablediffusion.Open(fsys, path.Dir(manifest), *c, m.Dim, o)
		if err != nil {
			return nil, fmt.Errorf("%s: stable_diffusion.%w", manifest, err)
		}
		return &Decoder{m: m, drawing: p}, nil
	}
	if m.Decoder == nil {
		return nil, fmt.Errorf("%s: decoder: missing", manifest)
	}
	embedding := []int64{int64(m.Decoder.Batch), int64(m.Dim)}
	n, err := openNetwork(fsys, path.Dir(manifest), *m.Decoder, embedding, m.Decoder.imageShape(), o)
	if err != nil {
		return nil, fmt.Errorf("%s: decoder.%w", manifest, err)
	}
	return &Decoder{m: m, network: n}, nil
}

// Name is the manifest's name of the codec.
func (d *Decoder) Name() string { return d.m.Name }

// Dim is the length of the embeddings it takes.
func (d *Decoder) Dim() int { return d.m.Dim }

// Batch is how many images a run makes; fewer take as long.
func (d *Decoder) Batch() int {
	if d.drawing != nil {
		return 1
	}
	return d.m.Decoder.Batch
}

// Size is the size of the images it gives, in pixels.
func (d *Decoder) Size() image.Point {
	if c := d.m.StableDiffusion; c != nil {
		return image.Pt(c.Width, c.Height)
	}
	return image.Pt(d.m.Decoder.Width, d.m.Decoder.Height)
}

// Decode gives one opaque *image.RGBA for each embedding [Dim] in the catalogue's scale. An embedding always gives the
// same pixels: every run has the manifest's batch, padded with zeros. An embedding of another length or a value that is
// not finite, on either side, is an error that names the row.
//
// seeds has one for each embedding, what a decoder draws its noise by; nil is 0 for all, and one that draws none ignores it. progress, if
// not nil, is told how many passes of the network are done of how many. When ctx ends, so does Decode, with its error. An image that is
// nil was withheld by the decoder's safety checker.
func (d *Decoder) Decode(ctx context.Context, embeddings [][]float32, seeds []uint64, progress func(done, total int)) ([]image.Image, error) {
	if seeds != nil && len(seeds) != len(embeddings) {
		panic(fmt.Sprintf("sampler: decoding %d embeddings with %d seeds", len(embeddings), len(seeds)))
	}
	for i, e := range embeddings {
		if len(e) != d.m.Dim {
			return nil, fmt.Errorf("decoding embedding %d: %d values where %q takes %d", i, len(e), d.m.Name, d.m.Dim)
		}
		if k := slices.IndexFunc(e, notFinite); k >= 0 {
			return nil, fmt.Errorf("decoding embedding %d: value %d is %v", i, k, e[k])
		}
	}
	if d.drawing != nil {
		return d.draw(ctx, embeddings, seeds, progress)
	}
	p := d.m.Decoder
	out := make([]image.Image, len(embeddings))
	err := d.network.run(ctx, len(embeddings), progress,
		func(i int, dst []float32) error { copy(dst, embeddings[i]); return nil },
		func(i int, src []float32) (err error) { out[i], err = p.pixels(src); return err })
	if err != nil {
		return nil, fmt.Errorf("decoding %w", err)
	}
	return out, nil
}

// draw makes the pictures one after another, so that none depends on another.
func (d *Decoder) draw(ctx context.Context, embeddings [][]float32, seeds []uint64, progress func(done, total int)) ([]image.Image, error) {
	c, each := d.m.StableDiffusion, d.drawing.Evaluations()
	p := Part{Width: c.Width, Height: c.Height, Range: [2]float64{-1, 1}}
	out := make([]image.Image, len(embeddings))
	for i, e := range embeddings {
		var seed uint64
		if seeds != nil {
			seed = seeds[i]
		}
		values, err := d.drawing.Draw(ctx, e, seed, func(done int) {
			if progress != nil {
				progress(i*each+done, len(embeddings)*each)
			}
		})
		if err != nil {
			return nil, fmt.Errorf("decoding embedding %d: %w", i, err)
		}
		if values == nil {
			continue // withheld
		}
		if out[i], err = p.pixels(values); err != nil {
			return nil, fmt.Errorf("decoding embedding %d: %w", i, err)
		}
	}
	return out, nil
}

// Close frees the decoder after the calls in progress.
func (d *Decoder) Close() error {
	if d.drawing != nil {
		return d.drawing.Close()
	}
	return d.network.close()
}

// Encoder maps images to embeddings. It is safe for concurrent use.
type Encoder struct {
	m       Manifest
	network *network
}

// OpenEncoder reads a manifest and compiles its encoder, as OpenDecoder does the decoder.
func OpenEncoder(fsys fs.FS, manifest string, o ort.Options) (*Encoder, error) {
	m, err := readManifest(fsys, manifest)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", manifest, err)
	}
	if m.Encoder == nil {
		return nil, fmt.Errorf("%s: encoder: missing", manifest)
	}
	embedding := []int64{int64(m.Encoder.Batch), int64(m.Dim)}
	n, err := openNetwork(fsys, path.Dir(manifest), *m.Encoder, m.Encoder.imageShape(), embedding, o)
	if err != nil {
		return nil, fmt.Errorf("%s: encoder.%w", manifest, err)
	}
	return &Encoder{m: m, network: n}, nil
}

// Name is the manifest's name of the codec.
func (e *Encoder) Name() string { return e.m.Name }

// Dim is the length of the embeddings it gives.
func (e *Encoder) Dim() int { return e.m.Dim }

// Encode gives the embedding [Dim] of each image. Images must have the manifest's size, see Fit. Transparent
// pixels are taken over black.
func (e *Encoder) Encode(images []image.Image) ([][]float32, error) {
	p := e.m.Encoder
	for i, img := range images {
		if s := img.Bounds().Size(); s.X != p.Width || s.Y != p.Height {
			return nil, fmt.Errorf("encoding image %d: %dx%d pixels where %q takes %dx%d", i, s.X, s.Y, e.m.Name, p.Width, p.Height)
		}
	}
	out := make([][]float32, len(images))
	err := e.network.run(context.Background(), len(images), nil,
		func(i int, dst []float32) error {
			p.values(dst, images[i])
			p.normalize(dst)
			return nil
		},
		func(i int, src []float32) error {
			if k := slices.IndexFunc(src, notFinite); k >= 0 {
				return fmt.Errorf("value %d of the embedding is %v", k, src[k])
			}
			out[i] = slices.Clone(src)
			return nil
		})
	if err != nil {
		return nil, fmt.Errorf("encoding %w", err)
	}
	return out, nil
}

// Close frees the network after the calls in progress.
func (e *Encoder) Close() error { return e.network.close() }

func notFinite(v float32) bool { return v-v != 0 }

func readManifest(fsys fs.FS, name string) (Manifest, error) {
	data, err := fs.ReadFile(fsys, name)
	if err != nil {
		return Manifest{}, fmt.Errorf("reading manifest: %w", err)
	}
	return DecodeManifest(data)
}

// pixels turns one image of the network's layout into bytes.
func (p *Part) pixels(src []float32) (*image.RGBA, error) {
	img := image.NewRGBA(image.Rect(0, 0, p.Width, p.Height))
	plane := p.Width * p.Height
	low := float32(p.Range[0])
	scale := float32(255 / (p.Range[1] - p.Range[0]))
	r, g, b := src[:plane], src[plane:2*plane], src[2*plane:3*plane]
	for i := range plane {
		vr, vg, vb := (r[i]-low)*scale, (g[i]-low)*scale, (b[i]-low)*scale
		if sum := vr + vg + vb; sum-sum != 0 {
			return nil, fmt.Errorf("pixel %d,%d is not finite", i%p.Width, i/p.Width)
		}
		o := img.Pix[4*i : 4*i+4 : 4*i+4]
		o[0], o[1], o[2], o[3] = level(vr), level(vg), level(vb), 255
	}
	return img, nil
}

// level rounds to the nearest of 256 levels.
func level(v float32) uint8 {
	switch {
	case v <= 0:
		return 0
	case v >= 255:
		return 255
	}
	return uint8(v + .5)
}

// values turns an image into one image of the network's layout.
func (p *Part) values(dst []float32, img image.Image) {
	rgba, ok := img.(*image.RGBA)
	if !ok {
		rgba = image.NewRGBA(image.Rect(0, 0, p.Width, p.Height))
		draw.Draw(rgba, rgba.Rect, img, img.Bounds().Min, draw.Src)
	}
	plane := p.Width * p.Height
	low := float32(p.Range[0])
	scale := float32((p.Range[1] - p.Range[0]) / 255)
	for y := range p.Height {
		row := rgba.Pix[rgba.PixOffset(rgba.Rect.Min.X, rgba.Rect.Min.Y+y):]
		for x := range p.Width {
			for c := range 3 {
				dst[c*plane+y*p.Width+x] = float32(row[4*x+c])*scale + low
			}
		}
	}
}

// network is a session of fixed shapes with one input and one output.
type network struct {
	session *ort.Session
	in, out []int64 // shapes; the first dimension is the batch
	inRow   int     // values of a row
	outRow  int
	closing sync.RWMutex // held shared by runs, exclusively by close
	mu      sync.Mutex
	idle    []tensors // guarded by mu: one pair for each run that was ever concurrent
	closed  bool      // guarded by closing
}

type tensors struct{ in, out *ort.Tensor }

func openNetwork(fsys fs.FS, dir string, p Part, in, out []int64, o ort.Options) (*network, error) {
	name := path.Join(dir, p.File)
	inputs, outputs, err := ort.DescribeFile(fsys, name)
	if err != nil {
		return nil, fmt.Errorf("file: %s: %w", p.File, err)
	}
	if len(inputs) != 1 {
		return nil, fmt.Errorf("input: %s has %d inputs, one is read", p.File, len(inputs))
	}
	if err := ort.CheckIO(inputs, p.Input, in); err != nil {
		return nil, fmt.Errorf("input: %s: %w", p.File, err)
	}
	if err := ort.CheckIO(outputs, p.Output, out); err != nil {
		return nil, fmt.Errorf("output: %s: %w", p.File, err)
	}
	session, err := ort.NewFileSession(fsys, name, []string{p.Input}, []string{p.Output}, o)
	if err != nil {
		return nil, fmt.Errorf("file: %s: %w", p.File, err)
	}
	return &network{session: session, in: in, out: out, inRow: rowSize(in), outRow: rowSize(out)}, nil
}

func rowSize(shape []int64) int {
	n := 1
	for _, d := range shape[1:] {
		n *= int(d)
	}
	return n
}

// run puts n rows through the network, in batches of its one shape: fill writes row i, drain reads its result. Errors
// begin with the row. progress may be nil.
func (n *network) run(ctx context.Context, rows int, progress func(done, total int), fill, drain func(i int, row []float32) error) error {
	n.closing.RLock()
	defer n.closing.RUnlock()
	if n.closed {
		panic("sampler: use of a closed codec")
	}
	t := n.take()
	defer n.put(t)
	batch := int(n.in[0])
	for start := 0; start < rows; start += batch {
		k := min(batch, rows-start)
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("rows %d to %d: %w", start, start+k-1, err)
		}
		in := t.in.Data()
		for i := range k {
			if err := fill(start+i, in[i*n.inRow:(i+1)*n.inRow]); err != nil {
				return fmt.Errorf("row %d: %w", start+i, err)
			}
		}
		clear(in[k*n.inRow:])
		if err := n.session.Run([]*ort.Tensor{t.in}, []*ort.Tensor{t.out}); err != nil {
			return fmt.Errorf("rows %d to %d: %w", start, start+k-1, err)
		}
		for i := range k {
			if err := drain(start+i, t.out.Data()[i*n.outRow:(i+1)*n.outRow]); err != nil {
				return fmt.Errorf("row %d: %w", start+i, err)
			}
		}
		if progress != nil {
			progress(start/batch+1, (rows+batch-1)/batch)
		}
	}
	return nil
}

func (n *network) take() tensors {
	n.mu.Lock()
	defer n.mu.Unlock()
	if k := len(n.idle); k > 0 {
		t := n.idle[k-1]
		n.idle = n.idle[:k-1]
		return t
	}
	return tensors{ort.NewTensor(n.in...), ort.NewTensor(n.out...)}
}

func (n *network) put(t tensors) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.idle = append(n.idle, t)
}

func (n *network) close() error {
	n.closing.Lock()
	defer n.closing.Unlock()
	if n.closed {
		return nil
	}
	n.closed = true
	for _, t := range n.idle {
		t.in.Close()
		t.out.Close()
	}
	return n.session.Close()
}
