package images

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"gocloud.dev/blob"
	_ "gocloud.dev/blob/fileblob"
	_ "gocloud.dev/blob/s3blob"
	"gocloud.dev/gcerrors"
)

// Errors of Get; test with errors.Is.
var (
	ErrNotFound = errors.New("no such image")
	ErrDamaged  = errors.New("the bucket holds other bytes under the image's name")
)

// maxObject bounds what Get reads: far more than an encoded picture of the largest size a codec may have.
const maxObject = 64 << 20

// Store is a bucket of images, each under the hex digits of its SHA-256. It is safe for concurrent use.
type Store struct {
	bucket *blob.Bucket
	base   string // of URIs
	path   string // of a file bucket, what stands before the objects' names; "" for others
}

// defaults are parameters of bucket URLs by scheme. In a directory an object appears whole and under its name, on the same file system, and
// its type is told by its first bytes. The client of S3 warns of every object without one of its checksums; Get has a better one.
var defaults = map[string]map[string]string{
	"file": {"create_dir": "true", "no_tmp_dir": "true", "metadata": "skip"},
	"s3":   {"response_checksum_validation": "when_required"},
}

// Open opens a bucket by its URL, without asking it for anything: file:///directory, which is created, s3://bucket?region=..., and in
// builds with their tags gs://bucket and azblob://container; the parameter prefix stands before the objects' names, and the others are those
// of gocloud.dev/blob. base, when not empty, takes the place of the bucket's URL in URI.
func Open(ctx context.Context, bucket, base string) (*Store, error) {
	u, err := url.Parse(bucket)
	if err != nil {
		return nil, fmt.Errorf("opening the bucket: %w", err)
	}
	q := u.Query()
	s := &Store{base: base}
	if s.base == "" {
		s.base = u.Scheme + "://" + u.Host + strings.TrimSuffix(u.Path, "/") + "/" + q.Get("prefix")
	}
	for key, value := range defaults[u.Scheme] {
		if !q.Has(key) {
			q.Set(key, value)
		}
	}
	u.RawQuery = q.Encode()
	if u.Scheme == "file" {
		s.path = filepath.FromSlash(strings.TrimSuffix(u.Path, "/") + "/" + q.Get("prefix"))
	}
	if s.bucket, err = blob.OpenBucket(ctx, u.String()); err != nil {
		return nil, fmt.Errorf("opening the bucket: %w", err)
	}
	return s, nil
}

// URI names an object in a record.
func (s *Store) URI(sum Sum) string { return s.base + sum.String() }

// Put writes a file under its name and returns when it is there to stay. A file that is there already is written over by the same bytes.
func (s *Store) Put(ctx context.Context, f File) error {
	hash := md5.Sum(f.Data)
	err := s.bucket.WriteAll(ctx, f.Sum.String(), f.Data, &blob.WriterOptions{
		ContentType: f.MediaType, ContentMD5: hash[:], CacheControl: "private, max-age=31536000, immutable",
		DisableContentTypeDetection: true,
	})
	if path := s.path + f.Sum.String(); err == nil && s.path != "" {
		err = errors.Join(syncPath(path), syncPath(filepath.Dir(path)))
	}
	if err != nil {
		return fmt.Errorf("writing image %s: %w", f.Sum, err)
	}
	return nil
}

// Get reads an object and holds it against its name. Errors: ErrNotFound, ErrDamaged, and what the bucket says.
func (s *Store) Get(ctx context.Context, sum Sum) (data []byte, mediaType string, err error) {
	r, err := s.bucket.NewReader(ctx, sum.String(), nil)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return nil, "", fmt.Errorf("%w: %s", ErrNotFound, sum)
	}
	if err != nil {
		return nil, "", fmt.Errorf("reading image %s: %w", sum, err)
	}
	defer r.Close()
	if data, err = io.ReadAll(io.LimitReader(r, maxObject+1)); err != nil {
		return nil, "", fmt.Errorf("reading image %s: %w", sum, err)
	}
	mediaType = mediaTypeOf(data)
	if len(data) > maxObject || mediaType == "" || Sum(sha256.Sum256(data)) != sum {
		return nil, "", fmt.Errorf("%w: %s", ErrDamaged, sum)
	}
	return data, mediaType, nil
}

// Delete removes an object; one that is not there is fine.
func (s *Store) Delete(ctx context.Context, sum Sum) error {
	err := s.bucket.Delete(ctx, sum.String())
	if err != nil && gcerrors.Code(err) != gcerrors.NotFound {
		return fmt.Errorf("deleting image %s: %w", sum, err)
	}
	return nil
}

// Close lets go of the bucket.
func (s *Store) Close() error { return s.bucket.Close() }

func syncPath(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
