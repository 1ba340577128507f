package schemas

import (
	"fmt"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits of incoming records.
const (
	MaxValue = 1 << 20 // bytes of a value on items, feedback and requests
	MaxID    = 256     // bytes of any id
)

// MaxAhead is how far occurred_at may lie ahead of the record's Kafka timestamp: clocks of phones are wrong by hours.
const MaxAhead = 24 * time.Hour

// earliest is the first moment that occurred_at may name: what is older is a clock that was never set.
var earliest = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// Kind says what a person did with an item.
type Kind string

// Kinds of feedback. Value is stars in 1..5 for a rating and seconds for a view; the other kinds have no use for it.
const (
	KindLike    Kind = "like"
	KindDislike Kind = "dislike"
	KindClick   Kind = "click"
	KindView    Kind = "view"
	KindRating  Kind = "rating"
	KindSkip    Kind = "skip"
	KindShare   Kind = "share"
	KindSave    Kind = "save"
	KindHide    Kind = "hide"
	KindUndo    Kind = "undo"
)

// Kinds lists all kinds.
func Kinds() []Kind {
	return []Kind{KindLike, KindDislike, KindClick, KindView, KindRating, KindSkip, KindShare, KindSave, KindHide, KindUndo}
}

// Known reports whether k is one of [Kinds].
func (k Kind) Known() bool {
	switch k {
	case KindLike, KindDislike, KindClick, KindView, KindRating, KindSkip, KindShare, KindSave, KindHide, KindUndo:
		return true
	}
	return false
}

// Feedback is one record of the topic feedback, key = UserID. ItemID may be the id of a generated image.
type Feedback struct {
	EventID    string    `json:"event_id"` // the producer's, the same when it sends again
	UserID     string    `json:"user_id"`
	ItemID     string    `json:"item_id"`
	Kind       Kind      `json:"kind"`
	Value      *float64  `json:"value,omitempty"`
	OccurredAt time.Time `json:"occurred_at"` // UTC once decoded
}

// Encode returns the record's value.
func (f Feedback) Encode() ([]byte, error) { return encode(f) }

// DecodeFeedback decodes and checks a record. recordTime is its Kafka timestamp; zero leaves out the check that
// occurred_at is not more than [MaxAhead] beyond it. A nil value means "forget this user" and is the caller's to see.
// Errors are *[Rejection].
func DecodeFeedback(key, value []byte, recordTime time.Time) (Feedback, error) {
	return Content{json: value}.Feedback(key, recordTime)
}

// ParseFeedback is [DecodeFeedback] for a value that has no key yet, as in an HTTP body or a file.
func ParseFeedback(value []byte, recordTime time.Time) (Feedback, error) {
	f, err := scanFeedback(value)
	if err != nil {
		return Feedback{}, err
	}
	if err := f.Validate(recordTime); err != nil {
		return Feedback{}, err
	}
	return f, nil
}

func scanFeedback(value []byte) (f Feedback, err error) {
	if len(value) <= MaxValue {
		if f, ok := quickFeedback(value); ok {
			return f, nil
		}
	}
	return walkFeedback(value)
}

// walkFeedback is scanFeedback for any text.
func walkFeedback(value []byte) (f Feedback, err error) {
	o, err := openObject(value, MaxValue)
	if err != nil {
		return f, err
	}
	for {
		key, v, ok := o.next()
		if !ok {
			return f, nil
		}
		switch string(key) {
		case "event_id":
			f.EventID, err = v.optionalText("event_id")
		case "user_id":
			f.UserID, err = v.optionalText("user_id")
		case "item_id":
			f.ItemID, err = v.optionalText("item_id")
		case "kind":
			var s string
			s, err = v.optionalText("kind")
			f.Kind = Kind(s)
		case "value":
			f.Value, err = v.optionalNumber("value", ReasonBadValue)
		case "occurred_at":
			f.OccurredAt, err = v.optionalTime("occurred_at")
		}
		if err != nil {
			return f, err
		}
	}
}

// Validate checks a record that was not decoded but built; [DecodeFeedback] has done it. Errors are *[Rejection].
func (f Feedback) Validate(recordTime time.Time) error {
	for _, id := range [...]struct{ field, value string }{
		{"event_id", f.EventID}, {"user_id", f.UserID}, {"item_id", f.ItemID},
	} {
		if err := checkID(id.field, id.value); err != nil {
			return err
		}
	}
	if f.Kind == "" {
		return errMissing("kind")
	}
	if !f.Kind.Known() {
		return reject(ReasonUnknownKind, "kind %.64q is none of %v", string(f.Kind), Kinds())
	}
	if err := f.checkValue(); err != nil {
		return err
	}
	if f.OccurredAt.IsZero() {
		return errMissing("occurred_at")
	}
	if f.OccurredAt.Before(earliest) {
		return reject(ReasonBadTime, "occurred_at %s lies before 2000", f.OccurredAt.Format(time.RFC3339))
	}
	if !recordTime.IsZero() && f.OccurredAt.Sub(recordTime) > MaxAhead {
		return reject(ReasonBadTime, "occurred_at %s is more than a day ahead of the record's time %s",
			f.OccurredAt.Format(time.RFC3339), recordTime.UTC().Format(time.RFC3339))
	}
	return nil
}

func (f Feedback) checkValue() error {
	switch {
	case f.Value != nil && !finite(*f.Value):
		return reject(ReasonBadValue, "value is not finite")
	case f.Kind == KindRating && f.Value == nil:
		return reject(ReasonBadValue, "a rating needs a value in 1..5")
	case f.Kind == KindRating && (*f.Value < 1 || *f.Value > 5):
		return reject(ReasonBadValue, "rating %v is outside 1..5", *f.Value)
	case f.Kind == KindView && f.Value != nil && *f.Value < 0:
		return reject(ReasonBadValue, "a view of %v seconds", *f.Value)
	}
	return nil
}

func checkID(field, id string) error {
	if id == "" {
		return errMissing(field)
	}
	if len(id) > MaxID {
		return reject(ReasonBadID, "%s of %d bytes exceeds %d", field, len(id), MaxID)
	}
	if plain(id) {
		return nil
	}
	for _, r := range id {
		// U+FFFD stands for what was not Unicode: different broken ids would meet in it.
		if unicode.IsControl(r) || r == utf8.RuneError {
			return reject(ReasonBadID, "%s holds the character %U", field, r)
		}
	}
	return nil
}

// plain reports whether s is printable ASCII.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

func checkKey(key []byte, field, id string) error {
	if string(key) != id {
		return reject(ReasonKeyMismatch, "key %.64q differs from %s %.64q", key, field, id)
	}
	return nil
}

func errEmptyKey() error { return reject(ReasonEmptyKey, "the record has no key") }

func errMissing(field string) error { return reject(ReasonMissingField, "%s is missing", field) }

func finite(x float64) bool { return x-x == 0 }

// String makes a Position print as partition/offset.
func (p Position) String() string { return fmt.Sprintf("%d/%d", p.Partition, p.Offset) }
