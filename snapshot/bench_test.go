package snapshot

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"rebeca/table"
)

// grownTown is a table of users with near full windows, and the bytes of its keys and values.
func grownTown(b *testing.B, users, events int) (*table.Table, int64) {
	b.Helper()
	tb := openTown(b, filepath.Join(b.TempDir(), "table"))
	w := newTown(b, users, 2000)
	w.catalogue(tb)
	for done := 0; done < events; done += 20_000 {
		w.fold(20_000, tb)
	}
	size := int64(0)
	err := tb.Export(func(c table.Cut) error {
		return c.Each("", func(key, value []byte) error {
			size += int64(len(key) + len(value))
			return nil
		})
	})
	if err != nil {
		b.Fatal(err)
	}
	return tb, size
}

// BenchmarkTable counts MB/s in bytes of keys and values, whatever the files compress to.
func BenchmarkTable(b *testing.B) {
	const users, events = 20_000, 800_000
	tb, size := grownTown(b, users, events)
	for _, c := range []Compression{Zstd, None} {
		name := fmt.Sprintf("users=%d/events=%d/%s", users, events, c)
		dir := b.TempDir()
		var m Manifest
		b.Run("create/"+name, func(b *testing.B) {
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				m, _ = mustCreate(b, dir, OfTable(tb, nil), Options{Compression: c})
			}
			b.ReportMetric(float64(m.Size())/float64(size), "written/raw")
		})
		b.Run("verify/"+name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				if _, err := Verify(context.Background(), filepath.Join(dir, m.Name), Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("restore/"+name, func(b *testing.B) {
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				to := b.TempDir()
				if _, err := Restore(context.Background(), filepath.Join(dir, m.Name), filepath.Join(to, "s"), filepath.Join(to, "p"), IntoTable(townOptions("")), Options{}); err != nil {
					b.Fatal(err)
				}
				if err := os.RemoveAll(to); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
