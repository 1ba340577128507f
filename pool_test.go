package rebeca

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rebeca/schemas"
	"rebeca/table"
)

// overEasel is a generator whose pool draws, over all partitions, with a request that waits in partition 0.
func overEasel(t *testing.T, e *easel) (*generator, *queued) {
	t.Helper()
	c := DefaultConfig()
	c.Prior.Dim = 4
	g := newGenerator(c, e.table, newProgress(4), e.pool, newMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
	if err := g.open(0); err != nil {
		t.Fatal(err)
	}
	user := "u0"
	for n := 0; schemas.Partition([]byte(user), 4) != 0; n++ {
		user = "u" + string(rune('0'+n))
	}
	in, err := e.table.Accept("requests", 0, []table.Asked{{Time: time.Now(), Key: []byte(user), Value: []byte("{}"),
		Request: &schemas.Request{RequestID: "r", UserID: user, Count: 2}}}, 1)
	if err != nil || len(in) != 1 {
		t.Fatal(in, err)
	}
	g.offer(0, in, nil)
	batch, _ := g.take(time.Now())
	if len(batch) != 1 || batch[0].n != 2 {
		t.Fatalf("took %+v", batch)
	}
	return g, batch[0].queued
}

// soon waits until something is so.
func (e *easel) soon(so func() bool) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), 30*time.Second)
	defer cancel()
	if !poll(ctx, time.Millisecond, so) {
		e.t.Fatal("it is not so after 30 s")
	}
}

// hand gives the pool what was sampled for a request.
func (e *easel) hand(q *queued) *sampled {
	s := &sampled{chunk: chunk{queued: q, n: q.Count}, wanted: q.Count}
	for k := range q.Count {
		s.records = append(s.records, schemas.Generated{
			ID: schemas.ID(q.Source, k), UserID: q.UserID, RequestID: q.RequestID, Trigger: q.Trigger, Embedding: []float32{float32(k), 0, 0, 0},
			PriorVersion: "1-a", Source: q.Source,
		})
		s.todo = append(s.todo, picture{at: k})
	}
	return s
}

