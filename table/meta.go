package table

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	badger "github.com/dgraph-io/badger/v4"
)

// formatVersion is the version of keys and values as DESIGN.md has them.
const formatVersion = 1

// meta says what a state is. It is written once, as JSON under m/meta.
type meta struct {
	Format     int    `json:"format"`
	State      string `json:"state"` // random; a restore gives its copy another
	Partitions int32  `json:"partitions"`
	Dim        int    `json:"dim"`
	Rules      Rules  `json:"rules"`
}

// openBadger opens the database; w is told of rotated logs, nil where a sync at the end is enough.
func openBadger(o Options, w *wal) (*badger.DB, error) {
	if err := removeEmptyLogs(o.Dir); err != nil {
		return nil, err
	}
	db, err := badger.Open(badgerOptions(o, badgerLog{o.Logger, w}))
	switch {
	case err == nil:
		return db, nil
	case strings.Contains(err.Error(), "Cannot acquire directory lock"):
		// Badger has no sentinel for it.
		return nil, fmt.Errorf("%w: %s", ErrLocked, o.Dir)
	case strings.Contains(err.Error(), "manifest has unsupported version"):
		return nil, fmt.Errorf("%w: %s was written by another version of Badger: %w", ErrVersion, o.Dir, err)
	}
	return nil, fmt.Errorf("opening the state in %s: %w", o.Dir, err)
}

// openMeta reads what the state is and compares it with the options, or writes it into an empty one.
func (t *Table) openMeta() error {
	found, empty := false, true
	err := t.db.View(func(txn *badger.Txn) error {
		var err error
		found, err = get(txn, keyMeta, func(b []byte) error { return t.meta.decode(b) })
		if err != nil || found {
			return err
		}
		return scanPrefix(txn, nil, true, func([]byte, []byte) error {
			empty = false
			return errStop
		})
	})
	if err != nil && !errors.Is(err, errStop) {
		return err
	}
	switch {
	case found:
		if t.options.AnyRules {
			t.options.Rules = t.meta.Rules
		}
		return t.meta.compare(t.options)
	case !empty:
		return fmt.Errorf("%w: the directory holds a database without %s", ErrVersion, keyMeta)
	}
	return t.writeMeta()
}

// errStop ends a scan early.
var errStop = errors.New("stop")

func (t *Table) writeMeta() error {
	o := t.options
	t.meta = meta{Format: formatVersion, State: newStateID(), Partitions: o.Partitions, Dim: o.Dim, Rules: o.Rules}
	b, err := json.Marshal(t.meta)
	if err != nil {
		panic("table: encoding meta: " + err.Error())
	}
	if err := t.db.Update(func(txn *badger.Txn) error { return txn.Set(keyMeta, b) }); err != nil {
		return fmt.Errorf("writing %s: %w", keyMeta, err)
	}
	return nil
}

// decode reads the version before the rest, which another version may shape otherwise.
func (m *meta) decode(b []byte) error {
	var v struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrCorrupt, keyMeta, err)
	}
	if v.Format > formatVersion {
		return fmt.Errorf("%w: %d, this program reads %d: a newer program wrote it, use that one", ErrVersion, v.Format, formatVersion)
	}
	if v.Format < formatVersion {
		return fmt.Errorf("%w: %d, this program reads %d: fold the log into a new state directory", ErrVersion, v.Format, formatVersion)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(m); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrCorrupt, keyMeta, err)
	}
	return nil
}

func (m *meta) compare(o Options) error {
	switch {
	case m.Partitions != o.Partitions:
		return fmt.Errorf("%w: %d, the configuration says %d", ErrPartitions, m.Partitions, o.Partitions)
	case m.Dim != o.Dim:
		return fmt.Errorf("%w: %d, the configuration says %d", ErrDim, m.Dim, o.Dim)
	case m.Rules != o.Rules:
		return fmt.Errorf("%w (%s); replay the log into a new state directory to change them", ErrRules, m.Rules.difference(o.Rules))
	}
	return nil
}

// difference says where two rules differ.
func (r Rules) difference(to Rules) string {
	var out []string
	for _, f := range []struct {
		name     string
		old, new any
	}{
		{"newest", r.Newest, to.Newest}, {"liked", r.Liked, to.Liked}, {"dedupe", r.Dedupe, to.Dedupe}, {"classes", r.Classes, to.Classes},
	} {
		if f.old == f.new {
			continue
		}
		if f.name == "classes" {
			out = append(out, "other classes")
			continue
		}
		out = append(out, fmt.Sprintf("%s %v, the configuration says %v", f.name, f.old, f.new))
	}
	return strings.Join(out, ", ")
}

// raiseEpoch makes this table the state's only writer: an older one finds another epoch in its next transaction.
func (t *Table) raiseEpoch() error {
	return t.db.Update(func(txn *badger.Txn) error {
		epoch, err := readEpoch(txn)
		if err != nil {
			return err
		}
		t.epoch = epoch + 1
		return txn.Set(keyEpoch, encodeUint64(t.epoch))
	})
}

func readEpoch(txn *badger.Txn) (epoch uint64, err error) {
	_, err = get(txn, keyEpoch, func(b []byte) (err error) {
		epoch, err = decodeUint64("epoch", b)
		return err
	})
	return epoch, err
}
