package web

import (
	"errors"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"
)

const like = `{"event_id":"e1","user_id":"ada","item_id":"item-1","kind":"like","occurred_at":"2026-01-02T03:04:05Z"}`

func TestPostFeedback(t *testing.T) {
	tests := []struct {
		name, body string
		code       int
		results    []string // status, or reason of refusal, by record
		errorCode  string
	}{
		{"one", like, 202, []string{"accepted"}, ""},
		{"batch", `{"records":[` + like + `,` + like + `]}`, 202, []string{"accepted", "accepted"}, ""},
		{"some refused", `{"records":[` + like + `,{"user_id":"ada","item_id":"i","kind":"adore"},{"user_id":"bob","item_id":"i","kind":"skip"}]}`,
			202, []string{"accepted", "unknown_kind", "accepted"}, ""},
		{"all refused", `{"records":[{"item_id":"i","kind":"like"},{"user_id":"a","kind":"like"}]}`, 400, []string{"missing_field", "missing_field"}, "missing_field"},
		{"without id and time", `{"user_id":"ada","item_id":"i","kind":"like"}`, 202, []string{"accepted"}, ""},
		{"null id and time", `{"event_id":null,"occurred_at":null,"user_id":"ada","item_id":"i","kind":"like"}`, 202, []string{"accepted"}, ""},
		{"unknown fields", `{"user_id":"ada","item_id":"i","kind":"like","mood":{"deep":[1]}}`, 202, []string{"accepted"}, ""},
		{"unicode ids", `{"user_id":"アダ","item_id":"ünï/ко?d","kind":"save"}`, 202, []string{"accepted"}, ""},
		{"malformed", `{"user_id":`, 400, nil, "bad_json"},
		{"nothing", ``, 400, nil, "bad_json"},
		{"array", `[` + like + `]`, 400, nil, "bad_json"},
		{"null", `null`, 400, nil, "bad_json"},
		{"number", `7`, 400, nil, "bad_json"},
		{"records is no array", `{"records":{}}`, 400, nil, "bad_type"},
		{"records is empty", `{"records":[]}`, 400, nil, "missing_field"},
		{"record is no object", `{"records":[7,` + like + `]}`, 202, []string{"bad_json", "accepted"}, ""},
		{"record is null", `{"records":[null]}`, 400, []string{"bad_json"}, "bad_json"},
		{"user is a number", `{"user_id":7,"item_id":"i","kind":"like"}`, 400, []string{"bad_type"}, "bad_type"},
		{"event id is a number", `{"event_id":7,"user_id":"a","item_id":"i","kind":"like"}`, 400, []string{"bad_type"}, "bad_type"},
		{"user is empty", `{"user_id":"","item_id":"i","kind":"like"}`, 400, []string{"missing_field"}, "missing_field"},
		{"user is too long", `{"user_id":"` + strings.Repeat("u", 257) + `","item_id":"i","kind":"like"}`, 400, []string{"bad_id"}, "bad_id"},
		{"rating out of range", `{"user_id":"a","item_id":"i","kind":"rating","value":6}`, 400, []string{"bad_value"}, "bad_value"},
		{"NaN", `{"user_id":"a","item_id":"i","kind":"rating","value":NaN}`, 400, nil, "bad_json"},
		{"1970", `{"user_id":"a","item_id":"i","kind":"like","occurred_at":"1970-01-01T00:00:00Z"}`, 400, []string{"bad_time"}, "bad_time"},
		{"2100", `{"user_id":"a","item_id":"i","kind":"like","occurred_at":"2100-01-01T00:00:00Z"}`, 400, []string{"bad_time"}, "bad_time"},
		{"5 MiB", `{"user_id":"` + strings.Repeat("u", 5<<20) + `"}`, 413, nil, "too_large"},
		{"1,001 records", `{"records":[` + strings.Repeat(like+",", 1000) + like + `]}`, 413, nil, "too_large"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake()
			a := call(t, New(f.options()), "POST", "/v1/feedback", tt.body)
			if a.code != tt.code || a.errorCode() != tt.errorCode {
				t.Fatalf("answered %d %s, want %d %q", a.code, a.body, tt.code, tt.errorCode)
			}
			var got feedbackAnswer
			a.decode(t, &got)
			if len(got.Results) != len(tt.results) {
				t.Fatalf("%d results, want %d: %s", len(got.Results), len(tt.results), a.body)
			}
			accepted := 0
			for i, r := range got.Results {
				if label := resultLabel(r); label != tt.results[i] {
					t.Errorf("record %d: %s, want %s", i, label, tt.results[i])
				}
				if r.Status == "accepted" {
					if *r.Offset != int64(accepted) || f.feedback[accepted].EventID != r.EventID {
						t.Errorf("record %d is said to be %d/%d, event %q", i, *r.Partition, *r.Offset, r.EventID)
					}
					accepted++
				}
			}
			if accepted != len(f.feedback) {
				t.Errorf("%d records produced, %d said to be accepted", len(f.feedback), accepted)
			}
		})
	}
}

