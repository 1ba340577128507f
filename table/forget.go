package table

import (
	"encoding/binary"
	"time"

	badger "github.com/dgraph-io/badger/v4"

	"rebeca/schemas"
)

func (m mark) encode() []byte {
	b := binary.LittleEndian.AppendUint64([]byte{valueVersion}, uint64(m.until))
	return binary.LittleEndian.AppendUint64(b, uint64(m.offset))
}

func decodeMark(b []byte) (mark, error) {
	s := scan("forget mark", b)
	m := mark{until: int64(s.uint64()), offset: int64(s.uint64())}
	return m, s.end()
}

// markOf returns the forget mark of a user.
func (p *partition) markOf(user string) (mark, bool) {
	if len(p.marks) == 0 {
		return mark{}, false
	}
	m, ok := p.marks[forgottenOf([]byte(user))]
	return m, ok
}

// wasForgotten reports whether the event happened before its user was forgotten.
func (p *partition) wasForgotten(f *schemas.Feedback) bool {
	m, ok := p.markOf(f.UserID)
	return ok && !f.OccurredAt.After(time.UnixMilli(m.until))
}

// forget removes all that the state holds of a user and leaves a mark. The record is alone in its transaction. The vectors topic is told
// even of an unknown user: an earlier state may have written there.
func (f *folding) forget(r *Record) error {
	user, name := string(r.Key), forgottenOf(r.Key)
	m := mark{until: r.Time.UnixMilli(), offset: r.Offset}
	if old, ok := f.p.marks[name]; ok {
		m.until = max(m.until, old.until) // producers' clocks may go back
	}
	if err := f.set(forgottenKey(f.p.id, name), m.encode()); err != nil {
		return err
	}
	if err := f.noteErasure(name); err != nil {
		return err
	}
	if len(user) <= schemas.MaxID { // else there is no such user, and the keys would be too long
		if err := f.erase(user, m); err != nil {
			return err
		}
	}
	f.then(func() { f.p.marks[name] = m })
	return f.send(f.next(), 0, &Message{Role: RoleVectors, Key: r.Key})
}

// erase deletes row, vector, memory, intents and unsent output of a user who was forgotten. Dead letters stay: they are the sender's bytes.
func (f *folding) erase(user string, m mark) error {
	for _, prefix := range []string{prefixRow, prefixVector} {
		key := userKey(prefix, f.p.id, user)
		found, err := get(f.txn, key, func([]byte) error { return nil })
		if err != nil {
			return err
		}
		if found {
			if err := f.delete(key); err != nil {
				return err
			}
		}
	}
	if err := f.forgetMemory(user, m.offset); err != nil {
		return err
	}
	if err := f.forgetIntents(user, m); err != nil {
		return err
	}
	if err := f.recall(user); err != nil {
		return err
	}
	f.out.gone = append(f.out.gone, user)
	f.then(func() {
		f.p.rows.remove(user)
		f.p.stale.clean(user)
		f.t.users.remove(user)
	})
	return nil
}

// forgetIntents deletes a user's intents. A request made after the forget is of the next life, though it was read first: it waits anew,
// under another sequence number, so that what is being made for it from the forgotten row finds no intent.
func (f *folding) forgetIntents(user string, m mark) error {
	waiting := f.p.waiting.of(user)
	if err := f.replace(waiting); err != nil {
		return err
	}
	for _, seq := range waiting {
		in := f.p.waiting.intents[seq].Intent
		if in.Trigger != schemas.TriggerRequest || in.At.UnixMilli() <= m.until {
			continue
		}
		if _, err := f.asked(user, in.RequestID); err != nil { // remembered anew
			return err
		}
		in.Seq = f.next()
		f.out.Intents = append(f.out.Intents, in)
		if err := f.admit(in, 0); err != nil {
			return err
		}
	}
	return nil
}

// recall deletes a user's unsent images and vectors.
func (c *change) recall(user string) error {
	var keys [][]byte
	err := scanFrom(c.txn, queuePrefix(c.p.id, 'm'), messageKey(c.p.id, c.p.outbox.head(), 0), func(item *badger.Item) error {
		return item.Value(func(b []byte) error {
			role, key, _, err := messageOwner(b)
			if err == nil && role != RoleDeadletter && string(key) == user {
				keys = append(keys, item.KeyCopy(nil))
			}
			return err
		})
	})
	if err != nil {
		return err
	}
	for _, key := range keys {
		_, seq, _, err := splitMessageKey(key)
		if err != nil {
			return err
		}
		if err := c.unsend(key, seq); err != nil {
			return err
		}
	}
	return nil
}
