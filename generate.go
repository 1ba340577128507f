package rebeca

import (
	"container/heap"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"log/slog"
	"slices"
	"sync"
	"time"

	"rebeca/prior"
	"rebeca/sampler"
	"rebeca/schemas"
	"rebeca/table"
)

const (
	// batchImages bounds what is sampled together: enough to fill the compiled
	// row shapes, few enough that one batch takes some tens of milliseconds.
	batchImages = 32
	// afterTimeout is how long a request may wait for the feedback it names.
	afterTimeout = 30 * time.Second
)

// generator turns intents into published records: it waits out the debounce,
// encodes windows, samples and decodes many users in one batch, and completes
// their intents in the table, whence the relay sends them. One goroutine, so
// a user never has two intents in flight.
type generator struct {
	config   GenerateConfig
	sampling sampler.Options
	table    *table.Table
	progress *progress
	decoder  *sampler.Decoder // nil: embeddings only
	topic    string           // of feedback, for as_of
	metrics  *metrics
	log      *slog.Logger
	wake     chan struct{} // capacity 1: a wake-up is enough however many offers came

	mu      sync.Mutex
	queue   intentHeap               // guarded by mu; may hold entries that were superseded
	waiting map[string]*waitingUser  // guarded by mu; feedback intents by user
	next    *loadedPrior             // guarded by mu; replaces current before the next batch
	oldest  map[outgoingID]time.Time // guarded by mu; Kafka time of the first event behind an intent

	current *loadedPrior // the generator goroutine's own
}

// waitingUser is the one waiting feedback intent of a user.
type waitingUser struct {
	seq    uint64
	first  time.Time // when the first of the coalesced events was folded
	oldest time.Time // that event's Kafka timestamp
}

// outgoingID names the intent behind an outgoing message.
type outgoingID struct {
	partition int32
	seq       uint64
}

// loadedPrior is an announced version ready to sample from.
type loadedPrior struct {
	model   *prior.Model
	version schemas.PriorVersion
	none    *prior.Condition // of the empty window
}

func newGenerator(c Config, t *table.Table, p *progress, d *sampler.Decoder, m *metrics, log *slog.Logger) *generator {
	return &generator{
		config: c.Generate, sampling: c.samplerOptions(), table: t, progress: p, decoder: d, topic: c.Kafka.Topics.Feedback,
		metrics: m, log: log, wake: make(chan struct{}, 1),
		waiting: map[string]*waitingUser{}, oldest: map[outgoingID]time.Time{},
	}
}

// queued is an intent and when it is due.
type queued struct {
	table.Intent
	due   time.Time
	since time.Time
}

type intentHeap []queued

