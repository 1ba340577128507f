package web

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
)

func (f *fake) Image(_ context.Context, sha256 string) ([]byte, string, bool, error) {
	switch sha256[0] {
	case 'a':
		return []byte("\x89PNG"), "image/png", true, nil
	case 'b':
		return nil, "", false, &Error{Code: CodeBucket, Message: "the bucket is away"}
	}
	return nil, "", false, nil
}

func TestImage(t *testing.T) {
	s := New(newFake().options())
	path := func(c string) string { return "/v1/images/" + strings.Repeat(c, 64) }
	got := call(t, s, "GET", path("a"), "")
	if got.code != 200 || string(got.body) != "\x89PNG" || got.header.Get("Content-Type") != "image/png" {
		t.Fatalf("%+v", got)
	}
	if c := got.header.Get("Cache-Control"); !strings.Contains(c, "immutable") || !strings.Contains(c, "private") {
		t.Errorf("Cache-Control is %q", c)
	}
	tag := got.header.Get("ETag")
	if tag != `"`+strings.Repeat("a", 64)+`"` {
		t.Errorf("ETag is %q", tag)
	}
	r, w := httptest.NewRequest("GET", "http://localhost"+path("a"), nil), httptest.NewRecorder()
	r.Header.Set("If-None-Match", tag)
	if s.Handler().ServeHTTP(w, r); w.Code != 304 || w.Body.Len() != 0 {
		t.Errorf("with the tag: %d, %q", w.Code, w.Body)
	}
	for _, c := range []struct {
		path, code string
		want       int
	}{
		{path("b"), "bucket_unavailable", 503},
		{path("c"), "not_found", 404},
		{path("A"), "bad_request", 400},
		{path("a") + "a", "bad_request", 400},
		{"/v1/images/..%2f..%2fetc%2fpasswd", "bad_request", 400},
	} {
		if got := call(t, s, "GET", c.path, ""); got.code != c.want || got.errorCode() != c.code {
			t.Errorf("%s: %d %s", c.path, got.code, got.errorCode())
		}
	}
}
