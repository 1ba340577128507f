package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"rebeca/internal/figures"
	"rebeca/internal/meter"
	"rebeca/internal/process"
)

const (
	foldLimit  = 10 * time.Minute
	startLimit = 2 * time.Minute
	stopLimit  = time.Minute
	look       = 20 * time.Millisecond
	dim        = 16
)

// instance is a configuration of the service, and the process while it runs.
type instance struct {
	binary, config, dir, address string
	*process.Process
	peak <-chan float64 // of the running process, see process.WatchMemory
}

// configure writes a configuration that folds a topic into the state of the given name: the worker's role alone, and no images.
func (b *bench) configure(name, topic string) (*instance, error) {
	address, err := process.FreeAddress()
	if err != nil {
		return nil, err
	}
	s := &instance{binary: b.binary, dir: filepath.Join(b.dir, name), address: address}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	s.config = filepath.Join(s.dir, "rebeca.yaml")
	text := fmt.Sprintf(`roles: [worker]
kafka: {brokers: [%q], partitions: %d, replication: 1, topics: {feedback: %q}}
state: {dir: %q}
prior: {dim: %d}
generate: {count: 0}
http: {listen: %q}
`, b.broker.Address, partitions, topic, s.state(), dim, address)
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("configuring the service: %w", err)
	}
	return s, nil
}

func (s *instance) state() string { return filepath.Join(s.dir, "state") }

// newTopics makes the topics of a service whose feedback topic has the given name.
func (b *bench) newTopics(feedback string) error {
	s, err := b.configure("topics", feedback)
	if err != nil {
		return err
	}
	if said, err := exec.Command(s.binary, "topics", "create", "-c", s.config).CombinedOutput(); err != nil {
		return fmt.Errorf("creating topics: %w\n%s", err, said)
	}
	return nil
}

// start runs the service and waits until its door answers; it reads nothing before.
func (s *instance) start() error {
	var err error
	if s.Process, err = process.Start(filepath.Join(s.dir, "log"), s.binary, "serve", "-c", s.config); err != nil {
		return err
	}
	s.peak = s.WatchMemory()
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	if _, err := s.Answers(ctx, "http://"+s.address+"/v1/status"); err != nil {
		s.Kill()
		return err
	}
	return nil
}

// status is the part of /v1/status that is read here.
type status struct {
	Lag struct {
		Fold *int64 `json:"fold"`
	} `json:"lag"`
	EventsFolded int64 `json:"events_folded"`
	Users        int64 `json:"users"`
}

func (s *instance) status() (status, error) {
	var st status
	response, err := http.Get("http://" + s.address + "/v1/status")
	if err != nil {
		return st, fmt.Errorf("asking the service: %w; it said:\n%s", err, s.Tail(20))
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&st); err != nil {
		return st, fmt.Errorf("reading the service's status: %w", err)
	}
	return st, nil
}

// metrics returns the numbers of /metrics by their names with labels.
func (s *instance) metrics() (map[string]float64, error) {
	response, err := http.Get("http://" + s.address + "/metrics")
	if err != nil {
		return nil, fmt.Errorf("asking the service: %w", err)
	}
	defer response.Body.Close()
	out := map[string]float64{}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		name, value, found := strings.Cut(lines.Text(), " ")
		if v, err := strconv.ParseFloat(value, 64); found && err == nil {
			out[name] = v
		}
	}
	return out, lines.Err()
}

// span is how long a log took from its beginning to its end, and from its middle.
type span struct{ whole, half time.Duration }

// rates returns events per second of both, named with a prefix: the second half leaves out what starts and warms up.
func (s span) rates(prefix string, events int) figures.Figures {
	return figures.Figures{
		prefix + "events_per_s":             float64(events) / s.whole.Seconds(),
		prefix + "second_half_events_per_s": float64(events) / 2 / s.half.Seconds(),
	}
}

// stopwatch takes a span.
type stopwatch struct {
	start, middle time.Time
}

func (w *stopwatch) passed(done, events int64) {
	if w.middle.IsZero() && done >= events/2 {
		w.middle = time.Now()
	}
}

func (w *stopwatch) stop() span { return span{time.Since(w.start), time.Since(w.middle)} }

// fold waits until the service has folded the log to its end, with events events in it, and returns the time since it started to read.
func (s *instance) fold(events int) (span, error) {
	watch := stopwatch{start: time.Now()}
	show := meter.New(os.Stderr, "events folded by the service", int64(events))
	defer show.Done()
	ctx, cancel := context.WithTimeout(context.Background(), foldLimit)
	defer cancel()
	err := process.Until(ctx, "the log is folded", func() (bool, error) {
		st, err := s.status()
		if err != nil || st.Lag.Fold == nil {
			return false, err
		}
		show.Set(int64(events) - *st.Lag.Fold)
		watch.passed(st.EventsFolded, int64(events))
		return *st.Lag.Fold == 0 && st.EventsFolded > 0, nil
	})
	return watch.stop(), err
}

// service folds the log of the comparison from its beginning into a new state.
func (b *bench) service() (figures.Figures, error) {
	s, err := b.configure("service", feedbackTopic)
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
	broker := b.broker.CPU()
	before, err := s.metrics()
	if err != nil {
		return nil, err
	}
	cpu := s.CPU()
	took, err := s.fold(b.events)
	if err != nil {
		return nil, err
	}
	cpu, broker = s.CPU()-cpu, b.broker.CPU()-broker
	after, err := s.metrics()
	if err != nil {
		return nil, err
	}
	if err := b.compare("the service", after["rebeca_events_folded_total"], after["rebeca_duplicates_total"]); err != nil {
		return nil, err
	}
	if err := s.Terminate(stopLimit); err != nil {
		return nil, err
	}
	n, got := float64(b.events), took.rates("", b.events)
	maps.Copy(got, figures.Figures{
		"cpu_us_per_event":          float64(cpu.Microseconds()) / n,
		"broker_cpu_us_per_event":   float64(broker.Microseconds()) / n,
		"alloc_bytes_per_event":     (after["go_memstats_alloc_bytes_total"] - before["go_memstats_alloc_bytes_total"]) / n,
		"anonymous_memory_peak_mib": <-s.peak,
	})
	return got, nil
}

// compare refuses the figures of a side that has not folded what was produced.
func (b *bench) compare(who string, folded, duplicates float64) error {
	for _, got := range b.all {
		if want, again := got["distinct_events"], got["resends"]; want > 0 {
			if folded != want || duplicates != again {
				return fmt.Errorf("%s folded %.0f events and %.0f resends; %.0f and %.0f were produced", who, folded, duplicates, want, again)
			}
			return nil
		}
	}
	return fmt.Errorf("the step produce was not made in this run")
}
