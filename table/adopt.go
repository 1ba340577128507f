package table

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	badger "github.com/dgraph-io/badger/v4"
)

// Errors of Adopt; test with errors.Is.
var (
	ErrNotThere = errors.New("partition is not in the snapshot")
	ErrNewer    = errors.New("state has had the partition since")
)

// newStateID is random.
func newStateID() string {
	var id [16]byte
	rand.Read(id[:])
	return hex.EncodeToString(id[:])
}

// raised is a claim that stands above c and above another epoch.
func raised(c Claim, other uint64) Claim {
	return Claim{Epoch: max(c.Epoch, other) + 1, Since: time.Now().UTC().Truncate(time.Millisecond)}
}

// Claims returns the state's claims by partition.
func (t *Table) Claims() (map[int32]Claim, error) {
	out := map[int32]Claim{}
	err := t.db.View(func(txn *badger.Txn) error {
		return scanPrefix(txn, []byte(prefixClaim), false, func(key, value []byte) error {
			if len(key) != 7 {
				return fmt.Errorf("%w: key %q", ErrCorrupt, key)
			}
			c, err := decodeClaim(value)
			out[int32(binary.BigEndian.Uint32(key[2:]))] = c
			return err
		})
	})
	return out, err
}

// Adopt replaces partitions of the state in o.Dir by those of a snapshot and claims them with an epoch above its owner's. each calls its
// function for all pairs of the snapshot in key order; it is called twice. partitions names those wanted, none stands for all that the
// snapshot claims. The catalogue, whose topic is items, stays the state's own. A partition that was only half replaced when Adopt ended early
// is marked and cannot be served until Adopt has succeeded. It returns the partitions adopted.
//
// Errors: those of Open, ErrRules and the like where the snapshot differs, ErrNotThere, ErrNewer where the state's own claim is above the
// snapshot's.
func Adopt(o Options, partitions []int32, items string, each func(fn func(key, value []byte) error) error) (adopted []int32, err error) {
	t, err := Open(o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	claims, err := t.wanted(partitions, each)
	if err != nil {
		return nil, err
	}
	for p := range claims {
		adopted = append(adopted, p)
	}
	slices.Sort(adopted)
	for _, p := range adopted {
		if err := t.vacate(p, claims[p], items); err != nil {
			return nil, fmt.Errorf("emptying partition %d: %w", p, err)
		}
	}
	if err := t.settleIn(claims, items, each); err != nil {
		return nil, err
	}
	for _, p := range adopted {
		claim := claims[p]
		if err := t.db.Update(func(txn *badger.Txn) error { return txn.Set(claimKey(p), claim.encode()) }); err != nil {
			return nil, fmt.Errorf("claiming partition %d: %w", p, err)
		}
	}
	return adopted, t.Sync()
}

// wanted reads what the snapshot is and claims, and returns the claims to make.
func (t *Table) wanted(partitions []int32, each func(fn func(key, value []byte) error) error) (map[int32]Claim, error) {
	theirs, own := map[int32]Claim{}, map[int32]Claim{}
	var what meta
	err := each(func(key, value []byte) error {
		switch {
		case bytes.HasPrefix(key, []byte(prefixClaim)) && len(key) == 7:
			c, err := decodeClaim(value)
			theirs[int32(binary.BigEndian.Uint32(key[2:]))] = c
			return err
		case bytes.Equal(key, keyMeta):
			if err := what.decode(value); err != nil {
				return err
			}
			return errStop // it comes after the claims
		}
		return nil
	})
	if err != nil && !errors.Is(err, errStop) {
		return nil, err
	}
	if err := what.compare(t.options); err != nil {
		return nil, fmt.Errorf("the snapshot is of another kind: %w", err)
	}
	if own, err = t.Claims(); err != nil {
		return nil, err
	}
	if len(partitions) == 0 {
		for p := range theirs {
			partitions = append(partitions, p)
		}
	}
	out := map[int32]Claim{}
	for _, p := range partitions {
		c, ok := theirs[p]
		switch {
		case !ok || c.Partial:
			return nil, fmt.Errorf("%w: %d", ErrNotThere, p)
		case own[p].Epoch > c.Epoch && !own[p].Partial:
			return nil, fmt.Errorf("%w: partition %d, epoch %d here and %d in the snapshot; make a snapshot where it is owned now", ErrNewer, p, own[p].Epoch, c.Epoch)
		}
		out[p] = raised(c, own[p].Epoch)
	}
	return out, nil
}

// vacate marks a partition and deletes all that is in it, but how far the catalogue is read.
func (t *Table) vacate(p int32, claim Claim, items string) error {
	claim.Partial, claim.Epoch = true, claim.Epoch-1
	if err := t.db.Update(func(txn *badger.Txn) error { return txn.Set(claimKey(p), claim.encode()) }); err != nil {
		return err
	}
	if err := t.Sync(); err != nil {
		return err
	}
	var gone [][]byte
	err := t.db.View(func(txn *badger.Txn) error {
		for _, prefix := range dividedPrefixes() {
			if err := scanPrefix(txn, partitionKey(prefix, p, 0), true, func(key, _ []byte) error {
				if !ofCatalogue(key, items, p) {
					gone = append(gone, bytes.Clone(key))
				}
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	batch := t.db.NewWriteBatch()
	defer batch.Cancel()
	for _, key := range gone {
		if err := batch.Delete(key); err != nil {
			return err
		}
	}
	return batch.Flush()
}

// ofCatalogue reports whether a key says how far the catalogue is read and over which gaps.
func ofCatalogue(key []byte, items string, p int32) bool {
	return bytes.Equal(key, offsetKey(items, p)) || bytes.Equal(key, gapsKey(items, p))
}

// dividedPrefixes are those of keys that belong to a partition. The claim is left out, and what is still to be erased from this state's files.
func dividedPrefixes() []string {
	return []string{prefixGaps, prefixBuried, prefixForgot, prefixObject, prefixMemory, prefixInterned, prefixOffset, prefixQueue, prefixSeq, prefixRow, prefixVector}
}

// settleIn writes the pairs of the partitions adopted. The snapshot knows nothing of what this state's files hold of those who were
// forgotten elsewhere, so each of their marks brings a note along (see Erase).
func (t *Table) settleIn(claims map[int32]Claim, items string, each func(fn func(key, value []byte) error) error) error {
	batch := t.db.NewWriteBatch()
	defer batch.Cancel()
	err := each(func(key, value []byte) error {
		p, divided := partitionOf(key)
		_, ours := claims[p]
		if !divided || !ours || bytes.HasPrefix(key, []byte(prefixClaim)) || bytes.HasPrefix(key, []byte(prefixErase)) || ofCatalogue(key, items, p) {
			return nil
		}
		err := batch.Set(bytes.Clone(key), bytes.Clone(value))
		if name := key[len(prefixForgot)+5:]; err == nil && bytes.HasPrefix(key, []byte(prefixForgot)) && len(name) == len(forgotten{}) {
			err = batch.Set(eraseKey(p, forgotten(name)), []byte{valueVersion})
		}
		if err != nil {
			return fmt.Errorf("adopting partition %d: %w", p, err)
		}
		return nil
	})
	if err == nil {
		err = batch.Flush()
	}
	return errors.Join(err, t.Sync())
}
