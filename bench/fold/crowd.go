package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"rebeca/consumer"
	"rebeca/internal/figures"
	"rebeca/internal/meter"
	"rebeca/internal/process"
	"rebeca/table"
)

const (
	liveRate    = 5000 // events a second
	liveFor     = 20 * time.Second
	liveEvery   = 5 * time.Millisecond // between two sends of the producer
	crowdFolder = "crowd"
)

// crowd makes a log and a state of a million users by the service.
func (b *bench) crowd() (figures.Figures, error) {
	if err := b.newTopics(crowdTopic); err != nil {
		return nil, err
	}
	if _, _, err := b.fill(crowdTopic, newSource(2, b.crowdUsers, b.crowdUsers), b.crowdEvents); err != nil {
		return nil, err
	}
	s, err := b.configure(crowdFolder, crowdTopic)
	if err != nil {
		return nil, err
	}
	if err := os.RemoveAll(s.state()); err != nil {
		return nil, err
	}
	if err := s.start(); err != nil {
		return nil, err
	}
	defer s.Kill()
	took, err := s.fold(b.crowdEvents)
	if err != nil {
		return nil, err
	}
	st, err := s.status()
	if err != nil {
		return nil, err
	}
	if st.Users != int64(b.crowdUsers) {
		return nil, fmt.Errorf("the state has %d users of %d", st.Users, b.crowdUsers)
	}
	return figures.Figures{
		"crowd_users": float64(b.crowdUsers), "crowd_events": float64(b.crowdEvents), "crowd_events_per_s": float64(b.crowdEvents) / took.whole.Seconds(),
	}, s.Terminate(stopLimit)
}

// latency sends events at a steady rate to the service with the crowd's state and takes the times from their Kafka timestamp, which is
// when they were made, to the commit of their fold from the service's own histogram.
func (b *bench) latency() (figures.Figures, error) {
	s, err := b.configure(crowdFolder, crowdTopic)
	if err != nil {
		return nil, err
	}
	if err := s.start(); err != nil {
		return nil, err
	}
	defer s.Kill()
	if err := s.ready(); err != nil {
		return nil, err
	}
	live := newSource(3, b.crowdUsers, 0)
	if err := b.sendLive(live, 2*time.Second); err != nil { // caches and connections warm up
		return nil, err
	}
	before, err := s.metrics()
	if err != nil {
		return nil, err
	}
	if err := b.sendLive(live, liveFor); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := process.Until(ctx, "the live events are folded", func() (bool, error) {
		st, err := s.status()
		return err == nil && st.Lag.Fold != nil && *st.Lag.Fold == 0, err
	}); err != nil {
		return nil, err
	}
	after, err := s.metrics()
	if err != nil {
		return nil, err
	}
	const name = "rebeca_event_to_fact_seconds"
	return figures.Figures{
		"event_to_fact_ms":     1000 * quantile(.99, name, before, after),
		"event_to_fact_p50_ms": 1000 * quantile(.5, name, before, after),
		"live_events_per_s":    (after[name+"_count"] - before[name+"_count"]) / liveFor.Seconds(),
	}, s.Terminate(stopLimit)
}

// sendLive produces at liveRate for a while.
func (b *bench) sendLive(s *source, d time.Duration) error {
	client, err := consumer.NewClient(consumer.Options{Brokers: []string{b.broker.Address}, ClientID: "bench-fold"})
	if err != nil {
		return err
	}
	defer client.Close()
	total := int(d.Seconds() * liveRate)
	show := meter.New(os.Stderr, "live events", int64(total))
	defer show.Done()
	start := time.Now()
	for sent := 0; sent < total; {
		if pause := time.Until(start.Add(time.Duration(sent) * time.Second / liveRate).Add(liveEvery)); pause > 0 {
			time.Sleep(pause)
		}
		batches := make([][]consumer.Message, partitions)
		for due := min(total, int(time.Since(start).Seconds()*liveRate)); sent < due; sent++ {
			// Each has the time at which it was due: what the producer is late by counts.
			m := s.next(start.Add(time.Duration(sent) * time.Second / liveRate))
			batches[m.partition] = append(batches[m.partition], m.Message)
		}
		if err := send(client, crowdTopic, batches); err != nil {
			return err
		}
		show.Set(int64(sent))
	}
	return nil
}

