// Package figures prints what a benchmark measured and keeps it in a file, one
// flat JSON object of numbers, so that results of all benchmarks read alike.
package figures

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// Figures are measurements by name. Names end in their unit; shares, ratios and
// counts have none.
type Figures map[string]float64

// Publish writes got to path, whose folder is made when missing, and then prints
// it to w by name, to six digits.
func Publish(w io.Writer, path string, got Figures) error {
	text, err := json.MarshalIndent(got, "", "  ")
	if err != nil { // not a number, or infinite
		return fmt.Errorf("encoding the figures: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("writing the figures: %w", err)
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing the figures: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		fmt.Fprintf(w, "%-36s %s\n", name, strconv.FormatFloat(got[name], 'g', 6, 64))
	}
	_, err = fmt.Fprintf(w, "written to %s\n", path)
	return err
}

// Add is [Publish] for figures that are sums over many runs: got is added to what path holds, name by name. The file is replaced at
// once, so one that is read meanwhile is whole.
func Add(w io.Writer, path string, got Figures) error {
	sum := Figures{}
	switch text, err := os.ReadFile(path); {
	case err == nil:
		if err := json.Unmarshal(text, &sum); err != nil {
			return fmt.Errorf("reading the figures of %s: %w", path, err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("reading the figures: %w", err)
	}
	for name, v := range got {
		sum[name] += v
	}
	partial := path + ".tmp"
	if err := Publish(w, partial, sum); err != nil {
		return err
	}
	if err := os.Rename(partial, path); err != nil {
		return fmt.Errorf("writing the figures: %w", err)
	}
	return nil
}
