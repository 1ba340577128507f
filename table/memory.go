package table

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	badger "github.com/dgraph-io/badger/v4"

	"rebeca/schemas"
)

// Memory is one thing that was generated for a user.
type Memory struct {
	ID        string
	Embedding []float32 // [Dim], in the catalogue's scale
	Record    []byte    // JSON, as published
	Source    schemas.Source
	Object    *Object   // its picture in the bucket; nil where that is inline, or none. It is read back from nowhere
	CausedAt  time.Time // Kafka timestamp of the cause, UTC, in milliseconds; zero for unknown
}

// Limits of what is remembered of a user; the oldest goes.
const (
	maxMemories = 1000
	maxRequests = 128
)

// Parts of a user's memory, behind memoryKey.
const (
	memoryNext     = "h" // how many were ever remembered
	memorySlot     = "s" // + slot (u32): record of the memory whose number is the slot, modulo maxMemories
	memoryID       = "i" // + id: number and embedding
	memoryRequests = "r" // request ids, as hashes
)

func slotKey(partition int32, user string, number uint64) []byte {
	return binary.BigEndian.AppendUint32(memoryKey(partition, user, memorySlot), uint32(number%maxMemories))
}

// remember enters a memory as the user's newest in the slot of the oldest. One that is remembered already stays as it is.
func (c *change) remember(user string, m *Memory) error {
	_, known, err := memoryNumber(c.txn, c.p.id, user, m.ID)
	if err != nil || known {
		return err
	}
	number, err := memories(c.txn, c.p.id, user)
	if err != nil {
		return err
	}
	slot := slotKey(c.p.id, user, number)
	if number >= maxMemories {
		var oldest Memory
		if _, err := get(c.txn, slot, func(b []byte) (err error) {
			oldest, err = decodeMemory(b)
			return err
		}); err != nil {
			return err
		}
		if err := c.delete(memoryKey(c.p.id, user, memoryID+oldest.ID)); err != nil {
			return err
		}
		if err := c.outliveMemory(&oldest); err != nil {
			return err
		}
	}
	if err := c.setMemory(user, number, m); err != nil {
		return err
	}
	return c.set(memoryKey(c.p.id, user, memoryNext), encodeUint64(number+1))
}

func (c *change) setMemory(user string, number uint64, m *Memory) error {
	if err := c.set(slotKey(c.p.id, user, number), encodeMemory(m)); err != nil {
		return err
	}
	return c.set(memoryKey(c.p.id, user, memoryID+m.ID), encodeMemoryID(number, m.Embedding))
}

// memoryNumber returns the number of a memory that is remembered.
func memoryNumber(txn *badger.Txn, partition int32, user, id string) (number uint64, known bool, err error) {
	known, err = get(txn, memoryKey(partition, user, memoryID+id), func(b []byte) (err error) {
		number, _, err = decodeMemoryID(b)
		return err
	})
	return number, known, err
}

// memories returns how many memories a user ever had.
func memories(txn *badger.Txn, partition int32, user string) (n uint64, err error) {
	_, err = get(txn, memoryKey(partition, user, memoryNext), func(b []byte) (err error) {
		n, err = decodeUint64("memory count", b)
		return err
	})
	return n, err
}

// eraseMemory deletes a user's memory and remembered requests.
func (c *change) eraseMemory(user string) error {
	var keys [][]byte
	prefix := memoryKey(c.p.id, user, "")
	if err := scanFrom(c.txn, prefix, prefix, func(item *badger.Item) error {
		keys = append(keys, item.KeyCopy(nil))
		return nil
	}); err != nil {
		return err
	}
	for _, key := range keys {
		if err := c.delete(key); err != nil {
			return err
		}
	}
	return nil
}

// GeneratedOf returns up to limit of what was generated for a user, the newest first; the newest 1,000 are kept.
func (t *Table) GeneratedOf(user string, limit int) ([]Memory, error) {
	var out []Memory
	err := t.remembered(user, func(m Memory) bool {
		if len(out) < limit {
			out = append(out, m)
		}
		return len(out) < limit
	})
	if err != nil {
		return nil, fmt.Errorf("reading what was generated for %q: %w", user, err)
	}
	return out, nil
}

// Given returns the embeddings of up to limit things that were generated for a user, the newest first, whose causes are not older than
// since; a cause of unknown age counts as new. What the record of except caused is left out, so that an intent that is worked on again
// finds what it found at first.
func (t *Table) Given(user string, since time.Time, limit int, except schemas.Source) (out [][]float32, err error) {
	err = t.remembered(user, func(m Memory) bool {
		young := m.CausedAt.IsZero() || !m.CausedAt.Before(since)
		if len(out) < limit && m.Source != except && young && len(m.Embedding) == t.options.Dim {
			out = append(out, m.Embedding)
		}
		return len(out) < limit
	})
	if err != nil {
		return nil, fmt.Errorf("reading what %q was given: %w", user, err)
	}
	return out, nil
}

