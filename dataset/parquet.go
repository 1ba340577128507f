package dataset

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/file"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"
)

// parquetRows is a Parquet file, read row group by row group and a few rows at a time.
type parquetRows struct {
	reader  *pqarrow.FileReader
	columns []*parquetColumn
	group   int   // the next row group
	left    int64 // rows left of the one before it
	n       int   // rows returned
	out     []byte
}

// parquetBatch is how many rows of a column are in memory.
const parquetBatch = 1024

// parquetColumn is a column that is read, at its next row. Columns are read by themselves: what comes of one row group
// may be several arrays, cut at other rows than its neighbour's.
type parquetColumn struct {
	field  field
	at     int // among the file's columns
	leaves map[int]bool
	reader *pqarrow.ColumnReader // within a row group
	chunks []arrow.Array         // those not finished
	row    int                   // of chunks[0]
}

// newParquetRows reads the footer and checks the columns' types. The Parquet reader panics on some malformed files;
// here and in next that is an error like any other.
func newParquetRows(r parquet.ReaderAtSeeker, fields []field) (p *parquetRows, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			p, err = nil, fmt.Errorf("malformed Parquet file: %v", fault)
		}
	}()
	f, err := file.NewParquetReader(r)
	if err != nil {
		return nil, fmt.Errorf("is no whole Parquet file: %w", err)
	}
	p = &parquetRows{}
	if p.reader, err = pqarrow.NewFileReader(f, pqarrow.ArrowReadProperties{BatchSize: parquetBatch}, memory.NewGoAllocator()); err != nil {
		return nil, fmt.Errorf("reading the columns' types: %w", err)
	}
	for at, top := range p.reader.Manifest.Fields {
		i := slices.IndexFunc(fields, func(w field) bool { return w.name == top.Field.Name })
		if i < 0 {
			continue
		}
		if err := fits(fields[i], top.Field.Type); err != nil {
			return nil, err
		}
		c := &parquetColumn{field: fields[i], at: at, leaves: map[int]bool{}}
		for _, leaf := range leavesOf(top) {
			c.leaves[leaf] = true
		}
		p.columns = append(p.columns, c)
	}
	return p, require(fields, func(i int) bool {
		return slices.ContainsFunc(p.columns, func(c *parquetColumn) bool { return c.field == fields[i] })
	})
}

func leavesOf(f pqarrow.SchemaField) []int {
	if len(f.Children) == 0 {
		return []int{f.ColIndex}
	}
	var all []int
	for _, child := range f.Children {
		all = append(all, leavesOf(child)...)
	}
	return all
}

// fits names a column whose type no cell of the field can have.
func fits(f field, t arrow.DataType) error {
	var ok bool
	var want string
	switch f.shape {
	case text:
		ok, want = isText(t), "a string"
	case object:
		ok, want = isText(t), "a string that holds a JSON object"
	case number:
		ok, want = isNumber(t), "a number"
	case moment:
		ok, want = isText(t) || t.ID() == arrow.TIMESTAMP, "a timestamp or a string"
	case packed:
		ok, want = isText(t), "bytes, or a string in base64"
	case floats:
		list, is := t.(arrow.ListLikeType)
		ok, want = is && t.ID() != arrow.MAP && isNumber(list.Elem()), "a list of numbers"
	}
	if !ok {
		return fmt.Errorf("column %s is of type %s, and must be %s", f.name, t, want)
	}
	return nil
}

func isText(t arrow.DataType) bool {
	switch t.ID() {
	case arrow.STRING, arrow.LARGE_STRING, arrow.BINARY, arrow.LARGE_BINARY:
		return true
	case arrow.DICTIONARY:
		return isText(t.(*arrow.DictionaryType).ValueType)
	}
	return false
}

func isNumber(t arrow.DataType) bool {
	return arrow.IsInteger(t.ID()) || t.ID() == arrow.FLOAT64 || t.ID() == arrow.FLOAT32 || t.ID() == arrow.FLOAT16
}

func (p *parquetRows) close() {
	for _, c := range p.columns {
		c.release()
	}
}

func (c *parquetColumn) release() {
	for _, a := range c.chunks {
		a.Release()
	}
	if c.reader != nil {
		c.reader.Release()
	}
	c.reader, c.chunks, c.row = nil, nil, 0
}

func (p *parquetRows) next() (value []byte, n int, err error) {
	at := p.n + 1
	defer func() {
		if fault := recover(); fault != nil {
			value, n, err = nil, at, errUnreadable{fmt.Errorf("malformed Parquet file: %v", fault)}
		}
	}()
	for p.left == 0 {
		if p.group == p.reader.ParquetReader().NumRowGroups() {
			return nil, p.n, io.EOF
		}
		if err := p.enter(); err != nil {
			return nil, at, errUnreadable{fmt.Errorf("row group %d: %w", p.group, err)}
		}
	}
	p.left--
	p.n++
	p.out = append(p.out[:0], '{')
	var broken error
	for _, c := range p.columns { // all of them: each has to come to the next row
		a, i, err := c.cell()
		if err != nil {
			return nil, p.n, errUnreadable{fmt.Errorf("column %s: %w", c.field.name, err)}
		}
		if broken == nil {
			p.out, broken = appendValue(p.out, c.field, a, i)
		}
	}
	if broken != nil {
		return nil, p.n, broken
	}
	p.out = append(p.out, '}')
	return p.out, p.n, nil
}

