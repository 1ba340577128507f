package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"rebeca/internal/process"
)

// keepSnapshots is how many snapshots may be gone back to.
const keepSnapshots = 5

// node is a service on a state directory of its own.
type node struct {
	tree   *tree
	name   string
	listen string
	owns   []int32 // partitions in its file; it does not run without any
	had    []int32 // partitions that its state has had at any time
	brake  int     // limits.fold_rate in its file; 0 for none
	states int     // the state directory in use is the states-th
	taking []int32 // partitions to be taken before the next start: the state was restored whole

	service     *process.Process // nil before the first start
	braked      bool             // the service now running folds slowly
	ready       bool             // the service now running has been ready
	ended       bool             // how the last service ended is known: we killed it, or it has been judged
	undisturbed bool             // broker and network have not been touched since the service's start
	client      http.Client

	mu        sync.Mutex
	snapshots []string // guarded by mu; paths, the oldest first
}

func newNode(t *tree, name string) (*node, error) {
	listen, err := process.FreeAddress()
	return &node{tree: t, name: name, listen: listen, client: http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{}}}, err
}

// configure writes the service's file. One that owns all partitions trains too.
func (n *node) configure() error {
	s := n.tree.settings
	text := fmt.Sprintf(`kafka: {brokers: [%q], partitions: %d}
state: {dir: %q}
prior: {kind: mlp, dim: %d, hidden: 16, blocks: 1, heads: 2}
window: {newest: %d, liked: %d}
dedupe: {events: %d}
generate: {debounce: 10ms, max_wait: 50ms, max_age: %s, count: %d}
sampler: {steps: 2}
train: {birth_steps: 50, idle_steps: 0}
http: {listen: %q}
`, n.tree.proxy.address(), s.partitions, n.stateDir(), s.dim, s.rules.newest, s.rules.liked, s.rules.dedupe, s.maxAge, s.perEvent, n.listen)
	switch {
	case len(n.owns) == 0: // it does not run; verbs read the file
		text += "roles: [worker]\n"
	case len(n.owns) < s.partitions:
		text += fmt.Sprintf("partitions: %s\nroles: [worker]\n", ranges(n.owns))
	}
	if n.brake > 0 {
		text += fmt.Sprintf("limits: {fold_rate: %d/s}\n", n.brake)
	}
	return os.WriteFile(n.config(), []byte(text), 0o600)
}

func (n *node) stateDir() string {
	return filepath.Join(n.tree.dir, fmt.Sprintf("state-%s-%d", n.name, n.states))
}
func (n *node) config() string { return filepath.Join(n.tree.dir, "rebeca-"+n.name+".yaml") }

func (n *node) up() bool { return n.service != nil && running(n.service) }

// start starts the service, if it does not run. It is not waited for.
func (n *node) start() (err error) {
	if n.up() {
		return nil
	}
	for _, p := range n.owns {
		if !slices.Contains(n.had, p) {
			n.had = append(n.had, p)
		}
	}
	n.ready, n.ended, n.undisturbed, n.braked = false, false, n.tree.brokerUp() && n.tree.proxy.still(), n.brake > 0
	n.service, err = process.Start(n.tree.log("service-"+n.name), n.tree.binary, "serve", "-c", n.config())
	return err
}

// stop kills the service if it runs.
func (n *node) stop() {
	n.client.CloseIdleConnections()
	if n.service != nil {
		end(n.service)
	}
}

// setBrake sets the rate of the next start.
func (n *node) setBrake(rate int) error {
	n.brake = rate
	return n.configure()
}

// errEnded says that the service ended by itself.
var errEnded = errors.New("the service ended by itself")

// awaitReady waits until the service answers that it is ready. errEnded in the chain says that it ended.
func (n *node) awaitReady(ctx context.Context, limit time.Duration) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := process.Until(limited, "service "+n.name+" is ready", func() (bool, error) {
		if !n.up() {
			return false, fmt.Errorf("%w; it said:\n%s", errEnded, n.service.Tail(2))
		}
		_, err := n.get(limited, "/readyz")
		return err == nil, nil
	})
	n.ready = n.ready || err == nil
	if err != nil && n.up() && ctx.Err() == nil {
		_, why := n.get(ctx, "/readyz") // only to tell more
		err = fmt.Errorf("%w; %v", err, why)
	}
	return err
}

// culpable says whether a service that has ended by itself had no reason to: it had been ready, or it had a broker that answers and that
// nobody had touched.
func (n *node) culpable() bool {
	return n.ready || n.undisturbed && !strings.Contains(n.service.Tail(1), "no answer in time") // a busy machine, and said so
}

