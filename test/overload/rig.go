package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"rebeca/internal/process"
)

const (
	partitions = 4
	dim        = 16
	startLimit = time.Minute
	stopLimit  = time.Minute
)

// rig is a broker and a service over it, each a process of its own.
type rig struct {
	plan
	broker, listen string // addresses
	brokerProcess  *process.Process
	service        *process.Process // nil while it does not run
	client         http.Client
}

// newRig starts a broker and makes the topics.
func newRig(ctx context.Context, p plan) (r *rig, err error) {
	r = &rig{plan: p, client: http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{}}}
	defer func() {
		if err != nil {
			r.stop()
		}
	}()
	if r.broker, err = process.FreeAddress(); err != nil {
		return r, err
	}
	if r.listen, err = process.FreeAddress(); err != nil {
		return r, err
	}
	r.brokerProcess, err = process.Start(filepath.Join(p.dir, "broker.log"), p.binary, "broker", "--listen", r.broker, "--data", filepath.Join(p.dir, "broker"))
	if err != nil {
		return r, err
	}
	limited, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	err = process.Until(limited, "the broker listens", func() (bool, error) {
		select {
		case <-r.brokerProcess.Done():
			return false, fmt.Errorf("it ended; it said:\n%s", r.brokerProcess.Tail(20))
		default:
		}
		c, err := net.DialTimeout("tcp", r.broker, time.Second)
		if err != nil {
			return false, nil
		}
		return true, c.Close()
	})
	if err != nil {
		return r, err
	}
	if err := r.configure(p.cap); err != nil {
		return r, err
	}
	_, err = r.verb(ctx, "topics", "create", "-c", r.config())
	return r, err
}

func (r *rig) config() string { return filepath.Join(r.dir, "rebeca.yaml") }
func (r *rig) state() string  { return filepath.Join(r.dir, "state") }

// configure writes the service's configuration with a cap on its fold, 0 for none.
func (r *rig) configure(cap int) error {
	text := fmt.Sprintf(`kafka: {brokers: [%q], partitions: %d}
state: {dir: %q}
prior: {dim: %d}
generate: {debounce: 10ms, max_wait: 50ms}
train: {birth_steps: 50, idle_steps: 0%s}
limits: {fold_rate: %d/s, min_free: 0}
http: {listen: %q}
`, r.broker, partitions, r.state(), dim, r.maxLag(), cap, r.listen)
	return os.WriteFile(r.config(), []byte(text), 0o600)
}

func (p plan) maxLag() string {
	if p.trainLag == 0 {
		return "" // the default
	}
	return fmt.Sprintf(", max_lag: %d", p.trainLag)
}

// verb runs a verb of the binary and returns what it printed.
func (r *rig) verb(ctx context.Context, args ...string) ([]byte, error) {
	var out, said bytes.Buffer
	cmd := exec.CommandContext(ctx, r.binary, args...)
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("rebeca %v: %w\n%s", args, err, said.String())
	}
	return out.Bytes(), nil
}

// start runs the service and waits until its door answers.
func (r *rig) start(ctx context.Context) (err error) {
	if r.service, err = process.Start(filepath.Join(r.dir, "service.log"), r.binary, "serve", "-c", r.config()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	_, err = r.service.Answers(ctx, "http://"+r.listen+"/v1/status")
	return err
}

// status is the part of /v1/status that is read here.
type status struct {
	Lag struct {
		Fold, Publish, Train *int64
	}
	PriorVersion string `json:"prior_version"`
	Step         int64
	EventsFolded int64 `json:"events_folded"`
	Generated    int64
	Overload     struct {
		StepsSkipped       int64 `json:"steps_skipped"`
		IntentsSuperseded  int64 `json:"intents_superseded"`
		FeedbackUnanswered int64 `json:"feedback_unanswered"`
		UnaskedShed        bool  `json:"unasked_shed"`
	}
}

func (s status) lag() int64 {
	if s.Lag.Fold == nil {
		return -1
	}
	return *s.Lag.Fold
}

// rest reports whether nothing is left to fold and to publish.
func (s status) rest() bool {
	return s.lag() == 0 && s.Lag.Publish != nil && *s.Lag.Publish == 0
}

func (r *rig) status(ctx context.Context) (s status, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.listen+"/v1/status", nil)
	if err != nil {
		return s, err
	}
	response, err := r.client.Do(request)
	if err != nil {
		return s, fmt.Errorf("asking the service: %w; it said:\n%s", err, r.service.Tail(5))
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil {
		err = json.Unmarshal(body, &s)
	}
	if err != nil {
		return s, fmt.Errorf("reading the service's status: %w", err)
	}
	return s, nil
}

// memory returns the anonymous and the mapped resident memory of a process, in bytes.
func memory(pid int) (anonymous, mapped int64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, fmt.Errorf("reading the process's memory: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		kib, found := strings.CutSuffix(strings.TrimSpace(value), " kB")
		if !found {
			continue
		}
		n, err := strconv.ParseInt(kib, 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("reading the process's memory: %w", err)
		}
		switch name {
		case "RssAnon":
			anonymous = n << 10
		case "RssFile":
			mapped = n << 10
		}
	}
	return anonymous, mapped, nil
}

// end stops the service in order.
func (r *rig) end() error {
	err := r.service.Terminate(stopLimit)
	if err != nil {
		err = fmt.Errorf("stopping the service: %w; it said:\n%s", err, r.service.Tail(5))
	}
	r.service = nil
	return err
}

// stop kills what still runs.
func (r *rig) stop() {
	if r.service != nil {
		r.service.Kill()
	}
	if r.brokerProcess != nil {
		r.brokerProcess.Kill()
	}
	r.client.CloseIdleConnections()
}
