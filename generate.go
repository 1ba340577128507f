package rebeca

import (
	"container/heap"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"rebeca/prior"
	"rebeca/sampler"
	"rebeca/schemas"
	"rebeca/table"
)

const (
	// batchImages bounds what is sampled together before batchSize has seen how
	// long that takes.
	batchImages = 32
	// chunkImages bounds what one intent takes of a batch, so that a request of
	// a thousand images does not hold back everybody else's.
	chunkImages = 16
	// maxBegun bounds the requests that are made in chunks at the same time: the
	// images of those lie in memory until all are there.
	maxBegun = 16
	// crowdedLook is how often a large request looks whether it may begin.
	crowdedLook = 100 * time.Millisecond
	// poolLook is how often an intent looks whether its user's images are out of
	// the decode pool.
	poolLook = 10 * time.Millisecond
	// afterTimeout is how long a request may wait for the feedback it names.
	afterTimeout = 30 * time.Second
	// retryAfter is the pause after a batch that failed.
	retryAfter = time.Second
)

// headerEventTime is the header of a generated record that says when the first
// feedback behind it was produced (RFC 3339): now minus it is the latency.
const headerEventTime = "rebeca-event-time"

// generator turns intents into published records: it waits out the debounce,
// encodes windows, samples and decodes many users in one batch, and completes
// their intents in the table, whence the relay sends them. One goroutine, so
// a user never has two intents in flight.
type generator struct {
	config   GenerateConfig
	sampling sampler.Options
	table    *table.Table
	progress *progress
	pool     *decodePool // nil: embeddings only
	outbox   *outboxRoom // nil: there is always room
	chooser  *chooser
	metrics  *metrics
	log      *slog.Logger
	room     func(context.Context) error // waits until results can be written; nil: always
	wake     chan struct{}               // capacity 1: a wake-up is enough however many offers came

	mu     sync.Mutex
	asked  line                 // guarded by mu; the requests that wait, no others
	queue  line                 // guarded by mu; the intents of feedback that wait, no others
	byID   map[intentID]*queued // guarded by mu; all that wait
	begun  int                  // guarded by mu; those that wait between two chunks
	opened map[int32]bool       // guarded by mu; the partitions whose intents are taken
	flying map[string]bool      // guarded by mu; users whose feedback's images are in the pool
	next   *loadedPrior         // guarded by mu; replaces current before the next batch

	batch     sync.Mutex // held while a batch is made; g.mu is taken under it
	finishing sync.Mutex // held while what the pool made is completed; g.mu is taken under it

	current      *loadedPrior // the generator goroutine's own
	size         batchSize    // its own
	conditions   *conditions  // its own
	refreshAfter time.Time    // its own; after a failure, when vectors are looked at again
}

// intentID names an intent.
type intentID struct {
	partition int32
	seq       uint64
}

// loadedPrior is an announced version ready to sample from.
type loadedPrior struct {
	model   *prior.Model
	version schemas.PriorVersion
}

// newGenerator returns one whose pool, if not nil, decodes what it samples.
func newGenerator(c Config, t *table.Table, p *progress, pool *decodePool, m *metrics, log *slog.Logger) *generator {
	g := &generator{
		config: c.Generate, sampling: c.samplerOptions(), table: t, progress: p, pool: pool,
		chooser: newChooser(c.Sampler, t, m), metrics: m, log: log, wake: make(chan struct{}, 1), conditions: newConditions(conditionBytes), byID: map[intentID]*queued{}, opened: map[int32]bool{}, flying: map[string]bool{},
	}
	if pool != nil {
		pool.finish = g.finish
	}
	return g
}

// open begins to take the intents of a partition, those first that wait in the
// table. What is offered of other partitions stays there.
func (g *generator) open(partition int32) error {
	g.mu.Lock()
	g.opened[partition] = true
	g.mu.Unlock()
	// Read only now: what is folded meanwhile is offered.
	intents, err := g.table.Intents(partition)
	if err != nil {
		return fmt.Errorf("reading waiting intents: %w", err)
	}
	g.offer(partition, intents, nil)
	return nil
}

