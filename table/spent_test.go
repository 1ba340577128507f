package table

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"rebeca/schemas"
)

// transactions counts those that the folds of a batch took, and checks that each stayed within what Badger takes.
func transactions(t testing.TB, table *Table, b Batch) (n int) {
	p := table.partitions[b.Partition]
	p.mu.Lock()
	defer p.mu.Unlock()
	for next := int64(-1); next < b.Next; n++ {
		b.Records = b.after(next)
		out, err := table.foldPart(p, &b)
		if err != nil {
			t.Fatal(err)
		}
		next = out.Next
		if last, _, ok, err := table.Last(b.Topic, b.Partition); err != nil || ok && last != next-1 {
			t.Fatalf("the last record of a part up to %d is %d, %v", next, last, err)
		}
	}
	return n
}

// A batch of 1,000 different users with full rows and intents, each with a new item of the longest name, is one transaction.
func TestThousandRecordsFitOneTransaction(t *testing.T) {
	o := options(t.TempDir())
	o.Rules.Newest, o.Rules.Liked, o.Rules.Dedupe = 1, 1, 200 // as long as the default rules' and filled sooner
	table := open(t, o)
	offset := int64(0)
	user := func(i int) string { return strings.Repeat("u", 40) + fmt.Sprint(i) }
	for i := range 1000 {
		var records []Record
		for range 205 {
			records = append(records, event(offset, user(i), "x", schemas.KindLike))
			offset++
		}
		f := batch(records...)
		f.IntentCount = 0
		if _, err := table.Fold(f); err != nil {
			t.Fatal(err)
		}
	}
	var records []Record
	for i := range 1000 {
		records = append(records, event(offset, user(i), fmt.Sprint(i)+strings.Repeat("i", 60), schemas.KindLike))
		offset++
	}
	if n := transactions(t, table, batch(records...)); n != 1 {
		t.Errorf("%d transactions", n)
	}
}

// A part of a batch knows its own last record, should it be the last thing that happens.
func TestPartsKnowTheirLastRecord(t *testing.T) {
	table := open(t, options(t.TempDir()))
	if n := transactions(t, table, batch(event(0, "a", "x", "like"), forget(1, "b"), event(2, "a", "y", "like"))); n != 3 {
		t.Errorf("%d transactions", n)
	}
}

// Resends and further events of the same users cost no more rows: what is counted is what is written.
func TestManyEventsOfFewUsersFitOneTransaction(t *testing.T) {
	table := open(t, options(t.TempDir()))
	var records []Record
	for i := range int64(20_000) {
		records = append(records, event(i, fmt.Sprint("u", i%100), fmt.Sprint("i", i%500), schemas.KindLike))
	}
	if n := transactions(t, table, batch(records...)); n != 1 {
		t.Errorf("%d transactions", n)
	}
}

// Whatever a batch holds, no transaction exceeds what Badger takes, and the facts are those of single records.
func TestAnyBatchFitsItsTransactions(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		o := options(t.TempDir())
		o.tuning.memTable = 1 << 20 // transactions of 150 KB
		o.Rules.Dedupe = rapid.SampledFrom([]int{1, 64, 700}).Draw(r, "dedupe")
		table := open(t, o)
		defer table.Close()
		m := newModel(o.Rules)
		users, n := rapid.SampledFrom([]int{3, 100, 1000}).Draw(r, "users"), rapid.IntRange(1, 900).Draw(r, "events")
		width := rapid.SampledFrom([]int{1, 60}).Draw(r, "width")
		var records []Record
		for i := range int64(n) {
			switch user := fmt.Sprint("u", (int(i)*7919)%users, strings.Repeat("u", width)); {
			case i%97 == 96:
				records = append(records, dead(i, user, strings.Repeat("x", 5000)))
			case i%601 == 600:
				records = append(records, forget(i, user))
			default:
				records = append(records, event(i, user, fmt.Sprint("i", i, strings.Repeat("i", width)), schemas.KindLike))
			}
		}
		for i := range records {
			m.apply(records[i])
		}
		b := batch(records...)
		b.IntentCount = rapid.IntRange(0, 1).Draw(r, "intents")
		f, err := table.Fold(b)
		if err != nil {
			r.Fatal(err)
		}
		if f.Events+f.Dead+f.Forgotten > n || f.Next != b.Next {
			r.Fatalf("folded %d events, %d dead, up to %d of %d", f.Events, f.Dead, f.Next, b.Next)
		}
		compare(t, table, m)
	})
}
