// Package meter shows how far long work has come: a bar on a terminal, a plain
// line every few seconds elsewhere.
package meter

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// every is the pause between plain lines.
const every = 5 * time.Second

// Meter shows the progress of one piece of work. It is not safe for concurrent
// use.
type Meter struct {
	w     io.Writer
	label string
	total int64 // 0 or less: unknown
	bar   *progressbar.ProgressBar
	start time.Time
	last  time.Time
	done  int64
}

// New returns a meter over total units (0: unknown) that writes to w, best
// the standard error.
func New(w io.Writer, label string, total int64) *Meter {
	m := &Meter{w: w, label: label, total: total, start: time.Now(), last: time.Now()}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		if total <= 0 {
			total = -1
		}
		m.bar = progressbar.NewOptions64(total, progressbar.OptionSetWriter(w), progressbar.OptionSetDescription(label),
			progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetPredictTime(true),
			progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
	}
	return m
}

// Set tells that done units are finished.
func (m *Meter) Set(done int64) {
	m.done = done
	if m.bar != nil {
		// The bar's error is that of the terminal: there is nobody to tell.
		_ = m.bar.Set64(done)
		return
	}
	if now := time.Now(); now.Sub(m.last) >= every {
		m.last = now
		fmt.Fprintln(m.w, m.line(now))
	}
}

// Done ends the display with a last line.
func (m *Meter) Done() {
	if m.bar != nil {
		_ = m.bar.Finish()
	}
	elapsed := time.Since(m.start)
	fmt.Fprintf(m.w, "%s: %d in %s (%.0f/s)\n", m.label, m.done, elapsed.Round(time.Millisecond), rate(m.done, elapsed))
}

func (m *Meter) line(now time.Time) string {
	elapsed := now.Sub(m.start)
	r := rate(m.done, elapsed)
	if m.total <= 0 {
		return fmt.Sprintf("%s: %d (%.0f/s)", m.label, m.done, r)
	}
	left := "?"
	if r > 0 {
		left = time.Duration(float64(m.total-m.done) / r * float64(time.Second)).Round(time.Second).String()
	}
	return fmt.Sprintf("%s: %d of %d, %d %% (%.0f/s, %s left)", m.label, m.done, m.total, m.done*100/m.total, r, left)
}

func rate(n int64, elapsed time.Duration) float64 {
	return float64(n) / max(elapsed.Seconds(), 1e-9)
}
