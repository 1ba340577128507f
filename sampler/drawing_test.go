package sampler

import (
	"encoding/json"
	"image"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"rebeca/internal/ort"
)

// drawingFolder holds Stable Diffusion with tiny random weights.
const drawingFolder = "stablediffusion/testdata/tiny"

// openDrawing opens the tiny pipeline with few steps, after an edit of its manifest.
func openDrawing(t *testing.T, edit func(m *Manifest)) (*Decoder, error) {
	t.Helper()
	data, err := os.ReadFile(drawingFolder + "/manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	m, err := DecodeManifest(data)
	if err != nil {
		t.Fatal(err)
	}
	m.StableDiffusion.Scheduler.Steps = 3
	m.StableDiffusion.Files.SafetyChecker = ""
	edit(&m)
	if data, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	fsys := fstest.MapFS{"few.json": {Data: data}}
	entries, err := os.ReadDir(drawingFolder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if data, err = os.ReadFile(drawingFolder + "/" + e.Name()); err != nil {
			t.Fatal(err)
		}
		fsys[e.Name()] = &fstest.MapFile{Data: data}
	}
	d, err := OpenDecoder(fsys, "few.json", ort.Options{})
	if err == nil {
		t.Cleanup(func() {
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return d, err
}

// TestDraw: Stable Diffusion behind the codec's interface: pictures of their own seeds, whatever stands beside them.
func TestDraw(t *testing.T) {
	d, err := openDrawing(t, func(*Manifest) {})
	if err != nil {
		t.Fatal(err)
	}
	if d.Dim() != 6 || d.Size() != image.Pt(16, 16) {
		t.Fatalf("dimension %d, size %v", d.Dim(), d.Size())
	}
	es := [][]float32{{1, 0, -1, 2, 0, 1}, {0, 2, 1, -1, 1, 0}, {1, 0, -1, 2, 0, 1}}
	var told [][2]int
	together, err := d.Decode(t.Context(), es, []uint64{5, 6, 7}, func(done, total int) { told = append(told, [2]int{done, total}) })
	if err != nil {
		t.Fatal(err)
	}
	pix := func(img image.Image) []uint8 { return img.(*image.RGBA).Pix }
	alone, err := d.Decode(t.Context(), es[1:2], []uint64{6}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(pix(alone[0]), pix(together[1])) {
		t.Error("a picture depends on its neighbours")
	}
	if slices.Equal(pix(together[0]), pix(together[2])) {
		t.Error("two seeds give one picture")
	}
	if len(told) != 12 || told[4] != [2]int{5, 12} || told[11] != [2]int{12, 12} {
		t.Errorf("told %v", told)
	}
	unseeded, err := d.Decode(t.Context(), es[:1], nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if zero, err := d.Decode(t.Context(), es[:1], []uint64{0}, nil); err != nil || !slices.Equal(pix(zero[0]), pix(unseeded[0])) {
		t.Errorf("no seeds are not seeds of 0 (%v)", err)
	}
	if _, err := d.Decode(t.Context(), [][]float32{{1}}, nil, nil); err == nil || !strings.Contains(err.Error(), `1 values where "tiny" takes 6`) {
		t.Errorf("an embedding of another length: error %v", err)
	}
}

// TestDrawWithheld: a picture that the safety checker withholds is nil; the others are there.
func TestDrawWithheld(t *testing.T) {
	d, err := openDrawing(t, func(m *Manifest) { m.StableDiffusion.Files.SafetyChecker = "safety_checker.onnx" })
	if err != nil {
		t.Fatal(err)
	}
	es, seeds := make([][]float32, 12), make([]uint64, 12)
	for i := range es {
		es[i], seeds[i] = []float32{1, 0, -1, 2, 0, 1}, uint64(i)
	}
	images, err := d.Decode(t.Context(), es, seeds, nil)
	if err != nil {
		t.Fatal(err)
	}
	counts := map[bool]int{}
	for _, img := range images {
		counts[img == nil]++
	}
	if counts[true] == 0 || counts[false] == 0 {
		t.Errorf("withheld: %v, want some and not all", counts)
	}
}

func TestOpenDrawingRefuses(t *testing.T) {
	for _, tc := range []struct {
		want string
		edit func(m *Manifest)
	}{
		{"few.json: decoding manifest: stable_diffusion.kind: ", func(m *Manifest) { m.StableDiffusion.Kind = "sdxl" }},
		{"few.json: stable_diffusion.files.unet: gone.onnx: open gone.onnx: file does not exist", func(m *Manifest) { m.StableDiffusion.Files.UNet = "gone.onnx" }},
		{`few.json: stable_diffusion.files.image_projection: image_projection.onnx: input: "embedding" has shape [-1 6] where the manifest says [-1 1024]`, func(m *Manifest) { m.Dim = 1024 }},
	} {
		if _, err := openDrawing(t, tc.edit); err == nil || !strings.HasPrefix(err.Error(), tc.want) {
			t.Errorf("error %v, want %q", err, tc.want)
		}
	}
}
