package table

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	badger "github.com/dgraph-io/badger/v4"

	"rebeca/schemas"
)

// Errors of Open and of the writers; test with errors.Is.
var (
	ErrLocked     = errors.New("state directory is in use by another process")
	ErrVersion    = errors.New("state has another format version")
	ErrPartitions = errors.New("state has another number of partitions")
	ErrDim        = errors.New("state has another embedding dimension")
	ErrRules      = errors.New("state was folded by other rules")
	ErrCorrupt    = errors.New("state is corrupt")
	ErrStale      = errors.New("records lie below the stored offset") // Fold, Accept, List: read Offset again and continue there
	ErrFenced     = errors.New("state was opened by another writer")
	ErrNotEmpty   = errors.New("directory is not empty") // Load
)

// Options say where a table lives and what it must hold.
type Options struct {
	Dir        string
	Partitions int32        // of every user-keyed topic; fixed when a state is born
	Dim        int          // of item embeddings; fixed when a state is born
	Rules      Rules        // fixed when a state is born
	CacheBytes int          // of rows kept in memory, over all partitions; 0 means 64 MiB
	Silent     bool         // nothing enters the outbox: another process folds the same log and sends
	AnyRules   bool         // take the rules that the state was born with instead of refusing others; Rules are those of a new one
	Logger     *slog.Logger // nil discards

	tuning tuning
}

// tuning is what tests and benchmarks set otherwise.
type tuning struct {
	memTable   int64              // bytes of a memtable; 0 means memTableSize
	sync       func(string) error // nil means syncPath
	syncWrites bool               // every commit is synced, and nothing else
}

func (o Options) validate() error {
	switch {
	case o.Dir == "":
		return errors.New("dir: is empty")
	case o.Partitions < 1:
		return fmt.Errorf("partitions: %d is not positive", o.Partitions)
	case o.Dim < 1:
		return fmt.Errorf("dim: %d is not positive", o.Dim)
	case o.CacheBytes < 0:
		return fmt.Errorf("cache_bytes: %d is negative", o.CacheBytes)
	}
	if err := o.Rules.Validate(); err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	return nil
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = defaultCache
	}
	if o.tuning.memTable == 0 {
		o.tuning.memTable = memTableSize
	}
	if o.tuning.sync == nil {
		o.tuning.sync = syncPath
	}
	return o
}

// Table is an open state. Its methods are safe for concurrent use.
type Table struct {
	db         *badger.DB
	options    Options
	wal        *wal
	meta       meta
	epoch      uint64
	budget     int64 // bytes of one transaction that we fill
	partitions []*partition
	catalogue  *Catalogue
	users      *userList

	erasures   atomic.Int64          // notes under e/, over all partitions
	collecting sync.Mutex            // one rewrite of the files at a time; taken before any partition's lock
	failed     atomic.Pointer[error] // of a commit whose outcome is unknown
	closeOnce  sync.Once
	closeErr   error
}

// partition is the part of a table that one log partition writes.
type partition struct {
	id     int32
	items  *interner
	rows   *rowCache     // of all partitions: most of them may be another process's
	notify chan struct{} // capacity 1: one signal stands for any number of messages

	intents, messages atomic.Int64 // that wait, as of the last commit: whoever asks how many waits for none

	mu      sync.Mutex // one writer at a time; guards what follows. No lock of ours is taken before it
	seq     uint64     // last sequence number given
	marks   map[forgotten]mark
	erase   map[forgotten]uint64 // forgotten users that the files may still hold something of, with the number of their last forget
	notes   uint64               // the number given last; of this opening
	waiting waiting
	outbox  outboxIndex
	stale   staleSet
	drafts  drafts
}

// mark is what is kept of a forgotten user.
type mark struct {
	until  int64 // Kafka timestamp of the null record, milliseconds; events that occurred until then are dropped
	offset int64 // of the null record
}

// Badger settings. Values up to valueThreshold live in the tree, so a transaction is atomic in one file.
const (
	memTableSize   = 32 << 20
	numMemtables   = 3
	valueThreshold = 1 << 20
	valueLogSize   = 128 << 20 // bounds a single value too
	// baseTableSize is that of tables at the highest level; each below has twice as much. Whoever builds a table takes twice its size in
	// memory at once, and Badger keeps eight such pieces and up to sixteen that wait for the disk: its own 2 MiB would be half a gibibyte in a restore or a large compaction.
	baseTableSize = 256 << 10
	defaultCache  = 64 << 20

	// MinFree is the free space, in bytes, below which nothing should write to a state: twice what its memtables hold, as logs and as the
	// tables they become, and a tenth. Its files are mapped: a disk that is full ends the process with SIGBUS.
	MinFree = 2 * memTableSize * numMemtables * 11 / 10
)

