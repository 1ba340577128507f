//go:build browser

package browser

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"rebeca/internal/process"
)

// rounds is how often the visitor judges a whole row before the last row is looked at.
const rounds = 10

// grown is the share of liked images among the simulated people's at which the visitor comes, growing how long that may take on a slow
// machine.
const (
	grown   = .7
	growing = 3 * time.Minute
)

// startDemo runs the demonstration on a free port until the test ends, and returns its address once the prior has
// learned.
func startDemo(t *testing.T) string {
	t.Helper()
	binary, err := process.Binary()
	if err != nil {
		t.Fatal(err)
	}
	address, err := process.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	demo, err := process.Start(filepath.Join(t.TempDir(), "demo.log"), binary, "demo", "--listen", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := demo.Terminate(30 * time.Second); err != nil {
			t.Errorf("ending the demonstration: %v; it said:\n%s", err, demo.Tail(20))
		}
		if t.Failed() {
			t.Logf("the demonstration said:\n%s", demo.Tail(20))
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), growing)
	defer cancel()
	base := "http://" + address
	// A visitor of the first seconds would meet a newborn prior; how soon it is grown is the machine's matter, not this test's.
	err = process.Until(ctx, "the prior has learned", func() (bool, error) {
		body, err := demo.Answers(ctx, base+"/v1/status")
		if err != nil {
			return false, err
		}
		var status struct {
			LikedShare float64 `json:"liked_share"`
		}
		return bytes.HasPrefix(body, []byte("{")) && json.Unmarshal(body, &status) == nil && status.LikedShare >= grown, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return base + "/"
}

func TestGalleryLearnsAVisitorsTaste(t *testing.T) {
	v := visit(t, startDemo(t))
	round := v.ready(1)
	v.screenshot("1-start.png", false)

	taste := v.hues()[0]
	t.Logf("the hidden taste is hue %.0f°", taste)
	hands := []hand{byMouse, byKeyboard, byTouch, byTab}
	for n := range rounds {
		hues := v.hues()
		liked := 0
		for i, hue := range hues {
			like := matches(hue, taste)
			if like {
				liked++
			}
			v.judge(hands[n%len(hands)], round, i, like)
		}
		t.Logf("round %d: %d of %d match", n+1, liked, row)
		round = v.ready(round + 1)
	}
	hues, matching := v.hues(), 0
	for _, hue := range hues {
		if matches(hue, taste) {
			matching++
		}
	}
	v.screenshot("2-learned.png", false)
	v.screenshot("3-learned-whole.png", true)
	t.Logf("after %d rounds %d of %d match: %.0f", rounds, matching, row, hues)
	if matching < 6 {
		t.Errorf("after %d rounds %d of %d pictures have the visitor's colour %.0f°, want 6: %.0f", rounds, matching, row, taste, hues)
	}

	checkUserPage(v)
	checkPhone(v)
	checkDark(v)
	if faults := v.complaints(); len(faults) > 0 {
		t.Errorf("the browser complained:\n%s", strings.Join(faults, "\n"))
	}
	t.Logf("screenshots are in %s", v.shot)
}

// matches says whether two hues are the same of six that lie 60° apart.
func matches(a, b float64) bool {
	d := math.Abs(math.Mod(a-b+540, 360) - 180)
	return d < 30
}

// checkUserPage opens the visitor's own page: a timeline of what they did and got, and where one image comes from.
func checkUserPage(v *visitor) {
	v.t.Helper()
	v.do("opening the user page", chromedp.Click(chromedp.CSS(`#you a[href^="#/u/"]`)))
	v.until(`document.querySelectorAll("#user .timeline .did").length > 0 && document.querySelectorAll("#user .timeline button[data-picture-id]").length > 0`)
	v.do("choosing an image", chromedp.Click(chromedp.CSS(`#user .timeline button[data-picture-id]`)))
	v.until(`document.querySelectorAll("#provenance dt").length > 0`)
	terms := get(v, "reading the provenance", chromedp.Evaluate[[]string](`Array.from(document.querySelectorAll("#provenance dt"), (n) => n.textContent)`))
	for _, want := range []string{"id", "source", "as of", "events folded", "prior", "seed", "guidance", "steps"} {
		if !slices.Contains(terms, want) {
			v.t.Errorf("the provenance of an image lacks %q: %q", want, terms)
		}
	}
	v.until(`document.querySelectorAll("#because img").length > 0 && document.querySelectorAll("#user .timeline .because img").length > 0`)
	v.screenshot("4-user.png", false)
	v.do("going back", chromedp.Evaluate[chromedp.Void](`location.hash = "#/"`))
	v.until(`!document.getElementById("gallery").hidden`)
}

// checkPhone looks at the page at the width of a small phone: nothing may stick out, and no target be
// smaller than the 24 px of WCAG 2.2.
func checkPhone(v *visitor) {
	v.t.Helper()
	v.do("narrowing the window", chromedp.EmulateViewport(360, 740, chromedp.EmulateScale(2), chromedp.EmulateMobile, chromedp.EmulateTouch))
	phone := get(v, "measuring the page", chromedp.Evaluate[struct{ Page, Button float64 }](`(() => {
		const sizes = Array.from(document.querySelectorAll("#you-row button"), (b) => b.getBoundingClientRect()).map((r) => Math.min(r.width, r.height));
		return { Page: document.documentElement.scrollWidth, Button: Math.min(...sizes) };
	})()`))
	if phone.Page > 360 {
		v.t.Errorf("at a width of 360 px the page is %.0f px wide", phone.Page)
	}
	if phone.Button < 24 {
		v.t.Errorf("at a width of 360 px a button of the row measures %.0f px", phone.Button)
	}
	v.screenshot("5-phone.png", true)
	v.do("widening the window", chromedp.EmulateViewport(1280, 1000))
}

// checkDark asks for a dark page and wants a dark ground under light text, and the reverse for a light one.
func checkDark(v *visitor) {
	v.t.Helper()
	for scheme, dark := range map[string]bool{"light": false, "dark": true} {
		get(v, "choosing "+scheme, call(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		}))
		light := get(v, "measuring the ground", chromedp.Evaluate[struct{ Ground, Text float64 }](`(() => {
			const pen = document.createElement("canvas").getContext("2d");
			const luminance = (color) => {
				pen.fillStyle = color;
				pen.fillRect(0, 0, 1, 1);
				const [r, g, b] = pen.getImageData(0, 0, 1, 1).data;
				return (.2126 * r + .7152 * g + .0722 * b) / 255;
			};
			const style = getComputedStyle(document.body);
			const seen = (color) => color !== "rgba(0, 0, 0, 0)";
			const ground = seen(style.backgroundColor) ? style.backgroundColor : getComputedStyle(document.documentElement).backgroundColor;
			return { Ground: luminance(ground), Text: luminance(style.color) };
		})()`))
		if (light.Ground < light.Text) != dark {
			v.t.Errorf("asked for a %s page, the ground has luminance %.2f and the text %.2f", scheme, light.Ground, light.Text)
		}
		v.screenshot("6-"+scheme+".png", false)
	}
}
