package rebeca

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rebeca/eval/shapes"
	"rebeca/images"
	"rebeca/schemas"
)

// grey is a PNG of one level.
func grey(t *testing.T, level uint8, side int) []byte {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, side, side))
	for k := range img.Pix {
		img.Pix[k] = max(level, uint8(255*(k%4/3)))
	}
	for y := range side {
		img.SetRGBA(side/2, y, color.RGBA{255, 0, level, 255})
	}
	var out bytes.Buffer
	if err := png.Encode(&out, img); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func write(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644)); err != nil {
		t.Fatal(err)
	}
}

// pictureImport is an import by the shapes encoder.
func (s *stand) pictureImport() *ImageImport {
	s.t.Helper()
	s.config.Prior.Dim = 16
	if err := s.config.OpenRuntime(); err != nil {
		s.t.Fatal(err)
	}
	e, identity, err := s.config.OpenEncoder("shapes")
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := e.Close(); err != nil {
			s.t.Error(err)
		}
	})
	return &ImageImport{
		Client: s.client, Topic: s.config.Kafka.Topics.Items, Partitions: s.config.Kafka.Partitions, Encoder: e, Identity: identity,
		StateDir: s.config.State.Dir, Limits: images.DefaultLimits(),
	}
}

func (s *stand) imported() map[string]schemas.Item {
	s.t.Helper()
	out := map[string]schemas.Item{}
	for _, r := range s.read("items") {
		i, err := schemas.DecodeItem(r.Key, r.Value, 16)
		if err != nil {
			s.t.Fatal(err)
		}
		out[i.ItemID] = i
	}
	return out
}

// TestImportOfPictures: a folder becomes items that are what the encoder makes of each picture; a second call sends what is new or has changed.
func TestImportOfPictures(t *testing.T) {
	s := newStand(t)
	im := s.pictureImport()
	dir := t.TempDir()
	const n = importChunk + 6
	for i := range n {
		write(t, dir, fmt.Sprintf("deep/%03d.PNG", i), grey(t, uint8(3*i), 64))
	}
	write(t, dir, ".hidden/x.png", []byte("no picture"))
	write(t, dir, "notes.txt", []byte("no picture"))
	var told []int64
	im.Progress = func(done, total int64) { told = append(told, done, total) }
	res, err := im.Run(t.Context(), dir)
	if err != nil || res != (ImageImportResult{Produced: n}) {
		t.Fatalf("%+v, %v", res, err)
	}
	if want := []int64{0, n, importChunk, n, n, n}; !slices.Equal(told, want) {
		t.Errorf("progress %v, want %v", told, want)
	}
	got := s.imported()
	if len(got) != n {
		t.Fatalf("%d items", len(got))
	}
	one := got["deep/007.PNG"]
	img, err := png.Decode(bytes.NewReader(grey(t, 21, 64)))
	if err != nil {
		t.Fatal(err)
	}
	want, err := im.Encoder.Encode([]image.Image{img})
	if err != nil || !slices.Equal(one.Embedding, want[0]) || !strings.HasPrefix(one.URI, "file:///") || !strings.HasSuffix(one.URI, "/deep/007.PNG") {
		t.Errorf("item %+v, want the embedding %v, %v", one, want, err)
	}
	write(t, dir, "deep/003.PNG", append(grey(t, 200, 64), 0)) // longer by a byte behind its end
	write(t, dir, "new.png", grey(t, 7, 64))
	if res, err = im.Run(t.Context(), dir); err != nil || res != (ImageImportResult{Produced: 2, Before: n - 1}) {
		t.Errorf("the second time %+v, %v", res, err)
	}
	im.Identity = "another"
	if res, err = im.Run(t.Context(), dir); err != nil || res.Produced != n+1 {
		t.Errorf("with another encoder %+v, %v", res, err)
	}
}

// TestImportOfBadPictures: each is listed with its reason, or ends the import by name with what was sent before it remembered.
func TestImportOfBadPictures(t *testing.T) {
	s := newStand(t)
	im := s.pictureImport()
	dir := t.TempDir()
	good := grey(t, 9, 64)
	write(t, dir, "a.png", good)
	write(t, dir, "b-cut.png", good[:len(good)/2])
	write(t, dir, "c-animated.gif", []byte("GIF89a"))
	write(t, dir, "d-small.png", grey(t, 9, 32))
	write(t, dir, "e.png", grey(t, 10, 64))
	if _, err := im.Run(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "b-cut.png: ") || !strings.Contains(err.Error(), "not enough pixel data") {
		t.Errorf("without skipping: %v", err)
	}
	if n := len(s.imported()); n != 0 {
		t.Errorf("%d items of a chunk that was not whole", n)
	}
	im.Skip = true
	var bad []string
	im.OnBad = func(file string, err error) { bad = append(bad, filepath.Base(file)+": "+err.Error()) }
	res, err := im.Run(t.Context(), dir)
	if err != nil || res != (ImageImportResult{Produced: 2, Bad: 3}) {
		t.Errorf("%+v, %v", res, err)
	}
	for i, want := range []string{"b-cut.png: not a picture that can be read: PNG: png: invalid format: not enough pixel data", "c-animated.gif: not a picture that can be read: is a GIF", `d-small.png: 32x32 pixels where "shapes" takes 64x64`} {
		if len(bad) != 3 || !strings.HasPrefix(bad[i], want) {
			t.Errorf("listed %q, want %q", bad, want)
		}
	}
	bad = nil
	if res, err = im.Run(t.Context(), dir); err != nil || res != (ImageImportResult{Before: 2, Bad: 3}) || len(bad) != 3 {
		t.Errorf("the second time %+v, %v, %q", res, err, bad)
	}
}

