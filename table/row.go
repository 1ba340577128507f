package table

import (
	"encoding/binary"
	"fmt"
	"time"

	"rebeca/prior"
	"rebeca/schemas"
)

// Row is a user as readers see them.
type Row struct {
	UserID     string
	Partition  int32
	Events     uint64  // distinct events folded; only rises
	Positives  uint64  // those of a positive class
	Negatives  uint64  // those of a negative class
	Window     []Entry // the newest first, then the older likes, the newest of them first
	LastOffset int64   // of the last feedback folded for this user; -1 before the first
	// Seen are the hashes of the last distinct event ids (schemas.EventHash), by which resends are known, the oldest first.
	Seen []uint64
}

// Entry is one event of a window.
type Entry struct {
	ItemID     string
	Kind       schemas.Kind
	Class      prior.Class
	OccurredAt time.Time // UTC, in milliseconds
	Offset     int64     // in the user's partition of the feedback topic
	EventHash  uint64    // schemas.EventHash of the event id
	Older      bool      // from the reservoir of older likes
}

// Encoding of a row, little-endian; DESIGN.md has the boxes.
const (
	rowVersion = 1
	rowHeader  = 1 + 3*8 + 8 + 3*2
	entrySize  = 4 + 1 + 6 + 6 + 8
	hashSize   = 8
	max48      = 1<<48 - 1

	// Places in the header and in an entry.
	rowEventsAt  = 1
	rowPositives = 9
	rowNegatives = 17
	rowLast      = 25
	rowCounts    = 33
	entryKind    = 4
	entryHash    = 17
)

// rowSize is the size of a full row under the rules.
func rowSize(r Rules) int { return rowHeader + (r.Newest+r.Liked)*entrySize + r.Dedupe*hashSize }

func (r *row) size() int {
	return rowHeader + (len(r.newest)+len(r.older))*entrySize + len(r.seen)*hashSize
}

// encode returns the row's value. Times outside 1970 to the year 10889 are cut to it.
func (r *row) encode() []byte {
	b := make([]byte, 0, r.size())
	b = append(b, rowVersion)
	for _, n := range [...]uint64{r.events, r.positives, r.negatives, uint64(r.last)} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	for _, n := range [...]int{len(r.newest), len(r.older), len(r.seen)} {
		b = binary.LittleEndian.AppendUint16(b, uint16(n))
	}
	for _, e := range r.newest {
		b = e.append(b)
	}
	for _, e := range r.older {
		b = e.append(b)
	}
	for _, h := range r.seen {
		b = binary.LittleEndian.AppendUint64(b, h)
	}
	return b
}

func (e entry) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, e.item)
	b = append(b, e.kind<<4|uint8(e.class))
	b = append48(b, uint64(min(max(e.at, 0), max48)))
	b = append48(b, uint64(e.offset))
	return binary.LittleEndian.AppendUint64(b, e.hash)
}

func append48(b []byte, v uint64) []byte {
	return append(b, byte(v), byte(v>>8), byte(v>>16), byte(v>>24), byte(v>>32), byte(v>>40))
}

func uint48(b []byte) uint64 {
	_ = b[5]
	return uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 | uint64(b[4])<<32 | uint64(b[5])<<40
}

// rowEvents reads the number of events without decoding the rest.
func rowEvents(b []byte) (uint64, error) {
	if len(b) < rowHeader || b[0] != rowVersion {
		return 0, fmt.Errorf("%w: row of %d bytes", ErrCorrupt, len(b))
	}
	return binary.LittleEndian.Uint64(b[1:]), nil
}

// decode reads a row into r, reusing its slices. Errors wrap ErrCorrupt.
func (r *row) decode(b []byte) error {
	if err := checkRow(b); err != nil {
		return err
	}
	le := binary.LittleEndian
	r.events, r.positives, r.negatives = le.Uint64(b[rowEventsAt:]), le.Uint64(b[rowPositives:]), le.Uint64(b[rowNegatives:])
	r.last = int64(le.Uint64(b[rowLast:]))
	newest, older, seen := int(le.Uint16(b[rowCounts:])), int(le.Uint16(b[rowCounts+2:])), int(le.Uint16(b[rowCounts+4:]))
	b = b[rowHeader:]
	r.newest, b = decodeEntries(r.newest[:0], b, newest)
	r.older, b = decodeEntries(r.older[:0], b, older)
	r.seen = r.seen[:0]
	for i := range seen {
		r.seen = append(r.seen, le.Uint64(b[i*hashSize:]))
	}
	return nil
}

func decodeEntries(dst []entry, b []byte, n int) ([]entry, []byte) {
	for range n {
		dst = append(dst, decodeEntry(b))
		b = b[entrySize:]
	}
	return dst, b
}

func decodeEntry(b []byte) entry {
	return entry{
		item: binary.LittleEndian.Uint32(b), kind: b[entryKind] >> 4, class: prior.Class(b[entryKind] & 15),
		at: int64(uint48(b[5:])), offset: int64(uint48(b[11:])), hash: binary.LittleEndian.Uint64(b[entryHash:]),
	}
}

// public converts r, resolving interned ids by names.
func (r *row) public(user string, partition int32, names []string) (Row, error) {
	out := Row{
		UserID: user, Partition: partition, Events: r.events, Positives: r.positives, Negatives: r.negatives, LastOffset: r.last, Seen: r.seen,
		Window: make([]Entry, 0, len(r.newest)+len(r.older)),
	}
	for k, part := range [...][]entry{r.newest, r.older} {
		for i := len(part) - 1; i >= 0; i-- {
			e := part[i]
			if int(e.item) >= len(names) {
				return Row{}, fmt.Errorf("%w: user %q refers to item number %d of %d", ErrCorrupt, user, e.item, len(names))
			}
			out.Window = append(out.Window, Entry{
				ItemID: names[e.item], Kind: kindCodes[e.kind], Class: e.class, OccurredAt: time.UnixMilli(e.at).UTC(),
				Offset: e.offset, EventHash: e.hash, Older: k == 1,
			})
		}
	}
	return out, nil
}