// leave lets go of a partition: its intents wait in the table, and a batch in
// hand is waited for. What the decode pool has of it is dropped.
func (g *generator) leave(partition int32) {
	g.mu.Lock()
	delete(g.opened, partition)
	for id, q := range g.byID {
		if id.partition == partition {
			g.remove(id)
			g.letGo(q) // it may be between two chunks
		}
	}
	g.mu.Unlock()
	g.batch.Lock()
	if g.pool != nil {
		for _, s := range g.pool.drop(partition) {
			g.giveBack(s)
		}
	}
	g.batch.Unlock()
	g.finishing.Lock()
	defer g.finishing.Unlock() // nothing is in hand now; what is being decoded finds the partition closed
	g.poke()                   // there may be room in the pool
}

// queued is an intent that waits, or whose images are being made.
type queued struct {
	table.Intent
	due    time.Time
	since  time.Time           // when it, or the first intent it stands for, was folded
	oldest time.Time           // that one's Kafka timestamp
	made   []schemas.Generated // images of the chunks made so far
	at     int                 // index in the heap, -1 outside
}

func (q *queued) id() intentID { return intentID{q.Partition, q.Seq} }

type intentHeap []*queued

func (h intentHeap) Len() int           { return len(h) }
func (h intentHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h intentHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i]; h[i].at, h[j].at = i, j }
func (h *intentHeap) Push(x any)        { q := x.(*queued); q.at = len(*h); *h = append(*h, q) }
func (h *intentHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	x.at = -1
	return x
}

// line is what waits, each heap by when it is due. Those whose images are
// decoded wait apart: while the pool is full nobody looks at them.
type line struct{ plain, pictured intentHeap }

// first is the heap with the intent that is due first; nil when none waits, or
// only ones to be decoded and full is true.
func (l *line) first(full bool) *intentHeap {
	switch {
	case len(l.pictured) > 0 && !full && (len(l.plain) == 0 || l.pictured[0].due.Before(l.plain[0].due)):
		return &l.pictured
	case len(l.plain) > 0:
		return &l.plain
	}
	return nil
}

// offer takes intents that the table has just written and drops those that it
// says they replace. A feedback intent is due after the debounce, but never
// later than MaxWait after the first event it stands for.
func (g *generator) offer(partition int32, intents []table.Intent, superseded []uint64) {
	if len(intents)+len(superseded) == 0 {
		return
	}
	now := time.Now()
	g.mu.Lock()
	if !g.opened[partition] {
		g.mu.Unlock()
		return
	}
	replaced := map[string]*queued{} // by user
	for _, seq := range superseded {
		if q := g.remove(intentID{partition, seq}); q != nil {
			if old := replaced[q.UserID]; old == nil || q.since.Before(old.since) {
				replaced[q.UserID] = q
			}
		}
	}
	for _, in := range intents {
		if g.byID[intentID{partition, in.Seq}] != nil {
			continue // offered while the partition was opened
		}
		q := &queued{Intent: in, due: now, since: now, oldest: in.At}
		if in.Trigger == schemas.TriggerFeedback {
			if old := replaced[in.UserID]; old != nil {
				q.since, q.oldest = old.since, old.oldest
			}
			q.due = now.Add(g.config.Debounce)
			if limit := q.since.Add(g.config.MaxWait); q.due.After(limit) {
				q.due = limit
			}
		}
		g.push(q)
	}
	g.mu.Unlock()
	g.poke()
}

// push makes q wait; g.mu is held.
func (g *generator) push(q *queued) {
	g.byID[q.id()] = q
	if len(q.made) > 0 {
		g.begun++
	}
	heap.Push(g.heapOf(q), q)
}

// heapOf is where an intent waits: what was asked for goes first.
func (g *generator) heapOf(q *queued) *intentHeap {
	l := &g.asked
	if q.Trigger == schemas.TriggerFeedback {
		l = &g.queue
	}
	if g.pictured(q) {
		return &l.pictured
	}
	return &l.plain
}

// remove ends the waiting of an intent; nil where it does not wait. g.mu is held.
func (g *generator) remove(id intentID) *queued {
	q := g.byID[id]
	if q == nil {
		return nil
	}
	delete(g.byID, id)
	if len(q.made) > 0 {
		g.begun--
	}
	heap.Remove(g.heapOf(q), q.at)
	return q
}

// use makes p the prior of the next batch.
func (g *generator) use(p *loadedPrior) {
	g.mu.Lock()
	old := g.next
	g.next = p
	g.mu.Unlock()
	if old != nil {
		old.model.Close()
	}
	g.poke()
}

