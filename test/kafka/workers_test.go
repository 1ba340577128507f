//go:build kafka

package kafka

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"rebeca/internal/process"
)

// partitions are those of the default configuration's topics.
const partitions = 4

// flock is several workers and a trainer, each a process, on one broker.
type flock struct {
	*broker
	workers map[string]*service
}

// startFlock starts a broker with topics and a catalogue, and the trainer.
func startFlock(t *testing.T) *flock {
	t.Helper()
	f := &flock{startBroker(t), map[string]*service{}}
	trainer := f.member(t, "trainer", "roles: [trainer]", "train: {birth_steps: 100, idle_steps: 0}")
	trainer.run(t, "topics", "create", "-c", trainer.config)
	f.produce(t, "items", catalogue(rand.New(rand.NewPCG(1, 2))))
	trainer.serve(t)
	return f
}

// member configures a process of the flock.
func (f *flock) member(t *testing.T, name string, more ...string) *service {
	t.Helper()
	s := configure(t, f.Address, more...)
	s.worker = true
	f.workers[name] = s
	return s
}

// divide gives a stopped worker its partitions.
func (f *flock) divide(t *testing.T, name, partitions string) *service {
	t.Helper()
	more := fmt.Sprintf("partitions: %q", partitions)
	s := f.workers[name]
	if s == nil {
		return f.member(t, name, more)
	}
	s.write(t, f.Address, s.state(), more)
	return s
}

func (s *service) state() string { return filepath.Join(filepath.Dir(s.config), "state") }

// stop ends a worker in order.
func (s *service) stop(t *testing.T) {
	t.Helper()
	if err := s.process.Terminate(time.Minute); err != nil {
		t.Fatalf("SIGTERM: %v", err)
	}
}

// says waits until an answer of the door holds a text.
func (s *service) says(t *testing.T, path, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), settle)
	defer cancel()
	var last []byte
	err := process.Until(ctx, fmt.Sprintf("%s says %q", path, text), func() (bool, error) {
		select {
		case <-s.process.Done():
			return false, fmt.Errorf("the process ended; it said:\n%s", s.process.Tail(10))
		default:
		}
		_, last = s.ask(path)
		return bytes.Contains(last, []byte(text)), nil
	})
	if err != nil {
		t.Fatalf("%v; last: %s", err, last)
	}
}

// ask returns a page whatever its status; 0 while there is none.
func (s *service) ask(path string) (code int, body []byte) {
	response, err := http.Get(s.url() + path)
	if err != nil {
		return 0, nil
	}
	defer response.Body.Close()
	body, _ = io.ReadAll(response.Body)
	return response.StatusCode, body
}

// handOver moves a partition by a snapshot of one worker, running or not, to another, which is stopped.
func (f *flock) handOver(t *testing.T, from, to, partition string) {
	t.Helper()
	source, target := f.workers[from], f.workers[to]
	said := source.run(t, "snapshot", "create", "-c", source.config, "--partitions", partition)
	path, _, ok := strings.Cut(string(said), ": ")
	if !ok {
		t.Fatalf("snapshot create said %q", said)
	}
	target.run(t, "snapshot", "restore", "-c", target.config, "--partitions", partition, path)
}

// owner is a line of partitions list.
type owner struct {
	Partition int32
	State     string
	Epoch     uint64
	URL       string
}

func (f *flock) owners(t *testing.T) (all []owner) {
	t.Helper()
	s := f.workers["a"]
	for d := json.NewDecoder(bytes.NewReader(s.run(t, "partitions", "list", "--json", "-c", s.config))); d.More(); {
		var o owner
		if err := d.Decode(&o); err != nil {
			t.Fatal(err)
		}
		all = append(all, o)
	}
	return all
}

// fail kills the broker and starts it again while everything goes on.
func (f *flock) fail(t *testing.T) {
	t.Helper()
	f.Kill()
	if err := f.Restart(); err != nil {
		t.Fatal(err)
	}
}