func (h intentHeap) Len() int           { return len(h) }
func (h intentHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h intentHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *intentHeap) Push(x any)        { *h = append(*h, x.(queued)) }
func (h *intentHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

// offer takes intents that the table has just written. A feedback intent
// replaces the user's waiting one and moves its due time, never beyond MaxWait
// after the first.
func (g *generator) offer(intents []table.Intent) {
	if len(intents) == 0 {
		return
	}
	now := time.Now()
	g.mu.Lock()
	for _, in := range intents {
		q := queued{Intent: in, due: now, since: now}
		if in.Trigger == schemas.TriggerFeedback {
			u := g.waiting[in.UserID]
			if u == nil {
				u = &waitingUser{first: now, oldest: in.At}
				g.waiting[in.UserID] = u
			}
			u.seq = in.Seq
			q.due = now.Add(g.config.Debounce)
			if limit := u.first.Add(g.config.MaxWait); q.due.After(limit) {
				q.due = limit
			}
		}
		heap.Push(&g.queue, q)
	}
	g.mu.Unlock()
	g.poke()
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
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		g.switchPrior()
		var wait time.Duration
		if g.current != nil {
			batch, until := g.take(time.Now())
			if len(batch) > 0 {
				if err := g.generate(batch); err != nil {
					return err
				}
				if ctx.Err() != nil {
					return nil
				}
				continue
			}
			refreshed, err := g.refresh()
			if err != nil {
				return err
			}
			if wait = until; refreshed {
				wait = 0
			}
		} else {
			wait = time.Hour
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return nil
		case <-g.wake:
		case <-timer.C:
		}
	}
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

// take pops what is due, at most batchImages images (one larger request goes
// alone), and marks it in flight. until is how long nothing more is due.
func (g *generator) take(now time.Time) (batch []queued, until time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var early []queued // requests whose feedback is not folded yet
	images := 0
	until = 50 * time.Millisecond // stale vectors are looked for at this pace
	for len(g.queue) > 0 {
		q := g.queue[0]
		if wait := q.due.Sub(now); wait > 0 {
			until = min(until, wait)
			break
		}
		if images > 0 && images+q.Count > batchImages {
			break
		}
		heap.Pop(&g.queue)
		if q.Trigger == schemas.TriggerFeedback {
			u := g.waiting[q.UserID]
			if u == nil || u.seq != q.Seq {
				continue // superseded
			}
			delete(g.waiting, q.UserID)
			g.oldest[outgoingID{q.Partition, q.Seq}] = u.oldest
		}
		if a := q.After; a != nil && g.progress.get(a.Partition) <= a.Offset && now.Sub(q.since) < afterTimeout {
			q.due = now.Add(5 * time.Millisecond)
			early = append(early, q)
			continue
		}
		g.table.Begin(q.Partition, []uint64{q.Seq})
		batch = append(batch, q)
		images += q.Count
	}
	for _, q := range early {
		heap.Push(&g.queue, q)
		until = min(until, 5*time.Millisecond)
	}
	return batch, until
}

// subject is a user as a batch sees them.
type subject struct {
	row     table.Row
	asOf    schemas.Position
	context prior.Context
	cond    *prior.Condition
}

// subjects reads the users' windows and encodes them. The fold's position is
// read before the row, so a row always knows of everything up to its as_of.
func (g *generator) subjects(users []string, partitions []int32) ([]subject, error) {
	out := make([]subject, len(users))
	contexts := make([]prior.Context, len(users))
	for i, user := range users {
		s := &out[i]
		s.asOf = schemas.Position{Partition: partitions[i], Offset: g.progress.get(partitions[i]) - 1}
		row, _, err := g.table.User(user)
		if err != nil {
			return nil, fmt.Errorf("reading user %q: %w", user, err)
		}
		s.row = row
		var masked int
		s.context, masked = g.table.Context(row)
		g.metrics.masked.Add(float64(masked))
		contexts[i] = s.context
	}
	conds, err := g.current.model.Encode(contexts)
	if err != nil {
		return nil, fmt.Errorf("encoding %d windows: %w", len(users), err)
	}
	for i := range out {
		out[i].cond = conds[i]
	}
	return out, nil
}

// generate makes the images of a batch and completes its intents. What the
// model or the decoder refuses goes back to waiting.
func (g *generator) generate(batch []queued) error {
	start := time.Now()
	done, err := g.completions(batch)
	if err != nil {
		g.log.Error("generating failed; trying again", "err", err, "intents", len(batch))
		g.metrics.failures.Inc()
		g.retry(batch)
		return nil
	}
	byPartition := map[int32][]table.Completion{}
	for i, q := range batch {
		byPartition[q.Partition] = append(byPartition[q.Partition], done[i])
	}
	for p, cs := range byPartition {
		if err := g.table.Complete(p, cs); err != nil {
			return fmt.Errorf("completing intents of partition %d: %w", p, err)
		}
	}
	g.metrics.batchSeconds.Observe(time.Since(start).Seconds())
	return nil
}

// retry puts a failed batch back, due in a second.
func (g *generator) retry(batch []queued) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, q := range batch {
		g.table.Release(q.Partition, []uint64{q.Seq})
		q.due = time.Now().Add(time.Second)
		if q.Trigger == schemas.TriggerFeedback {
			if g.waiting[q.UserID] != nil {
				continue // newer feedback waits and answers for this one
			}
			g.waiting[q.UserID] = &waitingUser{seq: q.Seq, first: q.since, oldest: g.oldest[outgoingID{q.Partition, q.Seq}]}
		}
		heap.Push(&g.queue, q)
	}
}

func (g *generator) completions(batch []queued) ([]table.Completion, error) {
	users, partitions := make([]string, len(batch)), make([]int32, len(batch))
	for i, q := range batch {
		users[i], partitions[i] = q.UserID, q.Partition
	}
	subjects, err := g.subjects(users, partitions)
	if err != nil {
		return nil, err
	}
	var jobs []sampler.Job
	var records []schemas.Generated
	var withImage []int
	for i, q := range batch {
		for k := range q.Count {
			job, rec := g.plan(q, subjects[i], k)
			if g.decoder != nil && (q.Images == nil || *q.Images) {
				withImage = append(withImage, len(jobs))
			}
			jobs, records = append(jobs, job), append(records, rec)
		}
	}
	embeddings, err := sampler.Sample(g.current.model, g.sampling, jobs)
	if err != nil {
		return nil, fmt.Errorf("sampling %d embeddings: %w", len(jobs), err)
	}
	for i := range records {
		records[i].Embedding = embeddings[i]
	}
	if err := g.decode(records, withImage); err != nil {
		return nil, err
	}
	out := make([]table.Completion, len(batch))
	for i, q := range batch {
		if out[i], err = g.completion(q, subjects[i], records[:q.Count]); err != nil {
			return nil, err
		}
		records = records[q.Count:]
	}
	return out, nil
}

