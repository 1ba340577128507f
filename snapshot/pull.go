package snapshot

import (
	"context"
	"errors"
	"io"
)

var errStopped = errors.New("reader stopped")

const (
	// pullChunk is about how many bytes of keys and values are handed over at once; a larger pair goes alone.
	pullChunk = 1 << 20
	// pullAhead is how many chunks are read and hashed before the loader wants them.
	pullAhead = 2
)

// chunk is pairs one behind the other in memory of their own.
type chunk struct {
	bytes []byte
	pairs []int // lengths: key, value, key, value...
}

func (c *chunk) add(key, value []byte) {
	c.bytes = append(append(c.bytes, key...), value...)
	c.pairs = append(c.pairs, len(key), len(value))
}

// pullKeys turns eachKey inside out: it reads and hashes on a goroutine of its own, at most pullAhead chunks ahead of the caller. next reports
// the error of the reading, checks at its end included, before io.EOF, so that a loader which trusts next cannot take a state that does
// not match the manifest for a whole one. stop ends the goroutine and waits for it.
func pullKeys(ctx context.Context, path string, m Manifest) (next func() (key, value []byte, err error), stop func()) {
	p := &puller{ctx: ctx, full: make(chan *chunk, pullAhead), empty: make(chan *chunk, pullAhead+2), ended: make(chan struct{}), end: make(chan struct{})}
	go func() {
		defer close(p.ended)
		defer close(p.full)
		p.failed = p.push(func(fn func(key, value []byte) error) error { return eachKey(ctx, path, m, fn) })
	}()
	return p.next, func() {
		close(p.end)
		<-p.ended
	}
}

// puller hands chunks over and takes their memory back.
type puller struct {
	ctx         context.Context
	full, empty chan *chunk
	end         chan struct{} // closed: nobody wants more
	ended       chan struct{} // closed: failed is set and nothing is read any more
	failed      error

	now        *chunk // that of the caller
	pair, byte int    // places in it
}

// push reads all pairs into chunks.
func (p *puller) push(each func(fn func(key, value []byte) error) error) error {
	c := &chunk{}
	err := each(func(key, value []byte) error {
		if c.add(key, value); len(c.bytes) < pullChunk {
			return nil
		}
		var err error
		c, err = p.send(c)
		return err
	})
	if err == nil && len(c.pairs) > 0 {
		_, err = p.send(c)
	}
	return err
}

// send hands a chunk over and returns the next to fill.
func (p *puller) send(c *chunk) (*chunk, error) {
	select {
	case p.full <- c:
	case <-p.end:
		return nil, errStopped
	}
	select {
	case c = <-p.empty:
		c.bytes, c.pairs = c.bytes[:0], c.pairs[:0]
	default:
		c = &chunk{}
	}
	return c, nil
}

func (p *puller) next() (key, value []byte, err error) {
	for p.now == nil || p.pair == len(p.now.pairs) {
		if p.now != nil && cap(p.now.bytes) <= 2*pullChunk {
			p.empty <- p.now // there is room for all that are about
		}
		switch p.now = <-p.full; {
		case p.now == nil && p.failed != nil:
			return nil, nil, p.failed
		case p.ctx.Err() != nil:
			return nil, nil, p.ctx.Err()
		case p.now == nil:
			return nil, nil, io.EOF
		}
		p.pair, p.byte = 0, 0
	}
	c, at := p.now, p.byte
	k, v := c.pairs[p.pair], c.pairs[p.pair+1]
	p.pair, p.byte = p.pair+2, at+k+v
	return c.bytes[at : at+k : at+k], c.bytes[at+k : at+k+v : at+k+v], nil
}
