package rebeca

import (
	"context"
	"encoding/json"
	"slices"
	"time"
)

const (
	// awaitLimit is how long an answer is kept that nobody comes for.
	awaitLimit = 2 * time.Minute
	// maxAnswers bounds, in bytes, the answers that nobody waits for; who comes
	// late is answered from the user's generated memory.
	maxAnswers = 64 << 20
)

// answers are those of requests through this process's door, while somebody
// waits for them or is about to. A door's mu guards them.
type answers struct {
	by    map[string]*answer // by user and request id
	bytes int                // of all records
	swept time.Time
}

// answer collects the published records of a request that somebody waits for.
type answer struct {
	records map[string]json.RawMessage // by record id
	ids     []string                   // in order of arrival
	bytes   int
	changed chan struct{} // closed and replaced at each record
	coming  int           // of those who asked, how many have not begun to wait
	waiters int
	since   time.Time // when somebody last came or went
}

func requestKey(userID, requestID string) string { return userID + "\x00" + requestID }

// of finds or makes the answer under a key, and lets go of those that nobody
// came for during awaitLimit.
func (s *answers) of(key string, now time.Time) *answer {
	if now.Sub(s.swept) > awaitLimit/8 {
		s.swept = now
		for k, a := range s.by {
			if a.waiters == 0 && now.Sub(a.since) > awaitLimit {
				s.drop(k)
			}
		}
	}
	a := s.by[key]
	if a == nil {
		a = &answer{records: map[string]json.RawMessage{}, changed: make(chan struct{})}
		if s.by == nil {
			s.by = map[string]*answer{}
		}
		s.by[key] = a
	}
	a.since = now
	return a
}

func (s *answers) drop(key string) {
	s.bytes -= s.by[key].bytes
	delete(s.by, key)
}

// add gives a record to those who wait for it, each once.
func (s *answers) add(key, id string, record json.RawMessage) {
	a := s.by[key]
	if a == nil {
		return
	}
	if _, ok := a.records[id]; ok {
		return
	}
	a.records[id] = record
	a.ids = append(a.ids, id)
	a.bytes += len(record)
	close(a.changed)
	a.changed = make(chan struct{})
	if s.bytes += len(record); s.bytes > maxAnswers {
		s.shrink(maxAnswers / 2)
	}
}

// shrink lets go of answers that nobody waits for, the oldest first.
func (s *answers) shrink(to int) {
	var idle []string
	for k, a := range s.by {
		if a.waiters == 0 {
			idle = append(idle, k)
		}
	}
	slices.SortFunc(idle, func(a, b string) int { return s.by[a].since.Compare(s.by[b].since) })
	for _, k := range idle {
		if s.bytes <= to {
			return
		}
		s.drop(k)
	}
}

// expect begins to collect the answer of a request before it is produced.
func (d *door) expect(key string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answers.of(key, time.Now()).coming++
}

// Await implements [web.Results] for a request that this door has produced.
// The last of those who asked takes the answer along: whoever asks again finds
// it in the user's generated memory.
func (d *door) Await(ctx context.Context, userID, requestID string, count int) ([]json.RawMessage, error) {
	key := requestKey(userID, requestID)
	d.mu.Lock()
	a := d.answers.of(key, time.Now())
	a.waiters++
	a.coming = max(0, a.coming-1)
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		a.waiters--
		a.since = time.Now()
		if a.waiters+a.coming == 0 && len(a.ids) >= count && d.answers.by[key] == a {
			d.answers.drop(key)
		}
	}()
	for {
		d.mu.Lock()
		if len(a.ids) >= count {
			out := make([]json.RawMessage, len(a.ids))
			for i, id := range a.ids {
				out[i] = a.records[id]
			}
			d.mu.Unlock()
			return out, nil
		}
		changed := a.changed
		d.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
