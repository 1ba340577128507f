package dataset

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"rebeca/schemas"
)

// lines are the lines of a text file. One that is longer than a record may be is passed over whole, so that a file
// that is no text at all costs no memory.
type lines struct {
	r   *bufio.Reader
	buf []byte
	n   int
}

func newLines(r io.Reader) *lines { return &lines{r: bufio.NewReaderSize(r, 1<<16)} }

var errLong = fmt.Errorf("is longer than %d bytes", 4*schemas.MaxValue)

// next returns a line without its end and without a byte order mark, valid until the next call.
func (l *lines) next() ([]byte, error) {
	l.buf = l.buf[:0]
	l.n++
	long := false
	for {
		part, err := l.r.ReadSlice('\n')
		if long = long || len(l.buf)+len(part) > 4*schemas.MaxValue; !long {
			l.buf = append(l.buf, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(l.buf) == 0 && !long:
			return nil, io.EOF
		case err != nil && !errors.Is(err, io.EOF):
			return nil, errUnreadable{err}
		case long:
			return nil, errLong
		}
		line := bytes.TrimSuffix(bytes.TrimSuffix(l.buf, []byte("\n")), []byte("\r"))
		if l.n == 1 {
			line = bytes.TrimPrefix(line, []byte("\ufeff"))
		}
		return line, nil
	}
}

// jsonLines is a file of one record a line.
type jsonLines struct{ *lines }

func newJSONLines(r io.Reader) jsonLines { return jsonLines{newLines(r)} }

func (j jsonLines) next() ([]byte, int, error) {
	for {
		line, err := j.lines.next()
		if line = bytes.TrimSpace(line); err != nil || len(line) > 0 {
			return line, j.n, err
		}
	}
}

func (jsonLines) close() {}
