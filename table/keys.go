package table

import (
	"encoding/binary"
	"fmt"

	"crypto/sha256"
)

// Prefixes of the keys. No scan of one meets a key of another.
const (
	prefixRow      = "u/" // u/<partition>/<user> row
	prefixVector   = "v/" // v/<partition>/<user> embedding of the user
	prefixMemory   = "g/" // g/<partition>/<len user><user><part> what was generated for and asked by the user
	prefixQueue    = "q/" // q/<partition>/i<seq> intents, q/<partition>/m<seq><index> outbox
	prefixOffset   = "o/" // o/<partition>/<topic> next offset and fingerprint
	prefixGaps     = "a/" // a/<partition>/<topic> gaps of the log that were accepted
	prefixItem     = "i/" // i/<item> catalogue
	prefixInterned = "n/" // n/<partition>/<number> interned item ids
	prefixForgot   = "f/" // f/<partition>/<hash of user> forget marks
	prefixSeq      = "s/" // s/<partition> next sequence number
	prefixBuried   = "d/" // d/<partition>/<hash> dead letters found on their topic before their record was folded
	prefixErase    = "e/" // e/<partition>/<hash of user> forgotten users that the files may still hold something of
	prefixClaim    = "c/" // c/<partition>/ the state's claim to the partition
	prefixObject   = "b/" // b/<partition>/o<hash of user><sha-256> pictures in the bucket, b/<partition>/x<sha-256> those to be deleted from it
	prefixMeta     = "m/" // m/meta, m/epoch, m/fill
)

var (
	keyMeta  = []byte("m/meta")
	keyEpoch = []byte("m/epoch")
	keyFill  = []byte("m/fill") // zeros, for moments: see flush
)

// factPrefixes are the prefixes that make up the facts, in key order.
func factPrefixes() []string { return []string{prefixForgot, prefixInterned, prefixRow} }

// partitionKey returns prefix, the partition as four big-endian bytes, and a slash.
func partitionKey(prefix string, partition int32, room int) []byte {
	k := make([]byte, 0, len(prefix)+5+room)
	k = append(k, prefix...)
	k = binary.BigEndian.AppendUint32(k, uint32(partition))
	return append(k, '/')
}

func userKey(prefix string, partition int32, user string) []byte {
	return append(partitionKey(prefix, partition, len(user)), user...)
}

// splitUserKey takes a row's or vector's key apart.
func splitUserKey(key []byte) (partition int32, user string, err error) {
	if len(key) < 7 || key[6] != '/' {
		return 0, "", fmt.Errorf("%w: key %q", ErrCorrupt, key)
	}
	return int32(binary.BigEndian.Uint32(key[2:])), string(key[7:]), nil
}

func offsetKey(topic string, partition int32) []byte {
	return append(partitionKey(prefixOffset, partition, len(topic)), topic...)
}

// partitionOf returns the partition that a key belongs to; divided is false for the catalogue and for what the state is.
func partitionOf(key []byte) (partition int32, divided bool) {
	if len(key) < 7 || key[1] != '/' || key[6] != '/' {
		return 0, false
	}
	switch string(key[:2]) {
	case prefixItem, prefixMeta:
		return 0, false
	}
	return int32(binary.BigEndian.Uint32(key[2:])), true
}

func claimKey(partition int32) []byte { return partitionKey(prefixClaim, partition, 0) }

func gapsKey(topic string, partition int32) []byte {
	return append(partitionKey(prefixGaps, partition, len(topic)), topic...)
}

func itemKey(id string) []byte { return append([]byte(prefixItem), id...) }

func internedKey(partition int32, number uint32) []byte {
	return binary.BigEndian.AppendUint32(partitionKey(prefixInterned, partition, 4), number)
}

func seqKey(partition int32) []byte { return partitionKey(prefixSeq, partition, 0) }

func intentKey(partition int32, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(append(partitionKey(prefixQueue, partition, 9), 'i'), seq)
}

func messageKey(partition int32, seq uint64, index int) []byte {
	k := binary.BigEndian.AppendUint64(append(partitionKey(prefixQueue, partition, 13), 'm'), seq)
	return binary.BigEndian.AppendUint32(k, uint32(index))
}

// queuePrefix returns the keys of a partition's intents ('i') or messages ('m').
func queuePrefix(partition int32, part byte) []byte {
	return append(partitionKey(prefixQueue, partition, 1), part)
}

// splitMessageKey takes an outbox key apart.
func splitMessageKey(key []byte) (partition int32, seq uint64, index int, err error) {
	if len(key) != 20 || key[7] != 'm' {
		return 0, 0, 0, fmt.Errorf("%w: key %q", ErrCorrupt, key)
	}
	return int32(binary.BigEndian.Uint32(key[2:])), binary.BigEndian.Uint64(key[8:]), int(binary.BigEndian.Uint32(key[16:])), nil
}

// forgotten is the name of a forget mark: the first half of the SHA-256 of the user id.
type forgotten [16]byte

func forgottenOf(user []byte) forgotten {
	sum := sha256.Sum256(user)
	return forgotten(sum[:16])
}

func forgottenKey(partition int32, f forgotten) []byte {
	return append(partitionKey(prefixForgot, partition, len(f)), f[:]...)
}

func eraseKey(partition int32, f forgotten) []byte {
	return append(partitionKey(prefixErase, partition, len(f)), f[:]...)
}

// buried is the name of a dead letter: the first half of the SHA-256 of its place, key and value, each after its length (u32 LE).
type buried [16]byte

func buriedOf(p place, key, value []byte) buried {
	h := sha256.New()
	for _, part := range [...][]byte{p.topic, p.partition, p.offset, key, value} {
		h.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(part))))
		h.Write(part)
	}
	return buried(h.Sum(nil)[:16])
}

func buriedKey(partition int32, b buried) []byte {
	return append(partitionKey(prefixBuried, partition, len(b)), b[:]...)
}

// memoryKey returns the keys of a user's generated memory; part is one of the constants of memory.go. The user's length comes first, so
// that no user's keys begin with another's.
func memoryKey(partition int32, user string, part string) []byte {
	k := partitionKey(prefixMemory, partition, 2+len(user)+len(part))
	k = binary.BigEndian.AppendUint16(k, uint16(len(user)))
	return append(append(k, user...), part...)
}