// remembered calls f with what is kept of what was generated for a user, the newest first, until it returns false.
func (t *Table) remembered(user string, f func(Memory) bool) error {
	if len(user) > schemas.MaxID {
		return nil
	}
	return t.db.View(func(txn *badger.Txn) error {
		partition := t.userPartition(user)
		n, err := memories(txn, partition, user)
		if err != nil {
			return err
		}
		for k := range min(n, maxMemories) {
			m, err := readMemory(txn, partition, user, n-1-k)
			if err != nil || !f(m) {
				return err
			}
		}
		return nil
	})
}

func readMemory(txn *badger.Txn, partition int32, user string, number uint64) (m Memory, err error) {
	found, err := get(txn, slotKey(partition, user, number), func(b []byte) (err error) {
		m, err = decodeMemory(b)
		return err
	})
	if err != nil {
		return m, err
	}
	if found {
		found, err = get(txn, memoryKey(partition, user, memoryID+m.ID), func(b []byte) (err error) {
			_, m.Embedding, err = decodeMemoryID(b)
			return err
		})
	}
	if err == nil && !found {
		err = fmt.Errorf("%w: memory %d of %q is missing", ErrCorrupt, number, user)
	}
	return m, err
}

// Resolve returns the embedding of an item: the catalogue's, else that of an image generated for this user. It is read only. ok is false
// for an item of neither.
func (t *Table) Resolve(user, itemID string) (embedding []float32, ok bool) {
	if e, ok := t.catalogue.Get(itemID); ok {
		return e, true
	}
	if len(user) > schemas.MaxID || len(itemID) > schemas.MaxID {
		return nil, false
	}
	err := t.db.View(func(txn *badger.Txn) (err error) {
		ok, err = get(txn, memoryKey(t.userPartition(user), user, memoryID+itemID), func(b []byte) (err error) {
			_, embedding, err = decodeMemoryID(b)
			return err
		})
		return err
	})
	if err != nil && !errors.Is(err, badger.ErrDBClosed) {
		t.options.Logger.Error("resolving a generated item", "item", itemID, "err", err)
	}
	return embedding, ok && err == nil && len(embedding) == t.options.Dim
}

// asked reports whether a user's request id is remembered, and remembers it if not.
func (c *change) asked(user, requestID string) (before bool, err error) {
	key, hash := memoryKey(c.p.id, user, memoryRequests), schemas.EventHash(requestID)
	var hashes []uint64
	if _, err := get(c.txn, key, func(b []byte) (err error) {
		hashes, err = decodeHashes(b)
		return err
	}); err != nil {
		return false, err
	}
	for _, h := range hashes {
		if h == hash {
			return true, nil
		}
	}
	hashes = append(hashes, hash)
	return false, c.set(key, encodeHashes(hashes[max(0, len(hashes)-maxRequests):]))
}

func encodeMemory(m *Memory) []byte {
	b := make([]byte, 0, 32+len(m.ID)+len(m.Source.Topic)+len(m.Record))
	b = appendString(append(b, valueVersion), m.ID)
	b = appendBytes(appendSource(b, m.Source), m.Record)
	if !m.CausedAt.IsZero() { // what was remembered before this was known has none
		b = binary.LittleEndian.AppendUint64(b, uint64(m.CausedAt.UnixMilli()))
	}
	return b
}

func decodeMemory(b []byte) (Memory, error) {
	s := scan("memory", b)
	m := Memory{ID: s.string(), Source: s.source(), Record: s.bytes()}
	if len(s.b) > 0 && !s.bad {
		m.CausedAt = time.UnixMilli(int64(s.uint64())).UTC()
		s.bad = s.bad || m.CausedAt.IsZero() // none is not written
	}
	return m, s.end()
}

func encodeMemoryID(number uint64, embedding []float32) []byte {
	return appendFloats(encodeUint64(number), embedding)
}

func decodeMemoryID(b []byte) (number uint64, embedding []float32, err error) {
	s := scan("memory id", b)
	number, embedding = s.uint64(), s.floats()
	return number, embedding, s.end()
}

func encodeHashes(hashes []uint64) []byte {
	b := binary.LittleEndian.AppendUint16([]byte{valueVersion}, uint16(len(hashes)))
	for _, h := range hashes {
		b = binary.LittleEndian.AppendUint64(b, h)
	}
	return b
}

func decodeHashes(b []byte) ([]uint64, error) {
	s := scan("request ids", b)
	n := int(s.uint16())
	var out []uint64
	for range min(n, len(s.b)/8) {
		out = append(out, s.uint64())
	}
	s.bad = s.bad || len(out) != n
	return out, s.end()
}
