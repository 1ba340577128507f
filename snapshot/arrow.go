package snapshot

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"os"
	"strconv"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
)

const (
	maxBatchRows  = 8192
	maxBatchBytes = 8 << 20 // of values; bounds what a writer and a reader hold, whatever the size of a row

	// maxValue is the most one cell of a Binary column holds: its offsets are 32 bits wide.
	maxValue = math.MaxInt32
)

var (
	entryType = arrow.StructOf(
		arrow.Field{Name: "item_id", Type: arrow.BinaryTypes.String},
		arrow.Field{Name: "class", Type: arrow.BinaryTypes.String},
		arrow.Field{Name: "kind", Type: arrow.BinaryTypes.String},
		arrow.Field{Name: "occurred_at", Type: &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}},
		arrow.Field{Name: "offset", Type: arrow.PrimitiveTypes.Int64},
		arrow.Field{Name: "older", Type: arrow.FixedWidthTypes.Boolean},
	)
	stateFields = []arrow.Field{
		{Name: "prefix", Type: arrow.BinaryTypes.String},
		{Name: "key", Type: arrow.BinaryTypes.Binary},
		{Name: "value", Type: arrow.BinaryTypes.Binary},
	}
)

// userFields are the columns of the readable table. vectorDim 0 (nobody has an embedding) leaves the list one wide,
// since a list of width zero has no length in Arrow.
func userFields(vectorDim int) []arrow.Field {
	return []arrow.Field{
		{Name: "partition", Type: arrow.PrimitiveTypes.Int32},
		{Name: "user_id", Type: arrow.BinaryTypes.String},
		{Name: "events", Type: arrow.PrimitiveTypes.Uint64},
		{Name: "positives", Type: arrow.PrimitiveTypes.Uint64},
		{Name: "negatives", Type: arrow.PrimitiveTypes.Uint64},
		{Name: "window", Type: arrow.ListOfNonNullable(entryType)},
		{Name: "has_vector", Type: arrow.FixedWidthTypes.Boolean},
		{Name: "vector", Type: arrow.FixedSizeListOfNonNullable(int32(max(1, vectorDim)), arrow.PrimitiveTypes.Float32)},
		{Name: "prior_version", Type: arrow.BinaryTypes.String},
	}
}

// sink is a file that counts and hashes what passes.
type sink struct {
	name string
	f    file
	buf  *bufio.Writer
	sum  hash.Hash
	n    int64
}

func newSink(d disk, path, name string) (*sink, error) {
	f, err := d.Create(path)
	if err != nil {
		return nil, fmt.Errorf("creating %s: %w", name, err)
	}
	s := &sink{name: name, f: f, sum: sha256.New()}
	s.buf = bufio.NewWriterSize(io.MultiWriter(f, s.sum), 1<<20)
	return s, nil
}

func (s *sink) Write(p []byte) (int, error) {
	n, err := s.buf.Write(p)
	s.n += int64(n)
	return n, err
}

// Seek tells the position, which is all that the Arrow writer asks for.
func (s *sink) Seek(offset int64, whence int) (int64, error) {
	if offset != 0 || whence != io.SeekCurrent {
		return 0, errors.New("seeking in a file that is being hashed")
	}
	return s.n, nil
}

// finish makes the file durable and describes it.
func (s *sink) finish(rows int64) (File, error) {
	if err := s.buf.Flush(); err != nil {
		s.f.Close()
		return File{}, fmt.Errorf("writing %s: %w", s.name, err)
	}
	if err := errors.Join(s.f.Sync(), s.f.Close()); err != nil {
		return File{}, fmt.Errorf("syncing %s: %w", s.name, err)
	}
	return File{Name: s.name, Rows: rows, Bytes: s.n, SHA256: hex.EncodeToString(s.sum.Sum(nil))}, nil
}

// sheet writes one Arrow IPC file in batches of bounded size. Its owner appends a row's cells to rec, then calls row.
type sheet struct {
	*sink
	rec     *array.RecordBuilder
	ipc     *ipc.FileWriter
	pending int
	bytes   int64
	rows    int64
}

