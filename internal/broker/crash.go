package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A broker that was killed leaves transactions open in its log. kfake takes them for aborted when it starts, and writes no marker: the
// next commit of the same producer then covers them too as soon as the log is read anew, after the next kill. So we look for them before
// kfake opens the log, and have it write their markers before it serves anybody else.

// cleanFile is what kfake leaves in the data directory when it is closed, with the transactions that go on, and removes when it opens.
const cleanFile = "session_state.json"

// open is a transaction without a marker.
type open struct {
	topic     string
	partition int32
	producer  int64
	epoch     int16
}

// openTransactions returns what a killed broker left open in its data directory; nothing when it was closed in order.
func openTransactions(dir string) ([]open, error) {
	if _, err := os.Stat(filepath.Join(dir, cleanFile)); err == nil {
		return nil, nil
	}
	partitions, err := os.ReadDir(filepath.Join(dir, "partitions"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking for open transactions: %w", err)
	}
	var out []open
	for _, p := range partitions {
		at := strings.LastIndexByte(p.Name(), '-')
		topic, err := url.PathUnescape(p.Name()[:max(0, at)])
		id, err2 := strconv.ParseInt(p.Name()[at+1:], 10, 32)
		if at < 0 || err != nil || err2 != nil {
			continue // none of kfake's
		}
		found, err := openIn(filepath.Join(dir, "partitions", p.Name()))
		if err != nil {
			return nil, fmt.Errorf("looking for open transactions of %s[%d]: %w", topic, id, err)
		}
		for producer, epoch := range found {
			out = append(out, open{topic, int32(id), producer, epoch})
		}
	}
	return out, nil
}

// openIn reads the segments of a partition in order and returns the epochs of the producers whose last transaction has no marker.
func openIn(dir string) (map[int64]int16, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.dat"))
	if err != nil {
		return nil, err
	}
	base := func(path string) int64 {
		n, _ := strconv.ParseInt(strings.TrimSuffix(filepath.Base(path), ".dat"), 10, 64) // others are first, and empty
		return n
	}
	slices.SortFunc(files, func(a, b string) int { return int(base(a) - base(b)) })
	found := map[int64]int16{}
	for _, path := range files {
		if err := scanSegment(path, found); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// Places within the header of a record batch, version 2.
const (
	batchLength     = 8
	batchAttributes = 21
	batchProducer   = 43
	batchEpoch      = 51
	batchHeader     = 61
	lengthEnd       = 12 // length counts what follows it

	transactional = 0x10
	control       = 0x20
)

// scanSegment enters the transactions that a segment leaves open in found and removes those that it ends. What a kill cut off at its
// end is passed over, as kfake does.
func scanSegment(path string, found map[int64]int16) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	head := make([]byte, batchHeader)
	for at := int64(0); at+batchHeader <= info.Size(); {
		if _, err := f.ReadAt(head, at); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		size := lengthEnd + int64(binary.BigEndian.Uint32(head[batchLength:]))
		if at += size; size < batchHeader || at > info.Size() {
			return nil
		}
		producer := int64(binary.BigEndian.Uint64(head[batchProducer:]))
		switch attributes := binary.BigEndian.Uint16(head[batchAttributes:]); {
		case attributes&control != 0:
			delete(found, producer)
		case attributes&transactional != 0:
			found[producer] = int16(binary.BigEndian.Uint16(head[batchEpoch:]))
		}
	}
	return nil
}

// markAborted has the broker write the markers, over a connection that its listener takes before all others.
func (b *Broker) markAborted(transactions []open, g *gate) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.addr), kgo.Dialer(g.dial))
	if err != nil {
		return err
	}
	defer cl.Close()
	request := kmsg.NewPtrWriteTxnMarkersRequest()
	for _, o := range transactions {
		m := kmsg.NewWriteTxnMarkersRequestMarker()
		m.ProducerID, m.ProducerEpoch = o.producer, o.epoch
		t := kmsg.NewWriteTxnMarkersRequestMarkerTopic()
		t.Topic, t.Partitions = o.topic, []int32{o.partition}
		m.Topics = append(m.Topics, t)
		request.Markers = append(request.Markers, m)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	response, err := request.RequestWith(ctx, cl)
	if err != nil {
		return err
	}
	for _, m := range response.Markers {
		for _, t := range m.Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					return fmt.Errorf("%s[%d]: %w", t.Topic, p.Partition, err)
				}
			}
		}
	}
	return nil
}

// gate is a listener that takes only our own connections until it is opened; others wait in the system's queue.
type gate struct {
	net.Listener
	advertised net.Addr      // what the broker calls itself
	own        chan net.Conn // without capacity: a connection is handed over or not made
	opened     chan struct{}
	closed     chan struct{}
	open       func()
	close      func()
}

// newGate makes a gate; advertise is empty for the listener's own address.
func newGate(l net.Listener, advertise string) *gate {
	g := &gate{Listener: l, advertised: l.Addr(), own: make(chan net.Conn), opened: make(chan struct{}), closed: make(chan struct{})}
	g.open = sync.OnceFunc(func() { close(g.opened) })
	g.close = sync.OnceFunc(func() { close(g.closed) })
	if advertise != "" {
		g.advertised = named(advertise)
	}
	return g
}

// named is an address that nobody has looked up.
type named string

func (named) Network() string  { return "tcp" }
func (n named) String() string { return string(n) }

// Addr implements [net.Listener]: the broker tells it its clients.
func (g *gate) Addr() net.Addr { return g.advertised }

// Accept implements [net.Listener].
func (g *gate) Accept() (net.Conn, error) {
	select {
	case c := <-g.own:
		return c, nil
	case <-g.opened:
		return g.Listener.Accept()
	case <-g.closed:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener].
func (g *gate) Close() error {
	g.close()
	return g.Listener.Close()
}

// dial makes a connection within the process.
func (g *gate) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case g.own <- theirs:
		return ours, nil
	case <-g.closed:
	case <-ctx.Done():
	}
	return nil, errors.Join(net.ErrClosed, ours.Close(), theirs.Close())
}
