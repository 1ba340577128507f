package shapes

import "math"

// point is a corner of an outline: x to the right, y up, within the unit circle.
type point struct{ x, y float64 }

// outlineOf returns the closed loops of a shape, upright, turning about its centre
// of mass, or nil for an unknown name. A loop in the other direction cuts a hole.
func outlineOf(shape string) [][]point {
	switch shape {
	case Heart:
		return [][]point{heart()}
	case Square:
		return [][]point{polygon(4, 1, math.Pi/4)}
	case Star:
		return [][]point{star(5, 1, 0.45)}
	case Ring:
		hole := polygon(64, 0.42, 0)
		for i, j := 0, len(hole)-1; i < j; i, j = i+1, j-1 {
			hole[i], hole[j] = hole[j], hole[i]
		}
		return [][]point{polygon(64, 0.86, 0), hole}
	}
	return nil
}

// polygon is a regular one with n corners on a circle, the first at angle start.
func polygon(n int, radius, start float64) []point {
	loop := make([]point, n)
	for i := range loop {
		sin, cos := math.Sincos(start + 2*math.Pi*float64(i)/float64(n))
		loop[i] = point{radius * cos, radius * sin}
	}
	return loop
}

// star has n points at the outer radius, one of them up, and n corners at the inner.
func star(n int, outer, inner float64) []point {
	loop := make([]point, 2*n)
	for i := range loop {
		radius := outer
		if i%2 == 1 {
			radius = inner
		}
		sin, cos := math.Sincos(math.Pi/2 + math.Pi*float64(i)/float64(n))
		loop[i] = point{radius * cos, radius * sin}
	}
	return loop
}

// heart is the curve x = 16 sin³t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t
// (mathworld.wolfram.com/HeartCurve.html), moved to its centre of mass and scaled
// into the unit circle.
func heart() []point {
	const n = 96
	loop := make([]point, n)
	for i := range loop {
		t := 2 * math.Pi * float64(i) / n
		s := math.Sin(t)
		loop[i] = point{16 * s * s * s, 13*math.Cos(t) - 5*math.Cos(2*t) - 2*math.Cos(3*t) - math.Cos(4*t)}
	}
	c := centroid(loop)
	var radius float64
	for i := range loop {
		loop[i].x -= c.x
		loop[i].y -= c.y
		radius = max(radius, math.Hypot(loop[i].x, loop[i].y))
	}
	for i := range loop {
		loop[i].x /= radius
		loop[i].y /= radius
	}
	return loop
}

// centroid is the centre of mass of the area within a closed loop.
func centroid(loop []point) point {
	var area, x, y float64
	for i, a := range loop {
		b := loop[(i+1)%len(loop)]
		cross := a.x*b.y - b.x*a.y
		area += cross
		x += (a.x + b.x) * cross
		y += (a.y + b.y) * cross
	}
	return point{x / (3 * area), y / (3 * area)}
}
