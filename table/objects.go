package table

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	badger "github.com/dgraph-io/badger/v4"
)

// Object names a picture in the bucket: the SHA-256 of its bytes.
type Object [sha256.Size]byte

// States of a note of an object.
const (
	objectPending = 0 // it may be in the bucket, and no record points at it yet
	objectKept    = 1 // a record points at it that is sent, or in the outbox
)

// objectNote is what the state knows of an object that is not to be deleted.
type objectNote struct {
	at    int64 // ms, when it was noted last
	state byte
	seq   uint64 // of the message that points at it; 0 for one that was found on its topic
	index uint32
}

func (n objectNote) encode() []byte {
	b := binary.LittleEndian.AppendUint64([]byte{valueVersion}, uint64(n.at))
	b = append(b, n.state)
	b = binary.LittleEndian.AppendUint64(b, n.seq)
	return binary.LittleEndian.AppendUint32(b, n.index)
}

func decodeObjectNote(b []byte) (objectNote, error) {
	s := scan("note of an object", b)
	n := objectNote{at: int64(s.uint64()), state: s.byte(), seq: s.uint64(), index: s.uint32()}
	return n, s.end()
}

func ownedPrefix(partition int32) []byte {
	return append(partitionKey(prefixObject, partition, 1), 'o')
}

func objectKey(partition int32, owner forgotten, o Object) []byte {
	return append(append(ownedPrefix(partition), owner[:]...), o[:]...)
}

func doomedKey(partition int32, o Object) []byte {
	return append(append(partitionKey(prefixObject, partition, 33), 'x'), o[:]...)
}

// objectOfKey returns the object that a note's key ends with.
func objectOfKey(key []byte) (o Object, err error) {
	if len(key) < 8+len(o) {
		return o, fmt.Errorf("%w: key %q", ErrCorrupt, key)
	}
	return Object(key[len(key)-len(o):]), nil
}

// NoteObject is called before an object of the user is written, so that it can be found again whatever happens next. An object
// that was to be deleted is not any more.
func (t *Table) NoteObject(partition int32, user string, o Object, now time.Time) error {
	return t.changeObjects(partition, "noting an object", func(c *change) error {
		key, note := objectKey(partition, forgottenOf([]byte(user)), o), objectNote{}
		if _, err := get(c.txn, key, func(b []byte) (err error) {
			note, err = decodeObjectNote(b)
			return err
		}); err != nil {
			return err
		}
		note.at = now.UnixMilli()
		if err := c.set(key, note.encode()); err != nil {
			return err
		}
		return c.delete(doomedKey(partition, o))
	})
}

// keepObject notes that a record points at an object; a zero seq is of one that was found on its topic. An object that was to be deleted, for want
// of that record, is not any more.
func (c *change) keepObject(user string, o *Object, seq uint64, index int, at time.Time) error {
	if o == nil {
		return nil
	}
	note := objectNote{at: at.UnixMilli(), state: objectKept, seq: seq, index: uint32(index)}
	if err := c.set(objectKey(c.p.id, forgottenOf([]byte(user)), *o), note.encode()); err != nil {
		return err
	}
	return c.delete(doomedKey(c.p.id, *o))
}

// loseObject notes that no record points any more at the object of a memory's record, unless it is the other's too.
func (c *change) loseObject(user string, record []byte, other *Object) error {
	o := objectOf(record)
	if o == nil || other != nil && *o == *other {
		return nil
	}
	key, note := objectKey(c.p.id, forgottenOf([]byte(user)), *o), objectNote{}
	found, err := get(c.txn, key, func(b []byte) (err error) {
		note, err = decodeObjectNote(b)
		return err
	})
	if err != nil || !found {
		return err
	}
	note.state = objectPending
	return c.set(key, note.encode())
}

// objectOf returns the object that a generated record points at; nil for none.
func objectOf(record []byte) *Object {
	var r struct {
		Image *struct {
			SHA256 string `json:"sha256"`
			URI    string `json:"uri"`
		} `json:"image"`
	}
	var o Object
	if json.Unmarshal(record, &r) != nil || r.Image == nil || r.Image.URI == "" || len(r.Image.SHA256) != hex.EncodedLen(len(o)) {
		return nil
	}
	if _, err := hex.Decode(o[:], []byte(r.Image.SHA256)); err != nil {
		return nil
	}
	return &o
}

// doomObjects has all objects of a user deleted who is forgotten.
func (c *change) doomObjects(owner forgotten) error {
	var owned [][]byte
	prefix := append(ownedPrefix(c.p.id), owner[:]...)
	if err := scanPrefix(c.txn, prefix, true, func(key, _ []byte) error {
		owned = append(owned, bytes.Clone(key))
		return nil
	}); err != nil {
		return err
	}
	for _, key := range owned {
		if err := c.doom(key); err != nil {
			return err
		}
	}
	return nil
}

// doom turns the note under a key into one of an object that is to be deleted.
func (c *change) doom(key []byte) error {
	o, err := objectOfKey(key)
	if err != nil {
		return err
	}
	if err := c.set(doomedKey(c.p.id, o), []byte{valueVersion}); err != nil {
		return err
	}
	return c.delete(key)
}

