package table

import (
	"errors"
	"fmt"
	"slices"

	badger "github.com/dgraph-io/badger/v4"

	"rebeca/schemas"
)

// Message is a record to be produced. The topic follows from the role, the partition from the key.
type Message struct {
	Role    string // RoleGenerated, RoleVectors or RoleDeadletter
	Key     []byte
	Value   []byte // nil deletes
	Headers []schemas.Header
}

// Outgoing is a message in its place: by Seq, then Index.
type Outgoing struct {
	Seq   uint64
	Index int
	Message
}

// Bounds of what Outbox returns at once.
const outboxBytes = 8 << 20

// outboxIndex counts the messages that are there by sequence number, so that reading starts at the first of them and not at the
// tombstones of those sent before.
type outboxIndex struct {
	counts map[uint64]int
	order  []uint64 // rising; some may have no message any more, but not the first
	total  int
}

func newOutboxIndex() outboxIndex { return outboxIndex{counts: map[uint64]int{}} }

func (o *outboxIndex) add(seq uint64) {
	if o.counts[seq] == 0 {
		if at, found := slices.BinarySearch(o.order, seq); !found {
			o.order = slices.Insert(o.order, at, seq)
		}
	}
	o.counts[seq]++
	o.total++
}

func (o *outboxIndex) remove(seq uint64) {
	if o.counts[seq] == 0 {
		return
	}
	o.total--
	if o.counts[seq]--; o.counts[seq] > 0 {
		return
	}
	delete(o.counts, seq)
	gone := 0
	for gone < len(o.order) && o.counts[o.order[gone]] == 0 {
		gone++
	}
	o.order = o.order[gone:]
}

func (o *outboxIndex) len() int { return o.total }

// head returns the lowest sequence number that has a message, 0 when there is none.
func (o *outboxIndex) head() uint64 {
	if len(o.order) == 0 {
		return 0
	}
	return o.order[0]
}

// Unsent returns how many messages the outbox of a partition holds.
func (t *Table) Unsent(partition int32) int {
	p, err := t.part(partition)
	if err != nil {
		panic("table: " + err.Error())
	}
	return int(p.messages.Load())
}

// Outbox returns up to limit messages of a partition with sequence numbers above after, by (Seq, Index), and stops early near 8 MiB. A
// call may end within a sequence number, and a completion may put messages below ones already read: a reader that trims what it has sent
// should always ask from 0.
func (t *Table) Outbox(partition int32, after uint64, limit int) ([]Outgoing, error) {
	if limit <= 0 {
		return nil, nil
	}
	var out []Outgoing
	size := 0
	err := t.scanUnsent(partition, after, func(o Outgoing) error {
		if size += len(o.Value); len(out) > 0 && size > outboxBytes {
			return errStop
		}
		if out = append(out, o); len(out) >= limit {
			return errStop
		}
		return nil
	})
	return out, err
}

// EachUnsent calls fn for every message of a partition's outbox at one moment, by (Seq, Index); an error of fn ends it and is returned.
func (t *Table) EachUnsent(partition int32, fn func(Outgoing) error) error {
	return t.scanUnsent(partition, 0, fn)
}

func (t *Table) scanUnsent(partition int32, after uint64, fn func(Outgoing) error) error {
	p, err := t.part(partition)
	if err != nil {
		return err
	}
	p.mu.Lock()
	head := p.outbox.head()
	p.mu.Unlock()
	if head == 0 {
		return nil
	}
	err = t.db.View(func(txn *badger.Txn) error {
		start := messageKey(partition, max(head, after+1), 0)
		return scanFrom(txn, queuePrefix(partition, 'm'), start, func(item *badger.Item) error {
			o, err := readOutgoing(item)
			if err != nil {
				return err
			}
			return fn(o)
		})
	})
	if err != nil && !errors.Is(err, errStop) {
		return fmt.Errorf("reading the outbox of partition %d: %w", partition, err)
	}
	return nil
}

func readOutgoing(item *badger.Item) (Outgoing, error) {
	_, seq, index, err := splitMessageKey(item.Key())
	if err != nil {
		return Outgoing{}, err
	}
	o := Outgoing{Seq: seq, Index: index}
	err = item.Value(func(b []byte) (err error) {
		o.Message, err = decodeMessage(b)
		return err
	})
	return o, err
}

// scanFrom calls fn for the items of a prefix from a key on, reading values only as fn asks for them.
func scanFrom(txn *badger.Txn, prefix, start []byte, fn func(*badger.Item) error) error {
	o := badger.DefaultIteratorOptions
	o.Prefix, o.PrefetchValues = prefix, false
	it := txn.NewIterator(o)
	defer it.Close()
	for it.Seek(start); it.Valid(); it.Next() {
		if err := fn(it.Item()); err != nil {
			return err
		}
	}
	return nil
}

// Trim deletes messages that the broker has acknowledged and notes the position behind them in their topic; the zero Position notes
// nothing. Those already gone are passed over; an image that left the outbox while it was being sent, because its user was forgotten, is
// known as published from then on.
func (t *Table) Trim(partition int32, out []Outgoing, behind Position) error {
	p, err := t.part(partition)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	gone, err := t.recalledOf(p, out)
	if err == nil && len(gone) > 0 { // before the position passes them, so that a crash cannot leave them unknown
		_, err = t.found(p, gone, Position{})
	}
	if err == nil {
		err = t.trim(p, out, behind)
	}
	if err != nil {
		return fmt.Errorf("trimming the outbox of partition %d: %w", partition, err)
	}
	return nil
}

// recalledOf returns the images among out that the outbox no longer has.
// REQUIRES: p.mu is held.
func (t *Table) recalledOf(p *partition, out []Outgoing) (gone []Message, err error) {
	err = t.db.View(func(txn *badger.Txn) error {
		for _, o := range out {
			if o.Role != RoleGenerated {
				continue
			}
			found, err := get(txn, messageKey(p.id, o.Seq, o.Index), func([]byte) error { return nil })
			if err != nil {
				return err
			}
			if !found {
				gone = append(gone, o.Message)
			}
		}
		return nil
	})
	return gone, err
}

// trim deletes messages and notes the position behind them; those that are not there are passed over.
// REQUIRES: p.mu is held.
func (t *Table) trim(p *partition, out []Outgoing, behind Position) error {
	for len(out) > 0 {
		chunk := out[:min(len(out), trimChunk)]
		out = out[len(chunk):]
		if err := t.update(p, func(c *change) error {
			for _, o := range chunk {
				key := messageKey(p.id, o.Seq, o.Index)
				found, err := get(c.txn, key, func([]byte) error { return nil })
				if err != nil {
					return err
				}
				if !found {
					continue
				}
				if err := c.unsend(key, o.Seq); err != nil {
					return err
				}
			}
			if len(out) > 0 {
				return nil // the position says that all below it is trimmed
			}
			return c.reach(behind)
		}); err != nil {
			return err
		}
	}
	return nil
}

// trimChunk keeps a trim well within a transaction.
const trimChunk = 5000

// unsend deletes a message that is there.
func (c *change) unsend(key []byte, seq uint64) error {
	if err := c.delete(key); err != nil {
		return err
	}
	c.then(func() {
		c.p.outbox.remove(seq)
		c.p.messages.Add(-1)
	})
	return nil
}

// Notify returns a channel of capacity 1 that is signalled after every change that leaves messages in the partition's outbox, and at Open
// if some are there.
func (t *Table) Notify(partition int32) <-chan struct{} {
	p, err := t.part(partition)
	if err != nil {
		panic("table: " + err.Error())
	}
	return p.notify
}
