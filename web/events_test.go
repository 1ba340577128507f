package web

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
	"rebeca/schemas"
)

// eventReader reads server-sent events from a connection.
type eventReader struct {
	t     *testing.T
	res   *http.Response
	lines *bufio.Scanner
}

func openEvents(t *testing.T, url, token string) *eventReader {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // a missing event fails, it does not hang
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 4<<20)
	return &eventReader{t, res, lines}
}

// next returns the data of the next event of one of the kinds; others are passed over.
func (r *eventReader) next(kinds ...string) (kind string, data json.RawMessage) {
	r.t.Helper()
	for r.lines.Scan() {
		line := r.lines.Text()
		if name, ok := strings.CutPrefix(line, "event: "); ok {
			kind = name
		}
		if text, ok := strings.CutPrefix(line, "data: "); ok {
			for _, k := range kinds {
				if k == kind {
					return kind, json.RawMessage(text)
				}
			}
		}
	}
	r.t.Fatalf("the stream ended while waiting for %v: %v", kinds, r.lines.Err())
	return "", nil
}

func liked(user, item string, offset int64) Event {
	return Event{UserID: user, Feedback: &Entry{ItemID: item, Kind: schemas.KindLike, Class: "strong_positive", Offset: offset, OccurredAt: time.Unix(1_700_000_000, 0).UTC()}}
}

func TestEvents(t *testing.T) {
	f := populated()
	f.events = make(chan Event)
	loss := .5
	f.status = Status{EventsFolded: 41, Loss: &loss, PriorNumber: 2, PriorVersion: "2-ab"}
	url, stop := running(t, f.options())
	r := openEvents(t, url+"/v1/events", "")
	if got := r.res.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("content type %q", got)
	}
	r.next("history")
	if _, data := r.next("status"); !strings.Contains(string(data), `"events_folded":41`) {
		t.Errorf("status %s", data)
	}
	if _, data := r.next("people"); string(data) != "[]" {
		t.Errorf("people before anybody came: %s", data)
	}
	f.events <- liked("ada", "item-1", 10) // a visitor: not a person of the world, not on the stage
	f.events <- liked("person-1", "item-1", 11)
	var cards []card
	_, data := r.next("people", "feedback")
	if err := json.Unmarshal(data, &cards); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	if c := cards[0]; c.UserID != "person-1" || c.Caption != "red hearts" || len(c.Liked) != 1 || len(c.Got) != cardPictures || *c.Got[0].Likes != true || *c.Got[1].Likes != false {
		t.Errorf("card %s", data)
	}
	f.events <- liked("person-1", "item-2", 12)
	if _, data := r.next("feedback"); !strings.Contains(string(data), `"item_id":"item-2"`) || !strings.Contains(string(data), `"image":"data:image/png`) {
		t.Errorf("feedback %s", data)
	}
	f.events <- Event{UserID: "person-1", Generated: record("person-1", "", 3)}
	if _, data := r.next("generated"); !strings.Contains(string(data), `"likes":false`) || !strings.Contains(string(data), `"user_id":"person-1"`) {
		t.Errorf("generated %s", data)
	}
	r.next("status") // the beat goes on
	late := openEvents(t, url+"/v1/events?user=ada", "")
	if _, data := late.next("history"); !strings.Contains(string(data), `"loss":0.5`) || !strings.Contains(string(data), `"version":2`) {
		t.Errorf("history %s", data)
	}
	if _, data := late.next("people"); !strings.Contains(string(data), `"user_id":"person-1"`) {
		t.Errorf("people %s", data)
	}
	f.events <- liked("ada", "item-3", 13)
	if _, data := late.next("feedback"); !strings.Contains(string(data), `"user_id":"ada"`) {
		t.Errorf("the user asked for: %s", data)
	}
	stop() // with both streams open
	for r.lines.Scan() {
		if strings.Contains(r.lines.Text(), `"user_id":"ada"`) {
			t.Error("a stream got a user that it did not ask for")
		}
	}
}

