package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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

// keepSnapshots is how many snapshots may be gone back to.
const keepSnapshots = 5

// server is a process that can be killed: the embedded broker, Apache Kafka, the service.
type server interface {
	Done() <-chan struct{}
	Kill()
	PID() int
	Tail(lines int) string
}

// tree is a broker and a service over it, both in processes of their own that can be killed at any moment.
type tree struct {
	dir, binary string
	settings    settings
	address     string // of the broker
	listen      string // of the service
	apache      bool   // the broker is Apache Kafka
	broker      server // nil before its first start
	service     *process.Process
	ready       bool // the service now running has been ready
	ended       bool // how the last service ended is known: we killed it, or it has been judged
	undisturbed bool // the broker has not been touched since the service's start
	states      int  // the state directory in use is the states-th
	moved       bool // it was restored, and its partitions are not claimed yet
	client      http.Client
	mu          sync.Mutex
	snapshots   []string // guarded by mu; paths, the oldest first
}

// newTree starts a broker, Apache Kafka or the embedded one, and configures a service over it.
func newTree(ctx context.Context, dir, binary string, apache bool, s settings) (t *tree, err error) {
	t = &tree{dir: dir, binary: binary, apache: apache, settings: s, client: http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{}}}
	if t.address, err = process.FreeAddress(); err != nil {
		return nil, err
	}
	if t.listen, err = process.FreeAddress(); err != nil {
		return nil, err
	}
	if err := t.startBroker(ctx); err != nil {
		t.stop()
		return nil, err
	}
	return t, t.configure(0)
}

// configure makes the n-th state directory the one in use.
func (t *tree) configure(n int) error {
	s := t.settings
	text := fmt.Sprintf(`kafka: {brokers: [%q], partitions: %d}
state: {dir: %q}
prior: {kind: mlp, dim: %d, hidden: 16, blocks: 1, heads: 2}
window: {newest: %d, liked: %d}
dedupe: {events: %d}
generate: {debounce: 10ms, max_wait: 50ms, max_age: %s, count: %d}
sampler: {steps: 2}
train: {birth_steps: 50}
http: {listen: %q}
`, t.address, s.partitions, t.stateDir(n), s.dim, s.rules.newest, s.rules.liked, s.rules.dedupe, s.maxAge, s.perEvent, t.listen)
	t.states = n
	return os.WriteFile(t.config(), []byte(text), 0o600)
}

func (t *tree) stateDir(n int) string { return filepath.Join(t.dir, fmt.Sprintf("state-%d", n)) }
func (t *tree) config() string        { return filepath.Join(t.dir, fmt.Sprintf("rebeca-%d.yaml", t.states)) }
func (t *tree) log(name string) string {
	return filepath.Join(t.dir, name+".log")
}

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

// brokerUp and serviceUp say whether the processes run.
func (t *tree) brokerUp() bool  { return t.broker != nil && running(t.broker) }
func (t *tree) serviceUp() bool { return t.service != nil && running(t.service) }

// startBroker starts the broker on its data, if it does not run, and waits until it serves.
func (t *tree) startBroker(ctx context.Context) error {
	if t.brokerUp() {
		return nil
	}
	dir := filepath.Join(t.dir, "broker")
	if t.apache {
		return t.startApache(dir)
	}
	p, err := process.Start(t.log("broker"), t.binary, "broker", "--listen", t.address, "--data", dir)
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
	b, err := kafka.Start(dir)
	if err != nil {
		return err
	}
	t.broker, t.address = b, b.Address
	return nil
}

// startService starts the service, if it does not run. It is not waited for.
func (t *tree) startService() (err error) {
	if t.serviceUp() {
		return nil
	}
	t.ready, t.ended, t.undisturbed = false, false, t.brokerUp()
	t.service, err = process.Start(t.log("service"), t.binary, "serve", "-c", t.config())
	return err
}

// errEnded says that the service ended by itself.
var errEnded = errors.New("the service ended by itself")

// awaitReady waits until the service answers that it is ready. errEnded in the chain says that it ended.
func (t *tree) awaitReady(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := process.Until(ctx, "the service is ready", func() (bool, error) {
		if !t.serviceUp() {
			return false, fmt.Errorf("%w; it said:\n%s", errEnded, t.service.Tail(2))
		}
		_, err := t.get(ctx, "/readyz")
		return err == nil, nil
	})
	t.ready = t.ready || err == nil
	return err
}

// culpable says whether a service that has ended by itself had no reason to: it had been ready, or it had a broker that answers and that
// nobody had touched.
func (t *tree) culpable() bool {
	return t.ready || t.undisturbed && !strings.Contains(t.service.Tail(1), "no answer in time") // a busy machine, and said so
}

func (t *tree) get(ctx context.Context, path string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+t.listen+path, nil)
	if err != nil {
		return nil, err
	}
	return t.do(request)
}

func (t *tree) do(request *http.Request) ([]byte, error) {
	response, err := t.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %.300s", request.URL.Path, response.Status, body)
	}
	return body, err
}

