package table

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	badger "github.com/dgraph-io/badger/v4"
)

// Erased says what a run of Erase did.
type Erased struct {
	Users   int // whose last bytes are gone from the state's files
	Pending int // forgotten users that something is still held of
}

// erasePasses bounds a run: what is left then (a long reader holds on to it, a message is unsent) waits for the next.
const erasePasses = 3

// ErasePending returns how many forgotten users are not known to be erased from the state's files.
func (t *Table) ErasePending() int { return int(t.erasures.Load()) }

// Erase removes the bytes that the state's files still hold of users forgotten before it was called: older versions of their keys, the
// marks of deletion, and their messages that were sent. A forget leaves a note of what is to be erased (`e/`), which goes only when a scan of
// every version finds nothing more, so a run that was stopped is done again. It rewrites the tables below (all of them in the worst
// case) while writers go on beside it. ctx is looked at between its steps: one step is a rewrite of the tables, at the pace of the disk.
func (t *Table) Erase(ctx context.Context) (Erased, error) {
	t.collecting.Lock()
	defer t.collecting.Unlock()
	done, err := t.erase(ctx)
	out := Erased{Users: done, Pending: t.ErasePending()}
	if err != nil && ctx.Err() == nil {
		return out, fmt.Errorf("erasing what is held of forgotten users: %w", err)
	}
	return out, err
}

func (t *Table) erase(ctx context.Context) (done int, err error) {
	wanted := t.toErase()
	for pass := 0; len(wanted) > 0; pass++ {
		left, err := t.remnants(ctx, wanted)
		if err != nil {
			return done, err
		}
		clean := wanted.without(left.held)
		if len(clean) > 0 && len(left.keys) == 0 {
			if err := t.collect(eraseRatio); err != nil { // their large values
				return done, err
			}
			n, err := t.erased(clean)
			return done + n, err
		}
		if len(left.keys) == 0 || pass == erasePasses {
			return done, nil
		}
		if err := t.rewrite(ctx, left); err != nil {
			return done, err
		}
	}
	return done, nil
}

// erasing is a set of forgotten users by partition, each with the number of the note that it was taken from.
type erasing map[int32]map[forgotten]uint64

func (e erasing) add(partition int32, f forgotten, note uint64) {
	if e[partition] == nil {
		e[partition] = map[forgotten]uint64{}
	}
	e[partition][f] = note
}

func (e erasing) has(partition int32, user []byte) bool {
	of := e[partition]
	if len(of) == 0 {
		return false
	}
	_, ok := of[forgottenOf(user)]
	return ok
}

// without returns the users of e that are not in other.
func (e erasing) without(other erasing) erasing {
	out := erasing{}
	for partition, users := range e {
		for f, note := range users {
			if _, ok := other[partition][f]; !ok {
				out.add(partition, f, note)
			}
		}
	}
	return out
}

func (t *Table) toErase() erasing {
	out := erasing{}
	for _, p := range t.partitions {
		p.mu.Lock()
		for f, note := range p.erase {
			out.add(p.id, f, note)
		}
		p.mu.Unlock()
	}
	return out
}

// noteErasure leaves word that the files are to be cleaned of a user.
func (c *change) noteErasure(f forgotten) error {
	if err := c.set(eraseKey(c.p.id, f), []byte{valueVersion}); err != nil {
		return err
	}
	c.then(func() {
		if _, noted := c.p.erase[f]; !noted {
			c.t.erasures.Add(1)
		}
		c.p.notes++
		c.p.erase[f] = c.p.notes
	})
	return nil
}