func TestEventsNeedTheToken(t *testing.T) {
	o := newFake().options()
	o.Token = "hush"
	url, _ := running(t, o)
	if r := openEvents(t, url+"/v1/events", ""); r.res.StatusCode != 401 {
		t.Errorf("without the token: %d", r.res.StatusCode)
	}
	openEvents(t, url+"/v1/events", "hush").next("status")
}

func TestEventsAreBoundedInNumber(t *testing.T) {
	s := New(newFake().options())
	for range maxStreams {
		if _, _, err := s.hub.open(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
	}
	if a := call(t, s, "GET", "/v1/events", ""); a.code != 503 || a.errorCode() != "busy" {
		t.Errorf("one page too many: %d %s", a.code, a.body)
	}
}

func TestEventsThatCannotStart(t *testing.T) {
	f := newFake()
	s := New(f.options())
	s.hub.stage.active("broken")
	if a := call(t, s, "GET", "/v1/events", ""); a.code != 500 {
		t.Errorf("answered %d %s", a.code, a.body)
	}
	if len(s.hub.streams) != 0 {
		t.Error("the page is still counted")
	}
}

// TestSlowPagesLoseEvents: a page that takes nothing costs nobody a wait.
func TestSlowPagesLoseEvents(t *testing.T) {
	s := New(newFake().options())
	slow, _, err := s.hub.open(t.Context(), "ada")
	if err != nil {
		t.Fatal(err)
	}
	for i := range streamQueue + 10 {
		s.hub.event(t.Context(), liked("ada", "item-1", int64(i)))
	}
	if len(slow.frames) != streamQueue {
		t.Errorf("%d frames wait, the queue holds %d", len(slow.frames), streamQueue)
	}
	if a := call(t, s, "GET", "/metrics", ""); !strings.Contains(string(a.body), "rebeca_http_events_dropped_total 10") {
		t.Error("the ten lost frames are not counted")
	}
}

// TestStage: places are stable, nobody stands twice, and a rotation moves one place only.
func TestStage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newStage()
		for range rapid.IntRange(0, 300).Draw(t, "steps") {
			before := s.places()
			if rapid.Bool().Draw(t, "rotates") {
				slot, user, changed := s.rotate()
				for i, u := range s.places() {
					if moved := changed && i == slot; moved != (u != before[i]) || (moved && u != user) {
						t.Fatalf("rotation of %d: place %d went from %s to %s", slot, i, before[i], u)
					}
				}
			} else {
				user := fmt.Sprint("u", rapid.IntRange(0, 99).Draw(t, "user"))
				slot, joined := s.active(user)
				if joined && (len(before) >= stageSize || s.places()[slot] != user) {
					t.Fatalf("%s joined at %d of %v", user, slot, s.places())
				}
				for i, u := range before {
					if s.places()[i] != u {
						t.Fatalf("%s was moved by %s", u, user)
					}
				}
			}
			seen := map[string]bool{}
			for _, u := range append(s.places(), s.recent...) {
				if seen[u] {
					t.Fatalf("%s stands twice: %v %v", u, s.places(), s.recent)
				}
				seen[u] = true
			}
			if len(s.places()) > stageSize || len(s.recent) > stageQueue {
				t.Fatalf("%d places, %d candidates", len(s.places()), len(s.recent))
			}
		}
	})
}

// TestHistory: bounded for ever, in order, and the start of the run stays on the plot.
func TestHistory(t *testing.T) {
	var h history
	start := time.Unix(1_700_000_000, 0)
	for i := range 20_000 {
		h.add(start.Add(time.Duration(i)*time.Second), Status{PriorNumber: int64(i)})
		if len(h.ring) >= historySize || h.ring[0].At != start.UnixMilli() {
			t.Fatalf("after %d beats: %d points from %d", i+1, len(h.ring), h.ring[0].At)
		}
	}
	for i := 1; i < len(h.ring); i++ {
		if step := h.ring[i].At - h.ring[i-1].At; step != int64(h.every)*1000 {
			t.Fatalf("point %d comes after %d ms, the rest after %d s", i, step, h.every)
		}
	}
	if last := h.ring[len(h.ring)-1].Version; last < 19_999-int64(h.every) {
		t.Errorf("the last point is of beat %d", last)
	}
}
