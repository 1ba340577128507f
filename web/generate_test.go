package web

import (
	"errors"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"rebeca/schemas"
)

func TestPostGenerate(t *testing.T) {
	own := schemas.Partition([]byte("ada"), 4)
	foreign := `{"count":1,"after":{"partition":` + string(rune('0'+(own+1)%4)) + `,"offset":3}}`
	tests := []struct {
		name, body string
		prepare    func(*fake, *Options)
		code       int
		errorCode  string
	}{
		{"eight", `{"count":8}`, nil, 200, ""},
		{"everything", `{"request_id":"r1","user_id":"ada","count":2,"rating":"dislike","seed":9007199254740992,"guidance":1.5,"images":true}`, nil, 200, ""},
		{"embeddings only", `{"count":1,"images":false}`, func(_ *fake, o *Options) { o.Images = false }, 200, ""},
		{"no decoder", `{"count":1,"images":true}`, func(_ *fake, o *Options) { o.Images = false }, 400, "no_decoder"},
		{"count is missing", `{}`, nil, 400, "missing_field"},
		{"count is 0", `{"count":0}`, nil, 400, "bad_count"},
		{"count is 1,001", `{"count":1001}`, nil, 400, "bad_count"},
		{"count is a half", `{"count":0.5}`, nil, 400, "bad_count"},
		{"count is text", `{"count":"8"}`, nil, 400, "bad_type"},
		{"rating", `{"count":1,"rating":"love"}`, nil, 400, "bad_rating"},
		{"guidance", `{"count":1,"guidance":0}`, nil, 400, "bad_guidance"},
		{"seed", `{"count":1,"seed":-1}`, nil, 400, "bad_seed"},
		{"after is foreign", foreign, nil, 400, "bad_after"},
		{"after is negative", `{"count":1,"after":{"partition":0,"offset":-1}}`, nil, 400, "bad_after"},
		{"after lacks the offset", `{"count":1,"after":{"partition":0}}`, nil, 400, "missing_field"},
		{"after is text", `{"count":1,"after":"0/1"}`, nil, 400, "bad_type"},
		{"another user", `{"count":1,"user_id":"bob"}`, nil, 400, "key_mismatch"},
		{"malformed", `{"count":`, nil, 400, "bad_json"},
		{"nothing", ``, nil, 400, "bad_json"},
		{"array", `[]`, nil, 400, "bad_json"},
		{"5 MiB", `{"count":1,"pad":"` + strings.Repeat("x", 5<<20) + `"}`, nil, 413, "too_large"},
		{"no prior", `{"count":1}`, func(f *fake, _ *Options) { f.requestErr = &Error{Code: CodeNoPrior, Message: "nothing yet"} }, 503, "no_prior"},
		{"not owner", `{"count":1}`, func(f *fake, _ *Options) { f.requestErr = &Error{Code: CodeNotOwner, Message: "elsewhere"} }, 421, "not_owner"},
		{"rejected by the backend", `{"count":1}`, func(f *fake, _ *Options) {
			f.requestErr = &schemas.Rejection{Reason: schemas.ReasonBadAfter, Message: "beyond the end"}
		}, 400, "bad_after"},
		{"broker away", `{"count":1}`, func(f *fake, _ *Options) { f.requestErr = errors.New("connection refused") }, 503, "broker_unavailable"},
		{"no answer", `{"count":1}`, func(f *fake, _ *Options) { f.silent = true }, 504, "generate_timeout"},
		{"feedback not folded", `{"count":1,"after":{"partition":` + string(rune('0'+own)) + `,"offset":3}}`, func(f *fake, _ *Options) { f.silent = true }, 504, "after_timeout"},
		{"folded, no answer", `{"count":1,"after":{"partition":` + string(rune('0'+own)) + `,"offset":3}}`, func(f *fake, _ *Options) { f.silent, f.reached = true, true }, 504, "generate_timeout"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake()
			o := f.options()
			if tt.prepare != nil {
				tt.prepare(f, &o)
			}
			a := call(t, New(o), "POST", "/v1/users/ada/generate", tt.body)
			if a.code != tt.code || a.errorCode() != tt.errorCode {
				t.Fatalf("answered %d %s, want %d %q", a.code, a.body, tt.code, tt.errorCode)
			}
			if a.code == 400 && len(f.requests) > 0 {
				t.Errorf("a refused request was produced")
			}
			if a.code != 200 {
				return
			}
			var got itemsAnswer
			a.decode(t, &got)
			if len(got.Items) != f.requests[0].Count || f.requests[0].UserID != "ada" || f.requests[0].RequestID == "" {
				t.Errorf("request %+v got %d items", f.requests[0], len(got.Items))
			}
		})
	}
}

func TestPostGenerateIsIdempotent(t *testing.T) {
	f := newFake()
	s := New(f.options())
	first := call(t, s, "POST", "/v1/users/ada/generate", `{"request_id":"r1","count":3}`)
	f.requestErr = errors.New("connection refused") // memory answers even without the broker
	again := call(t, s, "POST", "/v1/users/ada/generate", `{"request_id":"r1","count":3}`)
	if first.code != 200 || !slices.Equal(first.body, again.body) || len(f.requests) != 1 {
		t.Errorf("%d requests produced; first %d %s\nagain %d %s", len(f.requests), first.code, first.body, again.code, again.body)
	}
	f.requestErr = nil
	call(t, s, "POST", "/v1/users/ada/generate", `{"count":1}`)
	call(t, s, "POST", "/v1/users/ada/generate", `{"count":1}`)
	if len(f.requests) != 3 || f.requests[1].RequestID == f.requests[2].RequestID {
		t.Errorf("requests without an id must be different ones: %+v", f.requests)
	}
}

func TestPostGenerateTakesAnyUserID(t *testing.T) {
	f := newFake()
	a := call(t, New(f.options()), "POST", "/v1/users/a%2Fb%20%C3%BC/generate", `{"count":1}`)
	if a.code != 200 || f.requests[0].UserID != "a/b ü" {
		t.Errorf("answered %d %s for %+v", a.code, a.body, f.requests)
	}
	a = call(t, New(f.options()), "POST", "/v1/users/"+strings.Repeat("u", 300)+"/generate", `{"count":1}`)
	if a.errorCode() != "bad_id" {
		t.Errorf("a user id of 300 bytes: %s", a.body)
	}
}

// FuzzPostGenerate: no body makes the door fail, and only valid requests are produced.
func FuzzPostGenerate(f *testing.F) {
	for _, seed := range []string{`{"count":8}`, `{"count":1,"after":{"partition":0,"offset":1}}`, `{"seed":1e400}`, `{"images":1}`, `[]`, "\x00"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		backend := newFake()
		w := httptest.NewRecorder()
		New(backend.options()).Handler().ServeHTTP(w, httptest.NewRequest("POST", "http://localhost/v1/users/ada/generate", strings.NewReader(string(body))))
		holdAgainstOpenAPI(t, "POST", "/v1/users/ada/generate", answer{w.Code, w.Header(), w.Body.Bytes()})
		for _, r := range backend.requests {
			if err := r.Validate(); err != nil {
				t.Fatalf("produced %+v: %v", r, err)
			}
		}
	})
}
