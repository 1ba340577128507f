package sampler

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"image"
	"image/color"
	"image/png"
	"math"
	"sync"
	"testing"
)

// disc is an image like those of a small world: a filled shape on a plain ground.
func disc(side int) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, side, side))
	for y := range side {
		for x := range side {
			c := color.RGBA{128, 128, 128, 255}
			if math.Hypot(float64(x)-float64(side)/2, float64(y)-float64(side)/2) < float64(side)/3 {
				c = color.RGBA{220, uint8(40 + x%3), 30, 255}
			}
			img.SetRGBA(x, y, c)
		}
	}
	return img
}

func TestPNG(t *testing.T) {
	img := disc(64)
	first, err := PNG(img)
	if err != nil {
		t.Fatal(err)
	}
	back, err := png.Decode(bytes.NewReader(first))
	if err != nil {
		t.Fatal(err)
	}
	if back.Bounds() != img.Bounds() {
		t.Fatalf("bounds %v, want %v", back.Bounds(), img.Bounds())
	}
	for y := range 64 {
		for x := range 64 {
			r, g, b, a := back.At(x, y).RGBA()
			wr, wg, wb, wa := img.At(x, y).RGBA()
			if r != wr || g != wg || b != wb || a != wa {
				t.Fatalf("pixel %d,%d is %v, want %v", x, y, back.At(x, y), img.At(x, y))
			}
		}
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if again, err := PNG(img); err != nil || !bytes.Equal(first, again) {
				t.Errorf("the same pixels gave other bytes (error %v)", err)
			}
		})
	}
	wg.Wait()
	if _, err := PNG(image.NewRGBA(image.Rect(0, 0, 0, 0))); err == nil {
		t.Error("an image without pixels was encoded")
	}
}

func TestInlinePNG(t *testing.T) {
	got, err := InlinePNG(disc(20).SubImage(image.Rect(2, 3, 20, 20)))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(got.Data)
	if got.MediaType != "image/png" || got.Width != 18 || got.Height != 17 || got.URI != "" || got.SHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("image %+v", got)
	}
	if cfg, err := png.DecodeConfig(bytes.NewReader(got.Data)); err != nil || cfg.Width != 18 || cfg.Height != 17 {
		t.Errorf("the data is %+v, %v", cfg, err)
	}
}
