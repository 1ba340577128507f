package main

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// echo answers every byte with itself.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	return l.Addr().String()
}

func TestProxy(t *testing.T) {
	p, err := newProxy()
	if err != nil {
		t.Fatal(err)
	}
	p.serve(echo(t))
	defer func() {
		if err := p.close(); err != nil {
			t.Error(err)
		}
	}()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", p.address())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := dial()
	defer c.Close()
	say := func(text string) {
		t.Helper()
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	hear := func(limit time.Duration) []byte {
		b := make([]byte, 16)
		_ = c.SetReadDeadline(time.Now().Add(limit))
		n, _ := c.Read(b)
		return b[:n]
	}
	const long = 10 * time.Second
	say("a")
	if got := hear(long); !bytes.Equal(got, []byte("a")) {
		t.Fatalf("heard %q", got)
	}
	for _, d := range []direction{toBroker, toService} {
		p.hold(d)
		say("held")
		if got := hear(50 * time.Millisecond); len(got) > 0 {
			t.Errorf("direction %d: heard %q through what holds", d, got)
		}
		p.calm()
		if got := hear(long); !bytes.Equal(got, []byte("held")) {
			t.Errorf("direction %d: heard %q when it was let go", d, got)
		}
	}
	p.slow(100 * time.Millisecond)
	said := time.Now()
	say("slow")
	if got := hear(long); !bytes.Equal(got, []byte("slow")) || time.Since(said) < 200*time.Millisecond {
		t.Errorf("heard %q after %v, not delayed both ways", got, time.Since(said))
	}
	p.calm()
	p.cut()
	_ = c.SetReadDeadline(time.Now().Add(long))
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlives the cut")
	}
	again := dial()
	defer again.Close()
	p.hold(toService) // and is closed so
	if _, err := again.Write([]byte("x")); err != nil {
		t.Error(err)
	}
}
