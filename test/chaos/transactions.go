package main

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// transactionLimit bounds a transaction of the stream, for the producer and for the broker.
const transactionLimit = 5 * time.Second

// transactions writes feedback in transactions of its own, many of which are aborted: what is in them never was.
type transactions struct {
	broker, id string
	cl         *kgo.Client // nil before the first and after one that failed
}

// write produces the records in one transaction and reports whether it is known to be committed. One that fails is left to be aborted
// by the next, or by the broker.
func (x *transactions) write(records []*kgo.Record, commit bool) (committed bool) {
	ctx, cancel := context.WithTimeout(context.Background(), transactionLimit)
	defer cancel()
	err := x.open()
	if err == nil {
		err = x.cl.BeginTransaction()
	}
	if err == nil {
		err = x.cl.ProduceSync(ctx, records...).FirstErr()
	}
	if err == nil {
		err = x.cl.EndTransaction(ctx, kgo.TransactionEndTry(commit))
	}
	if err != nil {
		x.close()
	}
	return commit && err == nil
}

func (x *transactions) open() (err error) {
	if x.cl != nil {
		return nil
	}
	x.cl, err = kgo.NewClient(kgo.SeedBrokers(x.broker), direct(x.broker), kgo.TransactionalID(x.id), kgo.TransactionTimeout(transactionLimit),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RecordDeliveryTimeout(transactionLimit), kgo.RetryTimeout(transactionLimit))
	return err
}

// close gives the client up; the next one's first request ends what it left open.
func (x *transactions) close() {
	if x.cl != nil {
		x.cl.Close()
		x.cl = nil
	}
}

// transaction writes some events of one member, among them perhaps a forget, in a transaction that is committed or not.
func (w *stream) transaction(m *member) {
	var records []*kgo.Record
	for range 1 + w.rng.IntN(8) {
		e, at := w.event(m)
		r := &kgo.Record{Topic: topicFeedback, Partition: m.partition, Key: []byte(m.name), Value: encode(e), Timestamp: at}
		if m.forgets && w.one(20) {
			r.Value = nil
		}
		records = append(records, r)
		w.n++
	}
	if !w.tx.write(records, w.one(2)) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range records {
		w.acknowledged[source{r.Topic, r.Partition, r.Offset}] = checksum(r.Key, r.Value)
	}
}
