package table

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"rebeca/schemas"
)

// valueVersion begins every value but the row's, which has its own.
const valueVersion = 1

// absent is the length that stands for a nil slice.
const absent = math.MaxUint32

func appendBytes(b, v []byte) []byte {
	if v == nil {
		return binary.LittleEndian.AppendUint32(b, absent)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(v)))
	return append(b, v...)
}

func appendString(b []byte, s string) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}

func appendFloats(b []byte, v []float32) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(v)))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

func appendSource(b []byte, s schemas.Source) []byte {
	b = appendString(b, s.Topic)
	b = binary.LittleEndian.AppendUint32(b, uint32(s.Partition))
	return binary.LittleEndian.AppendUint64(b, uint64(s.Offset))
}

// scanner reads a value. After the first fault it returns zeroes and keeps the fault.
type scanner struct {
	b    []byte
	what string
	bad  bool
}

func scan(what string, b []byte) *scanner {
	s := &scanner{b: b, what: what}
	if s.byte() != valueVersion {
		s.bad = true
	}
	return s
}

// end returns the fault, if any, as an ErrCorrupt; bytes left over are one.
func (s *scanner) end() error {
	if s.bad || len(s.b) != 0 {
		return fmt.Errorf("%w: %s", ErrCorrupt, s.what)
	}
	return nil
}

func (s *scanner) take(n int) []byte {
	if s.bad || n < 0 || n > len(s.b) {
		s.bad = true
		return nil
	}
	out := s.b[:n]
	s.b = s.b[n:]
	return out
}

