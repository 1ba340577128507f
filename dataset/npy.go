package dataset

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
)

// npy reads a matrix of NumPy's format (NEP 1): float16, float32 or float64, little-endian, row by row.
type npy struct {
	r          *bufio.Reader
	rows, cols int
	width      int // bytes of a number
	buf        []byte
}

// maxRow bounds the bytes of a row, so that a damaged header cannot ask for all memory.
const maxRow = 1 << 24

var errNPY = errors.New("is no NumPy file of a two-dimensional array of float16, float32 or float64")

func newNPY(r io.Reader) (*npy, error) {
	n := &npy{r: bufio.NewReaderSize(r, 1<<16)}
	head := make([]byte, 8)
	if _, err := io.ReadFull(n.r, head); err != nil || !bytes.HasPrefix(head, []byte("\x93NUMPY")) {
		return nil, errNPY
	}
	size := make([]byte, 2)
	if head[6] > 1 { // versions 2 and 3 have a longer length
		size = make([]byte, 4)
	}
	if _, err := io.ReadFull(n.r, size); err != nil {
		return nil, errNPY
	}
	length := int(binary.LittleEndian.Uint16(size))
	if len(size) == 4 {
		length = int(min(binary.LittleEndian.Uint32(size), 1<<16))
	}
	header := make([]byte, length)
	if _, err := io.ReadFull(n.r, header); err != nil {
		return nil, errNPY
	}
	return n, n.describe(header)
}

// describe reads the header, a Python dictionary in the one form that NumPy writes.
func (n *npy) describe(header []byte) error {
	form := regexp.MustCompile(`^\{'descr': '<f([248])', 'fortran_order': (True|False), 'shape': \((\d+), (\d+)\), \}\s*$`)
	m := form.FindSubmatch(header)
	if m == nil {
		return fmt.Errorf("%w: %.120q", errNPY, header)
	}
	if string(m[2]) == "True" {
		return errors.New("is stored column by column: write np.ascontiguousarray of it")
	}
	var err error
	n.width = int(m[1][0] - '0')
	if n.rows, err = strconv.Atoi(string(m[3])); err != nil {
		return errNPY
	}
	if n.cols, err = strconv.Atoi(string(m[4])); err != nil || n.cols == 0 || n.cols > maxRow/n.width {
		return fmt.Errorf("%w: rows of %s numbers", errNPY, m[4])
	}
	n.buf = make([]byte, n.width*n.cols)
	return nil
}

// row returns the next row, [cols], the caller's to keep; io.ErrUnexpectedEOF where the file ends before it.
func (n *npy) row() ([]float32, error) {
	if _, err := io.ReadFull(n.r, n.buf); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	out := make([]float32, n.cols)
	for i := range out {
		b := n.buf[i*n.width:]
		switch n.width {
		case 2:
			out[i] = half(binary.LittleEndian.Uint16(b))
		case 4:
			out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b))
		default:
			out[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(b)))
		}
	}
	return out, nil
}

// half is the value of a float16 (IEEE 754 binary16).
func half(h uint16) float32 {
	sign, exponent, fraction := h>>15, int(h>>10&31), float64(h&1023)
	var v float64
	switch exponent {
	case 0:
		v = math.Ldexp(fraction, -24)
	case 31:
		v = math.Inf(1)
		if fraction != 0 {
			v = math.NaN()
		}
	default:
		v = math.Ldexp(1024+fraction, exponent-25)
	}
	if sign == 1 {
		v = -v
	}
	return float32(v)
}
