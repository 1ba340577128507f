package dataset

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"rebeca/schemas"
)

// RowError is a row that holds no record.
type RowError struct {
	Path string
	Unit string // "line", or "row" in Parquet
	N    int    // from 1; the line of column names counts
	Err  error  // why; a *[schemas.Rejection] where the row could be read
}

func (e *RowError) Error() string { return fmt.Sprintf("%s: %s %d: %v", e.Path, e.Unit, e.N, e.Err) }

// Unwrap returns the reason.
func (e *RowError) Unwrap() error { return e.Err }

// Reader reads the rows of one file in order. It is not safe for concurrent use.
type Reader struct {
	path string
	unit string
	rows rows
	file *os.File
	n    int
}

// rows are the rows of a file as JSON texts of records.
type rows interface {
	// next returns a row, valid until the next call, and its number. Blank lines have neither. A broken row comes with
	// its number and an error, and the rows after it follow; io.EOF is the end, an errUnreadable the end before it.
	next() (value []byte, n int, err error)
	close()
}

// errUnreadable is a file that cannot be read on.
type errUnreadable struct{ error }

func (e errUnreadable) Unwrap() error { return e.error }

// shape says how a cell becomes JSON.
type shape int

const (
	text   shape = iota // a string
	number              // a number
	moment              // a string in RFC 3339, or a timestamp
	floats              // a list of numbers
	packed              // float32, little-endian; base64 where the format has no bytes
	object              // a JSON object as text
)

// field is a column that is read; others are passed over.
type field struct {
	name  string
	shape shape
}

func eventFields() []field {
	return []field{{"event_id", text}, {"user_id", text}, {"item_id", text}, {"kind", text}, {"value", number}, {"occurred_at", moment}}
}

func itemFields() []field {
	return []field{{"item_id", text}, {"embedding", floats}, {"embedding_f32", packed}, {"uri", text}, {"attributes", object}}
}

// OpenEvents opens a file of feedback with the columns event_id, user_id, item_id, kind, value and occurred_at; value
// may be absent. A CSV file begins with the names; an empty cell is an absent field.
func OpenEvents(path string) (*Reader, error) { return open(path, eventFields()) }

// OpenItems opens a file of catalogue items with the columns item_id, uri, attributes and one of embedding (a list of
// numbers; in CSV a JSON array in one cell, or the columns embedding_0, embedding_1, …) and embedding_f32.
func OpenItems(path string) (*Reader, error) { return open(path, itemFields()) }

// open tells the format by the ending. Errors name the file, and the column where one is of no use.
func open(path string, fields []field) (*Reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	r := &Reader{path: path, file: f, unit: "line"}
	switch ending := strings.ToLower(filepath.Ext(path)); ending {
	case ".jsonl", ".ndjson":
		r.rows = newJSONLines(f)
	case ".csv":
		r.rows, err = newCSVLines(f, fields)
	case ".parquet":
		r.unit = "row"
		r.rows, err = newParquetRows(f, fields)
	default:
		err = fmt.Errorf("its name ends in %q; .jsonl, .csv and .parquet are read", ending)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// Close closes the file.
func (r *Reader) Close() error {
	r.rows.close()
	return r.file.Close()
}

// Event returns the next event. A broken row is a *[RowError], after which the next call goes on; io.EOF is the end;
// any other error says that the file cannot be read on.
func (r *Reader) Event() (schemas.Feedback, error) {
	return parse(r, func(value []byte) (schemas.Feedback, error) { return schemas.ParseFeedback(value, time.Time{}) })
}

// Item returns the next item; dim is the length of its embedding, 0 takes any. Errors are as in [Reader.Event].
func (r *Reader) Item(dim int) (schemas.Item, error) {
	return parse(r, func(value []byte) (schemas.Item, error) { return schemas.ParseItem(value, dim) })
}

// Row returns the next row as the JSON text of its record, not judged yet and valid until the next call, and its
// number. Errors are as in [Reader.Event].
func (r *Reader) Row() (value []byte, n int, err error) {
	value, n, err = r.rows.next()
	var dead errUnreadable
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return value, n, err
	case errors.As(err, &dead):
		return nil, n, fmt.Errorf("reading %s: %s %d: %w", r.path, r.unit, n, dead.error)
	}
	return nil, n, &RowError{r.path, r.unit, n, err}
}

func parse[T any](r *Reader, decode func([]byte) (T, error)) (T, error) {
	var none T
	value, n, err := r.Row()
	if err != nil {
		return none, err
	}
	record, err := decode(value)
	if err != nil {
		return none, &RowError{r.path, r.unit, n, err}
	}
	return record, nil
}
