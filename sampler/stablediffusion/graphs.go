package stablediffusion

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"

	"rebeca/internal/ort"
)

// free is the batch of a graph that takes one row or two.
const free = -1

// io is a name and a shape that a graph must have.
type io struct {
	name  string
	shape []int64
}

// graph is a part of the pipeline: its field in the manifest, its file, and the inputs and outputs that it must have, all of them.
type graph struct {
	field, file string
	in, out     []io
}

// What tools/stable_diffusion.py writes.

func (c Config) projection(dim int) graph {
	return graph{"image_projection", c.Files.ImageProjection,
		[]io{{"embedding", []int64{free, int64(dim)}}},
		[]io{{"tokens", shape(free, c.Tokens[:])}}}
}

func (c Config) unet() graph {
	return graph{"unet", c.Files.UNet,
		[]io{{"sample", shape(free, c.Latent[:])}, {"timestep", []int64{1}}, {"text", shape(1, c.Text[:])},
			{"tokens", shape(free, c.Tokens[:])}, {"image_scale", []int64{1}}},
		[]io{{"noise", shape(free, c.Latent[:])}}}
}

func (c Config) vae() graph {
	return graph{"vae_decoder", c.Files.VAEDecoder,
		[]io{{"latent", shape(1, c.Latent[:])}},
		[]io{{"image", []int64{1, 3, int64(c.Height), int64(c.Width)}}}}
}

func (c Config) textEncoder() graph {
	return graph{"text_encoder", c.Files.TextEncoder,
		[]io{{"ids", []int64{1, int64(c.Text[0])}}},
		[]io{{"states", shape(1, c.Text[:])}}}
}

func (c Config) checker() graph {
	return graph{"safety_checker", c.Files.SafetyChecker,
		[]io{{"image", []int64{1, 3, int64(c.Height), int64(c.Width)}}},
		[]io{{"concern", []int64{1}}}}
}

func shape(batch int64, row []int) []int64 {
	out := []int64{batch}
	for _, n := range row {
		out = append(out, int64(n))
	}
	return out
}

func size(shape []int64) int {
	n := 1
	for _, d := range shape {
		n *= int(d)
	}
	return n
}

// open compiles a graph that is as the manifest says. Errors begin with the manifest's field.
func (g graph) open(fsys fs.FS, dir string, o ort.Options) (*ort.Session, error) {
	name := path.Join(dir, g.file)
	in, out, err := ort.DescribeFile(fsys, name)
	if err == nil {
		err = matches("input", in, g.in)
	}
	if err == nil {
		err = matches("output", out, g.out)
	}
	if err != nil {
		return nil, fmt.Errorf("files.%s: %s: %w", g.field, g.file, err)
	}
	session, err := ort.NewFileSession(fsys, name, names(g.in), names(g.out), o)
	if err != nil {
		return nil, fmt.Errorf("files.%s: %s: %w", g.field, g.file, err)
	}
	return session, nil
}

func matches(side string, found []ort.IO, want []io) error {
	for _, w := range want {
		if err := ort.CheckIO(found, w.name, w.shape); err != nil {
			return fmt.Errorf("%s: %w", side, err)
		}
	}
	if len(found) != len(want) {
		return fmt.Errorf("%s: %d of them, %q are read", side, len(found), names(want))
	}
	return nil
}

func names(ios []io) []string {
	out := make([]string, len(ios))
	for i, x := range ios {
		out[i] = x.name
	}
	return out
}

// textStates reads or makes the states [text tokens, width] of the empty prompt.
func (c Config) textStates(fsys fs.FS, dir string, o ort.Options) (*ort.Tensor, error) {
	states := ort.NewTensor(shape(1, c.Text[:])...)
	err := c.fillStates(fsys, dir, o, states)
	if err == nil {
		for i, v := range states.Data() {
			if notFinite(v) {
				err = fmt.Errorf("files.%s: value %d is %v", c.textField(), i, v)
				break
			}
		}
	}
	if err != nil {
		states.Close()
		return nil, err
	}
	return states, nil
}

func (c Config) textField() string {
	if c.Files.TextEncoder != "" {
		return "text_encoder"
	}
	return "text_states"
}

func (c Config) fillStates(fsys fs.FS, dir string, o ort.Options, states *ort.Tensor) error {
	if c.Files.TextEncoder == "" {
		return readStates(fsys, path.Join(dir, c.Files.TextStates), states.Data())
	}
	session, err := c.textEncoder().open(fsys, dir, o)
	if err != nil {
		return err
	}
	ids := ort.NewTensor(1, int64(c.Text[0]))
	defer ids.Close()
	for i, id := range c.Prompt {
		ids.Data()[i] = float32(id)
	}
	if err := errors.Join(session.Run([]*ort.Tensor{ids}, []*ort.Tensor{states}), session.Close()); err != nil {
		return fmt.Errorf("files.text_encoder: %s: %w", c.Files.TextEncoder, err)
	}
	return nil
}

func readStates(fsys fs.FS, name string, dst []float32) error {
	f, err := fsys.Open(name)
	if err != nil {
		return fmt.Errorf("files.text_states: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("files.text_states: %w", err)
	}
	if info.Size() != 4*int64(len(dst)) {
		return fmt.Errorf("files.text_states: %s has %d bytes where `text` makes it %d", name, info.Size(), 4*len(dst))
	}
	if err := binary.Read(f, binary.LittleEndian, dst); err != nil {
		return fmt.Errorf("files.text_states: reading %s: %w", name, err)
	}
	return nil
}

func notFinite(v float32) bool { return math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) }