func TestPostFeedbackFillsInIDAndTime(t *testing.T) {
	f := newFake()
	s := New(f.options())
	before := time.Now()
	for range 2 {
		call(t, s, "POST", "/v1/feedback", `{"user_id":"ada","item_id":"i","kind":"like"}`)
	}
	first, second := f.feedback[0], f.feedback[1]
	uuid := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	if !uuid.MatchString(first.EventID) || first.EventID == second.EventID {
		t.Errorf("event ids %q and %q", first.EventID, second.EventID)
	}
	if first.OccurredAt.Before(before.Add(-time.Millisecond)) || first.OccurredAt.After(time.Now()) {
		t.Errorf("occurred_at %v is not now", first.OccurredAt)
	}
	given := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	call(t, s, "POST", "/v1/feedback", like)
	if got := f.feedback[2]; got.EventID != "e1" || !got.OccurredAt.Equal(given) {
		t.Errorf("what was given was changed: %+v", got)
	}
}

func TestPostFeedbackWithoutBroker(t *testing.T) {
	f := newFake()
	down := errors.New("dialing 127.0.0.1:9092: connection refused")
	f.feedbackErr = func(int) error { return down }
	s := New(f.options())
	a := call(t, s, "POST", "/v1/feedback", `{"records":[`+like+`,{"user_id":7}]}`)
	var got feedbackAnswer
	a.decode(t, &got)
	if a.code != 503 || a.errorCode() != "broker_unavailable" || got.Results[0].Reason != "broker_unavailable" || got.Results[1].Reason != "bad_type" {
		t.Errorf("answered %d %s", a.code, a.body)
	}
	f.feedbackErr = func(i int) error { // one partition of two is without a leader
		if i == 0 {
			return down
		}
		return nil
	}
	a = call(t, s, "POST", "/v1/feedback", `{"records":[`+like+`,`+like+`]}`)
	a.decode(t, &got)
	if a.code != 202 || got.Results[0].Reason != "broker_unavailable" || got.Results[1].Status != "accepted" {
		t.Errorf("answered %d %s", a.code, a.body)
	}
	f.feedbackErr = func(int) error { return &Error{Code: CodeNotReady, Message: "starting"} }
	if a = call(t, s, "POST", "/v1/feedback", like); a.errorCode() != "not_ready" {
		t.Errorf("a known error became %s", a.body)
	}
}

// FuzzPostFeedback: no body makes the door fail, and what it says was accepted was produced.
func FuzzPostFeedback(f *testing.F) {
	for _, seed := range []string{like, `{"records":[` + like + `]}`, `{"records":[{}, null, 3]}`, `{"records":"x"}`, `{"event_id":{}}`, "\xff", ``} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		backend := newFake()
		w := httptest.NewRecorder()
		New(backend.options()).Handler().ServeHTTP(w, httptest.NewRequest("POST", "http://localhost/v1/feedback", strings.NewReader(string(body))))
		a := answer{w.Code, w.Header(), w.Body.Bytes()}
		holdAgainstOpenAPI(t, "POST", "/v1/feedback", a)
		accepted := 0
		var got feedbackAnswer
		a.decode(t, &got)
		for _, r := range got.Results {
			if r.Status == "accepted" {
				accepted++
			}
		}
		if accepted != len(backend.feedback) || (w.Code == 202) != (accepted > 0) {
			t.Fatalf("answered %d, %d accepted, %d produced", w.Code, accepted, len(backend.feedback))
		}
	})
}
