package images

import (
	"image"
	"image/color"
)

// Decoded JPEG and lossy WebP have colour at half the resolution in one direction or both. The standard library's pictures take the nearest
// sample; the decoders that models' training pictures went through (libjpeg, libwebp) draw a line between samples, which differs by tens of
// levels along edges of colour. And lossy WebP has values of 16 to 235 (ITU-R BT.601), where image.YCbCr means JPEG's of 0 to 255.

// smooth returns the colours of a YCbCr picture, others as they are; video says that values are of 16 to 235.
func smooth(img image.Image, video bool) image.Image {
	switch p := img.(type) {
	case *image.YCbCr:
		out := image.NewNRGBA(p.Rect)
		smoothInto(out, p, video)
		return out
	case *image.NYCbCrA:
		out := image.NewNRGBA(p.Rect)
		smoothInto(out, &p.YCbCr, video)
		for y := p.Rect.Min.Y; y < p.Rect.Max.Y; y++ {
			for x := p.Rect.Min.X; x < p.Rect.Max.X; x++ {
				out.Pix[out.PixOffset(x, y)+3] = p.A[p.AOffset(x, y)]
			}
		}
		return out
	}
	return img
}

// halved says whether a picture's colour has half the samples across and down; ok is false for what is rarer.
func halved(r image.YCbCrSubsampleRatio) (across, down, ok bool) {
	switch r {
	case image.YCbCrSubsampleRatio444:
		return false, false, true
	case image.YCbCrSubsampleRatio422:
		return true, false, true
	case image.YCbCrSubsampleRatio440:
		return false, true, true
	case image.YCbCrSubsampleRatio420:
		return true, true, true
	}
	return false, false, false
}

func smoothInto(out *image.NRGBA, p *image.YCbCr, video bool) {
	across, down, ok := halved(p.SubsampleRatio)
	rgb := color.YCbCrToRGB
	if video {
		rgb = videoToRGB
	}
	right, bottom := (p.Rect.Max.X-1)/2, (p.Rect.Max.Y-1)/2
	for y := p.Rect.Min.Y; y < p.Rect.Max.Y; y++ {
		otherY := beside(y, bottom, down)
		for x := p.Rect.Min.X; x < p.Rect.Max.X; x++ {
			near := p.COffset(x, y)
			cb, cr := p.Cb[near], p.Cr[near]
			if ok && (across || down) {
				a, b, c := near+beside(x, right, across), near+otherY*p.CStride, near+beside(x, right, across)+otherY*p.CStride
				cb, cr = between(p.Cb, near, a, b, c), between(p.Cr, near, a, b, c)
			}
			o := out.Pix[out.PixOffset(x, y):]
			o[0], o[1], o[2] = rgb(p.Y[p.YOffset(x, y)], cb, cr)
			o[3] = 255
		}
	}
}

// beside is the step to the sample on the other side of pixel x, whose own is sample x/2, the last being number last.
func beside(x, last int, halved bool) int {
	switch {
	case !halved:
		return 0
	case x%2 == 0:
		return -min(x/2, 1)
	case x/2 < last:
		return 1
	}
	return 0
}

// between weighs four samples by their distances: 3/4 and 1/4 in each direction.
func between(c []uint8, near, a, b, far int) uint8 {
	return uint8((9*int(c[near]) + 3*int(c[a]) + 3*int(c[b]) + int(c[far]) + 8) >> 4)
}

// videoToRGB is ITU-R BT.601 with Y of 16 to 235 and the others of 16 to 240.
func videoToRGB(y, cb, cr uint8) (r, g, b uint8) {
	l, u, v := 1.164383*(float64(y)-16), float64(cb)-128, float64(cr)-128
	return level(l + 1.596027*v), level(l - .391762*u - .812968*v), level(l + 2.017232*u)
}

func level(v float64) uint8 { return uint8(min(255, max(0, v+.5))) }
