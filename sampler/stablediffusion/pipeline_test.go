package stablediffusion

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"rebeca/internal/ort"
)

func TestMain(m *testing.M) {
	path, err := ort.Locate("")
	if err == nil {
		err = ort.Open(path)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// tiny is the fixtures' folder in memory, to be damaged.
func tiny(t testing.TB) (fstest.MapFS, Config, int) {
	t.Helper()
	folder := filepath.Join("testdata", "tiny")
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	fsys := fstest.MapFS{}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(folder, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		fsys[e.Name()] = &fstest.MapFile{Data: data}
	}
	c, dim := readConfig(t, folder)
	c.Scheduler.Steps = 4
	return fsys, c, dim
}

func embedding(dim int, by float32) []float32 {
	out := make([]float32, dim)
	for i := range out {
		out[i] = by * float32(math.Sin(float64(3*i+1)))
	}
	return out
}

func mustDraw(t testing.TB, p *Pipeline, e []float32, seed uint64) []float32 {
	t.Helper()
	values, err := p.Draw(t.Context(), e, seed, nil)
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// TestDrawDependsOnEmbeddingAndSeed: on both, on nothing else, and the seed's noise is standard normal.
func TestDrawDependsOnEmbeddingAndSeed(t *testing.T) {
	fsys, c, dim := tiny(t)
	c.Files.SafetyChecker = ""
	p := openPipeline(t, fsys, c, dim)
	first := mustDraw(t, p, embedding(dim, 1), 7)
	if again := mustDraw(t, p, embedding(dim, 1), 7); !slices.Equal(first, again) {
		t.Error("the same embedding and seed give another picture")
	}
	for name, other := range map[string][]float32{
		"embedding": mustDraw(t, p, embedding(dim, -1), 7),
		"seed":      mustDraw(t, p, embedding(dim, 1), 8),
	} {
		if d := distance(first, other); d < .02 {
			t.Errorf("another %s moves the picture by %v only", name, d)
		}
	}
	q := *p
	q.config.ImageScale = 0
	if a, b := mustDraw(t, &q, embedding(dim, 1), 7), mustDraw(t, &q, embedding(dim, -1), 7); distance(a, b) > 1e-5 {
		t.Error("the embedding shows through an image scale of 0")
	}
}

func TestTextStates(t *testing.T) {
	fsys, c, dim := tiny(t)
	c.Files.SafetyChecker = ""
	byEncoder := mustDraw(t, openPipeline(t, fsys, c, dim), embedding(dim, 1), 1)
	c.Files.TextEncoder, c.Files.TextStates = "", "text_states.f32"
	p := openPipeline(t, fsys, c, dim)
	if d := distance(byEncoder, mustDraw(t, p, embedding(dim, 1), 1)); d > 1e-4 {
		t.Errorf("states from the file move the picture by %v", d)
	}
	for i := range p.text.Data() {
		p.text.Data()[i] *= -1
	}
	if d := distance(byEncoder, mustDraw(t, p, embedding(dim, 1), 1)); d < .01 {
		t.Errorf("other states move the picture by %v only", d)
	}
}

// TestWithheld: what diffusers withholds gives no picture, and without a checker it does.
func TestWithheld(t *testing.T) {
	fsys, c, dim := tiny(t)
	checked := openPipeline(t, fsys, c, dim)
	c.Files.SafetyChecker = ""
	free := openPipeline(t, fsys, c, dim)
	counts := map[bool]int{}
	for seed := range uint64(12) {
		values := mustDraw(t, checked, embedding(dim, 1), seed)
		all := mustDraw(t, free, embedding(dim, 1), seed)
		if values != nil && !slices.Equal(values, all) {
			t.Fatal("the checker changes a picture")
		}
		counts[values == nil]++
	}
	if counts[true] == 0 || counts[false] == 0 {
		t.Errorf("withheld: %v, want some and not all", counts)
	}
}

func TestProgressAndEnd(t *testing.T) {
	fsys, c, dim := tiny(t)
	p := openPipeline(t, fsys, c, dim)
	var told []int
	if _, err := p.Draw(t.Context(), embedding(dim, 1), 1, func(done int) { told = append(told, done) }); err != nil {
		t.Fatal(err)
	}
	if want := []int{1, 2, 3, 4, 5}; !slices.Equal(told, want) || p.Evaluations() != len(want) {
		t.Errorf("told %v of %d, want %v: pndm evaluates its first step twice", told, p.Evaluations(), want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	last := 0
	_, err := p.Draw(ctx, embedding(dim, 1), 1, func(done int) {
		if last = done; done == 2 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || last != 2 {
		t.Errorf("error %v after %d steps, want %v after 2", err, last, context.Canceled)
	}
	p.turn <- struct{}{} // somebody else's picture
	if _, err := p.Draw(ctx, embedding(dim, 1), 1, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for a turn: error %v, want %v", err, context.Canceled)
	}
	<-p.turn
}

func TestNoiseThatIsNotFinite(t *testing.T) {
	fsys, c, dim := tiny(t)
	p := openPipeline(t, fsys, c, dim)
	p.text.Data()[0] = float32(math.NaN())
	if _, err := p.Draw(t.Context(), embedding(dim, 1), 1, nil); err == nil || !strings.Contains(err.Error(), "step 1 of 5: value 0 of the noise is NaN") {
		t.Errorf("error %v", err)
	}
}

func TestUseAfterCloseIsABug(t *testing.T) {
	fsys, c, dim := tiny(t)
	p, err := Open(fsys, ".", c, dim, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	defer func() {
		if r := recover(); r != "stablediffusion: use of a closed pipeline" {
			t.Errorf("recovered %v", r)
		}
	}()
	p.Draw(t.Context(), embedding(dim, 1), 1, nil)
}

func TestOpenRefuses(t *testing.T) {
	for _, tc := range []struct {
		want string
		edit func(c *Config, dim *int, fsys fstest.MapFS)
	}{
		{"files.unet: gone.onnx: open gone.onnx: file does not exist", func(c *Config, _ *int, _ fstest.MapFS) { c.Files.UNet = "gone.onnx" }},
		{"files.image_projection: gone.onnx: ", func(c *Config, _ *int, _ fstest.MapFS) { c.Files.ImageProjection = "gone.onnx" }},
		{"files.vae_decoder: gone.onnx: ", func(c *Config, _ *int, _ fstest.MapFS) { c.Files.VAEDecoder = "gone.onnx" }},
		{"files.text_encoder: gone.onnx: ", func(c *Config, _ *int, _ fstest.MapFS) { c.Files.TextEncoder = "gone.onnx" }},
		{"files.safety_checker: gone.onnx: ", func(c *Config, _ *int, _ fstest.MapFS) { c.Files.SafetyChecker = "gone.onnx" }},
		{"files.unet: unet.onnx: reading model: ", func(_ *Config, _ *int, f fstest.MapFS) {
			f["unet.onnx"] = &fstest.MapFile{Data: f["unet.onnx"].Data[:5000]}
		}},
		{`files.unet: vae_decoder.onnx: input: no "sample" among ["latent"]`, func(c *Config, _ *int, _ fstest.MapFS) { c.Files.UNet = "vae_decoder.onnx" }},
		{`files.image_projection: image_projection.onnx: input: "embedding" has shape [-1 6] where the manifest says [-1 7]`, func(_ *Config, dim *int, _ fstest.MapFS) { *dim = 7 }},
		{`files.image_projection: image_projection.onnx: output: "tokens" has shape [-1 4 12] where the manifest says [-1 3 12]`, func(c *Config, _ *int, _ fstest.MapFS) { c.Tokens[0] = 3 }},
		{`files.vae_decoder: vae_decoder.onnx: output: "image" has shape [1 3 16 16] where the manifest says [1 3 16 24]`, func(c *Config, _ *int, _ fstest.MapFS) { c.Width = 24 }},
		{`files.vae_decoder: vae_decoder.onnx: input: "latent" has shape [1 4 8 8] where the manifest says [1 4 4 8]`, func(c *Config, _ *int, _ fstest.MapFS) { c.Latent[1] = 4 }},
		{`files.text_encoder: text_encoder.onnx: input: "ids" has shape [1 5] where the manifest says [1 6]`, func(c *Config, _ *int, _ fstest.MapFS) { c.Text[0], c.Prompt = 6, append(c.Prompt, 3) }},
		{`files.unet: unet.onnx: input: "text" has shape [1 5 12] where the manifest says [1 4 12]`, func(c *Config, _ *int, f fstest.MapFS) {
			c.Files.TextEncoder, c.Files.TextStates, c.Text[0] = "", "text_states.f32", 4
			f["text_states.f32"] = &fstest.MapFile{Data: f["text_states.f32"].Data[:4*12*4]}
		}},
		{"files.text_states: text_states.f32 has 239 bytes where `text` makes it 240", func(c *Config, _ *int, f fstest.MapFS) {
			c.Files.TextEncoder, c.Files.TextStates = "", "text_states.f32"
			f["text_states.f32"] = &fstest.MapFile{Data: f["text_states.f32"].Data[:239]}
		}},
		{"files.text_states: value 2 is NaN", func(c *Config, _ *int, f fstest.MapFS) {
			c.Files.TextEncoder, c.Files.TextStates = "", "text_states.f32"
			data := bytes.Clone(f["text_states.f32"].Data)
			binary.LittleEndian.PutUint32(data[8:], math.Float32bits(float32(math.NaN())))
			f["text_states.f32"] = &fstest.MapFile{Data: data}
		}},
		{"files.text_encoder: text_encoder.onnx: running model: ", func(c *Config, _ *int, _ fstest.MapFS) { c.Prompt[0] = 99 }},
		{`files.safety_checker: vae_decoder.onnx: input: no "image" among ["latent"]`, func(c *Config, _ *int, _ fstest.MapFS) { c.Files.SafetyChecker = "vae_decoder.onnx" }},
	} {
		fsys, c, dim := tiny(t)
		tc.edit(&c, &dim, fsys)
		if err := c.Validate(); err != nil {
			t.Errorf("%s: not valid: %v", tc.want, err)
		}
		if _, err := Open(fsys, ".", c, dim, ort.Options{}); err == nil || !strings.HasPrefix(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("error %v, want %q", err, tc.want)
		}
	}
}

// TestMoreInputs: a U-Net that wants more than is given is refused when it is opened.
func TestMoreInputs(t *testing.T) {
	found := []ort.IO{{Name: "latent", Shape: []int64{1, 4}}, {Name: "time_ids", Shape: []int64{1, 6}}}
	err := matches("input", found, []io{{"latent", []int64{1, 4}}})
	if want := `input: 2 of them, ["latent"] are read`; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}
