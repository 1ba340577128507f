package rebeca

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rebeca/consumer"
	"rebeca/web"
)

const (
	// guardEvery is how often free space is looked at beside the looks before each batch.
	guardEvery = time.Second
	// resumeShare of the bound must be free before a paused intake goes on: what
	// was freed shall last for more than a moment.
	resumeShare = 1.25
	// sparingShare of the bound must be left by what can wait, snapshots and
	// checkpoints: they are refused before the intake pauses.
	sparingShare = 1.5
)

// guard pauses what writes to the state while the disk below it has little
// room. The state's files are mapped into memory: on a full disk a write to
// them is no error but SIGBUS, which ends the process.
type guard struct {
	dir  string
	min  int64                           // bytes that must be free; 0 guards nothing
	free func(dir string) (int64, error) // bytes free to this user
	log  *slog.Logger

	mu     sync.Mutex
	paused bool          // guarded by mu
	last   int64         // guarded by mu; bytes free at the last look
	resume chan struct{} // guarded by mu; closed when a pause ends
}

func newGuard(c Config, free func(string) (int64, error), log *slog.Logger) *guard {
	if free == nil {
		free = freeSpace
	}
	return &guard{dir: c.State.Dir, min: c.Limits.MinFree << 20, free: free, log: log, resume: make(chan struct{})}
}

// freeSpace returns the bytes free to this user where dir is or will be.
func freeSpace(dir string) (int64, error) {
	var s syscall.Statfs_t
	err := syscall.Statfs(dir, &s)
	for parent := filepath.Dir(dir); errors.Is(err, fs.ErrNotExist) && parent != dir; parent = filepath.Dir(dir) {
		dir = parent
		err = syscall.Statfs(dir, &s)
	}
	if err != nil {
		return 0, fmt.Errorf("reading the free space of %s: %w", dir, err)
	}
	return int64(s.Bavail) * int64(s.Bsize), nil
}

// look compares free space with the bound and begins or ends a pause. The
// channel is closed when the pause ends; nil without one.
func (g *guard) look() <-chan struct{} {
	if g.min == 0 {
		return nil
	}
	free, err := g.free(g.dir)
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil {
		g.log.Warn("the free space is unknown; going on as before", "err", err)
	} else {
		g.last = free
		switch {
		case !g.paused && free < g.min:
			g.paused = true
			g.log.Error("intake pauses: "+g.message(), "free", free, "bound", g.min)
		case g.paused && free >= g.resumes():
			g.paused = false
			close(g.resume)
			g.resume = make(chan struct{})
			g.log.Info("intake goes on: there is room again", "free", free, "bound", g.min)
		}
	}
	if g.paused {
		return g.resume
	}
	return nil
}

func (g *guard) resumes() int64 { return int64(resumeShare * float64(g.min)) }

// message says what is wrong and what to do; g.mu is held.
func (g *guard) message() string {
	return fmt.Sprintf("%d MiB are free where state.dir is, below limits.min_free of %d MiB; it goes on at %d MiB: free space or enlarge the disk",
		g.last>>20, g.min>>20, g.resumes()>>20)
}

// wait blocks while there is too little room. It ends with the error of ctx.
func (g *guard) wait(ctx context.Context) error {
	for {
		resumed := g.look()
		if resumed == nil {
			return nil
		}
		select {
		case <-resumed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// low returns why the intake is paused, nil while it is not.
func (g *guard) low() *web.Error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.paused {
		return nil
	}
	return &web.Error{Code: web.CodeDiskLow, Message: g.message()}
}

// room refuses what can wait when it would leave less than the intake needs
// with some to spare. extra is what it will write, in bytes.
func (g *guard) room(extra int64) error {
	if g.min == 0 {
		return nil
	}
	free, err := g.free(g.dir)
	if err != nil {
		return err
	}
	if want := int64(sparingShare*float64(g.min)) + extra; free < want {
		return fmt.Errorf("%d MiB are free where state.dir is, this needs %d MiB: free space or enlarge the disk", free>>20, want>>20)
	}
	return nil
}

// before lets a handler wait for room.
func (g *guard) before(h consumer.Handler) consumer.Handler {
	return handler(func(ctx context.Context, records []consumer.Record, next int64) error {
		if err := g.wait(ctx); err != nil {
			return err
		}
		return h.Handle(ctx, records, next)
	})
}

// run looks now and then, so that a pause ends by itself.
func (g *guard) run(ctx context.Context) error {
	return every(ctx, guardEvery, func() { g.look() })
}

// status is the guard's part of /v1/status.
func (g *guard) status() web.Disk {
	g.mu.Lock()
	defer g.mu.Unlock()
	return web.Disk{Free: g.last, MinFree: g.min, Paused: g.paused}
}

// collectors are the guard's metrics.
func (g *guard) collectors() []prometheus.Collector {
	gauge := func(name, help string, value func(web.Disk) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "rebeca_" + name, Help: help}, func() float64 { return value(g.status()) })
	}
	return []prometheus.Collector{
		gauge("disk_free_bytes", "Free space where the state is, at the last look.", func(d web.Disk) float64 { return float64(d.Free) }),
		gauge("disk_paused", "1 while the intake is paused because free space is below limits.min_free.", func(d web.Disk) float64 {
			if d.Paused {
				return 1
			}
			return 0
		}),
	}
}
