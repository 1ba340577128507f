package consumer

import (
	"context"
	"sync"
	"testing"

	"github.com/segmentio/kafka-go/protocol/fetch"
)

// From a stream processor that dropped a batch under way when its partition was revoked: the call under way is waited
// for, nothing is handled after Run returned, and the next owner, who starts where it was stored, sees all the rest.
func TestRevokeWithAHalfFullBatchLosesNothing(t *testing.T) {
	_, c := setup(t, "feedback", 1)
	const n = 50
	for i := range n {
		produce(t, c, "feedback", 0, values(i, i+1)...)
	}
	var stored int64
	var seen []Record
	for lives := 0; stored < n; lives++ {
		if lives > n {
			t.Fatal("no progress")
		}
		ctx, revoke := context.WithCancel(t.Context())
		entered, release := make(chan struct{}), make(chan struct{})
		var once sync.Once
		s := &sink{handle: func(_ []Record, next int64) error {
			once.Do(func() { close(entered); <-release })
			stored = next // as a fold's transaction does
			return nil
		}}
		p := &Partition{Client: c, Topic: "feedback", Start: stored, MaxBatch: 7, Dense: true, Handler: s}
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		<-entered
		revoke()
		select {
		case err := <-done:
			t.Fatalf("Run returned within a batch: %v", err)
		default:
		}
		close(release)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if s.next() != stored {
			t.Errorf("handled up to %d, stored %d", s.next(), stored)
		}
		seen = append(seen, s.all()...)
	}
	for i, r := range seen {
		if r.Offset != int64(i) {
			t.Fatalf("record %d has offset %d", i, r.Offset)
		}
	}
	if len(seen) != n {
		t.Errorf("%d records, want %d", len(seen), n)
	}
}

// From another client's notes: brokers list aborted transactions in any order.
func TestUnsortedAbortedListIsSorted(t *testing.T) {
	got := abortedByOffset([]fetch.ResponseTransaction{{ProducerID: 1, FirstOffset: 9}, {ProducerID: 2, FirstOffset: 3}, {ProducerID: 3, FirstOffset: 5}})
	for i, want := range []int64{3, 5, 9} {
		if got[i].FirstOffset != want {
			t.Fatalf("sorted to %v", got)
		}
	}
}
