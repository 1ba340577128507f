package rebeca

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rebeca/images"
	"rebeca/schemas"
	"rebeca/table"
	"rebeca/web"
)

const (
	// writeTimeout bounds one attempt to write an object, and deleteTimeout one
	// to delete or read it.
	writeTimeout  = time.Minute
	deleteTimeout = 20 * time.Second
	// sweepEvery is how often objects that are to be deleted are looked for, and
	// giveUpEvery how often it is decided which those are.
	sweepEvery  = 5 * time.Second
	giveUpEvery = time.Minute
	// sweepChunk bounds what one look deletes of a partition.
	sweepChunk = 1000
	// refusalsInARow end a look: it is the bucket that refuses, not an object that
	// cannot be deleted.
	refusalsInARow = 4
	// recentBytes bounds the inline pictures that are kept for the door.
	recentBytes = 32 << 20
)

// pictures keeps what the decode pool makes: small ones in their records, large
// ones in the bucket. An object is noted in the table before it is written, so
// that whatever happens then it is deleted when its record never comes, when
// its user is forgotten, or when it is old.
type pictures struct {
	config ImagesConfig
	format images.Format
	store  *images.Store
	table  *table.Table
	recent *images.Recent
	log    *slog.Logger

	written, deleted, bytes prometheus.Counter
	failed                  prometheus.Counter

	// names serialises writing and deleting of one object; it is picked by the
	// first byte of its name.
	names [64]sync.Mutex

	mu      sync.Mutex
	inHand  map[table.Object]bool // guarded by mu; written for records that are not completed yet
	refused error                 // guarded by mu; why the bucket refused last, nil since it took something
	since   time.Time             // guarded by mu; of refused
	doomed  int                   // guarded by mu; objects that wait to be deleted, as of the last look
}

func newPictures(c ImagesConfig, store *images.Store, t *table.Table, reg prometheus.Registerer, log *slog.Logger) *pictures {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "rebeca_" + name, Help: help})
	}
	p := &pictures{
		config: c, format: c.format(), store: store, table: t, recent: images.NewRecent(recentBytes), log: log, inHand: map[table.Object]bool{},
		written: counter("image_objects_written_total", "Pictures written to the bucket."),
		bytes:   counter("image_objects_bytes_total", "Bytes of the pictures written to the bucket."),
		deleted: counter("image_objects_deleted_total", "Pictures deleted from the bucket: old, of forgotten users, or without a record."),
		failed:  counter("image_bucket_failures_total", "Calls of the bucket that failed."),
	}
	reg.MustRegister(p.written, p.bytes, p.deleted, p.failed, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "rebeca_image_objects_to_delete", Help: "Pictures that wait to be deleted from the bucket.",
	}, func() float64 { return float64(p.status().ToDelete) }))
	return p
}

// keep fills in a record's picture: in the record where it is small, else by
// its name in the bucket, where it is then.
func (p *pictures) keep(ctx context.Context, partition int32, r *schemas.Generated, f images.File) error {
	img := &schemas.Image{MediaType: f.MediaType, Width: f.Width, Height: f.Height, SHA256: f.Sum.String(), Size: int64(len(f.Data))}
	if len(f.Data) <= p.config.InlineMax {
		img.Data = f.Data
		r.Image = img
		return nil
	}
	if err := p.write(ctx, partition, r.UserID, f); err != nil {
		return err
	}
	img.URI = p.store.URI(f.Sum)
	r.Image = img
	return nil
}

func (p *pictures) write(ctx context.Context, partition int32, user string, f images.File) error {
	name := &p.names[int(f.Sum[0])%len(p.names)]
	name.Lock()
	defer name.Unlock()
	p.hold(f.Sum)
	if err := p.table.NoteObject(partition, user, table.Object(f.Sum), time.Now()); err != nil {
		return err
	}
	timed, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	err := p.store.Put(timed, f)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	p.told(err)
	if err != nil {
		p.letGo(table.Object(f.Sum))
		return err
	}
	p.written.Inc()
	p.bytes.Add(float64(len(f.Data)))
	return nil
}

// told notes how the bucket answered.
func (p *pictures) told(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err == nil:
		p.refused = nil
		return
	case p.refused == nil:
		p.log.Error("the bucket of images refuses", "err", err)
		p.since = time.Now()
	}
	p.refused = err
	p.failed.Inc()
}

func (p *pictures) hold(sum images.Sum) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inHand[table.Object(sum)] = true
}

// release lets go of records that are completed, or given back.
func (p *pictures) release(made []schemas.Generated) {
	for _, r := range made {
		if o := objectOf(r); o != nil {
			p.letGo(*o)
		}
	}
}

func (p *pictures) letGo(o table.Object) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.inHand, o)
}

