package consumer

import (
	"encoding/binary"
	"hash/crc32"
	"math"
	"time"
)

// Offsets within an encoded record batch (Kafka's message format v2), counted from its first byte.
const (
	batchLengthAt = 8  // of what follows the length
	batchCRCAt    = 17 // of what follows the checksum
	batchBodyAt   = 21
	batchOverhead = 4 + 61 // size and head
)

// transactional is the attribute bit of a batch that belongs to a transaction. No other bit is set: nothing is compressed, and the
// times are the producer's.
const transactional = 1 << 4

// session is what a broker knows a producer by.
type session struct {
	id    int64
	epoch int16
}

// appendBatch appends the bytes of one transactional record batch of format v2 to dst, behind their length in four bytes, as a produce
// request carries them. sequence is the number of the first message in the session, from 0 for each partition. A message without a time
// gets now. There is at least one message.
func appendBatch(dst []byte, s session, sequence int32, msgs []Message, now time.Time) []byte {
	first, latest := int64(0), int64(math.MinInt64)
	for i, m := range msgs {
		at := millis(m.Time, now)
		if i == 0 {
			first = at
		}
		latest = max(latest, at)
	}
	start := len(dst) + 4
	dst = append(dst, make([]byte, 4+12)...)                 // size, base offset, length
	dst = binary.BigEndian.AppendUint32(dst, math.MaxUint32) // leader epoch: the broker's to fill
	dst = append(dst, 2)                                     // format
	dst = append(dst, 0, 0, 0, 0)                            // checksum
	dst = binary.BigEndian.AppendUint16(dst, transactional)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(msgs)-1)) // last offset, from the base
	dst = binary.BigEndian.AppendUint64(dst, uint64(first))
	dst = binary.BigEndian.AppendUint64(dst, uint64(latest))
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.id))
	dst = binary.BigEndian.AppendUint16(dst, uint16(s.epoch))
	dst = binary.BigEndian.AppendUint32(dst, uint32(sequence))
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(msgs)))
	for i, m := range msgs {
		dst = appendRecord(dst, m, millis(m.Time, now)-first, int64(i))
	}
	batch := dst[start:]
	binary.BigEndian.PutUint32(dst[start-4:], uint32(len(batch)))
	binary.BigEndian.PutUint32(batch[batchLengthAt:], uint32(len(batch)-batchLengthAt-4))
	binary.BigEndian.PutUint32(batch[batchCRCAt:], crc32.Checksum(batch[batchBodyAt:], crc32.MakeTable(crc32.Castagnoli)))
	return dst
}

func millis(t, now time.Time) int64 {
	if t.IsZero() {
		t = now
	}
	return t.UnixMilli()
}

// appendRecord appends one record: all numbers are zigzag varints, null is a length of -1.
func appendRecord(dst []byte, m Message, sinceFirst, offset int64) []byte {
	dst = binary.AppendVarint(dst, int64(recordLength(m, sinceFirst, offset)))
	dst = append(dst, 0) // attributes
	dst = binary.AppendVarint(dst, sinceFirst)
	dst = binary.AppendVarint(dst, offset)
	dst = appendNullable(dst, m.Key)
	dst = appendNullable(dst, m.Value)
	dst = binary.AppendVarint(dst, int64(len(m.Headers)))
	for _, h := range m.Headers {
		dst = binary.AppendVarint(dst, int64(len(h.Key)))
		dst = append(dst, h.Key...)
		dst = appendNullable(dst, h.Value)
	}
	return dst
}

func recordLength(m Message, sinceFirst, offset int64) int {
	n := 1 + varintLength(sinceFirst) + varintLength(offset) + nullableLength(m.Key) + nullableLength(m.Value) + varintLength(int64(len(m.Headers)))
	for _, h := range m.Headers {
		n += varintLength(int64(len(h.Key))) + len(h.Key) + nullableLength(h.Value)
	}
	return n
}

func appendNullable(dst, b []byte) []byte {
	if b == nil {
		return binary.AppendVarint(dst, -1)
	}
	return append(binary.AppendVarint(dst, int64(len(b))), b...)
}

func nullableLength(b []byte) int {
	if b == nil {
		return 1
	}
	return varintLength(int64(len(b))) + len(b)
}

func varintLength(v int64) int {
	n, u := 1, uint64(v)<<1^uint64(v>>63)
	for ; u >= 0x80; u >>= 7 {
		n++
	}
	return n
}
