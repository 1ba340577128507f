package rebeca

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"rebeca/table"
)

const (
	// outboxLimit is how many unsent messages pause a partition. Results are some
	// kilobytes each and lie on disk; dead letters may be larger, and free disk
	// space is watched by itself.
	outboxLimit = 10_000
	// outboxResume is how few are left when it goes on.
	outboxResume = outboxLimit / 2
	// outboxLook is how often a paused partition looks.
	outboxLook = 20 * time.Millisecond
)

// outboxRoom holds back whatever fills a partition's outbox while that is
// full: its fold, its requests and its results. The others go on.
type outboxRoom struct {
	table         *table.Table
	limit, resume int
	log           *slog.Logger

	mu   sync.Mutex
	full map[int32]bool // guarded by mu; paused partitions
}

func newOutboxRoom(t *table.Table, log *slog.Logger) *outboxRoom {
	return &outboxRoom{table: t, limit: outboxLimit, resume: outboxResume, log: log, full: map[int32]bool{}}
}

// there reports whether a partition may put more into its outbox.
func (r *outboxRoom) there(partition int32) bool {
	n := r.table.Unsent(partition)
	r.mu.Lock()
	was := r.full[partition]
	full := n >= r.limit || was && n > r.resume
	r.full[partition] = full
	r.mu.Unlock()
	switch {
	case full && !was:
		r.log.Warn("partition paused: its outbox is full", "partition", partition, "messages", n)
	case was && !full:
		r.log.Info("partition goes on: its outbox has room", "partition", partition, "messages", n)
	}
	return !full
}

// wait returns when there is room, or with ctx's error; at once for nil.
func (r *outboxRoom) wait(ctx context.Context, partition int32) error {
	if r == nil {
		return nil // a replay sends nothing
	}
	if !poll(ctx, outboxLook, func() bool { return r.there(partition) }) {
		return ctx.Err()
	}
	return nil
}

// paused returns the partitions that wait for room.
func (r *outboxRoom) paused() []int32 {
	if r == nil {
		return nil // not opened yet
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []int32
	for p, full := range r.full {
		if full {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

// why says of a paused partition what it waits for.
func (r *outboxRoom) why(partition int32) string {
	return fmt.Sprintf("partition %d waits: %d messages of its outbox are not sent, it goes on at %d", partition, r.table.Unsent(partition), r.resume)
}
