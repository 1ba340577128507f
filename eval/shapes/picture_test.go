package shapes

import (
	"crypto/sha256"
	"encoding/hex"
	"image"
	"image/color"
	"math"
	"testing"

	"pgregory.net/rapid"
)

// The pixels of a seed never change: stored embeddings and the codec depend on them.
func TestPicturesAreGolden(t *testing.T) {
	for _, c := range []struct {
		taste Taste
		seed  uint64
		want  string
	}{
		{Taste{Heart, Red}, 0, "7ca35c0dd666b030"},
		{Taste{Square, Blue}, 1, "ef1313158b9e886b"},
		{Taste{Star, Yellow}, 2, "f45966f0b36681d0"},
		{Taste{Ring, Magenta}, 3, "8e89c905518f948d"},
		{Taste{Heart, Cyan}, 1 << 40, "d3fef553b6b53134"},
		{Taste{Square, Green}, math.MaxUint64, "2dc489d21963c99b"},
	} {
		sum := sha256.Sum256(Render(c.taste, c.seed).Pix)
		if got := hex.EncodeToString(sum[:8]); got != c.want {
			t.Errorf("%v in pose %d has checksum %s, want %s", c.taste, c.seed, got, c.want)
		}
	}
}

func TestPicture(t *testing.T) {
	tastes := Demo().Tastes
	rapid.Check(t, func(t *rapid.T) {
		taste := rapid.SampledFrom(tastes).Draw(t, "taste")
		img := Render(taste, rapid.Uint64().Draw(t, "seed"))
		if img.Bounds() != image.Rect(0, 0, Side, Side) || !img.Opaque() {
			t.Fatalf("bounds %v, opaque %v", img.Bounds(), img.Opaque())
		}
		fill, _ := ink(taste.Hue)
		var under, over, edge int
		for y := range Side {
			for x := range Side {
				switch c := img.RGBAAt(x, y); c {
				case ground:
					under++
				case fill:
					over++
				default:
					edge++
					if !between(c, ground, fill) {
						t.Fatalf("pixel %d,%d is %v, no blend of %v and %v", x, y, c, ground, fill)
					}
				}
				if border := x < 2 || y < 2 || x >= Side-2 || y >= Side-2; border && img.RGBAAt(x, y) != ground {
					t.Fatalf("the figure reaches the border at %d,%d", x, y)
				}
			}
		}
		if over < 150 || under < 2000 || edge < 30 {
			t.Fatalf("%d pixels of ground, %d of ink, %d on the edge", under, over, edge)
		}
	})
}

func between(c, a, b color.RGBA) bool {
	in := func(v, p, q uint8) bool { return v >= min(p, q) && v <= max(p, q) }
	return in(c.R, a.R, b.R) && in(c.G, a.G, b.G) && in(c.B, a.B, b.B)
}

// The coverage of the mask is the area of the outline: what anti-aliasing promises.
func TestCoverageIsArea(t *testing.T) {
	pose := Pose{Angle: 0.3, X: 1.37, Y: -2.21, Radius: 20.5}
	for shape, unit := range map[string]float64{
		Square: 2,
		Star:   5 * 0.45 * math.Sin(math.Pi/5),
		Ring:   math.Pi * (0.86*0.86 - 0.42*0.42),
	} {
		var sum float64
		for i, pix := 0, Draw(Taste{shape, Red}, pose).Pix; i < len(pix); i += 4 {
			sum += float64(pix[i]-ground.R) / float64(245-ground.R)
		}
		want := unit * pose.Radius * pose.Radius
		if math.Abs(sum-want) > .01*want {
			t.Errorf("%s covers %.1f px, its outline %.1f", shape, sum, want)
		}
	}
}

func TestPosesFillTheirRange(t *testing.T) {
	var quadrant [4]int
	low, high := math.Inf(1), math.Inf(-1)
	const n = 4000
	for seed := range uint64(n) {
		p := PoseOf(seed)
		if p != PoseOf(seed) {
			t.Fatal("a pose differs from itself")
		}
		if r := math.Hypot(p.X, p.Y); r > MaxShift || p.Radius < MinRadius || p.Radius > MaxRadius {
			t.Fatalf("pose %+v is out of range", p)
		}
		low, high = min(low, p.Radius), max(high, p.Radius)
		quadrant[int(p.Angle/(math.Pi/2))]++
	}
	if low > MinRadius+.1 || high < MaxRadius-.1 {
		t.Errorf("radii within [%v, %v]", low, high)
	}
	for q, got := range quadrant {
		if math.Abs(float64(got)-n/4) > 5*math.Sqrt(n*.25*.75) {
			t.Errorf("quadrant %d has %d of %d rotations", q, got, n)
		}
	}
}

func TestHuesAreSixtyDegreesApart(t *testing.T) {
	for i, name := range []string{Red, Yellow, Green, Cyan, Blue, Magenta} {
		c, ok := ink(name)
		if !ok {
			t.Fatalf("no %s", name)
		}
		r, g, b := float64(c.R), float64(c.G), float64(c.B)
		angle := math.Atan2(math.Sqrt(3)*(g-b), 2*r-g-b) * 180 / math.Pi
		if math.Abs(math.Mod(angle+360, 360)-float64(60*i)) > .5 {
			t.Errorf("%s lies at %.1f degrees, want %d", name, angle, 60*i)
		}
	}
	if ground.R != ground.G || ground.G != ground.B {
		t.Errorf("the ground %v is not neutral", ground)
	}
}

func TestDrawRefusesUnknownTaste(t *testing.T) {
	for _, bad := range []Taste{{}, {"blob", Red}, {Heart, "beige"}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("drew %v", bad)
				}
			}()
			Render(bad, 1)
		}()
	}
}

func BenchmarkRender(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		Render(Taste{Heart, Red}, 7)
	}
}
