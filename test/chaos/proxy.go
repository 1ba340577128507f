package main

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// proxy stands between the services and the broker, which tells its clients to come here. It is our own and not toxiproxy: all that is
// needed is to delay, to hold and to cut, at a moment of our choosing and in one direction; toxiproxy would bring a router, a logger and
// a command-line library into the module for that, and could not let go of held bytes after the death of who sent them.
type proxy struct {
	listener net.Listener
	target   string
	pumps    sync.WaitGroup

	mu      sync.Mutex
	conns   map[net.Conn]bool // guarded by mu; both ends of all connections
	delay   time.Duration     // guarded by mu; of whatever passes
	held    [2]bool           // guarded by mu; by direction: nothing passes, nothing is lost
	changed chan struct{}     // guarded by mu; closed and replaced at each change
	closed  bool              // guarded by mu
}

// direction of bytes.
type direction int

// Directions.
const (
	toBroker direction = iota
	toService
)

// newProxy listens; serve starts it, once the broker's address is known.
func newProxy() (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &proxy{listener: l, conns: map[net.Conn]bool{}, changed: make(chan struct{})}, nil
}

func (p *proxy) address() string { return p.listener.Addr().String() }

func (p *proxy) serve(target string) {
	p.target = target
	p.pumps.Go(func() {
		for {
			c, err := p.listener.Accept()
			if err != nil {
				return
			}
			p.pumps.Go(func() { p.join(c) })
		}
	})
}

// join connects a service with the broker until either ends.
func (p *proxy) join(service net.Conn) {
	broker, err := net.DialTimeout("tcp", p.target, time.Second)
	if err != nil {
		_ = service.Close()
		return
	}
	if !p.enter(service, broker) {
		return
	}
	defer p.leave(service, broker)
	var both sync.WaitGroup
	both.Go(func() { p.pump(broker, service, toBroker) })
	both.Go(func() { p.pump(service, broker, toService) })
	both.Wait()
}

// pump passes bytes on. What it holds when the sender dies still arrives, as bytes do that lie in a network.
func (p *proxy) pump(to, from net.Conn, d direction) {
	defer to.Close() // ends the other direction too
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		if n > 0 {
			p.pass(d)
			if _, err := to.Write(b[:n]); err != nil {
				_ = from.Close()
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// pass returns when bytes may go on.
func (p *proxy) pass(d direction) {
	for {
		p.mu.Lock()
		held, delay, changed := p.held[d] && !p.closed, p.delay, p.changed
		p.mu.Unlock()
		if !held {
			if delay > 0 {
				time.Sleep(delay)
			}
			return
		}
		<-changed
	}
}

func (p *proxy) enter(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		if p.closed {
			_ = c.Close()
			continue
		}
		p.conns[c] = true
	}
	return !p.closed
}

func (p *proxy) leave(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
		delete(p.conns, c)
	}
}

// change changes what happens to bytes, those that are held included.
func (p *proxy) change(how func(*proxy)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	how(p)
	close(p.changed)
	p.changed = make(chan struct{})
}

// hold stops one direction; calm lets go.
func (p *proxy) hold(d direction) { p.change(func(p *proxy) { p.held[d] = true }) }

// slow delays both directions.
func (p *proxy) slow(d time.Duration) { p.change(func(p *proxy) { p.delay = d }) }

// calm lets everything pass at once.
func (p *proxy) calm() { p.change(func(p *proxy) { p.held, p.delay = [2]bool{}, 0 }) }

// still reports whether everything passes at once.
func (p *proxy) still() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.delay == 0 && p.held == [2]bool{}
}

// cut ends all connections; what is under way is lost.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

// close ends the proxy and waits for all that it started.
func (p *proxy) close() error {
	p.change(func(p *proxy) { p.closed = true })
	err := p.listener.Close()
	p.cut()
	p.pumps.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// direct has a client of the harness come to the broker itself, whatever address the broker tells.
func direct(broker string) kgo.Opt {
	return kgo.Dialer(func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, broker)
	})
}
