package rebeca

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rebeca/consumer"
	"rebeca/schemas"
	"rebeca/snapshot"
	"rebeca/table"
)

// flock is several workers and a trainer over the topics of one stand.
type flock struct {
	*stand
	running map[string]*member
}

// member is one process of the flock.
type member struct {
	*Service
	config Config
	cancel context.CancelFunc
	done   chan error
}

func newFlock(t *testing.T, partitions int) *flock {
	s := newStandOf(t, partitions)
	return &flock{s, map[string]*member{}}
}

// start runs a process whose state directory has the given name; its config is
// edited first.
func (f *flock) start(name string, edit func(*Config)) *member {
	f.t.Helper()
	c := f.config
	c.State.Dir = filepath.Join(f.config.State.Dir, name)
	c.Roles = []string{RoleWorker}
	edit(&c)
	svc := New(c, Options{Logger: slog.New(slog.NewTextHandler(testLog{f.t, name}, nil)), Registry: prometheus.NewRegistry()})
	svc.lease, svc.heartbeat = time.Second, 100*time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	m := &member{svc, c, cancel, make(chan error, 1)}
	go func() { m.done <- svc.Run(ctx) }()
	f.running[name] = m
	f.t.Cleanup(func() { f.stop(name) })
	select {
	case <-svc.Serving():
	case err := <-m.done:
		m.done <- nil
		f.t.Fatalf("%s did not start: %v", name, err)
	}
	return m
}

// testLog shows a service's log with -v.
type testLog struct {
	t    *testing.T
	name string
}

func (l testLog) Write(b []byte) (int, error) {
	if testing.Verbose() && l.t.Context().Err() == nil {
		l.t.Logf("%s: %s", l.name, strings.TrimSpace(string(b)))
	}
	return len(b), nil
}

func (f *flock) stop(name string) {
	m := f.running[name]
	if m == nil {
		return
	}
	delete(f.running, name)
	m.cancel()
	select {
	case err := <-m.done:
		if err != nil {
			f.t.Errorf("%s ended with %v", name, err)
		}
	case <-time.After(30 * time.Second):
		f.t.Errorf("%s does not stop", name)
	}
}

// own is an edit that gives a worker its partitions.
func own(partitions ...int32) func(*Config) {
	return func(c *Config) { c.Partitions = partitions }
}

func (f *flock) ready(names ...string) {
	f.t.Helper()
	for _, n := range names {
		m := f.running[n]
		soon, over := context.WithTimeout(f.t.Context(), 60*time.Second)
		defer over()
		if !poll(soon, 10*time.Millisecond, func() bool { return len(m.Ready()) == 0 }) {
			f.t.Fatalf("%s is not ready after a minute: %v", n, m.Ready())
		}
	}
}

// rest waits until the workers have folded and sent everything.
func (f *flock) rest(names ...string) {
	f.t.Helper()
	f.until("at rest", func() bool {
		for _, n := range names {
			l := f.running[n].Status().Lag
			if l.Fold == nil || *l.Fold != 0 || *l.Publish != 0 {
				return false
			}
		}
		return true
	})
}

