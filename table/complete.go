package table

import (
	"fmt"
	"slices"
	"time"

	badger "github.com/dgraph-io/badger/v4"

	"rebeca/schemas"
)

// Completion is what became of an intent.
type Completion struct {
	Seq      uint64 // of the intent; 0 for none: a vector by itself
	UserID   string
	Messages []Message // to the outbox, in this order: those of Memories first
	Memories []Memory  // to the user's generated memory, the newest last; the k-th is what the k-th message says
	Vector   *Vector   // nil leaves the stored one
}

// Vector is a user's embedding.
type Vector struct {
	Values       []float32
	PriorVersion string // of the prior that made it
	Events       uint64 // Row.Events of the row it was made from
	AsOf         int64  // Row.LastOffset of that row. 0 is unknown; else a vector from before the user was forgotten is never stored
}

// Complete replaces intents by their results: messages enter the outbox under the intent's sequence number, generated memory and vector
// are written, all in one transaction. Results too large for one are written in several; the intent stays until the last, with the number
// of results that are in the outbox, and a repeated completion goes on there, so that each enters once.
//
// An image that its topic holds already (Sent) is not sent again. A completion is dropped whole when its intent is gone (superseded or
// forgotten) or, for Seq 0, when the user has no row. A vector that knows more events than the row is of a forgotten life: it is dropped
// with its message.
func (t *Table) Complete(partition int32, cs []Completion) error {
	p, err := t.part(partition)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	at := progress{}
	for at.completion < len(cs) {
		var reached progress
		err := t.update(p, func(c *change) (err error) {
			reached, err = c.complete(cs, at)
			return err
		})
		if err != nil {
			return fmt.Errorf("completing intents of partition %d: %w", partition, err)
		}
		at = reached
	}
	return nil
}

// progress is a place within a list of completions.
type progress struct {
	completion int
	unit       int    // messages and memories with a lower index are written
	seq        uint64 // sequence number of the messages, once given
}

// complete writes completions from a place on until the transaction is full, and returns the place reached.
func (c *change) complete(cs []Completion, at progress) (progress, error) {
	spent := int64(0)
	for ; at.completion < len(cs); at = (progress{completion: at.completion + 1}) {
		f := &cs[at.completion]
		if at.seq == 0 {
			wanted, err := c.wanted(f, &at)
			if err != nil {
				return at, err
			}
			if !wanted {
				continue
			}
		}
		vector, messages, err := c.current(f)
		if err != nil {
			return at, err
		}
		for ; at.unit < max(len(messages), len(f.Memories)); at.unit++ {
			cost := unitCost(messages, f.Memories, at.unit)
			if spent > 0 && spent+cost > c.t.budget {
				return at, c.pause(f, at)
			}
			spent += cost
			if err := c.unit(f, messages, at); err != nil {
				return at, err
			}
		}
		if f.Seq != 0 {
			if err := c.dismiss(f.Seq); err != nil {
				return at, err
			}
		}
		if vector != nil {
			spent += int64(len(vector.Values)*4 + 512)
			if err := c.setVector(f.UserID, vector); err != nil {
				return at, err
			}
		}
		if spent > c.t.budget {
			return progress{completion: at.completion + 1}, nil
		}
	}
	return at, nil
}

// wanted reports whether a completion still has its intent, or its user, and sets where it begins.
func (c *change) wanted(f *Completion, at *progress) (bool, error) {
	if f.Seq == 0 {
		b, err := c.t.rowValue(c.txn, c.p, f.UserID)
		if err != nil || b == nil {
			return false, err
		}
		at.seq = c.next()
		return true, nil
	}
	in := c.p.waiting.intents[f.Seq]
	if in == nil {
		return false, nil
	}
	if in.UserID != f.UserID {
		panic(fmt.Sprintf("table: completion of intent %d is for %q, the intent is %q's", f.Seq, f.UserID, in.UserID))
	}
	at.seq, at.unit = f.Seq, in.done
	return true, nil
}

// current returns the completion's vector and messages, without the vector and its messages if they are of a life that is forgotten.
func (c *change) current(f *Completion) (*Vector, []Message, error) {
	if f.Vector == nil {
		return nil, f.Messages, nil
	}
	b, err := c.t.rowValue(c.txn, c.p, f.UserID)
	if err != nil {
		return nil, nil, err
	}
	if b != nil {
		events, err := rowEvents(b)
		if err != nil {
			return nil, nil, err
		}
		m, marked := c.p.markOf(f.UserID)
		if f.Vector.Events <= events && !(marked && f.Vector.AsOf != 0 && f.Vector.AsOf < m.offset) {
			return f.Vector, f.Messages, nil
		}
	}
	rest := slices.DeleteFunc(slices.Clone(f.Messages), func(m Message) bool { return m.Role == RoleVectors })
	return nil, rest, nil
}

// unit writes the message and the memory of one index, unless the topic holds the image already.
func (c *change) unit(f *Completion, messages []Message, at progress) error {
	var cause []byte
	if in := c.p.waiting.intents[f.Seq]; in != nil && at.unit < len(f.Memories) {
		there, err := c.published(f.UserID, f.Memories[at.unit].ID, in.At)
		if err != nil || there {
			return err
		}
		if in.Trigger == schemas.TriggerRequest {
			cause = encodeIntent(&in.Intent, 0)
		}
	}
	if at.unit < len(messages) {
		if err := c.sendFor(cause, at.seq, at.unit, &messages[at.unit]); err != nil {
			return err
		}
	}
	if at.unit < len(f.Memories) {
		if err := c.keepObject(f.UserID, f.Memories[at.unit].Object, at.seq, at.unit, time.Now()); err != nil {
			return err
		}
		return c.remember(f.UserID, &f.Memories[at.unit])
	}
	return nil
}

func unitCost(messages []Message, memories []Memory, i int) int64 {
	n := 1024
	if i < len(messages) {
		m := &messages[i]
		n += len(m.Key) + len(m.Value)
		for _, h := range m.Headers {
			n += len(h.Key) + len(h.Value) + 8
		}
	}
	if i < len(memories) {
		n += len(memories[i].Record) + 4*len(memories[i].Embedding)
	}
	return int64(n)
}

// pause keeps an intent whose results are not all written, with how many are.
func (c *change) pause(f *Completion, at progress) error {
	if f.Seq == 0 {
		return nil
	}
	return c.admit(c.p.waiting.intents[f.Seq].Intent, at.unit)
}

func (c *change) setVector(user string, v *Vector) error {
	if err := c.set(userKey(prefixVector, c.p.id, user), encodeVector(v)); err != nil {
		return err
	}
	b, err := c.t.rowValue(c.txn, c.p, user)
	if err != nil {
		return err
	}
	events, err := rowEvents(b)
	if err != nil {
		return err
	}
	c.then(func() {
		if v.Events >= events {
			c.p.stale.clean(user)
		} else {
			c.p.stale.mark(user)
		}
	})
	return nil
}

// VectorOf returns a user's embedding as it was last stored.
func (t *Table) VectorOf(user string) (v Vector, ok bool, err error) {
	err = t.db.View(func(txn *badger.Txn) error {
		ok, err = readVector(txn, t.userPartition(user), user, &v)
		return err
	})
	return v, ok, err
}

func readVector(txn *badger.Txn, partition int32, user string, v *Vector) (bool, error) {
	return get(txn, userKey(prefixVector, partition, user), func(b []byte) (err error) {
		*v, err = decodeVector(b)
		return err
	})
}