func newSheet(d disk, path, name string, fields []arrow.Field, meta arrow.Metadata, c Compression) (*sheet, error) {
	s, err := newSink(d, path, name)
	if err != nil {
		return nil, err
	}
	schema := arrow.NewSchema(fields, &meta)
	options := []ipc.Option{ipc.WithSchema(schema)}
	if c == Zstd {
		options = append(options, ipc.WithZstd(), ipc.WithCompressConcurrency(1))
	}
	w, err := ipc.NewFileWriter(s, options...)
	if err != nil {
		s.f.Close()
		return nil, fmt.Errorf("writing %s: %w", name, err)
	}
	return &sheet{sink: s, ipc: w, rec: array.NewRecordBuilder(memory.NewGoAllocator(), schema)}, nil
}

// room writes the open batch out if a row of so many bytes would take it over its bounds.
func (s *sheet) room(bytes int64) error {
	if s.pending == 0 || s.pending < maxBatchRows && s.bytes+bytes <= maxBatchBytes {
		return nil
	}
	return s.flush()
}

func (s *sheet) row(bytes int64) {
	s.pending++
	s.bytes += bytes
}

func (s *sheet) flush() error {
	rec := s.rec.NewRecord()
	defer rec.Release()
	if err := s.ipc.Write(rec); err != nil {
		return fmt.Errorf("writing %s: %w", s.name, err)
	}
	s.rows += int64(s.pending)
	s.pending, s.bytes = 0, 0
	return nil
}

// close writes the footer and makes the file durable.
func (s *sheet) close() (File, error) {
	defer s.rec.Release()
	if s.pending > 0 {
		if err := s.flush(); err != nil {
			s.f.Close()
			return File{}, err
		}
	}
	if err := s.ipc.Close(); err != nil {
		s.f.Close()
		return File{}, fmt.Errorf("writing %s: %w", s.name, err)
	}
	return s.finish(s.rows)
}

// abandon lets go of the file without a word: the directory it is in will be removed.
func (s *sheet) abandon() {
	s.rec.Release()
	s.f.Close()
}

// stateSheet writes the raw keys.
type stateSheet struct {
	*sheet
	limit  int64 // maxValue, less in tests
	digest *Digest
}

func (s stateSheet) append(key, value []byte) error {
	bytes := int64(len(key)) + int64(len(value))
	if int64(len(value)) > s.limit || int64(len(key)) > s.limit {
		return fmt.Errorf("writing %s: key %q with %d bytes does not fit a cell of %d", s.name, key[:min(len(key), 64)], bytes, s.limit)
	}
	if err := s.room(bytes); err != nil {
		return err
	}
	s.rec.Field(0).(*array.StringBuilder).Append(prefix(key))
	s.rec.Field(1).(*array.BinaryBuilder).Append(key)
	s.rec.Field(2).(*array.BinaryBuilder).Append(value)
	s.row(bytes)
	s.digest.Add(key, value)
	return nil
}

// prefix is the printable head of a key, up to the first slash: a help for readers of the file, never read back.
func prefix(key []byte) string {
	for i, c := range key {
		if c == '/' {
			return string(key[:i])
		}
		if c <= ' ' || c > '~' || i == 8 {
			break
		}
	}
	return ""
}

// userSheet writes the readable table.
type userSheet struct {
	*sheet
	vectorDim int
	zero      []float32
}

func (s userSheet) append(u User) error {
	bytes := int64(len(u.UserID)) + int64(len(u.PriorVersion)) + 40 + 4*int64(s.vectorDim)
	for i := range u.Window {
		bytes += 17 + int64(len(u.Window[i].ItemID)+len(u.Window[i].Class)+len(u.Window[i].Kind))
	}
	if err := s.room(bytes); err != nil {
		return err
	}
	s.rec.Field(0).(*array.Int32Builder).Append(u.Partition)
	s.rec.Field(1).(*array.StringBuilder).Append(u.UserID)
	s.rec.Field(2).(*array.Uint64Builder).Append(u.Events)
	s.rec.Field(3).(*array.Uint64Builder).Append(u.Positives)
	s.rec.Field(4).(*array.Uint64Builder).Append(u.Negatives)
	appendWindow(s.rec.Field(5).(*array.ListBuilder), u.Window)
	vector := s.zero
	has := s.vectorDim > 0 && len(u.Vector) == s.vectorDim
	if has {
		vector = u.Vector
	}
	s.rec.Field(6).(*array.BooleanBuilder).Append(has)
	list := s.rec.Field(7).(*array.FixedSizeListBuilder)
	list.Append(true)
	list.ValueBuilder().(*array.Float32Builder).AppendValues(vector, nil)
	s.rec.Field(8).(*array.StringBuilder).Append(u.PriorVersion)
	s.row(bytes)
	return nil
}

