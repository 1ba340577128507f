package shapes

import (
	"encoding/json"
	"flag"
	"image"
	"image/color"
	"image/png"
	"io/fs"
	"os"
	"testing"

	"rebeca/internal/ort"
)

var sheet = flag.String("sheet", "", "write a contact sheet of the tastes and their reconstructions to this PNG")

const latent = 16

// codec is the embedded encoder and decoder in ONNX Runtime.
type codec struct {
	t                testing.TB
	encoder, decoder *ort.Session
}

// side is one half of the codec in its manifest.
type side struct {
	File, Input, Output, Layout string
	Range                       [2]float64
	Width, Height, Batch        int
}

func openCodec(t testing.TB) *codec {
	t.Helper()
	library, err := ort.Locate("")
	if err != nil {
		t.Fatal(err)
	}
	if err := ort.Open(library); err != nil {
		t.Fatal(err)
	}
	raw, err := fs.ReadFile(Codec(), "manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	var m struct {
		Format, Dim      int
		Name             string
		Encoder, Decoder side
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	if m.Format != 1 || m.Dim != latent || m.Name != "shapes" {
		t.Fatalf("manifest: format %d, dim %d, name %q", m.Format, m.Dim, m.Name)
	}
	c := &codec{t: t}
	for s, session := range map[side]**ort.Session{m.Encoder: &c.encoder, m.Decoder: &c.decoder} {
		if s.Width != Side || s.Height != Side || s.Layout != "NCHW" || s.Range != [2]float64{0, 1} || s.Batch < 1 {
			t.Fatalf("manifest: %+v", s)
		}
		model, err := fs.ReadFile(Codec(), s.File)
		if err != nil {
			t.Fatal(err)
		}
		opened, err := ort.NewSession(model, []string{s.Input}, []string{s.Output}, ort.Options{Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		*session = opened
		t.Cleanup(func() { opened.Close() })
	}
	return c
}

// run feeds rows [n, width of in] through a session in batches of at most 100.
func (c *codec) run(s *ort.Session, rows [][]float32, in, out []int64) [][]float32 {
	c.t.Helper()
	results := make([][]float32, 0, len(rows))
	for len(rows) > 0 {
		chunk := rows[:min(100, len(rows))]
		rows = rows[len(chunk):]
		x := ort.NewTensor(append([]int64{int64(len(chunk))}, in...)...)
		y := ort.NewTensor(append([]int64{int64(len(chunk))}, out...)...)
		for i, row := range chunk {
			copy(x.Data()[i*len(row):], row)
		}
		if err := s.Run([]*ort.Tensor{x}, []*ort.Tensor{y}); err != nil {
			c.t.Fatal(err)
		}
		width := len(y.Data()) / len(chunk)
		for i := range chunk {
			results = append(results, append([]float32(nil), y.Data()[i*width:(i+1)*width]...))
		}
		x.Close()
		y.Close()
	}
	return results
}

func (c *codec) encode(images [][]float32) [][]float32 {
	return c.run(c.encoder, images, []int64{3, Side, Side}, []int64{latent})
}

func (c *codec) decode(latents [][]float32) [][]float32 {
	return c.run(c.decoder, latents, []int64{latent}, []int64{3, Side, Side})
}

// planes gives a picture as [3, 64, 64] in 0..1.
func planes(img *image.RGBA) []float32 {
	const n = Side * Side
	out := make([]float32, 3*n)
	for i := range n {
		for ch := range 3 {
			out[ch*n+i] = float32(img.Pix[4*i+ch]) / 255
		}
	}
	return out
}

func TestCodecKeepsPicturesAndTastes(t *testing.T) {
	c := openCodec(t)
	w := mustWorld(t, Demo(), 1)
	catalogue := make([][]float32, len(w.Items))
	for i, item := range w.Items {
		catalogue[i] = planes(item.Image())
	}
	judge, err := NewJudge(c.encode(catalogue), w.Tastes())
	if err != nil {
		t.Fatal(err)
	}

	// Poses that neither the catalogue (seeds from 0) nor the training (from 1<<40) has.
	const n, m = 1200, 480 // m of them are decoded too
	fresh, truth := make([][]float32, n), make([]Taste, n)
	for i := range fresh {
		truth[i] = w.Preset.Tastes[i%24]
		fresh[i] = planes(Render(truth[i], 1<<50+uint64(i)))
	}
	latents := c.encode(fresh)
	decoded := c.decode(latents[:m])

	var sum float64
	for i := range decoded {
		sum += squared(fresh[i], decoded[i])
	}
	mse := sum / (m * 3 * Side * Side)
	right := agreement(judge.Tastes(latents), truth)
	again := agreement(judge.Tastes(c.encode(decoded)), truth[:m])
	t.Logf("MSE %.5f, nearest latent keeps the taste %.2f %%, that of the reconstruction %.2f %%", mse, 100*right, 100*again)
	if mse > maxMSE {
		t.Errorf("reconstruction error %v, want at most %v", mse, maxMSE)
	}
	if right < .995 {
		t.Errorf("the nearest real latent keeps the taste of %.2f %%, want 99.5", 100*right)
	}
	if again < .99 {
		t.Errorf("reconstructions keep the taste of %.2f %%, want 99", 100*again)
	}
	if *sheet != "" {
		writeSheet(t, *sheet, fresh[:48], decoded[:48])
	}
}

// maxMSE is the bound on the reconstruction error per value, a good tenth above what
// model/CARD.md states.
const maxMSE = 0.0015

func agreement(got, want []Taste) float64 {
	same := 0
	for i := range want {
		if got[i] == want[i] {
			same++
		}
	}
	return float64(same) / float64(len(want))
}

func TestCodecIsSmall(t *testing.T) {
	var total int64
	for _, name := range []string{"encoder.onnx", "decoder.onnx"} {
		info, err := fs.Stat(Codec(), name)
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if total > 6<<20 {
		t.Errorf("the codec has %d bytes, want at most 6 MiB", total)
	}
}

// writeSheet sets pictures above their reconstructions, twelve to a row, enlarged.
func writeSheet(t *testing.T, path string, real, decoded [][]float32) {
	const columns, zoom, gap = 12, 2, 4
	const cell = Side*zoom + gap
	rows := (len(real) + columns - 1) / columns
	out := image.NewRGBA(image.Rect(0, 0, columns*cell, 2*rows*cell))
	paint := func(at int, below int, p []float32) {
		x0, y0 := at%columns*cell, (at/columns*2+below)*cell
		for y := range Side * zoom {
			for x := range Side * zoom {
				i := y/zoom*Side + x/zoom
				out.SetRGBA(x0+x, y0+y, color.RGBA{level(p[i]), level(p[Side*Side+i]), level(p[2*Side*Side+i]), 255})
			}
		}
	}
	for i := range real {
		paint(i, 0, real[i])
		paint(i, 1, decoded[i])
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := png.Encode(f, out); err != nil {
		t.Fatal(err)
	}
}

func level(v float32) uint8 { return uint8(min(max(v, 0), 1)*255 + .5) }
