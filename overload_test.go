package rebeca

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"rebeca/schemas"
	"rebeca/table"
)

func TestRates(t *testing.T) {
	for text, want := range map[string]Rate{"2000/s": 2000, "0": 0, "0/s": 0, " 2.5 /s ": 2.5, "1e3/s": 1000} {
		var r Rate
		if err := r.UnmarshalText([]byte(text)); err != nil || r != want {
			t.Errorf("%q is %v (%v), want %v", text, r, err, want)
		}
		b, _ := r.MarshalText()
		var again Rate
		if err := again.UnmarshalText(b); err != nil || again != r {
			t.Errorf("%v is written %q and read as %v (%v)", r, b, again, err)
		}
	}
	for _, text := range []string{"2000", "2000/m", "/s", "", "fast", "NaN/s", "Inf/s"} {
		if err := new(Rate).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is read as a rate", text)
		}
	}
}

// TestPace takes from many goroutines on a clock of its own: what is let through by a moment never exceeds the rate and the burst.
func TestPace(t *testing.T) {
	p := newPace(2000)
	now := time.Unix(1000, 0)
	p.now = func() time.Time { return now }
	if d := p.take(100); d > 0 {
		t.Errorf("after a rest a few records wait %v", d)
	}
	if d := p.take(2000); d != 950*time.Millisecond { // 2,100 are paid at 1.05 s
		t.Errorf("the next second's worth waits %v", d)
	}
	now = now.Add(time.Hour) // an idle hour is not made up for
	var mu sync.Mutex
	let := map[time.Duration]int{} // records by when they go through
	var wg sync.WaitGroup
	for range 4 { // partitions
		wg.Go(func() {
			for range 50 {
				d := max(0, p.take(100))
				mu.Lock()
				let[d] += 100
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	total, last := 0, time.Duration(0)
	for d, n := range let {
		total, last = total+n, max(last, d)
		sum := 0
		for e, m := range let {
			if e <= d {
				sum += m
			}
		}
		if limit := 2000*(d+paceBurst).Seconds() + 1; float64(sum) > limit {
			t.Errorf("%d records are through after %v, more than %.0f", sum, d, limit)
		}
	}
	if total != 20000 || last != 9900*time.Millisecond {
		t.Errorf("%d records, the last after %v", total, last)
	}
}

func TestPaceEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p := newPace(1)
	if err := p.wait(ctx, 1000); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}
	if err := (*pace)(nil).wait(ctx, 5); err != nil {
		t.Errorf("no bound: %v", err)
	}
	if n := p.batch(); n != 1 {
		t.Errorf("a batch of %d at 1/s", n)
	}
	if n := newPace(0).batch(); n != foldBatch {
		t.Errorf("a batch of %d without a bound", n)
	}
}

// TestShedsInOrder fills a table with intents: feedback stops making images
// first, requests wait second, and both go on by themselves.
func TestShedsInOrder(t *testing.T) {
	tab := testGenerator(t, DefaultConfig()).table
	var lag int64
	intents := func() int { n, _ := tab.Depths(); return n }
	o := &overload{limit: 20, waiting: intents, maxLag: 100, lag: func() int64 { return lag }, log: slog.New(slog.DiscardHandler)}
	var seqs []uint64
	add := func(n int) {
		for range n {
			i := len(seqs)
			in, err := tab.Accept("requests", 0, []table.Asked{{
				Offset: int64(i), Time: time.Now(), Key: []byte("u"),
				Request: &schemas.Request{RequestID: fmt.Sprint("r", i), UserID: fmt.Sprint("u", i), Count: 1},
			}}, int64(i+1))
			if err != nil || len(in) != 1 {
				t.Fatal(in, err)
			}
			seqs = append(seqs, in[0].Seq)
		}
	}
	done := 0
	finish := func(n int) {
		for range n {
			if err := tab.Complete(0, []table.Completion{{Seq: seqs[done], UserID: fmt.Sprint("u", done)}}); err != nil {
				t.Fatal(err)
			}
			done++
		}
	}
	check := func(what string, shed, room bool) {
		t.Helper()
		if got := o.sheds(); got != shed {
			t.Errorf("%s: images of feedback shed: %v", what, got)
		}
		if got := o.room(); got != room {
			t.Errorf("%s: room for requests: %v", what, got)
		}
	}
	check("nothing waits", false, true)
	add(10)
	check("half of the limit", true, true)
	add(10)
	check("the limit", true, false)
	finish(4)
	check("16 of 20", true, false)
	finish(1)
	check("15 of 20", true, true)
	finish(7)
	check("8 of 20", true, true)
	finish(1)
	check("7 of 20", false, true)
	lag = 101
	check("far behind", true, true)
	lag = 80
	check("still behind", true, true)
	lag = 75
	check("nearly caught up", false, true)
}

// TestAskedGoesFirst has a request come when far more images are overdue than a
// batch holds.
func TestAskedGoesFirst(t *testing.T) {
	g := testGenerator(t, DefaultConfig())
	for seq := range uint64(500) {
		g.offer(0, feedbackIntent(seq+1, time.Now()), nil)
	}
	g.offer(0, []table.Intent{{Seq: 1000, UserID: "v", Trigger: schemas.TriggerRequest, Count: 2}}, nil)
	batch, _ := g.take(time.Now().Add(time.Minute))
	if len(batch) == 0 || batch[0].Seq != 1000 {
		t.Errorf("the request is not in front: %+v", batch)
	}
}

// TestLargeRequestsWaitForEachOther offers more large requests than may be in
// the making, and a small one behind them.
func TestLargeRequestsWaitForEachOther(t *testing.T) {
	g := testGenerator(t, DefaultConfig())
	for seq := range uint64(3 * maxBegun) {
		g.offer(0, []table.Intent{{Seq: seq + 1, UserID: "big", Trigger: schemas.TriggerRequest, Count: 100}}, nil)
	}
	g.offer(0, []table.Intent{{Seq: 1000, UserID: "small", Trigger: schemas.TriggerRequest, Count: chunkImages}}, nil)
	now, small, finished := time.Now(), false, 0
	for round := 0; round < 10_000 && finished < 3*maxBegun; round++ {
		batch, _ := g.take(now)
		now = now.Add(time.Second)
		for _, c := range batch {
			small = small || c.Seq == 1000
			c.made = append(c.made, make([]schemas.Generated, c.n)...)
			if len(c.made) < c.Count {
				g.again([]chunk{c}, now)
			} else if c.Seq != 1000 {
				finished++
			}
		}
		if g.begun > maxBegun {
			t.Fatalf("%d large requests are in the making", g.begun)
		}
		if finished == 0 && round == maxBegun && !small {
			t.Error("the small request waits for the large ones")
		}
	}
	if finished != 3*maxBegun || g.begun != 0 {
		t.Errorf("%d of %d are finished, %d begun", finished, 3*maxBegun, g.begun)
	}
}
