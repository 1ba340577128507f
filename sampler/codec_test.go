package sampler

import (
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

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

const tinyPath = "tiny/manifest.json"

func openTiny(t testing.TB, batch int64) (*Decoder, *Encoder) {
	t.Helper()
	fsys := codecFS(t, tinyManifest(), batch)
	d, err := OpenDecoder(fsys, tinyPath, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := OpenEncoder(fsys, tinyPath, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, e
}

func randomEmbeddings(n, dim int) [][]float32 {
	rng := rand.New(rand.NewPCG(1, 2))
	out := make([][]float32, n)
	for i := range out {
		out[i] = make([]float32, dim)
		for d := range dim {
			out[i][d] = float32(rng.NormFloat64())
		}
	}
	return out
}

func TestDecode(t *testing.T) {
	for _, batch := range []int64{-1, tinyBatch} {
		d, _ := openTiny(t, batch)
		if d.Dim() != tinyDim || d.Name() != "tiny" || d.Size() != image.Pt(tinyWidth, tinyHeight) {
			t.Fatalf("decoder %q has dimension %d, size %v", d.Name(), d.Dim(), d.Size())
		}
		for _, n := range []int{0, 1, tinyBatch, 2*tinyBatch + 1} {
			zs := randomEmbeddings(n, tinyDim)
			images, err := d.Decode(t.Context(), zs, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(images) != n {
				t.Fatalf("%d images of %d embeddings", len(images), n)
			}
			for i, img := range images {
				checkTinyImage(t, zs[i], img.(*image.RGBA))
			}
		}
	}
}

// checkTinyImage computes the tiny decoder in plain Go.
func checkTinyImage(t *testing.T, z []float32, img *image.RGBA) {
	t.Helper()
	w := tinyWeights()
	for c := range 3 {
		for y := range tinyHeight {
			for x := range tinyWidth {
				v := 0.
				for d := range tinyDim {
					v += float64(z[d]) * float64(w[d*tinyValues+c*tinyWidth*tinyHeight+y*tinyWidth+x])
				}
				want := min(max((v+1)/2*255, 0), 255)
				got := float64(img.Pix[img.PixOffset(x, y)+c])
				if math.Abs(got-want) > .51 {
					t.Fatalf("channel %d at %d,%d is %v, want %v", c, x, y, got, want)
				}
			}
		}
	}
	if !img.Opaque() {
		t.Fatal("image is not opaque")
	}
}

func TestDecodeDoesNotDependOnNeighbours(t *testing.T) {
	d, _ := openTiny(t, -1)
	zs := randomEmbeddings(11, tinyDim)
	together, err := d.Decode(t.Context(), zs, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i, z := range zs {
		wg.Go(func() {
			alone, err := d.Decode(t.Context(), [][]float32{z}, nil, nil)
			if err != nil {
				t.Error(err)
				return
			}
			if !slices.Equal(alone[0].(*image.RGBA).Pix, together[i].(*image.RGBA).Pix) {
				t.Errorf("embedding %d gives other pixels alone", i)
			}
		})
	}
	wg.Wait()
}

func TestEncode(t *testing.T) {
	_, e := openTiny(t, tinyBatch)
	if e.Dim() != tinyDim || e.Name() != "tiny" {
		t.Fatalf("encoder %q has dimension %d", e.Name(), e.Dim())
	}
	var images []image.Image
	rng := rand.New(rand.NewPCG(5, 5))
	for i := range tinyBatch + 2 {
		// A window on a larger image: bounds that do not start at zero, rows that do not follow each other.
		whole := image.NewRGBA(image.Rect(0, 0, 9, 9))
		for k := range whole.Pix {
			whole.Pix[k] = uint8(rng.IntN(256))
			if k%4 == 3 {
				whole.Pix[k] = 255
			}
		}
		images = append(images, whole.SubImage(image.Rect(i, 2, i+tinyWidth, 2+tinyHeight)))
	}
	paletted := image.NewPaletted(image.Rect(0, 0, tinyWidth, tinyHeight), color.Palette{color.White, color.RGBA{10, 200, 30, 255}})
	paletted.SetColorIndex(1, 1, 1)
	images = append(images, paletted)
	got, err := e.Encode(images)
	if err != nil {
		t.Fatal(err)
	}
	w := tinyWeights()
	for i, img := range images {
		for d := range tinyDim {
			want := 0.
			for k := range tinyValues {
				c, y, x := k/(tinyWidth*tinyHeight), k/tinyWidth%tinyHeight, k%tinyWidth
				r, g, b, _ := img.At(img.Bounds().Min.X+x, img.Bounds().Min.Y+y).RGBA()
				want += (float64([]uint32{r, g, b}[c]>>8)/255*2 - 1) * float64(w[d*tinyValues+k])
			}
			if math.Abs(float64(got[i][d])-want) > 1e-4 {
				t.Errorf("image %d, dimension %d: %v, want %v", i, d, got[i][d], want)
			}
		}
	}
}

func TestCodecRefuses(t *testing.T) {
	d, e := openTiny(t, -1)
	nan, huge := float32(math.NaN()), float32(math.MaxFloat32)
	for want, zs := range map[string][][]float32{
		"decoding embedding 1: 3 values where \"tiny\" takes 4": {make([]float32, 4), make([]float32, 3)},
		"decoding embedding 0: value 2 is NaN":                  {{0, 0, nan, 0}},
		"decoding row 1: pixel":                                 {{0, 0, 0, 0}, {huge, huge, huge, huge}},
	} {
		if _, err := d.Decode(t.Context(), zs, nil, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	want := `encoding image 0: 2x3 pixels where "tiny" takes 3x2`
	if _, err := e.Encode([]image.Image{image.NewRGBA(image.Rect(0, 0, 2, 3))}); err == nil || err.Error() != want {
		t.Errorf("error %v, want %q", err, want)
	}
}

func TestUseAfterCloseIsABug(t *testing.T) {
	fsys := codecFS(t, tinyManifest(), -1)
	d, err := OpenDecoder(fsys, tinyPath, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	defer func() {
		if r := recover(); r != "sampler: use of a closed codec" {
			t.Errorf("recovered %v", r)
		}
	}()
	d.Decode(t.Context(), make([][]float32, 0), nil, nil)
}

func TestOpenRefuses(t *testing.T) {
	for _, tc := range []struct {
		want string
		edit func(m *Manifest)
	}{
		{"tiny/manifest.json: decoder: missing", func(m *Manifest) { m.Decoder = nil }},
		{"decoder.file: absent.onnx: open tiny/absent.onnx: file does not exist", func(m *Manifest) { m.Decoder.File = "absent.onnx" }},
		{"decoder.file: manifest.json: reading model", func(m *Manifest) { m.Decoder.File = "manifest.json" }},
		{`decoder.input: decoder.onnx: no "latent" among ["z"]`, func(m *Manifest) { m.Decoder.Input = "latent" }},
		{`decoder.output: decoder.onnx: no "pixels" among ["image"]`, func(m *Manifest) { m.Decoder.Output = "pixels" }},
		{`decoder.input: decoder.onnx: "z" has shape [-1 4] where the manifest says [4 5]`, func(m *Manifest) { m.Dim = 5 }},
		{`decoder.output: decoder.onnx: "image" has shape [-1 3 2 3] where the manifest says [4 3 2 8]`, func(m *Manifest) { m.Decoder.Width = 8 }},
		{`decoder.input: encoder.onnx: no "z" among ["image"]`, func(m *Manifest) { m.Decoder.File = "encoder.onnx" }},
		{"decoding manifest: decoder.layout", func(m *Manifest) { m.Decoder.Layout = "NHWC" }},
	} {
		m := tinyManifest()
		tc.edit(&m)
		_, err := OpenDecoder(codecFS(t, m, -1), tinyPath, ort.Options{})
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), tinyPath) {
			t.Errorf("error %v, want %q", err, tc.want)
		}
	}
	if _, err := OpenEncoder(codecFS(t, tinyManifest(), 7), tinyPath, ort.Options{}); err == nil || !strings.Contains(err.Error(), "has shape [7 3 2 3] where the manifest says [4 3 2 3]") {
		t.Errorf("a fixed batch of another size: error %v", err)
	}
	m := tinyManifest()
	m.Encoder = nil
	if _, err := OpenEncoder(codecFS(t, m, -1), tinyPath, ort.Options{}); err == nil || err.Error() != "tiny/manifest.json: encoder: missing" {
		t.Errorf("no encoder: error %v", err)
	}
	if _, err := OpenDecoder(codecFS(t, m, -1), "other.json", ort.Options{}); err == nil || !strings.Contains(err.Error(), "other.json: reading manifest") {
		t.Errorf("no manifest: error %v", err)
	}
}

func TestDecodeTellsAndStops(t *testing.T) {
	d, _ := openTiny(t, tinyBatch)
	zs := make([][]float32, 2*tinyBatch+1)
	for i := range zs {
		zs[i] = make([]float32, tinyDim)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var told [][2]int
	if _, err := d.Decode(ctx, zs, make([]uint64, len(zs)), func(done, total int) { told = append(told, [2]int{done, total}) }); err != nil {
		t.Fatal(err)
	}
	if want := [][2]int{{1, 3}, {2, 3}, {3, 3}}; !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
	calls := 0
	_, err := d.Decode(ctx, zs, nil, func(int, int) { calls++; cancel() })
	if !errors.Is(err, context.Canceled) || calls != 1 {
		t.Errorf("%v after %d passes, want %v after one", err, calls, context.Canceled)
	}
}
