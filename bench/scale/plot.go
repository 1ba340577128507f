package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"rebeca/internal/figures"
)

// curve is one cost in the plot.
type curve struct{ figure, name, colour string }

var curves = []curve{
	{"sample_us", "one sample", "#7b3294"},
	{"train_us", "training, two steps per 64 events", "#d7191c"},
	{"read_encode_us", "window read and encoded", "#e08a1e"},
	{"read_us", "window read", "#4dac26"},
	{"fold_us", "fold", "#404040"},
}

const (
	width, height                    = 760, 420
	left, right, top, bottom         = 70, 250, 30, 50
	lowest, highest          float64 = 0, 5 // powers of ten, µs
)

var userFigure = regexp.MustCompile(`^users_([0-9]+)_fold_us$`)

// draw plots the costs against the number of users, both on logarithmic axes, and replaces the file at path.
func draw(path string, got figures.Figures) error {
	var users []int
	for name := range got {
		if m := userFigure.FindStringSubmatch(name); m != nil {
			if n, err := strconv.Atoi(m[1]); err == nil {
				users = append(users, n)
			}
		}
	}
	if len(users) == 0 {
		return fmt.Errorf("plotting: the figures are of no number of users")
	}
	slices.Sort(users)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("plotting: %w", err)
	}
	if err := os.WriteFile(path, []byte(svg(users, got)), 0o644); err != nil {
		return fmt.Errorf("plotting: %w", err)
	}
	return nil
}

func svg(users []int, got figures.Figures) string {
	first, last := math.Log10(float64(users[0])), math.Log10(float64(users[len(users)-1]))
	x := func(n int) float64 {
		return left + (width-left-right)*(math.Log10(float64(n))-first)/max(last-first, 1e-9)
	}
	y := func(us float64) float64 {
		return height - bottom - (height-top-bottom)*(math.Log10(us)-lowest)/(highest-lowest)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	for p := lowest; p <= highest; p++ {
		at := y(math.Pow(10, p))
		fmt.Fprintf(&b, `<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%g µs</text>`+"\n",
			left, at, width-right, at, left-8, at+4, math.Pow(10, p))
	}
	for _, n := range users {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%d</text>`+"\n", x(n), height-bottom+18, n)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">users</text>`+"\n", left+(width-left-right)/2, height-12)
	fmt.Fprintf(&b, `<text x="%d" y="18">cost per event</text>`+"\n", left)
	for _, c := range curves {
		var points []string
		end := 0.
		for _, n := range users {
			if v := got[fmt.Sprintf("users_%d_%s", n, c.figure)]; v > 0 {
				end = y(v)
				points = append(points, fmt.Sprintf("%.1f,%.1f", x(n), end))
				fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", x(n), end, c.colour)
			}
		}
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="1.5"/><text x="%d" y="%.1f" fill="%s">%s</text>`+"\n",
			strings.Join(points, " "), c.colour, width-right+10, end+4, c.colour, c.name)
	}
	b.WriteString("</svg>\n")
	return b.String()
}
