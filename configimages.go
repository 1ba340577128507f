package rebeca

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gocloud.dev/blob"

	"rebeca/images"
)

// ImagesConfig says how embeddings become pictures and where those go. It
// applies where a decoder is named.
type ImagesConfig struct {
	Format  string `yaml:"format"`  // png (default) or jpeg
	Quality int    `yaml:"quality"` // of jpeg, 1..100; default 90
	// InlineMax is the largest picture, in bytes, that travels inside its record;
	// default 256 KiB, at most 700 KiB: base64 makes four bytes of three, and
	// Kafka takes records of 1 MB unless told otherwise. A larger one is written
	// to Bucket first, and the record has its URI. 0 keeps all of them in the
	// bucket.
	InlineMax int `yaml:"inline_max"`
	// Bucket is a URL of gocloud.dev/blob: file:///directory, s3://bucket?region=…
	// (with &endpoint=… and &use_path_style=true for other servers than Amazon's),
	// in builds with their tags gs://bucket or azblob://container; &prefix=…
	// stands before objects' names. Empty (default) is the directory images below
	// State.Dir. Credentials are those of the environment.
	Bucket string `yaml:"bucket"`
	// URI, if set, stands before an object's name in a record in place of the
	// bucket's own URL, such as that of a server in front of it.
	URI string `yaml:"uri"`
	// Keep is how long after its record was made an object is deleted; 0
	// (default) never. One whose record is not published yet is not deleted.
	Keep time.Duration `yaml:"keep"`
	// Workers decode at the same time, each a batch of the decoder's; default 1.
	Workers int `yaml:"workers"`
	// Queue bounds the pictures that wait to be decoded or are being decoded;
	// default 64. When it is full, what wants pictures waits in the table.
	Queue int `yaml:"queue"`
	// Attempts to decode a picture, and to write it to the bucket, before its
	// record is published without it; default 3. RetryAfter is the pause after
	// the first, doubled after each further one; default 1s.
	Attempts   int           `yaml:"attempts"`
	RetryAfter time.Duration `yaml:"retry_after"`
}

// maxInline leaves a record with its embedding below the 1,000,000 bytes that
// brokers and clients take by default.
const maxInline = 700 << 10

// minKeep leaves an object long enough for a slow reader of its record.
const minKeep = time.Minute

func defaultImages() ImagesConfig {
	return ImagesConfig{Format: "png", Quality: 90, InlineMax: 256 << 10, Workers: 1, Queue: 64, Attempts: 3, RetryAfter: time.Second}
}

func (c ImagesConfig) validate() (errs []error) {
	bad := func(path, format string, args ...any) {
		errs = append(errs, fmt.Errorf("images."+path+": "+format, args...))
	}
	within := func(path string, v, low, high int) {
		if v < low || v > high {
			bad(path, "%d is outside %d..%d", v, low, high)
		}
	}
	if c.Format != "png" && c.Format != "jpeg" {
		bad("format", "%q is not png or jpeg", c.Format)
	}
	within("quality", c.Quality, 1, 100)
	if c.InlineMax < 0 || c.InlineMax > maxInline {
		bad("inline_max", "%d is outside 0..%d: a larger picture makes its record larger than the 1 MB that Kafka takes; 0 keeps all in the bucket", c.InlineMax, maxInline)
	}
	within("workers", c.Workers, 1, 64)
	within("queue", c.Queue, batchImages, 4096)
	within("attempts", c.Attempts, 1, 100)
	if c.RetryAfter < 0 || c.RetryAfter > time.Hour {
		bad("retry_after", "%s is outside 0s..1h", c.RetryAfter)
	}
	if c.Keep != 0 && c.Keep < minKeep {
		bad("keep", "%s is below %s", c.Keep, minKeep)
	}
	if c.Bucket != "" {
		u, err := url.Parse(c.Bucket)
		switch {
		case err != nil:
			bad("bucket", "%v", err)
		case !blob.DefaultURLMux().ValidBucketScheme(u.Scheme):
			known := blob.DefaultURLMux().BucketSchemes()
			slices.Sort(known)
			bad("bucket", "%q: this build opens %s", c.Bucket, strings.Join(known, ", "))
		}
	}
	return errs
}

// openImages opens the bucket that pictures go to, without asking it for
// anything.
func (c Config) openImages(ctx context.Context) (*images.Store, error) {
	bucket := c.Images.Bucket
	if bucket == "" {
		dir, err := filepath.Abs(filepath.Join(c.State.Dir, "images"))
		if err != nil {
			return nil, fmt.Errorf("state.dir: %w", err)
		}
		bucket = (&url.URL{Scheme: "file", Path: filepath.ToSlash(dir)}).String()
	}
	s, err := images.Open(ctx, bucket, c.Images.URI)
	if err != nil {
		return nil, fmt.Errorf("images.bucket: %w", err)
	}
	return s, nil
}

func (c ImagesConfig) format() images.Format {
	if c.Format == "jpeg" {
		return images.Format{MediaType: images.JPEG, Quality: c.Quality}
	}
	return images.Format{MediaType: images.PNG}
}

// pause is how long to wait after the n-th attempt failed, n from 1.
func (c ImagesConfig) pause(n int) time.Duration {
	return min(c.RetryAfter<<min(n-1, 16), time.Hour)
}