func badgerOptions(o Options, log badgerLog) badger.Options {
	return badger.DefaultOptions(o.Dir).
		WithMemTableSize(o.tuning.memTable).WithNumMemtables(numMemtables).WithBaseTableSize(baseTableSize).WithNumCompactors(2).
		WithValueThreshold(min(valueThreshold, o.tuning.memTable/10)).WithValueLogFileSize(valueLogSize).
		WithCompression(0).WithBlockCacheSize(0). // uncompressed blocks are read from the page cache
		WithDetectConflicts(false).WithNumVersionsToKeep(1).WithSyncWrites(o.tuning.syncWrites).WithVerifyValueChecksum(true).
		WithMetricsEnabled(false).WithLogger(log)
}

// Open opens the state in o.Dir and creates it if there is none. It raises the writer epoch: a table opened earlier on the same state
// can no longer write. Errors: ErrLocked, ErrVersion, ErrPartitions, ErrDim, ErrRules, ErrCorrupt, each with the directory in one line.
func Open(o Options) (*Table, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("creating the state directory: %w", err)
	}
	t := &Table{options: o, catalogue: newCatalogue(o.Dim), users: newUserList()}
	t.wal = newWAL(o.Dir, o.tuning.sync, t.fail)
	if err := t.wal.syncLeft(); err != nil {
		return nil, err
	}
	db, err := openBadger(o, t.wal)
	if err != nil {
		return nil, err
	}
	t.db, t.budget = db, db.MaxBatchSize()*3/4
	rows := newRowCache(o.CacheBytes)
	for i := range o.Partitions {
		t.partitions = append(t.partitions, newPartition(i, rows))
	}
	if err := t.start(); err != nil {
		t.wal.close()
		db.Close()
		return nil, fmt.Errorf("opening the state in %s: %w", o.Dir, err)
	}
	return t, nil
}

func newPartition(id int32, rows *rowCache) *partition {
	return &partition{
		id: id, items: newInterner(), rows: rows, notify: make(chan struct{}, 1),
		marks: map[forgotten]mark{}, erase: map[forgotten]uint64{}, waiting: newWaiting(), outbox: newOutboxIndex(), stale: newStaleSet(),
		drafts: newDrafts(),
	}
}

// start checks the state, raises the epoch and loads what is kept in memory.
func (t *Table) start() error {
	if err := t.openMeta(); err != nil {
		return err
	}
	if !t.options.tuning.syncWrites {
		if err := t.wal.watch(); err != nil {
			return err
		}
	}
	if err := t.raiseEpoch(); err != nil {
		return err
	}
	return t.load()
}

// fail makes the table refuse writes from now on.
func (t *Table) fail(err error) {
	err = fmt.Errorf("%w; the state takes no more writes until it is opened again", err)
	if t.failed.CompareAndSwap(nil, &err) {
		t.options.Logger.Error("the state takes no more writes", "err", err)
	}
}

// Close closes the state. Writers and readers must have returned.
func (t *Table) Close() error {
	t.closeOnce.Do(func() {
		t.wal.close()
		if err := t.db.Close(); err != nil {
			t.closeErr = fmt.Errorf("closing the state in %s: %w", t.options.Dir, err)
		}
	})
	return t.closeErr
}

// Sync returns when all that was committed is on disk.
func (t *Table) Sync() error {
	if err := t.db.Sync(); err != nil {
		return fmt.Errorf("syncing the state: %w", err)
	}
	return nil
}

// Collect gives the disk space of large values that were deleted back. Badger hears of them when it compacts the tree, some time after they
// went, so it is to be called now and then; it costs nothing when there is nothing to collect.
func (t *Table) Collect() error {
	t.collecting.Lock()
	defer t.collecting.Unlock()
	return t.collect(.5)
}

// eraseRatio has every file of large values rewritten of which anything was deleted.
const eraseRatio = 1e-9

