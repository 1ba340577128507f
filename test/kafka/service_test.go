//go:build kafka

package kafka

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/twmb/franz-go/pkg/kgo"

	"rebeca/internal/process"
	"rebeca/schemas"
)

// settle bounds every wait for the service to catch up or to become ready; on an idle machine these take seconds.
const settle = 3 * time.Minute

// service is a configuration of the binary, and the process while it runs.
type service struct {
	binary, config, listen, log string
	kafka                       string // further keys of kafka, each behind a comma
	worker                      bool   // it does not train
	process                     *process.Process
}

// configure writes a small configuration for a broker at address. more are further lines of it.
func configure(t *testing.T, address string, more ...string) *service {
	t.Helper()
	binary, err := process.Binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := &service{binary: binary, config: filepath.Join(dir, "rebeca.yaml"), listen: freeAddress(t), log: filepath.Join(dir, "rebeca.log")}
	s.write(t, address, filepath.Join(dir, "state"), more...)
	t.Cleanup(func() {
		if s.process != nil {
			s.process.Kill()
		}
		if t.Failed() {
			text, _ := os.ReadFile(s.log)
			t.Logf("the service said:\n%s", text[max(0, len(text)-8000):])
		}
	})
	return s
}

// write writes the configuration, anew where there is one.
func (s *service) write(t *testing.T, address, state string, more ...string) {
	t.Helper()
	text := fmt.Sprintf("kafka: {brokers: [%q]%s}\nstate: {dir: %q}\nprior: {dim: %d}\nhttp: {listen: %q, advertise: %q}\n%s\n",
		address, s.kafka, state, dim, s.listen, s.url(), strings.Join(more, "\n"))
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *service) url() string { return "http://" + s.listen }

// run runs a verb to its end and returns what it printed on standard output.
func (s *service) run(t *testing.T, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), settle)
	defer cancel()
	var out, said bytes.Buffer
	cmd := exec.CommandContext(ctx, s.binary, args...)
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		t.Fatalf("rebeca %s: %v\n%s", strings.Join(args, " "), err, said.String())
	}
	return out.Bytes()
}

// start starts the service.
func (s *service) start(t *testing.T) {
	t.Helper()
	var err error
	if s.process, err = process.Start(s.log, s.binary, "serve", "-c", s.config); err != nil {
		t.Fatal(err)
	}
}

// serve starts the service and waits until it is ready.
func (s *service) serve(t *testing.T) {
	t.Helper()
	s.start(t)
	s.ready(t)
}

func (s *service) ready(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), settle)
	defer cancel()
	if _, err := s.process.Answers(ctx, "http://"+s.listen+"/readyz"); err != nil {
		t.Fatal(err)
	}
}

// status is what /v1/status tells at least.
type status struct {
	Lag          struct{ Fold, Publish, Train *int64 } `json:"lag"`
	PriorVersion string                                `json:"prior_version"`
	EventsFolded int64                                 `json:"events_folded"`
	Partitions   []struct {
		Partition int32
		State     string
	}
	Stopped []struct{ Partition, Code, Message string }
}

func (s *service) status() (status, error) {
	response, err := http.Get("http://" + s.listen + "/v1/status")
	if err != nil {
		return status{}, err
	}
	defer response.Body.Close()
	var got status
	return got, json.NewDecoder(response.Body).Decode(&got)
}

// rest waits until nothing is left to fold, to publish and to learn.
func (s *service) rest(t *testing.T) status {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), settle)
	defer cancel()
	var got status
	since := time.Time{}
	err := process.Until(ctx, "all lags are 0", func() (bool, error) {
		var err error
		if got, err = s.status(); err != nil {
			return false, err
		}
		if !zero(got.Lag.Fold) || !zero(got.Lag.Publish) || !s.worker && !zero(got.Lag.Train) {
			since = time.Time{}
			return false, nil
		}
		// The log's end may be 200 ms old, so 0 counts when it has stayed.
		if since.IsZero() {
			since = time.Now()
		}
		return time.Since(since) > time.Second, nil
	})
	if err != nil {
		t.Fatalf("%v; last: %s", err, marshal(got))
	}
	return got
}

// killWhileFolding ends the service at the first moment when it says that records wait to be folded, or when all of them are sent.
func (s *service) killWhileFolding(t *testing.T, sent <-chan struct{}) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), settle)
	defer cancel()
	var got status
	err := process.Until(ctx, "the service is behind", func() (bool, error) {
		select {
		case <-sent:
			return true, nil
		default:
		}
		var err error
		got, err = s.status()
		return !zero(got.Lag.Fold), err
	})
	s.process.Kill()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("killed at %s", marshal(got))
}

func zero(n *int64) bool { return n != nil && *n == 0 }

