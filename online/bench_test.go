package online

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"rebeca/internal/ort"
	"rebeca/prior"
	"rebeca/schemas"
	"rebeca/table"
)

// rows adapts a table as the service does.
type rows struct{ *table.Table }

func (r rows) User(id string) (User, bool, error) {
	row, ok, err := r.Table.User(id)
	u := User{Events: row.Events, Window: make([]Entry, len(row.Window))}
	for i, e := range row.Window {
		u.Window[i] = Entry{ItemID: e.ItemID, Class: e.Class, Offset: e.Offset, EventHash: e.EventHash, Older: e.Older}
	}
	return u, ok, err
}

func (r rows) Catalogue() Catalogue { return r.Table.Catalogue() }

// fullTable is a real table of users with full windows over the items of a
// 16-dimensional catalogue.
func fullTable(b testing.TB, users, items int) (*table.Table, []Example) {
	b.Helper()
	t, err := table.Open(table.Options{
		Dir: b.TempDir(), Partitions: 4, Dim: 16, Rules: table.DefaultRules(), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := t.Close(); err != nil {
			b.Error(err)
		}
	})
	rng := rand.New(rand.NewPCG(1, 1))
	listed := make([]table.Listed, items)
	for i := range listed {
		e := make([]float32, 16)
		for d := range e {
			e[d] = float32(rng.NormFloat64())
		}
		listed[i] = table.Listed{Offset: int64(i), Item: &schemas.Item{ItemID: fmt.Sprintf("item-%05d", i), Embedding: e}}
	}
	if err := t.List("items", 0, listed, int64(items)); err != nil {
		b.Fatal(err)
	}
	return t, foldFull(b, t, rng, users, items)
}

// foldFull folds 60 events of each user and returns the newest of each.
func foldFull(b testing.TB, t *table.Table, rng *rand.Rand, users, items int) []Example {
	b.Helper()
	const each = 60
	var records [4][]table.Record
	var newest []Example
	for n := range users * each {
		user := fmt.Sprintf("user-%04d", n%users)
		p := schemas.Partition([]byte(user), len(records))
		f := schemas.Feedback{
			EventID: fmt.Sprintf("event-%d", n), UserID: user, ItemID: fmt.Sprintf("item-%05d", rng.IntN(items)),
			Kind: schemas.KindLike, OccurredAt: time.UnixMilli(1_700_000_000_000 + int64(n)),
		}
		offset := int64(len(records[p]))
		records[p] = append(records[p], table.Record{Offset: offset, Time: f.OccurredAt, Key: []byte(user), Feedback: &f})
		if n >= users*(each-1) {
			newest = append(newest, Example{
				Partition: p, Offset: offset, UserID: user, ItemID: f.ItemID, Class: prior.StrongPositive,
				EventHash: schemas.EventHash(f.EventID),
			})
		}
	}
	for p, rs := range records {
		for at := 0; at < len(rs); at += 1000 {
			part := rs[at:min(at+1000, len(rs))]
			if _, err := t.Fold(table.Batch{
				Topic: "feedback", Partition: int32(p), Records: part, Next: part[len(part)-1].Offset + 1,
				FreshAfter: time.Now(),
			}); err != nil {
				b.Fatal(err)
			}
		}
	}
	return newest
}

// BenchmarkDraw is the cost of assembling one step's batch from a table on disk.
func BenchmarkDraw(b *testing.B) {
	for _, users := range []int{100, 1000} {
		b.Run(fmt.Sprintf("users=%d/contexts=64/targets=4", users), func(b *testing.B) {
			t, newest := fullTable(b, users, 4000)
			d := newDrawer(DefaultConfig(), prior.DefaultConfig(16), rows{t}, t.Catalogue())
			step := int64(0)
			b.ReportAllocs()
			for b.Loop() {
				at := int(step) * 32 % (len(newest) - 31)
				batch, _, err := d.batchOf(stream(1, streamDraw, step), newest[at:at+32], 0)
				if err != nil {
					b.Fatal(err)
				}
				if len(batch.Targets) < 200 {
					b.Fatalf("%d targets", len(batch.Targets))
				}
				step++
			}
		})
	}
}

// BenchmarkRound is a whole round of 64 events: two draws, two optimizer steps.
func BenchmarkRound(b *testing.B) {
	for _, threads := range []int{1, 2} {
		b.Run(fmt.Sprintf("dim=16/hidden=96/threads=%d", threads), func(b *testing.B) {
			openRuntime(b)
			t, newest := fullTable(b, 1000, 4000)
			cfg := DefaultConfig()
			cfg.Threads = threads
			tr := newTrainer(cfg, prior.DefaultConfig(16), rows{t}, t.Catalogue(), b.TempDir(), nil, slog.New(slog.DiscardHandler), nil)
			tr.learn = func(st *prior.State) (learner, error) { return prior.NewLearner(st, ort.Options{Threads: threads}) }
			if err := tr.create(); err != nil {
				b.Fatal(err)
			}
			defer tr.close()
			at := 0
			b.ReportAllocs()
			for b.Loop() {
				tr.pending = append(tr.pending[:0], newest[at:at+64]...)
				if err := tr.round(b.Context(), 64); err != nil {
					b.Fatal(err)
				}
				at = (at + 64) % (len(newest) - 64)
			}
			b.ReportMetric(64*float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