// TestImportOfPicturesGoesOn: an import that was stopped, its note cut in the middle of a line, sends each of the others and at most a chunk twice.
func TestImportOfPicturesGoesOn(t *testing.T) {
	s := newStand(t)
	im := s.pictureImport()
	dir := t.TempDir()
	const n = 2*importChunk + 10
	for i := range n {
		write(t, dir, fmt.Sprintf("%03d.png", i), grey(t, uint8(i), 64))
	}
	ctx, stop := context.WithCancel(t.Context())
	im.Progress = func(done, _ int64) {
		if done == importChunk {
			stop()
		}
	}
	if _, err := im.Run(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Fatalf("stopped: %v", err)
	}
	notes, err := filepath.Glob(filepath.Join(s.config.State.Dir, "imports", "*.jsonl"))
	if err != nil || len(notes) != 1 {
		t.Fatal(notes, err)
	}
	text, err := os.ReadFile(notes[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(notes[0], text[:len(text)-5], 0o644); err != nil {
		t.Fatal(err)
	}
	im.Progress = nil
	res, err := im.Run(t.Context(), dir)
	if err != nil || res != (ImageImportResult{Produced: n - importChunk + 1, Before: importChunk - 1}) {
		t.Errorf("afterwards %+v, %v", res, err)
	}
	if got := len(s.imported()); got != n {
		t.Errorf("%d items of %d pictures", got, n)
	}
	if res, err = im.Run(t.Context(), dir); err != nil || res.Before != n {
		t.Errorf("once more %+v, %v", res, err)
	}
}

func TestCataloguePicturesOfCSV(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "list.csv", []byte("\ufeffuri,item_id,path,note\nhttps://x/a,a,pics/a.jpg,\"one, two\"\n,b,/abs/b.png,\n"))
	got, err := CataloguePictures(filepath.Join(dir, "list.csv"))
	want := []CataloguePicture{{"a", filepath.Join(dir, "pics/a.jpg"), "https://x/a"}, {"b", "/abs/b.png", ""}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for name, c := range map[string][2]string{
		"no header": {"", "reading the header"}, "other header": {"id,path\n", "lacks item_id or path"}, "nothing": {"item_id,path\n", "holds no pictures"},
		"twice": {"item_id,path\na,x\na,y\n", `line 3: item_id "a" is that of line 2 too`}, "ragged": {"item_id,path\na\n", "line 2"},
	} {
		write(t, dir, "bad.csv", []byte(c[0]))
		if _, err := CataloguePictures(filepath.Join(dir, "bad.csv")); err == nil || !strings.Contains(err.Error(), c[1]) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := CataloguePictures(t.TempDir()); err == nil || !strings.Contains(err.Error(), "holds no pictures") {
		t.Errorf("an empty folder: %v", err)
	}
}

// TestImportByCLIP: pictures of any size go through a tower that resizes them.
func TestImportByCLIP(t *testing.T) {
	s := newStand(t)
	im := s.pictureImport()
	s.config.Prior.Dim = 8
	e, identity, err := s.config.OpenEncoder("sampler/testdata/clip/manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	im.Encoder, im.Identity = e, identity
	list := "item_id,path\n"
	for _, name := range []string{"wide", "tall", "small", "grey"} {
		abs, err := filepath.Abs("sampler/testdata/clip/" + name + ".png")
		if err != nil {
			t.Fatal(err)
		}
		list += name + "," + abs + "\n"
	}
	dir := t.TempDir()
	write(t, dir, "list.csv", []byte(list))
	res, err := im.Run(t.Context(), filepath.Join(dir, "list.csv"))
	if err != nil || res.Produced != 4 {
		t.Fatalf("%+v, %v", res, err)
	}
	for _, r := range s.read("items") {
		i, err := schemas.DecodeItem(r.Key, r.Value, 8)
		if err != nil {
			t.Fatal(err)
		}
		if i.ItemID == "wide" && math.Abs(float64(i.Embedding[0])+.17835636) > 1e-5 {
			t.Errorf("wide is %v", i.Embedding)
		}
	}
}

func TestOpenEncoderRefuses(t *testing.T) {
	c := DefaultConfig()
	c.Prior.Dim = 8
	if err := c.OpenRuntime(); err != nil {
		t.Fatal(err)
	}
	for manifest, want := range map[string]string{
		"shapes": "makes 16 dimensions, prior.dim is 8", "nowhere.json": "nowhere.json", t.TempDir(): "reading manifest",
	} {
		if _, _, err := c.OpenEncoder(manifest); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", manifest, err)
		}
	}
	a, err := codecIdentity(shapes.Codec(), "manifest.json")
	b, err2 := codecIdentity(os.DirFS("sampler/testdata/clip"), "manifest.json")
	if a == b || err != nil || err2 != nil {
		t.Errorf("identities %s and %s: %v, %v", a, b, err, err2)
	}
}
