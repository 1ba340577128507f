package sampler

import (
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
)

// resizeShortest is the way to prepare pictures that CLIP's own processor has: the shorter side becomes the network's, bicubic, and the middle is
// cut out.
const resizeShortest = "shortest"

// Fit prepares a picture for Encode as the manifest says. Without `resize` a picture must have the network's size already. Transparency is
// laid over white, as CLIP's processor has it, and the high byte of 16-bit values is taken; CMYK becomes RGB without a colour profile.
func (e *Encoder) Fit(img image.Image) (image.Image, error) {
	p := e.m.Encoder
	size := img.Bounds().Size()
	switch {
	case size.X < 1 || size.Y < 1:
		return nil, fmt.Errorf("a picture of %dx%d pixels", size.X, size.Y)
	case p.Resize == "" && (size.X != p.Width || size.Y != p.Height):
		return nil, fmt.Errorf("%dx%d pixels where %q takes %dx%d and resizes nothing", size.X, size.Y, e.m.Name, p.Width, p.Height)
	case p.Resize == "":
		return opaque(img), nil
	}
	return fit(opaque(img), p.Width, p.Height), nil
}

// Batch is how many images a run takes; fewer take as long.
func (e *Encoder) Batch() int { return e.m.Encoder.Batch }

// opaque returns the colours of a picture over white, with bounds that begin at 0.
func opaque(img image.Image) *image.RGBA {
	b := img.Bounds()
	out := image.NewRGBA(image.Rect(0, 0, b.Dx(), b.Dy()))
	switch img := img.(type) {
	case *image.NRGBA:
		for y := range b.Dy() {
			row := out.Pix[y*out.Stride:][:4*b.Dx()]
			copy(row, img.Pix[img.PixOffset(b.Min.X, b.Min.Y+y):])
			for k := 0; k < len(row); k += 4 {
				overWhite(row[k : k+4])
			}
		}
	case *image.YCbCr, *image.Gray, *image.CMYK: // always opaque
		draw.Draw(out, out.Rect, img, b.Min, draw.Src)
	default:
		for y := range b.Dy() {
			for x := range b.Dx() {
				c := color.NRGBA64Model.Convert(img.At(b.Min.X+x, b.Min.Y+y)).(color.NRGBA64)
				o := out.Pix[out.PixOffset(x, y):][:4]
				o[0], o[1], o[2], o[3] = uint8(c.R>>8), uint8(c.G>>8), uint8(c.B>>8), uint8(c.A>>8)
				overWhite(o)
			}
		}
	}
	return out
}

// overWhite makes an opaque pixel of one that is not multiplied by its transparency.
func overWhite(p []uint8) {
	a := int(p[3])
	if a != 255 {
		for k, v := range p[:3] {
			p[k] = uint8((int(v)*a + 255*(255-a) + 127) / 255)
		}
		p[3] = 255
	}
}

// normalize brings values of 0 to 1 to what the network was trained on.
func (p *Part) normalize(dst []float32) {
	if p.Mean == nil {
		return
	}
	plane := p.Width * p.Height
	for c := range 3 {
		mean, std := float32(p.Mean[c]), float32(p.Std[c])
		for i, v := range dst[c*plane : (c+1)*plane] {
			dst[c*plane+i] = (v - mean) / std
		}
	}
}

// preparation checks how pictures are prepared; only encoders say so.
func (p Part) preparation(encodes bool) error {
	switch {
	case !encodes && (p.Resize != "" || p.Mean != nil || p.Std != nil):
		return errors.New("resize, mean, std: only an encoder has them")
	case p.Resize != "" && p.Resize != resizeShortest:
		return fmt.Errorf("resize: %q is unknown, %s is read", p.Resize, resizeShortest)
	case (p.Mean == nil) != (p.Std == nil):
		return errors.New("mean, std: one is given without the other")
	case p.Mean == nil:
		return nil
	case len(p.Mean) != 3 || len(p.Std) != 3:
		return fmt.Errorf("mean, std: %d and %d values, both have three", len(p.Mean), len(p.Std))
	}
	for c := range 3 {
		if m, s := p.Mean[c], p.Std[c]; !(m >= -1e6 && m <= 1e6) || !(s > 0 && s <= 1e6) {
			return fmt.Errorf("mean, std: %v and %v of channel %d", m, s, c)
		}
	}
	return nil
}
