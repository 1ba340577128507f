//go:build disk

package disk

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rebeca"
	"rebeca/consumer"
	"rebeca/internal/broker"
	"rebeca/schemas"
	"rebeca/table"
)

const (
	diskMiB    = 150
	minFreeMiB = 30
	events     = 120_000
	users      = 30_000 // a batch of the fold writes each user's row once: with few of them hardly anything is written
)

// child is the environment variable under which the test binary is a service without a guard: broker, then directory.
const child = "REBECA_DISK_TEST_CHILD"

func TestMain(m *testing.M) {
	if at := os.Getenv(child); at != "" {
		addr, dir, _ := strings.Cut(at, " ")
		c := configuration(addr, dir)
		c.Limits.MinFree = 0
		if err := service(c).Run(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func configuration(addr, dir string) rebeca.Config {
	c := rebeca.DefaultConfig()
	c.Roles = []string{rebeca.RoleWorker}
	c.Kafka.Brokers, c.Kafka.Partitions = []string{addr}, 1
	c.State.Dir, c.Prior.Dim = filepath.Join(dir, "state"), 8
	c.Generate.Count = 0
	c.HTTP.Listen = "127.0.0.1:0"
	c.Limits.MinFree = minFreeMiB
	return c
}

func service(c rebeca.Config) *rebeca.Service {
	return rebeca.New(c, rebeca.Options{Logger: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry()})
}

// mount makes a small disk with a large file on it, which leaves some MiB.
func mount(t *testing.T, leaves int) (dir, ballast string) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", diskMiB)); err != nil {
		t.Fatalf("mounting a tmpfs: %v; this test needs root", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
	ballast = filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, bytes.Repeat([]byte{1}, (diskMiB-leaves)<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir, ballast
}

// flood starts a broker whose feedback topic holds more than the disk takes.
func flood(t *testing.T) string {
	t.Helper()
	b, err := broker.Start(broker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	c := configuration(b.Addr(), "")
	client, err := c.NewClient()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := consumer.EnsureTopics(t.Context(), client, c.WantedTopics(), 1); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for at := 0; at < events; {
		var batch []consumer.Message
		for range 1000 {
			f := schemas.Feedback{
				EventID: strconv.Itoa(at), UserID: fmt.Sprint("user-", rng.IntN(users)), ItemID: fmt.Sprint("item-", rng.IntN(5000)),
				Kind: schemas.KindLike, OccurredAt: time.Now(),
			}
			value, err := f.Encode()
			if err != nil {
				t.Fatal(err)
			}
			batch = append(batch, consumer.Message{Key: []byte(f.UserID), Value: value, Time: time.Now()})
			at++
		}
		if _, err := client.Produce(t.Context(), c.Kafka.Topics.Feedback, 0, batch); err != nil {
			t.Fatal(err)
		}
	}
	return b.Addr()
}

// run serves until the returned function is called.
func run(t *testing.T, c rebeca.Config) (s *rebeca.Service, stop func()) {
	t.Helper()
	s = service(c)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	select {
	case <-s.Serving():
	case err := <-ended:
		cancel()
		t.Fatalf("the service did not start: %v", err)
	}
	return s, func() {
		t.Helper()
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not %s after two minutes", what)
		}
	}
}

// digest is that of a stopped state.
func digest(t *testing.T, c rebeca.Config) string {
	t.Helper()
	tb, err := table.Open(c.TableOptions(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	defer tb.Close()
	d, err := tb.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A service floods a disk that cannot take the flood. Without the guard it dies of SIGBUS; this shows that the disk is small enough to
// tell. With it the intake pauses, the service lives, and when another file is removed it goes on and ends with the facts of a service
// on a large disk.
func TestFullDisk(t *testing.T) {
	addr := flood(t)
	t.Run("without the guard", func(t *testing.T) {
		dir, _ := mount(t, 10)
		var says bytes.Buffer
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), child+"="+addr+" "+dir)
		cmd.Stderr = &says
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
		defer kill.Stop()
		if err := cmd.Wait(); err == nil || !strings.Contains(says.String(), "fault") {
			t.Errorf("it did not die of the full disk: %v\n%.2000s", err, says.String())
		}
	})
	t.Run("with the guard", func(t *testing.T) {
		dir, ballast := mount(t, 40)
		c := configuration(addr, dir)
		s, stop := run(t, c)
		var paused uint64
		until(t, "paused", func() bool {
			for _, r := range s.Ready() {
				if r.Code == "disk_low" {
					paused = s.Status().EventsFolded
					return true
				}
			}
			return false
		})
		if paused == 0 || paused >= events {
			t.Errorf("paused at %d events", paused)
		}
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		until(t, "folded", func() bool { return s.Status().EventsFolded == events })
		stop()
		t.Logf("paused at %d of %d events", paused, events)

		large := configuration(addr, t.TempDir())
		s, stop = run(t, large)
		until(t, "folded", func() bool { return len(s.Ready()) == 0 && s.Status().EventsFolded == events })
		stop()
		if digest(t, c) != digest(t, large) {
			t.Error("the facts are not those of a large disk")
		}
	})
}