func (g *generator) poke() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// Run generates until ctx ends. A batch that fails is tried again later; only
// errors of the table end it.
func (g *generator) Run(ctx context.Context) error {
	defer g.close()
	group, ctx := errgroup.WithContext(ctx)
	if g.pool != nil {
		for range g.pool.config.Workers {
			group.Go(func() error { return g.pool.work(ctx) })
		}
	}
	group.Go(func() error { return g.run(ctx) })
	return group.Wait()
}

func (g *generator) run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		if g.room != nil && g.room(ctx) != nil {
			break
		}
		g.switchPrior()
		wait := time.Hour
		if g.current != nil {
			some, until, err := g.work()
			if err != nil {
				return err
			}
			if wait = until; some {
				continue
			}
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-g.wake:
		case <-timer.C:
		}
	}
	return nil
}

// work makes one batch of what is due, or brings vectors up to date; until is
// how long nothing more is due where it found nothing to do.
func (g *generator) work() (some bool, until time.Duration, err error) {
	g.batch.Lock()
	defer g.batch.Unlock()
	batch, until := g.take(time.Now())
	if len(batch) > 0 {
		return true, 0, g.generate(batch)
	}
	some, err = g.refresh()
	return some, until, err
}

func (g *generator) close() {
	g.switchPrior()
	if g.current != nil {
		g.current.model.Close()
		g.current = nil
	}
}

func (g *generator) switchPrior() {
	g.mu.Lock()
	p := g.next
	g.next = nil
	g.mu.Unlock()
	if p == nil {
		return
	}
	if g.current != nil {
		g.current.model.Close()
	}
	g.current = p
}

// chunk is what a batch makes of an intent: images from..from+n.
type chunk struct {
	*queued
	from, n int
}

// take pops what is due, at most batchSize's images, batchCandidates candidates and
// chunkImages of an intent, and marks it in flight. until is how long nothing more is due.
// The first that finds too little room in the decode pool ends the look at those that are decoded, smaller ones and feedback too: else
// those took each place that comes free, and a request of many never found enough. finish looks again.
func (g *generator) take(now time.Time) (batch []chunk, until time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	images, candidates, begun, room, full, most := 0, 0, g.begun, 0, false, g.size.images()
	if g.pool != nil {
		room = g.pool.room()
	}
	until = 50 * time.Millisecond // stale vectors are looked for at this pace
	for _, l := range []*line{&g.asked, &g.queue} {
		for h := l.first(full); h != nil && images < most; h = l.first(full) {
			q := (*h)[0]
			if wait := q.due.Sub(now); wait > 0 {
				until = min(until, wait)
				break
			}
			large := q.Count > chunkImages && len(q.made) == 0
			n := min(q.Count-len(q.made), chunkImages)
			pictured := g.pictured(q)
			if wait := g.held(q, large && begun >= maxBegun, now); wait > 0 {
				q.due = now.Add(wait)
				heap.Fix(h, 0)
				continue
			}
			if pictured && n > room {
				full = true
				continue
			}
			each := g.chooser.candidates(q)
			if fit := min(most-images, (batchCandidates-candidates)/each); n > fit {
				if len(batch) > 0 && (fit == 0 || q.Count <= chunkImages) {
					return batch, until // it is made at once, next: parts of it would lie in memory
				}
				n = fit
			}
			if large {
				begun++
			}
			g.remove(q.id())
			g.table.Begin(q.Partition, []uint64{q.Seq})
			batch = append(batch, chunk{q, len(q.made), n})
			images, candidates = images+n, candidates+n*each
			if pictured {
				room -= n
			}
		}
	}
	return batch, until
}

// held is how long something that is due has to wait before it is looked at
// again, 0 when it may be made now: for the feedback that it names, for room in
// the outbox, for the user's images before and, if crowded, for the end of a
// large one.
func (g *generator) held(q *queued, crowded bool, now time.Time) time.Duration {
	a := q.After
	switch {
	case a != nil && g.progress.get(a.Partition) <= a.Offset && now.Sub(q.since) < afterTimeout:
		return 5 * time.Millisecond
	case g.outbox != nil && !g.outbox.there(q.Partition):
		return outboxLook
	case crowded:
		return crowdedLook
	case q.Trigger == schemas.TriggerFeedback && g.flying[q.UserID]:
		return poolLook
	}
	return 0
}

