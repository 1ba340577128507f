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
