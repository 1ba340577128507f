package table

import (
	"bytes"
	"errors"
	"fmt"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/ristretto/v2/z"
)

// loadChunk is how many bytes of pairs are handed to Badger at once.
const loadChunk = 1 << 20

// loadVersion is the version of every key loaded; a transaction's are higher.
const loadVersion = 1

// writePairs writes pairs in key order into an empty database, as sorted tables at the bottom of the tree: what transactions write goes
// through log, memory and every level. Pairs and their order are judged on the way, so that the state need not be opened to be trusted.
func writePairs(o Options, next func() (key, value []byte, ok bool, err error)) error {
	db, err := openBadger(o, nil)
	if err != nil {
		return err
	}
	w := &loader{
		writer: db.NewStreamWriter(), buffer: z.NewBuffer(2*loadChunk, "table.load"), arrival: arrival{options: o, items: map[int32]uint32{}},
	}
	err = w.load(next)
	return errors.Join(err, w.buffer.Release(), db.Sync(), db.Close())
}

// errOrder is a fault of whoever gives the pairs: Cut.Each gives them right.
var errOrder = errors.New("pairs out of key order")

type loader struct {
	writer  *badger.StreamWriter
	buffer  *z.Buffer
	arrival arrival
	last    []byte
}

func (l *loader) load(next func() (key, value []byte, ok bool, err error)) error {
	if err := l.writer.Prepare(); err != nil {
		return fmt.Errorf("preparing the state: %w", err)
	}
	if err := l.pass(next); err != nil {
		l.writer.Cancel()
		return err
	}
	if err := l.writer.Flush(); err != nil {
		return fmt.Errorf("loading the state: %w", err)
	}
	return nil
}

func (l *loader) pass(next func() (key, value []byte, ok bool, err error)) error {
	for {
		key, value, ok, err := next()
		switch {
		case err != nil:
			return err
		case !ok && !l.arrival.found:
			return fmt.Errorf("loading the state: %w: the pairs lack %s", ErrVersion, keyMeta)
		case !ok:
			return l.send()
		case l.last != nil && bytes.Compare(key, l.last) <= 0:
			return fmt.Errorf("loading the state: %w: %.40q after %.40q", errOrder, key, l.last)
		}
		l.last = append(l.last[:0], key...)
		if value, err = l.arrival.admit(key, value); err != nil {
			return fmt.Errorf("loading the state: %w", err)
		}
		badger.KVToBuffer(&pb.KV{Key: key, Value: value, Version: loadVersion}, l.buffer)
		if l.buffer.LenNoPadding() >= loadChunk {
			if err := l.send(); err != nil {
				return err
			}
		}
	}
}

// send hands over what has been gathered; the writer copies it.
func (l *loader) send() error {
	defer l.buffer.Reset()
	if err := l.writer.Write(l.buffer); err != nil {
		return fmt.Errorf("loading the state: %w", err)
	}
	return nil
}
