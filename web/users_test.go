package web

import (
	"encoding/json"
	"math"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"rebeca/schemas"
)

func populated() *fake {
	f := newFake()
	norm := 2.5
	f.users["ada"] = User{UserID: "ada", Partition: 1, Events: 3, Positives: 2, Negatives: 1, VectorNorm: &norm, PriorVersion: "1-abc", LastEvents: []Entry{
		{ItemID: "item-1", Kind: schemas.KindLike, Class: "strong_positive", Offset: 4, OccurredAt: time.Unix(1_700_000_000, 0).UTC()},
		{ItemID: "gone", Kind: schemas.KindDislike, Class: "strong_negative", Offset: 7, OccurredAt: time.Unix(1_700_000_001, 0).UTC()},
	}}
	f.users["new"] = User{UserID: "new"}
	person := f.users["ada"]
	person.UserID = "person-1"
	f.users["person-1"] = person
	for n := range 20 {
		f.generated["ada"] = append(f.generated["ada"], record("ada", "", 20-n))
		f.generated["person-1"] = append(f.generated["person-1"], record("person-1", "", 20-n))
	}
	f.generated["asked"] = []json.RawMessage{record("asked", "r1", 1)}
	return f
}

func TestReads(t *testing.T) {
	tests := []struct {
		path      string
		code      int
		errorCode string
		holds     []string // parts of the body
	}{
		{"/v1/users/ada", 200, "", []string{`"events":3`, `"positives":2`, `"item_id":"item-1","kind":"like","class":"strong_positive","offset":4`, `"vector_norm":2.5`, `"prior_version":"1-abc"`, `"older_likes":[]`}},
		{"/v1/users/new", 200, "", []string{`"last_events":[]`, `"vector_norm":null`, `"prior_version":null`}},
		{"/v1/users/nobody", 404, "unknown_user", []string{"nobody"}},
		{"/v1/users/broken", 500, "internal", []string{"checksum"}},
		{"/v1/users/panics", 500, "internal", []string{"log"}},
		{"/v1/users/ada/generated", 200, "", []string{`"items":[{"id":"` + schemas.ID(schemas.Source{Topic: "requests", Partition: 1, Offset: 20}, 0)}},
		{"/v1/users/asked/generated", 200, "", []string{`"request_id":"r1"`}},
		{"/v1/users/new/generated", 200, "", []string{`"items":[]`}},
		{"/v1/users/nobody/generated", 404, "unknown_user", nil},
		{"/v1/users/ada/generated?limit=0", 400, "bad_request", []string{"limit"}},
		{"/v1/users/ada/generated?limit=1001", 400, "bad_request", nil},
		{"/v1/users/ada/generated?limit=many", 400, "bad_request", nil},
		{"/v1/users/ada/generated?limit=-1", 400, "bad_request", nil},
		{"/v1/items/item-1/image", 200, "", []string{"png of item-1"}},
		{"/v1/items/nothing/image", 404, "not_found", nil},
		{"/v1/demo/pictures?n=3&seed=1", 200, "", []string{`"id":"item-b"`, `"image":"data:image/png;base64,cG5n`}},
		{"/v1/demo/pictures?n=65", 400, "bad_request", nil},
		{"/v1/demo/pictures?seed=x", 400, "bad_request", nil},
		{"/v1/gallery/users/ada", 200, "", []string{`"caption":""`, `"likes":null`, `"pictures":{"item-1":"data:image/png;base64,`}},
		{"/v1/gallery/users/person-1", 200, "", []string{`"caption":"red hearts"`, `"likes":true`, `"likes":false`}},
		{"/v1/gallery/users/asked", 200, "", []string{`"user":null`}},
		{"/v1/gallery/users/nobody", 404, "unknown_user", nil},
		{"/v1/gallery/users/broken", 500, "internal", nil},
		{"/v1/inspect/users", 200, "", []string{`{"user_id":"ada"}`}},
		{"/v1/inspect/secrets", 404, "not_found", []string{"offsets"}},
		{"/healthz", 200, "", []string{`"ok"`}},
		{"/openapi.yaml", 200, "", []string{"openapi: 3.1.0"}},
		{"/", 200, "", []string{"<!doctype html>"}},
		{"/assets/main.js", 200, "", []string{"import"}},
		{"/assets/nothing.js", 404, "not_found", nil},
		{"/assets/..%2Fopenapi.yaml", 404, "not_found", nil},
		{"/v2/users", 404, "not_found", nil},
	}
	for _, tt := range tests {
		t.Run(strings.Trim(tt.path, "/"), func(t *testing.T) {
			a := call(t, New(populated().options()), "GET", tt.path, "")
			if a.code != tt.code || a.errorCode() != tt.errorCode {
				t.Fatalf("answered %d %s, want %d %q", a.code, a.body, tt.code, tt.errorCode)
			}
			for _, part := range tt.holds {
				if !strings.Contains(string(a.body), part) {
					t.Errorf("lacks %s:\n%s", part, a.body)
				}
			}
		})
	}
}

