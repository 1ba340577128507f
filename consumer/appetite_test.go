package consumer

import (
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"
)

// TestAppetite draws logs of any batches: after a few answers none takes much
// more than answerBytes, and a log of large batches is read in large bites.
func TestAppetite(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.SampledFrom([]int{1 << 20, 4 << 20}).Draw(t, "most")
		a := newAppetite(most)
		batch := rapid.IntRange(100, 1<<18).Draw(t, "bytes of a batch")
		swell := rapid.Float64Range(1, 20).Draw(t, "compression")
		for i := range 40 {
			batches := max(1, a.ask/batch)
			memory := batches * (pageBytes + 2*int(swell*float64(batch)))
			one := pageBytes + 2*int(swell*float64(batch))
			if i > 3 && memory > max(answerBytes*5/4, one) && a.ask > leastAsk {
				t.Fatalf("answer %d takes %d bytes, %d were asked for", i, memory, a.ask)
			}
			a.ate(memory, true)
			if a.ask > most || a.ask < leastAsk/2 {
				t.Fatalf("asks for %d", a.ask)
			}
		}
		if batch > 1<<14 && swell < 1.5 && a.ask < most/2 {
			t.Fatalf("only %d bytes are asked for at a time of batches of %d", a.ask, batch)
		}
		a.ate(1000, false)
		if a.ask > firstAsk {
			t.Fatalf("%d are asked for at the end of the log, where anything may come", a.ask)
		}
	})
	if a := newAppetite(5000); a.ask != 5000 {
		t.Errorf("asks for %d of at most 5000", a.ask)
	}
}

// TestTinyBatchesComeInSmallBites reads a log of single-record batches: what is
// asked for stays so small that an answer is small in memory, and all comes.
func TestTinyBatchesComeInSmallBites(t *testing.T) {
	b, c := setup(t, "feedback", 1)
	const batches = 3000
	for i := range batches {
		produce(t, c, "feedback", 0, values(i, i+1)...)
	}
	var most, last atomic.Int32
	b.Cluster().ControlKey(int16(kmsg.Fetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		b.Cluster().KeepControl()
		n := r.(*kmsg.FetchRequest).Topics[0].Partitions[0].PartitionMaxBytes
		most.Store(max(most.Load(), n))
		last.Store(n)
		return nil, nil, false
	})
	s := &sink{}
	stop := run(t, &Partition{Client: c, Topic: "feedback", Start: Earliest, Handler: s})
	eventually(t, "all records came", func() bool { return len(s.all()) == batches })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if most.Load() > firstAsk || last.Load() >= firstAsk {
		t.Errorf("asked for up to %d and at last %d bytes of batches of a page each", most.Load(), last.Load())
	}
}
