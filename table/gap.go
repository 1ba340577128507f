package table

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	badger "github.com/dgraph-io/badger/v4"
)

// applied is a record that was applied.
type applied struct {
	offset      int64
	fingerprint uint64
}

// lastApplied returns the last of a batch; nil when it is empty.
func lastApplied[T any](records []T, of func(*T) applied) *applied {
	if len(records) == 0 {
		return nil
	}
	last := of(&records[len(records)-1])
	return &last
}

// Gap is a break of a log that was accepted: what lay between is not in the facts.
type Gap struct {
	Kind string    // why, as the reader names it
	From int64     // the offset that was to be read next
	To   int64     // the offset that reading went on from; below From in a log that was made anew
	At   time.Time // when it was accepted, to the millisecond
}

// gaps are those of one partition of a topic.
type gaps struct {
	total  uint64 // ever
	newest []Gap  // at most maxGaps, the oldest first
}

// maxGaps bounds what is kept of a partition's gaps; the total counts on.
const maxGaps = 32

// Skip moves the offset of a topic's partition over an accepted gap and notes it, in one transaction. From must be the stored offset, or
// anything where none is stored (ErrStale); To may be lower. Which record was applied last is no longer known then.
func (t *Table) Skip(topic string, partition int32, g Gap) error {
	if partition < 0 {
		panic(fmt.Sprintf("table: partition %d", partition))
	}
	p := t.partitions[partition%t.options.Partitions]
	p.mu.Lock()
	defer p.mu.Unlock()
	err := t.update(p, func(c *change) error {
		r, ok, err := readOffset(c.txn, topic, partition)
		if err != nil {
			return err
		}
		if ok && r.next != g.From {
			return fmt.Errorf("%w: it is %d, the gap begins at %d", ErrStale, r.next, g.From)
		}
		known, err := readGaps(c.txn, topic, partition)
		if err != nil {
			return err
		}
		known.total++
		if known.newest = append(known.newest, g); len(known.newest) > maxGaps {
			known.newest = known.newest[1:]
		}
		if err := c.set(gapsKey(topic, partition), known.encode()); err != nil {
			return err
		}
		at := reached{next: g.To, last: -1}.encode()
		// In a log that was made anew what lies below the old positions beside the topic's own is another.
		for _, suffix := range []string{buriedSuffix, answeredSuffix} {
			beside, ok, err := readOffset(c.txn, topic+suffix, partition)
			if err != nil {
				return err
			}
			if ok && beside.next > g.To {
				if err := c.set(offsetKey(topic+suffix, partition), at); err != nil {
					return err
				}
			}
		}
		return c.set(offsetKey(topic, partition), at)
	})
	if err != nil {
		return fmt.Errorf("going on behind a gap in %s[%d]: %w", topic, partition, err)
	}
	return nil
}

// LowerMarks tells the forget marks of a partition that its feedback begins anew at an offset: it is to be called before the offset goes back
// (Skip). A mark keeps the offset of its null to tell what was made before it; a life in the new log would seem to be of before.
func (t *Table) LowerMarks(partition int32, to int64) error {
	p, err := t.part(partition)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var behind []forgotten
	for name, m := range p.marks {
		if m.offset > to {
			behind = append(behind, name)
		}
	}
	for part := range slices.Chunk(behind, trimChunk) {
		if err := t.update(p, func(c *change) error { return c.lowerMarks(part, to) }); err != nil {
			return fmt.Errorf("lowering the forget marks of partition %d: %w", partition, err)
		}
	}
	return nil
}

func (c *change) lowerMarks(names []forgotten, to int64) error {
	for _, name := range names {
		m := mark{until: c.p.marks[name].until, offset: to}
		if err := c.set(forgottenKey(c.p.id, name), m.encode()); err != nil {
			return err
		}
		c.then(func() { c.p.marks[name] = m })
	}
	return nil
}

// Gaps returns the newest accepted gaps of a topic's partition, the oldest first, and how many there were ever.
func (t *Table) Gaps(topic string, partition int32) (newest []Gap, total uint64, err error) {
	err = t.db.View(func(txn *badger.Txn) error {
		g, err := readGaps(txn, topic, partition)
		newest, total = g.newest, g.total
		return err
	})
	return newest, total, err
}

func readGaps(txn *badger.Txn, topic string, partition int32) (g gaps, err error) {
	_, err = get(txn, gapsKey(topic, partition), func(b []byte) (err error) {
		g, err = decodeGaps(b)
		return err
	})
	return g, err
}

func (g gaps) encode() []byte {
	b := binary.LittleEndian.AppendUint64([]byte{valueVersion}, g.total)
	for _, gap := range g.newest {
		b = appendString(b, gap.Kind)
		for _, v := range [...]int64{gap.From, gap.To, gap.At.UnixMilli()} {
			b = binary.LittleEndian.AppendUint64(b, uint64(v))
		}
	}
	return b
}

func decodeGaps(b []byte) (g gaps, err error) {
	s := scan("gaps", b)
	g.total = s.uint64()
	for !s.bad && len(s.b) > 0 {
		gap := Gap{Kind: s.string(), From: int64(s.uint64()), To: int64(s.uint64())}
		gap.At = time.UnixMilli(int64(s.uint64())).UTC()
		g.newest = append(g.newest, gap)
	}
	return g, s.end()
}