// moreFolded waits until a worker has folded n events more.
func (s *service) moreFolded(t *testing.T, n int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), settle)
	defer cancel()
	from := int64(-1)
	err := process.Until(ctx, "more is folded", func() (bool, error) {
		got, err := s.status()
		if err != nil {
			return false, err
		}
		if from < 0 {
			from = got.EventsFolded
		}
		return got.EventsFolded >= from+n, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestWorkersOnApacheKafka goes from one worker process to three and to two while feedback flows, by snapshots of running and of stopped
// states; meanwhile the broker is killed once and a worker once. Rows, outputs and dead letters are those of the log.
func TestWorkersOnApacheKafka(t *testing.T) {
	f := startFlock(t)
	a := f.divide(t, "a", "0-3")
	a.serve(t)
	flow := f.start(t, 6)
	a.moreFolded(t, 100)

	// 1 → 3: a goes on until b and c have theirs.
	for _, to := range []struct{ name, partition string }{{"b", "2"}, {"c", "3"}} {
		s := f.divide(t, to.name, to.partition)
		s.start(t)
		s.says(t, "/readyz", "not_owner: partition "+to.partition)
		s.stop(t)
		f.handOver(t, "a", to.name, to.partition)
		s.serve(t)
		a.says(t, "/readyz", "not_owner: partition "+to.partition)
	}
	a.stop(t)
	f.divide(t, "a", "0-1").serve(t)
	b, c := f.workers["b"], f.workers["c"]
	c.moreFolded(t, 20)
	f.fail(t)
	for _, s := range []*service{a, b, c} {
		s.moreFolded(t, 20)
		s.ready(t)
	}
	b.process.Kill()
	b.serve(t)

	// 3 → 2: a has old rows of what comes back to it.
	c.stop(t)
	a.stop(t)
	f.handOver(t, "c", "a", "3")
	f.divide(t, "a", "0-1,3").serve(t)
	c.start(t)
	c.says(t, "/readyz", "not_owner: partition 3")
	c.stop(t)
	a.moreFolded(t, 100)
	b.moreFolded(t, 20)
	flow.stop(t)
	a.rest(t)
	b.rest(t)

	owners := f.owners(t)
	for i, want := range []struct {
		url   string
		epoch uint64
	}{{a.url(), 1}, {a.url(), 1}, {b.url(), 2}, {a.url(), 3}} {
		if o := owners[i]; int(o.Partition) != i || o.URL != want.url || o.Epoch != want.epoch {
			t.Errorf("partition %d: %+v, want %+v", i, o, want)
		}
	}
	f.checkCommits(t, "rebeca", owners)
	f.checkRows(t, map[int32]*service{0: a, 1: a, 2: b, 3: a})
	f.checkOutputs(t)
}

// checkCommits reads the group's offsets of feedback with another client: they come to the log's end, with the owner's claim as metadata.
func (f *flock) checkCommits(t *testing.T, group string, owners []owner) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(f.Address), kgo.MaxVersions(kversion.V3_0_0()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ends := map[int32]int64{}
	for _, r := range readLog(t, f.broker, "feedback") {
		ends[r.Partition] = max(ends[r.Partition], r.Offset+1)
	}
	ctx, cancel := context.WithTimeout(context.Background(), settle)
	defer cancel()
	var why string
	err = process.Until(ctx, "the group's offsets are at the log's end", func() (bool, error) {
		r := kmsg.NewPtrOffsetFetchRequest()
		r.Group = group
		topic := kmsg.NewOffsetFetchRequestTopic()
		topic.Topic, topic.Partitions = "feedback", []int32{0, 1, 2, 3}
		r.Topics = append(r.Topics, topic)
		answer, err := r.RequestWith(ctx, client)
		if err != nil {
			return false, err
		}
		why = ""
		for _, p := range answer.Topics[0].Partitions {
			var claim owner
			if p.Metadata == nil || json.Unmarshal([]byte(*p.Metadata), &claim) != nil {
				return false, fmt.Errorf("partition %d: metadata %v", p.Partition, p.Metadata)
			}
			i := slices.IndexFunc(owners, func(o owner) bool { return o.Partition == p.Partition })
			if o := owners[i]; p.Offset != ends[p.Partition] || claim.State != o.State || claim.Epoch != o.Epoch || claim.URL != o.URL {
				why = fmt.Sprintf("partition %d is at %d of %d, %+v; want %+v", p.Partition, p.Offset, ends[p.Partition], claim, o)
			}
		}
		return why == "", nil
	})
	if err != nil {
		t.Errorf("%v: %s", err, why)
	}
}

// served waits until the workers serve all partitions, each of them some, and returns whose each is.
func served(t *testing.T, workers ...*service) map[int32]*service {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), settle)
	defer cancel()
	owners := map[int32]*service{}
	err := process.Until(ctx, fmt.Sprintf("%d workers serve all partitions", len(workers)), func() (bool, error) {
		clear(owners)
		n, all := 0, true
		for _, s := range workers {
			select {
			case <-s.process.Done():
				return false, fmt.Errorf("a process ended; it said:\n%s", s.process.Tail(10))
			default:
			}
			got, err := s.status()
			if err != nil {
				return false, nil // it has not come up yet
			}
			some := false
			for _, p := range got.Partitions {
				if p.State == "serving" {
					owners[p.Partition], some = s, true
					n++
				}
			}
			all = all && some
		}
		return all && n == partitions && len(owners) == partitions, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return owners
}

// TestGroupOnApacheKafka lets members come, end and die in a group of the real coordinator while feedback flows; the broker, which is the
// coordinator, is killed once.
func TestGroupOnApacheKafka(t *testing.T) {
	f := startFlock(t)
	for _, name := range []string{"a", "b", "c"} {
		f.member(t, name, "group: flock")
	}
	a, b, c := f.workers["a"], f.workers["b"], f.workers["c"]
	a.serve(t)
	flow := f.start(t, 9)
	a.moreFolded(t, 100)
	served(t, a)
	b.start(t)
	served(t, a, b)
	c.start(t)
	served(t, a, b, c)
	f.fail(t)
	served(t, a, b, c)
	a.stop(t)
	served(t, b, c)
	a.start(t) // with rows of the past
	served(t, a, b, c)
	c.process.Kill() // noticed by its silence
	owners := served(t, a, b)
	a.moreFolded(t, 20)
	b.moreFolded(t, 20)
	flow.stop(t)
	a.rest(t)
	b.rest(t)
	claims := f.owners(t)
	for _, o := range claims {
		if o.URL != owners[o.Partition].url() {
			t.Errorf("%+v: it is served at %s", o, owners[o.Partition].url())
		}
	}
	f.checkCommits(t, "flock", claims)
	f.checkRows(t, owners)
	f.checkOutputs(t)
}
