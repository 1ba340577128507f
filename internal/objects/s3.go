// Package objects is an object server for tests: as much of the S3 protocol as a client needs that puts, gets and deletes whole objects.
package objects

import (
	"bufio"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Server holds objects by bucket/key. It may be told to refuse.
type Server struct {
	http *httptest.Server

	mu      sync.Mutex
	objects map[string]object // guarded by mu
	puts    map[string]int    // guarded by mu
	refuse  int               // guarded by mu; status of every answer, 0: none is refused
}

type object struct {
	data      []byte
	mediaType string
}

// Start returns a running server; Close ends it.
func Start() *Server {
	s := &Server{objects: map[string]object{}, puts: map[string]int{}}
	s.http = httptest.NewServer(s)
	return s
}

// Close stops the server.
func (s *Server) Close() { s.http.Close() }

// URL is that of a bucket, for gocloud.dev/blob. The client's credentials come from the environment: any will do.
func (s *Server) URL(bucket, prefix string) string {
	q := url.Values{"endpoint": {s.http.URL}, "region": {"eu-central-1"}, "use_path_style": {"true"}}
	if prefix != "" {
		q.Set("prefix", prefix)
	}
	return "s3://" + bucket + "?" + q.Encode()
}

// Refuse has every request answered with a status, from now on; 0 ends that.
func (s *Server) Refuse(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = status
}

// Object returns the bytes and the type under bucket/key.
func (s *Server) Object(name string) (data []byte, mediaType string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[name]
	return o.data, o.mediaType, ok
}

// Set puts bytes under bucket/key.
func (s *Server) Set(name string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects[name] = object{data: data}
}

// Names counts how often each object that is there was put.
func (s *Server) Names() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]int{}
	for name := range s.objects {
		out[name] = s.puts[name]
	}
	return out
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := content(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	name := strings.TrimPrefix(r.URL.Path, "/")
	switch {
	case s.refuse != 0:
		fail(w, s.refuse, "Refused")
	case err != nil:
		fail(w, http.StatusBadRequest, "IncompleteBody")
	case r.Method == http.MethodPut:
		sum := md5.Sum(body)
		if want := r.Header.Get("Content-MD5"); want != "" && want != base64.StdEncoding.EncodeToString(sum[:]) {
			fail(w, http.StatusBadRequest, "BadDigest")
			return
		}
		s.objects[name] = object{body, r.Header.Get("Content-Type")}
		s.puts[name]++
		w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:])+`"`)
	case r.Method == http.MethodDelete:
		delete(s.objects, name)
		w.WriteHeader(http.StatusNoContent)
	default:
		o, ok := s.objects[name]
		if !ok {
			fail(w, http.StatusNotFound, "NoSuchKey")
			return
		}
		w.Header().Set("Content-Type", o.mediaType)
		w.Header().Set("Content-Length", strconv.Itoa(len(o.data)))
		w.Header().Set("Last-Modified", time.Unix(0, 0).UTC().Format(http.TimeFormat))
		if r.Method == http.MethodGet {
			_, _ = w.Write(o.data)
		}
	}
}

func fail(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>%s</Message></Error>", code, code)
}

// content reads a body, of the form aws-chunked too: chunks of a hexadecimal size and a signature, then trailers.
func content(r *http.Request) ([]byte, error) {
	if !strings.HasPrefix(r.Header.Get("X-Amz-Content-Sha256"), "STREAMING-") {
		return io.ReadAll(r.Body)
	}
	var out []byte
	b := bufio.NewReader(r.Body)
	for {
		line, err := b.ReadString('\n')
		if err != nil {
			return nil, err
		}
		size, _, _ := strings.Cut(strings.TrimSpace(line), ";")
		n, err := strconv.ParseInt(size, 16, 32)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return out, nil
		}
		chunk := make([]byte, n+2)
		if _, err := io.ReadFull(b, chunk); err != nil {
			return nil, err
		}
		out = append(out, chunk[:n]...)
	}
}