func TestServeAgainstApacheKafka(t *testing.T) {
	b := startBroker(t)
	s := configure(t, b.Address, "train: {birth_steps: 100}") // idle steps go on beside all that follows
	rng := rand.New(rand.NewPCG(1, 2))

	created := s.run(t, "topics", "create", "-c", s.config)
	again := s.run(t, "topics", "create", "-c", s.config)
	t.Logf("topics create: %s; again: %s", bytes.TrimSpace(created), bytes.TrimSpace(again))

	b.produce(t, "items", catalogue(rng))
	s.serve(t)
	b.produce(t, "feedback", stream(rng, 0, 1000))
	rotten := spoiltRecords()
	for _, r := range rotten {
		b.produce(t, r.topic, []message{r.message})
	}
	misplaced := b.misplace(t, userID(2))
	b.produce(t, "feedback", stream(rng, 1000, 200))
	b.produce(t, "requests", []message{{userID(3), marshal(map[string]any{"request_id": "three", "user_id": userID(3), "count": 3})}})
	if got := s.rest(t); got.PriorVersion == "" {
		t.Fatalf("all lags are 0 and no prior was announced: %s", marshal(got))
	}

	t.Run("dead letters", func(t *testing.T) { checkDeadLetters(t, b.consume(t, "deadletter"), rotten, misplaced) })
	t.Run("generated", func(t *testing.T) {
		records := b.consume(t, "generated")
		checkGenerated(t, records)
		answers := slices.DeleteFunc(decodeGenerated(t, records), func(g schemas.Generated) bool { return g.RequestID != "three" })
		if len(answers) != 3 {
			t.Errorf("the request for 3 got %d", len(answers))
		}
		for _, g := range answers {
			if g.UserID != userID(3) || g.Trigger != schemas.TriggerRequest {
				t.Errorf("an answer to the request of %s: %+v", userID(3), g)
			}
		}
	})
	t.Run("kill", func(t *testing.T) { killAndCompare(t, b, s, rng) })
}

// misplace writes an event of user into a partition that its key does not hash to.
func (b *broker) misplace(t *testing.T, user string) int32 {
	t.Helper()
	partition := (schemas.Partition([]byte(user), 4) + 1) % 4
	e := happened{EventID: "spoilt", UserID: user, ItemID: itemID(0), Kind: "like", OccurredAt: time.Now().UTC().Format(time.RFC3339)}
	cmd := exec.Command("kcat", "-P", "-b", b.Address, "-t", "feedback", "-K", "\t", "-p", fmt.Sprint(partition))
	cmd.Stdin = strings.NewReader(user + "\t" + marshal(e) + "\n")
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("kcat -P -p %d: %v\n%s", partition, err, said)
	}
	return partition
}

// checkDeadLetters wants exactly one dead letter for each spoilt record, with its bytes, its reason and its place.
func checkDeadLetters(t *testing.T, got []record, rotten []spoilt, misplaced int32) {
	type fact struct{ topic, reason, key, payload string }
	want := map[fact]int{}
	for _, r := range rotten {
		want[fact{r.topic, r.reason, r.key, r.value}]++
	}
	for _, r := range got {
		f := fact{r.header("rebeca-topic"), r.header("rebeca-reason"), r.Key, r.Payload}
		if f.reason == "wrong_partition" {
			if r.header("rebeca-partition") != fmt.Sprint(misplaced) {
				t.Errorf("the record in the wrong partition %d: headers %v", misplaced, r.Headers)
			}
			misplaced = -1
			continue
		}
		if want[f]--; want[f] < 0 {
			t.Errorf("a dead letter too many: %+v, headers %v", f, r.Headers)
		}
		if r.header("rebeca-message") == "" || r.header("rebeca-offset") == "" {
			t.Errorf("a dead letter without a message or an offset: %v", r.Headers)
		}
	}
	for f, n := range want {
		if n > 0 {
			t.Errorf("no dead letter for %+v", f)
		}
	}
	if misplaced >= 0 {
		t.Error("no dead letter for the record in the wrong partition")
	}
}

// checkGenerated holds each record against the published schema, its key against its user, and its id against all others.
func checkGenerated(t *testing.T, records []record) {
	t.Helper()
	text, err := schemas.Files.ReadFile("generated.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("generated.json", document); err != nil {
		t.Fatal(err)
	}
	schema := compiler.MustCompile("generated.json")
	if len(records) == 0 {
		t.Fatal("nothing was generated")
	}
	ids := map[string]bool{}
	for i, g := range decodeGenerated(t, records) {
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(records[i].Payload))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(value); err != nil {
			t.Errorf("a record breaks the schema: %v\n%s", err, records[i].Payload)
		}
		switch {
		case ids[g.ID]:
			t.Errorf("id %s came twice; again as %s", g.ID, records[i].Payload)
		case records[i].Key != g.UserID:
			t.Errorf("key %q, user %q", records[i].Key, g.UserID)
		case len(g.Embedding) != dim:
			t.Errorf("%d dimensions", len(g.Embedding))
		case g.Image != nil:
			t.Error("an image without a decoder")
		case records[i].header("ce_id") != g.ID:
			t.Errorf("header ce_id is %q, the id %q", records[i].header("ce_id"), g.ID)
		}
		ids[g.ID] = true
	}
	t.Logf("%d records generated", len(records))
}