// plan derives the k-th image of an intent: its id and its seed come from the
// cause, so that the same event makes the same image for ever.
func (g *generator) plan(q queued, s subject, k int) (sampler.Job, schemas.Generated) {
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
	return sampler.Job{Cond: s.cond, Label: label, Seed: seed, Guidance: guidance}, schemas.Generated{
		ID: id, UserID: q.UserID, RequestID: q.RequestID, Trigger: q.Trigger,
		Seed: seed, Guidance: guidance, Steps: g.sampling.Steps, PriorVersion: g.current.version.Version,
		EventsFolded: s.row.Events, AsOf: s.asOf, Source: q.Source,
	}
}

// decode fills in the images of the records named by at.
func (g *generator) decode(records []schemas.Generated, at []int) error {
	if len(at) == 0 {
		return nil
	}
	embeddings := make([][]float32, len(at))
	for i, r := range at {
		embeddings[i] = records[r].Embedding
	}
	images, err := g.decoder.Decode(embeddings)
	if err != nil {
		return fmt.Errorf("decoding %d embeddings: %w", len(at), err)
	}
	for i, r := range at {
		if records[r].Image, err = inlineImage(images[i]); err != nil {
			return err
		}
	}
	return nil
}

func inlineImage(img image.Image) (*schemas.Image, error) {
	out, err := sampler.InlinePNG(img)
	if err != nil {
		return nil, fmt.Errorf("encoding an image: %w", err)
	}
	return &out, nil
}

func (g *generator) completion(q queued, s subject, records []schemas.Generated) (table.Completion, error) {
	now := time.Now().UTC()
	c := table.Completion{Seq: q.Seq, UserID: q.UserID}
	for _, r := range records {
		r.CreatedAt = now
		value, err := json.Marshal(r)
		if err != nil {
			return c, fmt.Errorf("encoding generated record %s: %w", r.ID, err)
		}
		c.Messages = append(c.Messages, table.Message{
			Role: table.RoleGenerated, Key: []byte(q.UserID), Value: value,
			Headers: schemas.CloudEvent("rebeca.generated", r.ID, "/rebeca", now, "application/json"),
		})
		c.Memories = append(c.Memories, table.Memory{ID: r.ID, Embedding: r.Embedding, Record: value, Source: q.Source})
	}
	if s.row.Events == 0 {
		return c, nil // nobody's vector: the population's is not a user's
	}
	return g.withVector(c, s, now)
}

func (g *generator) withVector(c table.Completion, s subject, now time.Time) (table.Completion, error) {
	c.Vector = &table.Vector{
		Values: slices.Clone(s.cond.Vector), PriorVersion: g.current.version.Version, Events: s.row.Events, AsOf: s.row.LastOffset,
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
	for p := range int32(len(g.progress.next)) {
		users, err := g.table.Stale(p, batchImages, "")
		if err != nil {
			return false, fmt.Errorf("looking for stale vectors of partition %d: %w", p, err)
		}
		users = slices.DeleteFunc(users, g.waits)
		if len(users) == 0 {
			continue
		}
		some = true
		if err := g.refreshUsers(p, users); err != nil {
			return false, err
		}
	}
	return some, nil
}

// waits reports whether the user has an intent waiting, which will bring the
// vector along.
func (g *generator) waits(user string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waiting[user] != nil
}

func (g *generator) refreshUsers(p int32, users []string) error {
	partitions := slices.Repeat([]int32{p}, len(users))
	subjects, err := g.subjects(users, partitions)
	if err != nil {
		return err
	}
	cs := make([]table.Completion, len(users))
	now := time.Now().UTC()
	for i, s := range subjects {
		if cs[i], err = g.withVector(table.Completion{UserID: users[i]}, s, now); err != nil {
			return err
		}
	}
	if err := g.table.Complete(p, cs); err != nil {
		return fmt.Errorf("storing vectors of partition %d: %w", p, err)
	}
	return nil
}

// published is called with what the broker has acknowledged.
func (g *generator) published(partition int32, out []table.Outgoing, at time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, m := range out {
		if m.Role != table.RoleGenerated {
			continue
		}
		g.metrics.generatedN.Add(1)
		id := outgoingID{partition, m.Seq}
		if first, ok := g.oldest[id]; ok {
			g.metrics.eventToImage.Observe(at.Sub(first).Seconds())
			g.metrics.latencies.add(at.Sub(first))
			delete(g.oldest, id)
		}
	}
}
