package schemas

import "math"

// Vector is one record of the compacted topic vectors, key = UserID: what the prior's history encoder makes of the
// user. A null value says that the user was forgotten. Compare only vectors of one PriorVersion.
type Vector struct {
	UserID       string
	Vector       []float32 // [hidden]
	PriorVersion string
	EventsFolded uint64
}

type vectorJSON struct {
	UserID       string `json:"user_id"`
	Vector       string `json:"vector_f32"`
	PriorVersion string `json:"prior_version"`
	EventsFolded uint64 `json:"events_folded"`
}

// MarshalJSON writes the vector as vector_f32, base64 of little-endian float32.
func (u Vector) MarshalJSON() ([]byte, error) {
	return encode(vectorJSON{u.UserID, encodeF32(u.Vector), u.PriorVersion, u.EventsFolded})
}

// UnmarshalJSON is [DecodeVector].
func (u *Vector) UnmarshalJSON(value []byte) (err error) {
	*u, err = DecodeVector(value)
	return err
}

// Encode returns the record's value.
func (u Vector) Encode() ([]byte, error) { return u.MarshalJSON() }

// DecodeVector decodes and checks a record. Errors are *[Rejection].
func DecodeVector(value []byte) (Vector, error) {
	var u Vector
	o, err := openObject(value, MaxOutput)
	if err != nil {
		return u, err
	}
	counted := false
	err = o.each(func(field string, v raw) (err error) {
		switch field {
		case "user_id":
			u.UserID, err = v.text(field)
		case "vector_f32":
			u.Vector, err = v.base64F32(field)
		case "prior_version":
			u.PriorVersion, err = v.text(field)
		case "events_folded":
			var n int64
			n, err = v.integer(field, ReasonBadValue, 0, math.MaxInt64)
			u.EventsFolded, counted = uint64(n), true
		}
		return err
	})
	if err != nil {
		return u, err
	}
	if err := checkID("user_id", u.UserID); err != nil {
		return u, err
	}
	if err := checkID("prior_version", u.PriorVersion); err != nil {
		return u, err
	}
	if !counted {
		return u, errMissing("events_folded")
	}
	return u, checkFloats("vector_f32", u.Vector, 0)
}
