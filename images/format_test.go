package images

import (
	"bytes"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"strings"
	"testing"
)

func gradient(w, h int) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			img.SetRGBA(x, y, color.RGBA{uint8(4 * x), uint8(4 * y), 90, 255})
		}
	}
	return img
}

func TestEncode(t *testing.T) {
	img := gradient(40, 24)
	for _, f := range []Format{{MediaType: PNG}, {MediaType: JPEG, Quality: 90}} {
		a, err := f.Encode(img, "0123")
		if err != nil {
			t.Fatal(err)
		}
		again, _ := f.Encode(img, "0123")
		other, _ := f.Encode(img, "4567")
		plain, _ := f.Encode(img, "")
		if a.Sum != again.Sum || !bytes.Equal(a.Data, again.Data) {
			t.Errorf("%s: the same picture and id give two files", f.MediaType)
		}
		if a.Sum == other.Sum || a.Sum == plain.Sum {
			t.Errorf("%s: two records share a file", f.MediaType)
		}
		if !bytes.Contains(a.Data, []byte("0123")) || a.Width != 40 || a.Height != 24 || mediaTypeOf(a.Data) != f.MediaType {
			t.Errorf("%s: file %+v", f.MediaType, a)
		}
		decode := png.Decode
		if f.MediaType == JPEG {
			decode = jpeg.Decode
		}
		got, err := decode(bytes.NewReader(a.Data))
		if err != nil {
			t.Fatalf("%s: %v", f.MediaType, err)
		}
		want, _ := decode(bytes.NewReader(plain.Data))
		for y := range 24 {
			for x := range 40 {
				if got.At(x, y) != want.At(x, y) {
					t.Fatalf("%s: the id changes pixel %d,%d", f.MediaType, x, y)
				}
			}
		}
		if f.MediaType == PNG && got.At(7, 5) != color.Color(color.RGBA{28, 20, 90, 255}) {
			t.Errorf("pixel 7,5 is %v", got.At(7, 5))
		}
	}
}

func TestParseSum(t *testing.T) {
	good := strings.Repeat("0a", 32)
	if s, ok := ParseSum(good); !ok || s.String() != good {
		t.Errorf("%s: %v, %v", good, s, ok)
	}
	for _, bad := range []string{"", "0a", strings.Repeat("0A", 32), strings.Repeat("0g", 32), good + "0a", "../" + good[3:]} {
		if _, ok := ParseSum(bad); ok {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestRecent(t *testing.T) {
	file := func(n byte, size int) File { return File{Sum: Sum{n}, Data: make([]byte, size)} }
	r := NewRecent(100)
	r.Add("ada", file(1, 40))
	r.Add("bob", file(2, 40))
	r.Add("bob", file(2, 40)) // once
	if _, ok := r.Get(Sum{1}); !ok || r.bytes != 80 {
		t.Fatalf("%d bytes are kept, the first one: %v", r.bytes, ok)
	}
	r.Add("ada", file(3, 40)) // the oldest goes
	r.Add("ada", file(4, 101))
	for n, want := range map[byte]bool{1: false, 2: true, 3: true, 4: false} {
		if _, ok := r.Get(Sum{n}); ok != want {
			t.Errorf("file %d is there: %v", n, ok)
		}
	}
	r.Forget("bob")
	if _, ok := r.Get(Sum{2}); ok || r.bytes != 40 {
		t.Errorf("a forgotten user's file is there: %v, %d bytes", ok, r.bytes)
	}
	r.Drop(Sum{3})
	if r.bytes != 0 || r.order.Len() != 0 {
		t.Errorf("%d bytes, %d entries are left", r.bytes, r.order.Len())
	}
}
