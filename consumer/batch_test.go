package consumer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"rebeca/schemas"
)

// now is when the batches of these tests are made.
var now = time.UnixMilli(1_790_000_000_123)

// batchOf is any batch.
type batchOf struct {
	session  session
	sequence int32
	msgs     []Message
}

func drawBatch(t *rapid.T) batchOf {
	bytes := func(label string) []byte {
		return rapid.OneOf(rapid.Just([]byte(nil)), rapid.Just([]byte{}), rapid.SliceOfN(rapid.Byte(), 0, 300)).Draw(t, label)
	}
	b := batchOf{
		session:  session{rapid.Int64Min(0).Draw(t, "id"), rapid.Int16Min(0).Draw(t, "epoch")},
		sequence: rapid.Int32Min(0).Draw(t, "sequence"),
	}
	for range rapid.IntRange(1, 20).Draw(t, "messages") {
		m := Message{Key: bytes("key"), Value: bytes("value")}
		for range rapid.IntRange(0, 3).Draw(t, "headers") {
			m.Headers = append(m.Headers, schemas.Header{Key: rapid.StringN(0, 70, -1).Draw(t, "name"), Value: bytes("header")})
		}
		if rapid.Bool().Draw(t, "timed") {
			m.Time = time.UnixMilli(rapid.Int64Range(0, 1<<42).Draw(t, "time"))
		}
		b.msgs = append(b.msgs, m)
	}
	return b
}

// same compares what a decoder read with a message; times are to the millisecond, and null is not empty.
func same(m Message, key, value []byte, headers []schemas.Header, at time.Time) error {
	want := m.Time
	if want.IsZero() {
		want = now
	}
	switch {
	case (key == nil) != (m.Key == nil) || !bytes.Equal(key, m.Key):
		return fmt.Errorf("key %q, want %q", key, m.Key)
	case (value == nil) != (m.Value == nil) || !bytes.Equal(value, m.Value):
		return fmt.Errorf("value %q, want %q", value, m.Value)
	case at.UnixMilli() != want.UnixMilli():
		return fmt.Errorf("time %v, want %v", at, want)
	case len(headers) != len(m.Headers):
		return fmt.Errorf("%d headers, want %d", len(headers), len(m.Headers))
	}
	for i, h := range m.Headers {
		if g := headers[i]; g.Key != h.Key || (g.Value == nil) != (h.Value == nil) || !bytes.Equal(g.Value, h.Value) {
			return fmt.Errorf("header %q, want %q", g, h)
		}
	}
	return nil
}

// byKafkaGo reads a batch as the library that sends it would.
func byKafkaGo(encoded []byte, b batchOf) error {
	var set protocol.RecordSet
	if n, err := set.ReadFrom(bytes.NewReader(encoded)); err != nil || int(n) != len(encoded) {
		return fmt.Errorf("read %d of %d bytes: %w", n, len(encoded), err)
	}
	stream, ok := set.Records.(*protocol.RecordStream)
	if !ok || len(stream.Records) != 1 {
		return fmt.Errorf("read %T", set.Records)
	}
	batch, ok := stream.Records[0].(*protocol.RecordBatch)
	switch {
	case !ok:
		return fmt.Errorf("read a %T", stream.Records[0])
	case !batch.Attributes.Transactional() || batch.Attributes.Control() || batch.Attributes.Compression() != 0:
		return fmt.Errorf("attributes %v", batch.Attributes)
	case batch.ProducerID != b.session.id || batch.ProducerEpoch != b.session.epoch || batch.BaseSequence != b.sequence:
		return fmt.Errorf("producer %d, epoch %d, sequence %d", batch.ProducerID, batch.ProducerEpoch, batch.BaseSequence)
	}
	for i, m := range b.msgs {
		r, err := batch.ReadRecord()
		if err != nil {
			return fmt.Errorf("record %d: %w", i, err)
		}
		key, err := kafka.ReadAll(r.Key)
		if err != nil {
			return err
		}
		value, err := kafka.ReadAll(r.Value)
		if err != nil {
			return err
		}
		var headers []schemas.Header
		for _, h := range r.Headers {
			headers = append(headers, schemas.Header(h))
		}
		if err := same(m, key, value, headers, r.Time); err != nil || r.Offset != int64(i) {
			return fmt.Errorf("record %d at offset %d: %w", i, r.Offset, err)
		}
	}
	if _, err := batch.ReadRecord(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("behind the last record: %w", err)
	}
	return nil
}