// erased takes the notes of users away. One who was forgotten again since users were taken keeps theirs: that life is not erased.
func (t *Table) erased(users erasing) (n int, err error) {
	for partition, of := range users {
		p := t.partitions[partition]
		err := func() error {
			p.mu.Lock()
			defer p.mu.Unlock()
			return t.update(p, func(c *change) error {
				for f, note := range of {
					if now, noted := p.erase[f]; !noted || now != note {
						continue
					}
					if err := c.delete(eraseKey(p.id, f)); err != nil {
						return err
					}
					c.then(func() {
						delete(p.erase, f)
						t.erasures.Add(-1)
						n++
					})
				}
				return nil
			})
		}()
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// remnants are what the files still hold of forgotten users.
type remnants struct {
	keys  map[int32][][]byte // with a version that should be gone, by partition
	held  erasing            // users that something is held of; without numbers
	large bool               // some of it lies in the value log
}

// remnants looks through every version of every key that can name a user.
func (t *Table) remnants(ctx context.Context, wanted erasing) (remnants, error) {
	out := remnants{keys: map[int32][][]byte{}, held: erasing{}}
	err := t.db.View(func(txn *badger.Txn) error {
		for _, prefix := range []string{prefixRow, prefixVector, prefixMemory, prefixQueue} {
			if err := t.remnantsOf(ctx, txn, prefix, wanted, &out); err != nil {
				return err
			}
		}
		return nil
	})
	return out, err
}

func (t *Table) remnantsOf(ctx context.Context, txn *badger.Txn, prefix string, wanted erasing, out *remnants) error {
	o := badger.DefaultIteratorOptions
	o.Prefix, o.AllVersions, o.PrefetchValues = []byte(prefix), true, false
	it := txn.NewIterator(o)
	defer it.Close()
	var key []byte
	n := 0
	for it.Rewind(); it.Valid(); it.Next() {
		if n++; n%10_000 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		item := it.Item()
		newest := !bytes.Equal(item.Key(), key)
		key = append(key[:0], item.Key()...)
		if err := t.remnant(item, newest, wanted, out); err != nil {
			return err
		}
	}
	return nil
}

// remnant judges one version of a key.
func (t *Table) remnant(item *badger.Item, newest bool, wanted erasing, out *remnants) error {
	partition, user, null, err := owner(item)
	if err != nil && !newest && item.ValueSize() >= valueThreshold {
		return nil // its file is gone
	}
	if err != nil || user == nil || !wanted.has(partition, user) {
		return err
	}
	if newest && !item.IsDeletedOrExpired() {
		// It lives: of a new life, or a message that is still to be sent. The null for `vectors` is always of the life that is over.
		if null || item.Key()[0] == prefixQueue[0] && !t.users.has(string(user)) {
			out.held.add(partition, forgottenOf(user), 0)
		}
		return nil
	}
	out.held.add(partition, forgottenOf(user), 0)
	out.large = out.large || item.ValueSize() >= valueThreshold
	keys := out.keys[partition]
	if n := len(keys); n == 0 || !bytes.Equal(keys[n-1], item.Key()) {
		out.keys[partition] = append(keys, item.KeyCopy(nil))
	}
	return nil
}

// owner returns the user that a version of a key names, nil for none, and whether it is a null for `vectors`.
func owner(item *badger.Item) (partition int32, user []byte, null bool, err error) {
	key := item.Key()
	if len(key) < 7 {
		return 0, nil, false, fmt.Errorf("%w: key %q", ErrCorrupt, key)
	}
	partition = int32(binary.BigEndian.Uint32(key[2:]))
	switch rest := key[7:]; string(key[:2]) {
	case prefixRow, prefixVector:
		return partition, rest, false, nil
	case prefixMemory:
		if len(rest) < 2 || len(rest) < 2+int(binary.BigEndian.Uint16(rest)) {
			return 0, nil, false, fmt.Errorf("%w: key %q", ErrCorrupt, key)
		}
		return partition, rest[2 : 2+binary.BigEndian.Uint16(rest)], false, nil
	}
	if item.IsDeletedOrExpired() {
		return partition, nil, false, nil // a number names nobody
	}
	err = item.Value(func(b []byte) error {
		if key[7] == 'i' {
			in, _, err := decodeIntent(b)
			user = []byte(in.UserID)
			return err
		}
		role, key, none, err := messageOwner(b)
		user, null = bytes.Clone(key), role == RoleVectors && none
		return err
	})
	return partition, user, null, err
}

// rewrite drops the remnants: a new version of each key, which covers the old ones, is taken down through the tables, where Badger leaves
// the old ones out, and a mark of deletion at last too.
func (t *Table) rewrite(ctx context.Context, r remnants) error {
	for partition, keys := range r.keys {
		for len(keys) > 0 {
			n := min(len(keys), trimChunk)
			if err := t.renew(t.partitions[partition], keys[:n]); err != nil {
				return err
			}
			keys = keys[n:]
		}
	}
	if r.large {
		// Badger collects no file that it writes, and none while that one has the most to collect: it is filled up.
		if err := t.fill(ctx, valueThreshold, ".vlog"); err != nil {
			return err
		}
	}
	if err := t.flush(ctx); err != nil {
		return err
	}
	for range maxFlushes {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if t.sunk() {
			if err := t.db.Flatten(1); err != nil {
				return fmt.Errorf("rewriting the tables: %w", err)
			}
			return nil
		}
		if err := t.flush(ctx); err != nil {
			return err
		}
	}
	return nil // the next pass tries again
}

// maxFlushes is twice the number of tables at which Badger compacts the first level by itself.
const maxFlushes = 10

// sunk reports whether a level below the first has tables: while none has, Flatten does nothing.
func (t *Table) sunk() bool {
	for _, l := range t.db.Levels() {
		if l.Level > 0 && l.NumTables > 0 {
			return true
		}
	}
	return false
}

// renew writes keys again as they are: those that live with their value, the others deleted.
func (t *Table) renew(p *partition, keys [][]byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(keys) > 0 {
		done := 0
		if err := t.update(p, func(c *change) error {
			spent := int64(0)
			for ; done < len(keys) && spent < t.budget/2; done++ {
				var value []byte
				there, err := get(c.txn, keys[done], func(b []byte) error { value = bytes.Clone(b); return nil })
				if err == nil && there {
					err = c.set(keys[done], value)
				} else if err == nil {
					err = c.delete(keys[done])
				}
				if err != nil {
					return err
				}
				spent += int64(len(keys[done])+len(value)) + 128
			}
			return nil
		}); err != nil {
			return err
		}
		keys = keys[done:]
	}
	return nil
}

// flush has Badger write its memtables to tables and remove their logs. It has no call for that which lets writers go on, but a log
// that is full is rotated: it is filled with a value that nobody needs.
func (t *Table) flush(ctx context.Context) error {
	first := t.wal.active.Load()
	if err := t.fill(ctx, valueThreshold/2, memExtension); err != nil {
		return err
	}
	for {
		if _, err := os.Stat(t.wal.path(first)); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// fill writes zeros of a size under one key until a new file of an extension is there, and deletes the key.
func (t *Table) fill(ctx context.Context, size int, extension string) error {
	p, value := t.partitions[0], make([]byte, size)
	first, err := newestFile(t.options.Dir, extension)
	for now := first; err == nil && now == first; now, err = newestFile(t.options.Dir, extension) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		p.mu.Lock()
		err := t.update(p, func(c *change) error { return c.set(keyFill, value) })
		p.mu.Unlock()
		if err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return t.update(p, func(c *change) error { return c.delete(keyFill) })
}
