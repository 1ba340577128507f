package rebeca

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rebeca/internal/ort"
	"rebeca/schemas"
	"rebeca/table"
	"rebeca/web"
)

func testRuntime(t *testing.T) ort.Options {
	t.Helper()
	if err := DefaultConfig().OpenRuntime(); err != nil {
		t.Fatal(err)
	}
	return ort.Options{Threads: 1}
}

func testGenerator(t *testing.T, c Config) *generator {
	t.Helper()
	c.State.Dir, c.Prior.Dim = t.TempDir(), 4
	tb, err := table.Open(c.TableOptions(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tb.Close(); err != nil {
			t.Error(err)
		}
	})
	g := newGenerator(c, tb, newProgress(4), nil, newMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
	for p := range tb.Partitions() {
		if err := g.open(p); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

func feedbackIntent(seq uint64, at time.Time) []table.Intent {
	return []table.Intent{{Seq: seq, UserID: "u", Trigger: schemas.TriggerFeedback, Count: 1, At: at}}
}

// TestDebounce offers events of a user one after another, each superseding the
// one before: one intent is left, the newest, due after the quiet and never
// later than the longest wait.
func TestDebounce(t *testing.T) {
	c := DefaultConfig()
	g := testGenerator(t, c)
	at := time.Now()
	g.offer(0, feedbackIntent(1, at), nil)
	for seq := uint64(2); seq <= 5; seq++ {
		g.offer(0, feedbackIntent(seq, at.Add(time.Duration(seq))), []uint64{seq - 1})
	}
	g.offer(0, []table.Intent{{Seq: 6, UserID: "u", Trigger: schemas.TriggerRequest, Count: 3}}, nil)
	if n := len(g.queue.plain) + len(g.asked.plain); n != 2 || len(g.byID) != 2 {
		t.Fatalf("%d intents are queued, %d by name, want 2", n, len(g.byID))
	}
	now := time.Now()
	batch, until := g.take(now)
	if len(batch) != 1 || batch[0].Seq != 6 || batch[0].n != 3 {
		t.Fatalf("at once due: %+v, want the request alone", batch)
	}
	if until > c.Generate.Debounce {
		t.Errorf("nothing more is due for %s, above the debounce", until)
	}
	batch, _ = g.take(now.Add(c.Generate.MaxWait))
	if len(batch) != 1 || batch[0].Seq != 5 {
		t.Fatalf("after the longest wait due: %+v, want the newest intent alone", batch)
	}
	if !batch[0].oldest.Equal(at) {
		t.Errorf("its latency counts from %s, the first event was at %s", batch[0].oldest, at)
	}
	if batch, _ = g.take(now.Add(time.Hour)); len(batch) != 0 {
		t.Errorf("superseded intents came up: %+v", batch)
	}
}

// TestDebounceIsBounded keeps a user busy without a pause.
func TestDebounceIsBounded(t *testing.T) {
	c := DefaultConfig()
	c.Generate.Debounce, c.Generate.MaxWait = time.Hour, 2*time.Hour
	g := testGenerator(t, c)
	g.offer(0, feedbackIntent(1, time.Now()), nil)
	first := g.byID[intentID{0, 1}]
	began := first.since
	first.since = began.Add(-90 * time.Minute)
	g.offer(0, feedbackIntent(2, time.Now()), []uint64{1})
	if wait := g.byID[intentID{0, 2}].due.Sub(began); wait > 31*time.Minute {
		t.Errorf("due %s after the first event was seen, the longest wait leaves 30 minutes", wait)
	}
}

// TestEveryIntentComesUp offers what a crash may leave of a user (one intent
// that was in flight and one that waited) and lets a batch fail: all come up.
func TestEveryIntentComesUp(t *testing.T) {
	g := testGenerator(t, DefaultConfig())
	g.offer(0, append(feedbackIntent(1, time.Now()), feedbackIntent(2, time.Now())...), nil)
	later := time.Now().Add(time.Minute)
	batch, _ := g.take(later)
	if len(batch) != 2 {
		t.Fatalf("%d of 2 intents come up", len(batch))
	}
	g.offer(0, feedbackIntent(3, time.Now()), nil)
	g.again(batch, later)
	if batch, _ = g.take(later.Add(time.Minute)); len(batch) != 3 {
		t.Errorf("%d of 3 intents come up after a batch failed", len(batch))
	}
}

// TestLargeRequestsGoInChunks holds a request of a thousand beside feedback.
func TestLargeRequestsGoInChunks(t *testing.T) {
	g := testGenerator(t, DefaultConfig())
	g.offer(0, []table.Intent{{Seq: 1, UserID: "big", Trigger: schemas.TriggerRequest, Count: 1000}}, nil)
	g.offer(0, feedbackIntent(2, time.Now()), nil)
	later := time.Now().Add(time.Minute)
	batch, _ := g.take(later)
	if len(batch) != 2 || batch[0].n != chunkImages || batch[1].Seq != 2 {
		t.Fatalf("the first batch is %+v, want a chunk of the request and the feedback", batch)
	}
	made := 0
	for chunks := 0; ; chunks++ {
		if chunks > 100 {
			t.Fatal("the request never ends")
		}
		big := batch[0]
		if big.from != made || big.n > chunkImages {
			t.Fatalf("chunk %d makes %d from %d, %d are made", chunks, big.n, big.from, made)
		}
		made += big.n
		big.made = append(big.made, make([]schemas.Generated, big.n)...)
		if made == 1000 {
			break
		}
		g.again(batch[:1], later)
		batch, _ = g.take(later)
	}
}

// TestRequestsWaitForTheirFeedback holds back a request until its `after` is folded.
func TestRequestsWaitForTheirFeedback(t *testing.T) {
	g := testGenerator(t, DefaultConfig())
	p := g.progress
	g.offer(0, []table.Intent{{Seq: 1, UserID: "u", Trigger: schemas.TriggerRequest, Count: 1, After: &schemas.Position{Partition: 2, Offset: 7}}}, nil)
	now := time.Now()
	if batch, _ := g.take(now); len(batch) != 0 {
		t.Fatal("the request did not wait")
	}
	p.set(2, 7)
	if batch, _ := g.take(now.Add(time.Second)); len(batch) != 0 {
		t.Fatal("the request did not wait for the record itself")
	}
	p.set(2, 8)
	if batch, _ := g.take(now.Add(2 * time.Second)); len(batch) != 1 {
		t.Fatal("the request does not come up after its feedback is folded")
	}
}

// TestTrackerLatency works out latencies by hand.
func TestTrackerLatency(t *testing.T) {
	tr := newTracker()
	start := time.Now()
	ms := func(n int) time.Time { return start.Add(time.Duration(n) * time.Millisecond) }
	tr.events = []trackedEvent{{"a", 1, ms(0)}, {"a", 2, ms(50)}, {"b", 9, ms(60)}}
	tr.images = []trackedImage{{user: "b", asOf: 8, at: ms(70)}, {user: "a", asOf: 2, at: ms(150)}, {user: "b", asOf: 12, at: ms(100)}}
	q := tr.latency(start)
	if q == nil || q.P50 != 100 || q.P99 != 150 {
		t.Errorf("latencies are %+v, want 100 in the middle and 150 at the end", q)
	}
	tr.events = append(tr.events, trackedEvent{"c", 3, ms(80)})
	if q := tr.latency(start); q != nil {
		t.Errorf("one of four events has no image and the latency is %+v", q)
	}
	if q := tr.latency(time.Time{}); q != nil {
		t.Errorf("there was no version and the latency is %+v", q)
	}
}

func TestImportResumes(t *testing.T) {
	s := newStand(t)
	file := filepath.Join(t.TempDir(), "events.jsonl")
	var lines strings.Builder
	for i := range 2500 {
		fmt.Fprintf(&lines, `{"event_id":"e%d","user_id":"u%d","item_id":"i","kind":"like","occurred_at":"2026-01-01T00:00:00Z"}`+"\n", i, i%7)
	}
	if err := os.WriteFile(file, []byte(lines.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	parsed := 0
	im := Import{
		Client: s.client, Topic: "feedback", Partitions: 2, StateDir: s.config.State.Dir,
		Parse: func(line []byte) ([]byte, error) {
			if parsed++; parsed == 1500 {
				return nil, fmt.Errorf("pulled the plug")
			}
			return FeedbackLine(line)
		},
	}
	if _, err := im.Run(t.Context(), file); err == nil || !strings.Contains(err.Error(), "line 1500") {
		t.Fatalf("the error does not name the line: %v", err)
	}
	res, err := im.Run(t.Context(), file)
	if err != nil || !res.Resumed || res.Produced != 1500 {
		t.Errorf("the second run gives %+v, %v; want 1500 resumed", res, err)
	}
	if _, err := im.Run(t.Context(), file); err == nil || !strings.Contains(err.Error(), "before") {
		t.Errorf("a third run says %v", err)
	}
	got := map[string]int{}
	for _, r := range s.read("feedback") {
		f, err := schemas.DecodeFeedback(r.Key, r.Value, r.Timestamp)
		if err != nil {
			t.Fatal(err)
		}
		got[f.EventID]++
	}
	if len(got) != 2500 {
		t.Errorf("%d of 2500 events arrived", len(got))
	}
}

func TestImportSkipsBadLines(t *testing.T) {
	s := newStand(t)
	file := filepath.Join(t.TempDir(), "events.jsonl")
	good := `{"event_id":"e","user_id":"u","item_id":"i","kind":"like","occurred_at":"2026-01-01T00:00:00Z"}`
	long := strings.Repeat("x", 3<<20)
	if err := os.WriteFile(file, []byte(good+"\n\n{\n"+long+"\n"+good), 0o644); err != nil {
		t.Fatal(err)
	}
	var bad []int
	im := Import{
		Client: s.client, Topic: "feedback", Partitions: 2, StateDir: s.config.State.Dir, Parse: FeedbackLine,
		Skip: true, OnBad: func(line int, _ error) { bad = append(bad, line) },
	}
	res, err := im.Run(t.Context(), file)
	if err != nil || res.Produced != 2 || fmt.Sprint(bad) != "[3 4]" {
		t.Errorf("%+v, bad lines %v, %v; want 2 sent and lines 3 and 4 bad", res, bad, err)
	}
}

// TestAwaitTogether has callers of one request id come and go while its records
// are published: nobody hangs, nobody misses them.
func TestAwaitTogether(t *testing.T) {
	d := &door{subscribers: map[chan web.Event]struct{}{}}
	for round := range 200 {
		id := fmt.Sprint("r", round)
		value := []byte(fmt.Sprintf(`{"id":"i%d","request_id":"%s"}`, round, id))
		var wg sync.WaitGroup
		for caller := range 4 {
			wg.Go(func() {
				d.expect(requestKey("u", id))
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				if caller == 0 {
					cancel() // one gives up at once
				}
				if items, err := d.Await(ctx, "u", id, 1); caller > 0 && (err != nil || len(items) != 1) {
					t.Errorf("caller %d of %s: %d items, %v", caller, id, len(items), err)
				}
			})
		}
		d.expect(requestKey("u", id))
		d.published([]table.Outgoing{{Message: table.Message{Role: table.RoleGenerated, Key: []byte("u"), Value: value}}})
		wg.Wait()
	}
	d.answers.swept = time.Time{}
	d.answers.of("another", time.Now().Add(2*awaitLimit))
	if len(d.answers.by) != 1 {
		t.Errorf("%d answers are kept that nobody awaits", len(d.answers.by))
	}
}
