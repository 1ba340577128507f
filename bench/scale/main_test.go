package main

import (
	"encoding/json"
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestScale measures two tiny crowds and plots them.
func TestScale(t *testing.T) {
	dir := t.TempDir()
	out, plot := filepath.Join(dir, "scale.json"), filepath.Join(dir, "docs", "scale.svg")
	o := options{before: 2, fold: 2000, rounds: 1, windows: 16, samples: 4, items: 320}
	if err := run(o, "50,200", out, plot, ""); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	for _, users := range []string{"50", "200"} {
		for _, name := range []string{"fold_us", "read_us", "read_encode_us", "train_us", "sample_us"} {
			if v := got["users_"+users+"_"+name]; !(v > 0) {
				t.Errorf("%s of %s users is %v", name, users, v)
			}
		}
	}
	first, err := os.ReadFile(plot)
	if err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(strings.NewReader(string(first))); ; {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("the plot is no XML: %v", err)
		}
	}
	if n := strings.Count(string(first), "<circle"); n != 2*len(curves) {
		t.Errorf("%d points in the plot, want %d", n, 2*len(curves))
	}
	if err := run(o, "", "", plot, out); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(plot); err != nil || string(again) != string(first) {
		t.Errorf("the same figures give another plot: %v", err)
	}
	for _, bad := range []string{"x", "0", "20,10"} {
		if err := run(o, bad, out, plot, ""); err == nil || !strings.Contains(err.Error(), "-users") {
			t.Errorf("-users %s: %v", bad, err)
		}
	}
}
