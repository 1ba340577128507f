package rebeca

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"rebeca/consumer"
	"rebeca/eval/shapes"
	"rebeca/internal/broker"
	"rebeca/internal/ort"
	"rebeca/sampler"
	"rebeca/schemas"
)

// DemoConfig is what the demo can be told.
type DemoConfig struct {
	Listen   string        // of the page
	Broker   string        // address of the embedded broker; default a free port
	Duration time.Duration // of the stream; 0: until the context ends
	Rate     float64       // events a second of all people together
	Preset   shapes.Preset
	Seed     uint64 // of the people and their answers
	DataDir  string // of broker and state; empty: a temporary one, removed at the end
	Library  string // of ONNX Runtime; empty: found as the service finds it
	Out      io.Writer
	Logger   *slog.Logger
	Registry *prometheus.Registry
	Version  string
}

// DefaultDemoConfig is the demo as `make demo` shows it.
func DefaultDemoConfig() DemoConfig {
	return DemoConfig{Listen: "127.0.0.1:8080", Rate: 200, Preset: shapes.Demo(), Seed: 1, Out: io.Discard}
}

// Demo is an embedded broker, a controlled world of simulated people, the
// service and its gallery in one process. Everything goes over the broker's
// port as it would for any other client.
type Demo struct {
	config  DemoConfig
	world   *demoWorld
	service *Service
	client  *consumer.Client // of the people, apart from the service's own
	tracker *tracker
	run     string // makes event ids of this run its own
}

