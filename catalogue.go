package rebeca

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"rebeca/consumer"
	"rebeca/eval/shapes"
	"rebeca/images"
	"rebeca/sampler"
	"rebeca/schemas"
)

// CataloguePicture is an item to be made of a picture's file.
type CataloguePicture struct {
	ItemID string
	Path   string
	URI    string // of the item, may be empty
}

// pictureExtensions are those of the files that a folder is searched for. What
// is inside is told by the first bytes; GIFs are among them to be listed.
var pictureExtensions = []string{".png", ".jpg", ".jpeg", ".webp", ".gif"}

// CataloguePictures lists the pictures of a folder, or of a CSV file, in a fixed
// order. In a folder and those below an item's id is the file's path within,
// with slashes, and files and folders whose name begins with a dot are left
// out. A CSV file has a header with the columns item_id and path, the latter
// relative to the file, and may have uri; others are not read.
func CataloguePictures(source string) ([]CataloguePicture, error) {
	info, err := os.Stat(source)
	if err != nil {
		return nil, err
	}
	list := picturesOfCSV
	if info.IsDir() {
		list = picturesOfFolder
	}
	out, err := list(source)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: holds no pictures (%s)", source, strings.Join(pictureExtensions, ", "))
	}
	return out, nil
}

func picturesOfFolder(dir string) (out []CataloguePicture, err error) {
	err = filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name != dir && strings.HasPrefix(entry.Name(), ".") {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if entry.IsDir() || !slices.Contains(pictureExtensions, strings.ToLower(filepath.Ext(name))) {
			return nil
		}
		id, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		uri, err := fileURI(name)
		out = append(out, CataloguePicture{ItemID: filepath.ToSlash(id), Path: name, URI: uri})
		return err
	})
	return out, err
}

func fileURI(name string) (string, error) {
	abs, err := filepath.Abs(name)
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(abs)}).String(), err
}

func picturesOfCSV(name string) ([]CataloguePicture, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := csv.NewReader(bufio.NewReader(f))
	header, err := r.Read()
	if err != nil {
		return nil, fmt.Errorf("reading the header: %w", err)
	}
	header[0] = strings.TrimPrefix(header[0], "\ufeff")
	id, file, uri := slices.Index(header, "item_id"), slices.Index(header, "path"), slices.Index(header, "uri")
	if id < 0 || file < 0 {
		return nil, fmt.Errorf("the header %q lacks item_id or path", header)
	}
	var out []CataloguePicture
	seen := map[string]int{}
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err // it names the line
		}
		line, _ := r.FieldPos(0)
		p := CataloguePicture{ItemID: row[id], Path: filepath.FromSlash(row[file])}
		if first, twice := seen[p.ItemID]; twice {
			return nil, fmt.Errorf("line %d: item_id %q is that of line %d too", line, p.ItemID, first)
		}
		seen[p.ItemID] = line
		if !filepath.IsAbs(p.Path) {
			p.Path = filepath.Join(filepath.Dir(name), p.Path)
		}
		if uri >= 0 {
			p.URI = row[uri]
		}
		out = append(out, p)
	}
}

// OpenEncoder opens the encoder of a manifest, or of `shapes`, for a catalogue
// of this configuration. identity changes with its files.
func (c Config) OpenEncoder(manifest string) (e *sampler.Encoder, identity string, err error) {
	var files fs.FS = shapes.Codec()
	name := "manifest.json"
	if manifest != "shapes" {
		files, name = os.DirFS(filepath.Dir(manifest)), filepath.Base(manifest)
	}
	if identity, err = codecIdentity(files, name); err != nil {
		return nil, "", fmt.Errorf("%s: %w", manifest, err)
	}
	if e, err = sampler.OpenEncoder(files, name, c.RuntimeOptions()); err != nil {
		return nil, "", fmt.Errorf("%s: %w", manifest, err)
	}
	if e.Dim() != c.Prior.Dim {
		return nil, "", errors.Join(fmt.Errorf("%s: the encoder makes %d dimensions, prior.dim is %d", manifest, e.Dim(), c.Prior.Dim), e.Close())
	}
	return e, identity, nil
}

