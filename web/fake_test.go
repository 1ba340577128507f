package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"rebeca/schemas"
)

// fake stands for the rest of the service: it folds nothing and remembers what was produced.
type fake struct {
	mu        sync.Mutex // guards what follows
	feedback  []schemas.Feedback
	requests  []schemas.Request
	answered  map[string][]json.RawMessage // by request id
	users     map[string]User
	generated map[string][]json.RawMessage // newest first

	feedbackErr func(i int) error // why a record is not taken; nil takes all
	requestErr  error
	snapshotErr error
	silent      bool // requests get no answer
	reached     bool
	reasons     []Reason
	status      Status
	events      chan Event // nil: no feed
}

func newFake() *fake {
	return &fake{answered: map[string][]json.RawMessage{}, users: map[string]User{}, generated: map[string][]json.RawMessage{}}
}

func (f *fake) Feedback(_ context.Context, records []schemas.Feedback) ([]schemas.Position, []error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	places, errs := make([]schemas.Position, len(records)), make([]error, len(records))
	for i, r := range records {
		if f.feedbackErr != nil {
			if errs[i] = f.feedbackErr(i); errs[i] != nil {
				continue
			}
		}
		places[i] = schemas.Position{Partition: schemas.Partition([]byte(r.UserID), 4), Offset: int64(len(f.feedback))}
		f.feedback = append(f.feedback, r)
	}
	return places, errs
}

func (f *fake) Request(_ context.Context, r schemas.Request) (schemas.Position, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.requestErr != nil {
		return schemas.Position{}, f.requestErr
	}
	f.requests = append(f.requests, r)
	if !f.silent {
		for i := range r.Count {
			f.answered[r.RequestID] = append(f.answered[r.RequestID], record(r.UserID, r.RequestID, len(f.requests)*1000+i))
		}
	}
	return schemas.Position{Offset: int64(len(f.requests))}, nil
}

func (f *fake) Recall(_ context.Context, _, requestID string) ([]json.RawMessage, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	items, ok := f.answered[requestID]
	return items, ok, nil
}

func (f *fake) Await(ctx context.Context, userID, requestID string, _ int) ([]json.RawMessage, error) {
	if items, ok, _ := f.Recall(ctx, userID, requestID); ok {
		return items, nil
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

func (f *fake) Reached(schemas.Position) bool { return f.reached }

func (f *fake) User(_ context.Context, id string) (User, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if id == "broken" {
		return User{}, false, errors.New("reading a row: checksum mismatch")
	}
	if id == "panics" {
		panic("table: a bug")
	}
	u, ok := f.users[id]
	return u, ok, nil
}

func (f *fake) Generated(_ context.Context, id string, limit int) ([]json.RawMessage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	items := f.generated[id]
	return items[:min(limit, len(items))], nil
}

func (f *fake) Item(id string) ([]byte, bool) {
	return []byte("png of " + id), strings.HasPrefix(id, "item-")
}

func (f *fake) Explore(n int, seed uint64) []ItemPicture {
	var out []ItemPicture
	for i := range n {
		id := "item-" + string(rune('a'+(int(seed%26)+i)%26))
		out = append(out, ItemPicture{id, []byte("png of " + id)})
	}
	return out
}

func (f *fake) Person(id string) (Person, bool) {
	return Person{UserID: id, Caption: "red hearts"}, strings.HasPrefix(id, "person-")
}

func (f *fake) Judge(id string, e []float32) (likes, ok bool) {
	return e[0] > 0, strings.HasPrefix(id, "person-")
}

func (f *fake) Inspect(_ string, w io.Writer) error {
	_, err := io.WriteString(w, `{"user_id":"ada"}`+"\n")
	return err
}

func (f *fake) Snapshot(context.Context, string) (any, error) {
	if f.snapshotErr != nil {
		return nil, f.snapshotErr
	}
	return map[string]string{"name": "2026-01-02"}, nil
}

func (f *fake) PromotePrior(_ context.Context, number int64, hold time.Duration) (any, error) {
	if number == 404 {
		return nil, &Error{Code: CodeNotFound, Message: "no such version"}
	}
	return map[string]string{"version": fmt.Sprintf("%d held %s", number, hold)}, nil
}

// Subscribe hands out the one channel that the test fills.
func (f *fake) Subscribe(ctx context.Context) <-chan Event {
	out := make(chan Event)
	go func() {
		defer close(out)
		for {
			select {
			case e := <-f.events:
				select {
				case out <- e:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

func (f *fake) options() Options {
	reg := prometheus.NewRegistry()
	o := Options{
		Listen: "127.0.0.1:0", Producer: f, Results: f, Users: f, Pictures: f, Explorer: f, World: f, Operator: f, Stored: f,
		Status:     func(context.Context) Status { return f.status },
		Ready:      func(context.Context) []Reason { return f.reasons },
		Partitions: 4, Images: true, Timeout: 20 * time.Millisecond,
		Gatherer: reg, Registerer: reg,
	}
	if f.events != nil {
		o.Feed = f
	}
	return o
}

// record is a valid record of `generated`; even numbers are to people's taste.
func record(user, request string, n int) json.RawMessage {
	sign := float32(1)
	if n%2 == 1 {
		sign = -1
	}
	source := schemas.Source{Topic: "requests", Partition: 1, Offset: int64(n)}
	trigger := schemas.TriggerRequest
	if request == "" {
		trigger = schemas.TriggerFeedback
	}
	raw, err := schemas.Generated{
		ID: schemas.ID(source, 0), UserID: user, RequestID: request, Trigger: trigger, Embedding: []float32{sign, 2},
		Image: &schemas.Image{MediaType: "image/png", Width: 64, Height: 64, SHA256: strings.Repeat("ab", 32), Data: []byte("png")},
		Seed:  7, Guidance: 4, Steps: 8, PriorVersion: "1-abc", EventsFolded: 3,
		AsOf: schemas.Position{Partition: 1, Offset: 9}, Source: source, CreatedAt: time.Unix(1_700_000_000, 0),
	}.Encode()
	if err != nil {
		panic("web: encoding a test record: " + err.Error())
	}
	return raw
}

// answer is one response, read to its end.
type answer struct {
	code   int
	header http.Header
	body   []byte
}

// errorCode is the code in the one error shape, empty where there is none.
func (a answer) errorCode() string {
	var e struct{ Error Error }
	_ = json.Unmarshal(a.body, &e)
	return string(e.Error.Code)
}

func (a answer) decode(t *testing.T, v any) {
	t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		t.Fatalf("decoding %s: %v", a.body, err)
	}
}

// call sends a request to the door and holds the answer against openapi.yaml.
func call(t *testing.T, s *Server, method, target, body string, header ...string) answer {
	t.Helper()
	r := httptest.NewRequest(method, "http://localhost"+target, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	res := w.Result()
	content, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{res.StatusCode, res.Header, content}
	holdAgainstOpenAPI(t, method, r.URL.EscapedPath(), a)
	return a
}
