package table

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"

	badger "github.com/dgraph-io/badger/v4"
	"golang.org/x/sync/errgroup"
)

// load fills memory from the state, the partitions side by side: nobody writes yet.
func (t *Table) load() error {
	users := make([][]string, len(t.partitions))
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, p := range t.partitions {
		group.Go(func() error {
			return t.db.View(func(txn *badger.Txn) (err error) {
				if users[i], err = t.loadPartition(txn, p); err != nil {
					return fmt.Errorf("partition %d: %w", p.id, err)
				}
				return nil
			})
		})
	}
	group.Go(func() error { return t.db.View(t.loadCatalogue) })
	if err := group.Wait(); err != nil {
		return err
	}
	t.users.load(users)
	return nil
}

// loadPartition returns the partition's users in key order.
func (t *Table) loadPartition(txn *badger.Txn, p *partition) (users []string, err error) {
	if err := p.loadFacts(txn); err != nil {
		return nil, err
	}
	if err := scanForgotten(txn, prefixErase, p.id, func(f forgotten, _ []byte) error {
		p.erase[f] = 0
		t.erasures.Add(1)
		return nil
	}); err != nil {
		return nil, err
	}
	if _, err := get(txn, seqKey(p.id), func(b []byte) (err error) {
		p.seq, err = decodeUint64("sequence number", b)
		return err
	}); err != nil {
		return nil, err
	}
	if err := p.loadQueue(txn); err != nil {
		return nil, err
	}
	if p.outbox.len() > 0 {
		p.signal()
	}
	return p.loadUsers(txn)
}

func (p *partition) loadFacts(txn *badger.Txn) error {
	items := partitionKey(prefixInterned, p.id, 0)
	if err := scanPrefix(txn, items, false, func(key, value []byte) error {
		if len(key) != len(items)+4 {
			return fmt.Errorf("%w: key %q", ErrCorrupt, key)
		}
		return p.items.load(binary.BigEndian.Uint32(key[len(items):]), string(value))
	}); err != nil {
		return err
	}
	return scanForgotten(txn, prefixForgot, p.id, func(f forgotten, value []byte) (err error) {
		p.marks[f], err = decodeMark(value)
		return err
	})
}

// scanForgotten calls fn for the forgotten users under a prefix of a partition.
func scanForgotten(txn *badger.Txn, prefix string, partition int32, fn func(f forgotten, value []byte) error) error {
	start := partitionKey(prefix, partition, 0)
	return scanPrefix(txn, start, false, func(key, value []byte) error {
		if len(key) != len(start)+len(forgotten{}) {
			return fmt.Errorf("%w: key %q", ErrCorrupt, key)
		}
		return fn(forgotten(key[len(start):]), value)
	})
}

func (p *partition) loadQueue(txn *badger.Txn) error {
	intents := queuePrefix(p.id, 'i')
	if err := scanPrefix(txn, intents, false, func(key, value []byte) error {
		if len(key) != len(intents)+8 {
			return fmt.Errorf("%w: key %q", ErrCorrupt, key)
		}
		in, done, err := decodeIntent(value)
		if err != nil {
			return err
		}
		in.Partition, in.Seq = p.id, binary.BigEndian.Uint64(key[len(intents):])
		p.waiting.add(in, done)
		p.intents.Add(1)
		return nil
	}); err != nil {
		return err
	}
	return scanFrom(txn, queuePrefix(p.id, 'm'), queuePrefix(p.id, 'm'), func(item *badger.Item) error {
		_, seq, _, err := splitMessageKey(item.Key())
		if err != nil {
			return err
		}
		if item.ValueSize() >= valueThreshold {
			// It lies in a file of its own, the one place where a power cut can leave less than a prefix.
			if err := item.Value(func([]byte) error { return nil }); err != nil {
				return fmt.Errorf("%w: message %d of the outbox: %w; restore a snapshot, or fold the log into a new state directory", ErrCorrupt, seq, err)
			}
		}
		p.outbox.add(seq)
		p.messages.Add(1)
		return nil
	})
}

// loadUsers reads rows and vectors side by side, both in key order, to find whose vector is behind, and returns the users in key order.
func (p *partition) loadUsers(txn *badger.Txn) (users []string, err error) {
	o := badger.DefaultIteratorOptions
	o.Prefix, o.PrefetchValues = partitionKey(prefixVector, p.id, 0), false
	vectors := txn.NewIterator(o)
	defer vectors.Close()
	vectors.Rewind()
	var stale []string
	err = scanPrefix(txn, partitionKey(prefixRow, p.id, 0), false, func(key, value []byte) error {
		events, err := rowEvents(value)
		if err != nil {
			return err
		}
		_, user, err := splitUserKey(key)
		if err != nil {
			return err
		}
		known, err := eventsAt(vectors, key[len(prefixRow):])
		if err != nil {
			return err
		}
		users = append(users, user)
		if known < events {
			stale = append(stale, user)
		}
		return nil
	})
	p.stale.load(stale)
	return users, err
}

// eventsAt moves the iterator to a row's key, both without their prefixes, and returns the events that the vector there knows.
func eventsAt(vectors *badger.Iterator, key []byte) (events uint64, err error) {
	for ; vectors.Valid(); vectors.Next() {
		switch bytes.Compare(vectors.Item().Key()[len(prefixVector):], key) {
		case -1:
			continue
		case 1:
			return 0, nil
		}
		err = vectors.Item().Value(func(b []byte) (err error) {
			events, err = vectorEvents(b)
			return err
		})
		return events, err
	}
	return 0, nil
}

func (t *Table) loadCatalogue(txn *badger.Txn) error {
	var items []listed
	err := scanPrefix(txn, []byte(prefixItem), false, func(key, value []byte) error {
		_, embedding, err := decodeItem(value)
		if err != nil {
			return err
		}
		if len(embedding) != t.options.Dim {
			return fmt.Errorf("%w: item %q has %d dimensions", ErrCorrupt, key[len(prefixItem):], len(embedding))
		}
		items = append(items, listed{string(key[len(prefixItem):]), embedding})
		return nil
	})
	if err != nil {
		return err
	}
	t.catalogue.apply(items)
	return nil
}
