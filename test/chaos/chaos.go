package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"rebeca/internal/figures"
	"rebeca/internal/process"
)

// plan says how long and how hard.
type plan struct {
	seed     uint64
	kills    int           // ends the run; 0 for no bound
	duration time.Duration // ends the run; 0 for no bound
	perRound int           // kills between two comparisons
	rate     int           // records a second
	moves    int           // chance in percent, after a kill of the service, of going on from a snapshot
	dir      string
	binary   string
	apache   bool // the broker is Apache Kafka
	settings settings
	say      io.Writer
}

// restLimit bounds how long a service may take to come to rest.
const restLimit = 90 * time.Second

// chaos is a run: a tree of processes, a stream through it, and what must come of it.
type chaos struct {
	plan
	rng     *rand.Rand
	tree    *tree
	stream  *stream
	oracle  *oracle
	figures figures.Figures
	storm   atomic.Int64 // how often the network has changed
	events  *os.File     // what was done and when
	pending sync.WaitGroup
	faults  []fault
}

// run kills, compares, and returns the figures and the faults of the first round that had any. An error says that the run itself
// could not go on.
func run(ctx context.Context, p plan) (got figures.Figures, faults []fault, err error) {
	c := &chaos{plan: p, rng: rand.New(rand.NewPCG(p.seed, 2)), figures: figures.Figures{"runs": 1}}
	count(c.figures, nil)
	defer func() { err = errors.Join(err, c.close()) }()
	if err := c.open(ctx); err != nil {
		return c.figures, nil, err
	}
	started := time.Now()
	for len(c.faults) == 0 && ctx.Err() == nil && (p.kills == 0 || c.kills() < p.kills) && (p.duration == 0 || time.Since(started) < p.duration) {
		if err := c.oneRound(ctx); err != nil {
			return c.figures, c.faults, err
		}
	}
	count(c.figures, c.faults)
	c.figures["seconds"] = time.Since(started).Seconds()
	c.figures["events"], c.figures["records"] = float64(c.oracle.events), float64(c.oracle.records)
	c.figures["outputs"], c.figures["deadletters"] = float64(len(c.oracle.outputs)), float64(len(c.oracle.letters))
	return c.figures, c.faults, nil
}

func (c *chaos) kills() int {
	return int(c.figures["kills_service"] + c.figures["kills_broker"] + c.figures["kills_restore"])
}

func (c *chaos) open(ctx context.Context) (err error) {
	if c.events, err = os.Create(filepath.Join(c.dir, "chaos.log")); err != nil {
		return err
	}
	if c.tree, err = newTree(ctx, c.dir, c.binary, c.apache, c.settings); err != nil {
		return err
	}
	if _, err := c.tree.verb(ctx, "topics", "create", "-c", c.tree.nodes[0].config()); err != nil {
		return err
	}
	if c.stream, err = newStream(c.tree.address, c.settings, c.seed); err != nil {
		return err
	}
	c.oracle = newOracle(c.tree.address, c.settings)
	c.stream.catalogue()
	first := c.tree.nodes[0]
	if err := first.start(); err != nil {
		return err
	}
	// Requests are answered from the first start on.
	if err := first.awaitReady(ctx, startLimit); err != nil {
		return err
	}
	c.stream.asking = true
	return nil
}

func (c *chaos) close() (err error) {
	if c.tree != nil {
		err = c.tree.stop()
	}
	c.pending.Wait()
	if c.stream != nil {
		c.stream.close()
	}
	if c.events != nil {
		_ = c.events.Close() // a log for people
	}
	return err
}

func (c *chaos) log(format string, args ...any) {
	fmt.Fprintf(c.events, "%s %s\n", time.Now().UTC().Format("15:04:05.000"), fmt.Sprintf(format, args...))
}

// oneRound kills while the stream flows, then lets all come to rest and compares.
func (c *chaos) oneRound(ctx context.Context) error {
	flow, cease := context.WithCancel(ctx)
	var producer sync.WaitGroup
	producer.Go(func() { c.stream.produce(flow, c.rate) })
	var err error
	for n := 0; n < c.perRound && err == nil && len(c.faults) == 0 && ctx.Err() == nil; n++ {
		err = c.strike(ctx)
	}
	cease()
	c.calm()
	// The producer may wait for a broker to take its records.
	if up := c.up(ctx); err == nil {
		err = up
	}
	producer.Wait()
	c.pending.Wait()
	if err != nil || len(c.faults) > 0 {
		return err
	}
	return c.compare(ctx)
}

// up starts what does not run.
func (c *chaos) up(ctx context.Context) error {
	if err := c.tree.startBroker(ctx); err != nil {
		return err
	}
	for _, n := range c.tree.working() {
		if len(n.taking) > 0 {
			c.calm() // the verb waits for nobody
		}
		if err := n.claim(ctx); err != nil {
			return err
		}
		if err := c.startNode(n); err != nil {
			return err
		}
	}
	return nil
}

func (c *chaos) startNode(n *node) error {
	if n.service != nil && !n.up() && !n.ended {
		c.ended(n)
	}
	if !n.up() && n.braked && c.chance(50) {
		if err := n.setBrake(0); err != nil {
			return err
		}
	}
	return n.start()
}