// stream sends feedback of 40 people until ctx ends, one of five records a
// resend, now and then what is no feedback, and requests; it returns how many.
func (f *flock) stream(ctx context.Context, run string) (sent chan int) {
	sent = make(chan int, 1)
	go func() {
		n := 0
		defer func() { sent <- n }()
		rng := rand.New(rand.NewPCG(5, uint64(len(run))))
		var last [][2][]byte
		for ctx.Err() == nil {
			user := fmt.Appendf(nil, "user-%d", rng.IntN(40))
			value, err := schemas.Feedback{
				EventID: fmt.Sprintf("%s-%d", run, n), UserID: string(user), ItemID: fmt.Sprintf("item-%d", rng.IntN(300)),
				Kind: schemas.KindLike, OccurredAt: time.Now(),
			}.Encode()
			if err != nil {
				panic(err)
			}
			record := [2][]byte{user, value}
			switch {
			case len(last) > 0 && rng.IntN(5) == 0:
				record = last[rng.IntN(len(last))]
			case rng.IntN(60) == 0:
				record[1] = fmt.Appendf(nil, "no JSON %s %d", run, n)
			default:
				last = append(last[max(0, len(last)-30):], record)
			}
			if err := f.put(ctx, "feedback", record[0], record[1]); err != nil {
				return
			}
			if n%15 == 0 {
				request, _ := schemas.Request{RequestID: fmt.Sprintf("%s-%d", run, n), UserID: string(user), Count: 2}.Encode()
				if err := f.put(ctx, "requests", user, request); err != nil {
					return
				}
			}
			n++
		}
	}()
	return sent
}

// put produces once; a record that may have been taken in twice is a resend.
func (f *flock) put(ctx context.Context, topic string, key, value []byte) error {
	p := schemas.Partition(key, f.config.Kafka.Partitions)
	_, err := f.client.Produce(ctx, topic, p, []consumer.Message{{Key: key, Value: value, Time: time.Now()}})
	return err
}

