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
	events  *os.File // what was done and when
	pending sync.WaitGroup
	faults  []fault
}

// run kills, compares, and returns the figures and the faults of the first round that had any. An error says that the run itself
// could not go on.
func run(ctx context.Context, p plan) (figures.Figures, []fault, error) {
	c := &chaos{plan: p, rng: rand.New(rand.NewPCG(p.seed, 2)), figures: figures.Figures{"runs": 1}}
	count(c.figures, nil)
	if err := c.open(ctx); err != nil {
		c.close()
		return c.figures, nil, err
	}
	defer c.close()
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

func (c *chaos) kills() int { return int(c.figures["kills_service"] + c.figures["kills_broker"]) }

func (c *chaos) open(ctx context.Context) (err error) {
	if c.events, err = os.Create(filepath.Join(c.dir, "chaos.log")); err != nil {
		return err
	}
	if c.tree, err = newTree(ctx, c.dir, c.binary, c.apache, c.settings); err != nil {
		return err
	}
	if _, err := c.tree.verb(ctx, "topics", "create", "-c", c.tree.config()); err != nil {
		return err
	}
	if c.stream, err = newStream(c.tree.address, c.settings, c.seed); err != nil {
		return err
	}
	c.oracle = newOracle(c.tree.address, c.settings)
	c.stream.catalogue()
	if err := c.tree.startService(); err != nil {
		return err
	}
	// Requests are answered from the first start on.
	if err := c.tree.awaitReady(ctx, startLimit); err != nil {
		return err
	}
	c.stream.asking = true
	return nil
}

func (c *chaos) close() {
	if c.tree != nil {
		c.tree.stop()
	}
	c.pending.Wait()
	if c.stream != nil {
		c.stream.close()
	}
	if c.events != nil {
		_ = c.events.Close() // a log for people
	}
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
	if err := c.tree.claim(ctx); err != nil {
		return err
	}
	return c.startService()
}

func (c *chaos) startService() error {
	if c.tree.service != nil && !c.tree.serviceUp() && !c.tree.ended {
		c.ended()
	}
	return c.tree.startService()
}

// between draws a duration.
func (c *chaos) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(c.rng.Int64N(int64(hi-lo)))
}

// chance is true in so many percent of the cases.
func (c *chaos) chance(percent int) bool { return c.rng.IntN(100) < percent }

// strike starts what does not run, waits for a moment of no meaning, and kills.
func (c *chaos) strike(ctx context.Context) error {
	if !c.tree.brokerUp() && !c.tree.moved && c.chance(30) { // the service first: it finds nobody
		if err := c.startService(); err != nil {
			return err
		}
		c.sleep(ctx, c.between(0, time.Second))
	}
	if err := c.up(ctx); err != nil {
		return err
	}
	if err := c.moment(ctx); err != nil {
		return err
	}
	if c.tree.ready && c.chance(12) {
		c.snapshot(ctx)
		c.sleep(ctx, c.between(0, 300*time.Millisecond))
	}
	if c.chance(12) {
		c.pause()
	}
	switch x := c.rng.IntN(100); {
	case x < 65:
		c.killService()
	case x < 80:
		c.killBroker()
		c.sleep(ctx, c.between(0, 700*time.Millisecond))
	case x < 92:
		c.killService()
		c.killBroker()
	default:
		return c.stopService()
	}
	if !c.tree.serviceUp() && c.tree.taken() > 0 && c.chance(c.moves) {
		return c.move(ctx)
	}
	return nil
}

// moment waits: for some time after the start, or after the service was ready.
func (c *chaos) moment(ctx context.Context) error {
	if c.chance(40) {
		c.sleep(ctx, c.between(20*time.Millisecond, 500*time.Millisecond))
		return nil
	}
	err := c.tree.awaitReady(ctx, restLimit)
	switch {
	case errors.Is(err, errEnded):
		c.ended()
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		c.fault(stuck, "%v; it said:\n%s", err, c.tree.service.Tail(4))
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
func (c *chaos) ended() {
	c.log("the service has ended by itself (ready before: %t, broker undisturbed: %t)", c.tree.ready, c.tree.undisturbed)
	c.figures["exits"]++
	c.tree.ended = true
	if c.tree.culpable() {
		c.fault(died, "the service ended by itself (ready before: %t, broker undisturbed: %t); it said:\n%s",
			c.tree.ready, c.tree.undisturbed, c.tree.service.Tail(3))
	}
}

func (c *chaos) killService() {
	if c.tree.serviceUp() {
		c.log("kill service %d, ready %t", c.tree.service.PID(), c.tree.ready)
		c.tree.service.Kill()
		c.tree.ended = true
		c.figures["kills_service"]++
	}
}

func (c *chaos) killBroker() {
	if c.tree.brokerUp() {
		c.log("kill broker %d", c.tree.broker.PID())
		c.tree.undisturbed = false
		c.tree.broker.Kill()
		c.figures["kills_broker"]++
	}
}

// stopService ends the service as an operator does.
func (c *chaos) stopService() error {
	if !c.tree.serviceUp() {
		return nil
	}
	c.log("terminate service %d, ready %t", c.tree.service.PID(), c.tree.ready)
	c.figures["stops"]++
	c.tree.ended = true
	// One that has just begun may not listen to signals yet, or be waiting for a broker that is away.
	if err := c.tree.service.Terminate(startLimit); err != nil && c.tree.ready {
		c.fault(died, "the service, terminated: %v; it said:\n%s", err, c.tree.service.Tail(3))
	}
	return nil
}

func (c *chaos) pause() {
	p, name := server(c.tree.service), "service"
	if c.chance(50) {
		p, name = c.tree.broker, "broker"
		c.tree.undisturbed = false
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

// snapshot begins a snapshot, which goes on while all else happens.
func (c *chaos) snapshot(ctx context.Context) {
	c.log("snapshot")
	c.pending.Go(func() {
		if err := c.tree.snapshot(ctx); err != nil {
			c.log("no snapshot: %v", err) // killed meanwhile
		}
	})
}

// move goes back to a snapshot; nothing may come of it twice.
func (c *chaos) move(ctx context.Context) error {
	c.pending.Wait()
	i := c.tree.taken() - 1 - c.rng.IntN(c.tree.taken())
	c.log("move to snapshot %d of %d", i+1, c.tree.taken())
	c.figures["moves"]++
	return c.tree.move(ctx, i)
}

// compare waits for rest and holds everything against the log.
func (c *chaos) compare(ctx context.Context) error {
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

// rest waits for the service; one that had started without a broker may have to be started again.
func (c *chaos) rest(ctx context.Context) error {
	for {
		if err := c.up(ctx); err != nil {
			return err
		}
		err := c.tree.rest(ctx, restLimit)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errEnded):
			if c.ended(); len(c.faults) > 0 {
				return nil
			}
		case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
			c.fault(stuck, "%v; it said:\n%s", err, c.tree.service.Tail(4))
			return nil
		default:
			return err
		}
	}
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