// byFranzGo reads a batch as another library's consumer does, checksum included.
func byFranzGo(encoded []byte, b batchOf) error {
	raw := encoded[4:]
	var head kmsg.RecordBatch
	if err := head.ReadFrom(raw); err != nil {
		return err
	}
	latest := int64(0)
	for i, m := range b.msgs {
		if at := millis(m.Time, now); i == 0 || at > latest {
			latest = at
		}
	}
	switch {
	case int(binary.BigEndian.Uint32(encoded)) != len(raw) || int(head.Length) != len(raw)-12:
		return fmt.Errorf("lengths %d and %d of %d bytes", binary.BigEndian.Uint32(encoded), head.Length, len(raw))
	case head.ProducerID != b.session.id || head.ProducerEpoch != b.session.epoch || head.FirstSequence != b.sequence:
		return fmt.Errorf("producer %d, epoch %d, sequence %d", head.ProducerID, head.ProducerEpoch, head.FirstSequence)
	case head.FirstOffset != 0 || int(head.LastOffsetDelta) != len(b.msgs)-1 || int(head.NumRecords) != len(b.msgs):
		return fmt.Errorf("first offset %d, last %d, %d records", head.FirstOffset, head.LastOffsetDelta, head.NumRecords)
	case head.Magic != 2 || head.Attributes != transactional || head.MaxTimestamp != latest:
		return fmt.Errorf("format %d, attributes %b, latest time %d, want %d", head.Magic, head.Attributes, head.MaxTimestamp, latest)
	}
	read, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{},
		&kmsg.FetchResponseTopicPartition{RecordBatches: raw, LastStableOffset: -1}, kgo.DefaultDecompressor(), nil)
	if read.Err != nil || len(read.Records) != len(b.msgs) {
		return fmt.Errorf("%d of %d records: %w", len(read.Records), len(b.msgs), read.Err)
	}
	for i, m := range b.msgs {
		r := read.Records[i]
		var headers []schemas.Header
		for _, h := range r.Headers {
			headers = append(headers, schemas.Header(h))
		}
		if err := same(m, r.Key, r.Value, headers, r.Timestamp); err != nil || r.Offset != int64(i) {
			return fmt.Errorf("record %d at offset %d: %w", i, r.Offset, err)
		}
	}
	return nil
}

// Two other implementations read back what is encoded, whatever it is; what stood before in the buffer is left alone.
func batchProperty(t *rapid.T) {
	b := drawBatch(t)
	before := []byte("before")
	encoded := appendBatch(before, b.session, b.sequence, b.msgs, now)
	if !bytes.HasPrefix(encoded, before) {
		t.Fatal("the buffer's bytes are gone")
	}
	if err := byKafkaGo(encoded[len(before):], b); err != nil {
		t.Fatalf("kafka-go: %v", err)
	}
	if err := byFranzGo(encoded[len(before):], b); err != nil {
		t.Fatalf("franz-go: %v", err)
	}
}

func TestBatchesAreReadBack(t *testing.T) { rapid.Check(t, batchProperty) }

func FuzzBatch(f *testing.F) { f.Fuzz(rapid.MakeFuzz(batchProperty)) }

// The sizes that batches are cut by are not below the real ones.
func TestBatchesFitTheirEstimate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := drawBatch(t)
		estimate := 0
		for _, m := range b.msgs {
			estimate += m.size()
		}
		if n := len(appendBatch(nil, b.session, b.sequence, b.msgs, now)); n > batchOverhead+estimate {
			t.Fatalf("%d bytes, estimated %d", n, estimate)
		}
	})
}

func BenchmarkAppendBatch(b *testing.B) {
	msgs := make([]Message, 100)
	for i := range msgs {
		msgs[i] = Message{
			Key: []byte("user-1"), Value: make([]byte, 8<<10), Time: now,
			Headers: schemas.CloudEvent("rebeca.generated", "0123456789abcdef", "/rebeca", now, "application/json"),
		}
	}
	b.Run("messages=100/bytes=8192", func(b *testing.B) {
		b.ReportAllocs()
		var buf []byte
		for b.Loop() {
			buf = appendBatch(buf[:0], session{1, 1}, 0, msgs, now)
		}
		b.SetBytes(int64(len(buf)))
	})
}
