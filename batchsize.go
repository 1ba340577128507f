package rebeca

import "time"

const (
	// batchTime is what a batch may take to sample: what came just after it
	// began waits for it, and is sampled itself, within 100 ms.
	batchTime = 50 * time.Millisecond
	// leastBatch and mostBatch bound its images. Below the first the compiled
	// row shapes are not filled; beyond the second more together is no faster.
	leastBatch, mostBatch = chunkImages, 64
)

// batchSize is how many images are sampled together: as many as take no longer
// than batchTime on this machine, by this prior. What an image is does not
// depend on it.
type batchSize struct{ n int }

// images is the present bound.
func (b *batchSize) images() int {
	if b.n == 0 {
		return batchImages
	}
	return b.n
}

// took learns from a batch: one that took too long halves the bound, a full one
// that took less than half of the time doubles it.
func (b *batchSize) took(images int, d time.Duration) {
	switch n := b.images(); {
	case d > batchTime:
		b.n = max(n/2, leastBatch)
	case d < batchTime/2 && images >= n:
		b.n = min(n*2, mostBatch)
	}
}
