package table

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"rebeca/schemas"
)

// BenchmarkFold folds batches of 1,000 events of skewed users, all kinds, with intents and without.
func BenchmarkFold(b *testing.B) {
	for _, c := range []struct{ users, intents int }{{10_000, 0}, {10_000, 1}, {200_000, 0}} {
		b.Run(fmt.Sprintf("users=%d/intents=%d", c.users, c.intents), func(b *testing.B) {
			o := options(b.TempDir())
			table := open(b, o)
			rng := rand.New(rand.NewPCG(1, 1))
			skew := rand.NewZipf(rng, 1.1, 50, uint64(c.users-1))
			offset := int64(0)
			next := func() Batch {
				records := make([]Record, 1000)
				for i := range records {
					records[i] = event(offset, fmt.Sprint("user-", skew.Uint64()), fmt.Sprint("item-", rng.IntN(20_000)), schemas.Kinds()[rng.IntN(9)])
					if f := records[i].Feedback; f.Kind == schemas.KindRating {
						v := 4.5
						f.Value = &v
					}
					offset++
				}
				f := batch(records...)
				f.IntentCount = c.intents
				return f
			}
			for range 200 {
				if _, err := table.Fold(next()); err != nil {
					b.Fatal(err)
				}
			}
			batches := make([]Batch, b.N)
			for i := range batches {
				batches[i] = next()
			}
			b.ReportAllocs()
			b.ResetTimer()
			for _, f := range batches {
				if _, err := table.Fold(f); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			b.ReportMetric(float64(1000*b.N)/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(meanRow(b, table), "B/row")
		})
	}
}

func meanRow(b *testing.B, table *Table) float64 {
	bytes, n := 0, 0
	if err := table.Export(func(c Cut) error {
		return c.Each(prefixRow, func(_, value []byte) error {
			bytes, n = bytes+len(value), n+1
			return nil
		})
	}); err != nil {
		b.Fatal(err)
	}
	return float64(bytes) / float64(n)
}

// BenchmarkContext resolves a full window of catalogue items.
func BenchmarkContext(b *testing.B) {
	table := open(b, options(b.TempDir()))
	var items []Listed
	var records []Record
	for i := range int64(200) {
		items = append(items, item(i, fmt.Sprint("i", i), 1))
		records = append(records, event(i, "u", fmt.Sprint("i", i), "like"))
	}
	list(b, table, 0, items...)
	fold(b, table, records...)
	b.ReportAllocs()
	for b.Loop() {
		r, _, err := table.User("u")
		if err != nil {
			b.Fatal(err)
		}
		if c, _ := table.Context(r); len(c) != 52 {
			b.Fatal(len(c))
		}
	}
}