// pick draws a service that has partitions.
func (c *chaos) pick() *node {
	all := c.tree.working()
	return all[c.rng.IntN(len(all))]
}

// between draws a duration.
func (c *chaos) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(c.rng.Int64N(int64(hi-lo)))
}

// chance is true in so many percent of the cases.
func (c *chaos) chance(percent int) bool { return c.rng.IntN(100) < percent }

// strike starts what does not run, waits for a moment of no meaning or of some, and kills.
func (c *chaos) strike(ctx context.Context) error {
	n := c.pick()
	if !c.tree.brokerUp() && len(n.taking) == 0 && c.chance(30) { // the service first: it finds nobody
		if err := c.startNode(n); err != nil {
			return err
		}
		c.sleep(ctx, c.between(0, time.Second))
	}
	if err := c.up(ctx); err != nil {
		return err
	}
	if c.chance(20) {
		c.weather()
	}
	if err := c.moment(ctx, n); err != nil || len(c.faults) > 0 {
		return err
	}
	if n.ready && !c.tree.divided() && c.chance(25) {
		c.snapshot(ctx, n)
		c.sleep(ctx, c.between(0, 300*time.Millisecond))
	}
	if c.chance(12) {
		c.pause(n)
	}
	switch x := c.rng.IntN(100); {
	case x < 40:
		c.killService(n)
	case x < 58:
		if err := c.aim(ctx, n); err != nil {
			return err
		}
	case x < 70:
		c.killBroker()
		c.sleep(ctx, c.between(0, 700*time.Millisecond))
	case x < 80:
		c.killService(n)
		c.killBroker()
	case x < 86:
		return c.terminate(n)
	default:
		// A division needs weights that somebody has announced.
		if c.figures["rounds"] > 0 {
			return c.handOver(ctx)
		}
		c.killService(n)
	}
	if first := c.tree.nodes[0]; !c.tree.divided() && !first.up() && first.taken() > 0 && c.chance(c.moves) {
		return c.move(ctx, first)
	}
	return nil
}

// moment waits: for some time after the start, or after the service was ready.
func (c *chaos) moment(ctx context.Context, n *node) error {
	switch {
	case n.braked: // it may not be ready for long
		c.sleep(ctx, c.between(20*time.Millisecond, 2*time.Second))
		return nil
	case c.chance(40):
		c.sleep(ctx, c.between(20*time.Millisecond, 500*time.Millisecond))
		return nil
	}
	err := n.awaitReady(ctx, restLimit)
	switch {
	case errors.Is(err, errEnded):
		c.ended(n)
		return nil
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		c.fault(stuck, "%v; it said:\n%s", err, n.service.Tail(4))
		return nil
	case err != nil:
		return err
	}
	c.sleep(ctx, c.between(50*time.Millisecond, 1500*time.Millisecond))
	return nil
}

func (c *chaos) sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func (c *chaos) fault(k kind, format string, args ...any) {
	c.faults = append(c.faults, fault{k, fmt.Sprintf(format, args...)})
}

// ended judges a service that has ended by itself.
func (c *chaos) ended(n *node) {
	c.log("service %s has ended by itself (ready before: %t, broker and network undisturbed: %t)", n.name, n.ready, n.undisturbed)
	c.figures["exits"]++
	n.ended = true
	if n.culpable() {
		c.fault(died, "service %s ended by itself (ready before: %t, broker and network undisturbed: %t); it said:\n%s",
			n.name, n.ready, n.undisturbed, n.service.Tail(3))
	}
}

func (c *chaos) killService(n *node) {
	if n.up() {
		c.log("kill service %s, %d, ready %t", n.name, n.service.PID(), n.ready)
		n.service.Kill()
		n.ended = true
		c.figures["kills_service"]++
	}
}

func (c *chaos) killBroker() {
	if c.tree.brokerUp() {
		c.log("kill broker %d", c.tree.broker.PID())
		c.disturb()
		c.tree.broker.Kill()
		c.figures["kills_broker"]++
	}
}

func (c *chaos) disturb() { c.tree.disturb() }

// terminate ends a service as an operator does.
func (c *chaos) terminate(n *node) error {
	if !n.up() {
		return nil
	}
	c.log("terminate service %s, %d, ready %t", n.name, n.service.PID(), n.ready)
	c.figures["stops"]++
	n.ended = true
	// One that has just begun may not listen to signals yet, or be waiting for a broker that is away.
	if err := n.service.Terminate(startLimit); err != nil && n.ready {
		c.fault(died, "service %s, terminated: %v; it said:\n%s", n.name, err, n.service.Tail(3))
	}
	return nil
}

func (c *chaos) pause(n *node) {
	p, name := server(n.service), "service "+n.name
	if c.chance(50) {
		p, name = c.tree.broker, "broker"
		c.disturb()
	}
	if !running(p) {
		return
	}
	d := c.between(50*time.Millisecond, time.Second)
	if c.chance(4) {
		d = c.between(5*time.Second, 12*time.Second) // beyond the time-outs
	}
	c.log("pause %s for %v", name, d)
	c.figures["pauses"]++
	pause(p, d)
}

