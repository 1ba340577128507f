package consumer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/fetch"

	"rebeca/schemas"
)

// fetched is what one fetch brought.
type fetched struct {
	records   []Record // committed ones at or after the offset asked for
	next      int64    // the offset after everything that was seen, markers and aborted records included
	seen      bool     // batches came, even if nothing of them was new
	end       int64    // high watermark
	stable    int64    // reads stop here: the first offset of an open transaction, else the end
	memory    int      // bytes that decoding it took, about
	holes     []hole   // offsets below next of which nothing came, in order; compaction makes them
	throttled bool     // the broker held the answer back and may have left out records
}

// fetch reads from an offset on, waiting at most wait for the first record, at read_committed: kafka-go's own
// Client.Fetch hides the batches, and with them markers, aborted transactions and how far an answer reaches. expect is
// a guess at the number of records.
func (c *Client) fetch(ctx context.Context, topic string, partition int32, offset int64, maxBytes int, wait time.Duration, expect int) (fetched, error) {
	resp, err := c.roundTrip(ctx, wait, &fetch.Request{
		ReplicaID: -1, MaxWaitTime: int32(wait.Milliseconds()), MinBytes: 1,
		MaxBytes:       math.MaxInt32, // the partition's limit counts; kfake leaves out aborted transactions where this one cuts
		IsolationLevel: int8(kafka.ReadCommitted), SessionID: -1, SessionEpoch: -1,
		Topics: []fetch.RequestTopic{{Topic: topic, Partitions: []fetch.RequestPartition{{
			Partition: partition, CurrentLeaderEpoch: -1, FetchOffset: offset, LogStartOffset: -1, PartitionMaxBytes: int32(maxBytes),
		}}}},
	})
	if err != nil {
		return fetched{}, err
	}
	r := resp.(*fetch.Response)
	if r.ErrorCode != 0 {
		return fetched{}, kafka.Error(r.ErrorCode)
	}
	if len(r.Topics) == 0 || len(r.Topics[0].Partitions) == 0 {
		return fetched{}, kafka.UnknownTopicOrPartition
	}
	p := &r.Topics[0].Partitions[0]
	if p.ErrorCode != 0 {
		return fetched{}, kafka.Error(p.ErrorCode)
	}
	f := fetched{next: offset, end: p.HighWatermark, stable: p.LastStableOffset, throttled: r.ThrottleTimeMs > 0}
	if f.stable < 0 {
		f.stable = f.end
	}
	b := batchReader{fetched: &f, topic: topic, partition: partition, from: offset, expect: expect}
	b.aborted = abortedByOffset(p.AbortedTransactions)
	if stream, ok := p.RecordSet.Records.(*protocol.RecordStream); ok {
		for _, batch := range stream.Records {
			if err := b.read(batch); err != nil {
				return fetched{}, fmt.Errorf("reading records: %w", err)
			}
		}
	}
	return f, nil
}

// abortedByOffset sorts the aborted transactions; brokers do not promise an order.
func abortedByOffset(aborted []fetch.ResponseTransaction) []fetch.ResponseTransaction {
	slices.SortFunc(aborted, func(a, b fetch.ResponseTransaction) int { return int(min(1, max(-1, a.FirstOffset-b.FirstOffset))) })
	return aborted
}

// batchReader collects the committed records of successive batches.
type batchReader struct {
	*fetched
	topic     string
	partition int32
	from      int64 // a batch may begin before the offset asked for
	aborted   []fetch.ResponseTransaction
	aborting  map[int64]bool // producers within an aborted transaction
	arena     arena
	expect    int // how many records may come: room for that many is made at the first
}

func (b *batchReader) read(batch protocol.RecordReader) error {
	b.seen = true
	b.memory += pageBytes
	skip := false
	switch batch := batch.(type) {
	case *protocol.ControlBatch:
		return b.readMarkers(batch)
	case *protocol.RecordBatch:
		b.passed(batch.BaseOffset)
		b.abort(batch.BaseOffset)
		skip = batch.Attributes.Transactional() && b.aborting[batch.ProducerID]
	}
	for {
		r, err := batch.ReadRecord()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := b.take(r, skip); err != nil {
			return err
		}
	}
}

// abort takes in which aborted transactions begin at an offset or before it. Every batch asks, a marker too: an answer that begins with
// the marker of an abort names its transaction, and if it were taken in behind that, it would hide what its producer commits next.
func (b *batchReader) abort(offset int64) {
	for len(b.aborted) > 0 && b.aborted[0].FirstOffset <= offset {
		if b.aborting == nil {
			b.aborting = map[int64]bool{}
		}
		b.aborting[b.aborted[0].ProducerID] = true
		b.aborted = b.aborted[1:]
	}
}

// passed moves next behind an offset and notes what was left out before it.
func (b *batchReader) passed(offset int64) {
	if offset > b.next {
		b.holes = append(b.holes, hole{b.next, offset})
	}
	b.next = max(b.next, offset+1)
}

// readMarkers notes the end of transactions: a marker's key is version (int16) and type (int16), 0 for abort.
func (b *batchReader) readMarkers(batch *protocol.ControlBatch) error {
	b.passed(batch.BaseOffset)
	b.abort(batch.BaseOffset)
	for {
		r, err := batch.ReadRecord()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		b.passed(r.Offset)
		key, err := b.copy(r.Key)
		if err != nil {
			return err
		}
		if r.Value != nil {
			_ = r.Value.Close()
		}
		if len(key) >= 4 && binary.BigEndian.Uint16(key[2:]) == 0 {
			delete(b.aborting, batch.ProducerID)
		}
	}
}

// take keeps a record unless it was seen before or is not to be seen at all.
func (b *batchReader) take(r *protocol.Record, skip bool) error {
	b.passed(r.Offset)
	b.memory += recordBytes
	if skip || r.Offset < b.from {
		for _, bytes := range []protocol.Bytes{r.Key, r.Value} {
			if bytes != nil {
				b.memory += bytes.Len()
				_ = bytes.Close()
			}
		}
		return nil
	}
	key, err := b.copy(r.Key)
	if err != nil {
		return err
	}
	value, err := b.copy(r.Value)
	if err != nil {
		return err
	}
	if len(b.records) == cap(b.records) {
		// Doubling: append alone grows long slices by a quarter only and copies them again and again.
		b.records = slices.Grow(b.records, max(16, b.expect-len(b.records), len(b.records)))
	}
	var headers []schemas.Header
	for _, h := range r.Headers {
		headers = append(headers, schemas.Header(h))
	}
	b.records = append(b.records, Record{
		Topic: b.topic, Partition: b.partition, Offset: r.Offset, Time: r.Time, Key: key, Value: value, Headers: headers,
	})
	return nil
}

// copy takes bytes out of the library's pooled pages and returns the pages. Null stays nil.
func (b *batchReader) copy(bytes protocol.Bytes) ([]byte, error) {
	if bytes == nil {
		return nil, nil
	}
	out := b.arena.take(bytes.Len())
	b.memory += 2 * len(out) // in the library's pages, and here
	_, err := io.ReadFull(bytes, out)
	return out, errors.Join(err, bytes.Close())
}
