package images

import (
	"errors"
	"fmt"
	"image"
	"io"

	"golang.org/x/image/riff"
	"golang.org/x/image/vp8"
	"golang.org/x/image/vp8l"
)

// webpConfig returns the size of the picture inside a WebP file, from its own head. The extended format names the size of a canvas too, which is
// all that webp.DecodeConfig looks at, while webp.Decode unpacks the picture by its own size and its transparency by the canvas's: a file where
// the two differ is refused, as it is by libwebp.
func webpConfig(r io.Reader) (image.Config, error) {
	_, chunks, err := riff.NewReader(r)
	if err != nil {
		return image.Config{}, err
	}
	var canvas *image.Config
	for {
		id, size, data, err := chunks.Next()
		if err == io.EOF {
			return image.Config{}, errors.New("there is no picture in it")
		}
		if err != nil {
			return image.Config{}, err
		}
		var c image.Config
		switch id {
		case riff.FourCC{'V', 'P', '8', 'X'}:
			if canvas != nil {
				return c, errors.New("it has two canvases")
			}
			if canvas, err = canvasConfig(data); err != nil {
				return c, err
			}
			continue
		case riff.FourCC{'V', 'P', '8', ' '}:
			d := vp8.NewDecoder()
			d.Init(data, int(size))
			head, err := d.DecodeFrameHeader()
			if err != nil {
				return c, err
			}
			c.Width, c.Height = head.Width, head.Height
		case riff.FourCC{'V', 'P', '8', 'L'}:
			if c, err = vp8l.DecodeConfig(data); err != nil {
				return c, err
			}
		default:
			continue
		}
		if canvas != nil && (canvas.Width != c.Width || canvas.Height != c.Height) {
			return c, fmt.Errorf("a picture of %dx%d pixels on a canvas of %dx%d", c.Width, c.Height, canvas.Width, canvas.Height)
		}
		return c, nil
	}
}

// canvasConfig reads the size that the head of the extended format names: after four bytes of flags, each of three bytes and less one.
func canvasConfig(r io.Reader) (*image.Config, error) {
	var b [10]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return nil, err
	}
	three := func(b []byte) int { return int(b[0]) | int(b[1])<<8 | int(b[2])<<16 }
	return &image.Config{Width: three(b[4:]) + 1, Height: three(b[7:]) + 1}, nil
}