// weather has the network between services and broker fail for a while, or cut all connections, while all else happens.
func (c *chaos) weather() {
	c.disturb()
	c.figures["network_faults"]++
	d := c.between(100*time.Millisecond, 3*time.Second)
	if c.chance(10) {
		d = c.between(6*time.Second, 14*time.Second) // beyond the time-outs
	}
	switch x := c.rng.IntN(100); {
	case x < 30:
		c.log("network: cut")
		c.tree.proxy.cut()
		return
	case x < 60:
		delay := c.between(5*time.Millisecond, 200*time.Millisecond)
		c.log("network: %v late for %v", delay, d)
		c.tree.proxy.slow(delay)
	case x < 85:
		way := direction(c.rng.IntN(2))
		c.log("network: holds direction %d for %v", way, d)
		c.tree.proxy.hold(way)
	default:
		c.log("network: a black hole for %v", d)
		c.tree.proxy.hold(toBroker)
		c.tree.proxy.hold(toService)
	}
	cut, storm := c.chance(30), c.storm.Add(1)
	c.pending.Go(func() {
		for until := time.Now().Add(d); time.Now().Before(until) && c.storm.Load() == storm; {
			time.Sleep(10 * time.Millisecond)
		}
		if c.storm.Load() == storm {
			if cut {
				c.tree.proxy.cut() // with what it holds
			}
			c.tree.proxy.calm()
		}
	})
}

// calm ends all weather.
func (c *chaos) calm() {
	c.storm.Add(1)
	c.tree.proxy.calm()
}

// snapshot begins a snapshot, which goes on while all else happens.
func (c *chaos) snapshot(ctx context.Context, n *node) {
	c.log("snapshot")
	c.pending.Go(func() {
		if err := n.snapshot(ctx); err != nil {
			c.log("no snapshot: %v", err) // killed meanwhile
		}
	})
}

// move goes back to a snapshot; nothing may come of it twice.
func (c *chaos) move(ctx context.Context, n *node) error {
	c.calm()
	c.pending.Wait()
	i := n.taken() - 1 - c.rng.IntN(n.taken())
	n.brake = c.brake()
	c.log("move to snapshot %d of %d, brake %d", i+1, n.taken(), n.brake)
	c.figures["moves"]++
	c.oracle.moved = true
	return n.move(ctx, i)
}

// compare waits for rest and holds everything against the log.
func (c *chaos) compare(ctx context.Context) error {
	if err := c.release(); err != nil {
		return err
	}
	if err := c.up(ctx); err != nil {
		return err
	}
	flushed, cancel := context.WithTimeout(ctx, restLimit)
	defer cancel()
	if err := c.stream.flush(flushed); err != nil {
		return err
	}
	err := c.rest(ctx)
	if err != nil || len(c.faults) > 0 {
		return err
	}
	o := c.oracle
	if err := o.readInputs(ctx); err != nil {
		return err
	}
	c.faults = append(c.faults, o.checkLog(c.stream.take())...)
	held, err := c.tree.inspect(ctx)
	if err != nil {
		return err
	}
	c.faults = append(c.faults, o.checkState(held)...)
	if err := c.vectors(ctx); err != nil {
		return err
	}
	c.faults = append(append(c.faults, o.checkOutputs()...), o.faults...)
	c.figures["rounds"]++
	c.faults = sorted(c.faults)
	fmt.Fprintf(c.say, "round %d: %d kills, %d records, %d events, %d outputs, %d dead letters:%s\n", o.round+1, c.kills(), o.records, o.events,
		len(o.outputs), len(o.letters), cmpOr(kindsOf(c.faults), " all as it must be"))
	c.log("round %d compared:%s", o.round+1, kindsOf(c.faults))
	o.settle()
	return nil
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// rest waits for the services; one that had started without a broker may have to be started again.
func (c *chaos) rest(ctx context.Context) error {
	for {
		if err := c.up(ctx); err != nil {
			return err
		}
		n, err := c.restless(ctx)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errEnded):
			if c.ended(n); len(c.faults) > 0 {
				return nil
			}
		case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
			c.fault(stuck, "%v; it said:\n%s", err, n.service.Tail(4))
			return nil
		default:
			return err
		}
	}
}

// restless returns the first service that does not come to rest, and why.
func (c *chaos) restless(ctx context.Context) (*node, error) {
	for _, n := range c.tree.working() {
		if err := n.rest(ctx, restLimit); err != nil {
			return n, err
		}
	}
	return nil, nil
}

// vectors waits until the vectors follow the rows: those of users without a waiting image come when nothing else is to do.
func (c *chaos) vectors(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var faults []fault
	err := process.Until(limited, "the vectors follow", func() (bool, error) {
		held, err := c.tree.inspect(ctx)
		if err != nil {
			return false, err
		}
		if err := c.oracle.readOutputs(ctx); err != nil {
			return false, err
		}
		faults = c.oracle.checkVectors(held.users)
		return len(faults) == 0, nil
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		err = nil
	}
	c.faults = append(c.faults, faults...)
	return err
}
