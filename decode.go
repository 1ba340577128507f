package rebeca

import (
	"context"
	"errors"
	"fmt"
	"image"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rebeca/images"
	"rebeca/schemas"
)

// decoder is what makes pictures of embeddings, see [sampler.Decoder.Decode].
type decoder interface {
	Decode(ctx context.Context, embeddings [][]float32, seeds []uint64, progress func(done, total int)) ([]image.Image, error)
	// Batch is how many pictures a run of it makes.
	Batch() int
}

// decodePool makes pictures beside the generator, which goes on sampling
// meanwhile: a slow decoder holds back neither the vectors of users nor records
// without pictures, and fold and training have goroutines of their own. What
// waits here is bounded; the generator leaves intents in the table while there
// is no room.
//
// A picture that fails is tried again, alone and later. One that fails as often
// as the configuration allows is given up: its record says why there is none.
type decodePool struct {
	config   ImagesConfig
	decoder  decoder
	pictures *pictures
	log      *slog.Logger
	// finish takes what is made, pictures or none. Its error ends the pool.
	finish func(made []*sampled) error

	seconds prometheus.Histogram
	retries prometheus.Counter
	missing *prometheus.CounterVec

	mu      sync.Mutex
	waiting []*sampled    // guarded by mu; in the order in which they were sampled
	load    int           // guarded by mu; pictures that wait or are being made
	changed chan struct{} // guarded by mu; closed and replaced when waiting grows
}

// sampled is a chunk whose embeddings are there.
type sampled struct {
	chunk
	subject subject
	records []schemas.Generated // the chunk's
	wanted  int                 // pictures, done or not
	todo    []picture           // those that are not there yet
	again   bool                // one of them has failed
	due     time.Time           // when they are tried again; zero: at once
}

// picture is one that is being made.
type picture struct {
	at       int          // of its record
	file     *images.File // once it is decoded
	attempts int          // that failed, to decode it or, once that is done, to keep it
	err      error        // of the last
}

func newDecodePool(c ImagesConfig, d decoder, p *pictures, reg prometheus.Registerer, log *slog.Logger) *decodePool {
	pool := &decodePool{
		config: c, decoder: d, pictures: p, log: log, changed: make(chan struct{}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "rebeca_decode_seconds", Help: "One run of the decoder, whatever its batch.", Buckets: prometheus.ExponentialBuckets(.002, 2, 18),
		}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rebeca_decode_retries_total", Help: "Pictures whose decoding or writing failed and was tried again.",
		}),
		missing: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rebeca_images_missing_total", Help: "Records published without the picture that was wanted, by reason.",
		}, []string{"reason"}),
	}
	for _, reason := range []string{schemas.NoImageDecode, schemas.NoImageStore, schemas.NoImageWithheld} {
		pool.missing.WithLabelValues(reason) // so that a rate exists before the first
	}
	reg.MustRegister(pool.seconds, pool.retries, pool.missing, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "rebeca_decode_queue", Help: "Pictures that wait to be decoded or are being decoded.",
	}, func() float64 { return float64(pool.depth()) }))
	return pool
}

func (d *decodePool) depth() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.load
}

// room is how many pictures the pool takes now.
func (d *decodePool) room() int { return d.config.Queue - d.depth() }

// put takes what was sampled.
func (d *decodePool) put(s *sampled) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.load += s.wanted
	d.enter(s)
}

// enter makes s wait; d.mu is held.
func (d *decodePool) enter(s *sampled) {
	d.waiting = append(d.waiting, s)
	close(d.changed)
	d.changed = make(chan struct{})
}

// drop gives back what waits of a partition.
func (d *decodePool) drop(partition int32) (dropped []*sampled) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting = slices.DeleteFunc(d.waiting, func(s *sampled) bool {
		if s.Partition != partition {
			return false
		}
		d.load -= s.wanted
		dropped = append(dropped, s)
		return true
	})
	return dropped
}

// work decodes until ctx ends; what waits then is left to the table.
func (d *decodePool) work(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		batch, wait, changed := d.next(time.Now())
		if len(batch) > 0 {
			if err := d.make(ctx, batch); err != nil {
				return err
			}
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-timer.C:
		}
	}
	return nil
}

// next takes what one run of the decoder makes; one that has failed comes
// alone. wait is how long none is due, and changed tells of new ones.
func (d *decodePool) next(now time.Time) (batch []*sampled, wait time.Duration, changed <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	wait, changed = time.Hour, d.changed
	n, alone := 0, false
	rest := d.waiting[:0]
	for _, s := range d.waiting {
		switch left := s.due.Sub(now); {
		case left > 0:
			wait = min(wait, left)
			rest = append(rest, s)
		case alone, n > 0 && (s.again || n+len(s.todo) > d.decoder.Batch()):
			rest = append(rest, s)
		default:
			batch, n, alone = append(batch, s), n+len(s.todo), s.again
		}
	}
	clear(d.waiting[len(rest):])
	d.waiting = rest
	return batch, wait, changed
}

