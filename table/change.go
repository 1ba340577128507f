package table

import (
	"errors"
	"fmt"
	"strings"

	badger "github.com/dgraph-io/badger/v4"

	"rebeca/schemas"
)

// Roles of messages: the topic they go to.
const (
	RoleGenerated  = "generated"
	RoleVectors    = "vectors"
	RoleDeadletter = "deadletter"
)

// Headers of a dead letter: why it is one and where it came from. Key and value are the original bytes, and the original's headers
// follow.
const (
	HeaderReason    = "rebeca-reason"
	HeaderMessage   = "rebeca-message"
	HeaderTopic     = "rebeca-topic"
	HeaderPartition = "rebeca-partition"
	HeaderOffset    = "rebeca-offset"
	HeaderAttempt   = "rebeca-attempt" // how often the record has been redriven; absent for none
)

// change is one transaction of a partition: what it writes, and what memory takes over once it has committed.
type change struct {
	t         *Table
	p         *partition
	txn       *badger.Txn
	seq       uint64
	large     bool // a value goes to the value log
	committed []func()
}

// update runs fn in a transaction that holds only while this table is the state's writer. When fn fails nothing has happened.
// REQUIRES: p.mu is held.
func (t *Table) update(p *partition, fn func(*change) error) error {
	if err := t.failed.Load(); err != nil {
		return *err
	}
	if t.db.IsClosed() {
		return errors.New("the state is closed")
	}
	txn := t.db.NewTransaction(true)
	defer txn.Discard()
	c := &change{t: t, p: p, txn: txn, seq: p.seq}
	items := p.items.len()
	if err := c.run(fn, items); err != nil {
		p.items.truncate(items)
		return err
	}
	if err := txn.Commit(); err != nil {
		p.items.truncate(items)
		// Badger may have written it or not: memory no longer says what is on disk.
		t.fail(fmt.Errorf("committing to the state: %w", err))
		return *t.failed.Load()
	}
	if err := t.durable(c); err != nil {
		return err
	}
	p.seq = c.seq
	for _, f := range c.committed {
		f()
	}
	if p.outbox.len() > 0 {
		p.signal()
	}
	return nil
}

// durable sees to it that what was committed reaches the disk in order. A large value lies in a file of its own, so it is synced at once.
func (t *Table) durable(c *change) error {
	if !c.large {
		t.wal.dirty.Store(true)
		return nil
	}
	if err := t.db.Sync(); err != nil {
		t.fail(fmt.Errorf("syncing a large value: %w", err))
		return *t.failed.Load()
	}
	return nil
}

func (c *change) run(fn func(*change) error, items int) error {
	epoch, err := readEpoch(c.txn)
	if err != nil {
		return err
	}
	if epoch != c.t.epoch {
		return fmt.Errorf("%w: epoch %d, ours is %d", ErrFenced, epoch, c.t.epoch)
	}
	if err := fn(c); err != nil {
		return err
	}
	if c.seq != c.p.seq {
		if err := c.set(seqKey(c.p.id), encodeUint64(c.seq)); err != nil {
			return err
		}
	}
	for i, id := range c.p.items.names()[items:] {
		if err := c.set(internedKey(c.p.id, uint32(items+i)), []byte(id)); err != nil {
			return err
		}
	}
	return nil
}

func (p *partition) signal() {
	select {
	case p.notify <- struct{}{}:
	default: // a signal is there already
	}
}

func (c *change) set(key, value []byte) error {
	c.large = c.large || len(value) >= valueThreshold
	if err := c.txn.Set(key, value); err != nil {
		return fmt.Errorf("writing %.40q: %w", key, err)
	}
	return nil
}

func (c *change) delete(key []byte) error {
	if err := c.txn.Delete(key); err != nil {
		return fmt.Errorf("deleting %.40q: %w", key, err)
	}
	return nil
}

// then runs f after the commit.
func (c *change) then(f func()) { c.committed = append(c.committed, f) }

// next gives out a sequence number; the first is 1.
func (c *change) next() uint64 {
	c.seq++
	return c.seq
}

// advance moves the offset of a topic's partition. first is the lowest offset of the records applied, or next when there are none.
func (c *change) advance(topic string, partition int32, first, next int64, last *applied) error {
	at, err := c.position(topic, partition, first)
	if err != nil {
		return err
	}
	return c.move(topic, partition, at, next, last)
}

