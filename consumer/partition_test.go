package consumer

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"rebeca/internal/broker"
	"rebeca/schemas"
)

func TestRoundTripKeepsEveryByte(t *testing.T) {
	_, c := setup(t, "feedback", 3)
	at := time.UnixMilli(1700000000123)
	sent := []Message{
		{Key: []byte("k"), Value: []byte("v"), Time: at, Headers: []schemas.Header{{Key: "a", Value: []byte("1")}, {Key: "b", Value: nil}}},
		{Key: []byte("tombstone"), Value: nil, Time: at},
		{Key: []byte("empty"), Value: []byte{}, Time: at},
		{Key: nil, Value: []byte("keyless"), Time: at},
		{Key: []byte{0, 255}, Value: bytes.Repeat([]byte{0}, 100_000), Time: at},
	}
	if base := produce(t, c, "feedback", 2, sent...); base != 0 {
		t.Fatalf("base offset %d, want 0", base)
	}
	if base := produce(t, c, "feedback", 2, Message{Value: []byte("more")}); base != int64(len(sent)) {
		t.Fatalf("base offset %d, want %d", base, len(sent))
	}
	s := &sink{}
	p := &Partition{Client: c, Topic: "feedback", ID: 2, Start: Earliest, Handler: s}
	stop := run(t, p)
	eventually(t, "all records", func() bool { return len(s.all()) == len(sent)+1 })
	for i, got := range s.all()[:len(sent)] {
		want := sent[i]
		switch {
		case got.Topic != "feedback" || got.Partition != 2 || got.Offset != int64(i):
			t.Errorf("record %d came from %s[%d]@%d", i, got.Topic, got.Partition, got.Offset)
		case !bytes.Equal(got.Key, want.Key) || (got.Key == nil) != (want.Key == nil):
			t.Errorf("record %d has key %q, want %q", i, got.Key, want.Key)
		case !bytes.Equal(got.Value, want.Value) || (got.Value == nil) != (want.Value == nil):
			t.Errorf("record %d has a value of %d bytes (nil: %t), want %d (nil: %t)", i, len(got.Value), got.Value == nil, len(want.Value), want.Value == nil)
		case !got.Time.Equal(at):
			t.Errorf("record %d has time %v, want %v", i, got.Time, at)
		case len(got.Headers) != len(want.Headers):
			t.Errorf("record %d has headers %v, want %v", i, got.Headers, want.Headers)
		}
	}
	eventually(t, "position", func() bool { return p.Position() == int64(len(sent)+1) })
	if end, at := p.End(); end != int64(len(sent)+1) || at.IsZero() {
		t.Errorf("end %d at %v", end, at)
	}
	if ok, err := p.Connected(); !ok {
		t.Errorf("not connected: %v", err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

func TestStartWithinTheLog(t *testing.T) {
	_, c := setup(t, "feedback", 1)
	produce(t, c, "feedback", 0, values(0, 10)...)
	for _, start := range []int64{Earliest, 0, 4, 9, 10, Latest} {
		s := &sink{}
		p := &Partition{Client: c, Topic: "feedback", Start: start, Handler: s}
		stop := run(t, p)
		first := map[int64]int64{Earliest: 0, Latest: 10}[start]
		if start >= 0 {
			first = start
		}
		eventually(t, "start", func() bool { _, at := p.End(); return !at.IsZero() && p.Position() == 10 })
		if got := len(s.all()); got != int(10-first) {
			t.Errorf("start %d: %d records, want %d", start, got, 10-first)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestGapsAreErrorsByName(t *testing.T) {
	b, c := setup(t, "feedback", 1)
	produce(t, c, "feedback", 0, values(0, 5)...)
	produce(t, c, "feedback", 0, values(5, 10)...)
	if err := b.Cluster().DeleteRecords("feedback", 0, 5); err != nil {
		t.Fatal(err)
	}
	for _, stored := range []int64{0, 4, 11, 1000} {
		err := result(t, &Partition{Client: c, Topic: "feedback", Start: stored, Handler: &sink{}})
		var gap *GapError
		if !errors.As(err, &gap) {
			t.Fatalf("stored %d: %v is no gap", stored, err)
		}
		kind := GapLost
		if stored > 10 {
			kind = GapRecreated
		}
		if want := (GapError{kind, "feedback", 0, stored, 5, 10}); *gap != want {
			t.Errorf("gap %+v, want %+v", *gap, want)
		}
		if !strings.Contains(err.Error(), "feedback[0]") || strings.Contains(err.Error(), "\n") {
			t.Errorf("error %q does not name the place in one line", err)
		}
	}
}

// Retention may overtake a slow reader: the library's own Reader would skip in silence.
func TestRetentionThatOvertakesTheReaderIsAGap(t *testing.T) {
	b, c := setup(t, "feedback", 1)
	for i := range 4 {
		produce(t, c, "feedback", 0, values(i*5, i*5+5)...)
	}
	entered, release := make(chan struct{}, 100), make(chan struct{})
	s := &sink{handle: func([]Record, int64) error { entered <- struct{}{}; <-release; return nil }}
	p := &Partition{Client: c, Topic: "feedback", Start: 0, MaxBytes: 1, Handler: s}
	ctx := within(t)
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	<-entered
	if err := b.Cluster().DeleteRecords("feedback", 0, 20); err != nil {
		t.Fatal(err)
	}
	close(release)
	var gap *GapError
	if err := <-done; !errors.As(err, &gap) {
		t.Fatalf("%v is no gap", err)
	}
	if gap.First != 20 || gap.Stored >= 20 {
		t.Errorf("gap %+v", *gap)
	}
	for i, r := range s.all() {
		if r.Offset != int64(i) {
			t.Fatalf("record %d has offset %d: some were skipped", i, r.Offset)
		}
	}
}

func TestBatchesAreBounded(t *testing.T) {
	_, c := setup(t, "feedback", 1)
	rng := rand.New(rand.NewPCG(1, 1))
	var sizes []int
	for i := 0; i < 60; i++ {
		n := rng.IntN(400)
		if i%20 == 7 {
			n = 5000 // above the limit: alone
		}
		sizes = append(sizes, n)
		produce(t, c, "feedback", 0, Message{Value: make([]byte, n)})
	}
	for _, maxBytes := range []int{1200, 1 << 20} { // with the larger, one answer holds many calls
		s := &sink{}
		p := &Partition{Client: c, Topic: "feedback", Start: Earliest, MaxBatch: 7, MaxBytes: maxBytes, Handler: s}
		stop := run(t, p)
		eventually(t, "all records", func() bool { return p.Position() == int64(len(sizes)) })
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		at := int64(0)
		for i, call := range s.calls {
			bytes := 0
			for _, r := range call {
				if r.Offset != at || len(r.Value) != sizes[at] {
					t.Fatalf("record at %d of %d bytes, want %d of %d", r.Offset, len(r.Value), at, sizes[at])
				}
				bytes += len(r.Value)
				at++
			}
			if len(call) > 7 || (bytes > maxBytes && len(call) > 1) {
				t.Errorf("call %d has %d records of %d bytes", i, len(call), bytes)
			}
			if s.nexts[i] != at {
				t.Errorf("call %d: next %d, want %d", i, s.nexts[i], at)
			}
		}
	}
}

func TestHandlersErrorEndsRun(t *testing.T) {
	_, c := setup(t, "feedback", 1)
	produce(t, c, "feedback", 0, values(0, 3)...)
	broken := errors.New("disk gone")
	p := &Partition{Client: c, Topic: "feedback", Start: Earliest, Handler: &sink{handle: func([]Record, int64) error { return broken }}}
	if err := result(t, p); !errors.Is(err, broken) {
		t.Fatalf("Run returned %v", err)
	}
	if p.Position() != 0 {
		t.Errorf("position %d after a failed batch, want 0", p.Position())
	}
}

func TestEveryCodec(t *testing.T) {
	b, c := setup(t, "feedback", 1)
	codecs := []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()}
	const each = 300
	for _, codec := range codecs {
		o := oracle(t, b, kgo.ProducerBatchCompression(codec))
		var rs []*kgo.Record
		for i := range each {
			rs = append(rs, &kgo.Record{Topic: "feedback", Key: fmt.Append(nil, i), Value: bytes.Repeat([]byte("abc"), i)})
		}
		if err := o.ProduceSync(within(t), rs...).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	s := &sink{}
	run(t, &Partition{Client: c, Topic: "feedback", Start: Earliest, Handler: s})
	eventually(t, "all records", func() bool { return len(s.all()) == each*len(codecs) })
	for i, r := range s.all() {
		if r.Offset != int64(i) || string(r.Key) != fmt.Sprint(i%each) || !bytes.Equal(r.Value, bytes.Repeat([]byte("abc"), i%each)) {
			t.Fatalf("record %d is %d, key %q, %d bytes", i, r.Offset, r.Key, len(r.Value))
		}
	}
}

// Committed records come and no others, wherever reading begins and however answers are cut: in an aborted transaction, at its marker,
// behind it. One producer id aborts and commits in turn, as a relay's does over its restarts.
func TestTransactionsAreReadCommitted(t *testing.T) {
	b, c := setup(t, "feedback", 1)
	tx := oracle(t, b, kgo.TransactionalID("tx"))
	type at struct {
		offset int64
		value  string
	}
	var want []at
	end := int64(0)
	transaction := func(name string, try kgo.TransactionEndTry) {
		t.Helper()
		if err := tx.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			v := fmt.Sprintf("%s %d", name, i)
			if err := tx.ProduceSync(within(t), &kgo.Record{Topic: "feedback", Value: []byte(v)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if try == kgo.TryCommit {
				want = append(want, at{end, v})
			}
			end++
			if i > 0 {
				produce(t, c, "feedback", 0, Message{Value: []byte("plain beside " + v)})
				want = append(want, at{end, "plain beside " + v})
				end++
			}
		}
		if err := tx.EndTransaction(within(t), try); err != nil {
			t.Fatal(err)
		}
		end++ // the marker
	}
	for i, try := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort, kgo.TryCommit, kgo.TryAbort, kgo.TryAbort, kgo.TryCommit} {
		transaction(fmt.Sprint("transaction ", i), try)
	}
	for _, maxBytes := range []int{0, 1, 200} { // one batch an answer too
		for start := range end {
			s := &sink{}
			p := &Partition{Client: c, Topic: "feedback", Start: start, MaxBytes: maxBytes, MaxWait: 10 * time.Millisecond, Handler: s}
			stop := run(t, p)
			eventually(t, "the end", func() bool { e, _ := p.End(); return e == end && p.Position() == end })
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			var got []at
			for _, r := range s.all() {
				got = append(got, at{r.Offset, string(r.Value)})
			}
			first, _ := slices.BinarySearchFunc(want, start, func(w at, o int64) int { return cmp.Compare(w.offset, o) })
			if !slices.Equal(got, want[first:]) {
				t.Errorf("from %d, max bytes %d:\n%v, want\n%v", start, maxBytes, got, want[first:])
			}
		}
	}
}

// An open transaction holds back what follows; its end lets it go on.
func TestOpenTransactionHoldsBack(t *testing.T) {
	b, c := setup(t, "feedback", 1)
	tx := oracle(t, b, kgo.TransactionalID("tx"))
	if err := tx.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	produce(t, c, "feedback", 0, Message{Value: []byte("before")})
	if err := tx.ProduceSync(within(t), &kgo.Record{Topic: "feedback", Value: []byte("open")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	produce(t, c, "feedback", 0, Message{Value: []byte("after")})
	s := &sink{}
	p := &Partition{Client: c, Topic: "feedback", Start: 0, Handler: s}
	run(t, p)
	eventually(t, "the stable part", func() bool { e, _ := p.End(); return e == 3 && p.Position() == 1 })
	if err := tx.EndTransaction(within(t), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the rest", func() bool { return p.Position() == 4 })
	var got []string
	for _, r := range s.all() {
		got = append(got, string(r.Value))
	}
	if fmt.Sprint(got) != "[before open after]" {
		t.Errorf("read %v", got)
	}
}

func TestCompactedTopicIsReadToItsEnd(t *testing.T) {
	b, c := setup(t, "other", 1)
	compact := "compact"
	if err := b.Cluster().CreateTopic("items", 1, map[string]string{"cleanup.policy": compact}); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(2, 2))
	latest := map[string]string{}
	for i := range 40 {
		var msgs []Message
		for j := range 1 + rng.IntN(20) {
			k, v := fmt.Sprintf("item %d", rng.IntN(30)), fmt.Sprintf("%d/%d", i, j)
			msgs = append(msgs, Message{Key: []byte(k), Value: []byte(v)})
			latest[k] = v
		}
		produce(t, c, "items", 0, msgs...)
	}
	b.Cluster().Compact()
	first, last, err := c.Offsets(within(t), "items", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, maxBytes := range []int{0, 1} {
		s := &sink{}
		p := &Partition{Client: c, Topic: "items", Start: Earliest, MaxBytes: maxBytes, Handler: s}
		stop := run(t, p)
		eventually(t, "the end", func() bool { return p.Position() == last })
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		got, offset := map[string]string{}, first-1
		for _, r := range s.all() {
			if r.Offset <= offset {
				t.Fatalf("offset %d after %d", r.Offset, offset)
			}
			offset = r.Offset
			got[string(r.Key)] = string(r.Value)
		}
		if fmt.Sprint(got) != fmt.Sprint(latest) {
			t.Errorf("max bytes %d: read %v, want %v", maxBytes, got, latest)
		}
	}
}

func TestBrokerRestarts(t *testing.T) {
	o := broker.Options{DataDir: t.TempDir()}
	b := startBroker(t, o)
	o.Listen = b.Addr()
	if err := b.Cluster().CreateTopic("feedback", 1, nil); err != nil {
		t.Fatal(err)
	}
	c := newClient(t, b)
	s := &sink{}
	p := &Partition{Client: c, Topic: "feedback", Start: Earliest, Handler: s}
	stop := run(t, p)
	produce(t, c, "feedback", 0, values(0, 100)...)
	eventually(t, "the first records", func() bool { return p.Position() == 100 })

	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the loss to be seen", func() bool { ok, err := p.Connected(); return !ok && err != nil })
	b = startBroker(t, o)
	eventually(t, "the broker to be seen again", func() bool { ok, _ := p.Connected(); return ok })
	produce(t, c, "feedback", 0, values(100, 200)...)
	eventually(t, "the other records", func() bool { return p.Position() == 200 })
	for i, r := range s.all() {
		if want := fmt.Sprintf("value %d", i); r.Offset != int64(i) || string(r.Value) != want {
			t.Fatalf("record %d is %d %q", i, r.Offset, r.Value)
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// A partition whose broker is away at the start waits for it.
func TestRunWaitsForTheBroker(t *testing.T) {
	o := broker.Options{DataDir: t.TempDir()}
	b := startBroker(t, o)
	o.Listen = b.Addr()
	if err := b.Cluster().CreateTopic("feedback", 1, nil); err != nil {
		t.Fatal(err)
	}
	c := newClient(t, b)
	produce(t, c, "feedback", 0, values(0, 3)...)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	s := &sink{}
	p := &Partition{Client: c, Topic: "feedback", Start: 1, Handler: s}
	run(t, p)
	eventually(t, "the loss to be seen", func() bool { ok, err := p.Connected(); return !ok && err != nil })
	startBroker(t, o)
	eventually(t, "the records", func() bool { return p.Position() == 3 })
	if got := len(s.all()); got != 2 {
		t.Errorf("%d records, want 2", got)
	}
}

func TestFetchErrorsAreOutlived(t *testing.T) {
	for _, e := range []*kerr.Error{kerr.NotLeaderForPartition, kerr.LeaderNotAvailable, kerr.UnknownTopicOrPartition, kerr.KafkaStorageError, kerr.OffsetOutOfRange, kerr.UnknownServerError} {
		t.Run(e.Message, func(t *testing.T) {
			b, c := setup(t, "feedback", 1)
			fault := b.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "feedback", Err: e, Count: 2})
			produce(t, c, "feedback", 0, values(0, 5)...)
			s := &sink{}
			run(t, &Partition{Client: c, Topic: "feedback", Start: Earliest, Handler: s})
			eventually(t, "the records", func() bool { return len(s.all()) == 5 })
			if fault.Hits() != 2 {
				t.Errorf("%d faults met, want 2", fault.Hits())
			}
		})
	}
}

// The end of the log is known while the handler is busy, so that lag is reported and not hidden.
func TestEndIsFreshWhileTheHandlerIsBusy(t *testing.T) {
	_, c := setup(t, "feedback", 1)
	for i := range 5 {
		produce(t, c, "feedback", 0, values(i, i+1)...)
	}
	release := make(chan struct{})
	s := &sink{handle: func([]Record, int64) error { <-release; return nil }}
	p := &Partition{Client: c, Topic: "feedback", Start: Earliest, MaxBatch: 1, Handler: s}
	run(t, p)
	eventually(t, "the handler to be busy", func() bool { return len(s.all()) == 1 })
	produce(t, c, "feedback", 0, values(5, 50)...)
	eventually(t, "the new end", func() bool { e, _ := p.End(); return e == 50 })
	if got := p.Position(); got != 0 {
		t.Errorf("position %d while the first batch is handled, want 0", got)
	}
	close(release)
	eventually(t, "the rest", func() bool { return p.Position() == 50 })
}

// Partitions that wait for records must not hold up others on the same client.
func TestIdlePartitionsHoldUpNobody(t *testing.T) {
	const idle = 12
	_, c := setup(t, "feedback", idle+1)
	for i := range int32(idle) {
		p := &Partition{Client: c, Topic: "feedback", ID: i, Start: Latest, MaxWait: deadline, Handler: &sink{}}
		run(t, p)
		eventually(t, "an idle partition", func() bool { _, at := p.End(); return !at.IsZero() })
	}
	s := &sink{}
	run(t, &Partition{Client: c, Topic: "feedback", ID: idle, Start: Earliest, Handler: s})
	for i := range 50 {
		produce(t, c, "feedback", idle, values(i, i+1)...)
		eventually(t, "a record", func() bool { return len(s.all()) == i+1 })
	}
	c.Close() // the idle ones would wait out their long polls
}

func TestFingerprint(t *testing.T) {
	at := time.UnixMilli(1700000000123)
	base := Record{Key: []byte("user"), Value: []byte(`{"a":1}`), Time: at}
	// Frozen: it is stored beside offsets.
	if got, want := base.Fingerprint(), uint64(0x4d72de05ea14fc5e); got != want {
		t.Errorf("fingerprint %#x, want %#x", got, want)
	}
	moved := base
	moved.Offset, moved.Partition, moved.Topic = 7, 3, "other"
	if moved.Fingerprint() != base.Fingerprint() {
		t.Error("the place is part of the fingerprint")
	}
	seen := map[uint64]string{}
	for name, r := range map[string]Record{
		"base":        base,
		"other key":   {Key: []byte("user2"), Value: base.Value, Time: at},
		"other value": {Key: base.Key, Value: []byte(`{"a":2}`), Time: at},
		"other time":  {Key: base.Key, Value: base.Value, Time: at.Add(time.Millisecond)},
		"null value":  {Key: base.Key, Time: at},
		"empty value": {Key: base.Key, Value: []byte{}, Time: at},
		"swapped":     {Key: base.Value, Value: base.Key, Time: at},
	} {
		if other, ok := seen[r.Fingerprint()]; ok {
			t.Errorf("%s and %s share a fingerprint", name, other)
		}
		seen[r.Fingerprint()] = name
	}
}

// Answers without records although the log goes on are asked again, and passed only when they say so again and again
// and no quota explains them; a rest of a batch that was compacted away is passed step by step.
func TestPastNothing(t *testing.T) {
	p := &Partition{Topic: "items"}
	p.setDefaults()
	empty := 0
	var next int64
	for i := range emptyLimit - 1 {
		if next, empty = p.pastNothing(fetched{stable: 20}, 7, empty); next != 7 {
			t.Fatalf("passed to %d after %d answers", next, i+1)
		}
	}
	for range 5 {
		if next, empty = p.pastNothing(fetched{stable: 20, throttled: true}, 7, empty); next != 7 {
			t.Fatalf("passed to %d after a throttled answer", next)
		}
	}
	if next, empty = p.pastNothing(fetched{stable: 20}, 7, empty); next != 20 || empty != 0 {
		t.Errorf("next %d, count %d; want 20 and 0", next, empty)
	}
	if next, _ = p.pastNothing(fetched{stable: 20, seen: true}, 7, emptyLimit); next != 8 {
		t.Errorf("next %d within a compacted batch, want 8", next)
	}
}

func TestEmptyAnswersBelowTheEndDoNotLoopForEver(t *testing.T) {
	b, c := setup(t, "items", 1)
	produce(t, c, "items", 0, values(0, 5)...)
	hollow := true
	b.Cluster().ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		b.Cluster().KeepControl()
		if !hollow {
			return nil, nil, false
		}
		r := req.(*kmsg.FetchRequest)
		hollow = r.Topics[0].Partitions[0].FetchOffset == 0
		if !hollow {
			return nil, nil, false
		}
		resp := r.ResponseKind().(*kmsg.FetchResponse)
		topic, partition := kmsg.NewFetchResponseTopic(), kmsg.NewFetchResponseTopicPartition()
		topic.Topic, partition.HighWatermark, partition.LastStableOffset = "items", 5, 5
		topic.Partitions = append(topic.Partitions, partition)
		resp.Topics = append(resp.Topics, topic)
		return resp, nil, true
	})
	s := &sink{}
	p := &Partition{Client: c, Topic: "items", Start: Earliest, Handler: s}
	run(t, p)
	eventually(t, "the end", func() bool { return p.Position() == 5 })
	if s.next() != 5 || len(s.all()) != 0 {
		t.Errorf("next %d with %d records, want 5 with none", s.next(), len(s.all()))
	}
	produce(t, c, "items", 0, values(5, 8)...)
	eventually(t, "what follows", func() bool { return len(s.all()) == 3 })
}