func (s *scanner) byte() byte {
	if b := s.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (s *scanner) uint16() uint16 {
	if b := s.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (s *scanner) uint32() uint32 {
	if b := s.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (s *scanner) uint64() uint64 {
	if b := s.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// bytes returns a copy, nil where nil was written.
func (s *scanner) bytes() []byte {
	n := s.uint32()
	if n == absent || s.bad {
		return nil
	}
	return append([]byte{}, s.take(int(n))...)
}

func (s *scanner) string() string { return string(s.take(int(s.uint32()))) }

func (s *scanner) floats() []float32 {
	n := int(s.uint32())
	if s.bad || n > len(s.b)/4 {
		s.bad = true
		return nil
	}
	out := make([]float32, n)
	for i := range out {
		out[i] = math.Float32frombits(s.uint32())
	}
	return out
}

func (s *scanner) source() schemas.Source {
	return schemas.Source{Topic: s.string(), Partition: int32(s.uint32()), Offset: int64(s.uint64())}
}

// reached is how far a partition of a topic is read.
type reached struct {
	next        int64
	fingerprint uint64 // of the record applied last
	last        int64  // its offset; -1 where none is known
}

// reachedVersion is the version of a value with the last record's offset; version 1 knew its fingerprint only.
const reachedVersion = 2

func (r reached) encode() []byte {
	b := binary.LittleEndian.AppendUint64([]byte{reachedVersion}, uint64(r.next))
	b = binary.LittleEndian.AppendUint64(b, r.fingerprint)
	return binary.LittleEndian.AppendUint64(b, uint64(r.last))
}

func decodeOffset(b []byte) (reached, error) {
	if len(b) == 0 || b[0] != reachedVersion {
		s := scan("offset", b)
		r := reached{next: int64(s.uint64()), fingerprint: s.uint64(), last: -1}
		return r, s.end()
	}
	s := &scanner{b: b[1:], what: "offset"}
	r := reached{next: int64(s.uint64()), fingerprint: s.uint64(), last: int64(s.uint64())}
	return r, s.end()
}

func encodeUint64(v uint64) []byte { return binary.LittleEndian.AppendUint64([]byte{valueVersion}, v) }

func decodeUint64(what string, b []byte) (uint64, error) {
	s := scan(what, b)
	v := s.uint64()
	return v, s.end()
}

// Presence bits of an intent's optional fields.
const (
	hasSeed = 1 << iota
	hasGuidance
	hasImages
	wantsImages
	hasAfter
	hasCandidates
	hasExplain
	wantsExplain
)

// encodeIntent writes an intent and how many of its results are in the outbox already.
func encodeIntent(in *Intent, done int) []byte {
	le := binary.LittleEndian
	b := make([]byte, 0, 160+len(in.UserID)+len(in.RequestID))
	b = append(b, valueVersion)
	b = le.AppendUint32(b, uint32(done))
	b = appendString(b, in.ID)
	b = appendString(b, in.UserID)
	b = appendString(b, in.Trigger)
	b = appendString(b, in.RequestID)
	b = le.AppendUint32(b, uint32(in.Count))
	b = appendString(b, in.Rating)
	b = appendSource(b, in.Source)
	b = le.AppendUint64(b, uint64(in.At.UnixMilli()))
	flags := len(b)
	b = append(b, 0)
	if in.Seed != nil {
		b[flags] |= hasSeed
		b = le.AppendUint64(b, *in.Seed)
	}
	if in.Guidance != nil {
		b[flags] |= hasGuidance
		b = le.AppendUint64(b, math.Float64bits(*in.Guidance))
	}
	if in.Images != nil {
		b[flags] |= hasImages
		if *in.Images {
			b[flags] |= wantsImages
		}
	}
	if in.After != nil {
		b[flags] |= hasAfter
		b = le.AppendUint32(b, uint32(in.After.Partition))
		b = le.AppendUint64(b, uint64(in.After.Offset))
	}
	if in.Candidates != nil {
		b[flags] |= hasCandidates
		b = le.AppendUint16(b, uint16(*in.Candidates))
	}
	if in.Explain != nil {
		b[flags] |= hasExplain
		if *in.Explain {
			b[flags] |= wantsExplain
		}
	}
	return b
}

// decodeIntent reads an intent; its place (Partition, Seq) is in the key.
func decodeIntent(b []byte) (in Intent, done int, err error) {
	s := scan("intent", b)
	done = int(s.uint32())
	in = Intent{
		ID: s.string(), UserID: s.string(), Trigger: s.string(), RequestID: s.string(), Count: int(s.uint32()), Rating: s.string(),
		Source: s.source(), At: time.UnixMilli(int64(s.uint64())).UTC(),
	}
	flags := s.byte()
	if flags&hasSeed != 0 {
		v := s.uint64()
		in.Seed = &v
	}
	if flags&hasGuidance != 0 {
		v := math.Float64frombits(s.uint64())
		in.Guidance = &v
	}
	if flags&hasImages != 0 {
		v := flags&wantsImages != 0
		in.Images = &v
	}
	if flags&hasAfter != 0 {
		in.After = &schemas.Position{Partition: int32(s.uint32()), Offset: int64(s.uint64())}
	}
	if flags&hasCandidates != 0 {
		v := int(s.uint16())
		in.Candidates = &v
	}
	if flags&hasExplain != 0 {
		v := flags&wantsExplain != 0
		in.Explain = &v
	}
	return in, done, s.end()
}

// encodeMessage writes a message; the key comes first so that a scan can find a user's without reading the rest. cause, the intent of an
// image that was asked for, comes last; nil for others.
func encodeMessage(m *Message, cause []byte) []byte {
	n := 16 + len(m.Role) + len(m.Key) + len(m.Value) + 4 + len(cause)
	for _, h := range m.Headers {
		n += 8 + len(h.Key) + len(h.Value)
	}
	b := append(make([]byte, 0, n), valueVersion)
	b = appendString(b, m.Role)
	b = appendBytes(b, m.Key)
	b = appendBytes(b, m.Value)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(m.Headers)))
	for _, h := range m.Headers {
		b = appendString(b, h.Key)
		b = appendBytes(b, h.Value)
	}
	if cause != nil {
		b = appendBytes(b, cause)
	}
	return b
}

func decodeMessage(b []byte) (Message, error) {
	m, _, err := decodeCaused(b)
	return m, err
}

// decodeCaused reads a message and the intent that stands behind it, nil for none.
func decodeCaused(b []byte) (m Message, cause []byte, err error) {
	s := scan("message", b)
	m = Message{Role: s.string(), Key: s.bytes(), Value: s.bytes()}
	for range s.uint16() {
		m.Headers = append(m.Headers, schemas.Header{Key: s.string(), Value: s.bytes()})
		if s.bad {
			break
		}
	}
	if len(s.b) > 0 {
		cause = s.bytes()
		s.bad = s.bad || cause == nil
	}
	return m, cause, s.end()
}

// messageOwner reads role and key, and whether the value is null.
func messageOwner(b []byte) (role string, key []byte, null bool, err error) {
	s := scan("message", b)
	role, key = s.string(), s.bytes()
	null = s.bytes() == nil
	if s.bad {
		return "", nil, false, s.end()
	}
	return role, key, null, nil
}

func encodeVector(v *Vector) []byte {
	b := binary.LittleEndian.AppendUint64([]byte{valueVersion}, v.Events)
	b = binary.LittleEndian.AppendUint64(b, uint64(v.AsOf))
	return appendFloats(appendString(b, v.PriorVersion), v.Values)
}

func decodeVector(b []byte) (Vector, error) {
	s := scan("vector", b)
	v := Vector{Events: s.uint64(), AsOf: int64(s.uint64()), PriorVersion: s.string(), Values: s.floats()}
	return v, s.end()
}

// vectorEvents reads the number of events that a vector knows, and checks it like decodeVector without making one.
func vectorEvents(b []byte) (uint64, error) {
	s := scan("vector", b)
	events := s.uint64()
	s.uint64()
	s.take(int(s.uint32()))
	s.take(4 * int(s.uint32()))
	return events, s.end()
}

func encodeItem(uri string, embedding []float32) []byte {
	return appendFloats(appendString([]byte{valueVersion}, uri), embedding)
}

func decodeItem(b []byte) (uri string, embedding []float32, err error) {
	s := scan("item", b)
	uri, embedding = s.string(), s.floats()
	return uri, embedding, s.end()
}