// pictured reports whether an intent's images are decoded.
func (g *generator) pictured(q *queued) bool {
	return g.pool != nil && (q.Images == nil || *q.Images)
}

// subject is a user as a batch sees them.
type subject struct {
	row     table.Row
	version string // of the prior
	asOf    schemas.Position
	context prior.Context
	entries []table.Entry // of row, those in context
	cond    *prior.Condition
}

// subjects reads the users' windows and encodes them. The fold's position is
// read before the row, so a row always knows of everything up to its as_of.
func (g *generator) subjects(users []string, partitions []int32) ([]subject, error) {
	out := make([]subject, len(users))
	contexts := make([]prior.Context, len(users))
	for i, user := range users {
		s := &out[i]
		s.version = g.current.version.Version
		s.asOf = schemas.Position{Partition: partitions[i], Offset: g.progress.get(partitions[i]) - 1}
		row, _, err := g.table.User(user)
		if err != nil {
			return nil, fmt.Errorf("reading user %q: %w", user, err)
		}
		s.row = row
		s.context, s.entries = g.table.Resolved(row)
		g.metrics.masked.Add(float64(len(row.Window) - len(s.entries)))
		contexts[i] = s.context
	}
	conds, encoded, err := g.conditions.encode(g.current.model, users, contexts)
	if err != nil {
		return nil, fmt.Errorf("encoding %d windows: %w", len(users), err)
	}
	g.metrics.windowsEncoded.Add(float64(encoded))
	g.metrics.windowsReused.Add(float64(len(users) - encoded))
	for i := range out {
		out[i].cond = conds[i]
	}
	return out, nil
}

// generate samples a batch. What wants no pictures is completed, the rest goes
// to the decode pool. What the model refuses is tried again.
func (g *generator) generate(batch []chunk) error {
	start := time.Now()
	all, err := g.sample(batch)
	if err != nil {
		g.log.Error("generating failed; trying again", "err", err, "intents", len(batch))
		g.metrics.failures.Inc()
		for _, c := range batch {
			g.table.Release(c.Partition, []uint64{c.Seq})
		}
		g.again(batch, start.Add(retryAfter))
		return nil
	}
	g.metrics.batchSeconds.Observe(time.Since(start).Seconds())
	var made []*sampled
	for _, s := range all {
		if s.wanted == 0 {
			made = append(made, s)
			continue
		}
		if s.Trigger == schemas.TriggerFeedback {
			g.mu.Lock()
			g.flying[s.UserID] = true
			g.mu.Unlock()
		}
		g.pool.put(s)
	}
	return g.finish(made)
}

// finish adds what is made to its intents, and completes those that have all of
// their images; the others wait for their next chunk.
func (g *generator) finish(made []*sampled) error {
	g.finishing.Lock()
	defer g.finishing.Unlock()
	byPartition := map[int32][]table.Completion{}
	var whole, rest []chunk
	for _, s := range made {
		if !g.landed(s) {
			g.giveBack(s)
			continue
		}
		s.made = append(s.made, s.records...)
		if len(s.made) < s.Count {
			rest = append(rest, s.chunk)
			continue
		}
		done, err := g.completion(s.queued, s.subject)
		if err != nil {
			return err
		}
		byPartition[s.Partition] = append(byPartition[s.Partition], done)
		whole = append(whole, s.chunk)
	}
	for p, cs := range byPartition {
		if err := g.table.Complete(p, cs); err != nil {
			return fmt.Errorf("completing intents of partition %d: %w", p, err)
		}
	}
	for _, c := range whole {
		g.release(c.made)
	}
	g.again(rest, time.Now())
	g.poke()
	return nil
}

// landed notes that a chunk is out of the pool; false when its partition is no
// longer taken.
func (g *generator) landed(s *sampled) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s.Trigger == schemas.TriggerFeedback {
		delete(g.flying, s.UserID)
	}
	return g.opened[s.Partition]
}

// giveBack leaves to the table what was in the pool.
func (g *generator) giveBack(s *sampled) {
	g.landed(s)
	g.release(s.records)
	g.letGo(s.queued)
}

// letGo leaves an intent to the table.
func (g *generator) letGo(q *queued) {
	g.release(q.made)
	g.table.Release(q.Partition, []uint64{q.Seq})
}

