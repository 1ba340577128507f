package main

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestOverloadSheds is the short form of `make overload`. The binary is built without the race detector, whose own memory would hide
// the service's.
func TestOverloadSheds(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "rebeca")
	if said, err := exec.Command("go", "build", "-o", binary, "rebeca/cmd/rebeca").CombinedOutput(); err != nil {
		t.Fatalf("building the binary: %v\n%s", err, said)
	}
	t.Setenv("GOGC", "20") // the service's: what is in use shows, garbage hardly
	p := plan{
		rate: 20_000, cap: 2000, duration: 8 * time.Second, every: 250 * time.Millisecond, users: 5000, items: 300, trainLag: 2000, padding: 1500, slack: 64 << 20,
		dir: t.TempDir(), binary: binary, say: testWriter{t},
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	seen, err := run(ctx, p)
	t.Logf("\n%s", seen.curve.plot())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range seen.judge(p) {
		t.Error(f)
	}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}