func appendWindow(list *array.ListBuilder, window []Entry) {
	list.Append(true)
	entry := list.ValueBuilder().(*array.StructBuilder)
	item, class, kind := entry.FieldBuilder(0).(*array.StringBuilder), entry.FieldBuilder(1).(*array.StringBuilder), entry.FieldBuilder(2).(*array.StringBuilder)
	at, offset, older := entry.FieldBuilder(3).(*array.TimestampBuilder), entry.FieldBuilder(4).(*array.Int64Builder), entry.FieldBuilder(5).(*array.BooleanBuilder)
	for i := range window {
		e := &window[i]
		entry.Append(true)
		item.Append(e.ItemID)
		class.Append(e.Class)
		kind.Append(e.Kind)
		at.Append(arrow.Timestamp(e.OccurredAt.UnixMicro()))
		offset.Append(e.Offset)
		older.Append(e.Older)
	}
}

// Digest hashes the keys and values of a state in the order they are added: SHA-256 over u32 LE length and bytes of
// each key and value. Two tables with the same digest over all keys in key order are the same table. Not safe for
// concurrent use; the zero value is not ready, see NewDigest.
type Digest struct{ h hash.Hash }

// NewDigest returns the digest of no keys.
func NewDigest() *Digest { return &Digest{h: sha256.New()} }

// Add takes in the next key.
func (d *Digest) Add(key, value []byte) {
	var head [4]byte
	for _, b := range [2][]byte{key, value} {
		binary.LittleEndian.PutUint32(head[:], uint32(len(b)))
		d.h.Write(head[:])
		d.h.Write(b)
	}
}

// Sum is the digest of what was added so far, in hexadecimal.
func (d *Digest) Sum() string { return hex.EncodeToString(d.h.Sum(nil)) }

// readSheet calls fn for every batch of an Arrow file, after a check of its columns. Batches are valid until fn
// returns. The Arrow reader panics on some malformed files; here that is an error like any other.
func readSheet(path, name string, fields []arrow.Field, fn func(arrow.Record) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("reading %s: malformed Arrow file: %v", name, p)
		}
	}()
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	defer f.Close()
	r, err := ipc.NewFileReader(f)
	if err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	defer r.Close()
	if err := checkColumns(r.Schema(), fields); err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	for i := range r.NumRecords() {
		if err := readBatch(r, i, name, fn); err != nil {
			return err
		}
	}
	return nil
}

func readBatch(r *ipc.FileReader, i int, name string, fn func(arrow.Record) error) error {
	rec, err := r.RecordAt(i)
	if err != nil {
		return fmt.Errorf("reading %s: batch %d: %w", name, i, err)
	}
	defer rec.Release()
	return fn(rec)
}

func checkColumns(got *arrow.Schema, want []arrow.Field) error {
	if v, _ := got.Metadata().GetValue(metaFormat); v != strconv.Itoa(Format) {
		return fmt.Errorf("%s is %q, this version reads %d: %w", metaFormat, v, Format, ErrFormat)
	}
	if got.NumFields() != len(want) {
		return fmt.Errorf("%d columns where %d are expected: %w", got.NumFields(), len(want), ErrFormat)
	}
	for i, w := range want {
		if g := got.Field(i); g.Name != w.Name || !arrow.TypeEqual(g.Type, w.Type) {
			return fmt.Errorf("column %d is %s %s where %s %s is expected: %w", i, g.Name, g.Type, w.Name, w.Type, ErrFormat)
		}
	}
	return nil
}