// collect rewrites files of large values of which a share is deleted.
// REQUIRES: t.collecting is held.
func (t *Table) collect(share float64) error {
	for {
		switch err := t.db.RunValueLogGC(share); {
		case errors.Is(err, badger.ErrNoRewrite), errors.Is(err, badger.ErrRejected):
			return nil
		case err != nil:
			return fmt.Errorf("collecting old large values: %w", err)
		}
	}
}

// Size returns about how many bytes the state's tables and large values take on disk, as of a minute ago.
func (t *Table) Size() int64 {
	tables, large := t.db.Size()
	return tables + large
}

// Partitions returns the number of partitions of the state.
func (t *Table) Partitions() int32 { return t.options.Partitions }

// Catalogue returns the items, kept up to date by List.
func (t *Table) Catalogue() *Catalogue { return t.catalogue }

// Offset returns the next offset to read of a topic's partition and the fingerprint of the last record applied. ok is false when nothing
// of it was ever read.
func (t *Table) Offset(topic string, partition int32) (next int64, fingerprint uint64, ok bool, err error) {
	err = t.db.View(func(txn *badger.Txn) error {
		var r reached
		r, ok, err = readOffset(txn, topic, partition)
		next, fingerprint = r.next, r.fingerprint
		return err
	})
	return next, fingerprint, ok, err
}

// Last returns the offset of the last record applied of a topic's partition and its fingerprint; ok is false where none is known.
func (t *Table) Last(topic string, partition int32) (offset int64, fingerprint uint64, ok bool, err error) {
	err = t.db.View(func(txn *badger.Txn) error {
		r, there, err := readOffset(txn, topic, partition)
		offset, fingerprint, ok = r.last, r.fingerprint, there && r.last >= 0
		return err
	})
	return offset, fingerprint, ok, err
}

func readOffset(txn *badger.Txn, topic string, partition int32) (r reached, ok bool, err error) {
	ok, err = get(txn, offsetKey(topic, partition), func(b []byte) (err error) {
		r, err = decodeOffset(b)
		return err
	})
	return r, ok, err
}

// get calls fn with a key's value, which is valid during the call, and reports whether the key is there.
func get(txn *badger.Txn, key []byte, fn func([]byte) error) (bool, error) {
	item, err := txn.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading %q: %w", key, err)
	}
	if err := item.Value(fn); err != nil {
		return false, fmt.Errorf("reading %q: %w", key, err)
	}
	return true, nil
}

// scanPrefix calls fn for every key of a prefix in key order. Key and value are valid during the call; value is nil when keysOnly.
func scanPrefix(txn *badger.Txn, prefix []byte, keysOnly bool, fn func(key, value []byte) error) error {
	o := badger.DefaultIteratorOptions
	o.Prefix, o.PrefetchValues = prefix, false // values are in the tree: fetching ahead costs a goroutine each and saves nothing
	it := txn.NewIterator(o)
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		item := it.Item()
		if keysOnly {
			if err := fn(item.Key(), nil); err != nil {
				return err
			}
			continue
		}
		if err := item.Value(func(v []byte) error { return fn(item.Key(), v) }); err != nil {
			return err
		}
	}
	return nil
}

// userPartition returns the partition of a user.
func (t *Table) userPartition(user string) int32 {
	return schemas.Partition([]byte(user), int(t.options.Partitions))
}

// part returns a partition of the state.
func (t *Table) part(id int32) (*partition, error) {
	if id < 0 || id >= t.options.Partitions {
		return nil, fmt.Errorf("partition %d of a state with %d", id, t.options.Partitions)
	}
	return t.partitions[id], nil
}

// badgerLog hands Badger's warnings and errors to slog; the rest is noise, but for the message that a log was rotated.
type badgerLog struct {
	log *slog.Logger
	wal *wal // nil hears nothing
}

func (l badgerLog) Errorf(f string, v ...any)   { l.log.Error("badger: " + fmt.Sprintf(f, v...)) }
func (l badgerLog) Warningf(f string, v ...any) { l.log.Warn("badger: " + fmt.Sprintf(f, v...)) }
func (l badgerLog) Infof(string, ...any)        {}
func (l badgerLog) Debugf(f string, _ ...any) {
	if l.wal != nil && strings.HasPrefix(f, rotationMessage) {
		l.wal.rotated()
	}
}