// make decodes a batch and keeps its pictures. What fails waits for its next
// attempt, and its chunk with it; the other chunks are finished.
func (d *decodePool) make(ctx context.Context, batch []*sampled) error {
	d.decode(ctx, batch)
	for _, s := range batch {
		d.keep(ctx, s)
	}
	if ctx.Err() != nil { // the intents wait in the table
		for _, s := range batch {
			d.leave(s)
		}
		return nil
	}
	var made []*sampled
	for _, s := range batch {
		if d.settle(s) {
			made = append(made, s)
		}
	}
	if len(made) == 0 {
		return nil
	}
	return d.finish(made)
}

// decode makes files of a batch's embeddings. When that fails each is decoded
// by itself, so that one does not cost the others their pictures.
func (d *decodePool) decode(ctx context.Context, batch []*sampled) {
	var of []*sampled
	var todo []*picture
	for _, s := range batch {
		for i := range s.todo {
			if s.todo[i].file == nil {
				of, todo = append(of, s), append(todo, &s.todo[i])
			}
		}
	}
	if d.run(ctx, of, todo) || len(todo) < 2 {
		return
	}
	for i := range todo {
		if ctx.Err() != nil {
			return
		}
		d.run(ctx, of[i:i+1], todo[i:i+1])
	}
}

// run decodes pictures together, the k-th of which is of[k]'s.
func (d *decodePool) run(ctx context.Context, of []*sampled, todo []*picture) bool {
	if len(todo) == 0 {
		return true
	}
	embeddings, seeds := make([][]float32, len(todo)), make([]uint64, len(todo))
	for i, p := range todo {
		r := &of[i].records[p.at]
		embeddings[i], seeds[i] = r.Embedding, r.Seed
	}
	start := time.Now()
	decoded, err := d.decoder.Decode(ctx, embeddings, seeds, nil)
	d.seconds.Observe(time.Since(start).Seconds())
	for i, p := range todo {
		if p.err = err; err != nil {
			continue
		}
		p.attempts = 0
		r := &of[i].records[p.at]
		if decoded[i] == nil {
			p.file = &images.File{}
			d.miss(r, schemas.NoImageWithheld, errors.New("the decoder's safety checker withheld the picture"))
			continue
		}
		var f images.File
		if f, p.err = d.pictures.format.Encode(decoded[i], r.ID); p.err == nil {
			p.file = &f
		}
	}
	return err == nil
}

// keep puts what is decoded of s where it belongs.
func (d *decodePool) keep(ctx context.Context, s *sampled) {
	for i := range s.todo {
		p := &s.todo[i]
		if r := &s.records[p.at]; p.file != nil && r.NoImage == nil && ctx.Err() == nil {
			p.err = d.pictures.keep(ctx, s.Partition, r, *p.file)
		}
	}
}

// settle takes what is made off the list of s and gives up what failed too
// often. It returns true when nothing is left to do; else s waits.
func (d *decodePool) settle(s *sampled) bool {
	var left []picture
	var why error
	most := 0
	for _, p := range s.todo {
		if p.err == nil {
			continue
		}
		p.attempts++
		switch {
		case p.attempts < d.config.Attempts:
			left, why, most = append(left, p), p.err, max(most, p.attempts)
		case p.file == nil:
			d.miss(&s.records[p.at], schemas.NoImageDecode, p.err)
		default:
			d.miss(&s.records[p.at], schemas.NoImageStore, p.err)
		}
	}
	if s.todo = left; len(left) == 0 {
		d.leave(s)
		return true
	}
	pause := d.config.pause(most)
	s.again, s.due = true, time.Now().Add(pause)
	d.log.Warn("making pictures failed; trying again", "err", why, "pictures", len(left), "attempt", most, "in", pause)
	d.retries.Add(float64(len(left)))
	d.mu.Lock()
	defer d.mu.Unlock()
	d.enter(s)
	return false
}

// miss lets a record go without the picture that was wanted.
func (d *decodePool) miss(r *schemas.Generated, reason string, why error) {
	d.log.Error("an image is published without its picture", "id", r.ID, "reason", reason, "err", why)
	d.missing.WithLabelValues(reason).Inc()
	r.NoImage = &schemas.NoImage{Reason: reason, Message: fmt.Sprintf("%.500s", why)}
}

// leave counts s as gone.
func (d *decodePool) leave(s *sampled) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.load -= s.wanted
}
