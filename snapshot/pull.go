package snapshot

import (
	"context"
	"errors"
	"io"
	"iter"
)

var errStopped = errors.New("reader stopped")

// pullKeys turns eachKey inside out. next reports the error of the reading, checks at its end included, before io.EOF,
// so that a loader which trusts next cannot take a state that does not match the manifest for a whole one.
func pullKeys(ctx context.Context, path string, m Manifest) (next func() (key, value []byte, err error), stop func()) {
	var failed error
	pull, stop := iter.Pull2(func(yield func(key, value []byte) bool) {
		failed = eachKey(ctx, path, m, func(key, value []byte) error {
			if !yield(key, value) {
				return errStopped
			}
			return nil
		})
	})
	return func() ([]byte, []byte, error) {
		key, value, ok := pull()
		switch {
		case ok:
			return key, value, nil
		case failed != nil:
			return nil, nil, failed
		}
		return nil, nil, io.EOF
	}, stop
}
