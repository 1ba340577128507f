package schemas

import (
	"strconv"
	"strings"
	"time"
)

// quick reads one JSON text in the plain form in which nearly all producers write: strings of printable ASCII without escapes. It
// checks and decodes in one pass; anything else, faults included, makes it give up, and the walk of object.go judges the text.
type quick struct {
	data []byte
	pos  int
	ok   bool // false once it gave up
}

// quickDepth bounds the nesting that quick follows.
const quickDepth = 16

// quickFeedback decodes a feedback in the plain form. When ok is true, scanFeedback without it returns the same and no error.
func quickFeedback(value []byte) (f Feedback, ok bool) {
	q := quick{data: value, ok: true}
	var event, user, item []byte
	q.space()
	q.expect('{')
	for q.space(); q.ok; q.space() {
		key := q.text()
		q.space()
		q.expect(':')
		q.space()
		switch string(key) {
		case "event_id":
			event = q.optionalText()
		case "user_id":
			user = q.optionalText()
		case "item_id":
			item = q.optionalText()
		case "kind":
			f.Kind = q.kind()
		case "value":
			f.Value = q.optionalNumber()
		case "occurred_at":
			f.OccurredAt = q.time()
		default:
			q.skip(0)
		}
		q.space()
		if q.peek() == '}' {
			break
		}
		q.expect(',')
	}
	q.expect('}')
	q.space()
	if !q.ok || q.pos != len(value) {
		return Feedback{}, false
	}
	var ids strings.Builder // one allocation for the three
	ids.Grow(len(event) + len(user) + len(item))
	ids.Write(event)
	ids.Write(user)
	ids.Write(item)
	all := ids.String()
	f.EventID, f.UserID, f.ItemID = all[:len(event)], all[len(event):len(event)+len(user)], all[len(event)+len(user):]
	return f, true
}

// peek returns the next byte, 0 at the end.
func (q *quick) peek() byte {
	if q.pos < len(q.data) {
		return q.data[q.pos]
	}
	return 0
}

func (q *quick) expect(b byte) {
	if q.peek() != b {
		q.ok = false
		return
	}
	q.pos++
}

func (q *quick) space() {
	for q.pos < len(q.data) {
		switch q.data[q.pos] {
		case ' ', '\t', '\r', '\n':
			q.pos++
		default:
			return
		}
	}
}

// text reads a string; it is part of the data.
func (q *quick) text() []byte {
	q.expect('"')
	for i := q.pos; q.ok && i < len(q.data); i++ {
		switch b := q.data[i]; {
		case b == '"':
			s := q.data[q.pos:i]
			q.pos = i + 1
			return s
		case b < ' ' || b > '~' || b == '\\':
			q.ok = false
		}
	}
	q.ok = false
	return nil
}

func (q *quick) word(w string) {
	if len(q.data)-q.pos < len(w) || string(q.data[q.pos:q.pos+len(w)]) != w {
		q.ok = false
		return
	}
	q.pos += len(w)
}

func (q *quick) optionalText() []byte {
	if q.peek() == 'n' {
		q.word("null")
		return nil
	}
	return q.text()
}

// kind reads a known kind; others are refused with a reason, elsewhere.
func (q *quick) kind() Kind {
	switch string(q.text()) {
	case string(KindLike):
		return KindLike
	case string(KindDislike):
		return KindDislike
	case string(KindClick):
		return KindClick
	case string(KindView):
		return KindView
	case string(KindRating):
		return KindRating
	case string(KindSkip):
		return KindSkip
	case string(KindShare):
		return KindShare
	case string(KindSave):
		return KindSave
	case string(KindHide):
		return KindHide
	case string(KindUndo):
		return KindUndo
	}
	q.ok = false
	return ""
}

func (q *quick) optionalNumber() *float64 {
	if q.peek() == 'n' {
		q.word("null")
		return nil
	}
	v := q.number()
	if len(v) == 1 {
		x := float64(v[0] - '0')
		return &x
	}
	x, err := strconv.ParseFloat(string(v), 64)
	if err != nil {
		q.ok = false
		return nil
	}
	return &x
}

// number reads a number as JSON writes it, which is stricter than package strconv; it is part of the data and not empty when ok.
func (q *quick) number() []byte {
	start := q.pos
	if q.peek() == '-' {
		q.pos++
	}
	if q.peek() == '0' {
		q.pos++
	} else {
		q.digits()
	}
	if q.peek() == '.' {
		q.pos++
		q.digits()
	}
	if b := q.peek(); b == 'e' || b == 'E' {
		q.pos++
		if b := q.peek(); b == '+' || b == '-' {
			q.pos++
		}
		q.digits()
	}
	return q.data[start:q.pos]
}

// digits passes one digit at least.
func (q *quick) digits() {
	start := q.pos
	for q.peek() >= '0' && q.peek() <= '9' {
		q.pos++
	}
	if q.pos == start {
		q.ok = false
	}
}

// skip passes any value.
func (q *quick) skip(depth int) {
	switch b := q.peek(); {
	case b == '"':
		q.text()
	case b == '{' || b == '[':
		q.skipNested(depth)
	case b == 't':
		q.word("true")
	case b == 'f':
		q.word("false")
	case b == 'n':
		q.word("null")
	default:
		q.number()
	}
}

func (q *quick) skipNested(depth int) {
	object := q.peek() == '{'
	last := byte(']')
	if object {
		last = '}'
	}
	q.pos++
	q.space()
	if q.peek() == last {
		q.pos++
		return
	}
	q.ok = q.ok && depth < quickDepth
	for q.ok {
		if object {
			q.text()
			q.space()
			q.expect(':')
			q.space()
		}
		q.skip(depth + 1)
		q.space()
		if q.peek() == last {
			q.pos++
			return
		}
		q.expect(',')
		q.space()
	}
}

// time reads RFC 3339 in UTC, from 1 to 9 digits of a second or none: 2006-01-02T15:04:05.000Z.
func (q *quick) time() time.Time {
	s := q.text()
	if len(s) < len("2006-01-02T15:04:05Z") || s[4] != '-' || s[7] != '-' || s[10] != 'T' || s[13] != ':' || s[16] != ':' || s[len(s)-1] != 'Z' {
		q.ok = false
		return time.Time{}
	}
	year, month, day := q.decimal(s[:4]), q.decimal(s[5:7]), q.decimal(s[8:10])
	hour, minute, second := q.decimal(s[11:13]), q.decimal(s[14:16]), q.decimal(s[17:19])
	nanos := 0
	if fraction := s[19 : len(s)-1]; len(fraction) > 0 {
		if fraction[0] != '.' || len(fraction) < 2 || len(fraction) > 10 {
			q.ok = false
			return time.Time{}
		}
		nanos = q.decimal(fraction[1:])
		for range 10 - len(fraction) {
			nanos *= 10
		}
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, nanos, time.UTC)
	if hour > 23 || minute > 59 || second > 59 || t.Day() != day || int(t.Month()) != month {
		q.ok = false // Date moves what is out of range
	}
	return t
}

// decimal reads up to nine digits.
func (q *quick) decimal(s []byte) int {
	n := 0
	for _, b := range s {
		if b < '0' || b > '9' {
			q.ok = false
			return 0
		}
		n = 10*n + int(b-'0')
	}
	return n
}
