package prior

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
)

func TestLoadHeader(t *testing.T) {
	s := noisyState(t, tinyConfig(), 3)
	s.Step, s.Meta = 7, map[string]string{"cursor": "12"}
	path := filepath.Join(t.TempDir(), "prior.safetensors")
	if _, err := s.Save(path); err != nil {
		t.Fatal(err)
	}
	h, err := LoadHeader(path)
	if err != nil || h.Step != 7 || !maps.Equal(h.Meta, s.Meta) || h.Config != s.Config.resolved() {
		t.Errorf("%+v, %v", h, err)
	}
	for _, n := range []int64{0, 7, 8, 100} {
		if err := os.Truncate(path, n); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadHeader(path); err == nil {
			t.Errorf("a head of %d bytes is read", n)
		}
	}
	if err := os.WriteFile(path, []byte("\xff\xff\xff\xff\xff\xff\xff\xff{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadHeader(path); err == nil {
		t.Error("a header without end is read")
	}
}
