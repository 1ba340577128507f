package dataset

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// csvLines is a file of comma-separated values (RFC 4180) under a line of names, with one difference: a record is a
// line, so that a quote that nobody closes costs its line and not the rest of the file.
type csvLines struct {
	*lines
	columns []int // by position in a line: index into fields, -1 for one that is passed over
	fields  []field
	vector  []int // positions of embedding_0, embedding_1, …
	cells   [][]byte
	out     []byte
}

func newCSVLines(r io.Reader, fields []field) (*csvLines, error) {
	c := &csvLines{lines: newLines(r), fields: fields}
	head, err := c.lines.next()
	switch {
	case errors.Is(err, io.EOF):
		return nil, errors.New("is empty; the first line names the columns")
	case err != nil:
		return nil, fmt.Errorf("line 1: %w", err)
	}
	names, err := cells(nil, head)
	if err != nil {
		return nil, fmt.Errorf("line 1: %w", err)
	}
	numbered := map[int]int{}
	for at, cell := range names {
		name := strings.TrimSpace(string(cell))
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == name })
		if i >= 0 && slices.Contains(c.columns, i) {
			return nil, fmt.Errorf("line 1: two columns are named %s", name)
		}
		c.columns = append(c.columns, i)
		if d, ok := strings.CutPrefix(name, "embedding_"); ok && i < 0 {
			if k, err := strconv.Atoi(d); err == nil && k >= 0 {
				numbered[k] = at
			}
		}
	}
	if err := c.number(numbered); err != nil {
		return nil, fmt.Errorf("line 1: %w", err)
	}
	return c, require(fields, func(i int) bool {
		return slices.Contains(c.columns, i) || fields[i].shape == floats && c.vector != nil
	})
}

// number takes the columns of an embedding's dimensions, where the file is one of items.
func (c *csvLines) number(at map[int]int) error {
	i := slices.IndexFunc(c.fields, func(f field) bool { return f.shape == floats })
	if len(at) == 0 || i < 0 {
		return nil
	}
	if slices.Contains(c.columns, i) {
		return errors.New("both embedding and embedding_0 are columns")
	}
	for k := range len(at) {
		position, ok := at[k]
		if !ok {
			return fmt.Errorf("%d columns are named embedding_N, and embedding_%d is not among them", len(at), k)
		}
		c.vector = append(c.vector, position)
	}
	return nil
}

// require names a column without which no row can be a record.
func require(fields []field, has func(i int) bool) error {
	vectors, found := 0, 0
	for i, f := range fields {
		switch f.shape {
		case floats, packed:
			vectors++
			if has(i) {
				found++
			}
		case text, moment:
			if f.name != "uri" && !has(i) {
				return fmt.Errorf("has no column %s", f.name)
			}
		}
	}
	if vectors > 0 && found == 0 {
		return errors.New("has no column embedding or embedding_f32")
	}
	return nil
}

func (c *csvLines) close() {}

func (c *csvLines) next() ([]byte, int, error) {
	for {
		line, err := c.lines.next()
		if err != nil {
			return nil, c.n, err
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		value, err := c.record(line)
		return value, c.n, err
	}
}

func (c *csvLines) record(line []byte) (_ []byte, err error) {
	if c.cells, err = cells(c.cells[:0], line); err != nil {
		return nil, err
	}
	if len(c.cells) != len(c.columns) {
		return nil, fmt.Errorf("has %d cells where line 1 names %d columns", len(c.cells), len(c.columns))
	}
	c.out = append(c.out[:0], '{')
	for at, i := range c.columns {
		cell := bytes.TrimSpace(c.cells[at])
		if i < 0 || len(cell) == 0 {
			continue
		}
		c.out = appendKey(c.out, c.fields[i].name)
		if c.out, err = appendCell(c.out, c.fields[i], cell); err != nil {
			return nil, err
		}
	}
	if c.vector != nil {
		if err := c.dimensions(); err != nil {
			return nil, err
		}
	}
	c.out = append(c.out, '}')
	return c.out, nil
}

// dimensions writes the cells of embedding_0, embedding_1, … as one list.
func (c *csvLines) dimensions() (err error) {
	c.out = append(appendKey(c.out, "embedding"), '[')
	for k, at := range c.vector {
		if k > 0 {
			c.out = append(c.out, ',')
		}
		if c.out, err = appendNumber(c.out, fmt.Sprintf("embedding_%d", k), bytes.TrimSpace(c.cells[at])); err != nil {
			return err
		}
	}
	c.out = append(c.out, ']')
	return nil
}

// appendKey begins a member of the object in b.
func appendKey(b []byte, name string) []byte {
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	b = append(b, '"')
	b = append(b, name...) // names of fields need no escapes
	return append(b, '"', ':')
}

func appendCell(b []byte, f field, cell []byte) ([]byte, error) {
	switch f.shape {
	case number:
		return appendNumber(b, f.name, cell)
	case floats, object:
		if !json.Valid(cell) {
			return nil, fmt.Errorf("%s is not valid JSON: %.64q", f.name, cell)
		}
		return append(b, cell...), nil
	}
	return appendString(b, string(cell)), nil
}

func appendNumber(b []byte, name string, cell []byte) ([]byte, error) {
	x, err := strconv.ParseFloat(string(cell), 64)
	if err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
		return nil, fmt.Errorf("%s is not a number: %.64q", name, cell)
	}
	return strconv.AppendFloat(b, x, 'g', -1, 64), nil
}

// appendString keeps bytes that are no UTF-8, which the record's own rules refuse.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ':
			b = fmt.Appendf(b, `\u%04x`, c)
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

// cells appends the cells of a line to dst. Those without quotes are parts of the line.
func cells(dst [][]byte, line []byte) ([][]byte, error) {
	for {
		if len(line) == 0 || line[0] != '"' {
			cell, rest, more := bytes.Cut(line, []byte(","))
			if bytes.IndexByte(cell, '"') >= 0 {
				return nil, fmt.Errorf("cell %d has a quote in the middle", len(dst)+1)
			}
			dst = append(dst, cell)
			if !more {
				return dst, nil
			}
			line = rest
			continue
		}
		cell, rest, err := quoted(line[1:])
		if err != nil {
			return nil, fmt.Errorf("cell %d: %w", len(dst)+1, err)
		}
		dst = append(dst, cell)
		if len(rest) == 0 {
			return dst, nil
		}
		line = rest[1:]
	}
}

// quoted reads a cell behind its opening quote; rest is empty or begins with the comma behind the cell.
func quoted(s []byte) (cell, rest []byte, err error) {
	for {
		i := bytes.IndexByte(s, '"')
		switch {
		case i < 0:
			return nil, nil, errors.New("a quote is not closed in its line")
		case i+1 < len(s) && s[i+1] == '"':
			cell = append(cell, s[:i+1]...)
			s = s[i+2:]
		case i+1 == len(s) || s[i+1] == ',':
			return append(cell, s[:i]...), s[i+1:], nil
		default:
			return nil, nil, errors.New("something follows the closing quote")
		}
	}
}
