package rebeca

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"rebeca/consumer"
	"rebeca/eval/shapes"
	"rebeca/schemas"
	"rebeca/table"
	"rebeca/web"
)

const (
	// shareWindow is the span at either end of the stream whose images are
	// judged for the report.
	shareWindow = 15 * time.Second
	// coverageSamples and coverageEvents: how many samples a person gets at the
	// end, and how many events they must have given.
	coverageSamples = 32
	coverageEvents  = 5
	// recentImages is the span of the live plot's share.
	recentImages = 400
	// trackedRecords bounds the tracker in a demo without an end; the oldest
	// records are forgotten first.
	trackedRecords = 1 << 20
	// reportTimeout bounds each of the report's two waits, hurriedTimeout when
	// the demo was interrupted.
	reportTimeout  = 60 * time.Second
	hurriedTimeout = 10 * time.Second
	// hurriedPeople is of how many one is asked then.
	hurriedPeople = 8
)

// DemoReport is what a demo reached. Shares are judged by the world's truth
// about the nearest real picture, not by the model; null where there was
// nothing to judge.
type DemoReport struct {
	EventsFolded    uint64         `json:"events_folded"`
	Generated       uint64         `json:"generated"`
	Duplicates      uint64         `json:"duplicates"`
	DeadLetters     uint64         `json:"deadletters"`
	Users           int            `json:"users"`
	TrainSteps      int64          `json:"train_steps"`
	PriorVersion    *string        `json:"prior_version"`
	BaseRate        float64        `json:"base_rate"`
	LikedShareFirst *float64       `json:"liked_share_first"`
	LikedShareLast  *float64       `json:"liked_share_last"`
	CoverageLast    *float64       `json:"coverage_last"`
	EventToImage    *web.Quantiles `json:"event_to_image_ms"`
}

// tracker sees every event sent and every image acknowledged.
type tracker struct {
	judge func(users []string, embeddings [][]float32) ([]shapes.Taste, []bool)

	mu      sync.Mutex
	start   time.Time      // guarded by mu; of the stream
	stop    time.Time      // guarded by mu; of the stream
	events  []trackedEvent // guarded by mu
	images  []trackedImage // guarded by mu; of feedback, in order of acknowledgement
	answers []trackedImage // guarded by mu; of the report's own requests
}

type trackedEvent struct {
	user   string
	offset int64
	at     time.Time
}

type trackedImage struct {
	user  string
	asOf  int64
	at    time.Time // acknowledged
	taste shapes.Taste
	liked bool
}

func newTracker() *tracker { return &tracker{} }

func (t *tracker) begin(at time.Time) { t.mu.Lock(); t.start = at; t.mu.Unlock() }
func (t *tracker) end(at time.Time)   { t.mu.Lock(); t.stop = at; t.mu.Unlock() }

func (t *tracker) event(user string, offset int64, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.events = bounded(append(t.events, trackedEvent{user, offset, at}))
}

// bounded drops the older half of a list that has grown too long.
func bounded[T any](s []T) []T {
	if len(s) > trackedRecords {
		return slices.Clone(s[len(s)/2:])
	}
	return s
}

// published implements [Options].OnPublished.
func (t *tracker) published(_ int32, out []table.Outgoing, at time.Time) {
	var users []string
	var embeddings [][]float32
	var records []schemas.Generated
	for _, m := range out {
		if m.Role != table.RoleGenerated {
			continue
		}
		g, err := schemas.DecodeGenerated(m.Value)
		if err != nil {
			panic("rebeca: a published record does not decode: " + err.Error())
		}
		users, embeddings, records = append(users, g.UserID), append(embeddings, g.Embedding), append(records, g)
	}
	tastes, likes := t.judge(users, embeddings)
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, g := range records {
		image := trackedImage{user: g.UserID, asOf: g.AsOf.Offset, at: at, taste: tastes[i], liked: likes[i]}
		if g.Trigger == schemas.TriggerRequest {
			t.answers = bounded(append(t.answers, image))
		} else {
			t.images = bounded(append(t.images, image))
		}
	}
}

// recentShare is the liked share of the newest images; nil without any.
func (t *tracker) recentShare() *float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return likedShare(t.images[max(0, len(t.images)-recentImages):])
}

func likedShare(images []trackedImage) *float64 {
	if len(images) == 0 {
		return nil
	}
	n := 0
	for _, i := range images {
		if i.liked {
			n++
		}
	}
	share := float64(n) / float64(len(images))
	return &share
}

// shares are the liked shares of the first and the last span of the stream.
func (t *tracker) shares() (first, last *float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var early, late []trackedImage
	for _, i := range t.images {
		if i.at.Sub(t.start) < shareWindow {
			early = append(early, i)
		}
		if i.at.After(t.stop.Add(-shareWindow)) && !i.at.After(t.stop) {
			late = append(late, i)
		}
	}
	return likedShare(early), likedShare(late)
}