// quantile reads a quantile off the growth of a histogram between two readings of /metrics, linear within a bucket, in the histogram's
// unit.
func quantile(q float64, name string, before, after map[string]float64) float64 {
	type bucket struct{ limit, count float64 }
	var buckets []bucket
	for key, n := range after {
		rest, found := strings.CutPrefix(key, name+`_bucket{le="`)
		if limit, err := strconv.ParseFloat(strings.TrimSuffix(rest, `"}`), 64); found && err == nil {
			buckets = append(buckets, bucket{limit, n - before[key]})
		}
	}
	slices.SortFunc(buckets, func(a, b bucket) int { return int(math.Copysign(1, a.limit-b.limit)) })
	if len(buckets) == 0 {
		return math.NaN()
	}
	want, low := q*buckets[len(buckets)-1].count, bucket{}
	for _, b := range buckets {
		if b.count >= want {
			if b.count == low.count || math.IsInf(b.limit, 1) {
				return low.limit
			}
			return low.limit + (b.limit-low.limit)*(want-low.count)/(b.count-low.count)
		}
		low = b
	}
	return low.limit
}

// ready waits until the service says that it has caught up.
func (s *instance) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	_, err := s.Answers(ctx, "http://"+s.address+"/readyz")
	return err
}

// restart kills the service with the crowd's state while events come, and takes the time from its start to its readiness.
func (b *bench) restart() (figures.Figures, error) {
	s, err := b.configure(crowdFolder, crowdTopic)
	if err != nil {
		return nil, err
	}
	if err := s.start(); err != nil {
		return nil, err
	}
	defer func() { s.Kill() }()
	if err := s.ready(); err != nil {
		return nil, err
	}
	if err := b.sendLive(newSource(4, b.crowdUsers, 0), 3*time.Second); err != nil {
		return nil, err
	}
	s.Kill()
	start := time.Now()
	if err := s.start(); err != nil {
		return nil, err
	}
	door := time.Since(start)
	if err := s.ready(); err != nil {
		return nil, err
	}
	took := time.Since(start)
	st, err := s.status()
	if err != nil {
		return nil, err
	}
	if st.Users < int64(b.crowdUsers) {
		return nil, fmt.Errorf("%d users are back of %d", st.Users, b.crowdUsers)
	}
	err = s.Terminate(stopLimit)
	return figures.Figures{
		"restart_1m_s": took.Seconds(), "restart_1m_door_s": door.Seconds(), "restart_1m_memory_peak_mib": <-s.peak,
	}, err
}

// restore makes a snapshot of the crowd's state and restores it into a new one. Its megabytes are those of keys and values, whatever the
// files compress to.
func (b *bench) restore() (figures.Figures, error) {
	s, err := b.configure(crowdFolder, crowdTopic)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	said, err := exec.Command(s.binary, "snapshot", "create", "-c", s.config).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("creating a snapshot: %w\n%s", err, said)
	}
	created := time.Since(start)
	lines := strings.Split(strings.TrimSpace(string(said)), "\n")
	snapshot, _, _ := strings.Cut(lines[len(lines)-1], ":")
	to, err := b.configure("restored", crowdTopic)
	if err != nil {
		return nil, err
	}
	if err := os.RemoveAll(to.state()); err != nil {
		return nil, err
	}
	start = time.Now()
	p, err := process.Start(filepath.Join(to.dir, "log"), b.binary, "snapshot", "restore", snapshot, "-c", to.config)
	if err != nil {
		return nil, err
	}
	peak := p.WatchMemory()
	if err := p.Wait(foldLimit); err != nil {
		return nil, fmt.Errorf("restoring: %w; it said:\n%s", err, p.Tail(20))
	}
	took := time.Since(start)
	size, err := stateBytes(filepath.Join(to.state(), "table"))
	if err != nil {
		return nil, err
	}
	return figures.Figures{
		"restore_mb_per_s": float64(size) / 1e6 / took.Seconds(), "restore_s": took.Seconds(), "restore_memory_peak_mib": <-peak,
		"state_mb": float64(size) / 1e6, "snapshot_mb_per_s": float64(size) / 1e6 / created.Seconds(),
	}, nil
}

// stateBytes adds up keys and values of a table.
func stateBytes(dir string) (size int64, err error) {
	t, err := table.Open(table.Options{Dir: dir, Partitions: partitions, Dim: dim, Rules: table.DefaultRules()})
	if err != nil {
		return 0, err
	}
	defer t.Close()
	return size, t.Export(func(c table.Cut) error {
		return c.Each("", func(key, value []byte) error {
			size += int64(len(key) + len(value))
			return nil
		})
	})
}