func decodeGenerated(t *testing.T, records []record) []schemas.Generated {
	t.Helper()
	var all []schemas.Generated
	for _, r := range records {
		g, err := schemas.DecodeGenerated([]byte(r.Payload))
		if err != nil {
			t.Fatalf("%v\n%s", err, r.Payload)
		}
		all = append(all, g)
	}
	return all
}

// killAndCompare ends the service without warning while events arrive, three times, and compares what it holds at rest with a fold
// of the same log that never stopped.
func killAndCompare(t *testing.T, b *broker, s *service, rng *rand.Rand) {
	for n := range 3 {
		events := stream(rng, 10_000*(n+1), 5000)
		sent := make(chan struct{})
		var fault error // of the producer; read after sent
		go func() {
			defer close(sent)
			fault = b.send("feedback", events)
		}()
		s.killWhileFolding(t, sent)
		if <-sent; fault != nil {
			t.Fatal(fault)
		}
		s.serve(t)
	}
	s.rest(t)
	checkGenerated(t, b.consume(t, "generated"))
	if err := s.process.Terminate(30 * time.Second); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
	want := foldLog(t, readLog(t, b, "feedback"))
	events := compareRows(t, inspectUsers(t, s), want)
	t.Logf("%d events of %d users are folded once each, after 3 kills", events, len(want))
}

// compareRows holds what a service has of users against the log, and returns how many events they have.
func compareRows(t *testing.T, got map[string]inspected, want map[string]*counts) (events int) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d users, want %d", len(got), len(want))
	}
	for user, w := range want {
		events += w.events
		g := got[user]
		if g.Events != w.events || g.Positives != w.positives || g.Negatives != w.negatives {
			t.Errorf("%s: %d events, %d positives, %d negatives; want %d, %d, %d", user, g.Events, g.Positives, g.Negatives, w.events, w.positives, w.negatives)
		}
		tail := w.window[max(0, len(w.window)-len(g.LastEvents)):]
		if len(g.LastEvents) == 0 || !slices.Equal(g.LastEvents, tail) {
			t.Errorf("%s: last events %v; want the end of %v", user, g.LastEvents, w.window)
		}
		if g.PriorVersion == "" || g.VectorNorm <= 0 {
			t.Errorf("%s has no vector: %+v", user, g)
		}
	}
	return events
}

// inspected is a line of `inspect users --json`.
type inspected struct {
	UserID       string  `json:"user_id"`
	Events       int     `json:"events"`
	Positives    int     `json:"positives"`
	Negatives    int     `json:"negatives"`
	LastEvents   []entry `json:"last_events"`
	VectorNorm   float64 `json:"vector_norm"`
	PriorVersion string  `json:"prior_version"`
}

func inspectUsers(t *testing.T, s *service) map[string]inspected {
	t.Helper()
	all := map[string]inspected{}
	lines := bufio.NewScanner(bytes.NewReader(s.run(t, "inspect", "users", "-c", s.config, "--json")))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var u inspected
		if err := json.Unmarshal(lines.Bytes(), &u); err != nil {
			t.Fatalf("inspect users --json printed %q: %v", lines.Text(), err)
		}
		all[u.UserID] = u
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// readLog reads a topic to its present end with another client than the service's, each partition in its order.
func readLog(t *testing.T, b *broker, topic string) []record {
	t.Helper()
	want := len(b.consume(t, topic))
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Address), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), settle)
	defer cancel()
	var log []record
	for len(log) < want {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("reading %s: %v", topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			log = append(log, record{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Key: string(r.Key), Payload: string(r.Value)})
		})
	}
	return log
}

func TestServeWithoutABrokerSaysSo(t *testing.T) {
	s := configure(t, freeAddress(t))
	for _, verb := range [][]string{{"serve"}, {"topics", "create"}} {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		var said bytes.Buffer
		cmd := exec.CommandContext(ctx, s.binary, append(verb, "-c", s.config)...)
		cmd.Stderr = &said
		err := cmd.Run()
		var code *exec.ExitError
		if !errors.As(err, &code) || ctx.Err() != nil {
			t.Errorf("%v: %v within 10 s (%v)", verb, err, ctx.Err())
		}
		// Log lines may come first; the last line is the answer.
		lines := strings.Split(strings.TrimSpace(said.String()), "\n")
		if last := lines[len(lines)-1]; !strings.Contains(last, "127.0.0.1") {
			t.Errorf("%v: the last line does not name the broker: %q", verb, last)
		}
		t.Logf("%v: %s", verb, said.String())
	}
}
