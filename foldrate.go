package rebeca

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Rate is how often something may happen, a second. In the file it is a number
// with /s behind it, such as 2000/s; 0 stands for no bound.
type Rate float64

// UnmarshalText reads "2000/s". A bare 0 is no bound; other numbers without
// their unit are refused, so that nobody takes them for records a minute.
func (r *Rate) UnmarshalText(b []byte) error {
	text, perSecond := strings.CutSuffix(strings.TrimSpace(string(b)), "/s")
	v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) || !perSecond && v != 0 {
		return fmt.Errorf("%q is not a rate such as 2000/s", b)
	}
	*r = Rate(v)
	return nil
}

// MarshalText writes what UnmarshalText reads.
func (r Rate) MarshalText() ([]byte, error) {
	return append(strconv.AppendFloat(nil, float64(r), 'f', -1, 64), "/s"...), nil
}

const (
	// paceBurst is how much of an idle time may be made up for at once: enough
	// that a few records after a rest are not held back.
	paceBurst = 100 * time.Millisecond
	// paceBatch is the time's worth of records that a capped fold takes at once:
	// larger batches would come in gulps.
	paceBatch = 50 * time.Millisecond
)

// pace is a token bucket that all folds of a process share: what it lets
// through is at most rate records a second and paceBurst's worth.
type pace struct {
	rate Rate // 0: no bound
	now  func() time.Time

	mu   sync.Mutex
	paid time.Time // guarded by mu; when everything let through so far is within the rate
}

func newPace(rate Rate) *pace { return &pace{rate: rate, now: time.Now} }

// wait returns when n records may be folded, or with ctx's error; at once for nil.
func (p *pace) wait(ctx context.Context, n int) error {
	if p == nil || p.rate <= 0 || n == 0 {
		return nil // a replay, or no bound
	}
	over, cancel := context.WithTimeout(ctx, p.take(n))
	defer cancel()
	<-over.Done()
	return ctx.Err()
}

// take pays for n records and returns how long to wait before they are folded.
func (p *pace) take(n int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	if p.paid.Before(now) {
		p.paid = now
	}
	p.paid = p.paid.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	return p.paid.Sub(now) - paceBurst
}

// batch is how many records a fold takes at once.
func (p *pace) batch() int {
	if p.rate <= 0 {
		return foldBatch
	}
	return int(min(1000, max(1, float64(p.rate)*paceBatch.Seconds())))
}

// bytes is how much of the log a fold takes at once, where partitions of them
// share the process: enough for a batch, and for all together some 50 MiB, for
// up to three answers of each are in memory. 0 leaves it to the loop.
func (p *pace) bytes(partitions int) int {
	if p.rate > 0 || partitions < 1 {
		return 0
	}
	return min(4<<20, max(1<<20, 16<<20/partitions))
}
