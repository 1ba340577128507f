package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"rebeca/internal/kafka"
	"rebeca/internal/process"
)

// settings are the sizes of a run and the rules of its services.
type settings struct {
	partitions int
	dim        int
	items      int // catalogue, at first
	users      int
	rules      rules
	maxAge     time.Duration
	perEvent   int
}

// defaults are small, so that windows, rings and reservoirs overflow all the time.
func defaults() settings {
	return settings{
		partitions: 3, dim: 8, items: 300, users: 120,
		rules:  rules{newest: 12, liked: 6, dedupe: 16, requests: 128},
		maxAge: 24 * time.Hour, perEvent: 2,
	}
}

// Limits of what may take long on a busy machine.
const (
	startLimit = 30 * time.Second
	verbLimit  = time.Minute
)

// server is a process that can be killed: the embedded broker, Apache Kafka, a service.
type server interface {
	Done() <-chan struct{}
	Kill()
	PID() int
	Tail(lines int) string
}

// tree is a broker behind a proxy and two services over it, of which one may have nothing to do, all in processes of their own that can be
// killed at any moment.
type tree struct {
	dir, binary string
	settings    settings
	proxy       *proxy // what the services speak to
	address     string // of the broker itself
	apache      bool   // the broker is Apache Kafka
	broker      server // nil before its first start
	nodes       [2]*node
}

// newTree starts a broker, Apache Kafka or the embedded one, and configures a service over it that owns all partitions.
func newTree(ctx context.Context, dir, binary string, apache bool, s settings) (t *tree, err error) {
	t = &tree{dir: dir, binary: binary, apache: apache, settings: s}
	if t.address, err = process.FreeAddress(); err != nil {
		return nil, err
	}
	if t.proxy, err = newProxy(); err != nil {
		return nil, err
	}
	for i, name := range []string{"a", "b"} {
		if t.nodes[i], err = newNode(t, name); err != nil {
			return t, err
		}
	}
	for p := range s.partitions {
		t.nodes[0].owns = append(t.nodes[0].owns, int32(p))
	}
	if err := t.startBroker(ctx); err != nil {
		return t, err
	}
	t.proxy.serve(t.address)
	return t, t.configure()
}

// divided reports whether both services own partitions.
func (t *tree) divided() bool { return len(t.nodes[0].owns) < t.settings.partitions }

// configure writes the files of both services as they divide the partitions now. What runs has read its own before.
func (t *tree) configure() error {
	return errors.Join(t.nodes[0].configure(), t.nodes[1].configure())
}

// working returns the services that own partitions.
func (t *tree) working() (out []*node) {
	for _, n := range t.nodes {
		if len(n.owns) > 0 {
			out = append(out, n)
		}
	}
	return out
}

// other returns the other service.
func (t *tree) other(n *node) *node {
	if n == t.nodes[0] {
		return t.nodes[1]
	}
	return t.nodes[0]
}

// inspect returns what the services hold of what is theirs.
func (t *tree) inspect(ctx context.Context) (all state, err error) {
	for _, n := range t.working() {
		if err := n.inspect(ctx, &all); err != nil {
			return all, err
		}
		all.services++
	}
	return all, nil
}

func (t *tree) log(name string) string { return filepath.Join(t.dir, name+".log") }

// verb runs a verb of the binary to its end and returns what it printed.
func (t *tree) verb(ctx context.Context, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, verbLimit)
	defer cancel()
	var out, said bytes.Buffer
	cmd := exec.CommandContext(ctx, t.binary, args...)
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("rebeca %v: %w\n%s", args, err, said.String())
	}
	return out.Bytes(), nil
}

func running(p server) bool {
	select {
	case <-p.Done():
		return false
	default:
		return true
	}
}

func (t *tree) brokerUp() bool { return t.broker != nil && running(t.broker) }

// disturb notes that the services cannot be blamed for not finding the broker.
func (t *tree) disturb() {
	for _, n := range t.nodes {
		n.undisturbed = false
	}
}

// startBroker starts the broker on its data, if it does not run, and waits until it serves.
func (t *tree) startBroker(ctx context.Context) error {
	if t.brokerUp() {
		return nil
	}
	dir := filepath.Join(t.dir, "broker")
	if t.apache {
		return t.startApache(dir)
	}
	p, err := process.Start(t.log("broker"), t.binary, "broker", "--listen", t.address, "--advertise", t.proxy.address(), "--data", dir)
	if err != nil {
		return err
	}
	t.broker = p
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	return process.Until(ctx, "the broker listens", func() (bool, error) {
		if !running(p) {
			return false, fmt.Errorf("it ended; it said:\n%s", p.Tail(20))
		}
		c, err := net.DialTimeout("tcp", t.address, time.Second)
		if err != nil {
			return false, nil
		}
		return true, c.Close()
	})
}

func (t *tree) startApache(dir string) error {
	if b, ok := t.broker.(*kafka.Broker); ok {
		return b.Restart()
	}
	b, err := kafka.StartBehind(dir, t.proxy.address())
	if err != nil {
		return err
	}
	t.broker, t.address = b, b.Address
	return nil
}

// pause stops a process and lets it go on later, as a machine that swaps would.
func pause(p server, d time.Duration) {
	_ = syscall.Kill(-p.PID(), syscall.SIGSTOP)
	time.Sleep(d)
	_ = syscall.Kill(-p.PID(), syscall.SIGCONT)
}

// stop kills what still runs.
func (t *tree) stop() error {
	for _, n := range t.nodes {
		if n != nil {
			n.stop()
		}
	}
	if t.broker != nil {
		end(t.broker)
	}
	return t.proxy.close()
}

// end kills a process that may be stopped.
func end(p server) {
	_ = syscall.Kill(-p.PID(), syscall.SIGCONT)
	p.Kill()
}

// ranges writes partitions as the configuration and the verbs read them.
func ranges(partitions []int32) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(partitions), " ", ","), "[]")
}
