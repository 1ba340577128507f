package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	"rebeca/internal/figures"
	"rebeca/internal/meter"
	"rebeca/internal/process"
)

// commitInterval is that of the peer, and the default of Kafka Streams with exactly_once_v2. The service commits every batch.
const commitInterval = 100 * time.Millisecond

// peer folds the log of the comparison with Kafka Streams, from its beginning into a new state.
func (b *bench) peer() (figures.Figures, error) {
	jars, err := b.buildPeer()
	if err != nil {
		return nil, err
	}
	var threads, cache int
	if _, err := fmt.Sscanf(b.streams, "threads=%d,cache=%d", &threads, &cache); err != nil {
		return nil, fmt.Errorf("-streams: %w", err)
	}
	dir, err := os.MkdirTemp(b.dir, "streams-")
	if err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	defer os.RemoveAll(dir)
	app := filepath.Base(dir) // new, so that it begins at the beginning
	p, err := process.Start(filepath.Join(dir, "log"), "java", "-Xmx2g", "-cp", jars, "rebeca.fold.Fold",
		b.broker.Address, feedbackTopic, app, filepath.Join(dir, "state"), fmt.Sprint(threads),
		fmt.Sprint(commitInterval.Milliseconds()), fmt.Sprint(cache))
	if err != nil {
		return nil, err
	}
	defer p.Kill()
	peak := p.WatchMemory()
	if err := said(p, "running"); err != nil {
		return nil, err
	}
	cpu, broker := p.CPU(), b.broker.CPU()
	took, err := b.committed(p, app)
	if err != nil {
		return nil, err
	}
	cpu, broker = p.CPU()-cpu, b.broker.CPU()-broker
	_ = p.Terminate(stopLimit) // a JVM told to end says so by its exit code
	var folded, duplicates, users float64
	if _, err := fmt.Sscanf(p.Tail(1), "folded %f duplicates %f users %f", &folded, &duplicates, &users); err != nil {
		return nil, fmt.Errorf("reading what the peer folded: %w; it said:\n%s", err, p.Tail(20))
	}
	if err := b.compare("the peer", folded, duplicates); err != nil {
		return nil, err
	}
	n, got := float64(b.events), took.rates("streams_eos_", b.events)
	maps.Copy(got, figures.Figures{
		"streams_cpu_us_per_event":          float64(cpu.Microseconds()) / n,
		"streams_broker_cpu_us_per_event":   float64(broker.Microseconds()) / n,
		"streams_anonymous_memory_peak_mib": <-peak,
		"streams_threads":                   float64(threads),
		"streams_commit_interval_ms":        float64(commitInterval.Milliseconds()),
		"kafka_version":                     4.1,
	})
	return got, nil
}

// buildPeer compiles the peer and returns its class path.
func (b *bench) buildPeer() (string, error) {
	root, err := process.Root()
	if err != nil {
		return "", err
	}
	project, target := filepath.Join(root, "bench", "fold", "streams"), filepath.Join(b.dir, "java")
	said, err := exec.Command("mvn", "-B", "-q", "-f", filepath.Join(project, "pom.xml"), "-Dbuild="+target,
		"compile", "dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory="+filepath.Join(target, "lib")).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building the peer with Maven: %w\n%s", err, said)
	}
	return filepath.Join(target, "classes") + string(os.PathListSeparator) + filepath.Join(target, "lib", "*"), nil
}

// said waits until a process has printed a line.
func said(p *process.Process, line string) error {
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	return process.Until(ctx, "the peer is "+line, func() (bool, error) {
		select {
		case <-p.Done():
			return false, fmt.Errorf("it ended; it said:\n%s", p.Tail(20))
		default:
		}
		return strings.Contains(p.Tail(20), line), nil
	})
}

// committed waits until a group has committed the log to its end, and returns how long that took.
func (b *bench) committed(p *process.Process, group string) (span, error) {
	watch := stopwatch{start: time.Now()}
	show := meter.New(os.Stderr, "events folded by the peer", int64(b.events))
	defer show.Done()
	ctx, cancel := context.WithTimeout(context.Background(), foldLimit)
	defer cancel()
	client, all := b.broker.Client(), []int{0, 1, 2, 3}
	err := process.Until(ctx, "the log is committed", func() (bool, error) {
		select {
		case <-p.Done():
			return false, fmt.Errorf("the peer ended; it said:\n%s", p.Tail(20))
		default:
		}
		answer, err := client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{feedbackTopic: all}})
		if err != nil {
			return false, errors.Join(err, ctx.Err())
		}
		var sum int64
		for _, o := range answer.Topics[feedbackTopic] {
			sum += max(0, o.CommittedOffset)
		}
		show.Set(sum)
		watch.passed(sum, int64(b.events))
		return sum >= int64(b.events), nil
	})
	return watch.stop(), err
}
