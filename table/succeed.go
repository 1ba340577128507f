package table

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	badger "github.com/dgraph-io/badger/v4"
)

// ErrApart is returned by Succeed for two states that are not folded equally far.
var ErrApart = errors.New("the states are at different offsets")

// Rules returns the rules that the state was born with.
func (t *Table) Rules() Rules { return t.options.Rules }

// Succeed makes t the successor of old, a state of the same partitions and dimension that has been folded to the same offsets of the given
// topics (ErrApart). t keeps its facts, its catalogue, its offsets of those topics and its notes of what is to be erased. All else is old's afterwards: intents, outbox,
// generated memory, the offsets of requests and of what is sent; so what was asked is answered and what was sent is not sent again. So are
// the state's name, under a writer epoch above both, and forget marks that t does not have. Vectors are dropped, to be made anew of t's
// facts, and a null is put on `vectors` for each user who had one and is gone.
//
// It may be repeated after an interruption. Its memory does not know what was taken over, so t writes no more (ErrFenced): it is to be closed
// and opened again. old is only read. tell hears how many
// keys were taken over, now and then; nil: nobody.
func (t *Table) Succeed(old *Table, topics []string, tell func(keys int)) error {
	if err := t.alike(old, topics); err != nil {
		return err
	}
	if tell == nil {
		tell = func(int) {}
	}
	own := keepsOwn(topics)
	if err := t.dropForeign(own); err != nil {
		return fmt.Errorf("making room for what is taken over: %w", err)
	}
	err := old.Export(func(c Cut) error {
		w := t.db.NewWriteBatch()
		defer w.Cancel()
		if err := t.takeOver(w, c, own, tell); err != nil {
			return err
		}
		if err := t.dismissUsers(w, c); err != nil {
			return err
		}
		return w.Flush()
	})
	if err != nil {
		return fmt.Errorf("taking over the other state: %w", err)
	}
	// The name comes last: a state that has it has all.
	if err := t.takeName(old); err != nil {
		return fmt.Errorf("taking over the other state's name: %w", err)
	}
	return t.Sync()
}

// alike checks that the two states can follow each other.
func (t *Table) alike(old *Table, topics []string) error {
	a, b := t.options, old.options
	switch {
	case a.Partitions != b.Partitions:
		return fmt.Errorf("%w: %d and %d", ErrPartitions, a.Partitions, b.Partitions)
	case a.Dim != b.Dim:
		return fmt.Errorf("%w: %d and %d", ErrDim, a.Dim, b.Dim)
	}
	for _, topic := range topics {
		for p := range a.Partitions {
			mine, _, _, err := t.Offset(topic, p)
			if err != nil {
				return err
			}
			theirs, _, _, err := old.Offset(topic, p)
			if err != nil {
				return err
			}
			if mine != theirs {
				return fmt.Errorf("%w: %s[%d] is at %d here and at %d there", ErrApart, topic, p, mine, theirs)
			}
		}
	}
	return nil
}

// keepsOwn returns a test of keys: whether one is of what a successor keeps of its own, or of its name. Notes of what its files hold of
// forgotten users are its own too; the other state's come beside them, for what is taken over.
func keepsOwn(topics []string) func(key []byte) bool {
	prefixes := append(factPrefixes(), prefixErase, prefixItem, prefixMeta)
	return func(key []byte) bool {
		if slices.ContainsFunc(prefixes, func(prefix string) bool { return bytes.HasPrefix(key, []byte(prefix)) }) {
			return true
		}
		if !bytes.HasPrefix(key, []byte(prefixOffset)) && !bytes.HasPrefix(key, []byte(prefixGaps)) {
			return false
		}
		_, topic, err := splitUserKey(key)
		return err == nil && slices.Contains(topics, topic)
	}
}

// dropForeign deletes all that is not the successor's own, such as vectors and the traces of a take-over that was interrupted.
func (t *Table) dropForeign(own func(key []byte) bool) error {
	w := t.db.NewWriteBatch()
	defer w.Cancel()
	err := t.db.View(func(txn *badger.Txn) error {
		return scanPrefix(txn, nil, true, func(key, _ []byte) error {
			if own(key) {
				return nil
			}
			return w.Delete(bytes.Clone(key))
		})
	})
	if err != nil {
		return err
	}
	return w.Flush()
}

// takeOver copies what is not the successor's own, vectors left out, and the forget marks that it lacks.
func (t *Table) takeOver(w *badger.WriteBatch, c Cut, own func(key []byte) bool, tell func(int)) error {
	n := 0
	return c.Each("", func(key, value []byte) error {
		switch {
		case bytes.HasPrefix(key, []byte(prefixVector)):
			return nil
		case bytes.HasPrefix(key, []byte(prefixForgot)):
			if _, there := t.markAt(key); there {
				return nil
			}
		case bytes.HasPrefix(key, []byte(prefixErase)):
		case own(key):
			return nil
		}
		if n++; n%10000 == 0 {
			tell(n)
		}
		return w.Set(bytes.Clone(key), bytes.Clone(value))
	})
}

// markAt returns the forget mark under a key.
func (t *Table) markAt(key []byte) (m mark, ok bool) {
	partition, name, err := splitUserKey(key)
	if err != nil || len(name) != len(forgotten{}) || partition < 0 || partition >= t.options.Partitions {
		return m, false
	}
	m, ok = t.partitions[partition].marks[forgotten([]byte(name))]
	return m, ok
}

// dismissUsers puts a null on `vectors` for those who had a vector and have no row any more.
func (t *Table) dismissUsers(w *badger.WriteBatch, c Cut) error {
	if t.options.Silent {
		return nil
	}
	seqs := map[int32]uint64{}
	err := scanPrefix(c.txn, []byte(prefixVector), true, func(key, _ []byte) error {
		partition, user, err := splitUserKey(key)
		if err != nil || t.users.has(user) {
			return err
		}
		if _, ok := seqs[partition]; !ok {
			if _, err := get(c.txn, seqKey(partition), func(b []byte) (err error) {
				seqs[partition], err = decodeUint64("sequence number", b)
				return err
			}); err != nil {
				return err
			}
		}
		seqs[partition]++
		return w.Set(messageKey(partition, seqs[partition], 0), encodeMessage(&Message{Role: RoleVectors, Key: []byte(user)}, nil))
	})
	for partition, seq := range seqs {
		if err == nil {
			err = w.Set(seqKey(partition), encodeUint64(seq))
		}
	}
	return err
}

// takeName writes old's name and an epoch above both, so that whoever knows the state by them sees it go on.
func (t *Table) takeName(old *Table) error {
	m := t.meta
	m.State = old.meta.State
	b, err := json.Marshal(m)
	if err != nil {
		panic("table: encoding meta: " + err.Error())
	}
	return t.db.Update(func(txn *badger.Txn) error {
		if err := txn.Set(keyMeta, b); err != nil {
			return err
		}
		return txn.Set(keyEpoch, encodeUint64(max(t.epoch, old.epoch)+1))
	})
}
