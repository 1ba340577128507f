package table

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	badger "github.com/dgraph-io/badger/v4"

	"rebeca/prior"
)

// userList holds the ids of all users, for random draws and to know a new one without reading.
type userList struct {
	mu    sync.RWMutex // guards all
	names []string
	at    map[string]int
}

func newUserList() *userList { return &userList{at: map[string]int{}} }

func (l *userList) add(user string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.at[user]; !ok {
		user = strings.Clone(user) // it may be part of a larger text
		l.at[user] = len(l.names)
		l.names = append(l.names, user)
	}
}

// load enters the users of every partition in an empty list, with room for all at once.
func (l *userList) load(partitions [][]string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.names = slices.Concat(partitions...)
	l.at = make(map[string]int, len(l.names))
	for i, user := range l.names {
		l.at[user] = i
	}
}

// remove puts the last user in the place of the one that goes.
func (l *userList) remove(user string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i, ok := l.at[user]
	if !ok {
		return
	}
	last := len(l.names) - 1
	l.names[i] = l.names[last]
	l.at[l.names[i]] = i
	l.names[last] = ""
	l.names = l.names[:last]
	delete(l.at, user)
}

func (l *userList) has(user string) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	_, ok := l.at[user]
	return ok
}

// UserCount returns the number of users.
func (t *Table) UserCount() int {
	t.users.mu.RLock()
	defer t.users.mu.RUnlock()
	return len(t.users.names)
}

// UserAt returns the i-th user: in key order when the state was opened, newer ones behind. When a user is forgotten the last takes their
// place. It returns "" for an i out of range, which a forget beside the caller can cause.
func (t *Table) UserAt(i int) string {
	t.users.mu.RLock()
	defer t.users.mu.RUnlock()
	if i < 0 || i >= len(t.users.names) {
		return ""
	}
	return t.users.names[i]
}

// rowValue returns a user's encoded row as of the last commit, whole, nil if there is none. It must not be changed.
func (t *Table) rowValue(txn *badger.Txn, p *partition, user string) ([]byte, error) {
	if b := p.rows.get(user); b != nil {
		return b, nil
	}
	if !t.users.has(user) {
		return nil, nil
	}
	b, err := readRow(txn, p.id, user)
	if err == nil && b != nil {
		if err = checkRow(b); err != nil {
			err = fmt.Errorf("user %q: %w", user, err)
		}
	}
	return b, err
}

func readRow(txn *badger.Txn, partition int32, user string) (value []byte, err error) {
	_, err = get(txn, userKey(prefixRow, partition, user), func(b []byte) error {
		value = append([]byte(nil), b...)
		return nil
	})
	return value, err
}

// User returns a user as of the last commit. ok is false for one without events; the row then has only its name, partition and
// LastOffset -1.
func (t *Table) User(user string) (r Row, ok bool, err error) {
	p := t.partitions[t.userPartition(user)]
	none := Row{UserID: user, Partition: p.id, LastOffset: -1}
	value := p.rows.peek(user)
	if value == nil {
		if !t.users.has(user) {
			return none, false, nil
		}
		err := t.db.View(func(txn *badger.Txn) (err error) {
			value, err = readRow(txn, p.id, user)
			return err
		})
		if err != nil || value == nil {
			return none, false, err
		}
	}
	r, err = publicRow(value, user, p)
	if err != nil {
		return none, false, err
	}
	return r, true, nil
}

func publicRow(value []byte, user string, p *partition) (Row, error) {
	var r row
	if err := r.decode(value); err != nil {
		return Row{}, fmt.Errorf("user %q: %w", user, err)
	}
	return r.public(user, p.id, p.items.names())
}

// Users calls fn for every user in key order (by partition, then id), as of one moment. An error of fn ends it and is returned.
func (t *Table) Users(fn func(Row) error) error {
	return t.db.View(func(txn *badger.Txn) error { return t.eachRow(txn, fn) })
}

func (t *Table) eachRow(txn *badger.Txn, fn func(Row) error) error {
	return scanPrefix(txn, []byte(prefixRow), false, func(key, value []byte) error {
		partition, user, err := splitUserKey(key)
		if err != nil {
			return err
		}
		p, err := t.part(partition)
		if err != nil {
			return err
		}
		r, err := publicRow(value, user, p)
		if err != nil {
			return err
		}
		return fn(r)
	})
}

// Context returns the whole window of a row as the prior reads it, and how many entries were left out because their item has no
// embedding yet. The embeddings are read only.
func (t *Table) Context(r Row) (context prior.Context, masked int) {
	context, entries := t.Resolved(r)
	return context, len(r.Window) - len(entries)
}

// Resolved is Context with the entries of the row that are in it, in the same order.
func (t *Table) Resolved(r Row) (context prior.Context, entries []Entry) {
	context, entries = make(prior.Context, 0, len(r.Window)), make([]Entry, 0, len(r.Window))
	for _, e := range r.Window {
		if item, ok := t.Resolve(r.UserID, e.ItemID); ok {
			context = append(context, prior.Entry{Item: item, Class: e.Class, Older: e.Older})
			entries = append(entries, e)
		}
	}
	return context, entries
}

// staleSet is the users of a partition whose row has events that their vector does not know, in the order in which they became so.
type staleSet struct {
	since map[string]uint64
	order []staleSince // some are no longer stale; those have another number in since
	next  uint64
}

type staleSince struct {
	user string
	at   uint64
}

func newStaleSet() staleSet { return staleSet{since: map[string]uint64{}} }

func (s *staleSet) mark(user string) {
	if _, ok := s.since[user]; ok {
		return
	}
	user = strings.Clone(user) // it may be part of a larger text
	s.next++
	s.since[user] = s.next
	s.order = append(s.order, staleSince{user, s.next})
	if len(s.order) > 2*len(s.since)+64 {
		s.compact()
	}
}

// load marks the users of an empty set, with room for all at once.
func (s *staleSet) load(users []string) {
	s.since = make(map[string]uint64, len(users))
	s.order = make([]staleSince, 0, len(users))
	for _, user := range users {
		s.next++
		s.since[user] = s.next
		s.order = append(s.order, staleSince{user, s.next})
	}
}

func (s *staleSet) clean(user string) { delete(s.since, user) }

func (s *staleSet) compact() {
	kept := s.order[:0]
	for _, o := range s.order {
		if s.since[o.user] == o.at {
			kept = append(kept, o)
		}
	}
	clear(s.order[len(kept):])
	s.order = kept
}

func (s *staleSet) first(limit int) []string {
	for len(s.order) > 0 && s.since[s.order[0].user] != s.order[0].at {
		s.order = s.order[1:]
	}
	var out []string
	for _, o := range s.order {
		if len(out) >= limit {
			break
		}
		if s.since[o.user] == o.at {
			out = append(out, o.user)
		}
	}
	return out
}

// Stale returns up to limit users of a partition whose stored vector knows fewer events than their row, the longest waiting first.
func (t *Table) Stale(partition int32, limit int) ([]string, error) {
	p, err := t.part(partition)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stale.first(limit), nil
}