// release lets go of the objects of records.
func (g *generator) release(made []schemas.Generated) {
	if g.pool != nil {
		g.pool.pictures.release(made)
	}
}

// again lets intents wait once more, due at the given time. Those between two
// chunks stay in flight: newer feedback does not throw their images away.
func (g *generator) again(batch []chunk, due time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range batch {
		if !g.opened[c.Partition] {
			g.letGo(c.queued)
			continue
		}
		c.due = due
		g.push(c.queued)
	}
}

// sample makes the embeddings of a batch.
func (g *generator) sample(batch []chunk) ([]*sampled, error) {
	users, partitions := make([]string, len(batch)), make([]int32, len(batch))
	for i, c := range batch {
		users[i], partitions[i] = c.UserID, c.Partition
	}
	subjects, err := g.subjects(users, partitions)
	if err != nil {
		return nil, err
	}
	var jobs []sampler.Job
	var records []schemas.Generated
	for i, c := range batch {
		for k := c.from; k < c.from+c.n; k++ {
			job, rec := g.plan(c.queued, subjects[i], k)
			jobs, records = append(jobs, job), append(records, rec)
		}
	}
	start := time.Now()
	jobs, err = g.chooser.choose(g.current.model, g.sampling, batch, jobs, records)
	if err != nil {
		return nil, fmt.Errorf("sampling %d embeddings: %w", len(records), err)
	}
	g.size.took(len(records), time.Since(start))
	if err := g.explain(batch, subjects, jobs, records); err != nil {
		return nil, err
	}
	out := make([]*sampled, len(batch))
	for i, c := range batch {
		s := &sampled{chunk: c, subject: subjects[i], records: records[:c.n:c.n]}
		records = records[c.n:]
		if g.pictured(c.queued) {
			s.wanted = c.n
		}
		for at := range s.wanted {
			s.todo = append(s.todo, picture{at: at})
		}
		out[i] = s
	}
	return out, nil
}

// plan derives the k-th image of an intent: its id and its seed come from the
// cause, so that the same event makes the same image for ever.
func (g *generator) plan(q *queued, s subject, k int) (sampler.Job, schemas.Generated) {
	id := schemas.ID(q.Source, k)
	seed := schemas.Seed(id)
	if q.Seed != nil {
		seed = *q.Seed
		if k > 0 {
			seed = schemas.Seed(fmt.Sprintf("%d/%d", *q.Seed, k))
		}
	}
	guidance := g.sampling.Guidance
	if q.Guidance != nil {
		guidance = *q.Guidance
	}
	label := prior.StrongPositive
	if q.Rating == schemas.RatingDislike {
		label = prior.StrongNegative
	}
	job, steps := sampler.Job{Cond: s.cond, Window: s.context, Label: label, Seed: seed, Guidance: guidance}, g.sampling.Steps
	if n := g.sampling.StudentPasses(g.current.model, job); n > 0 {
		steps = n
	}
	return job, schemas.Generated{
		ID: id, UserID: q.UserID, RequestID: q.RequestID, Trigger: q.Trigger,
		Seed: seed, Guidance: guidance, Steps: steps, PriorVersion: s.version,
		EventsFolded: s.row.Events, AsOf: s.asOf, Source: q.Source, CausedAt: q.At,
	}
}

func (g *generator) completion(q *queued, s subject) (table.Completion, error) {
	now := time.Now().UTC()
	c := table.Completion{Seq: q.Seq, UserID: q.UserID}
	for _, r := range q.made {
		r.CreatedAt = now
		value, err := json.Marshal(r)
		if err != nil {
			return c, fmt.Errorf("encoding generated record %s: %w", r.ID, err)
		}
		headers := schemas.CloudEvent("rebeca.generated", r.ID, "/rebeca", now, "application/json")
		if q.Trigger == schemas.TriggerFeedback {
			headers = append(headers, schemas.Header{Key: headerEventTime, Value: q.oldest.UTC().AppendFormat(nil, time.RFC3339Nano)})
		}
		c.Messages = append(c.Messages, table.Message{Role: table.RoleGenerated, Key: []byte(q.UserID), Value: value, Headers: headers})
		c.Memories = append(c.Memories, table.Memory{ID: r.ID, Embedding: r.Embedding, Record: value, Source: q.Source, Object: objectOf(r), CausedAt: r.CausedAt})
	}
	if s.row.Events == 0 {
		return c, nil // nobody's vector: the population's is not a user's
	}
	return g.withVector(c, s, now)
}

