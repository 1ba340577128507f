// Command shapes-render writes training pictures of the controlled world for
// tools/shapes_vae.py: DIR/NAME.u8, raw uint8 [count, 64, 64, 3], and
// DIR/NAME.labels.u8, one taste index a picture. Taste i mod 24 of the demo preset
// in pose first+i, so the same flags give the same bytes. With -catalogue the
// pictures are the items of the demo world in order instead.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"image"
	"os"
	"path/filepath"

	"rebeca/eval/shapes"
)

func main() {
	dir := flag.String("dir", ".", "folder to write to")
	name := flag.String("name", "train", "stem of the two files")
	count := flag.Int("count", 24000, "number of pictures")
	first := flag.Uint64("first", 1<<40, "seed of the first pose; the world's own items use seeds from 0")
	catalogue := flag.Bool("catalogue", false, "write the demo world's catalogue")
	flag.Parse()
	if err := run(*dir, *name, *count, *first, *catalogue); err != nil {
		fmt.Fprintln(os.Stderr, "shapes-render:", err)
		os.Exit(1)
	}
}

func run(dir, name string, count int, first uint64, catalogue bool) (err error) {
	preset := shapes.Demo()
	if catalogue {
		count, first = preset.Items, 0
	}
	pictures, err := os.Create(filepath.Join(dir, name+".u8"))
	if err != nil {
		return fmt.Errorf("creating the pictures: %w", err)
	}
	defer func() { err = errors.Join(err, pictures.Close()) }()
	w := bufio.NewWriterSize(pictures, 1<<20)
	labels := make([]byte, count)
	for i := range count {
		k := i % len(preset.Tastes)
		labels[i] = byte(k)
		if _, err := w.Write(rgb(shapes.Render(preset.Tastes[k], first+uint64(i)))); err != nil {
			return fmt.Errorf("writing the pictures: %w", err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, name+".labels.u8"), labels, 0o644); err != nil {
		return fmt.Errorf("writing the labels: %w", err)
	}
	return w.Flush()
}

// rgb drops the alpha channel.
func rgb(img *image.RGBA) []byte {
	out := make([]byte, 0, len(img.Pix)/4*3)
	for i := 0; i < len(img.Pix); i += 4 {
		out = append(out, img.Pix[i:i+3]...)
	}
	return out
}