// Doomed says how many objects DoomObjects gave up, and why.
type Doomed struct {
	Expired int // of records sent before the time given
	Orphans int // that no record came to point at
}

// doomChunk bounds what a transaction gives up.
const doomChunk = 1000

// DoomObjects gives up the objects of a partition that nobody needs any more: those noted before a time, if it is not zero, whose record is
// sent, and those without a record that are not in hand. [Table.DoomedObjects] has them then. One whose record waits in the outbox
// stays however old it is. Folding waits for what is given up, not for the look at all notes.
func (t *Table) DoomObjects(partition int32, before time.Time, inHand func(Object) bool) (done Doomed, err error) {
	needless := func(txn *badger.Txn, o Object, n objectNote) (bool, error) {
		switch {
		case n.state == objectPending:
			return !inHand(o), nil
		case before.IsZero() || n.at >= before.UnixMilli():
			return false, nil
		}
		unsent, err := n.unsent(txn, partition)
		return !unsent, err
	}
	for at := ownedPrefix(partition); at != nil; {
		var keys [][]byte
		if keys, at, err = t.needless(partition, at, needless); err != nil {
			return done, fmt.Errorf("looking for objects to give up of partition %d: %w", partition, err)
		}
		if len(keys) == 0 {
			continue
		}
		var d Doomed
		if err := t.changeObjects(partition, "giving up objects", func(c *change) (err error) {
			d, err = c.giveUp(keys, needless)
			return err
		}); err != nil {
			return done, err
		}
		done.Expired, done.Orphans = done.Expired+d.Expired, done.Orphans+d.Orphans
	}
	return done, nil
}

// needless returns the keys of at most doomChunk notes that are so, from a key on; next is where to go on, nil behind the last.
func (t *Table) needless(partition int32, from []byte, so func(*badger.Txn, Object, objectNote) (bool, error)) (keys [][]byte, next []byte, err error) {
	err = t.db.View(func(txn *badger.Txn) error {
		return scanFrom(txn, ownedPrefix(partition), from, func(item *badger.Item) error {
			if len(keys) == doomChunk {
				next = item.KeyCopy(nil)
				return errStop
			}
			o, err := objectOfKey(item.Key())
			if err != nil {
				return err
			}
			return item.Value(func(b []byte) error {
				n, err := decodeObjectNote(b)
				if err != nil {
					return err
				}
				yes, err := so(txn, o, n)
				if yes {
					keys = append(keys, item.KeyCopy(nil))
				}
				return err
			})
		})
	})
	if errors.Is(err, errStop) {
		err = nil
	}
	return keys, next, err
}

// giveUp gives up the objects of notes that are needless still: since they were found a record may have come, or the file may be written again.
func (c *change) giveUp(keys [][]byte, needless func(*badger.Txn, Object, objectNote) (bool, error)) (done Doomed, err error) {
	for _, key := range keys {
		o, err := objectOfKey(key)
		if err != nil {
			return done, err
		}
		var n objectNote
		found, err := get(c.txn, key, func(b []byte) (err error) {
			n, err = decodeObjectNote(b)
			return err
		})
		if err == nil && found {
			found, err = needless(c.txn, o, n)
		}
		if err != nil {
			return done, err
		}
		if !found {
			continue
		}
		if n.state == objectPending {
			done.Orphans++
		} else {
			done.Expired++
		}
		if err := c.doom(key); err != nil {
			return done, err
		}
	}
	return done, nil
}

// unsent reports whether the message that points at an object is in the outbox still.
func (n objectNote) unsent(txn *badger.Txn, partition int32) (bool, error) {
	if n.seq == 0 {
		return false, nil
	}
	return get(txn, messageKey(partition, n.seq, int(n.index)), func([]byte) error { return nil })
}

// DoomedObjects returns up to limit objects of a partition that are to be deleted from the bucket.
func (t *Table) DoomedObjects(partition int32, limit int) ([]Object, error) {
	var out []Object
	prefix := append(partitionKey(prefixObject, partition, 1), 'x')
	err := t.db.View(func(txn *badger.Txn) error {
		return scanFrom(txn, prefix, prefix, func(item *badger.Item) error {
			if len(out) == limit {
				return errStop
			}
			o, err := objectOfKey(item.Key())
			out = append(out, o)
			return err
		})
	})
	if err != nil && !errors.Is(err, errStop) {
		return nil, fmt.Errorf("reading which objects are to be deleted: %w", err)
	}
	return out, nil
}

// IsDoomed reports whether an object is to be deleted still.
func (t *Table) IsDoomed(partition int32, o Object) (doomed bool, err error) {
	err = t.db.View(func(txn *badger.Txn) error {
		doomed, err = get(txn, doomedKey(partition, o), func([]byte) error { return nil })
		return err
	})
	return doomed, err
}

// ObjectDeleted notes that the bucket does not have an object any more.
func (t *Table) ObjectDeleted(partition int32, o Object) error {
	return t.changeObjects(partition, "noting a deleted object", func(c *change) error { return c.delete(doomedKey(partition, o)) })
}

func (t *Table) changeObjects(partition int32, doing string, fn func(*change) error) error {
	p, err := t.part(partition)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := t.update(p, fn); err != nil {
		return fmt.Errorf("%s of partition %d: %w", doing, partition, err)
	}
	return nil
}
