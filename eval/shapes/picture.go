package shapes

import (
	"image"
	"image/color"
	"image/draw"
	"math"
	"math/rand/v2"

	"golang.org/x/image/vector"
)

// Side is the width and height of every picture in pixels.
const Side = 64

// Range of poses. The farthest point of a figure is MaxRadius+MaxShift = 26 px from
// the centre of the picture, so that every figure is wholly visible with a margin,
// and the smallest is still large enough to be told from the others at any rotation.
const (
	MinRadius = 18.0 // px, smallest circumscribed circle of a figure
	MaxRadius = 22.0 // px
	MaxShift  = 4.0  // px, largest distance from the centre along the radius of shifts
)

// Ground is the colour behind every figure: a dark neutral grey on which all six
// hues stand out and which has no hue of its own.
var ground = color.RGBA{R: 28, G: 28, B: 28, A: 255}

// ink has the six saturated hues 60 degrees apart, HSV saturation .84 and value .96.
func ink(hue string) (color.RGBA, bool) {
	const hi, lo = 245, 40
	switch hue {
	case Red:
		return color.RGBA{hi, lo, lo, 255}, true
	case Yellow:
		return color.RGBA{hi, hi, lo, 255}, true
	case Green:
		return color.RGBA{lo, hi, lo, 255}, true
	case Cyan:
		return color.RGBA{lo, hi, hi, 255}, true
	case Blue:
		return color.RGBA{lo, lo, hi, 255}, true
	case Magenta:
		return color.RGBA{hi, lo, hi, 255}, true
	}
	return color.RGBA{}, false
}

// Pose places a figure in its picture.
type Pose struct {
	Angle  float64 // radians, counter-clockwise from upright, any value
	X, Y   float64 // px, centre of the figure relative to the centre of the picture, right and down
	Radius float64 // px, of the circumscribed circle
}

// PoseOf draws the pose that seed stands for: any rotation, the centre uniform in a
// disc of MaxShift, the radius uniform in [MinRadius, MaxRadius].
func PoseOf(seed uint64) Pose {
	rng := rand.New(rand.NewPCG(seed, 0x706f7365))
	angle := 2 * math.Pi * rng.Float64()
	shift := MaxShift * math.Sqrt(rng.Float64())
	sin, cos := math.Sincos(2 * math.Pi * rng.Float64())
	return Pose{
		Angle:  angle,
		X:      shift * cos,
		Y:      shift * sin,
		Radius: MinRadius + (MaxRadius-MinRadius)*rng.Float64(),
	}
}

// Render draws the picture of taste t in the pose of seed. It panics when t is not
// made of the names of this package.
func Render(t Taste, seed uint64) *image.RGBA { return Draw(t, PoseOf(seed)) }

// Draw draws the picture of taste t in pose p: exact area coverage of the outline
// over the ground, so edges are anti-aliased. It panics when t is not made of the
// names of this package.
func Draw(t Taste, p Pose) *image.RGBA {
	outline := outlineOf(t.Shape)
	fill, ok := ink(t.Hue)
	if outline == nil || !ok {
		panic("shapes: no such taste: " + t.String())
	}
	mask := image.NewAlpha(image.Rect(0, 0, Side, Side))
	r := vector.NewRasterizer(Side, Side)
	r.DrawOp = draw.Src
	for _, loop := range outline {
		trace(r, loop, p)
	}
	r.Draw(mask, mask.Bounds(), image.Opaque, image.Point{})

	img := image.NewRGBA(mask.Bounds())
	for i, a := range mask.Pix {
		px := img.Pix[4*i : 4*i+4 : 4*i+4]
		px[0] = mix(ground.R, fill.R, a)
		px[1] = mix(ground.G, fill.G, a)
		px[2] = mix(ground.B, fill.B, a)
		px[3] = 255
	}
	return img
}

// mix is the rounded blend of two channels with coverage a of 255.
func mix(under, over, a uint8) uint8 {
	return uint8((uint32(under)*(255-uint32(a)) + uint32(over)*uint32(a) + 127) / 255)
}

// trace adds a closed loop in pose p to the rasterizer. Corners are rounded to
// 1/256 px: a last-bit difference between processors' floating point then cannot
// reach the pixels.
func trace(r *vector.Rasterizer, loop []point, p Pose) {
	sin, cos := math.Sincos(p.Angle)
	for i, c := range loop {
		x := Side/2 + p.X + p.Radius*(c.x*cos-c.y*sin)
		y := Side/2 + p.Y - p.Radius*(c.x*sin+c.y*cos)
		fx, fy := float32(math.Round(x*256)/256), float32(math.Round(y*256)/256)
		if i == 0 {
			r.MoveTo(fx, fy)
		} else {
			r.LineTo(fx, fy)
		}
	}
	r.ClosePath()
}
