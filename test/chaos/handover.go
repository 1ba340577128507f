package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// handOver gives a partition of one service to the other while both serve: by a snapshot of it, by taking it with what the other state has
// of it, which may be old or nothing, or by giving it up in order. The former owner goes on for a while as if nothing were.
func (c *chaos) handOver(ctx context.Context) error {
	from := c.pick()
	if second := c.tree.nodes[1]; len(second.owns) > 0 && c.chance(50) {
		from = second // else one service would seldom own all, and snapshots of all are gone back to by that one
	}
	to := c.tree.other(from)
	p := from.owns[c.rng.IntN(len(from.owns))]
	c.calm()
	c.pending.Wait() // a snapshot of all may be under way
	how := c.rng.IntN(100)
	// A state that has had the partition does not take it unasked.
	if how >= 85 && (slices.Contains(to.had, p) || !from.ready || !from.up()) {
		how = 0
	}
	c.log("partition %d goes from %s to %s, way %d", p, from.name, to.name, how)
	var path string
	if how < 60 {
		if !from.ready {
			c.killService(from)
		}
		var err error
		if path, err = from.cut(ctx, p); err != nil { // killed, or not up yet
			c.log("not handed over: %v", err)
			return nil
		}
		defer os.RemoveAll(path)
		c.sleep(ctx, c.between(0, time.Second)) // what comes meanwhile is folded again
	}
	c.end(to)
	switch {
	case how < 60:
		if err := c.adopt(ctx, to, p, path); err != nil {
			return err
		}
	case how < 85:
		if err := to.take(ctx, []int32{p}); err != nil {
			return err
		}
	default:
		if err := c.terminate(from); err != nil {
			return err
		}
	}
	c.figures["handovers"]++
	from.owns = slices.DeleteFunc(slices.Clone(from.owns), func(q int32) bool { return q == p })
	to.owns = append(to.owns, p)
	slices.Sort(to.owns)
	to.brake = c.brake()
	if err := c.tree.configure(); err != nil {
		return err
	}
	if err := c.startNode(to); err != nil {
		return err
	}
	c.sleep(ctx, c.between(0, 2*time.Second)) // two owners
	c.end(from)
	return nil
}

// end ends a service that has to read its file anew, mostly by a kill.
func (c *chaos) end(n *node) {
	if n.up() && n.ready && c.chance(25) {
		_ = c.terminate(n) // what it ends with has been judged
		return
	}
	c.killService(n)
}

// cut writes a snapshot of one partition, through the running service or of its stopped state. One that is starting must not find its state
// in use.
func (n *node) cut(ctx context.Context, p int32) (path string, err error) {
	said, err := n.tree.verb(ctx, "snapshot", "create", "-c", n.config(), "--partitions", fmt.Sprint(p))
	if err != nil {
		return "", err
	}
	path, _, ok := strings.Cut(string(said), ": ")
	if !ok {
		return "", fmt.Errorf("a snapshot said %q", said)
	}
	return path, nil
}

// adopt puts a partition of a snapshot into a stopped service's state, now and then by halves first: a kill in the middle of it.
func (c *chaos) adopt(ctx context.Context, to *node, p int32, path string) error {
	args := []string{"snapshot", "restore", "-c", to.config(), "--partitions", fmt.Sprint(p), path}
	if c.chance(30) {
		limited, cancel := context.WithTimeout(ctx, c.between(5*time.Millisecond, 120*time.Millisecond))
		defer cancel()
		if exec.CommandContext(limited, c.tree.binary, args...).Run() != nil && limited.Err() != nil {
			c.log("killed while it restored")
			c.figures["kills_restore"]++
		}
	}
	_, err := c.tree.verb(ctx, args...)
	if err != nil && strings.Contains(err.Error(), "has had the partition since") {
		return nil // it was whole when it was killed
	}
	return err
}

// brake draws the rate of a service's next start: slow enough, now and then, that the topics are read back long before the fold has come
// to what they hold.
func (c *chaos) brake() int {
	if c.chance(50) {
		return 100 + c.rng.IntN(400)
	}
	return 0
}

// release starts services without a brake again: all are to come to rest.
func (c *chaos) release() error {
	var errs []error
	for _, n := range c.tree.working() {
		if n.braked && n.up() {
			c.killService(n)
		}
		if n.brake > 0 {
			errs = append(errs, n.setBrake(0))
		}
	}
	return errors.Join(errs...)
}
