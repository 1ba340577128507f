package table

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"rebeca/schemas"
)

// BenchmarkDedupe folds at several lengths of the window of event ids: what a row costs in events/s, bytes a row and bytes given to the
// disk per event (write_bytes of /proc/self/io: logs, tables and compactions). Every row is filled before the clock runs.
func BenchmarkDedupe(b *testing.B) {
	for _, ids := range []int{64, 256, 4096} {
		b.Run(fmt.Sprintf("ids=%d/users=500", ids), func(b *testing.B) {
			o := options(b.TempDir())
			o.Rules.Dedupe = ids
			benchmarkFold(b, o, 500)
		})
	}
}

// BenchmarkPowerCut folds with the three ways to survive a power cut: none of them, logs synced when they are rotated and every 100 ms
// (what the table does), and every commit synced.
func BenchmarkPowerCut(b *testing.B) {
	none := func(string) error { return nil }
	for _, way := range []struct {
		name   string
		tuning tuning
	}{{"nothing", tuning{sync: none}}, {"rotation", tuning{}}, {"commit", tuning{syncWrites: true}}} {
		b.Run("sync="+way.name+"/users=20000", func(b *testing.B) {
			o := options(b.TempDir())
			o.tuning = way.tuning
			benchmarkFold(b, o, 20_000)
		})
	}
}

// benchmarkFold folds batches of 1,000 events of skewed users with full rows.
func benchmarkFold(b *testing.B, o Options, users int) {
	table := open(b, o)
	rng := rand.New(rand.NewPCG(1, 1))
	skew := rand.NewZipf(rng, 1.1, 50, uint64(users-1))
	kinds := []schemas.Kind{schemas.KindLike, schemas.KindLike, schemas.KindDislike, schemas.KindClick, schemas.KindSkip}
	offset := int64(0)
	next := func(n int, user func() uint64) Batch {
		records := make([]Record, n)
		for i := range records {
			records[i] = event(offset, fmt.Sprint("user-", user()), fmt.Sprint("item-", rng.IntN(20_000)), kinds[rng.IntN(len(kinds))])
			offset++
		}
		f := batch(records...)
		f.IntentCount = 0
		return f
	}
	for u := range uint64(users) { // fill every row
		if _, err := table.Fold(next(o.Rules.Dedupe+2, func() uint64 { return u })); err != nil {
			b.Fatal(err)
		}
	}
	batches := make([]Batch, b.N)
	for i := range batches {
		batches[i] = next(1000, skew.Uint64)
	}
	before := writtenBytes(b)
	b.ReportAllocs()
	b.ResetTimer()
	for _, f := range batches {
		if _, err := table.Fold(f); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	events := float64(1000 * b.N)
	b.ReportMetric(events/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(writtenBytes(b)-before)/events, "B/event")
	b.ReportMetric(meanRow(b, table), "B/row")
}

// writtenBytes is what the process gave the disk to write; 0 where the system does not say.
func writtenBytes(b *testing.B) (n int64) {
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "write_bytes: %d", &n); err == nil {
			return n
		}
	}
	b.Fatal("no write_bytes in /proc/self/io")
	return 0
}

// BenchmarkErase forgets one of many users with full rows and cleans the files: the time is that of a rewrite of the tables.
func BenchmarkErase(b *testing.B) {
	table := open(b, options(b.TempDir()))
	offset := int64(0)
	for u := range 50_000 {
		records := make([]Record, 70)
		for i := range records {
			records[i] = event(offset, fmt.Sprint("user-", u), fmt.Sprint("item-", i), schemas.KindLike)
			offset++
		}
		f := batch(records...)
		f.IntentCount = 0
		if _, err := table.Fold(f); err != nil {
			b.Fatal(err)
		}
	}
	for u := 0; b.Loop(); u++ {
		fold(b, table, forget(offset, fmt.Sprint("user-", u)))
		offset++
		out, err := table.Outbox(0, 0, 10)
		if err == nil {
			err = table.Trim(0, out, Position{})
		}
		if err != nil {
			b.Fatal(err)
		}
		if e, err := table.Erase(b.Context()); err != nil || e.Users != 1 {
			b.Fatal(e, err)
		}
	}
	b.ReportMetric(float64(table.Size())/1e6, "MB")
}
