package schemas

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// object walks the members of one valid JSON object without building a tree: the decoders run on every event, field
// names must be case-sensitive (encoding/json folds them), and a refusal must name the field.
type object struct {
	data []byte // valid JSON, an object
	pos  int    // at the next key's quote, or at the closing brace
}

// raw is one JSON value as it stands in the record.
type raw []byte

// openObject checks the size, UTF-8 and JSON of a record's value once, so that the walk may trust it.
func openObject(value []byte, limit int) (object, error) {
	if len(value) > limit {
		return object{}, reject(ReasonTooLarge, "value of %d bytes exceeds %d", len(value), limit)
	}
	if !utf8.Valid(value) || !json.Valid(value) {
		return object{}, reject(ReasonBadJSON, "value is not valid JSON: %.64q", value)
	}
	o, ok := raw(bytes.TrimLeft(value, " \t\r\n")).object()
	if !ok {
		return object{}, reject(ReasonBadJSON, "value is not a JSON object: %.64q", value)
	}
	return o, nil
}

// next returns the next member; ok is false at the end. The key is without its quotes and escapes.
func (o *object) next() (key []byte, value raw, ok bool) {
	o.skipSpace()
	if o.data[o.pos] == ',' {
		o.pos++
		o.skipSpace()
	}
	if o.data[o.pos] == '}' {
		return nil, nil, false
	}
	start := o.pos
	o.skipString()
	key = o.data[start+1 : o.pos-1]
	if bytes.IndexByte(key, '\\') >= 0 {
		key = []byte(raw(o.data[start:o.pos]).unquote())
	}
	o.skipSpace()
	o.pos++ // the colon
	o.skipSpace()
	start = o.pos
	o.skipValue()
	return key, raw(o.data[start:o.pos]), true
}

func (o *object) skipSpace() {
	for {
		switch o.data[o.pos] {
		case ' ', '\t', '\r', '\n':
			o.pos++
		default:
			return
		}
	}
}

func (o *object) skipString() {
	for o.pos++; o.data[o.pos] != '"'; o.pos++ {
		if o.data[o.pos] == '\\' {
			o.pos++
		}
	}
	o.pos++
}

func (o *object) skipValue() {
	switch o.data[o.pos] {
	case '"':
		o.skipString()
	case '{', '[':
		o.skipNested()
	default:
		for {
			switch o.data[o.pos] {
			case ',', '}', ']', ' ', '\t', '\r', '\n':
				return
			}
			o.pos++
		}
	}
}

