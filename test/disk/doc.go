// Package disk holds the test of a full disk: the service on a small tmpfs,
// which takes root to mount. `make test-disk` runs it.
package disk
