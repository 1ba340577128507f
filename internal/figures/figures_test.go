package figures

import (
	"bytes"
	"encoding/json"
	"maps"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPublish(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "x.json")
	want := Figures{"b_ms": 1.5, "a": 1e7}
	var out bytes.Buffer
	if err := Publish(&out, path, want); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got Figures
	if err := json.Unmarshal(b, &got); err != nil || !maps.Equal(got, want) {
		t.Errorf("the file holds %v (%v), want %v", got, err, want)
	}
	if text := out.String(); !strings.HasPrefix(text, "a ") || !strings.Contains(text, "b_ms") || !strings.Contains(text, path) {
		t.Errorf("printed %q", text)
	}
	if err := Publish(&out, path, Figures{"x": math.NaN()}); err == nil {
		t.Error("a figure that is no number is written")
	}
}

func TestAdd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sums", "x.json")
	var out bytes.Buffer
	for range 2 {
		if err := Add(&out, path, Figures{"kills": 20, "lost": 0}); err != nil {
			t.Fatal(err)
		}
	}
	if err := Add(&out, path, Figures{"rounds": 1}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got Figures
	if err := json.Unmarshal(b, &got); err != nil || !maps.Equal(got, Figures{"kills": 40, "lost": 0, "rounds": 1}) {
		t.Errorf("the file holds %v (%v)", got, err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*.tmp")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := os.WriteFile(path, []byte("no figures"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Add(&out, path, Figures{"kills": 1}); err == nil {
		t.Error("figures that cannot be read are written over")
	}
}
