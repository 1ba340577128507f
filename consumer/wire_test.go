package consumer

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/segmentio/kafka-go/protocol"
)

// fate is what becomes of a request.
type fate int

const (
	passes     fate = iota
	lost            // the connection breaks before the broker has it
	unanswered      // the broker does it, the connection breaks before its answer comes
	late            // the connection breaks, and what lay in it reaches the broker after release
)

// wire stands between a client and its broker and does to single requests what networks do.
type wire struct {
	target   string
	listener net.Listener
	running  sync.WaitGroup
	release  chan struct{} // closed to let late requests go on
	arrived  chan []byte   // answers to late requests

	mu    sync.Mutex
	judge func(key protocol.ApiKey) fate // guarded by mu; nil lets all pass
	rules []*rule                        // guarded by mu; the first that is met decides, before judge
	conns map[net.Conn]bool              // guarded by mu
}

// rule is the fate of the n-th request of a kind, from 1.
type rule struct {
	key     protocol.ApiKey
	n, seen int
	fate    fate
}

// between leads all that a client will send through a wire.
func between(t *testing.T, c *Client, target string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{target: target, listener: l, conns: map[net.Conn]bool{}, release: make(chan struct{}), arrived: make(chan []byte, 100)}
	c.transport.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return c.dial(ctx, network, l.Addr().String())
	}
	w.running.Go(w.accept)
	t.Cleanup(w.close)
	return w
}

func (w *wire) close() {
	_ = w.listener.Close()
	w.mu.Lock()
	for c := range w.conns {
		_ = c.Close()
	}
	w.conns = nil
	w.mu.Unlock()
	w.running.Wait()
}

// each sets the judge of requests to come.
func (w *wire) each(judge func(key protocol.ApiKey) fate) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.judge = judge
}

// nth lets the n-th request of a kind to come, from 1, meet a fate, once.
func (w *wire) nth(key protocol.ApiKey, n int, f fate) (met func() bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := &rule{key: key, n: n, fate: f}
	w.rules = append(w.rules, r)
	return func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return r.seen >= r.n
	}
}

func (w *wire) fate(key protocol.ApiKey) (f fate) {
	w.mu.Lock()
	for _, r := range w.rules {
		if r.key != key {
			continue
		}
		if r.seen++; r.seen == r.n && f == passes {
			f = r.fate
		}
	}
	judge := w.judge
	w.mu.Unlock()
	if f == passes && judge != nil {
		f = judge(key)
	}
	return f
}

// keep notes a connection; false after close.
func (w *wire) keep(c net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conns == nil {
		_ = c.Close()
		return false
	}
	w.conns[c] = true
	return true
}

func (w *wire) accept() {
	for {
		client, err := w.listener.Accept()
		if err != nil {
			return
		}
		if w.keep(client) {
			w.running.Go(func() { w.carry(client) })
		}
	}
}

// carry takes one request after the other to the broker and back.
func (w *wire) carry(client net.Conn) {
	defer client.Close()
	broker, err := net.Dial("tcp", w.target)
	if err != nil || !w.keep(broker) {
		return
	}
	defer broker.Close()
	ask := func(request []byte) ([]byte, error) {
		if _, err := broker.Write(request); err != nil {
			return nil, err
		}
		return frame(broker)
	}
	for {
		request, err := frame(client)
		if err != nil {
			return
		}
		switch f := w.fate(protocol.ApiKey(binary.BigEndian.Uint16(request[4:]))); f {
		case lost:
			return
		case late:
			_ = client.Close()
			<-w.release
			if answer, err := ask(request); err == nil {
				w.arrived <- answer
			}
			return
		default:
			answer, err := ask(request)
			if err != nil || f == unanswered {
				return
			}
			if _, err := client.Write(answer); err != nil {
				return
			}
		}
	}
}

// frame reads a request or an answer with its length.
func frame(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, 4+binary.BigEndian.Uint32(size[:]))
	copy(b, size[:])
	_, err := io.ReadFull(r, b[4:])
	return b, err
}
