package rebeca

import (
	"context"
	"errors"
	"image"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rebeca/internal/objects"
	"rebeca/schemas"
	"rebeca/table"
)

// drawer is a decoder under a test's control: it draws a grey of the embedding's first value.
type drawer struct {
	batch int
	gate  chan struct{} // not nil: each run takes one, or the end of its context

	mu    sync.Mutex
	runs  []int            // guarded by mu; how many pictures each made
	fails map[float32]int  // guarded by mu; runs with an embedding that begins so fail that often yet
	hides map[float32]bool // guarded by mu; withheld
}

func (d *drawer) Batch() int { return d.batch }

func (d *drawer) Decode(ctx context.Context, embeddings [][]float32, seeds []uint64, _ func(done, total int)) ([]image.Image, error) {
	if d.gate != nil {
		select {
		case <-d.gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.runs = append(d.runs, len(embeddings))
	out := make([]image.Image, len(embeddings))
	for i, e := range embeddings {
		if d.fails[e[0]] > 0 {
			d.fails[e[0]]--
			return nil, errors.New("the paint is dry")
		}
		if d.hides[e[0]] {
			continue
		}
		img := image.NewRGBA(image.Rect(0, 0, 8, 8))
		for k := range img.Pix {
			img.Pix[k] = byte(16 * e[0])
		}
		out[i] = img
	}
	return out, nil
}

// easel is a pool over a drawer, with what it has finished.
type easel struct {
	t     *testing.T
	pool  *decodePool
	table *table.Table

	mu   sync.Mutex
	made []*sampled // guarded by mu
}

func newEasel(t *testing.T, d *drawer, c ImagesConfig, bucket string) *easel {
	t.Helper()
	conf := DefaultConfig()
	conf.State.Dir, conf.Prior.Dim, conf.Images = t.TempDir(), 4, c
	conf.Images.Bucket = bucket
	tb, err := table.Open(conf.TableOptions(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	store, err := conf.openImages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(store.Close(), tb.Close()); err != nil {
			t.Error(err)
		}
	})
	reg, log := prometheus.NewRegistry(), slog.New(slog.DiscardHandler)
	e := &easel{t: t, table: tb, pool: newDecodePool(c, d, newPictures(c, store, tb, reg, log), reg, log)}
	e.pool.finish = func(made []*sampled) error {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.made = append(e.made, made...)
		return nil
	}
	return e
}

// put has pictures made for a user of partition p: one for each value.
func (e *easel) put(p int32, user string, values ...float32) {
	s := &sampled{chunk: chunk{queued: &queued{Intent: table.Intent{Partition: p, UserID: user, Count: len(values)}}, n: len(values)}}
	for i, v := range values {
		source := schemas.Source{Topic: user, Partition: p, Offset: int64(v)}
		s.records = append(s.records, schemas.Generated{ID: schemas.ID(source, i), UserID: user, Embedding: []float32{v, 0, 0, 0}})
		s.todo = append(s.todo, picture{at: i})
	}
	s.wanted = len(s.todo)
	e.pool.put(s)
}

// work runs n workers until stop, which waits for them.
func (e *easel) work(n int) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var workers sync.WaitGroup
	for range n {
		workers.Go(func() {
			if err := e.pool.work(ctx); err != nil {
				e.t.Error(err)
			}
		})
	}
	stop = sync.OnceFunc(func() {
		cancel()
		workers.Wait()
	})
	e.t.Cleanup(stop)
	return stop
}

func (e *easel) finished() []*sampled {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.made)
}

// await returns what is finished of a user once it is.
func (e *easel) await(user string) []schemas.Generated {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), 30*time.Second)
	defer cancel()
	var out []schemas.Generated
	if !poll(ctx, time.Millisecond, func() bool {
		for _, s := range e.finished() {
			if s.UserID == user {
				out = s.records
			}
		}
		return out != nil
	}) {
		e.t.Fatalf("nothing was made for %s", user)
	}
	return out
}

func quick() ImagesConfig {
	c := defaultImages()
	c.RetryAfter = time.Millisecond
	return c
}

