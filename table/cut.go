package table

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	badger "github.com/dgraph-io/badger/v4"
)

// Cut is the whole state at one moment. It is valid while the function given to Export runs, and for one goroutine.
type Cut struct {
	t    *Table
	txn  *badger.Txn
	only map[int32]bool // partitions; nil for all
}

// Of returns the cut of some partitions alone; none stands for all. The catalogue and what the state is belong to every cut.
func (c Cut) Of(partitions []int32) Cut {
	if len(partitions) == 0 {
		return c
	}
	c.only = map[int32]bool{}
	for _, p := range partitions {
		c.only[p] = true
	}
	return c
}

// holds reports whether a key is of the cut.
func (c Cut) holds(key []byte) bool {
	if c.only == nil {
		return true
	}
	partition, divided := partitionOf(key)
	return !divided || c.only[partition]
}

// Position is the next offset to read of one partition of one topic.
type Position struct {
	Topic     string
	Partition int32
	Next      int64
}

// Export calls fn with the state as it is at one read timestamp; writers go on beside it. Its error is returned as it is.
func (t *Table) Export(fn func(Cut) error) error {
	return t.db.View(func(txn *badger.Txn) error { return fn(Cut{t: t, txn: txn}) })
}

// Each calls fn for every key that begins with prefix, in key order; "" is the whole state, which Load takes back. Key and value are valid
// during the call.
func (c Cut) Each(prefix string, fn func(key, value []byte) error) error {
	return scanPrefix(c.txn, []byte(prefix), false, func(key, value []byte) error {
		if !c.holds(key) {
			return nil
		}
		return fn(key, value)
	})
}

// Users calls fn for every user in key order with their vector, which is nil when none is stored.
func (c Cut) Users(fn func(Row, *Vector) error) error {
	return c.t.eachRow(c.txn, func(r Row) error {
		if c.only != nil && !c.only[r.Partition] {
			return nil
		}
		var v Vector
		found, err := readVector(c.txn, r.Partition, r.UserID, &v)
		if err != nil {
			return err
		}
		if !found {
			return fn(r, nil)
		}
		return fn(r, &v)
	})
}

// Positions returns the next offsets of all topics followed, by partition and topic.
func (c Cut) Positions() ([]Position, error) {
	var out []Position
	err := c.Each(prefixOffset, func(key, value []byte) error {
		partition, topic, err := splitUserKey(key)
		if err != nil || strings.Contains(topic, "@") {
			return err // no topic's own position
		}
		r, err := decodeOffset(value)
		out = append(out, Position{Topic: topic, Partition: partition, Next: r.next})
		return err
	})
	return out, err
}

// Partitions returns the number of partitions of the state.
func (c Cut) Partitions() int32 { return c.t.options.Partitions }

// Dim returns the dimension of item embeddings.
func (c Cut) Dim() int { return c.t.options.Dim }

// Digest returns one SHA-256, in hex, over all facts in key order: rows, interned ids and forget marks. The same log and rules give the
// same digest whatever the batches and restarts.
func (c Cut) Digest() (string, error) {
	h := sha256.New()
	write := func(b []byte) {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b))))
		h.Write(b)
	}
	for _, prefix := range factPrefixes() {
		if err := c.Each(prefix, func(key, value []byte) error {
			write(key)
			write(value)
			return nil
		}); err != nil {
			return "", fmt.Errorf("digesting the facts: %w", err)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Digest is [Cut.Digest] of the state as it is.
func (t *Table) Digest() (digest string, err error) {
	err = t.Export(func(c Cut) (err error) {
		digest, err = c.Digest()
		return err
	})
	return digest, err
}

// Load makes a new state in o.Dir of the pairs that next returns until ok is false, in key order, as Cut.Each gave them. It has a state id of
// its own and claims every partition that the pairs claim with a higher epoch: whoever had them before has lost them. The state must be
// one that Open takes with these options. The directory must be absent or empty (ErrNotEmpty); it appears whole or not at all.
func Load(o Options, next func() (key, value []byte, ok bool, err error)) error {
	if err := o.validate(); err != nil {
		return err
	}
	if entries, err := os.ReadDir(o.Dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("%w: %s", ErrNotEmpty, o.Dir)
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("reading the state directory: %w", err)
	}
	parent := filepath.Dir(filepath.Clean(o.Dir))
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return fmt.Errorf("creating the state directory: %w", err)
	}
	partial, err := os.MkdirTemp(parent, filepath.Base(o.Dir)+".partial-")
	if err != nil {
		return fmt.Errorf("creating the state directory: %w", err)
	}
	defer os.RemoveAll(partial)
	final := o.Dir
	o = o.withDefaults()
	o.Dir = partial
	if err := writePairs(o, next); err != nil {
		return err
	}
	if err := os.Chmod(partial, 0o755); err != nil { // as Open makes it
		return fmt.Errorf("creating the state directory: %w", err)
	}
	if err := os.Remove(final); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("replacing the state directory: %w", err)
	}
	if err := os.Rename(partial, final); err != nil {
		return fmt.Errorf("naming the state directory: %w", err)
	}
	return syncPath(parent)
}
