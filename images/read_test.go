package images

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestReadKinds reads every kind of file that is read; all show the same ramp, 32x24, made by tools/odd_pictures.py.
func TestReadKinds(t *testing.T) {
	for name, want := range map[string]color.NRGBA{ // of pixel 20,10
		"lossy.webp": {160, 100, 175, 255}, "lossless.webp": {160, 100, 175, 255}, "alpha.webp": {160, 100, 175, 160}, "animated.png": {160, 100, 175, 255},
		"cmyk.jpg": {160, 100, 175, 255}, "progressive.jpg": {160, 100, 175, 255}, "grey.jpg": {126, 126, 126, 255}, "grey16.png": {160, 160, 160, 255},
	} {
		img, err := Read(bytes.NewReader(fixture(t, name)), DefaultLimits())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := color.NRGBAModel.Convert(img.At(20, 10)).(color.NRGBA)
		off := func(a, b uint8) bool { return max(a, b)-min(a, b) > 8 }
		if img.Bounds() != image.Rect(0, 0, 32, 24) || off(got.R, want.R) || off(got.G, want.G) || off(got.B, want.B) || got.A != want.A {
			t.Errorf("%s: %v, pixel %v, want %v", name, img.Bounds(), got, want)
		}
	}
}

// bomb is a small PNG whose head promises a picture of a size.
func bomb(width, height uint32) []byte {
	var out bytes.Buffer
	if err := png.Encode(&out, image.NewGray(image.Rect(0, 0, 1, 1))); err != nil {
		panic(err)
	}
	data := out.Bytes()
	for k := range 4 {
		data[16+k], data[20+k] = byte(width>>(24-8*k)), byte(height>>(24-8*k))
	}
	sum := crc32.ChecksumIEEE(data[12:29])
	for k := range 4 {
		data[29+k] = byte(sum >> (24 - 8*k))
	}
	return data
}

// canvas wraps a WebP file's picture in the extended format with a canvas of a size of its own, and alpha, if any, of that size.
func canvas(width, height int, alpha bool, file []byte) []byte {
	body := []byte("WEBP")
	chunk := func(name string, data ...byte) {
		body = binary.LittleEndian.AppendUint32(append(body, name...), uint32(len(data)))
		body = append(append(body, data...), make([]byte, len(data)%2)...)
	}
	head := []byte{0, 0, 0, 0, byte(width - 1), byte((width - 1) >> 8), 0, byte(height - 1), byte((height - 1) >> 8), 0}
	if alpha {
		head[0] = 1 << 4
	}
	chunk("VP8X", head...)
	if alpha {
		chunk("ALPH", make([]byte, 1+width*height)...)
	}
	body = append(body, file[12:]...)
	return append(binary.LittleEndian.AppendUint32([]byte("RIFF"), uint32(len(body))), body...)
}

// webpBomb is a small lossless WebP whose head promises 16383x16383 pixels.
func webpBomb(t testing.TB) []byte {
	data := fixture(t, "lossless.webp")
	head := data[21:25] // 14 bits of width less one, 14 of height less one, 4 of others
	binary.LittleEndian.PutUint32(head, binary.LittleEndian.Uint32(head)&^(1<<28-1)|16382|16382<<14)
	return data
}