// TestPoolFillsBatches: chunks share runs of the decoder up to its batch, in their order.
func TestPoolFillsBatches(t *testing.T) {
	d := &drawer{batch: 4}
	e := newEasel(t, d, quick(), "")
	e.put(0, "a", 1, 2)
	e.put(0, "b", 3, 4)
	e.put(0, "c", 5, 6, 7, 8, 9) // more than a run: by itself
	e.put(0, "d", 10)
	if n := e.pool.depth(); n != 10 || e.pool.room() != 54 {
		t.Errorf("%d wait, there is room for %d", n, e.pool.room())
	}
	e.work(1)
	for _, user := range []string{"a", "b", "c", "d"} {
		for _, r := range e.await(user) {
			if r.Image == nil || r.NoImage != nil || r.Image.Width != 8 || len(r.Image.Data) == 0 || r.Image.Size != int64(len(r.Image.Data)) {
				t.Errorf("%s: %+v", user, r)
			}
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Equal(d.runs, []int{5, 5}) && !slices.Equal(d.runs, []int{4, 5, 1}) && !slices.Equal(d.runs, []int{5, 5, 0}) {
		t.Errorf("runs of %v pictures", d.runs)
	}
	if n := e.pool.depth(); n != 0 {
		t.Errorf("%d wait at the end", n)
	}
}

// TestPoolRetries: a picture that fails is tried again as often as the policy says, costs its neighbours nothing, and is then published without.
func TestPoolRetries(t *testing.T) {
	d := &drawer{batch: 8, fails: map[float32]int{2: 3, 3: 1000}, hides: map[float32]bool{5: true}}
	c := quick()
	c.Attempts = 3 // the first attempt is in company and alone, so 2 fails three times within two attempts
	e := newEasel(t, d, c, "")
	e.put(0, "good", 1)
	e.put(0, "late", 2)
	e.put(0, "mixed", 3, 4, 5)
	e.work(2)
	if r := e.await("good")[0]; r.Image == nil {
		t.Errorf("a neighbour of one that failed has no picture: %+v", r.NoImage)
	}
	if r := e.await("late")[0]; r.Image == nil || r.NoImage != nil {
		t.Errorf("one that failed at first: %+v", r.NoImage)
	}
	mixed := e.await("mixed")
	if r := mixed[0]; r.Image != nil || r.NoImage == nil || r.NoImage.Reason != schemas.NoImageDecode || !strings.Contains(r.NoImage.Message, "the paint is dry") {
		t.Errorf("one that always fails: %+v", r.NoImage)
	}
	if r := mixed[1]; r.Image == nil {
		t.Errorf("beside one that always fails: %+v", r.NoImage)
	}
	if r := mixed[2]; r.Image != nil || r.NoImage == nil || r.NoImage.Reason != schemas.NoImageWithheld {
		t.Errorf("one that is withheld: %+v", r.NoImage)
	}
	if n := e.pool.depth(); n != 0 || len(e.finished()) != 3 {
		t.Errorf("%d wait at the end, %d chunks are finished", n, len(e.finished()))
	}
}

// TestPoolStops: workers end while a decoder is at work, what waits is not finished, and nothing is left running.
func TestPoolStops(t *testing.T) {
	d := &drawer{batch: 1, gate: make(chan struct{})}
	e := newEasel(t, d, quick(), "")
	for v := range int32(6) {
		e.put(v%2, "u", float32(v))
	}
	stop := e.work(2)
	d.gate <- struct{}{}
	e.await("u")
	if got := len(e.pool.drop(1)); got > 3 || got < 1 {
		t.Errorf("%d were dropped of a partition of three", got)
	}
	stop()
	if n := len(e.finished()); n > 2 {
		t.Errorf("%d chunks are finished", n)
	}
}

// TestLargePicturesGoToTheBucket: above the limit a record has the object's name, the object is there first, and a second attempt writes the same.
func TestLargePicturesGoToTheBucket(t *testing.T) {
	server := s3Server(t)
	c := quick()
	c.InlineMax = 0
	e := newEasel(t, &drawer{batch: 4}, c, server.URL("pictures", ""))
	e.put(0, "ada", 1, 2)
	e.put(0, "ada2", 1)
	e.work(1)
	for _, r := range slices.Concat(e.await("ada"), e.await("ada2")) {
		if r.Image == nil || len(r.Image.Data) > 0 || r.Image.URI != "s3://pictures/"+r.Image.SHA256 {
			t.Fatalf("record %+v, %+v", r.Image, r.NoImage)
		}
		data, mediaType, ok := server.Object("pictures/" + r.Image.SHA256)
		if !ok || mediaType != "image/png" || int64(len(data)) != r.Image.Size {
			t.Errorf("the bucket has %d bytes of %q under %s", len(data), mediaType, r.Image.SHA256)
		}
	}
	if n := len(server.Names()); n != 3 {
		t.Fatalf("%d objects of three records", n)
	}
	e.put(0, "ada", 1, 2) // as after a crash
	e.put(0, "end", 3)
	e.await("end")
	if names := server.Names(); len(names) != 4 {
		t.Errorf("the same intent made other objects: %v", names)
	}
	if e.pool.pictures.status().BucketError != "" {
		t.Error("the bucket is said to refuse")
	}
	made := e.finished()
	e.pool.pictures.giveUp(time.Now(), []int32{0})
	if n := len(e.doomed()); n != 0 {
		t.Errorf("%d objects in hand are to be deleted", n)
	}
	for _, s := range made { // none of them was completed
		e.pool.pictures.release(s.records)
	}
	e.pool.pictures.giveUp(time.Now(), []int32{0})
	e.pool.pictures.clean(t.Context(), []int32{0})
	if names := server.Names(); len(names) != 0 || len(e.doomed()) != 0 {
		t.Errorf("left in the bucket: %v; to be deleted: %d", names, len(e.doomed()))
	}
}

func (e *easel) doomed() []table.Object {
	e.t.Helper()
	out, err := e.table.DoomedObjects(0, 100)
	if err != nil {
		e.t.Fatal(err)
	}
	return out
}

// TestRefusingBucket: the record goes without its picture, with the reason, and the next one has one again.
func TestRefusingBucket(t *testing.T) {
	server := s3Server(t)
	c := quick()
	c.InlineMax, c.Attempts = 0, 2
	e := newEasel(t, &drawer{batch: 4}, c, server.URL("pictures", ""))
	server.Refuse(403)
	e.work(1)
	e.put(0, "ada", 1)
	if r := e.await("ada")[0]; r.Image != nil || r.NoImage == nil || r.NoImage.Reason != schemas.NoImageStore || r.NoImage.Message == "" {
		t.Errorf("record %+v, %+v", r.Image, r.NoImage)
	}
	if s := e.pool.pictures.status(); s.BucketError == "" || s.BucketErrorSince.IsZero() {
		t.Errorf("status %+v", s)
	}
	server.Refuse(0)
	e.put(0, "bob", 2)
	if r := e.await("bob")[0]; r.Image == nil {
		t.Errorf("afterwards %+v", r.NoImage)
	}
	if s := e.pool.pictures.status(); s.BucketError != "" {
		t.Errorf("status afterwards %+v", s)
	}
	e.pool.pictures.giveUp(time.Now(), []int32{0}) // of what was refused
	server.Refuse(500)
	e.pool.pictures.clean(t.Context(), []int32{0})
	if s := e.pool.pictures.status(); s.ToDelete != 1 || len(e.doomed()) != 1 {
		t.Errorf("status while nothing can be deleted: %+v, %d are to be deleted", s, len(e.doomed()))
	}
	server.Refuse(0)
	e.pool.pictures.clean(t.Context(), []int32{0})
	if s := e.pool.pictures.status(); s.ToDelete != 0 || len(e.doomed()) != 0 {
		t.Errorf("status afterwards: %+v, %d are to be deleted", s, len(e.doomed()))
	}
}

func s3Server(t *testing.T) *objects.Server {
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	server := objects.Start()
	t.Cleanup(server.Close)
	return server
}
