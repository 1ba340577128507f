package web

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"
)

const (
	// streamQueue is how many frames a slow page may lag behind before it loses some: a few seconds
	// of a busy gallery.
	streamQueue = 256
	// maxStreams bounds the pages open at once.
	maxStreams = 256
	// rotateEvery is how long everybody keeps their place on the stage at least.
	rotateEvery = 12 * time.Second
	// statusEvery is the beat of the live numbers and of the plots.
	statusEvery = time.Second
)

// hub takes the one subscription to the feed and hands it on to every open page. Pages see the
// people on the stage and, where they ask for one, a single user besides.
type hub struct {
	o       Options
	metrics *metrics

	mu      sync.Mutex // guards what follows
	streams map[*stream]struct{}
	stage   stage
	history history
}

// stream is one open page.
type stream struct {
	frames chan []byte
	user   string // a user besides the stage; empty for none
}

func newHub(o Options, m *metrics) *hub {
	return &hub{o: o, metrics: m, streams: map[*stream]struct{}{}, stage: newStage()}
}

// run passes events on until ctx is done.
func (h *hub) run(ctx context.Context) error {
	var feed <-chan Event
	if h.o.Feed != nil {
		feed = h.o.Feed.Subscribe(ctx)
	}
	beat, rotation := time.NewTicker(statusEvery), time.NewTicker(rotateEvery)
	defer beat.Stop()
	defer rotation.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, open := <-feed:
			if !open {
				feed = nil // ends with ctx; until then the numbers go on
				continue
			}
			h.event(ctx, e)
		case now := <-beat.C:
			h.status(ctx, now)
		case <-rotation.C:
			h.rotate(ctx)
		}
	}
}

// event goes to the pages that show its user.
func (h *hub) event(ctx context.Context, e Event) {
	if h.o.World == nil || isPerson(h.o.World, e.UserID) {
		h.mu.Lock()
		slot, joined := h.stage.active(e.UserID)
		h.mu.Unlock()
		if joined {
			h.sendCard(ctx, slot, e.UserID)
			return
		}
	}
	h.mu.Lock()
	wanted := h.wantedLocked(e.UserID)
	h.mu.Unlock()
	if len(wanted) > 0 {
		h.send(h.frameOf(e), wanted)
	}
}

func isPerson(w World, userID string) bool {
	_, ok := w.Person(userID)
	return ok
}

// wantedLocked lists the pages that show a user. The caller holds mu.
func (h *hub) wantedLocked(userID string) []*stream {
	var wanted []*stream
	staged := h.stage.has(userID)
	for s := range h.streams {
		if staged || s.user == userID {
			wanted = append(wanted, s)
		}
	}
	return wanted
}

func (h *hub) frameOf(e Event) []byte {
	if e.Feedback != nil {
		return frame("feedback", struct {
			UserID string `json:"user_id"`
			Entry
			Image string `json:"image,omitempty"`
		}{e.UserID, *e.Feedback, h.o.itemImage(e.Feedback.ItemID)})
	}
	return frame("generated", struct {
		UserID string `json:"user_id"`
		shown
	}{e.UserID, h.o.show(e.UserID, e.Generated)})
}

func (h *hub) status(ctx context.Context, now time.Time) {
	status := h.o.Status(ctx)
	h.mu.Lock()
	h.history.add(now, status)
	all := h.allLocked()
	h.mu.Unlock()
	if len(all) > 0 {
		h.send(frame("status", beatOf(now, status)), all)
	}
}

// rotate gives the oldest place on the stage to whoever was active last and is not on it.
func (h *hub) rotate(ctx context.Context) {
	h.mu.Lock()
	slot, userID, changed := h.stage.rotate()
	h.mu.Unlock()
	if changed {
		h.sendCard(ctx, slot, userID)
	}
}

func (h *hub) sendCard(ctx context.Context, slot int, userID string) {
	h.mu.Lock()
	all := h.allLocked()
	h.mu.Unlock()
	if len(all) == 0 {
		return
	}
	c, err := h.o.card(ctx, slot, userID)
	if err != nil {
		h.o.Logger.Debug("reading a person for the gallery", "user", userID, "error", err)
		return
	}
	h.send(frame("people", []card{c}), all)
}

func (h *hub) allLocked() []*stream {
	all := make([]*stream, 0, len(h.streams))
	for s := range h.streams {
		all = append(all, s)
	}
	return all
}

// send never waits: a page that lags loses frames and the counter says so.
func (h *hub) send(f []byte, to []*stream) {
	for _, s := range to {
		select {
		case s.frames <- f:
		default:
			h.metrics.dropped.Inc()
		}
	}
}

// open registers a page and returns what it starts with: the plots so far and everybody on stage.
// Registering comes first, so nothing falls between the start and the first frame; a card and a
// frame may tell the same event, which pages tell by id.
func (h *hub) open(ctx context.Context, user string) (*stream, [][]byte, error) {
	s := &stream{frames: make(chan []byte, streamQueue), user: user}
	h.mu.Lock()
	if len(h.streams) >= maxStreams {
		h.mu.Unlock()
		return nil, nil, &Error{Code: CodeBusy, Message: fmt.Sprintf("%d pages are open already", maxStreams)}
	}
	h.streams[s] = struct{}{}
	h.metrics.subscribers.Set(float64(len(h.streams)))
	points := h.history.points()
	places := h.stage.places()
	h.mu.Unlock()
	cards := []card{}
	for slot, userID := range places {
		c, err := h.o.card(ctx, slot, userID)
		if err != nil {
			h.close(s)
			return nil, nil, err
		}
		cards = append(cards, c)
	}
	now := time.Now()
	return s, [][]byte{
		frame("history", points), frame("status", beatOf(now, h.o.Status(ctx))), frame("people", cards),
	}, nil
}

func (h *hub) close(s *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.streams, s)
	h.metrics.subscribers.Set(float64(len(h.streams)))
}

// frame is one server-sent event; the JSON encoder leaves no line breaks in it.
func frame(event string, data any) []byte {
	body, err := json.Marshal(data)
	if err != nil {
		return []byte(": an event could not be encoded\n\n")
	}
	return fmt.Appendf(nil, "event: %s\ndata: %s\n\n", event, body)
}
