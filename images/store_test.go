package images

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rebeca/internal/objects"
)

func openStore(t *testing.T, url, base string) *Store {
	t.Helper()
	s, err := Open(t.Context(), url, base)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func file(t *testing.T, f Format, id string) File {
	t.Helper()
	out, err := f.Encode(gradient(64, 64), id)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func s3(t *testing.T) *objects.Server {
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	server := objects.Start()
	t.Cleanup(server.Close)
	return server
}

// TestStore holds the two kinds of buckets to the same: what is written is read back under its hash, once, and gone when deleted.
func TestStore(t *testing.T) {
	server, dir := s3(t), t.TempDir()
	for _, c := range []struct{ name, url, base, uri string }{
		{"file", "file://" + dir + "/a", "", "file://" + dir + "/a/"},
		{"file with a prefix", "file://" + dir + "/b?prefix=x/y-", "", "file://" + dir + "/b/x/y-"},
		{"s3", server.URL("pictures", ""), "", "s3://pictures/"},
		{"s3 with a prefix and a door", server.URL("pictures", "made/"), "https://pictures.example/", "https://pictures.example/"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := openStore(t, c.url, c.base)
			for _, f := range []File{file(t, Format{MediaType: PNG}, "a"), file(t, Format{MediaType: JPEG, Quality: 80}, "a")} {
				if _, _, err := s.Get(t.Context(), f.Sum); !errors.Is(err, ErrNotFound) {
					t.Fatalf("before: %v", err)
				}
				for range 2 { // a repeated attempt writes the same
					if err := s.Put(t.Context(), f); err != nil {
						t.Fatal(err)
					}
				}
				data, mediaType, err := s.Get(t.Context(), f.Sum)
				if err != nil || mediaType != f.MediaType || !bytes.Equal(data, f.Data) {
					t.Fatalf("read back: %d bytes, %s, %v", len(data), mediaType, err)
				}
				if got := s.URI(f.Sum); got != c.uri+f.Sum.String() {
					t.Errorf("URI is %s", got)
				}
				for range 2 { // what is gone may be deleted
					if err := s.Delete(t.Context(), f.Sum); err != nil {
						t.Fatal(err)
					}
				}
				if _, _, err := s.Get(t.Context(), f.Sum); !errors.Is(err, ErrNotFound) {
					t.Errorf("after: %v", err)
				}
			}
		})
	}
}

// TestStoreOnDisk looks at the files: an object is one file, and nothing else is left there.
func TestStoreOnDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "images")
	s, f := openStore(t, "file://"+dir, ""), file(t, Format{MediaType: PNG}, "a")
	if err := s.Put(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != f.Sum.String() {
		t.Fatalf("%v, %v", entries, err)
	}
	if err := os.WriteFile(filepath.Join(dir, f.Sum.String()), f.Data[:len(f.Data)-1], 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Get(t.Context(), f.Sum); !errors.Is(err, ErrDamaged) {
		t.Errorf("a cut file: %v", err)
	}
}

// TestStoreRefused is a server that is there and says no.
func TestStoreRefused(t *testing.T) {
	server := s3(t)
	s, f := openStore(t, server.URL("pictures", ""), ""), file(t, Format{MediaType: PNG}, "a")
	server.Refuse(403)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for what, err := range map[string]error{"put": s.Put(ctx, f), "delete": s.Delete(ctx, f.Sum), "get": func() error { _, _, err := s.Get(ctx, f.Sum); return err }()} {
		if err == nil || errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), f.Sum.String()) {
			t.Errorf("%s: %v", what, err)
		}
	}
	server.Refuse(0)
	if err := s.Put(ctx, f); err != nil {
		t.Error(err)
	}
	if got, mediaType, ok := server.Object("pictures/" + f.Sum.String()); !ok || mediaType != PNG || !bytes.Equal(got, f.Data) {
		t.Errorf("the server has %d bytes of %q", len(got), mediaType)
	}
	server.Set("pictures/"+f.Sum.String(), []byte("<html>"))
	if _, _, err := s.Get(ctx, f.Sum); !errors.Is(err, ErrDamaged) {
		t.Errorf("other bytes: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, url := range []string{"ftp://x", "file:///tmp/x?nonsense=1", "%", "pictures"} {
		if s, err := Open(t.Context(), url, ""); err == nil {
			t.Errorf("%s is opened", url)
			s.Close()
		} else if !strings.Contains(err.Error(), "opening the bucket: ") {
			t.Errorf("%s: %v", url, err)
		}
	}
}