// codecIdentity is a hash of a manifest and its encoder.
func codecIdentity(files fs.FS, manifest string) (string, error) {
	text, err := fs.ReadFile(files, manifest)
	if err != nil {
		return "", fmt.Errorf("reading manifest: %w", err)
	}
	m, err := sampler.DecodeManifest(text)
	if err != nil {
		return "", err
	}
	if m.Encoder == nil {
		return "", errors.New("encoder: missing")
	}
	h := sha256.New()
	h.Write(text)
	f, err := files.Open(path.Join(path.Dir(manifest), m.Encoder.File))
	if err != nil {
		return "", fmt.Errorf("encoder.file: %w", err)
	}
	defer f.Close()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("encoder.file: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// ImageImport makes items of pictures and produces them to a topic. What the
// broker has acknowledged is noted under StateDir, each picture with the size
// and time of its file, so that the same call goes on after an interruption,
// and later sends what is new or has changed.
type ImageImport struct {
	Client     *consumer.Client
	Topic      string
	Partitions int
	Encoder    *sampler.Encoder
	Identity   string // of the encoder: another one makes all items anew
	StateDir   string
	Limits     images.Limits
	// Skip passes over bad files, reporting each to OnBad, instead of failing.
	Skip  bool
	OnBad func(file string, err error)
	// Progress is told how many pictures are done of how many; nil: nobody.
	Progress func(done, total int64)
}

// ImageImportResult says what an import of pictures did.
type ImageImportResult struct {
	Produced int `json:"produced"`
	Before   int `json:"before"` // were sent by an earlier call, and have not changed
	Bad      int `json:"bad"`
}

// importChunk is how many pictures are read, encoded and acknowledged
// together; a resumed import repeats at most that many. A picture that is
// read takes as much memory as the encoder's input.
const importChunk = 64

// Run imports the pictures of a source, see [CataloguePictures]. It ends with
// ctx.
func (im *ImageImport) Run(ctx context.Context, source string) (res ImageImportResult, err error) {
	all, err := CataloguePictures(source)
	if err != nil {
		return res, err
	}
	name, err := importFile(im.StateDir, im.Topic+"\x00"+im.Identity, source, ".jsonl")
	if err != nil {
		return res, err
	}
	journal, err := openImportJournal(name)
	if err != nil {
		return res, fmt.Errorf("reading what an earlier import sent: %w", err)
	}
	defer func() { err = errors.Join(err, journal.file.Close()) }()
	progress := im.Progress
	if progress == nil {
		progress = func(done, total int64) {}
	}
	for len(all) > 0 {
		progress(int64(res.Produced+res.Before+res.Bad), int64(res.Produced+res.Before+res.Bad+len(all)))
		n := min(len(all), importChunk)
		if err := im.chunk(ctx, all[:n], journal, &res); err != nil {
			return res, err
		}
		all = all[n:]
	}
	done := int64(res.Produced + res.Before + res.Bad)
	progress(done, done)
	return res, nil
}

// imported is a picture under way.
type imported struct {
	CataloguePicture
	stamp fileStamp
	img   image.Image
	err   error
	value []byte
}

// fileStamp tells a file from a later one under its name.
type fileStamp struct {
	Size int64 `json:"size"`
	Time int64 `json:"time"` // of its last change, ns
}

// chunk sends those of some pictures that were not sent before.
func (im *ImageImport) chunk(ctx context.Context, some []CataloguePicture, j *importJournal, res *ImageImportResult) error {
	var todo []*imported
	for _, p := range some {
		one := &imported{CataloguePicture: p}
		if info, err := os.Stat(p.Path); err != nil {
			one.err = err
		} else {
			one.stamp = fileStamp{info.Size(), info.ModTime().UnixNano()}
			if j.sent[p.ItemID] == one.stamp {
				res.Before++
				continue
			}
		}
		todo = append(todo, one)
	}
	if err := im.read(ctx, todo); err != nil {
		return err
	}
	im.encode(todo)
	var good []*imported
	for _, one := range todo {
		switch {
		case one.err == nil:
			good = append(good, one)
		case !im.Skip:
			return fmt.Errorf("%s: %w", one.Path, one.err)
		default:
			res.Bad++
			if im.OnBad != nil {
				im.OnBad(one.Path, one.err)
			}
		}
	}
	if err := im.send(ctx, good); err != nil {
		return err
	}
	res.Produced += len(good)
	if err := j.add(good); err != nil {
		return fmt.Errorf("remembering what was sent: %w", err)
	}
	return nil
}

// read reads and prepares pictures on all cores.
func (im *ImageImport) read(ctx context.Context, todo []*imported) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, one := range todo {
		if one.err != nil {
			continue
		}
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("importing pictures: %w", err)
			}
			one.img, one.err = im.prepare(one.Path)
			return nil
		})
	}
	return g.Wait()
}

