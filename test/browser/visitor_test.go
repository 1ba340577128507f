//go:build browser

package browser

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"rebeca/internal/process"
)

// row is how many pictures the visitor's row holds.
const row = 8

// patience bounds every wait for the page.
const patience = 90 * time.Second

// visitor is a browser with one page open.
type visitor struct {
	t    *testing.T
	ctx  context.Context
	base string
	shot string // folder of the screenshots

	mu     sync.Mutex
	faults []string // what the browser complained of; guarded by mu
}

// visit opens the page at base in a browser with an empty profile.
func visit(t *testing.T, base string) *visitor {
	t.Helper()
	chromium, err := findChromium()
	if err != nil {
		t.Fatal(err)
	}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(chromium), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(1280, 1000),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	v := &visitor{t: t, ctx: ctx, base: base, shot: artifacts(t)}
	// This starts the browser, too, whose life is that of the context, which therefore has no deadline.
	if err := chromedp.Listen(ctx, v.listen); err != nil {
		t.Fatalf("starting the browser: %v", err)
	}
	get(v, "listening", call(network.Enable, network.EnableParams{}))
	v.do("opening the page", chromedp.Navigate(base))
	return v
}

func findChromium() (string, error) {
	for _, path := range []string{os.Getenv("CHROMIUM"), "/usr/bin/chromium", "/usr/bin/google-chrome", "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"} {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no Chromium: install it (Debian: apt-get install chromium), or name it with CHROMIUM")
}

// artifacts returns the folder for screenshots: $REBECA_ARTIFACTS, else bin/screens of the repository.
func artifacts(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("REBECA_ARTIFACTS")
	if dir == "" {
		root, err := process.Root()
		if err != nil {
			t.Fatal(err)
		}
		dir = filepath.Join(root, "bin", "screens")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// listen collects what a visitor must never cause: a script's exception, an error in the console, a request to another place.
func (v *visitor) listen(event any) {
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		v.fault(exceptionText(e.ExceptionDetails))
	case *log.EventEntryAdded:
		// An answer of 503 to a question asked early is the door's way to say "not yet".
		if e.Entry.Level == log.EntryLevelError && !strings.Contains(e.Entry.Text, "503") {
			v.fault("console: " + e.Entry.Text + " " + e.Entry.URL)
		}
	case *network.EventRequestWillBeSent:
		url := e.Request.URL
		if !strings.HasPrefix(url, v.base) && !strings.HasPrefix(url, "data:") && !strings.HasPrefix(url, "blob:") && url != "about:blank" {
			v.fault("request to another place: " + url)
		}
	}
}

func exceptionText(d *runtime.ExceptionDetails) string {
	if d.Exception != nil && d.Exception.Description != "" {
		return "exception: " + d.Exception.Description
	}
	return "exception: " + d.Text
}

func (v *visitor) fault(text string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.faults = append(v.faults, text)
}

// complaints returns what the browser complained of so far.
func (v *visitor) complaints() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.faults)
}

// get runs one action within the visitor's patience and returns its value; the test ends when it fails.
func get[T any](v *visitor, what string, action chromedp.Action[T]) T {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, action)
	if err != nil {
		v.t.Fatalf("%s: %v", what, err)
	}
	return value
}

// call is a command of the protocol as an action.
func call[P, R any](command cdp.Command[P, R], params P) chromedp.Action[R] {
	return func(ctx context.Context, target *chromedp.Target) (R, error) {
		return cdp.Call(ctx, target, command, params)
	}
}

// do runs actions one after the other, like get.
func (v *visitor) do(what string, actions ...chromedp.Action[chromedp.Void]) {
	v.t.Helper()
	for _, action := range actions {
		get(v, what, action)
	}
}

// until waits for a condition on the page, an expression of JavaScript.
func (v *visitor) until(condition string) {
	v.t.Helper()
	get(v, "waiting until "+condition, chromedp.Poll[bool](condition, chromedp.WithPollingInterval(30*time.Millisecond), chromedp.WithPollingTimeout(patience)))
}

// screenshot keeps what is seen, or with whole the page's whole length, under the name.
func (v *visitor) screenshot(name string, whole bool) {
	v.t.Helper()
	shoot := chromedp.CaptureScreenshot()
	if whole {
		shoot = chromedp.FullScreenshot(100)
	}
	path := filepath.Join(v.shot, name)
	if err := os.WriteFile(path, get(v, "taking a screenshot", shoot), 0o644); err != nil {
		v.t.Fatal(err)
	}
	v.t.Logf("screenshot %s", path)
}

