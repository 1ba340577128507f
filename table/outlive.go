package table

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"rebeca/schemas"
)

// A state that goes on from an older snapshot meets again what the topics know already: images were found (Sent) whose causes are still to
// be read, and a forget may stand between. Then the user's memory goes, and with it the knowledge that these images are published; the
// causes behind the forget would make them a second time. So forgetMemory keeps what the next life made, and leaves of the rest the
// names of those images whose cause is still to come; Sent does the same where the forget was folded before the topic was read back, and
// so does a memory that is full of newer images. A name is a hash of offsets and says nothing of the user.

// outlivedKey is the key under which the name of an image outlives the memory of it. Its hash is of another form than a dead letter's.
func outlivedKey(partition int32, id string) []byte {
	sum := sha256.Sum256([]byte("generated\x00" + id))
	return buriedKey(partition, buried(sum[:16]))
}

// outlive keeps the name of an image whose cause is still to be read, or waits to be served.
func (c *change) outlive(g schemas.Generated) error {
	if ahead, err := c.ahead(g.Source); err != nil || !ahead && !c.p.waiting.causedBy(g.Source) {
		return err
	}
	return c.keepName(g)
}

// keepName writes the name of an image, with its cause's time.
func (c *change) keepName(g schemas.Generated) error {
	caused := g.CausedAt
	if caused.IsZero() {
		caused = time.UnixMilli(0)
	}
	return c.set(outlivedKey(c.p.id, g.ID), binary.LittleEndian.AppendUint64([]byte{valueVersion}, uint64(caused.UnixMilli())))
}

// outliveMemory keeps the name of an image that leaves its user's memory for newer ones.
func (c *change) outliveMemory(m *Memory) error {
	if ahead, err := c.ahead(m.Source); err != nil || !ahead && !c.p.waiting.causedBy(m.Source) {
		return err
	}
	g, err := schemas.DecodeGenerated(m.Record)
	if err != nil {
		return nil // not as we write it: nobody will ask for its id
	}
	return c.outlive(g)
}

// outlived reports whether an image of this cause was published before its user was forgotten, and drops the name.
func (c *change) outlived(id string, cause time.Time) (bool, error) {
	key, caused := outlivedKey(c.p.id, id), int64(0)
	found, err := get(c.txn, key, func(b []byte) error {
		s := scan("name of an image", b)
		caused = int64(s.uint64())
		return s.end()
	})
	if err != nil || !found {
		return false, err
	}
	return caused == 0 || caused == cause.UnixMilli(), c.delete(key)
}

// causedBy reports whether an intent of this cause waits.
func (w *waiting) causedBy(s schemas.Source) bool {
	for _, p := range w.intents {
		if p.Source == s {
			return true
		}
	}
	return false
}

// ahead reports whether a record is still to be read.
func (c *change) ahead(s schemas.Source) (bool, error) {
	r, followed, err := readOffset(c.txn, s.Topic, s.Partition)
	return err == nil && (!followed || s.Offset >= r.next), err
}

// forgetMemory deletes the memory and the remembered requests of a user who is forgotten at an offset. Of requests that are to be answered
// again the names of those images stay that were sent.
func (f *folding) forgetMemory(user string, offset int64, again []Intent, unsent recalled) error {
	sent := func(m *Memory) bool {
		return !unsent.ids[m.ID] && slices.ContainsFunc(again, func(in Intent) bool { return in.Source == m.Source })
	}
	later, err := f.outliving(user, offset, sent)
	if err != nil {
		return err
	}
	if err := f.eraseMemory(user); err != nil {
		return err
	}
	spent := int64(0)
	for i := range later {
		m := &later[i]
		if spent += unitCost(nil, later, i); spent > f.t.budget/2 { // more is known by name only
			var g schemas.Generated
			if err := json.Unmarshal(m.Record, &g); err != nil {
				return fmt.Errorf("%w: memory %s of %q: %w", ErrCorrupt, m.ID, user, err)
			}
			err = f.outlive(g)
		} else {
			err = f.remember(user, m)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// outliving keeps the names of a user's images whose cause is still to be read or that are named by keep, and returns those that belong to
// the life behind the forget, the oldest first. In a state that was not restored there are none of the first and the last.
func (f *folding) outliving(user string, offset int64, keep func(*Memory) bool) (later []Memory, err error) {
	n, err := memories(f.txn, f.p.id, user)
	if err != nil {
		return nil, err
	}
	for number := n - min(n, maxMemories); number < n; number++ {
		m, err := readMemory(f.txn, f.p.id, user, number)
		if err != nil {
			return nil, err
		}
		ahead, err := f.ahead(m.Source)
		if err != nil {
			return nil, err
		}
		if !ahead && !keep(&m) {
			continue
		}
		g, err := schemas.DecodeGenerated(m.Record)
		if err != nil {
			continue // not as we write it: nobody will ask for its id
		}
		if !ahead {
			if err := f.keepName(g); err != nil {
				return nil, err
			}
			continue
		}
		if g.AsOf.Offset >= offset {
			later = append(later, m)
		} else if err := f.outlive(g); err != nil {
			return nil, err
		}
	}
	return later, nil
}