func TestGeneratedLimit(t *testing.T) {
	for path, want := range map[string]int{"": 8, "?limit=3": 3, "?limit=1000": 20} {
		var got itemsAnswer
		call(t, New(populated().options()), "GET", "/v1/users/ada/generated"+path, "").decode(t, &got)
		if len(got.Items) != want {
			t.Errorf("%q: %d items, want %d", path, len(got.Items), want)
		}
	}
}

func TestWithoutCataloguePictures(t *testing.T) {
	o := populated().options()
	o.Pictures, o.Explorer, o.World = nil, nil, nil
	s := New(o)
	for _, path := range []string{"/v1/items/item-1/image", "/v1/demo/pictures"} {
		w := httptest.NewRecorder() // described, not mounted: not held against the description
		s.Handler().ServeHTTP(w, httptest.NewRequest("GET", "http://localhost"+path, nil))
		if w.Code != 404 {
			t.Errorf("%s answers %d", path, w.Code)
		}
	}
	if a := call(t, s, "GET", "/v1/gallery/users/person-1", ""); a.code != 200 || !strings.Contains(string(a.body), `"pictures":{}`) {
		t.Errorf("answered %d %s", a.code, a.body)
	}
}

func TestStatus(t *testing.T) {
	f := newFake()
	s := New(f.options())
	if a := call(t, s, "GET", "/v1/status", ""); !strings.Contains(string(a.body), `"lag":{"fold":null,"publish":null,"train":null}`) || !strings.Contains(string(a.body), `"prior_version":null`) {
		t.Errorf("before anything is known: %s", a.body)
	}
	zero, nan, loss := int64(0), math.NaN(), .25
	f.status = Status{Lag: Lag{&zero, &zero, &zero}, PriorVersion: "3-ff", Step: 9, Loss: &loss, LikedShare: &nan, EventToImage: &Quantiles{P50: 9, P99: math.Inf(1)}}
	a := call(t, s, "GET", "/v1/status", "")
	for _, part := range []string{`"lag":{"fold":0,"publish":0,"train":0}`, `"prior_version":"3-ff"`, `"step":9`, `"loss":0.25`, `"liked_share":null`, `"event_to_image_ms":null`} {
		if !strings.Contains(string(a.body), part) {
			t.Errorf("lacks %s: %s", part, a.body)
		}
	}
}

func TestReady(t *testing.T) {
	f := newFake()
	s := New(f.options())
	if a := call(t, s, "GET", "/readyz", ""); a.code != 200 {
		t.Errorf("ready: %d %s", a.code, a.body)
	}
	f.reasons = []Reason{{"catching_up", "partition 2 is 40 records behind"}, {"broker_unavailable", "no answer for 3 s"}}
	a := call(t, s, "GET", "/readyz", "")
	if a.code != 503 || a.errorCode() != "not_ready" || !strings.Contains(string(a.body), "no answer for 3 s") {
		t.Errorf("not ready: %d %s", a.code, a.body)
	}
}