// TestColoursAreSmooth holds colour of half the resolution against what Pillow makes of the same files.
func TestColoursAreSmooth(t *testing.T) {
	for _, name := range []string{"edges-420.jpg", "edges-422.jpg", "edges-444.jpg", "edges.webp", "edges-alpha.webp"} {
		img, err := Read(bytes.NewReader(fixture(t, name)), DefaultLimits())
		if err != nil {
			t.Fatal(name, err)
		}
		want, err := png.Decode(bytes.NewReader(fixture(t, name+".png")))
		if err != nil {
			t.Fatal(name, err)
		}
		worst, sum, b := 0, 0, img.Bounds()
		for y := range b.Dy() {
			for x := range b.Dx() {
				p, q := color.NRGBAModel.Convert(img.At(x, y)).(color.NRGBA), color.NRGBAModel.Convert(want.At(x, y)).(color.NRGBA)
				for _, d := range []int{int(p.R) - int(q.R), int(p.G) - int(q.G), int(p.B) - int(q.B), int(p.A) - int(q.A)} {
					worst, sum = max(worst, d, -d), sum+max(d, -d)
				}
			}
		}
		mean := float64(sum) / float64(4*b.Dx()*b.Dy())
		if t.Logf("%s: at most %d levels, in the mean %.3f", name, worst, mean); worst > 3 || mean > .5 || b != want.Bounds() {
			t.Errorf("%s: %d levels from Pillow's at most, %.2f in the mean", name, worst, mean)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	cut := func(name string) []byte { d := fixture(t, name); return d[:len(d)-len(d)/3] }
	var gray bytes.Buffer
	if err := jpeg.Encode(&gray, image.NewGray(image.Rect(0, 0, 64, 64)), nil); err != nil {
		t.Fatal(err)
	}
	l := Limits{Pixels: 100_000, Bytes: 10_000}
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "the file is empty"},
		{"text", []byte("hello"), "is of no known format; PNG, JPEG and WebP are read"},
		{"animated GIF", fixture(t, "animated.gif"), "is a GIF; PNG"},
		{"animated WebP", fixture(t, "animated.webp"), "an animated WebP"},
		{"SVG", []byte("<svg/>"), "is an SVG"},
		{"cut PNG", cut("animated.png")[:60], "PNG: "},
		{"cut JPEG", gray.Bytes()[:gray.Len()-20], "JPEG: "},
		{"head of a JPEG", gray.Bytes()[:10], "JPEG: the file is cut off"},
		{"cut WebP", cut("lossy.webp"), "WebP: "},
		{"long", make([]byte, 10_001), "has more than 10000 bytes"},
		{"PNG bomb", bomb(60_000, 60_000), "PNG of 60000x60000 pixels, at most 100000 are read"},
		{"thin PNG bomb", bomb(1, 100_001), "PNG of 1x100001 pixels"},
		{"WebP bomb", webpBomb(t), "WebP of 16383x16383 pixels, at most 100000 are read"},
		{"WebP bomb on its canvas", canvas(16383, 16383, false, webpBomb(t)), "WebP of 16383x16383 pixels, at most 100000 are read"},
		{"WebP bomb on a small canvas", canvas(1, 1, false, webpBomb(t)), "a picture of 16383x16383 pixels on a canvas of 1x1"},
		{"WebP beyond its alpha", canvas(1, 1, true, fixture(t, "lossy.webp")), "a picture of 32x24 pixels on a canvas of 1x1"},
		{"WebP without a picture", canvas(1, 1, false, make([]byte, 12)), "there is no picture in it"},
		{"PNG bomb beyond 64 bits", bomb(1<<31-1, 1<<31-1), "PNG"},
	} {
		if _, err := Read(bytes.NewReader(c.data), l); err == nil || !errors.Is(err, ErrPicture) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	broken := io.MultiReader(bytes.NewReader(fixture(t, "lossy.webp")[:40]), failing{})
	if _, err := Read(broken, l); err == nil || errors.Is(err, ErrPicture) {
		t.Errorf("a disk's error: %v", err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("the disk is gone") }

// FuzzRead: no file brings the reader down, and what is read is within the limits.
func FuzzRead(f *testing.F) {
	entries, err := os.ReadDir("testdata")
	if err != nil {
		f.Fatal(err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			f.Add(fixture(f, e.Name()))
		}
	}
	f.Add(bomb(300, 300))
	f.Add(canvas(1, 1, false, webpBomb(f)))
	f.Add(canvas(1, 1, true, fixture(f, "lossy.webp")))
	f.Add(canvas(32, 24, true, fixture(f, "lossy.webp")))
	f.Fuzz(func(t *testing.T, data []byte) {
		img, err := Read(bytes.NewReader(data), Limits{Pixels: 40_000, Bytes: 1 << 20})
		if err != nil && !errors.Is(err, ErrPicture) {
			t.Fatalf("error without its class: %v", err)
		}
		if err == nil && img.Bounds().Dx()*img.Bounds().Dy() > 40_000 {
			t.Fatalf("%v is read", img.Bounds())
		}
	})
}
