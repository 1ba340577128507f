package consumer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

const (
	// txnTimeout is when the coordinator aborts a transaction by itself: above all that we wait for within one, so that only a process
	// that died or stood still meets it, and no higher, because readers wait for an open transaction.
	txnTimeout = 30 * time.Second
	// coordinatorPatience bounds how often a coordinator is asked again that says it is not ready; the whole request is then in doubt.
	coordinatorPatience = 5 * time.Second
	// coordinatorPause is the first pause before that: the markers of the last transaction are written in a few milliseconds.
	coordinatorPause = 2 * time.Millisecond
	// maxSequence is where a session is renewed, long before its numbers would wrap around.
	maxSequence = math.MaxInt32 / 2
)

// ErrNotOwner says that another process owns a partition: errors.Is(err, ErrNotOwner) holds for every error that ends a relay for it.
var ErrNotOwner = errors.New("another owner has the partition")

// FencedError says that the coordinator knows a newer sender of the same transactional id: what this one had not committed is aborted,
// and it may not send again.
type FencedError struct {
	TransactionalID string
	Err             error // the broker's
}

// Error names the id and what may be done.
func (e *FencedError) Error() string {
	return fmt.Sprintf("fenced: another owner sends as %s; stop one of the two, and restart this one if it is to go on (%v)", e.TransactionalID, e.Err)
}

// Is makes a fenced sender one that is not the owner.
func (e *FencedError) Is(target error) bool { return target == ErrNotOwner }

// Unwrap returns the broker's error.
func (e *FencedError) Unwrap() error { return e.Err }

// txn sends messages of one partition number in transactions, one at a time. It is used by one goroutine.
type txn struct {
	client    *Client
	id        string // the transactional id
	partition int32
	timeout   time.Duration // how long a transaction may take

	known   bool // session is what the coordinator answered last
	session session
	strays  int              // openings without an answer: each may still arrive, and fence this session
	next    map[string]int32 // by topic, the sequence number of the session's next message
	began   time.Time        // when the transaction that is open was; wall clock, which runs on while the machine sleeps
	added   map[string]bool  // topics in it
}

// open fences whoever sent under the same id before, this process included: when it returns, everything that was sent is committed or
// aborted, and nothing of it that is still on its way will be taken.
func (t *txn) open(ctx context.Context) error {
	t.known, t.next, t.began, t.added = false, map[string]int32{}, time.Time{}, nil
	err := t.ask(ctx, "opening", func(ctx context.Context) error {
		t.strays++
		// -1, -1 asks for the id's next epoch; the library's zero values would name a producer that is not ours.
		resp, err := t.client.kafka.InitProducerID(ctx, &kafka.InitProducerIDRequest{
			TransactionalID: t.id, TransactionTimeoutMs: int(t.timeout.Milliseconds()), ProducerID: -1, ProducerEpoch: -1,
		})
		if err != nil {
			return err
		}
		t.strays--
		t.session = session{id: int64(resp.Producer.ProducerID), epoch: int16(resp.Producer.ProducerEpoch)}
		return resp.Error
	})
	t.known = err == nil
	return err
}

// superseded returns a [FencedError] if the coordinator knows a newer session than this one, so that one in doubt does not fence its
// successor. It makes topics part of a transaction, which changes nothing where one is open; opening follows in any case.
func (t *txn) superseded(ctx context.Context, topics []string) error {
	if !t.known {
		return nil
	}
	t.added = nil
	err := t.add(ctx, topics...)
	if errors.Is(err, ErrNotOwner) {
		return err
	}
	return nil // open meets whatever else is wrong
}

// spent reports whether the session should be renewed before the next transaction.
func (t *txn) spent() bool {
	for _, n := range t.next {
		if n > maxSequence {
			return true
		}
	}
	return false
}

// add makes topics part of the transaction, beginning it with the first.
func (t *txn) add(ctx context.Context, topics ...string) error {
	req := &kafka.AddPartitionsToTxnRequest{
		TransactionalID: t.id, ProducerID: int(t.session.id), ProducerEpoch: int(t.session.epoch), Topics: map[string][]kafka.AddPartitionToTxn{},
	}
	for _, topic := range topics {
		if !t.added[topic] {
			req.Topics[topic] = []kafka.AddPartitionToTxn{{Partition: int(t.partition)}}
		}
	}
	if len(req.Topics) == 0 {
		return nil
	}
	if t.added == nil {
		t.added = map[string]bool{}
	}
	if t.began.IsZero() {
		t.began = time.Now().Round(0)
	}
	err := t.ask(ctx, "beginning", func(ctx context.Context) error {
		resp, err := t.client.kafka.AddPartitionsToTxn(ctx, req)
		if err != nil {
			return err
		}
		return addError(resp, req)
	})
	for topic := range req.Topics {
		t.added[topic] = err == nil
	}
	return err
}

