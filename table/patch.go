package table

import (
	"encoding/binary"
	"fmt"

	"rebeca/prior"
	"rebeca/schemas"
)

// patch is a row while a batch is folded into it: its encoding, changed in place. It does what row.fold does and costs a copy of the row
// where decoding and encoding every entry cost ten times that; tests hold the two together.
type patch struct {
	b                   []byte
	own                 bool // b is ours to change; before, others read it
	newest, older, seen int  // numbers of entries and hashes
}

// open begins with a row as the table has it, nil for a user without one. It must be whole, see checkRow, and is not changed.
func (r *patch) open(value []byte) {
	if value == nil {
		b := make([]byte, rowHeader, rowHeader+entrySize+hashSize)
		b[0] = rowVersion
		binary.LittleEndian.PutUint64(b[rowLast:], ^uint64(0)) // -1
		*r = patch{b: b, own: true}
		return
	}
	le := binary.LittleEndian
	*r = patch{b: value, newest: int(le.Uint16(value[rowCounts:])), older: int(le.Uint16(value[rowCounts+2:])), seen: int(le.Uint16(value[rowCounts+4:]))}
}

// value returns the encoded row, which changes no more.
func (r *patch) value() []byte {
	le := binary.LittleEndian
	for i, n := range [...]int{r.newest, r.older, r.seen} {
		le.PutUint16(r.b[rowCounts+2*i:], uint16(n))
	}
	return r.b
}

func (r *patch) olderAt() int { return rowHeader + r.newest*entrySize }
func (r *patch) seenAt() int  { return r.olderAt() + r.older*entrySize }

// fold is row.fold.
func (r *patch) fold(rules *Rules, f *schemas.Feedback, offset int64, items *interner) bool {
	hash := schemas.EventHash(f.EventID)
	if r.hasSeen(hash) {
		return false
	}
	if !r.own {
		// Room for one more entry and hash; a row that is full needs none.
		room := 0
		if r.newest < rules.Newest || r.older < rules.Liked || r.seen < rules.Dedupe {
			room = entrySize + hashSize
		}
		r.b, r.own = append(make([]byte, 0, len(r.b)+room), r.b...), true
	}
	r.remember(rules, hash)
	r.count(rowEventsAt)
	binary.LittleEndian.PutUint64(r.b[rowLast:], uint64(offset))
	if f.Kind == schemas.KindUndo {
		if item, ok := items.find(f.ItemID); ok {
			r.undo(item)
		}
		return true
	}
	class := rules.Classes.of(f.Kind, f.Value)
	if class == prior.ClassNone {
		return true
	}
	if class.Positive() {
		r.count(rowPositives)
	} else {
		r.count(rowNegatives)
	}
	r.push(rules, entry{
		item: items.intern(f.ItemID), kind: kindCode(f.Kind), class: class, at: f.OccurredAt.UnixMilli(), offset: offset, hash: hash,
	})
	return true
}

func (r *patch) hasSeen(hash uint64) bool {
	b := r.b[r.seenAt():]
	for ; len(b) >= hashSize; b = b[hashSize:] {
		if binary.LittleEndian.Uint64(b) == hash {
			return true
		}
	}
	return false
}

func (r *patch) remember(rules *Rules, hash uint64) {
	if r.seen < rules.Dedupe {
		r.b = binary.LittleEndian.AppendUint64(r.b, hash)
		r.seen++
		return
	}
	hashes := r.b[r.seenAt():]
	copy(hashes, hashes[hashSize:])
	binary.LittleEndian.PutUint64(hashes[len(hashes)-hashSize:], hash)
}

// count raises a counter of the header.
func (r *patch) count(at int) {
	binary.LittleEndian.PutUint64(r.b[at:], binary.LittleEndian.Uint64(r.b[at:])+1)
}

// undo is row.undo.
func (r *patch) undo(item uint32) {
	for i := r.newest + r.older - 1; i >= 0; i-- {
		at := rowHeader + i*entrySize
		if binary.LittleEndian.Uint32(r.b[at:]) != item {
			continue
		}
		r.b = append(r.b[:at], r.b[at+entrySize:]...)
		if i < r.newest {
			r.newest--
		} else {
			r.older--
		}
	}
}

// push is row.push: at most one entry leaves the newest, since a row keeps to its rules.
func (r *patch) push(rules *Rules, e entry) {
	if r.newest < rules.Newest {
		r.insert(r.olderAt(), e)
		r.newest++
		return
	}
	left := decodeEntry(r.b[rowHeader:])
	newest := r.b[rowHeader:r.olderAt()]
	copy(newest, newest[entrySize:])
	e.append(newest[:len(newest)-entrySize])
	if left.class == prior.StrongPositive {
		r.pushOlder(rules, left)
	}
}

func (r *patch) pushOlder(rules *Rules, e entry) {
	if r.older < rules.Liked {
		r.insert(r.seenAt(), e)
		r.older++
		return
	}
	older := r.b[r.olderAt():r.seenAt()]
	out, largest := len(older), e.hash // of equal hashes the newer leaves, and e is the newest
	for at := len(older) - entrySize; at >= 0; at -= entrySize {
		if hash := binary.LittleEndian.Uint64(older[at+entryHash:]); hash > largest {
			out, largest = at, hash
		}
	}
	if out == len(older) {
		return
	}
	copy(older[out:], older[out+entrySize:])
	e.append(older[:len(older)-entrySize])
}

// insert puts an entry at a place in the row.
func (r *patch) insert(at int, e entry) {
	var room [entrySize]byte
	r.b = append(r.b, room[:]...)
	copy(r.b[at+entrySize:], r.b[at:])
	e.append(r.b[:at])
}

// checkRow refuses an encoded row that is not whole. Errors wrap ErrCorrupt.
func checkRow(b []byte) error {
	if len(b) < rowHeader {
		return fmt.Errorf("%w: row of %d bytes", ErrCorrupt, len(b))
	}
	if b[0] != rowVersion {
		return fmt.Errorf("%w: row of version %d", ErrCorrupt, b[0])
	}
	le := binary.LittleEndian
	newest, older, seen := int(le.Uint16(b[rowCounts:])), int(le.Uint16(b[rowCounts+2:])), int(le.Uint16(b[rowCounts+4:]))
	if want := rowHeader + (newest+older)*entrySize + seen*hashSize; len(b) != want {
		return fmt.Errorf("%w: row of %d bytes where its counts make %d", ErrCorrupt, len(b), want)
	}
	for i := range newest + older {
		kind, class := b[rowHeader+i*entrySize+entryKind]>>4, prior.Class(b[rowHeader+i*entrySize+entryKind]&15)
		if kind == 0 || int(kind) >= len(kindCodes) || class == prior.ClassNone || class > prior.NumClasses {
			return fmt.Errorf("%w: entry of kind %d and class %d", ErrCorrupt, kind, class)
		}
	}
	return nil
}
