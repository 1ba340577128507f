package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"rebeca/internal/figures"
	"rebeca/internal/ort"
	"rebeca/online"
	"rebeca/online/people"
	"rebeca/prior"
	"rebeca/sampler"
	"rebeca/schemas"
	"rebeca/table"
)

// options of a run.
type options struct {
	before, fold, rounds, windows, samples, items int
}

const (
	dim        = 16
	partitions = 4
	batch      = 1000 // events of a fold
)

// crowd is a table of users with the events that are to come.
type crowd struct {
	*table.Table
	rng   *rand.Rand
	users int
	items int
	next  [partitions]int64
	count int
}

// measure fills a table with users and takes the costs of events.
func measure(ctx context.Context, users int, o options) (got figures.Figures, err error) {
	dir, err := os.MkdirTemp("", "rebeca-scale-")
	if err != nil {
		return nil, fmt.Errorf("making a directory for the table: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	before := heap()
	t, err := table.Open(table.Options{
		Dir: filepath.Join(dir, "table"), Partitions: partitions, Dim: dim, Rules: table.DefaultRules(), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	c := &crowd{Table: t, rng: rand.New(rand.NewPCG(1, uint64(users))), users: users, items: o.items}
	if err := c.stock(); err != nil {
		return nil, err
	}
	for i := range o.before {
		if err := c.everybody(i); err != nil {
			return nil, err
		}
	}
	got = figures.Figures{"heap_bytes": heap() - before}
	start := time.Now()
	for done := 0; done < o.fold; done += batch {
		if _, err := c.fold(batch, c.anyone); err != nil {
			return nil, err
		}
	}
	got["fold_us"] = micros(start, o.fold)
	if err := t.Sync(); err != nil {
		return nil, err
	}
	if got["disk_bytes"], err = size(dir); err != nil {
		return nil, err
	}
	return got, c.learn(ctx, filepath.Join(dir, "prior"), o, got)
}

func micros(since time.Time, n int) float64 { return time.Since(since).Seconds() * 1e6 / float64(n) }

// heap is what the process holds of its own memory, in bytes.
func heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// size is the bytes that the files below dir take.
func size(dir string) (sum float64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil && filepath.Ext(e.Name()) == ".sst" { // logs and memory tables are mapped at their full size
			sum += float64(info.Size())
		}
		return err
	})
	return sum, err
}

// stock lists a catalogue of items in 32 clusters.
func (c *crowd) stock() error {
	centres := make([][dim]float32, 32)
	for i := range centres {
		for d := range dim {
			centres[i][d] = float32(2 * c.rng.NormFloat64())
		}
	}
	var listed []table.Listed
	for i := range c.items {
		e := make([]float32, dim)
		for d := range e {
			e[d] = centres[i%len(centres)][d] + float32(.5*c.rng.NormFloat64())
		}
		listed = append(listed, table.Listed{Offset: int64(i), Item: &schemas.Item{ItemID: item(i), Embedding: e}})
	}
	return c.List("items", 0, listed, int64(c.items))
}

func item(i int) string { return fmt.Sprintf("item-%06d", i) }

func (c *crowd) anyone(int) int { return c.rng.IntN(c.users) }

// everybody folds one event of each user, in an order of its own each time.
func (c *crowd) everybody(pass int) error {
	// A step that shares no factor with the number of users visits each once.
	step := 1 + c.users/3 + pass
	for gcd(step, c.users) != 1 {
		step++
	}
	at := 0
	for done := 0; done < c.users; done += batch {
		if _, err := c.fold(min(batch, c.users-done), func(int) int { at = (at + step) % c.users; return at }); err != nil {
			return err
		}
	}
	return nil
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// fold makes and folds n events of the users that who names, a batch a partition, and returns them as a trainer takes them.
func (c *crowd) fold(n int, who func(i int) int) ([]online.Example, error) {
	var records [partitions][]table.Record
	examples := make([]online.Example, 0, n)
	for i := range n {
		u := who(i)
		user := fmt.Sprintf("user-%07d", u)
		p := schemas.Partition([]byte(user), partitions)
		f := &schemas.Feedback{
			EventID: fmt.Sprintf("event-%d", c.count), UserID: user, ItemID: item((u + 32*c.rng.IntN(c.items/32)) % c.items),
			Kind: schemas.KindLike, OccurredAt: time.UnixMilli(1_700_000_000_000 + int64(c.count)),
		}
		if c.rng.Float64() < .3 {
			f.ItemID, f.Kind = item(c.rng.IntN(c.items)), schemas.KindDislike
		}
		c.count++
		class := prior.StrongPositive
		if f.Kind == schemas.KindDislike {
			class = prior.StrongNegative
		}
		records[p] = append(records[p], table.Record{Offset: c.next[p], Time: f.OccurredAt, Key: []byte(user), Feedback: f})
		examples = append(examples, online.Example{
			Partition: p, Offset: c.next[p], UserID: user, ItemID: f.ItemID, Class: class, EventHash: schemas.EventHash(f.EventID), At: f.OccurredAt,
		})
		c.next[p]++
	}
	for p, rs := range records {
		if len(rs) == 0 {
			continue
		}
		if _, err := c.Fold(table.Batch{Topic: "feedback", Partition: int32(p), Records: rs, Next: c.next[p], FreshAfter: time.Now()}); err != nil {
			return nil, err
		}
	}
	return examples, nil
}

// learn takes training rounds over the table, then reads, encodes and samples by what was learned.
func (c *crowd) learn(ctx context.Context, dir string, o options, got figures.Figures) (err error) {
	cfg, shape, rules := online.DefaultConfig(), prior.DefaultConfig(dim), table.DefaultRules()
	cfg.BirthSteps = cfg.FirstSteps
	shape.MaxTokens = rules.Newest + rules.Liked
	var last schemas.PriorVersion
	announced := func(_ context.Context, v schemas.PriorVersion) error { last = v; return nil }
	trainer := online.New(cfg, shape, people.Table{Table: c.Table}, dir, announced, slog.New(slog.DiscardHandler), nil)
	if _, err := trainer.Open(); err != nil {
		return err
	}
	drive := trainer.Drive()
	defer drive.Close()
	if err := drive.Begin(ctx); err != nil {
		return err
	}
	spent := time.Duration(0)
	for range o.rounds {
		events, err := c.fold(cfg.Round, c.anyone)
		if err != nil {
			return err
		}
		start := time.Now()
		if err := drive.Learn(ctx, events); err != nil {
			return err
		}
		spent += time.Since(start)
	}
	got["train_us"] = spent.Seconds() * 1e6 / float64(o.rounds*cfg.Round)
	if err := drive.Rest(ctx); err != nil {
		return err
	}
	return c.serve(last.URI, o, got)
}

// serve reads and encodes windows of random users, and samples for them.
func (c *crowd) serve(path string, o options, got figures.Figures) (err error) {
	st, err := prior.LoadState(path)
	if err != nil {
		return err
	}
	m, err := prior.NewModel(st, ort.Options{Threads: 1})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	const together = 8
	var conditions []*prior.Condition
	reading, start := time.Duration(0), time.Now()
	for done := 0; done < o.windows; done += together {
		contexts := make([]prior.Context, together)
		began := time.Now()
		for i := range contexts {
			row, _, err := c.User(fmt.Sprintf("user-%07d", c.rng.IntN(c.users)))
			if err != nil {
				return err
			}
			contexts[i], _ = c.Context(row)
		}
		reading += time.Since(began)
		if conditions, err = m.Encode(contexts); err != nil {
			return err
		}
	}
	got["read_us"] = reading.Seconds() * 1e6 / float64(o.windows)
	got["read_encode_us"] = micros(start, o.windows)
	jobs := make([]sampler.Job, o.samples)
	for i := range jobs {
		jobs[i] = sampler.Job{Cond: conditions[i%together], Label: prior.StrongPositive, Seed: uint64(i)}
	}
	start = time.Now()
	if _, err := sampler.Sample(m, sampler.DefaultOptions(), jobs); err != nil {
		return err
	}
	got["sample_us"] = micros(start, o.samples)
	return nil
}