// addError returns the error of the partition that was not added; the others are then reported as not attempted.
func addError(resp *kafka.AddPartitionsToTxnResponse, req *kafka.AddPartitionsToTxnRequest) (err error) {
	for topic := range req.Topics {
		if len(resp.Topics[topic]) != 1 {
			return fmt.Errorf("the answer says nothing about topic %s", topic)
		}
		if e := resp.Topics[topic][0].Error; e != nil && (err == nil || errors.Is(err, operationNotAttempted)) {
			err = e
		}
	}
	return err
}

// operationNotAttempted has no name in the library.
const operationNotAttempted = kafka.Error(55)

// append sends one batch to a topic of the transaction and returns the offset of its first message. What the broker refuses for its size
// leaves the transaction as it was; after any other error it is in doubt.
func (t *txn) append(ctx context.Context, topic string, msgs []Message) (base int64, err error) {
	size := 0
	for _, m := range msgs {
		size += m.size()
	}
	// Of this request alone: the library may read on after it has given up waiting.
	batch := appendBatch(make([]byte, 0, size+batchOverhead), t.session, t.next[topic], msgs, time.Now())
	resp, err := t.client.kafka.RawProduce(ctx, &kafka.RawProduceRequest{
		Topic: topic, Partition: int(t.partition), RequiredAcks: kafka.RequireAll, TransactionalID: t.id,
		RawRecords: protocol.RawRecordSet{Reader: bytes.NewReader(batch)},
	})
	if err == nil {
		err = resp.Error
	}
	if err != nil {
		return -1, t.failed(ctx, "appending to "+topic, err)
	}
	t.next[topic] += int32(len(msgs))
	return resp.BaseOffset, nil
}

// commit ends the transaction. After an error it may be committed or not.
func (t *txn) commit(ctx context.Context) error {
	err := t.ask(ctx, "committing", func(ctx context.Context) error {
		resp, err := t.client.kafka.EndTxn(ctx, &kafka.EndTxnRequest{
			TransactionalID: t.id, ProducerID: int(t.session.id), ProducerEpoch: int(t.session.epoch), Committed: true,
		})
		if err != nil {
			return err
		}
		return resp.Error
	})
	if err == nil {
		t.began, t.added = time.Time{}, nil
	}
	return err
}

// ask sends a request to the coordinator again as long as it answers that it has done nothing yet.
func (t *txn) ask(ctx context.Context, what string, request func(context.Context) error) error {
	begun, pause := time.Now(), coordinatorPause
	for {
		err := request(ctx)
		if err == nil {
			return nil
		}
		if !undone(err) || time.Since(begun) > coordinatorPatience {
			return t.failed(ctx, what+" a transaction", err)
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, 200*time.Millisecond)
	}
}

// undone reports whether a coordinator's answer means that it, or the one that it is not, will do the same request later.
func undone(err error) bool {
	for _, code := range []kafka.Error{
		kafka.GroupLoadInProgress, kafka.GroupCoordinatorNotAvailable, kafka.NotCoordinatorForGroup, kafka.ConcurrentTransactions,
	} {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}

// failed says what went wrong, and whether it was another owner.
func (t *txn) failed(ctx context.Context, what string, err error) error {
	if Retriable(err) {
		err = t.client.cause(ctx, err)
		t.client.refresh(false)
	}
	if (errors.Is(err, kafka.InvalidProducerEpoch) || errors.Is(err, kafka.ProducerFenced)) && !t.ownDoing() {
		return &FencedError{TransactionalID: t.id, Err: err}
	}
	if errors.Is(err, kafka.GroupCoordinatorNotAvailable) {
		what += " (is the brokers' transaction.state.log.replication.factor above their number?)"
	}
	return fmt.Errorf("%s as %s: %w", what, t.id, err)
}

// ownDoing reports whether this process may be why the coordinator has a newer epoch, which then is doubt and nothing more: an opening
// met another one (the later of the two fences the other), one of ours came late, or a transaction took too long and was ended.
func (t *txn) ownDoing() bool {
	switch {
	case !t.known:
	case t.strays > 0:
		t.strays--
	case t.began.IsZero() || time.Now().Round(0).Sub(t.began) < t.timeout:
		return false
	}
	t.known = false // the coordinator's is another
	return true
}