// pause stops a process and lets it go on later, as a machine that swaps would.
func pause(p server, d time.Duration) {
	_ = syscall.Kill(-p.PID(), syscall.SIGSTOP)
	time.Sleep(d)
	_ = syscall.Kill(-p.PID(), syscall.SIGCONT)
}

// rest waits until the service is ready and says for a while that nothing is left to fold and to publish.
func (t *tree) rest(ctx context.Context, limit time.Duration) error {
	if err := t.awaitReady(ctx, limit); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var since time.Time
	var last []byte
	err := process.Until(ctx, "nothing is left to fold and to publish", func() (bool, error) {
		if !t.serviceUp() {
			return false, fmt.Errorf("%w; it said:\n%s", errEnded, t.service.Tail(2))
		}
		body, err := t.get(ctx, "/v1/status")
		var got struct {
			Lag     struct{ Fold, Publish *int64 } `json:"lag"`
			Version string                         `json:"prior_version"`
		}
		if err == nil {
			last, err = body, json.Unmarshal(body, &got)
		}
		if err != nil || got.Version == "" || got.Lag.Fold == nil || got.Lag.Publish == nil || *got.Lag.Fold != 0 || *got.Lag.Publish != 0 {
			since = time.Time{}
			return false, nil
		}
		if since.IsZero() {
			since = time.Now()
		}
		return time.Since(since) > 400*time.Millisecond, nil // what it knows of the log's end may be 200 ms old
	})
	if err != nil {
		reasons, _ := t.get(context.WithoutCancel(ctx), "/readyz") // only to tell more
		return fmt.Errorf("%w; last status %s; %s", err, last, reasons)
	}
	return nil
}

// inspect returns what the service holds, through the running service or, when it is stopped, by the verb.
func (t *tree) inspect(ctx context.Context) (s state, err error) {
	for _, part := range []struct {
		name string
		add  func(line []byte) error
	}{
		{"users", into(&s.users)}, {"offsets", into(&s.offsets)}, {"outbox", into(&s.outbox)},
	} {
		var body []byte
		if t.serviceUp() {
			body, err = t.get(ctx, "/v1/inspect/"+part.name)
		} else {
			body, err = t.verb(ctx, "inspect", part.name, "--json", "-c", t.config())
		}
		if err != nil {
			return s, err
		}
		for line := range bytes.Lines(body) {
			if err := part.add(line); err != nil {
				return s, fmt.Errorf("reading a line of inspect %s: %w (%.100q)", part.name, err, line)
			}
		}
	}
	return s, nil
}

func into[T any](dst *[]T) func([]byte) error {
	return func(line []byte) error {
		var v T
		err := json.Unmarshal(line, &v)
		*dst = append(*dst, v)
		return err
	}
}

// snapshot has the running service write a snapshot. It may be killed meanwhile: then there is none.
func (t *tree) snapshot(ctx context.Context) error {
	dir := filepath.Join(t.stateDir(t.states), "snapshots")
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+t.listen+"/v1/snapshots", nil)
	if err != nil {
		return err
	}
	body, err := t.do(request)
	if err != nil {
		return err
	}
	var m struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(body, &m); err != nil || m.Name == "" {
		return fmt.Errorf("reading the answer to a snapshot: %w (%.200s)", err, body)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.snapshots = append(t.snapshots, filepath.Join(dir, m.Name))
	if len(t.snapshots) > keepSnapshots {
		err = os.RemoveAll(t.snapshots[0])
		t.snapshots = slices.Delete(t.snapshots, 0, 1)
	}
	return err
}

// taken returns how many snapshots there are to go back to.
func (t *tree) taken() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.snapshots)
}

// move goes on from the i-th snapshot in a new state directory. The service must not run.
func (t *tree) move(ctx context.Context, i int) error {
	t.mu.Lock()
	path := t.snapshots[i]
	// Those behind it are of a future that is to come again.
	t.snapshots = t.snapshots[:i+1]
	t.mu.Unlock()
	old := t.stateDir(t.states)
	if err := t.configure(t.states + 1); err != nil {
		return err
	}
	if _, err := t.verb(ctx, "snapshot", "restore", path, "-c", t.config()); err != nil {
		return err
	}
	t.moved = true
	// Announced weights lie beside the old table, and stay.
	return os.RemoveAll(filepath.Join(old, "table"))
}

// claim takes the partitions for a state that was restored, as an operator does whose other state is lost: another restore of the same
// snapshot may have owned them. It needs the broker, and the service down.
func (t *tree) claim(ctx context.Context) error {
	if !t.moved {
		return nil
	}
	if _, err := t.verb(ctx, "partitions", "take", "-c", t.config(), "--partitions", fmt.Sprintf("0-%d", t.settings.partitions-1)); err != nil {
		return err
	}
	t.moved = false
	return nil
}

// stop kills what still runs.
func (t *tree) stop() {
	defer t.client.CloseIdleConnections()
	if t.service != nil {
		end(t.service)
	}
	if t.broker != nil {
		end(t.broker)
	}
}

// end kills a process that may be stopped.
func end(p server) {
	_ = syscall.Kill(-p.PID(), syscall.SIGCONT)
	p.Kill()
}
