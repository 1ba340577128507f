//go:build parity

package prior

import (
	"os"
	"testing"
)

// TestPyTorchParityFull is TestPyTorchParity at the sizes in use, for the fixtures in the folder that PARITY names; `make test-parity`
// writes them and sets it.
func TestPyTorchParityFull(t *testing.T) {
	folder := os.Getenv("PARITY")
	if folder == "" {
		t.Fatal("PARITY does not name the folder of the fixtures: run `make test-parity`")
	}
	checkParity(t, folder)
}
