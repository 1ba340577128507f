package rebeca

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"rebeca/consumer"
	"rebeca/internal/ort"
	"rebeca/prior"
	"rebeca/schemas"
)

// Errors that name why an announced version cannot be used. They end the
// service and are mended by `rebeca prior reset`.
var (
	// ErrPriorMissing says that an announced version's bytes are not where the
	// announcement says, or are not the bytes it describes.
	ErrPriorMissing = errors.New("prior_missing")
	// ErrPriorDim says that an announced version is for embeddings of another
	// dimension.
	ErrPriorDim = errors.New("prior_dim")
	// ErrPriorKind says that an announced version is of a kind that knows its
	// users by number.
	ErrPriorKind = errors.New("prior_kind")
)

// follower reads the prior topic and gives every newest version to use. While
// the topic is read for the first time only the last announcement counts, so
// bytes of versions long gone need not be there.
type follower struct {
	config  prior.Config
	dir     string // of this process's own checkpoints
	options ort.Options
	use     func(*loadedPrior)
	log     *slog.Logger

	mu      sync.Mutex
	loaded  schemas.PriorVersion  // guarded by mu
	pending *schemas.PriorVersion // guarded by mu; the last announcement while catching up
	caught  bool                  // guarded by mu
	first   time.Time             // guarded by mu; when a version was first loaded
	end     int64                 // the topic's end seen at start
}

// Handle implements [consumer.Handler] for the prior topic.
func (f *follower) Handle(_ context.Context, records []consumer.Record, next int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range records {
		if len(r.Value) == 0 {
			f.pending = nil
			continue
		}
		v, err := schemas.DecodePriorVersion(r.Value)
		if err != nil {
			f.log.Warn("an announcement on the prior topic is not readable and is passed over", "offset", r.Offset, "err", err)
			continue
		}
		f.pending = &v
	}
	f.caught = f.caught || next >= f.end
	if !f.caught || f.pending == nil {
		return nil
	}
	v := *f.pending
	f.pending = nil
	if v.Version == f.loaded.Version {
		return nil
	}
	p, err := loadPrior(v, f.dir, f.config, f.options)
	if err != nil {
		return err
	}
	f.log.Info("prior loaded", "version", v.Version, "step", v.Step)
	if f.loaded = v; f.first.IsZero() {
		f.first = time.Now()
	}
	f.use(p)
	return nil
}

// version returns the version in use; its Version is empty before the first.
func (f *follower) version() schemas.PriorVersion {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.loaded
}

// since is when this process first had a version; zero before.
func (f *follower) since() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.first
}

// loadPrior reads an announced version's bytes, checks them against the
// announcement and compiles them. A file that is not where it was announced is
// looked for in dir: the state may have moved.
func loadPrior(v schemas.PriorVersion, dir string, want prior.Config, o ort.Options) (*loadedPrior, error) {
	path, err := filePath(v.URI)
	if err != nil {
		return nil, fmt.Errorf("%w: version %s: %w", ErrPriorMissing, v.Version, err)
	}
	if own := filepath.Join(dir, filepath.Base(path)); !exists(path) && exists(own) {
		path = own
	}
	sum, err := fileSHA256(path)
	if err != nil {
		return nil, fmt.Errorf("%w: version %s: %w (put the file back, or start anew with `rebeca prior reset`)", ErrPriorMissing, v.Version, err)
	}
	if sum != v.SHA256 {
		return nil, fmt.Errorf("%w: version %s: %s has SHA-256 %s, announced was %s", ErrPriorMissing, v.Version, path, sum, v.SHA256)
	}
	state, err := prior.LoadState(path)
	if err != nil {
		return nil, fmt.Errorf("%w: version %s: %w", ErrPriorMissing, v.Version, err)
	}
	if state.Config.HasUserTable() {
		return nil, fmt.Errorf("%w: version %s is of kind %s, which reads no windows (start anew with `rebeca prior reset`)",
			ErrPriorKind, v.Version, state.Config.Kind)
	}
	if state.Config.Dim != want.Dim {
		return nil, fmt.Errorf("%w: version %s is for %d dimensions, prior.dim is %d (start anew with `rebeca prior reset`)",
			ErrPriorDim, v.Version, state.Config.Dim, want.Dim)
	}
	if state.Config.MaxTokens < want.MaxTokens {
		return nil, fmt.Errorf("%w: version %s reads windows of %d entries, the configured window has %d (start anew with `rebeca prior reset`)",
			ErrPriorDim, v.Version, state.Config.MaxTokens, want.MaxTokens)
	}
	model, err := prior.NewModel(state, o)
	if err != nil {
		return nil, fmt.Errorf("compiling prior %s: %w", v.Version, err)
	}
	return &loadedPrior{model: model, version: v}, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// filePath accepts a path or a file: URI.
func filePath(uri string) (string, error) {
	u, err := url.Parse(uri)
	switch {
	case err != nil:
		return "", fmt.Errorf("reading the URI %q: %w", uri, err)
	case u.Scheme == "":
		return uri, nil
	case u.Scheme == "file":
		return u.Path, nil
	}
	return "", fmt.Errorf("the store %q is not a file", uri)
}

func fileSHA256(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("reading %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