// ready waits until the row shows its n-th set of pictures or a later one, and returns which it is.
func (v *visitor) ready(n int) int {
	v.t.Helper()
	v.until(fmt.Sprintf(`(() => { const row = document.getElementById("you-row"); return row && row.dataset.state === "ready" && Number(row.dataset.round) >= %d })()`, n))
	return get(v, "reading the round", chromedp.Evaluate[int](`Number(document.getElementById("you-row").dataset.round)`))
}

// measureHues finds the colour of each picture in its pixels alone: the mean direction of hue, weighted by chroma, of the 64x64
// image drawn on a canvas. It knows nothing of what the page or the service says about the picture.
const measureHues = `Promise.all(Array.from(document.querySelectorAll("#you-row .tile img"), async (img) => {
	await img.decode();
	const canvas = document.createElement("canvas");
	canvas.width = canvas.height = 64;
	const pen = canvas.getContext("2d");
	pen.drawImage(img, 0, 0, 64, 64);
	const p = pen.getImageData(0, 0, 64, 64).data;
	let x = 0, y = 0;
	for (let i = 0; i < p.length; i += 4) {
		const [r, g, b] = [p[i], p[i + 1], p[i + 2]];
		const chroma = Math.max(r, g, b) - Math.min(r, g, b);
		if (chroma < 60) continue;
		const hue = Math.atan2(Math.sqrt(3) * (g - b), 2 * r - g - b);
		x += chroma * Math.cos(hue);
		y += chroma * Math.sin(hue);
	}
	return (Math.atan2(y, x) * 180 / Math.PI + 360) % 360;
}))`

// hues returns the measured hue of each picture of the row, in degrees.
func (v *visitor) hues() []float64 {
	v.t.Helper()
	hues := get(v, "measuring the colours", chromedp.Evaluate[[]float64](measureHues, chromedp.EvalAwaitPromise))
	if len(hues) != row {
		v.t.Fatalf("the row has %d pictures, want %d", len(hues), row)
	}
	return hues
}

// hand is a way of judging the i-th picture.
type hand func(v *visitor, i int, action string)

func byMouse(v *visitor, i int, action string) {
	v.do("clicking", chromedp.Click(button(i, action)))
}

func byKeyboard(v *visitor, i int, action string) {
	v.do("typing", chromedp.Focus(tile(i)), chromedp.KeyEvent(map[string]string{"like": "l", "dislike": "d"}[action]))
}

// byTab walks to the button with the tab key, as somebody does who does not know the letters.
func byTab(v *visitor, i int, action string) {
	v.do("walking by tab", chromedp.Focus(tile(i)), chromedp.KeyEvent(kb.Tab))
	if action == "dislike" {
		v.do("walking by tab", chromedp.KeyEvent(kb.Tab))
	}
	v.do("pressing", chromedp.KeyEvent(kb.Enter))
}

func byTouch(v *visitor, i int, action string) {
	touch := func(on bool) {
		get(v, "changing to touch", call(emulation.SetTouchEmulationEnabled, emulation.SetTouchEmulationEnabledParams{Enabled: on, MaxTouchPoints: 1}))
	}
	touch(true)
	v.do("touching", chromedp.Tap(button(i, action)))
	touch(false)
}

func tile(i int) chromedp.CSS { return chromedp.CSS(fmt.Sprintf(`#you-row .tile[data-index="%d"]`, i)) }

func button(i int, action string) chromedp.CSS {
	return tile(i) + chromedp.CSS(fmt.Sprintf(` button[data-action="%s"]`, action))
}

// judge likes or dislikes the i-th picture and waits until the page says so. The last of a row brings the next row at once.
func (v *visitor) judge(by hand, round, i int, like bool) {
	v.t.Helper()
	action := "dislike"
	if like {
		action = "like"
	}
	by(v, i, action)
	v.until(fmt.Sprintf(`(() => { const row = document.getElementById("you-row"); return row.dataset.state === "waiting" || Number(row.dataset.round) > %d || row.children[%d].dataset.rating === %q })()`, round, i, action))
}