// position returns how far a topic's partition is read, which must not be above first.
func (c *change) position(topic string, partition int32, first int64) (reached, error) {
	r, ok, err := readOffset(c.txn, topic, partition)
	if err != nil {
		return r, err
	}
	if ok && r.next > first {
		return r, fmt.Errorf("%w: %s[%d] is at %d, the records begin at %d", ErrStale, topic, partition, r.next, first)
	}
	if !ok {
		r.last = -1
	}
	return r, nil
}

// move writes a position on from r.
func (c *change) move(topic string, partition int32, r reached, next int64, last *applied) error {
	if last != nil {
		r.fingerprint, r.last = last.fingerprint, last.offset
	}
	r.next = next
	return c.set(offsetKey(topic, partition), r.encode())
}

// send puts a message in the outbox.
func (c *change) send(seq uint64, index int, m *Message) error { return c.sendFor(nil, seq, index, m) }

// sendFor puts a message in the outbox with the encoded intent that it answers.
func (c *change) sendFor(cause []byte, seq uint64, index int, m *Message) error {
	if c.t.options.Silent {
		return nil
	}
	if err := c.set(messageKey(c.p.id, seq, index), encodeMessage(m, cause)); err != nil {
		return err
	}
	c.then(func() {
		c.p.outbox.add(seq)
		c.p.messages.Add(1)
	})
	return nil
}

// bury sends a record to the dead letters, unless it is there.
func (c *change) bury(source schemas.Source, key, value []byte, headers []schemas.Header, r *schemas.Rejection) error {
	m := Message{Role: RoleDeadletter, Key: key, Value: value, Headers: []schemas.Header{
		{Key: HeaderReason, Value: []byte(r.Reason)},
		{Key: HeaderMessage, Value: []byte(r.Message)},
		{Key: HeaderTopic, Value: []byte(source.Topic)},
		{Key: HeaderPartition, Value: fmt.Append(nil, source.Partition)},
		{Key: HeaderOffset, Value: fmt.Append(nil, source.Offset)},
	}}
	if r.Attempts > 0 {
		m.Headers = append(m.Headers, schemas.Header{Key: HeaderAttempt, Value: fmt.Append(nil, r.Attempts)})
	}
	m.Headers = append(m.Headers, theirs(headers)...)
	if there, err := c.awaited(&m); err != nil || there {
		return err
	}
	return c.send(c.next(), 0, &m)
}

// ownHeaders begins the names of our headers, of which a dead letter has only those that we gave it.
const ownHeaders = "rebeca-"

// maxHeaders is far more headers than a record has; what follows is cut from a dead letter.
const maxHeaders = 1000

// theirs returns the headers that a producer gave a record: they may say how to read it, as CloudEvents do.
func theirs(headers []schemas.Header) (out []schemas.Header) {
	for _, h := range headers {
		if !strings.HasPrefix(h.Key, ownHeaders) && len(out) < maxHeaders {
			out = append(out, h)
		}
	}
	return out
}

// buryCost bounds what bury adds to a transaction.
func buryCost(key, value []byte, headers []schemas.Header, r *schemas.Rejection) int64 {
	const rest = 512 // bounds keys, place and lengths
	n := len(key) + len(value) + len(r.Message)
	for _, h := range headers {
		n += len(h.Key) + len(h.Value) + 8
	}
	if n >= valueThreshold { // without the rest: what is certain to go to the value log, not what may
		return rest
	}
	return int64(n) + rest
}

// admit writes an intent.
func (c *change) admit(in Intent, done int) error {
	if err := c.set(intentKey(c.p.id, in.Seq), encodeIntent(&in, done)); err != nil {
		return err
	}
	c.then(func() {
		if c.p.waiting.add(in, done) {
			c.p.intents.Add(1)
		}
	})
	return nil
}

// dismiss deletes an intent.
func (c *change) dismiss(seq uint64) error {
	if err := c.delete(intentKey(c.p.id, seq)); err != nil {
		return err
	}
	c.then(func() {
		if c.p.waiting.remove(seq) {
			c.p.intents.Add(-1)
		}
	})
	return nil
}

// fit returns how many of the records, at least one of them, cost no more than the budget together.
func fit[R any](records []R, budget int64, cost func(*R) int64) int {
	spent := int64(0)
	for i := range records {
		if spent += cost(&records[i]); spent > budget && i > 0 {
			return i
		}
	}
	return len(records)
}

func checkOffsets[R any](records []R, next int64, offset func(*R) int64) error {
	last := int64(-1)
	for i := range records {
		o := offset(&records[i])
		if o <= last {
			return fmt.Errorf("offset %d follows %d", o, last)
		}
		last = o
	}
	if next <= last {
		return fmt.Errorf("next offset %d is not above %d", next, last)
	}
	return nil
}
