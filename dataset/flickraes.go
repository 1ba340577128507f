package dataset

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"rebeca/schemas"
)

// FlickrAES makes items and events of FLICKR-AES (Ren et al., ICCV 2017): photographs that 210 people rated from 1 to
// 5, in a CSV file with the columns worker, imagePair and score, as it is distributed
// (FLICKR-AES_image_labeled_by_each_worker.csv). Embeddings of the images are the caller's.
//
// The ratings have no times. They become one stream in an order drawn by Seed, a second apart.
type FlickrAES struct {
	Ratings string // the CSV file
	// Embeddings is a file of items, see [OpenItems], whose ids are the names of the images; or a NumPy matrix
	// (.npy), a row for each name in the lines of Names.
	Embeddings string
	Names      string
	Seed       uint64

	Items, Events string // files to be written, as JSONL

	Skip  bool // pass over broken rows and ratings of images without embedding instead of failing
	OnBad func(error)
}

// FlickrAESResult says what an import made.
type FlickrAESResult struct {
	Items  int `json:"items"`
	Events int `json:"events"`
	Users  int `json:"users"`
	Dim    int `json:"dim"`
	Bad    int `json:"bad"` // rows passed over
}

// started is the time of the first event.
var started = time.Date(2017, 1, 1, 0, 0, 0, 0, time.UTC)

// rating is a row of the CSV file.
type rating struct {
	Worker string   `json:"worker"`
	Image  string   `json:"imagePair"`
	Score  *float64 `json:"score"`
}

// Run writes both files, at the end and whole. The first broken row is a *[RowError] where Skip is not set, and leaves no file.
func (f *FlickrAES) Run() (res FlickrAESResult, err error) {
	items, err := create(f.Items)
	if err != nil {
		return res, err
	}
	defer items.discard()
	known := map[string]bool{}
	if err := f.items(&res, func(i schemas.Item) error {
		if known[i.ItemID] {
			return fmt.Errorf("image %s has two embeddings", i.ItemID)
		}
		known[i.ItemID] = true
		res.Items++
		return items.put(i)
	}); err != nil {
		return res, err
	}
	if res.Items == 0 {
		return res, fmt.Errorf("%s has no embedding", f.Embeddings)
	}
	ratings, err := f.ratings(&res, known)
	if err != nil {
		return res, err
	}
	events, err := create(f.Events)
	if err != nil {
		return res, err
	}
	defer events.discard()
	if err := f.events(&res, ratings, events.put); err != nil {
		return res, err
	}
	return res, errors.Join(items.publish(), events.publish())
}

// events writes ratings in their drawn order.
func (f *FlickrAES) events(res *FlickrAESResult, ratings []rating, put func(record) error) error {
	rng := rand.New(rand.NewPCG(f.Seed, 0x666c69636b72))
	rng.Shuffle(len(ratings), func(i, j int) { ratings[i], ratings[j] = ratings[j], ratings[i] })
	times, users := map[string]int{}, map[string]bool{}
	for i, r := range ratings {
		id := "flickr-aes/" + r.Worker + "/" + r.Image
		if times[id]++; times[id] > 1 { // somebody rated an image again
			id = fmt.Sprintf("%s/%d", id, times[id])
		}
		if err := put(schemas.Feedback{
			EventID: id, UserID: r.Worker, ItemID: r.Image, Kind: schemas.KindRating, Value: r.Score,
			OccurredAt: started.Add(time.Duration(i) * time.Second),
		}); err != nil {
			return err
		}
		users[r.Worker] = true
	}
	res.Events, res.Users = len(ratings), len(users)
	return nil
}

// bad passes over a row or returns its error.
func (f *FlickrAES) bad(res *FlickrAESResult, err error) error {
	if !f.Skip {
		return err
	}
	res.Bad++
	if f.OnBad != nil {
		f.OnBad(err)
	}
	return nil
}

// items calls fn for every image that has an embedding. The first one sets the dimension.
func (f *FlickrAES) items(res *FlickrAESResult, fn func(schemas.Item) error) error {
	if strings.EqualFold(filepath.Ext(f.Embeddings), ".npy") {
		return f.matrix(res, fn)
	}
	r, err := OpenItems(f.Embeddings)
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		item, err := r.Item(res.Dim)
		var row *RowError
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.As(err, &row):
			err = f.bad(res, err)
		case err == nil:
			res.Dim = len(item.Embedding)
			err = fn(item)
		}
		if err != nil {
			return err
		}
	}
}