func (g *generator) withVector(c table.Completion, s subject, now time.Time) (table.Completion, error) {
	c.Vector = &table.Vector{
		Values: slices.Clone(s.cond.Vector), PriorVersion: s.version, Events: s.row.Events, AsOf: s.row.LastOffset,
	}
	value, err := json.Marshal(schemas.Vector{
		UserID: c.UserID, Vector: c.Vector.Values, PriorVersion: c.Vector.PriorVersion, EventsFolded: c.Vector.Events,
	})
	if err != nil {
		return c, fmt.Errorf("encoding the vector of %q: %w", c.UserID, err)
	}
	id := fmt.Sprintf("%s/%d", c.UserID, s.row.Events)
	c.Messages = append(c.Messages, table.Message{
		Role: table.RoleVectors, Key: []byte(c.UserID), Value: value,
		Headers: schemas.CloudEvent("rebeca.vector", id, "/rebeca", now, "application/json"),
	})
	return c, nil
}

// refresh brings the vectors of users up to date whose events made no intent
// (old ones, history imports), a batch at a time and only when nothing is due.
func (g *generator) refresh() (bool, error) {
	some := false
	if time.Now().Before(g.refreshAfter) {
		return false, nil
	}
	for _, p := range g.partitions() {
		if g.outbox != nil && !g.outbox.there(p) {
			continue
		}
		users, err := g.table.Stale(p, batchImages)
		if err != nil {
			return false, fmt.Errorf("looking for stale vectors of partition %d: %w", p, err)
		}
		users = g.idle(users)
		if len(users) == 0 {
			continue
		}
		cs, err := g.vectors(p, users)
		if err != nil {
			g.log.Error("encoding windows failed; trying again", "err", err, "partition", p, "users", len(users))
			g.metrics.failures.Inc()
			g.refreshAfter = time.Now().Add(retryAfter)
			continue
		}
		if err := g.table.Complete(p, cs); err != nil {
			return false, fmt.Errorf("storing vectors of partition %d: %w", p, err)
		}
		left, err := g.table.Stale(p, batchImages)
		if err != nil {
			return false, fmt.Errorf("looking for stale vectors of partition %d: %w", p, err)
		}
		if slices.ContainsFunc(users, func(u string) bool { return !slices.Contains(left, u) }) {
			some = true
		} else { // not at once again: there may be nothing that can be stored of these
			g.refreshAfter = time.Now().Add(retryAfter)
		}
	}
	return some, nil
}

// partitions returns those opened, rising.
func (g *generator) partitions() []int32 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Sorted(maps.Keys(g.opened))
}

// idle leaves out users with a waiting intent, which will bring the vector
// along.
func (g *generator) idle(users []string) []string {
	if len(users) == 0 {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	waiting := make(map[string]bool, len(g.byID))
	for _, q := range g.byID {
		waiting[q.UserID] = true
	}
	return slices.DeleteFunc(users, func(u string) bool { return waiting[u] })
}

func (g *generator) vectors(p int32, users []string) ([]table.Completion, error) {
	subjects, err := g.subjects(users, slices.Repeat([]int32{p}, len(users)))
	if err != nil {
		return nil, err
	}
	cs := make([]table.Completion, len(users))
	now := time.Now().UTC()
	for i, s := range subjects {
		if cs[i], err = g.withVector(table.Completion{UserID: users[i]}, s, now); err != nil {
			return nil, err
		}
	}
	return cs, nil
}

// published is called with what the broker has acknowledged.
func (g *generator) published(out []table.Outgoing, at time.Time) {
	for _, m := range out {
		if m.Role != table.RoleGenerated {
			continue
		}
		g.metrics.generatedN.Add(1)
		for _, h := range m.Headers {
			if h.Key != headerEventTime {
				continue
			}
			if first, err := time.Parse(time.RFC3339Nano, string(h.Value)); err == nil {
				g.metrics.eventToImage.Observe(at.Sub(first).Seconds())
				g.metrics.latencies.add(at.Sub(first))
			}
		}
	}
}