func (p *pictures) holds(o table.Object) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.inHand[o]
}

// objectOf returns the object that a record points at, nil for none.
func objectOf(r schemas.Generated) *table.Object {
	if r.Image == nil || r.Image.URI == "" {
		return nil
	}
	sum, ok := images.ParseSum(r.Image.SHA256)
	if !ok {
		panic("rebeca: a record of ours with the hash " + r.Image.SHA256)
	}
	o := table.Object(sum)
	return &o
}

// sweep deletes from the bucket what nobody needs any more, of the partitions
// that this process serves, until ctx ends.
func (p *pictures) sweep(ctx context.Context, serving func() []int32) error {
	var decided time.Time
	return every(ctx, sweepEvery, func() {
		if now := time.Now(); now.Sub(decided) >= giveUpEvery {
			decided = now
			p.giveUp(now, serving())
		}
		p.clean(ctx, serving())
	})
}

// giveUp decides which objects are to be deleted.
func (p *pictures) giveUp(now time.Time, partitions []int32) {
	var before time.Time
	if p.config.Keep > 0 {
		before = now.Add(-p.config.Keep)
	}
	for _, partition := range partitions {
		done, err := p.table.DoomObjects(partition, before, p.holds)
		if err != nil {
			p.log.Error("looking for images to delete", "partition", partition, "err", err)
		}
		if done.Orphans > 0 {
			p.log.Info("images without a record are deleted", "partition", partition, "images", done.Orphans)
		}
	}
}

// clean deletes what is to be deleted. What the bucket refuses is tried again
// at the next look.
func (p *pictures) clean(ctx context.Context, partitions []int32) {
	left := 0
	for _, partition := range partitions {
		objects, err := p.table.DoomedObjects(partition, sweepChunk)
		if err != nil {
			p.log.Error("looking for images to delete", "partition", partition, "err", err)
			continue
		}
		refused := 0
		for i, o := range objects {
			if err := p.delete(ctx, partition, o); err == nil {
				refused = 0
				continue
			}
			left++
			if refused++; refused == refusalsInARow || ctx.Err() != nil {
				left += len(objects) - i - 1
				break
			}
		}
	}
	p.mu.Lock()
	p.doomed = left
	p.mu.Unlock()
}

func (p *pictures) delete(ctx context.Context, partition int32, o table.Object) error {
	name := &p.names[int(o[0])%len(p.names)]
	name.Lock()
	defer name.Unlock()
	if doomed, err := p.table.IsDoomed(partition, o); err != nil || !doomed {
		return err // it was written again
	}
	timed, cancel := context.WithTimeout(ctx, deleteTimeout)
	defer cancel()
	err := p.store.Delete(timed, images.Sum(o))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	p.told(err)
	if err != nil {
		return err
	}
	p.recent.Drop(images.Sum(o))
	p.deleted.Inc()
	return p.table.ObjectDeleted(partition, o)
}

// Image implements [web.Images]: a recent picture that travelled in its
// record, or one of the bucket.
func (p *pictures) Image(ctx context.Context, sha256 string) (data []byte, mediaType string, ok bool, err error) {
	sum, valid := images.ParseSum(sha256)
	if !valid {
		return nil, "", false, nil
	}
	if f, ok := p.recent.Get(sum); ok {
		return f.Data, f.MediaType, true, nil
	}
	timed, cancel := context.WithTimeout(ctx, deleteTimeout)
	defer cancel()
	data, mediaType, err = p.store.Get(timed, sum)
	switch {
	case errors.Is(err, images.ErrNotFound):
		return nil, "", false, nil
	case err != nil && ctx.Err() != nil:
		return nil, "", false, ctx.Err()
	case err != nil:
		p.failed.Inc()
		return nil, "", false, &web.Error{Code: web.CodeBucket, Message: err.Error()}
	}
	return data, mediaType, true, nil
}

// published keeps a picture that was published in its record for the door.
func (p *pictures) published(user string, img *schemas.Image) {
	if img == nil || len(img.Data) == 0 {
		return
	}
	if sum, ok := images.ParseSum(img.SHA256); ok {
		p.recent.Add(user, images.File{MediaType: img.MediaType, Sum: sum, Data: img.Data})
	}
}

// forget lets go of recent pictures of those who are forgotten.
func (p *pictures) forget(folded []table.Record) {
	for i := range folded {
		if folded[i].Forget {
			p.recent.Forget(string(folded[i].Key))
		}
	}
}

func (p *pictures) status() web.Images {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := web.Images{ToDelete: p.doomed}
	if p.refused != nil {
		s.BucketError, s.BucketErrorSince = p.refused.Error(), p.since
	}
	return s
}