// matrix reads embeddings from a NumPy file, in the order of the names.
func (f *FlickrAES) matrix(res *FlickrAESResult, fn func(schemas.Item) error) error {
	if f.Names == "" {
		return fmt.Errorf("%s has rows without names: a file with one image name a line is needed beside it", f.Embeddings)
	}
	names, err := os.Open(f.Names)
	if err != nil {
		return err
	}
	defer names.Close()
	file, err := os.Open(f.Embeddings)
	if err != nil {
		return err
	}
	defer file.Close()
	m, err := newNPY(file)
	if err != nil {
		return fmt.Errorf("%s: %w", f.Embeddings, err)
	}
	res.Dim = m.cols
	lines, n := newLines(names), 0
	for ; ; n++ {
		name, err := lines.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("reading %s: line %d: %w", f.Names, lines.n, err)
		}
		if n == m.rows {
			return fmt.Errorf("%s: line %d: there are more names than the %d rows of %s", f.Names, lines.n, m.rows, f.Embeddings)
		}
		e, err := m.row()
		if err != nil {
			return fmt.Errorf("reading %s: row %d: %w", f.Embeddings, n+1, err)
		}
		item := schemas.Item{ItemID: strings.TrimSpace(string(name)), Embedding: e}
		if err := judge(item, m.cols); err != nil {
			err = f.bad(res, &RowError{f.Embeddings, "row", n + 1, err})
			if err != nil {
				return err
			}
			continue
		}
		if err := fn(item); err != nil {
			return err
		}
	}
	if n < m.rows {
		return fmt.Errorf("%s has %d rows and %s only %d names", f.Embeddings, m.rows, f.Names, n)
	}
	return nil
}

// judge is the decoder's opinion of an item that was not decoded.
func judge(i schemas.Item, dim int) error {
	value, err := i.Encode()
	if err != nil {
		return err
	}
	_, err = schemas.ParseItem(value, dim)
	return err
}

// ratings reads the CSV file.
func (f *FlickrAES) ratings(res *FlickrAESResult, known map[string]bool) (all []rating, err error) {
	r, err := open(f.Ratings, []field{{"worker", text}, {"imagePair", text}, {"score", number}})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	for {
		value, n, err := r.Row()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		var row *RowError
		if err != nil && !errors.As(err, &row) {
			return nil, err
		}
		var one rating
		if err == nil {
			if one, err = readRating(value, known); err != nil {
				err = &RowError{f.Ratings, r.unit, n, err}
			}
		}
		if err == nil {
			all = append(all, one)
		} else if err := f.bad(res, err); err != nil {
			return nil, err
		}
	}
}

func readRating(value []byte, known map[string]bool) (r rating, err error) {
	if err := json.Unmarshal(value, &r); err != nil {
		return r, err
	}
	switch {
	case r.Score == nil:
		return r, errors.New("has no score")
	case r.Image != "" && !known[r.Image]:
		return r, fmt.Errorf("image %s has no embedding", r.Image)
	}
	return r, schemas.Feedback{
		EventID: "-", UserID: r.Worker, ItemID: r.Image, Kind: schemas.KindRating, Value: r.Score, OccurredAt: started,
	}.Validate(time.Time{})
}

// record is what a line is written of.
type record interface{ Encode() ([]byte, error) }

// output is a JSONL file that is being written beside its place.
type output struct {
	path string
	file *os.File
	w    *bufio.Writer
}

func create(path string) (*output, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return nil, fmt.Errorf("writing %s: %w", path, err)
	}
	return &output{path, f, bufio.NewWriterSize(f, 1<<20)}, nil
}

func (o *output) put(r record) error {
	line, err := r.Encode()
	if err != nil {
		return err
	}
	if _, err := o.w.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("writing %s: %w", o.path, err)
	}
	return nil
}

// publish moves the whole file to its place.
func (o *output) publish() error {
	err := errors.Join(o.w.Flush(), o.file.Chmod(0o644), o.file.Close())
	if err == nil {
		err = os.Rename(o.file.Name(), o.path)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", o.path, err)
	}
	return nil
}

// discard removes what was not published. What cannot be removed has no other consequence than its presence.
func (o *output) discard() {
	o.file.Close()
	os.Remove(o.file.Name())
}