// TestPoolCompletes: what the pool has made is in the outbox and the user's memory, and its objects are kept.
func TestPoolCompletes(t *testing.T) {
	server := s3Server(t)
	c := quick()
	c.InlineMax = 0
	e := newEasel(t, &drawer{batch: 4}, c, server.URL("pictures", ""))
	g, q := overEasel(t, e)
	e.pool.put(e.hand(q))
	e.work(1)
	var made []table.Memory
	e.soon(func() bool {
		var err error
		if made, err = e.table.GeneratedOf(q.UserID, 10); err != nil {
			t.Fatal(err)
		}
		return len(made) > 0
	})
	if in, err := e.table.Intents(0); len(made) != 2 || len(in) != 0 || err != nil {
		t.Fatalf("%d images, %d intents, %v", len(made), len(in), err)
	}
	g.finishing.Lock() // what is completed is let go of under it
	for _, m := range made {
		r, err := schemas.DecodeGenerated(m.Record)
		if err != nil {
			t.Fatal(err)
		}
		if o := objectOf(r); o == nil || e.pool.pictures.holds(*o) {
			t.Errorf("%s is in hand still, or has no object: %v", r.ID, o)
		}
	}
	g.finishing.Unlock()
	if n := e.pool.depth(); n != 0 {
		t.Errorf("%d pictures are left in the pool", n)
	}
	e.pool.pictures.giveUp(time.Now().Add(time.Hour), []int32{0})
	if len(e.doomed()) != 0 || len(server.Names()) != 2 {
		t.Errorf("%d objects of published records are to be deleted, %d are there", len(e.doomed()), len(server.Names()))
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.byID[q.id()]; ok {
		t.Error("the intent waits again")
	}
}

// TestPoolLetsGoOfPartitions: what waits in the pool of a partition that is let go is dropped, what is being decoded finds it closed; the intent stays
// in the table, and nothing is held of either.
func TestPoolLetsGoOfPartitions(t *testing.T) {
	for _, decoding := range []bool{false, true} {
		c := quick()
		c.InlineMax = 0
		d := &drawer{batch: 4, gate: make(chan struct{})}
		e := newEasel(t, d, c, "")
		g, q := overEasel(t, e)
		e.pool.put(e.hand(q))
		if decoding {
			e.work(1)
			e.soon(func() bool {
				e.pool.mu.Lock()
				defer e.pool.mu.Unlock()
				return len(e.pool.waiting) == 0
			})
		}
		g.leave(0)
		if decoding {
			d.gate <- struct{}{}
			e.soon(func() bool { return e.pool.depth() == 0 })
			g.finishing.Lock() // what is made is given back under it
			g.finishing.Unlock()
		}
		in, err := e.table.Intents(0)
		if err != nil || len(in) != 1 {
			t.Errorf("decoding %v: %d intents are in the table, %v", decoding, len(in), err)
		}
		if made, err := e.table.GeneratedOf(q.UserID, 10); len(made) != 0 || err != nil {
			t.Errorf("decoding %v: %d images of a partition that was let go, %v", decoding, len(made), err)
		}
		if n := e.pool.depth(); n != 0 {
			t.Errorf("decoding %v: %d pictures are left in the pool", decoding, n)
		}
	}
}

// TestIntentsWaitForThePool: without room for their pictures intents stay, those without pictures go; a user's feedback waits for what the pool makes of
// it already.
func TestIntentsWaitForThePool(t *testing.T) {
	c := quick()
	c.Queue = batchImages
	e := newEasel(t, &drawer{batch: 4}, c, "")
	g, _ := overEasel(t, e)
	none, now := false, time.Now()
	g.offer(0, []table.Intent{
		{Seq: 91, UserID: "a", Trigger: schemas.TriggerRequest, Count: 3},
		{Seq: 92, UserID: "b", Trigger: schemas.TriggerRequest, Count: 3, Images: &none},
	}, nil)
	values := make([]float32, c.Queue-2)
	e.put(1, "others", values...)
	batch, _ := g.take(now.Add(time.Second))
	if len(batch) != 1 || batch[0].Seq != 92 {
		t.Errorf("with room for two pictures %+v was taken", batch)
	}
	e.pool.drop(1)
	if batch, _ = g.take(now.Add(time.Minute)); len(batch) != 1 || batch[0].Seq != 91 {
		t.Errorf("with room %+v was taken", batch)
	}
	g.flying["a"] = true
	g.offer(0, []table.Intent{{Seq: 93, UserID: "a", Trigger: schemas.TriggerFeedback, Count: 1}}, nil)
	if batch, _ = g.take(now.Add(time.Hour)); len(batch) != 0 {
		t.Errorf("beside the user's images in the pool %+v was taken", batch)
	}
	delete(g.flying, "a")
	if batch, _ = g.take(now.Add(2 * time.Hour)); len(batch) != 1 || batch[0].Seq != 93 {
		t.Errorf("after them %+v was taken", batch)
	}
}

// TestRequestsGetIntoAFullPool: feedback does not take the places that a request of many waits for, what is not decoded goes on meanwhile, and while the
// pool is full no pass changes what waits for it.
func TestRequestsGetIntoAFullPool(t *testing.T) {
	c := quick()
	c.Queue = batchImages
	e := newEasel(t, &drawer{batch: 4}, c, "")
	g, _ := overEasel(t, e)
	e.put(1, "others", make([]float32, c.Queue-1)...)
	g.offer(0, []table.Intent{{Seq: 90, UserID: "many", Trigger: schemas.TriggerRequest, Count: 3}}, nil)
	none := false
	for n := range uint64(40) {
		g.offer(0, []table.Intent{{Seq: 100 + n, UserID: "f" + string(rune('0'+n)), Trigger: schemas.TriggerFeedback, Count: 1}}, nil)
	}
	g.offer(0, []table.Intent{{Seq: 91, UserID: "few", Trigger: schemas.TriggerRequest, Count: 1, Images: &none}}, nil)
	before := map[intentID]time.Time{}
	for id, q := range g.byID {
		before[id] = q.due
	}
	now := time.Now().Add(time.Minute)
	if batch, _ := g.take(now); len(batch) != 1 || batch[0].Seq != 91 {
		t.Fatalf("with one place while a request wants three, %+v was taken", batch)
	}
	for id, q := range g.byID {
		if q.due != before[id] {
			t.Fatalf("%v is due at another time after a look at the full pool", id)
		}
	}
	e.pool.drop(1)
	batch, _ := g.take(now)
	if len(batch) != c.Queue-2 || batch[0].Seq != 90 {
		t.Fatalf("with room for %d: %d taken, %+v", c.Queue, len(batch), batch)
	}
}

// TestALetGoPartitionMakesRoom: what waits for the pool is looked at again when a partition leaves it.
func TestALetGoPartitionMakesRoom(t *testing.T) {
	c := quick()
	c.Queue = batchImages
	e := newEasel(t, &drawer{batch: 4}, c, "")
	g, _ := overEasel(t, e)
	if err := g.open(1); err != nil {
		t.Fatal(err)
	}
	e.put(1, "others", make([]float32, c.Queue)...)
	select {
	case <-g.wake:
	default:
	}
	g.leave(1)
	select {
	case <-g.wake:
	default:
		t.Error("nobody is told of the room in the pool")
	}
}