// RunDemo runs the demo and returns its report. It ends when ctx ends or the
// duration is over; then everything in flight is drained first.
func RunDemo(ctx context.Context, dc DemoConfig) (rep DemoReport, err error) {
	dir := dc.DataDir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "rebeca-demo-"); err != nil {
			return rep, fmt.Errorf("making a directory for the demo: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	b, err := broker.Start(broker.Options{Listen: dc.Broker, DataDir: filepath.Join(dir, "broker"), Logger: dc.Logger})
	if err != nil {
		return rep, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()

	d := &Demo{config: dc, tracker: newTracker(), run: fmt.Sprintf("%x", time.Now().UnixNano())}
	c := d.serviceConfig(b.Addr(), dir)
	if err := c.Validate(); err != nil {
		return rep, err
	}
	if d.client, err = c.NewClient(); err != nil {
		return rep, err
	}
	defer d.client.Close()
	if _, err := consumer.EnsureTopics(ctx, d.client, c.WantedTopics(), c.Kafka.Replication); err != nil {
		return rep, err
	}
	if d.world, err = newDemoWorld(dc.Preset, dc.Seed, d.tracker); err != nil {
		return rep, err
	}
	d.service = New(c, Options{
		Logger: dc.Logger, Registry: dc.Registry, Version: dc.Version,
		World: d.world, OnPublished: d.tracker.published, Prepare: d.fillCatalogue,
	})
	return d.play(ctx)
}

// serviceConfig is a small configuration such as anybody would write.
func (d *Demo) serviceConfig(brokerAddr, dir string) Config {
	c := DefaultConfig()
	c.Kafka.Brokers = []string{brokerAddr}
	c.State.Dir = filepath.Join(dir, "state")
	c.Prior.Dim = shapesDim
	c.Decoder.Manifest = "shapes"
	c.HTTP.Listen = d.config.Listen
	c.Generate.Explain = 3 // the gallery shows why
	// A minute's events are few: the cores learn more from each than the
	// default takes, and the general lesson of birth is kept short for that.
	c.Train.Steps, c.Train.BirthSteps, c.Train.BirthTargets = 6, 400, 4
	c.Train.BornLR, c.Train.PseudoShare = 1e-3, .1
	c.Train.IdleSteps = 0 // its people are never at rest
	c.ONNXRuntime.Library = d.config.Library
	return c
}

// shapesDim is the dimension of the controlled world's embeddings.
const shapesDim = 16

// play runs service and people together. The service outlives the people, so
// that the report can be drained and asked for.
func (d *Demo) play(ctx context.Context) (rep DemoReport, err error) {
	serviceCtx, stopService := context.WithCancel(context.WithoutCancel(ctx))
	defer stopService()
	g, serviceCtx := errgroup.WithContext(serviceCtx)
	g.Go(func() error { return d.service.Run(serviceCtx) })
	g.Go(func() error {
		defer stopService()
		select {
		case <-d.service.Serving():
			fmt.Fprintf(d.config.Out, "the gallery is at %s, the broker at %s\n", d.service.URL(), d.service.config.Kafka.Brokers[0])
		case <-ctx.Done():
			return nil
		case <-serviceCtx.Done():
			return nil
		}
		if !poll(serviceCtx, 20*time.Millisecond, func() bool { return ctx.Err() != nil || len(d.service.Ready()) == 0 }) {
			return nil
		}
		if err := d.people(ctx, serviceCtx); err != nil {
			return err
		}
		patience := reportTimeout
		if ctx.Err() != nil {
			patience = hurriedTimeout // somebody waits for the end
		}
		rep, err = d.report(serviceCtx, patience)
		return err
	})
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return rep, err
	}
	return rep, nil
}

// fillCatalogue encodes the world's pictures and sends them to the items
// topic, then reads nothing back: the service does.
func (d *Demo) fillCatalogue(ctx context.Context) error {
	enc, err := sampler.OpenEncoder(shapes.Codec(), "manifest.json", ort.Options{Threads: 2})
	if err != nil {
		return fmt.Errorf("opening the world's encoder: %w", err)
	}
	defer enc.Close()
	embeddings, err := d.world.encode(ctx, enc)
	if err != nil {
		return err
	}
	partitions, topic := d.service.config.Kafka.Partitions, d.service.config.Kafka.Topics.Items
	byPartition := make([][]consumer.Message, partitions)
	for i, item := range d.world.Items {
		value, err := schemas.Item{ItemID: item.ID, Embedding: embeddings[i]}.Encode()
		if err != nil {
			return fmt.Errorf("encoding item %s: %w", item.ID, err)
		}
		p := schemas.Partition([]byte(item.ID), partitions)
		byPartition[p] = append(byPartition[p], consumer.Message{Key: []byte(item.ID), Value: value, Time: time.Now()})
	}
	for p, messages := range byPartition {
		if _, err := d.client.Produce(ctx, topic, int32(p), messages); err != nil {
			return fmt.Errorf("sending the catalogue: %w", err)
		}
	}
	fmt.Fprintf(d.config.Out, "%d pictures in the catalogue, %d people on their way\n", len(d.world.Items), len(d.world.People))
	return nil
}

// people produce the world's stream until ctx ends or the duration is over.
// What they have sent is acknowledged before people returns.
func (d *Demo) people(ctx, serviceCtx context.Context) error {
	var cancel context.CancelFunc = func() {}
	if d.config.Duration > 0 {
		ctx, cancel = context.WithTimeout(ctx, d.config.Duration)
	}
	defer cancel()
	partitions := d.service.config.Kafka.Partitions
	queues := make([]chan demoEvent, partitions)
	g, sendCtx := errgroup.WithContext(serviceCtx)
	for p := range queues {
		queues[p] = make(chan demoEvent, 4096) // some seconds of the stream: a slow broker delays nobody at first
		g.Go(func() error { return d.send(sendCtx, int32(p), queues[p]) })
	}
	d.emit(ctx, sendCtx, queues)
	for _, q := range queues {
		close(q)
	}
	return g.Wait()
}

// demoEvent is a feedback record on its way.
type demoEvent struct {
	feedback schemas.Feedback
	at       time.Time
}

// emit paces the stream by the wall clock.
func (d *Demo) emit(ctx, sendCtx context.Context, queues []chan demoEvent) {
	stream := d.world.Stream(rand.New(rand.NewPCG(d.config.Seed, 7)).Uint64(), d.config.Rate)
	start := time.Now()
	d.tracker.begin(start)
	defer func() { d.tracker.end(time.Now()) }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	next := stream.Next()
	for n := 0; ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		case <-sendCtx.Done():
			return
		}
		for now := time.Now(); now.Sub(start) >= next.At; next = stream.Next() {
			f := schemas.Feedback{
				EventID: fmt.Sprintf("%s-%d", d.run, n), UserID: d.world.People[next.Person].ID,
				ItemID: d.world.Items[next.Item].ID, Kind: next.Kind, OccurredAt: now.UTC(),
			}
			n++
			select {
			case queues[schemas.Partition([]byte(f.UserID), len(queues))] <- demoEvent{f, now}:
			case <-sendCtx.Done():
				return
			}
		}
	}
}

// send produces one partition's events in order, all that wait in one batch.
func (d *Demo) send(ctx context.Context, p int32, queue <-chan demoEvent) error {
	topic := d.service.config.Kafka.Topics.Feedback
	for e := range queue {
		batch := []demoEvent{e}
		for more := true; more && len(batch) < 500; {
			select {
			case e, ok := <-queue:
				if more = ok; ok {
					batch = append(batch, e)
				}
			default:
				more = false
			}
		}
		messages := make([]consumer.Message, len(batch))
		for i, e := range batch {
			value, err := e.feedback.Encode()
			if err != nil {
				return fmt.Errorf("encoding an event: %w", err)
			}
			messages[i] = consumer.Message{Key: []byte(e.feedback.UserID), Value: value, Time: e.at}
		}
		base, err := d.client.Produce(ctx, topic, p, messages)
		if err != nil {
			return fmt.Errorf("producing feedback: %w", err)
		}
		for i, e := range batch {
			d.tracker.event(e.feedback.UserID, base+int64(i), e.at)
		}
	}
	return nil
}
