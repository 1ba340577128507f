package table

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	badger "github.com/dgraph-io/badger/v4"

	"rebeca/schemas"
)

// Claim is what a state knows of its own right to a partition. Of two states that claim the same one the higher epoch holds.
type Claim struct {
	Epoch   uint64    // rises with every change of the owner; the first is 1
	Since   time.Time // when this state took it
	Partial bool      // its keys are being replaced by a restore that has not ended: nothing may use them
}

// claimVersion is the first byte of a claim's value: version, flags u8 (1: partial), epoch u64, since i64 (ms).
const claimVersion = 1

func (c Claim) encode() []byte {
	b := []byte{claimVersion, 0}
	if c.Partial {
		b[1] = 1
	}
	b = binary.LittleEndian.AppendUint64(b, c.Epoch)
	return binary.LittleEndian.AppendUint64(b, uint64(c.Since.UnixMilli()))
}

func decodeClaim(b []byte) (Claim, error) {
	if len(b) != 18 || b[0] != claimVersion || b[1] > 1 {
		return Claim{}, fmt.Errorf("%w: claim %x", ErrCorrupt, b)
	}
	return Claim{
		Epoch: binary.LittleEndian.Uint64(b[2:]), Since: time.UnixMilli(int64(binary.LittleEndian.Uint64(b[10:]))).UTC(), Partial: b[1] == 1,
	}, nil
}

// State returns the id of this state directory: random, kept over restarts, another in every copy that a restore makes.
func (t *Table) State() string { return t.meta.State }

// Writer returns how often the state was opened. Of two copies of one directory the one opened later has the higher number.
func (t *Table) Writer() uint64 { return t.epoch }

// ClaimOf returns the state's claim to a partition; ok is false when it has never owned it.
func (t *Table) ClaimOf(partition int32) (c Claim, ok bool, err error) {
	err = t.db.View(func(txn *badger.Txn) error {
		c, ok, err = readClaim(txn, partition)
		return err
	})
	return c, ok, err
}

func readClaim(txn *badger.Txn, partition int32) (c Claim, ok bool, err error) {
	ok, err = get(txn, claimKey(partition), func(b []byte) (err error) {
		c, err = decodeClaim(b)
		return err
	})
	return c, ok, err
}

// Claim writes the claim to a partition. items is the topic of the catalogue, whose dead letters have a position of their own from the
// first claim on; a state that has folded the partition before claims were kept has sent those of what it has listed. It is on disk when Claim returns, since what is told to others
// must not be forgotten in a power cut.
func (t *Table) Claim(partition int32, c Claim, items string) error {
	p, err := t.part(partition)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	err = t.update(p, func(ch *change) error {
		if err := ch.inherit(items); err != nil {
			return err
		}
		return ch.set(claimKey(partition), c.encode())
	})
	if err != nil {
		return fmt.Errorf("claiming partition %d: %w", partition, err)
	}
	return t.Sync()
}

// inherit begins the position of the dead letters of items, where there is none: it says which of them are still to come (await), so it
// must be there before the first is looked for.
func (c *change) inherit(items string) error {
	key := offsetKey(items+buriedSuffix, c.p.id)
	if known, err := get(c.txn, key, func([]byte) error { return nil }); err != nil || known {
		return err
	}
	next, err := c.inherited(items)
	if err != nil {
		return err
	}
	return c.set(key, reached{next: next, last: -1}.encode())
}

// inherited returns how far the dead letters of items were sent by a state that has no position of them.
func (c *change) inherited(items string) (next int64, err error) {
	_, claimed, err := readClaim(c.txn, c.p.id)
	if err != nil || claimed {
		return 0, err
	}
	served, err := get(c.txn, seqKey(c.p.id), func([]byte) error { return nil })
	if err != nil || !served {
		return 0, err
	}
	r, listed, err := readOffset(c.txn, items, c.p.id)
	if err != nil || !listed {
		return 0, err
	}
	return r.next, nil
}

// buriedSuffix marks the position of the dead letters of a topic that every process reads and one sends; no topic's name has an @.
const buriedSuffix = "@dead"

// BuriedOffset returns the offset of a topic's partition from which dead letters are still to be sent; 0 before the first.
func (t *Table) BuriedOffset(topic string, partition int32) (int64, error) {
	next, _, _, err := t.Offset(topic+buriedSuffix, partition)
	return next, err
}

// Bury sends dead letters of a topic that every process reads, which is the duty of the partition's owner, and moves their position to
// next in the same transaction. Records below the position were sent before and are passed over; the others are returned.
func (t *Table) Bury(topic string, partition int32, dead []Listed, next int64) (sent []Listed, err error) {
	p, err := t.part(partition)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		n := fit(dead, t.budget, func(l *Listed) int64 { return buryCost(l.Key, l.Value, l.Headers, l.Dead) })
		part, to := dead[:n], next
		if n < len(dead) {
			to = part[n-1].Offset + 1
		}
		if err := t.update(p, func(c *change) (err error) {
			part, err = c.buryAll(topic, part, to)
			return err
		}); err != nil {
			return sent, fmt.Errorf("sending dead letters of %s[%d]: %w", topic, partition, err)
		}
		sent = append(sent, part...)
		if dead = dead[n:]; len(dead) == 0 {
			return sent, nil
		}
	}
}

func (c *change) buryAll(topic string, dead []Listed, next int64) ([]Listed, error) {
	r, _, err := readOffset(c.txn, topic+buriedSuffix, c.p.id)
	at := r.next
	if err != nil || next <= at {
		return nil, err
	}
	dead = slices.DeleteFunc(slices.Clone(dead), func(l Listed) bool { return l.Offset < at })
	for i := range dead {
		l := &dead[i]
		if err := c.bury(schemas.Source{Topic: topic, Partition: c.p.id, Offset: l.Offset}, l.Key, l.Value, l.Headers, l.Dead); err != nil {
			return nil, fmt.Errorf("record at %d: %w", l.Offset, err)
		}
	}
	return dead, c.set(offsetKey(topic+buriedSuffix, c.p.id), reached{next: next, last: -1}.encode())
}

// Waiting returns the intents and messages of one partition that wait.
func (t *Table) Waiting(partition int32) (intents, messages int) {
	p, err := t.part(partition)
	if err != nil {
		return 0, 0
	}
	return int(p.intents.Load()), int(p.messages.Load())
}

// Answered returns the offset of the requests topic below which every request has been answered and sent: whoever owns the partition next
// without this state begins there. ok is false while that is not known, because answers wait in the outbox.
func (t *Table) Answered(topic string, partition int32) (next int64, ok bool, err error) {
	p, err := t.part(partition)
	if err != nil {
		return 0, false, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.outbox.len() > 0 {
		return 0, false, nil
	}
	next, _, ok, err = t.Offset(topic, partition)
	if err == nil && ok {
		// Another state has answered more than this one has read.
		before, _, some, err := t.Offset(topic+answeredSuffix, partition)
		if err != nil || some {
			return before, some, err
		}
	}
	if first, some := p.waiting.firstRequest(topic); some && first < next {
		next = first
	}
	return next, ok, err
}
