package main

import (
	"maps"
	"os"
	"path/filepath"
	"testing"

	"rebeca/internal/figures"
)

func TestReadReport(t *testing.T) {
	for _, c := range []struct {
		name, report string
		want         figures.Figures // nil: refused
	}{
		{"numbers", `{"events_folded":7,"liked_share_last":0.5}`, figures.Figures{"events_folded": 7, "liked_share_last": .5}},
		{"nested", `{"events_folded":7,"event_to_image_ms":{"p50":80,"p99":null}}`, figures.Figures{"events_folded": 7, "event_to_image_ms_p50": 80}},
		{"words are left out", `{"events_folded":0,"prior_version":"3-ab"}`, figures.Figures{"events_folded": 0}},
		{"another program's report", `{"events":7}`, nil},
		{"cut short", `{"events_folded":7`, nil},
	} {
		path := filepath.Join(t.TempDir(), "report.json")
		if err := os.WriteFile(path, []byte(c.report), 0o600); err != nil {
			t.Fatal(err)
		}
		got := figures.Figures{}
		err := readReport(path, got)
		if (err == nil) != (c.want != nil) || (c.want != nil && !maps.Equal(got, c.want)) {
			t.Errorf("%s: %v, %v; want %v", c.name, got, err, c.want)
		}
	}
	if err := readReport(filepath.Join(t.TempDir(), "none.json"), figures.Figures{}); err == nil {
		t.Error("a report that is not there was read")
	}
}