// latency is the time from each event's Kafka timestamp to the acknowledgement
// of the first image of that person that knows of it, for events since from;
// nil where more than one in a hundred has none.
func (t *tracker) latency(from time.Time) *web.Quantiles {
	t.mu.Lock()
	defer t.mu.Unlock()
	byUser := map[string][]trackedImage{}
	for _, i := range t.images {
		byUser[i.user] = append(byUser[i.user], i)
	}
	var ms []float64
	missing := 0
	for _, e := range t.events {
		if from.IsZero() || e.at.Before(from) {
			continue
		}
		at, ok := firstThatKnows(byUser[e.user], e.offset)
		if !ok {
			missing++
			continue
		}
		ms = append(ms, float64(at.Sub(e.at))/float64(time.Millisecond))
	}
	if missing*100 > missing+len(ms) {
		return nil
	}
	return quantiles(ms)
}

// firstThatKnows finds the earliest image with as_of at or behind offset.
func firstThatKnows(images []trackedImage, offset int64) (at time.Time, ok bool) {
	for _, i := range images {
		if i.asOf >= offset {
			return i.at, true
		}
	}
	return at, false
}

// report drains the service, asks for samples of everybody, and adds up.
func (d *Demo) report(ctx context.Context, patience time.Duration) (DemoReport, error) {
	s := d.service
	if err := d.drained(ctx, patience); err != nil {
		return DemoReport{}, err
	}
	st := s.Status()
	r := DemoReport{
		EventsFolded: st.EventsFolded, Generated: st.Generated, Duplicates: s.metrics.duplicatesN.Load(),
		DeadLetters: s.metrics.deadN.Load(), Users: st.Users, TrainSteps: st.Step, BaseRate: d.world.base,
	}
	if st.PriorVersion != "" {
		r.PriorVersion = &st.PriorVersion
	}
	r.LikedShareFirst, r.LikedShareLast = d.tracker.shares()
	r.EventToImage = d.tracker.latency(s.follower.since())
	if st.PriorVersion == "" {
		return r, nil
	}
	var err error
	r.CoverageLast, err = d.coverage(ctx, patience)
	return r, err
}

// drained waits until everything sent is folded and published.
func (d *Demo) drained(ctx context.Context, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	sent := func() int { d.tracker.mu.Lock(); defer d.tracker.mu.Unlock(); return len(d.tracker.events) }
	done := func() bool {
		l := d.service.lag()
		return l.Fold != nil && *l.Fold == 0 && *l.Publish == 0 && d.service.metrics.eventsN.Load() >= uint64(min(sent(), trackedRecords/2))
	}
	if !poll(ctx, 20*time.Millisecond, done) {
		return fmt.Errorf("draining the demo: not done after %s", patience)
	}
	return nil
}

// coverage asks, through the requests topic, for samples of everybody with
// enough events, or of some of them when somebody waits, and judges them.
func (d *Demo) coverage(ctx context.Context, patience time.Duration) (*float64, error) {
	of := 1
	if patience == hurriedTimeout {
		of = hurriedPeople
	}
	asked, err := d.ask(ctx, of)
	if err != nil || len(asked) == 0 {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	got := map[string][]shapes.Taste{}
	complete := func() bool {
		clear(got)
		d.tracker.mu.Lock()
		defer d.tracker.mu.Unlock()
		n := 0
		for _, a := range d.tracker.answers {
			if asked[a.user] {
				got[a.user] = append(got[a.user], a.taste)
				n++
			}
		}
		return n >= len(asked)*coverageSamples
	}
	if !poll(ctx, 100*time.Millisecond, complete) {
		return nil, fmt.Errorf("sampling for coverage: not done after %s", patience)
	}
	var sum float64
	for user, tastes := range got {
		sum += shapes.Coverage(d.world.People[d.world.people[user]].Tastes, tastes)
	}
	mean := sum / float64(len(got))
	return &mean, nil
}

// ask sends requests for one of so many people.
func (d *Demo) ask(ctx context.Context, of int) (map[string]bool, error) {
	topic, partitions := d.service.config.Kafka.Topics.Requests, d.service.config.Kafka.Partitions
	d.tracker.mu.Lock()
	d.tracker.answers = nil
	d.tracker.mu.Unlock()
	asked := map[string]bool{}
	images := false
	byPartition := make([][]consumer.Message, partitions)
	for i, p := range d.world.People {
		if i%of != 0 {
			continue
		}
		row, ok, err := d.service.table.User(p.ID)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", p.ID, err)
		}
		if !ok || row.Events < coverageEvents {
			continue
		}
		value, err := schemas.Request{
			RequestID: d.run + "-coverage", UserID: p.ID, Count: coverageSamples, Images: &images, Explain: &images,
		}.Encode()
		if err != nil {
			return nil, fmt.Errorf("encoding a request: %w", err)
		}
		asked[p.ID] = true
		byPartition[row.Partition] = append(byPartition[row.Partition], consumer.Message{Key: []byte(p.ID), Value: value, Time: time.Now()})
	}
	for p, messages := range byPartition {
		if len(messages) == 0 {
			continue
		}
		if _, err := d.client.Produce(ctx, topic, int32(p), messages); err != nil {
			return nil, fmt.Errorf("asking for samples: %w", err)
		}
	}
	return asked, nil
}
