package table

import (
	"encoding/binary"
	"maps"
	"slices"
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

// askedBeforeForget is wasForgotten for a request.
func (p *partition) askedBeforeForget(a *Asked) bool {
	m, ok := p.markOf(a.Request.UserID)
	return ok && a.Time.UnixMilli() <= m.until
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
	if err := f.doomObjects(name); err != nil {
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
	unsent, err := f.recall(user)
	if err != nil {
		return err
	}
	again := f.askedAfter(user, m, unsent)
	if err := f.forgetMemory(user, m.offset, again, unsent); err != nil {
		return err
	}
	if err := f.replace(f.p.waiting.of(user)); err != nil {
		return err
	}
	if err := f.wait(user, again); err != nil {
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

// askedAfter returns the requests of a user that were made after the forget, though they were read first, and are not answered in full:
// those that wait, and those whose images lay in the outbox. They are of the next life.
func (f *folding) askedAfter(user string, m mark, unsent recalled) (again []Intent) {
	take := func(in Intent) {
		if in.Trigger == schemas.TriggerRequest && in.At.UnixMilli() > m.until {
			again = append(again, in)
		}
	}
	waiting := f.p.waiting.of(user)
	for _, seq := range waiting {
		take(f.p.waiting.intents[seq].Intent)
	}
	for _, seq := range slices.Sorted(maps.Keys(unsent.causes)) {
		if !slices.Contains(waiting, seq) { // else a part of its images is in the outbox
			take(unsent.causes[seq])
		}
	}
	return again
}

// wait lets requests wait anew, under other sequence numbers, so that what is being made for them from the forgotten row finds no intent.
// Their images that were sent already are known by name.
func (f *folding) wait(user string, again []Intent) error {
	for _, in := range again {
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

// recalled is what was unsent of a user who is forgotten.
type recalled struct {
	causes map[uint64]Intent // the requests whose images it was, by sequence number
	ids    map[string]bool   // of images
}

// recall deletes a user's unsent images and vectors.
func (c *change) recall(user string) (recalled, error) {
	out := recalled{map[uint64]Intent{}, map[string]bool{}}
	if c.p.outbox.len() == 0 {
		return out, nil
	}
	var found []Outgoing
	err := scanFrom(c.txn, queuePrefix(c.p.id, 'm'), messageKey(c.p.id, c.p.outbox.head(), 0), func(item *badger.Item) error {
		return item.Value(func(b []byte) error {
			role, key, _, err := messageOwner(b)
			if err != nil || role == RoleDeadletter || string(key) != user {
				return err
			}
			_, seq, index, err := splitMessageKey(item.Key())
			if err != nil {
				return err
			}
			found = append(found, Outgoing{Seq: seq, Index: index})
			return out.take(c.p.id, seq, b)
		})
	})
	if err != nil {
		return out, err
	}
	for _, o := range found {
		if err := c.unsend(messageKey(c.p.id, o.Seq, o.Index), o.Seq); err != nil {
			return out, err
		}
	}
	return out, nil
}

// take notes of an encoded message whose answer it is a part of.
func (r recalled) take(partition int32, seq uint64, b []byte) error {
	m, cause, err := decodeCaused(b)
	if err != nil || m.Role != RoleGenerated {
		return err
	}
	r.ids[string(m.header(headerID))] = true
	if cause == nil {
		return nil
	}
	in, _, err := decodeIntent(cause)
	in.Partition = partition
	r.causes[seq] = in
	return err
}
