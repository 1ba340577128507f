package schemas

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/hamba/avro/v2"
)

// Limits of what one payload may unfold to, whatever its schema: an array of nulls or empty records takes no bytes at all.
const (
	maxValues = MaxValue // of all depths
	maxDepth  = 64
)

// compileAvro parses with hamba/avro and reads by avroReader: payloads come from anybody, and a decoder that fills Go values has no bound
// on how many and how deep.
func compileAvro(d Definition) (func([]byte) ([]byte, error), error) {
	names := &avro.SchemaCache{}
	for _, r := range d.References {
		if _, err := avro.ParseWithCache(r.Text, "", names); err != nil {
			return nil, fmt.Errorf("parsing the Avro schema %s: %w", r.Name, err)
		}
	}
	schema, err := avro.ParseWithCache(d.Text, "", names)
	if err != nil {
		return nil, fmt.Errorf("parsing the Avro schema: %w", err)
	}
	if !holdsRecord(schema) {
		return nil, fmt.Errorf("an Avro schema of type %s is no record", schema.Type())
	}
	return func(payload []byte) ([]byte, error) {
		r := avroReader{data: payload, text: text{b: make([]byte, 0, 2*len(payload)+64)}}
		if err := r.value(schema, 0); err != nil {
			return nil, err
		}
		if n := len(r.data) - r.pos; n > 0 {
			return nil, reject(ReasonBadEncoding, "%d bytes follow the Avro record", n)
		}
		return r.whole()
	}, nil
}

// holdsRecord reports whether a schema is a record or a union of some.
func holdsRecord(s avro.Schema) bool {
	switch s := s.(type) {
	case *avro.RecordSchema:
		return true
	case *avro.RefSchema:
		return holdsRecord(s.Schema())
	case *avro.UnionSchema:
		for _, branch := range s.Types() {
			if !holdsRecord(branch) {
				return false
			}
		}
		return true
	}
	return false
}

// avroReader reads one value of Avro's binary encoding (specification 1.12) into JSON.
type avroReader struct {
	text
	data   []byte
	pos    int
	values int
}

func (r *avroReader) value(s avro.Schema, depth int) error {
	if r.values++; r.values > maxValues || depth > maxDepth {
		return reject(ReasonBadEncoding, "%s: more than %d values, or %d deep", r.field, maxValues, maxDepth)
	}
	if err := r.fits(); err != nil {
		return err
	}
	switch s := s.(type) {
	case *avro.RefSchema:
		return r.value(s.Schema(), depth+1)
	case *avro.NullSchema:
		r.put("null")
		return nil
	case *avro.UnionSchema:
		i, err := r.index(len(s.Types()))
		if err != nil {
			return err
		}
		return r.value(s.Types()[i], depth+1)
	case *avro.EnumSchema:
		i, err := r.index(len(s.Symbols()))
		if err != nil {
			return err
		}
		return r.string(s.Symbols()[i])
	case *avro.FixedSchema:
		b, err := r.take(int64(s.Size()))
		r.bytes(b)
		return err
	case *avro.RecordSchema:
		return r.record(s, depth)
	case *avro.ArraySchema:
		r.put("[")
		defer r.put("]")
		return r.blocks(func() error {
			r.separate()
			return r.value(s.Items(), depth+1)
		})
	case *avro.MapSchema:
		r.put("{")
		defer r.put("}")
		return r.blocks(func() error {
			key, err := r.prefixed()
			if err == nil {
				err = r.key(string(key))
			}
			if err != nil {
				return err
			}
			return r.value(s.Values(), depth+1)
		})
	case *avro.PrimitiveSchema:
		return r.primitive(s)
	}
	panic(fmt.Sprintf("schemas: an Avro schema of type %T", s))
}

// record writes of the outermost record the fields that we know, of others all.
func (r *avroReader) record(s *avro.RecordSchema, depth int) error {
	outer := r.field == ""
	r.put("{")
	for _, f := range s.Fields() {
		mute := 0
		if outer {
			if r.field = f.Name(); !inputField(r.field) {
				mute = 1
			}
		}
		r.muted += mute
		err := r.key(f.Name())
		if err == nil {
			err = r.value(f.Type(), depth+1)
		}
		r.muted -= mute
		if err != nil {
			return err
		}
	}
	r.put("}")
	return nil
}

// blocks reads the items of an array or map, which come in counted blocks up to an empty one. A negative count is followed by the block's
// size, which is of no use here.
func (r *avroReader) blocks(item func() error) error {
	for {
		n, err := r.long()
		if err != nil || n == 0 {
			return err
		}
		if n < 0 {
			if n = -n; n < 0 {
				return r.broken()
			}
			if _, err := r.long(); err != nil {
				return err
			}
		}
		for range n {
			if err := item(); err != nil {
				return err
			}
		}
	}
}

func (r *avroReader) primitive(s *avro.PrimitiveSchema) error {
	switch s.Type() {
	case avro.Boolean:
		b, err := r.take(1)
		if err == nil && b[0] > 1 {
			err = r.broken()
		}
		if err == nil {
			r.boolean(b[0] == 1)
		}
		return err
	case avro.Int, avro.Long:
		n, err := r.long()
		if err == nil {
			r.whole64(n, s.Logical())
		}
		return err
	case avro.Float:
		b, err := r.take(4)
		if err == nil {
			r.number(float64(math.Float32frombits(binary.LittleEndian.Uint32(b))))
		}
		return err
	case avro.Double:
		b, err := r.take(8)
		if err == nil {
			r.number(math.Float64frombits(binary.LittleEndian.Uint64(b)))
		}
		return err
	}
	b, err := r.prefixed()
	if err != nil {
		return err
	}
	if s.Type() == avro.Bytes {
		r.bytes(b)
		return nil
	}
	return r.string(string(b))
}

// whole64 writes a moment as such and other numbers as numbers: local timestamps name no moment.
func (r *avroReader) whole64(n int64, logical avro.LogicalSchema) {
	if logical != nil {
		switch logical.Type() {
		case avro.TimestampMillis:
			r.time(time.UnixMilli(n))
			return
		case avro.TimestampMicros:
			r.time(time.UnixMicro(n))
			return
		}
	}
	r.integer(n)
}

// long reads a zigzag varint.
func (r *avroReader) long() (int64, error) {
	n, size := binary.Varint(r.data[r.pos:])
	if size <= 0 {
		return 0, r.broken()
	}
	r.pos += size
	return n, nil
}

// index reads a number below n.
func (r *avroReader) index(n int) (int, error) {
	i, err := r.long()
	if err == nil && (i < 0 || i >= int64(n)) {
		err = r.broken()
	}
	return int(i), err
}

// prefixed reads bytes behind their length.
func (r *avroReader) prefixed() ([]byte, error) {
	n, err := r.long()
	if err != nil {
		return nil, err
	}
	return r.take(n)
}

// take returns the next n bytes; they are part of the payload.
func (r *avroReader) take(n int64) ([]byte, error) {
	if n < 0 || n > int64(len(r.data)-r.pos) {
		return nil, r.broken()
	}
	b := r.data[r.pos : r.pos+int(n)]
	r.pos += int(n)
	return b, nil
}

func (r *avroReader) broken() error {
	return reject(ReasonBadEncoding, "%s: the bytes are not Avro of their schema at byte %d of %d", r.field, r.pos, len(r.data))
}
