package table

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	badger "github.com/dgraph-io/badger/v4"

	"rebeca/schemas"
)

// Sent takes in what an output topic holds behind the position of its last acknowledged record: after a crash, a lost acknowledgement or
// the restore of an older snapshot the topic may know more than this state. Messages of the outbox that are among found leave it and are
// returned. Images among found that this state has not made enter their user's memory, so that an intent of the same id sends nothing;
// dead letters of records that it has not folded are marked, so that their fold sends nothing. behind is the position after found; Sent
// with nothing found only notes it. Repeating a call changes nothing.
//
// A generated record is known by its ce_id, a dead letter by the topic, partition and offset of the record that it was and by its bytes.
func (t *Table) Sent(partition int32, found []Message, behind Position) (trimmed []Outgoing, err error) {
	p, err := t.part(partition)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if trimmed, err = t.found(p, found, behind); err != nil {
		return nil, fmt.Errorf("noting what %s[%d] holds: %w", behind.Topic, partition, err)
	}
	return trimmed, nil
}

// found is Sent.
// REQUIRES: p.mu is held.
func (t *Table) found(p *partition, found []Message, behind Position) (trimmed []Outgoing, err error) {
	if trimmed, err = t.unsent(p, found); err == nil {
		err = t.trim(p, trimmed, Position{})
	}
	if err == nil {
		err = t.learn(p, found, behind)
	}
	return trimmed, err
}

// name names an output over crashes; "" has no name. A generated record that was too large for its topic and became a dead letter keeps
// its name.
func (m *Message) name() string {
	place, id := m.place(), m.header(headerID)
	switch {
	case len(place.offset) > 0:
		b := buriedOf(place, m.Key, m.Value)
		return "dead letter " + string(b[:])
	case len(id) > 0:
		return "id " + string(id)
	}
	return ""
}

// headerID is the header of CloudEvents that holds the id of a generated record.
const headerID = "ce_id"

// place is where a dead letter came from, as its headers say.
type place struct{ topic, partition, offset []byte }

func (m *Message) place() place {
	return place{m.header(HeaderTopic), m.header(HeaderPartition), m.header(HeaderOffset)}
}

// source reads a place; ok is false for headers that we did not write.
func (p place) source() (s schemas.Source, ok bool) {
	partition, err := strconv.ParseInt(string(p.partition), 10, 32)
	if err != nil {
		return s, false
	}
	offset, err := strconv.ParseInt(string(p.offset), 10, 64)
	return schemas.Source{Topic: string(p.topic), Partition: int32(partition), Offset: offset}, err == nil
}

func (m *Message) header(key string) []byte {
	for _, h := range m.Headers {
		if h.Key == key {
			return h.Value
		}
	}
	return nil
}

// unsent returns the messages of the outbox that are among found. Vectors have no name: sending one again changes nothing.
func (t *Table) unsent(p *partition, found []Message) (out []Outgoing, err error) {
	names := make(map[string]bool, len(found))
	for i := range found {
		if name := found[i].name(); name != "" {
			names[name] = true
		}
	}
	if len(names) == 0 || p.outbox.len() == 0 {
		return nil, nil
	}
	err = t.db.View(func(txn *badger.Txn) error {
		return scanFrom(txn, queuePrefix(p.id, 'm'), messageKey(p.id, p.outbox.head(), 0), func(item *badger.Item) error {
			o, err := readOutgoing(item)
			if err == nil && o.Role != RoleVectors && names[o.name()] {
				out = append(out, o)
			}
			return err
		})
	})
	return out, err
}

// learn keeps what was found and is news, and moves the position.
func (t *Table) learn(p *partition, found []Message, behind Position) error {
	for {
		n := fit(found, t.budget, func(m *Message) int64 { return int64(2*len(m.Value)) + 2048 })
		last := n == len(found)
		err := t.update(p, func(c *change) error {
			for i := range found[:n] {
				if err := c.learn(&found[i]); err != nil {
					return err
				}
			}
			if !last {
				return nil
			}
			return c.reach(behind)
		})
		if err != nil || last {
			return err
		}
		found = found[n:]
	}
}

func (c *change) learn(m *Message) error {
	switch m.Role {
	case RoleGenerated:
		return c.adopt(m)
	case RoleDeadletter:
		if len(m.place().offset) == 0 && len(m.header(headerID)) > 0 {
			return c.adopt(m) // an image that was too large for its own topic: it is not to be made a second time either
		}
		return c.await(m)
	}
	return nil
}