// facts are the rows of some partitions as a state has them.
func facts(t *testing.T, tb *table.Table, partitions []int32) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := tb.Export(func(c table.Cut) error {
		for _, prefix := range []string{"f/", "n/", "u/"} {
			if err := c.Of(partitions).Each(prefix, func(key, value []byte) error {
				out[string(key)] = string(value)
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// oracle folds the whole log, record by record, into a table of its own.
func (f *flock) oracle() *table.Table {
	f.t.Helper()
	o := f.config.TableOptions(slog.New(slog.DiscardHandler))
	o.Dir = filepath.Join(f.t.TempDir(), "oracle")
	tb, err := table.Open(o)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { tb.Close() })
	records := f.read("feedback")
	for _, r := range records {
		record := consumer.Record{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Time: r.Timestamp, Key: r.Key, Value: r.Value}
		j, err := judge(f.t.Context(), record, f.config.Kafka.Partitions, nil, new(schemas.Feedback))
		if err != nil {
			f.t.Fatal(err)
		}
		if _, err := tb.Fold(table.Batch{Topic: r.Topic, Partition: r.Partition, Next: r.Offset + 1, Records: []table.Record{j}, FreshAfter: time.Now()}); err != nil {
			f.t.Fatal(err)
		}
	}
	return tb
}

// check holds rows, outputs and dead letters against the log. Owners gives the
// worker of each partition.
func (f *flock) check(owners map[int32]string) {
	f.t.Helper()
	oracle := f.oracle()
	for p, name := range owners {
		got, want := facts(f.t, f.running[name].table, []int32{p}), facts(f.t, oracle, []int32{p})
		if len(got) != len(want) {
			f.t.Errorf("partition %d at %s has %d facts, the log gives %d", p, name, len(got), len(want))
		}
		for k, v := range want {
			if got[k] != v {
				f.t.Errorf("partition %d at %s: %q differs from the log's", p, name, k)
			}
		}
	}
	images := map[string]int{}
	for _, g := range f.generated() { // fails on an id that stands twice
		images[g.RequestID]++
	}
	asked := f.read("requests")
	for _, r := range asked {
		q, err := schemas.DecodeRequest(r.Key, r.Value)
		if err != nil {
			f.t.Fatal(err)
		}
		if images[q.RequestID] != q.Count {
			f.t.Errorf("request %s of %s (%d/%d) has %d images of %d", q.RequestID, q.UserID, r.Partition, r.Offset, images[q.RequestID], q.Count)
		}
	}
	bad := 0
	for _, r := range f.read("feedback") {
		if strings.HasPrefix(string(r.Value), "no JSON") {
			bad++
		}
	}
	for _, r := range f.read("items") {
		if strings.HasPrefix(string(r.Value), "no JSON") {
			bad++
		}
	}
	if got := f.places(); len(got) != bad {
		f.t.Errorf("%d dead letters for %d bad records", len(got), bad)
	}
	f.t.Logf("%d requests answered, %d images without a request, %d dead letters", len(asked), images[""], bad)
}

// handOver moves partitions by a snapshot of one state, running or not, into
// another, stopped one.
func (f *flock) handOver(from, to Config, partitions ...int32) {
	f.t.Helper()
	var m snapshot.Manifest
	tb, err := from.OpenTable(slog.New(slog.DiscardHandler))
	if err == nil {
		m, err = CreateSnapshot(f.t.Context(), from, tb, partitions, slog.New(slog.DiscardHandler), snapshot.Options{})
		err = errors.Join(err, tb.Close())
	} else if errors.Is(err, table.ErrLocked) {
		m, err = SnapshotRunning(f.t.Context(), from, partitions)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	path := filepath.Join(from.SnapshotDir(), m.Name)
	if _, taken, err := AdoptSnapshot(f.t.Context(), to, path, partitions, slog.New(slog.DiscardHandler), snapshot.Options{}); err != nil || !slices.Equal(taken, partitions) {
		f.t.Fatalf("adopting %v: %v, %v", partitions, taken, err)
	}
}

func (f *flock) listeningOf(name string) Config {
	m := f.running[name]
	c := m.config
	c.HTTP.Listen = m.server.Addr()
	f.t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return c
}

// trainer starts the one trainer and waits for its first version.
func (f *flock) trainer() {
	m := f.start("trainer", func(c *Config) { c.Roles = []string{RoleTrainer}; c.HTTP.Listen = "127.0.0.1:0" })
	f.until("a first version", func() bool { return m.trainer.Status().Version != "" })
}

// TestWorkersAreDivided goes from one worker to three and to two, by snapshots
// of running and of stopped states, while feedback flows: what is folded is
// what the log says, each output is there once, and none is missing.
func TestWorkersAreDivided(t *testing.T) {
	f := newFlock(t, 4)
	f.items(300)
	f.produceTo("items", 3, []byte("bad"), []byte("no JSON item"))
	f.trainer()
	f.start("a", own(0, 1, 2, 3))
	f.ready("a")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	sent := f.stream(ctx, "x")
	f.until("some is folded", func() bool { return f.running["a"].Status().EventsFolded > 150 })

	// 1 -> 3, live: a goes on until b and c have taken theirs.
	for _, to := range []struct {
		name       string
		partitions []int32
	}{{"b", []int32{2}}, {"c", []int32{3}}} {
		f.start(to.name, own(to.partitions...))
		f.until("refused", func() bool { return strings.Contains(fmt.Sprint(f.running[to.name].Ready()), "not_owner") })
		f.stop(to.name)
		c := f.config
		c.Roles, c.State.Dir = []string{RoleWorker}, filepath.Join(f.config.State.Dir, to.name)
		f.handOver(f.listeningOf("a"), c, to.partitions...)
		f.start(to.name, own(to.partitions...))
		f.ready(to.name)
		p := to.partitions[0]
		f.until("stopped by name", func() bool {
			return strings.Contains(fmt.Sprint(f.running["a"].Ready()), fmt.Sprintf("not_owner: partition %d belongs to state %s", p, f.running[to.name].table.State()))
		})
	}
	f.misdirected("a", 2)
	if p := f.running["a"].Status().Partitions; len(p) != 4 || p[0].State != stateServing || p[0].Epoch != 1 || p[2].State != stateStopped || !strings.Contains(p[2].Why, "not_owner") {
		t.Errorf("a's status says %+v", p)
	}
	a := f.running["a"].config
	f.stop("a")
	f.start("a", own(0, 1))
	f.ready("a", "b", "c")
	before := f.running["c"].Status().EventsFolded
	f.until("more is folded", func() bool { return f.running["c"].Status().EventsFolded > before+20 })

	// 3 -> 2: c ends, and its partition goes back to a, which has old rows of it.
	c := f.running["c"].config
	f.stop("c")
	f.stop("a")
	f.handOver(c, a, 3)
	f.start("a", own(0, 1, 3))
	f.ready("a", "b")
	f.start("c", own(3))
	f.until("c is refused", func() bool { return strings.Contains(fmt.Sprint(f.running["c"].Ready()), "not_owner: partition 3") })
	f.stop("c")
	f.produceTo("items", 3, []byte("bad"), []byte("no JSON item, again"))
	before = f.running["a"].Status().EventsFolded
	f.until("more is folded", func() bool { return f.running["a"].Status().EventsFolded > before+50 })
	stop()
	n := <-sent
	f.rest("a", "b")
	f.check(map[int32]string{0: "a", 1: "a", 2: "b", 3: "a"})
	t.Logf("%d records of feedback", n)
}

// misdirected asks a worker for a user of a partition that it does not own.
func (f *flock) misdirected(name string, partition int32) {
	f.t.Helper()
	user := f.userIn(partition)
	m := f.running[name]
	for _, call := range []struct{ method, path, body string }{
		{"POST", "/v1/users/" + user + "/generate", `{"count":1}`},
		{"GET", "/v1/users/" + user, ""},
		{"GET", "/v1/users/" + user + "/generated", ""},
	} {
		req, err := http.NewRequestWithContext(f.t.Context(), call.method, m.URL()+call.path, strings.NewReader(call.body))
		if err != nil {
			f.t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			f.t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		var answer struct {
			Error struct{ Code string }
			Owner string
		}
		if err := json.Unmarshal(body, &answer); err != nil || resp.StatusCode != http.StatusMisdirectedRequest ||
			answer.Error.Code != "not_owner" || answer.Owner != m.config.peerOf(partition) {
			f.t.Errorf("%s %s: %s: %s", call.method, call.path, resp.Status, body)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func (f *flock) userIn(partition int32) string {
	for i := 0; ; i++ {
		if user := fmt.Sprintf("user-%d", i); schemas.Partition([]byte(user), f.config.Kafka.Partitions) == partition {
			return user
		}
	}
}

// TestGroupRebalances lets workers come and go as members of a group while
// feedback flows.
func TestGroupRebalances(t *testing.T) {
	f := newFlock(t, 4)
	f.items(300)
	f.trainer()
	member := func(c *Config) { c.Group = "flock" }
	f.start("a", member)
	f.ready("a")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	sent := f.stream(ctx, "x")
	f.until("some is folded", func() bool { return f.running["a"].Status().EventsFolded > 100 })
	owned := func(names ...string) map[int32]string {
		f.t.Helper()
		out := map[int32]string{}
		f.until(fmt.Sprintf("all partitions are served by %v", names), func() bool {
			clear(out)
			n := 0
			for _, name := range names {
				m := f.running[name]
				some := false
				for _, sh := range m.current() {
					if state, _ := sh.now(); state == stateServing {
						out[sh.id], some, n = name, true, n+1
					}
				}
				if !some {
					return false
				}
			}
			return len(out) == 4 && n == 4
		})
		return out
	}
	owned("a")
	f.start("b", member)
	f.start("c", member)
	owned("a", "b", "c")
	before := f.running["b"].Status().EventsFolded
	f.until("more is folded", func() bool { return f.running["b"].Status().EventsFolded > before+20 })
	f.stop("a")
	owned("b", "c")
	f.start("a", member) // with rows of the past
	owned("a", "b", "c")
	f.stop("c")
	owned("a", "b")
	stop()
	n := <-sent
	last := owned("a", "b")
	f.rest("a", "b")
	f.check(last)
	t.Logf("%d records of feedback", n)
}

// TestJudge holds every decision about a partition against what may follow.
func TestJudge(t *testing.T) {
	me := owner{state: "me", writer: 5}
	claim := func(state string, epoch, writer uint64) *consumer.Claim {
		return &consumer.Claim{State: state, Epoch: epoch, Writer: writer}
	}
	released := claim("other", 4, 1)
	released.Released = true
	held := func(epoch uint64) standing { return standing{local: table.Claim{Epoch: epoch}, held: true} }
	for _, c := range []struct {
		name  string
		s     standing
		found *consumer.Claim
		epoch uint64
		err   string
	}{
		{"nobody's", standing{}, nil, 1, ""},
		{"nobody's any more", held(3), nil, 3, ""},
		{"ours", held(3), claim("me", 3, 4), 3, ""},
		{"ours, opened now", held(3), claim("me", 3, 5), 3, ""},
		{"a copy of ours was opened later", held(3), claim("me", 3, 6), 0, "older copy"},
		{"restored from theirs", held(5), claim("other", 4, 9), 5, ""},
		{"returning", held(3), claim("other", 4, 1), 0, "not_owner: partition 2 belongs to state other"},
		{"returning to one who has ended", held(3), released, 0, "not_owner"},
		{"two restored from the same", held(4), claim("other", 4, 1), 0, "not_owner"},
		{"never had it, its owner lives", standing{}, claim("other", 4, 1), 0, "not_owner"},
		{"never had it, its owner ended", standing{}, released, 5, ""},
		{"never had it, its owner is silent", standing{silent: true}, claim("other", 4, 1), 5, ""},
		{"assigned", standing{assigned: true}, claim("other", 4, 1), 5, ""},
		{"assigned, returning", standing{assigned: true, held: true, local: table.Claim{Epoch: 2}}, claim("other", 4, 1), 5, ""},
		{"half restored", standing{held: true, local: table.Claim{Epoch: 9, Partial: true}}, nil, 0, "restored by halves"},
	} {
		c.s.found = c.found
		epoch, err := me.judge(2, c.s)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, want %q", c.name, err, c.err)
			}
			continue
		}
		if err != nil || epoch != c.epoch {
			t.Errorf("%s: epoch %d, %v, want %d", c.name, epoch, err, c.epoch)
		}
		// What was judged ours must stand against what was found.
		if c.found != nil {
			if err := me.lost(2, consumer.Claim{State: "me", Epoch: epoch, Writer: 5}, c.found); err != nil {
				t.Errorf("%s: taken and lost at once: %v", c.name, err)
			}
		}
	}
}

// TestServesAfterCatchUp gives a member without a state a partition with a
// past: it answers for nobody, and makes nothing, before it has read that.
func TestServesAfterCatchUp(t *testing.T) {
	f := newFlock(t, 1)
	f.items(300)
	f.crowd("past", 3000)
	f.trainer()
	m := f.start("a", func(c *Config) { c.Group = "flock" })
	for seen := false; !seen; {
		code := f.statusOf(m, "/v1/users/user-1")
		if code == http.StatusOK {
			seen = true
			if n := m.Status().EventsFolded; n < 3000 {
				t.Fatalf("answered after %d of 3000 events", n)
			}
		} else if code != http.StatusServiceUnavailable && code != http.StatusMisdirectedRequest {
			t.Fatalf("status %d before the partition is served", code)
		}
	}
	f.ready("a")
	f.rest("a")
	for id, g := range f.generated() {
		if g.AsOf.Offset < 2999 {
			t.Errorf("image %s knows of offsets up to %d, when it was made the log held 3000", id, g.AsOf.Offset)
		}
	}
}

func (f *flock) statusOf(m *member, path string) int {
	f.t.Helper()
	resp, err := http.Get(m.URL() + path)
	if err != nil {
		f.t.Fatal(err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	return resp.StatusCode
}
