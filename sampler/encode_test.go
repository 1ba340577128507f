package sampler

import (
	"encoding/json"
	"image"
	"image/color"
	"image/png"
	"io/fs"
	"math"
	"os"
	"strings"
	"testing"

	"rebeca/internal/ort"
)

func readPNG(t *testing.T, fsys fs.FS, name string) image.Image {
	t.Helper()
	f, err := fsys.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// TestFitAndEncodeAsCLIP holds resizing against Pillow's bytes, exactly, and embeddings against those of transformers (tools/clip_vision.py tiny).
func TestFitAndEncodeAsCLIP(t *testing.T) {
	files := os.DirFS("testdata/clip")
	e, err := OpenEncoder(files, "manifest.json", ort.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	var expected map[string][]float32
	text, err := fs.ReadFile(files, "expected.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &expected); err != nil || len(expected) != 8 {
		t.Fatal(len(expected), err)
	}
	var names []string
	var fitted []image.Image
	for name := range expected {
		img, err := e.Fit(readPNG(t, files, name+".png"))
		if err != nil {
			t.Fatal(name, err)
		}
		want := opaque(readPNG(t, files, name+".fit.png"))
		got := img.(*image.RGBA)
		for k := range want.Pix {
			if got.Pix[k] != want.Pix[k] {
				t.Errorf("%s: pixel %d,%d has %v, Pillow's %v", name, k/4%32, k/4/32, got.Pix[k&^3:k&^3+3], want.Pix[k&^3:k&^3+3])
				break
			}
		}
		names, fitted = append(names, name), append(fitted, img)
	}
	got, err := e.Encode(fitted)
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		worst := 0.0
		for d, v := range got[i] {
			worst = max(worst, math.Abs(float64(v-expected[name][d])))
		}
		if t.Logf("%s: largest difference of a value: %.1e", name, worst); worst > 1e-5 {
			t.Errorf("%s: the embedding differs by up to %g", name, worst)
		}
	}
}

// TestFitLargePictures: a picture of camera size, and the most extreme ones, give the network's size.
func TestFitLargePictures(t *testing.T) {
	for _, size := range []image.Point{{4000, 3000}, {1, 1}, {1, 5000}, {5000, 1}, {224, 224}, {225, 223}} {
		src := image.NewRGBA(image.Rectangle{Max: size})
		for k := range src.Pix {
			src.Pix[k] = 200
		}
		got := fit(src, 224, 224)
		if got.Rect.Dx() != 224 || got.Rect.Dy() != 224 {
			t.Fatalf("%v becomes %v", size, got.Rect)
		}
		for k := range got.Pix {
			if want := byte(200 + 55*(k%4/3)); got.Pix[k] != want {
				t.Fatalf("%v: a flat picture has %d at %d", size, got.Pix[k], k)
			}
		}
	}
}

// TestFitConverts: what a file's kind of colours says about a pixel.
func TestFitConverts(t *testing.T) {
	r := image.Rect(3, 5, 4, 6) // bounds need not begin at 0
	for name, img := range map[string]interface {
		image.Image
		Set(x, y int, c color.Color)
	}{
		"NRGBA": image.NewNRGBA(r), "NRGBA64": image.NewNRGBA64(r), "RGBA64": image.NewRGBA64(r), "Gray": image.NewGray(r), "Gray16": image.NewGray16(r), "CMYK": image.NewCMYK(r),
		"Paletted": image.NewPaletted(r, color.Palette{color.NRGBA{90, 90, 90, 128}}),
	} {
		img.Set(3, 5, color.NRGBA{90, 90, 90, 128})
		want := byte(172) // over white
		switch name {
		case "Gray", "Gray16", "CMYK":
			want = 45 // these have no transparency: Set has blended it with black
		}
		if got := opaque(img); math.Abs(float64(got.Pix[0])-float64(want)) > 1 || got.Pix[3] != 255 {
			t.Errorf("%s: %v", name, got.Pix)
		}
	}
}

func TestManifestPreparation(t *testing.T) {
	const good = `{"format":1,"name":"x","dim":8,"decoder":null,"encoder":{"file":"e.onnx","input":"a","output":"b","layout":"NCHW","range":[0,1],` +
		`"resize":"shortest","mean":[0.5,0.5,0.5],"std":[0.2,0.2,0.2],"width":32,"height":32,"batch":1}}`
	for _, c := range []struct{ from, to, want string }{
		{"", "", ""},
		{`"resize":"shortest",`, "", ""},
		{`"mean":[0.5,0.5,0.5],"std":[0.2,0.2,0.2],`, "", ""},
		{"shortest", "longest", `encoder.resize: "longest" is unknown`},
		{`"mean":[0.5,0.5,0.5],`, "", "encoder.mean, std: one is given"},
		{`[0.5,0.5,0.5]`, `[0.5,0.5]`, "encoder.mean, std: 2 and 3 values"},
		{`0.2,0.2,0.2`, `0.2,0,0.2`, "of channel 1"},
		{`"decoder":null,"encoder":`, `"encoder":null,"decoder":`, "decoder.resize, mean, std: only an encoder has them"},
	} {
		text := strings.Replace(good, c.from, c.to, 1)
		_, err := DecodeManifest([]byte(text))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s -> %s: %v", c.from, c.to, err)
		}
		if fits := fitsSchema([]byte(text)) == nil; fits != (c.want == "") {
			t.Errorf("%s -> %s: fits the schema: %v", c.from, c.to, fits)
		}
	}
}
