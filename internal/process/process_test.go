package process

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, script string) *Process {
	t.Helper()
	p, err := Start(filepath.Join(t.TempDir(), "log"), "/bin/sh", "-c", script)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

func TestWaitTellsHowItEnded(t *testing.T) {
	if err := start(t, "exit 0").Wait(time.Minute); err != nil {
		t.Errorf("exit 0: %v", err)
	}
	p := start(t, "echo one; echo two >&2; exit 3")
	if err := p.Wait(time.Minute); err == nil || !strings.Contains(err.Error(), "3") {
		t.Errorf("exit 3: %v", err)
	}
	if got := p.Tail(1); got != "two" {
		t.Errorf("Tail(1) = %q", got)
	}
	if got := p.Tail(9); got != "one\ntwo" {
		t.Errorf("Tail(9) = %q", got)
	}
}

func TestTerminateAndKill(t *testing.T) {
	polite := start(t, "trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done")
	waitFor(t, func() bool { return polite.Tail(1) == "up" })
	if err := polite.Terminate(time.Minute); err != nil {
		t.Errorf("a process that ends on SIGTERM: %v", err)
	}
	deaf := start(t, "trap '' TERM; echo up; while :; do sleep 0.05; done")
	waitFor(t, func() bool { return deaf.Tail(1) == "up" })
	if err := deaf.Terminate(100 * time.Millisecond); err == nil {
		t.Error("a process that ignores SIGTERM was said to end well")
	}
	select {
	case <-deaf.Done():
	default:
		t.Error("it still runs")
	}
	deaf.Kill() // once more is fine
}

func TestKillTakesChildrenAlong(t *testing.T) {
	address, err := FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatalf("the free address is taken: %v", err)
	}
	l.Close()
	child := filepath.Join(t.TempDir(), "child")
	p := start(t, "sleep 600 & echo $! >"+child+".tmp; mv "+child+".tmp "+child+"; wait")
	waitFor(t, func() bool { _, err := os.Stat(child); return err == nil })
	pid, err := os.ReadFile(child)
	if err != nil {
		t.Fatal(err)
	}
	p.Kill()
	// An ended child may stay a zombie until init reaps it: its command line is empty then.
	waitFor(t, func() bool {
		line, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/cmdline")
		return err != nil || len(line) == 0
	})
}

func TestAnswers(t *testing.T) {
	calls := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if calls++; calls < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ready"))
	}))
	defer server.Close()
	defer http.DefaultClient.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	body, err := start(t, "sleep 600").Answers(ctx, server.URL)
	if err != nil || string(body) != "ready" {
		t.Errorf("Answers = %q, %v", body, err)
	}
	closed, err := FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := start(t, "echo no port; exit 1").Answers(ctx, "http://"+closed); err == nil || !strings.Contains(err.Error(), "no port") {
		t.Errorf("a process that ended: %v", err)
	}
}

func TestUntilKeepsItsLimit(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := Until(ctx, "never", func() (bool, error) { return false, nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Until = %v", err)
	}
	fault := errors.New("fault")
	if err := Until(context.Background(), "fault", func() (bool, error) { return false, fault }); !errors.Is(err, fault) {
		t.Errorf("Until = %v", err)
	}
}

func TestBinary(t *testing.T) {
	t.Setenv("REBECA_BIN", "/somewhere/rebeca")
	if path, err := Binary(); err != nil || path != "/somewhere/rebeca" {
		t.Errorf("Binary = %q, %v", path, err)
	}
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Error(err)
	}
	t.Setenv("REBECA_BIN", "")
	t.Chdir(t.TempDir())
	if path, err := Binary(); err == nil {
		t.Errorf("outside the repository: %q", path)
	}
}

func waitFor(t *testing.T, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := Until(ctx, "it holds", func() (bool, error) { return holds(), nil }); err != nil {
		t.Fatal(err)
	}
}

func TestUsageIsOfTheProcess(t *testing.T) {
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Log("this system does not tell what a process uses; 0 means unknown")
		return
	}
	busy := start(t, "while :; do :; done")
	peak := busy.WatchMemory()
	waitFor(t, func() bool { return busy.CPU() >= 50*time.Millisecond && busy.AnonymousMiB() > 0 })
	if mib := busy.AnonymousMiB(); mib > 1024 {
		t.Errorf("a shell holds %g MiB", mib)
	}
	if cpu := busy.CPU(); cpu > time.Hour {
		t.Errorf("a shell has used %v", cpu)
	}
	busy.Kill()
	if mib := <-peak; mib < 0 || mib > 1024 {
		t.Errorf("a shell held %g MiB", mib)
	}
	if busy.CPU() != 0 || busy.AnonymousMiB() != 0 {
		t.Error("a process that has ended uses something")
	}
}
