package rebeca

import (
	"image"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOpenDrawing: decoder.manifest takes Stable Diffusion as it takes any other decoder, and what does not fit is named before anything runs.
func TestOpenDrawing(t *testing.T) {
	c := DefaultConfig()
	if err := c.OpenRuntime(); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join("sampler", "stablediffusion", "testdata", "tiny")
	c.Decoder.Manifest, c.Prior.Dim = filepath.Join(folder, "manifest.json"), 6
	d, err := c.OpenDecoder()
	if err != nil {
		t.Fatal(err)
	}
	if d.Dim() != 6 || d.Size() != image.Pt(16, 16) {
		t.Errorf("dimension %d, size %v", d.Dim(), d.Size())
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	c.Prior.Dim = 1024
	if _, err := c.OpenDecoder(); err == nil || err.Error() != "decoder.manifest: the decoder reads 6 dimensions, prior.dim is 1024" {
		t.Errorf("error %v", err)
	}
	data, err := os.ReadFile(c.Decoder.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	c.Decoder.Manifest = filepath.Join(t.TempDir(), "manifest.json")
	if err := os.WriteFile(c.Decoder.Manifest, data, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = c.OpenDecoder()
	for _, word := range []string{"decoder.manifest: " + c.Decoder.Manifest, "stable_diffusion.files.text_encoder: ", "text_encoder.onnx", "no such file"} {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("files that are not there: error %v, want %q", err, word)
		}
	}
}
