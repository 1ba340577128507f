package rebeca

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rebeca/internal/ort"
	"rebeca/schemas"
	"rebeca/table"
)

func testRuntime(t *testing.T) ort.Options {
	t.Helper()
	if err := DefaultConfig().OpenRuntime(); err != nil {
		t.Fatal(err)
	}
	return ort.Options{Threads: 1}
}

// TestDebounce offers events of a user one after another: one intent is left,
// the newest, due after the quiet and never later than the longest wait.
func TestDebounce(t *testing.T) {
	c := DefaultConfig()
	c.State.Dir, c.Prior.Dim = t.TempDir(), 4
	tb, err := table.Open(c.TableOptions(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	defer tb.Close()
	g := newGenerator(c, tb, newProgress(4), nil, newMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
	at := time.Now()
	for seq := range uint64(5) {
		g.offer([]table.Intent{{Seq: seq + 1, UserID: "u", Trigger: schemas.TriggerFeedback, Count: 1, At: at.Add(time.Duration(seq))}})
	}
	g.offer([]table.Intent{{Seq: 6, UserID: "u", Trigger: schemas.TriggerRequest, Count: 3}})
	now := time.Now()
	batch, until := g.take(now)
	if len(batch) != 1 || batch[0].Seq != 6 {
		t.Fatalf("at once due: %+v, want the request alone", batch)
	}
	if until > c.Generate.Debounce {
		t.Errorf("nothing more is due for %s, above the debounce", until)
	}
	batch, _ = g.take(now.Add(c.Generate.MaxWait))
	if len(batch) != 1 || batch[0].Seq != 5 {
		t.Fatalf("after the longest wait due: %+v, want the newest intent alone", batch)
	}
	if first := g.oldest[outgoingID{0, 5}]; !first.Equal(at) {
		t.Errorf("its latency counts from %s, the first event was at %s", first, at)
	}
	if batch, _ = g.take(now.Add(time.Hour)); len(batch) != 0 {
		t.Errorf("superseded intents came up: %+v", batch)
	}
}

// TestDebounceIsBounded keeps a user busy without a pause.
func TestDebounceIsBounded(t *testing.T) {
	c := DefaultConfig()
	c.Generate.Debounce, c.Generate.MaxWait = time.Hour, 2*time.Hour
	g := newGenerator(c, nil, newProgress(1), nil, newMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
	g.offer([]table.Intent{{Seq: 1, UserID: "u", Trigger: schemas.TriggerFeedback, Count: 1}})
	first := g.waiting["u"].first
	g.waiting["u"].first = first.Add(-90 * time.Minute)
	g.offer([]table.Intent{{Seq: 2, UserID: "u", Trigger: schemas.TriggerFeedback, Count: 1}})
	due := g.queue[0].due
	for _, q := range g.queue {
		if q.Seq == 2 {
			due = q.due
		}
	}
	if wait := due.Sub(first); wait > 31*time.Minute {
		t.Errorf("due %s after the second event, the longest wait leaves 30 minutes", wait)
	}
}

// TestRequestsWaitForTheirFeedback holds back a request until its `after` is folded.
func TestRequestsWaitForTheirFeedback(t *testing.T) {
	c := DefaultConfig()
	c.State.Dir, c.Prior.Dim = t.TempDir(), 4
	tb, err := table.Open(c.TableOptions(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	defer tb.Close()
	p := newProgress(4)
	g := newGenerator(c, tb, p, nil, newMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
	g.offer([]table.Intent{{Seq: 1, UserID: "u", Trigger: schemas.TriggerRequest, Count: 1, After: &schemas.Position{Partition: 2, Offset: 7}}})
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