func (n *node) get(ctx context.Context, path string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.listen+path, nil)
	if err != nil {
		return nil, err
	}
	return n.do(request)
}

func (n *node) do(request *http.Request) ([]byte, error) {
	response, err := n.client.Do(request)
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

// rest waits until the service is ready and says for a while that nothing is left to fold and to publish.
func (n *node) rest(ctx context.Context, limit time.Duration) error {
	if err := n.awaitReady(ctx, limit); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var since time.Time
	var last []byte
	err := process.Until(ctx, "nothing is left to fold and to publish", func() (bool, error) {
		if !n.up() {
			return false, fmt.Errorf("%w; it said:\n%s", errEnded, n.service.Tail(2))
		}
		body, err := n.get(ctx, "/v1/status")
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
		reasons, _ := n.get(context.WithoutCancel(ctx), "/readyz") // only to tell more
		return fmt.Errorf("%w; last status %s; %s", err, last, reasons)
	}
	return nil
}

// inspect adds what the service holds of its partitions, and how far it has read the catalogue.
func (n *node) inspect(ctx context.Context, all *state) error {
	var s state
	for _, part := range []struct {
		name string
		add  func(line []byte) error
	}{
		{"users", into(&s.users)}, {"offsets", into(&s.offsets)}, {"outbox", into(&s.outbox)},
	} {
		body, err := n.get(ctx, "/v1/inspect/"+part.name)
		if err != nil {
			return err
		}
		for line := range bytes.Lines(body) {
			if err := part.add(line); err != nil {
				return fmt.Errorf("reading a line of inspect %s: %w (%.100q)", part.name, err, line)
			}
		}
	}
	// What it had once is another's now.
	all.users = append(all.users, slices.DeleteFunc(s.users, func(u inspectedUser) bool { return !slices.Contains(n.owns, u.Partition) })...)
	all.offsets = append(all.offsets, slices.DeleteFunc(s.offsets, func(o inspectedOffset) bool {
		return o.Topic != topicItems && !slices.Contains(n.owns, o.Partition)
	})...)
	all.outbox = append(all.outbox, slices.DeleteFunc(s.outbox, func(o inspectedOutgoing) bool { return !slices.Contains(n.owns, o.Partition) })...)
	return nil
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
func (n *node) snapshot(ctx context.Context) error {
	dir := filepath.Join(n.stateDir(), "snapshots")
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+n.listen+"/v1/snapshots", nil)
	if err != nil {
		return err
	}
	body, err := n.do(request)
	if err != nil {
		return err
	}
	var m struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(body, &m); err != nil || m.Name == "" {
		return fmt.Errorf("reading the answer to a snapshot: %w (%.200s)", err, body)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.snapshots = append(n.snapshots, filepath.Join(dir, m.Name))
	if len(n.snapshots) > keepSnapshots {
		err = os.RemoveAll(n.snapshots[0])
		n.snapshots = slices.Delete(n.snapshots, 0, 1)
	}
	return err
}

// taken returns how many snapshots there are to go back to.
func (n *node) taken() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.snapshots)
}

// move goes on from the i-th snapshot in a new state directory. The service must not run, and owns all partitions.
func (n *node) move(ctx context.Context, i int) error {
	n.mu.Lock()
	path := n.snapshots[i]
	// Those behind it are of a future that is to come again.
	n.snapshots = n.snapshots[:i+1]
	n.mu.Unlock()
	old := n.stateDir()
	n.states++
	if err := n.configure(); err != nil {
		return err
	}
	if _, err := n.tree.verb(ctx, "snapshot", "restore", path, "-c", n.config()); err != nil {
		return err
	}
	n.taking = n.owns
	// Announced weights lie beside the old table, and stay.
	return os.RemoveAll(filepath.Join(old, "table"))
}

// claim takes the partitions for a state that was restored whole, as an operator does whose other state is lost: another restore of the
// same snapshot may have owned them. It needs the broker, and the service down.
func (n *node) claim(ctx context.Context) error {
	if len(n.taking) == 0 {
		return nil
	}
	if err := n.take(ctx, n.taking); err != nil {
		return err
	}
	n.taking = nil
	return nil
}

func (n *node) take(ctx context.Context, partitions []int32) error {
	_, err := n.tree.verb(ctx, "partitions", "take", "-c", n.config(), "--partitions", ranges(partitions))
	return err
}
