package consumer

import (
	"context"
	"hash/crc32"
	"time"

	"rebeca/schemas"
)

// Record is one record of a log. Its bytes belong to the receiver for ever; records of one fetch share a buffer.
type Record struct {
	Topic     string
	Partition int32
	Offset    int64
	Time      time.Time // the producer's, to the millisecond
	Key       []byte    // nil when the record has none
	Value     []byte    // nil for a null value, empty for an empty one
	Headers   []schemas.Header
}

// Fingerprint tells whether a log still holds the same record at an offset: 64 bits of key, time, and whether and what
// the value is. It is stored, so it never changes.
func (r Record) Fingerprint() uint64 {
	table := crc32.MakeTable(crc32.Castagnoli)
	h := uint64(crc32.Checksum(r.Key, table))<<32 | uint64(crc32.Checksum(r.Value, table))
	h ^= uint64(r.Time.UnixMilli()) * 0x9e3779b97f4a7c15
	if r.Value == nil {
		h = ^h
	}
	// Finalizer of MurmurHash3, so that small differences of time reach all bits.
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// Handler takes the records of one partition in the order of their offsets.
type Handler interface {
	// Handle is called with records whose offsets rise, from one goroutine a partition, and with the offset to continue
	// from once they are handled. records is empty when only transaction markers, aborted records or compacted ranges
	// were passed: next is then higher than before and should be stored all the same. An error ends the partition.
	Handle(ctx context.Context, records []Record, next int64) error
}

// arena hands out copies of bytes from large blocks: one allocation for many small records.
type arena struct{ free []byte }

const arenaBlock = 64 << 10

func (a *arena) take(n int) []byte {
	if n > len(a.free) {
		a.free = make([]byte, max(n, arenaBlock))
	}
	b := a.free[:n:n]
	a.free = a.free[n:]
	return b
}
