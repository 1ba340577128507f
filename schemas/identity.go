package schemas

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// ID returns the id of the index-th output of a record: 32 hex digits, the first half of SHA-256 over topic, a zero
// byte, and partition (u32), offset (u64), index (u64) big-endian. The same event makes the same id for ever.
func ID(source Source, index int) string {
	b := make([]byte, 0, len(source.Topic)+21)
	b = append(b, source.Topic...)
	b = append(b, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(source.Partition))
	b = binary.BigEndian.AppendUint64(b, uint64(source.Offset))
	b = binary.BigEndian.AppendUint64(b, uint64(index))
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// EventHash returns the 64 bits by which resends are known and samples of events are drawn: the first 8 bytes of
// SHA-256 over the id, big-endian.
func EventHash(eventID string) uint64 {
	var short [MaxID]byte // keeps the copy off the heap
	sum := sha256.Sum256(append(short[:0], eventID...))
	return binary.BigEndian.Uint64(sum[:8])
}

// Seed derives a seed in 0..2^53-1 from an output's id, so that none comes from a clock.
func Seed(id string) uint64 {
	sum := sha256.Sum256([]byte("seed\x00" + id))
	return binary.BigEndian.Uint64(sum[:8]) >> 11
}

// Partition returns the partition of a key as Java's default partitioner does: murmur2, sign cut off, modulo.
// It panics when partitions < 1.
func Partition(key []byte, partitions int) int32 {
	if partitions < 1 {
		panic("schemas: partitioning over no partitions")
	}
	return int32(murmur2(key)&0x7fffffff) % int32(partitions)
}

// murmur2 is the 32-bit hash of Austin Appleby with the seed of Kafka's clients.
func murmur2(data []byte) uint32 {
	const (
		seed = 0x9747b28c
		m    = 0x5bd1e995
		r    = 24
	)
	h := seed ^ uint32(len(data))
	for ; len(data) >= 4; data = data[4:] {
		k := binary.LittleEndian.Uint32(data) * m
		k ^= k >> r
		h = h*m ^ k*m
	}
	switch len(data) {
	case 3:
		h ^= uint32(data[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(data[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(data[0])) * m
	}
	h = (h ^ h>>13) * m
	return h ^ h>>15
}

// Header is one header of a Kafka record.
type Header struct {
	Key   string
	Value []byte
}

// CandidateSeed is the seed of the k-th candidate for an image, from 0; the first has the image's own.
func CandidateSeed(seed uint64, k int) uint64 {
	if k == 0 {
		return seed
	}
	return Seed(fmt.Sprintf("%d/candidate/%d", seed, k))
}