// enter begins the next row group.
func (p *parquetRows) enter() (err error) {
	group := p.group
	p.group++
	p.left = p.reader.ParquetReader().MetaData().RowGroup(group).NumRows()
	if p.left < 0 {
		return fmt.Errorf("says it has %d rows", p.left)
	}
	for _, c := range p.columns {
		c.release()
		if c.reader, err = p.reader.GetFieldReader(context.Background(), c.at, c.leaves, []int{group}); err != nil {
			return fmt.Errorf("column %s: %w", c.field.name, err)
		}
	}
	return nil
}

// cell returns where the column's next value is.
func (c *parquetColumn) cell() (a arrow.Array, row int, err error) {
	for len(c.chunks) > 0 && c.row >= c.chunks[0].Len() {
		c.chunks[0].Release()
		c.chunks, c.row = c.chunks[1:], 0
	}
	if len(c.chunks) == 0 {
		batch, err := c.reader.NextBatch(parquetBatch)
		if err != nil {
			return nil, 0, err
		}
		defer batch.Release()
		if batch.Len() == 0 {
			return nil, 0, errors.New("ends before its row group does")
		}
		for _, chunk := range batch.Chunks() {
			if chunk.Len() > 0 {
				chunk.Retain()
				c.chunks = append(c.chunks, chunk)
			}
		}
		c.row = 0
	}
	c.row++
	return c.chunks[0], c.row - 1, nil
}

// appendValue writes row i of a column as a member; a null is left out.
func appendValue(b []byte, f field, a arrow.Array, i int) ([]byte, error) {
	if a.IsNull(i) {
		return b, nil
	}
	switch f.shape {
	case floats:
		return appendVector(appendKey(b, "embedding_f32"), f.name, a.(array.ListLike), i)
	case number:
		x := numberAt(a, i)
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return nil, fmt.Errorf("%s is not a finite number", f.name)
		}
		return strconv.AppendFloat(appendKey(b, f.name), x, 'g', -1, 64), nil
	case moment:
		if t, ok := a.(*array.Timestamp); ok {
			at := t.Value(i).ToTime(t.DataType().(*arrow.TimestampType).Unit)
			return appendString(appendKey(b, f.name), at.UTC().Format(time.RFC3339Nano)), nil
		}
	}
	s := textAt(a, i)
	switch {
	case f.shape == packed && isBytes(a.DataType()):
		return appendBase64(appendKey(b, f.name), []byte(s)), nil
	case f.shape == object && !json.Valid([]byte(s)):
		return nil, fmt.Errorf("%s is not valid JSON: %.64q", f.name, s)
	case f.shape == object:
		return append(appendKey(b, f.name), s...), nil
	}
	return appendString(appendKey(b, f.name), s), nil
}

func isBytes(t arrow.DataType) bool {
	if d, ok := t.(*arrow.DictionaryType); ok {
		t = d.ValueType
	}
	return t.ID() == arrow.BINARY || t.ID() == arrow.LARGE_BINARY
}

// appendVector writes a list as float32 in base64, exact and a third of the text. What float32 cannot hold becomes
// infinite, and is refused by the record's rules.
func appendVector(b []byte, name string, a array.ListLike, i int) ([]byte, error) {
	from, to := a.ValueOffsets(i)
	values := a.ListValues()
	bytes := make([]byte, 0, 4*(to-from))
	for k := int(from); k < int(to); k++ {
		if values.IsNull(k) {
			return nil, fmt.Errorf("%s[%d] is null", name, k-int(from))
		}
		bytes = binary.LittleEndian.AppendUint32(bytes, math.Float32bits(float32(numberAt(values, k))))
	}
	return appendBase64(b, bytes), nil
}

func appendBase64(b, bytes []byte) []byte {
	b = append(b, '"')
	b = base64.StdEncoding.AppendEncode(b, bytes)
	return append(b, '"')
}

func textAt(a arrow.Array, i int) string {
	switch a := a.(type) {
	case *array.Dictionary:
		return textAt(a.Dictionary(), a.GetValueIndex(i))
	case *array.Binary:
		return string(a.Value(i))
	case *array.LargeBinary:
		return string(a.Value(i))
	case *array.String:
		return a.Value(i)
	case *array.LargeString:
		return a.Value(i)
	}
	panic("dataset: no text in a column of type " + a.DataType().String()) // fits has let it pass
}

func numberAt(a arrow.Array, i int) float64 {
	switch a := a.(type) {
	case *array.Float64:
		return a.Value(i)
	case *array.Float32:
		return float64(a.Value(i))
	case *array.Float16:
		return float64(a.Value(i).Float32())
	case *array.Int8:
		return float64(a.Value(i))
	case *array.Int16:
		return float64(a.Value(i))
	case *array.Int32:
		return float64(a.Value(i))
	case *array.Int64:
		return float64(a.Value(i))
	case *array.Uint8:
		return float64(a.Value(i))
	case *array.Uint16:
		return float64(a.Value(i))
	case *array.Uint32:
		return float64(a.Value(i))
	case *array.Uint64:
		return float64(a.Value(i))
	}
	panic("dataset: no number in a column of type " + a.DataType().String()) // fits has let it pass
}
