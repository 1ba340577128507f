package consumer

import (
	"context"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"

	"rebeca/schemas"
)

const (
	// maxProduceBytes keeps a batch below the brokers' default limit of 1,048,588 bytes; a larger record goes alone.
	maxProduceBytes = 900 << 10
	// recordOverhead bounds what a record costs beside key, value and headers (lengths, deltas).
	recordOverhead = 32
	// produceAttempts with backoff from 50 ms bridge about five seconds.
	produceAttempts = 9
	produceBackoff  = 50 * time.Millisecond
)

// Message is a record to be produced.
type Message struct {
	Key     []byte // nil for none
	Value   []byte // nil for a null value: a tombstone
	Headers []schemas.Header
	Time    time.Time // zero means now
}

func (m Message) size() int {
	n := recordOverhead + len(m.Key) + len(m.Value)
	for _, h := range m.Headers {
		n += len(h.Key) + len(h.Value) + 4
	}
	return n
}

// Produce appends messages to a partition in their order and returns the offset of the first once all in-sync replicas
// have them. Messages of up to 900 KiB together go as one batch: their offsets follow each other without a break. More
// go as several batches, between which records of others may lie: [Client.ProduceEach] tells every offset. It tries
// again for about five seconds while [Retriable] says so, so messages may be there twice, and, after an error, all, some
// or none. Without messages the offset is -1.
func (c *Client) Produce(ctx context.Context, topic string, partition int32, msgs []Message) (baseOffset int64, err error) {
	offsets, err := c.ProduceEach(ctx, topic, partition, msgs)
	if err != nil || len(offsets) == 0 {
		return -1, err
	}
	return offsets[0], nil
}

// ProduceEach is [Client.Produce] that returns the offset of every message that was acknowledged: all of them, or with
// an error those before the batch that failed.
func (c *Client) ProduceEach(ctx context.Context, topic string, partition int32, msgs []Message) (offsets []int64, err error) {
	for len(msgs) > 0 {
		n := firstBatch(msgs)
		base, err := c.produceBatch(ctx, topic, partition, msgs[:n])
		if err != nil {
			return offsets, fmt.Errorf("producing to %s[%d]: %w", topic, partition, c.explain(err))
		}
		for i := range n {
			offsets = append(offsets, base+int64(i))
		}
		msgs = msgs[n:]
	}
	return offsets, nil
}

// firstBatch counts the messages that fit into one batch, at least one.
func firstBatch(msgs []Message) int {
	bytes := 0
	for n, m := range msgs {
		if bytes += m.size(); n > 0 && bytes > maxProduceBytes {
			return n
		}
	}
	return len(msgs)
}

func (c *Client) produceBatch(ctx context.Context, topic string, partition int32, msgs []Message) (int64, error) {
	for attempt, wait := 1, produceBackoff; ; attempt, wait = attempt+1, min(2*wait, time.Second) {
		offset, err := c.produceOnce(ctx, topic, partition, msgs)
		if err == nil || !Retriable(err) || attempt == produceAttempts || ctx.Err() != nil {
			return offset, err
		}
		if sleep(ctx, wait) != nil {
			return -1, err
		}
	}
}

// produceOnce sends one batch once. An error may come although the broker has it.
func (c *Client) produceOnce(ctx context.Context, topic string, partition int32, msgs []Message) (int64, error) {
	records := make([]kafka.Record, len(msgs))
	for i, m := range msgs {
		records[i] = kafka.Record{Key: kafka.NewBytes(m.Key), Value: kafka.NewBytes(m.Value), Time: m.Time}
		for _, h := range m.Headers {
			records[i].Headers = append(records[i].Headers, kafka.Header(h))
		}
	}
	resp, err := c.kafka.Produce(ctx, &kafka.ProduceRequest{
		Topic: topic, Partition: int(partition), RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(records...),
	})
	if err == nil {
		err = resp.Error
	} else {
		err = c.cause(ctx, err)
	}
	if err != nil {
		if Retriable(err) {
			c.refresh(false)
		}
		return -1, err
	}
	return resp.BaseOffset, nil
}
