package schemas

import (
	"encoding/base64"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// text writes JSON for what was decoded of another encoding. The JSON decoders then judge it: one set of rules, reasons and messages for
// all encodings, at the price of a second pass.
type text struct {
	b     []byte
	field string // at the top, for messages
	muted int    // above 0 nothing is written: the value is of no use to us
}

// inputField reports whether the decoders of items, feedback or requests read a field.
func inputField(name string) bool {
	switch name {
	case "event_id", "user_id", "item_id", "kind", "value", "occurred_at",
		"embedding", "embedding_f32", "uri", "attributes",
		"request_id", "count", "rating", "seed", "guidance", "images", "after", "candidates", "explain":
		return true
	}
	return false
}

func (t *text) put(s string) {
	if t.muted == 0 {
		t.b = append(t.b, s...)
	}
}

// separate puts a comma unless a container has just begun.
func (t *text) separate() {
	if t.muted > 0 || len(t.b) == 0 {
		return
	}
	if last := t.b[len(t.b)-1]; last != '{' && last != '[' {
		t.b = append(t.b, ',')
	}
}

func (t *text) key(name string) error {
	t.separate()
	if err := t.string(name); err != nil {
		return err
	}
	t.put(":")
	return nil
}

func (t *text) string(s string) error {
	if t.muted > 0 {
		return nil
	}
	if !utf8.ValidString(s) {
		return reject(ReasonBadEncoding, "%s is not UTF-8", t.field)
	}
	t.b = append(t.b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			t.b = append(t.b, '\\', c)
		case c < ' ':
			const hex = "0123456789abcdef"
			t.b = append(t.b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			t.b = append(t.b, c)
		}
	}
	t.b = append(t.b, '"')
	return nil
}

// number writes what is not finite as a number beyond float64, which the fields' own rules refuse; in attributes, which have none, as
// null, like JavaScript.
func (t *text) number(x float64) {
	switch {
	case t.muted > 0:
	case finite(x):
		t.b = strconv.AppendFloat(t.b, x, 'g', -1, 64)
	case t.field == "attributes":
		t.put("null")
	default:
		t.put("1e999")
	}
}

func (t *text) integer(n int64) {
	if t.muted == 0 {
		t.b = strconv.AppendInt(t.b, n, 10)
	}
}

func (t *text) boolean(v bool) { t.put(strconv.FormatBool(v)) }

func (t *text) bytes(v []byte) {
	if t.muted == 0 {
		t.b = append(t.b, '"')
		t.b = base64.StdEncoding.AppendEncode(t.b, v)
		t.b = append(t.b, '"')
	}
}

// time writes RFC 3339. A year of other than four digits comes out as no RFC 3339, and is refused as such.
func (t *text) time(at time.Time) {
	if t.muted == 0 {
		t.b = append(t.b, '"')
		t.b = at.UTC().AppendFormat(t.b, time.RFC3339Nano)
		t.b = append(t.b, '"')
	}
}

// whole returns the text unless it has become too large.
func (t *text) whole() ([]byte, error) {
	if err := t.fits(); err != nil {
		return nil, err
	}
	return t.b, nil
}

func (t *text) fits() error {
	if len(t.b) > MaxValue {
		return reject(ReasonTooLarge, "%s: the record's JSON form exceeds %d bytes", t.field, MaxValue)
	}
	return nil
}

// oneLine makes others' errors fit for a message.
func oneLine(s string) string { return strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " ") }