func (im *ImageImport) prepare(name string) (image.Image, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	img, err := images.Read(f, im.Limits)
	if err != nil {
		return nil, err
	}
	return im.Encoder.Fit(img)
}

// encode makes records of what was read. When a batch fails each picture is
// encoded by itself, so that one does not cost the others their records.
func (im *ImageImport) encode(todo []*imported) {
	var some []*imported
	var pictures []image.Image
	for _, one := range todo {
		if one.err == nil {
			some, pictures = append(some, one), append(pictures, one.img)
		}
		one.img = nil
	}
	embeddings, err := im.Encoder.Encode(pictures)
	for i, one := range some {
		var e []float32
		if err == nil {
			e = embeddings[i]
		} else {
			alone, err := im.Encoder.Encode(pictures[i : i+1])
			if one.err = err; err != nil {
				continue
			}
			e = alone[0]
		}
		one.value, one.err = schemas.Item{ItemID: one.ItemID, Embedding: e, URI: one.URI}.Encode()
		if one.err == nil {
			_, one.err = schemas.ParseItem(one.value, im.Encoder.Dim()) // an id that no topic takes
		}
	}
}

func (im *ImageImport) send(ctx context.Context, good []*imported) error {
	byPartition := make([][]consumer.Message, im.Partitions)
	for _, one := range good {
		p := schemas.Partition([]byte(one.ItemID), im.Partitions)
		byPartition[p] = append(byPartition[p], consumer.Message{Key: []byte(one.ItemID), Value: one.value, Time: time.Now()})
	}
	for p, messages := range byPartition {
		if len(messages) == 0 {
			continue
		}
		if _, err := im.Client.Produce(ctx, im.Topic, int32(p), messages); err != nil {
			return fmt.Errorf("producing %d items to %s[%d]: %w", len(messages), im.Topic, p, err)
		}
	}
	return nil
}

// importJournal is the file of what was sent, a line each. A line that was cut
// off is written over by the next.
type importJournal struct {
	file *os.File
	sent map[string]fileStamp
}

type journalLine struct {
	ItemID string `json:"item_id"`
	fileStamp
}

func openImportJournal(name string) (*importJournal, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	j := &importJournal{file: f, sent: map[string]fileStamp{}}
	r, at := bufio.NewReader(f), int64(0)
	for {
		line, err := r.ReadBytes('\n')
		var l journalLine
		if err != nil || json.Unmarshal(line, &l) != nil {
			if err != nil && !errors.Is(err, io.EOF) {
				return nil, errors.Join(err, f.Close())
			}
			break
		}
		at += int64(len(line))
		j.sent[l.ItemID] = l.fileStamp
	}
	if err := f.Truncate(at); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if _, err := f.Seek(at, io.SeekStart); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return j, nil
}

// add notes what was sent.
func (j *importJournal) add(good []*imported) error {
	var lines []byte
	for _, one := range good {
		b, err := json.Marshal(journalLine{one.ItemID, one.stamp})
		if err != nil {
			return err
		}
		lines = append(append(lines, b...), '\n')
		j.sent[one.ItemID] = one.stamp
	}
	if _, err := j.file.Write(lines); err != nil {
		return err
	}
	return j.file.Sync()
}