// adopt remembers a published image, in place of one that was made again under its id and not sent. What cannot be read, is of another
// partition's user or was made before its user was forgotten is passed over.
func (c *change) adopt(m *Message) error {
	g, err := schemas.DecodeGenerated(m.Value)
	if err != nil || c.t.userPartition(g.UserID) != c.p.id {
		c.t.options.Logger.Debug("a record among the generated is not ours", "key", string(m.Key), "err", err)
		return nil
	}
	if mark, ok := c.p.markOf(g.UserID); ok && g.AsOf.Offset < mark.offset {
		if object := objectOf(m.Value); object != nil { // it was written after the snapshot that this state is of
			if err := c.set(doomedKey(c.p.id, *object), []byte{valueVersion}); err != nil {
				return err
			}
		}
		return c.outlive(g)
	}
	memory := Memory{ID: g.ID, Embedding: g.Embedding, Record: m.Value, Source: g.Source, CausedAt: g.CausedAt}
	object := objectOf(m.Value)
	if err := c.keepObject(g.UserID, object, 0, 0, g.CreatedAt); err != nil {
		return err
	}
	number, known, err := memoryNumber(c.txn, c.p.id, g.UserID, g.ID)
	switch {
	case err != nil:
		return err
	case known:
		before, err := readMemory(c.txn, c.p.id, g.UserID, number)
		if err == nil {
			err = c.loseObject(g.UserID, before.Record, object)
		}
		if err != nil {
			return err
		}
		return c.setMemory(g.UserID, number, &memory)
	}
	return c.remember(g.UserID, &memory)
}

// await marks a dead letter whose record is still to be buried. Its bytes belong to the mark: another record in that place is another
// log's.
func (c *change) await(m *Message) error {
	place := m.place()
	source, ok := place.source()
	if !ok {
		return nil
	}
	r, followed, err := c.buriedTo(source)
	if err != nil || followed && source.Offset < r.next {
		return err
	}
	return c.set(buriedKey(c.p.id, buriedOf(place, m.Key, m.Value)), []byte{valueVersion})
}

// buriedTo returns how far the dead letters of a record's topic are in the outbox or sent. Where they have a position of their own, that
// counts: the catalogue is read on while the partition is nobody's.
func (c *change) buriedTo(s schemas.Source) (r reached, followed bool, err error) {
	if r, followed, err = readOffset(c.txn, s.Topic+buriedSuffix, s.Partition); err != nil || followed {
		return r, followed, err
	}
	return readOffset(c.txn, s.Topic, s.Partition)
}

// awaited reports whether a dead letter was found on its topic before its record was folded, and drops the mark.
func (c *change) awaited(m *Message) (bool, error) {
	key := buriedKey(c.p.id, buriedOf(m.place(), m.Key, m.Value))
	found, err := get(c.txn, key, func([]byte) error { return nil })
	if err != nil || !found {
		return false, err
	}
	return true, c.delete(key)
}

// reach notes that everything of an output topic below a position is known; the zero Position notes nothing.
func (c *change) reach(behind Position) error {
	if behind.Topic == "" {
		return nil
	}
	return c.set(offsetKey(behind.Topic, c.p.id), reached{next: behind.Next, last: -1}.encode())
}

// maxSkew is how far the clock that stamped a cause may run ahead of the one that stamped its image.
const maxSkew = time.Minute

// published reports whether an image is there already, so that its record must not be sent: it is in the user's memory, or was found
// before its user was forgotten.
func (c *change) published(user, id string, cause time.Time) (bool, error) {
	number, known, err := memoryNumber(c.txn, c.p.id, user, id)
	if err != nil {
		return false, err
	}
	if !known {
		return c.outlived(id, cause)
	}
	m, err := readMemory(c.txn, c.p.id, user, number)
	if err != nil {
		return false, err
	}
	var made origin
	err = json.Unmarshal(m.Record, &made)
	return err != nil || made.of(cause), nil
}

// origin is when an image and its cause were.
type origin struct {
	Created time.Time  `json:"created_at"`
	Caused  *time.Time `json:"caused_at"` // nil in records of before it was written
}

// of reports whether the image was made for this cause. Another has stood in its place if the log was made anew, and has made the same id.
// Where the image does not say when its cause was, one that is older than the cause, by the clocks of producer and service, is another's.
func (o origin) of(cause time.Time) bool {
	if o.Caused != nil {
		return o.Caused.Equal(cause)
	}
	return o.Created.IsZero() || o.Created.After(cause.Add(-maxSkew))
}
