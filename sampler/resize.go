package sampler

import (
	"image"
	"math"
)

// Resizing as Pillow does it with BICUBIC, on which CLIP and its kin were trained; other resamplers differ by tens of levels at edges. It is
// two passes of a weighted sum, each rounded to bytes and so cut off at black and white:
//
//	out[x] = sum over i of w[i] in[i],  w[i] ~ k((i + .5 - c) / s),  c = (x + .5) in/out,  s = max(1, in/out)
//
// over the whole numbers i within 2 s of c, where k is Keys' cubic with a = -1/2 and the weights sum to 1. Making smaller, s stretches k over
// all pixels that fall together, which is what keeps fine patterns from turning into coarse ones. Weights are whole multiples of 2^-22.

// weightBits are those of a weight behind the point: a sum of bytes times weights fits 32 bits with room for k's negative lobes.
const weightBits = 32 - 8 - 2

// cubic is Keys' kernel with a = -1/2 (R. Keys, Cubic convolution interpolation, 1981).
func cubic(x float64) float64 {
	const a = -.5
	switch x = math.Abs(x); {
	case x < 1:
		return ((a+2)*x-(a+3))*x*x + 1
	case x < 2:
		return (((x-5)*x+8)*x - 4) * a
	}
	return 0
}

// taps are the weights of one output pixel, from input pixel first on.
type taps struct {
	first   int
	weights []int32
}

// tapsFor returns the weights of outputs from..from+n of an axis that goes from in to out pixels.
func tapsFor(in, out, from, n int) []taps {
	scale := float64(in) / float64(out)
	stretch := max(1, scale)
	reach := 2 * stretch
	all := make([]taps, n)
	for k := range all {
		center := (float64(from+k) + .5) * scale
		first := max(0, int(center-reach+.5))
		last := min(in, int(center+reach+.5))
		weights := make([]float64, last-first)
		sum := 0.0
		for i := range weights {
			weights[i] = cubic((float64(first+i) - center + .5) / stretch)
			sum += weights[i]
		}
		t := taps{first, make([]int32, len(weights))}
		for i, w := range weights {
			t.weights[i] = int32(math.Round(w / sum * (1 << weightBits)))
		}
		all[k] = t
	}
	return all
}

// shortestSide is the size of a picture whose shorter side becomes side, the longer one in proportion and rounded down.
func shortestSide(size image.Point, side int) image.Point {
	if size.X <= size.Y {
		return image.Pt(side, side*size.Y/size.X)
	}
	return image.Pt(side*size.X/size.Y, side)
}

// fit resizes an opaque picture whose bounds begin at 0 so that it covers width x height, its shorter side exactly where that is square, and cuts out the middle.
// Only what is cut out is computed.
func fit(src *image.RGBA, width, height int) *image.RGBA {
	size := src.Rect.Size()
	whole := shortestSide(size, max(width, height))
	cut := image.Pt((whole.X-width)/2, (whole.Y-height)/2)
	across, down := tapsFor(size.X, whole.X, cut.X, width), tapsFor(size.Y, whole.Y, cut.Y, height)
	// Which pass comes first shows where the other would have gone beyond black or white. Pillow 13 goes down first where that takes away more
	// than twice as many lines, of pictures more than twice as tall as wide; before it went across first.
	if size.Y-whole.Y > max(0, 2*(size.X-whole.X)) {
		return resizeAcross(resizeDown(src, down, 0), across, 0, height)
	}
	top, bottom := down[0].first, down[height-1].first+len(down[height-1].weights)
	return resizeDown(resizeAcross(src, across, top, bottom), down, top)
}

// resizeAcross is the pass along rows top to bottom.
func resizeAcross(src *image.RGBA, across []taps, top, bottom int) *image.RGBA {
	out := image.NewRGBA(image.Rect(0, 0, len(across), bottom-top))
	for y := range bottom - top {
		row := src.Pix[(top+y)*src.Stride:]
		dst := out.Pix[y*out.Stride:]
		for x, t := range across {
			var r, g, b int32 = 1 << (weightBits - 1), 1 << (weightBits - 1), 1 << (weightBits - 1)
			in := row[4*t.first : 4*(t.first+len(t.weights))]
			for i, w := range t.weights {
				r += w * int32(in[4*i])
				g += w * int32(in[4*i+1])
				b += w * int32(in[4*i+2])
			}
			dst[4*x], dst[4*x+1], dst[4*x+2], dst[4*x+3] = toByte(r), toByte(g), toByte(b), 255
		}
	}
	return out
}

// resizeDown is the pass along columns; row 0 of src is input row top.
func resizeDown(src *image.RGBA, down []taps, top int) *image.RGBA {
	width := src.Rect.Dx()
	out := image.NewRGBA(image.Rect(0, 0, width, len(down)))
	sums := make([]int32, 4*width)
	for y, t := range down {
		for i := range sums {
			sums[i] = 1 << (weightBits - 1)
		}
		for i, w := range t.weights {
			row := src.Pix[(t.first-top+i)*src.Stride:]
			for k := range sums {
				sums[k] += w * int32(row[k])
			}
		}
		dst := out.Pix[y*out.Stride:]
		for k, s := range sums {
			dst[k] = toByte(s)
		}
		for x := range width {
			dst[4*x+3] = 255
		}
	}
	return out
}

// toByte rounds a weighted sum, which has half a unit added already.
func toByte(sum int32) uint8 { return uint8(min(255, max(0, sum>>weightBits))) }
