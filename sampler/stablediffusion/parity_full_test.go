//go:build parity

package stablediffusion

import (
	"os"
	"testing"
)

// TestDiffusersParityFull is TestDiffusersParity with all levels of Stable Diffusion 1.5's U-Net and VAE, for the fixtures in the folder that
// PARITY names; `make test-parity` writes them and sets it.
func TestDiffusersParityFull(t *testing.T) {
	folder := os.Getenv("PARITY")
	if folder == "" {
		t.Fatal("PARITY does not name the folder of the fixtures: run `make test-parity`")
	}
	checkParity(t, folder)
}