func (o *object) skipNested() {
	for depth := 0; ; {
		switch o.data[o.pos] {
		case '"':
			o.skipString()
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		o.pos++
		if depth == 0 {
			return
		}
	}
}

func (v raw) null() bool { return v[0] == 'n' }

func (v raw) object() (object, bool) {
	if len(v) == 0 || v[0] != '{' {
		return object{}, false
	}
	return object{data: v, pos: 1}, true
}

func (v raw) unquote() string {
	if bytes.IndexByte(v, '\\') < 0 {
		return string(v[1 : len(v)-1])
	}
	var s string
	if err := json.Unmarshal(v, &s); err != nil {
		panic("schemas: unquoting validated JSON: " + err.Error())
	}
	return s
}

func (v raw) text(field string) (string, error) {
	if v[0] != '"' {
		return "", reject(ReasonBadType, "%s must be a string, is %.64s", field, v)
	}
	return v.unquote(), nil
}

func (v raw) boolean(field string) (bool, error) {
	switch v[0] {
	case 't':
		return true, nil
	case 'f':
		return false, nil
	}
	return false, reject(ReasonBadType, "%s must be true or false, is %.64s", field, v)
}

// number parses a JSON number; one beyond float64 is refused with the given reason.
func (v raw) number(field string, reason Reason) (float64, error) {
	if v[0] != '-' && (v[0] < '0' || v[0] > '9') {
		return 0, reject(ReasonBadType, "%s must be a number, is %.64s", field, v)
	}
	x, err := strconv.ParseFloat(string(v), 64)
	if err != nil {
		return 0, reject(reason, "%s is out of range: %.64s", field, v)
	}
	return x, nil
}

// integer parses a whole number in lo..hi, written in any JSON form (3, 3.0 and 3e0 are the same number).
func (v raw) integer(field string, reason Reason, lo, hi int64) (int64, error) {
	n, err := strconv.ParseInt(string(v), 10, 64)
	if err != nil {
		x, err := v.number(field, reason)
		if err != nil {
			return 0, err
		}
		if x != math.Trunc(x) || x < math.MinInt64 || x >= math.MaxInt64 {
			return 0, reject(reason, "%s must be a whole number in %d..%d, is %.64s", field, lo, hi, v)
		}
		n = int64(x)
	}
	if n < lo || n > hi {
		return 0, reject(reason, "%s must be a whole number in %d..%d, is %.64s", field, lo, hi, v)
	}
	return n, nil
}

func (v raw) time(field string) (time.Time, error) {
	s, err := v.text(field)
	if err != nil {
		return time.Time{}, err
	}
	if s == "" {
		return time.Time{}, nil
	}
	return parseTime(field, s)
}

func parseTime(field, s string) (time.Time, error) {
	var t time.Time
	if err := t.UnmarshalText([]byte(s)); err != nil || !strictTime(s) {
		return time.Time{}, reject(ReasonBadTime, "%s is not RFC 3339: %.64q", field, s)
	}
	return t.UTC(), nil
}

// strictTime refuses what package time takes for RFC 3339 and is not: one digit for the hour, a comma for the point,
// zones beyond 23:59.
func strictTime(s string) bool {
	if s[len("2006-01-02T15")] != ':' || strings.Contains(s, ",") {
		return false
	}
	if strings.HasSuffix(s, "Z") {
		return true
	}
	zone := s[len(s)-len("07:00"):]
	return zone[:2] <= "23" && zone[3:] <= "59"
}

// floats32 parses an array of numbers that are finite as float32.
func (v raw) floats32(field string) ([]float32, error) {
	if v[0] != '[' {
		return nil, reject(ReasonBadType, "%s must be an array of numbers, is %.64s", field, v)
	}
	out := make([]float32, 0, bytes.Count(v, []byte{','})+1)
	err := v.elements(func(v raw) error {
		x, err := v.number(field, ReasonBadEmbedding)
		if err != nil {
			return err
		}
		if math.Abs(x) > math.MaxFloat32 {
			return reject(ReasonBadEmbedding, "%s[%d] is beyond float32: %.64s", field, len(out), v)
		}
		out = append(out, float32(x))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// elements calls fn for each element of an array, which v must be.
func (v raw) elements(fn func(v raw) error) error {
	o := object{data: v, pos: 1}
	for {
		o.skipSpace()
		switch o.data[o.pos] {
		case ']':
			return nil
		case ',':
			o.pos++
			continue
		}
		start := o.pos
		o.skipValue()
		if err := fn(raw(v[start:o.pos])); err != nil {
			return err
		}
	}
}

// base64F32 parses standard base64 of little-endian float32 values.
func (v raw) base64F32(field string) ([]float32, error) {
	s, err := v.text(field)
	if err != nil {
		return nil, err
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil || base64.StdEncoding.EncodedLen(len(b)) != len(s) {
		return nil, reject(ReasonBadEmbedding, "%s is not standard base64", field)
	}
	if len(b)%4 != 0 {
		return nil, reject(ReasonBadEmbedding, "%s holds %d bytes, not a multiple of 4", field, len(b))
	}
	out := make([]float32, len(b)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return out, nil
}

// checkFloats refuses a wrong dimension (dim <= 0 takes any but zero) and numbers that are not finite.
func checkFloats(field string, e []float32, dim int) error {
	if len(e) == 0 || (dim > 0 && len(e) != dim) {
		return reject(ReasonBadEmbedding, "%s has %d dimensions, want %d", field, len(e), dim)
	}
	for i, x := range e {
		if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
			return reject(ReasonBadEmbedding, "%s[%d] is not finite", field, i)
		}
	}
	return nil
}

func encodeF32(e []float32) string {
	b := make([]byte, 4*len(e))
	for i, x := range e {
		binary.LittleEndian.PutUint32(b[4*i:], math.Float32bits(x))
	}
	return base64.StdEncoding.EncodeToString(b)
}

// encode is json.Marshal without the escapes for HTML, which would change the bytes of ids and attributes for nothing.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'}), nil
}

func (v raw) optionalText(field string) (string, error) {
	if v.null() {
		return "", nil
	}
	return v.text(field)
}

func (v raw) optionalNumber(field string, reason Reason) (*float64, error) {
	if v.null() {
		return nil, nil
	}
	x, err := v.number(field, reason)
	if err != nil {
		return nil, err
	}
	return &x, nil
}

func (v raw) optionalTime(field string) (time.Time, error) {
	if v.null() {
		return time.Time{}, nil
	}
	return v.time(field)
}

func (v raw) optionalInteger(field string, reason Reason, lo, hi int64) (int64, error) {
	if v.null() {
		return 0, nil
	}
	return v.integer(field, reason, lo, hi)
}
