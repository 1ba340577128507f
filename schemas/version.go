package schemas

import (
	"math"
	"time"
)

// PriorVersion is one record of the compacted topic prior: weights that were announced. The last record wins; a
// roll-back announces old bytes under a new number.
type PriorVersion struct {
	Version   string             // Number and the first digits of SHA256, as "12-0a1b2c3d"
	Number    int64              // rises with every announcement, from 1
	Step      int64              // training steps behind the weights
	URI       string             // where the checkpoint is
	SHA256    string             // of the checkpoint's bytes, 64 hex digits
	Metrics   map[string]float64 // finite numbers by stable names
	CreatedAt time.Time
}

type priorVersionJSON struct {
	Version   string             `json:"version"`
	Number    int64              `json:"number"`
	Step      int64              `json:"step"`
	URI       string             `json:"uri"`
	SHA256    string             `json:"sha256"`
	Metrics   map[string]float64 `json:"metrics"`
	CreatedAt string             `json:"created_at"`
}

// MarshalJSON writes the wire form, created_at in UTC.
func (p PriorVersion) MarshalJSON() ([]byte, error) {
	metrics := p.Metrics
	if metrics == nil {
		metrics = map[string]float64{}
	}
	return encode(priorVersionJSON{
		p.Version, p.Number, p.Step, p.URI, p.SHA256, metrics, p.CreatedAt.UTC().Format(time.RFC3339Nano),
	})
}

// UnmarshalJSON is [DecodePriorVersion].
func (p *PriorVersion) UnmarshalJSON(value []byte) (err error) {
	*p, err = DecodePriorVersion(value)
	return err
}

// Encode returns the record's value.
func (p PriorVersion) Encode() ([]byte, error) { return p.MarshalJSON() }

// DecodePriorVersion decodes and checks a record. Errors are *[Rejection].
func DecodePriorVersion(value []byte) (PriorVersion, error) {
	var p PriorVersion
	o, err := openObject(value, MaxOutput)
	if err != nil {
		return p, err
	}
	stepped := false
	err = o.each(func(field string, v raw) (err error) {
		switch field {
		case "version":
			p.Version, err = v.text(field)
		case "number":
			p.Number, err = v.integer(field, ReasonBadValue, 1, math.MaxInt64)
		case "step":
			p.Step, err = v.integer(field, ReasonBadValue, 0, math.MaxInt64)
			stepped = true
		case "uri":
			p.URI, err = v.text(field)
		case "sha256":
			p.SHA256, err = v.text(field)
		case "metrics":
			p.Metrics, err = v.metrics()
		case "created_at":
			p.CreatedAt, err = v.time(field)
		}
		return err
	})
	if err != nil {
		return p, err
	}
	return p, p.check(stepped)
}

func (p PriorVersion) check(stepped bool) error {
	if err := checkID("version", p.Version); err != nil {
		return err
	}
	switch {
	case p.Number == 0:
		return errMissing("number")
	case !stepped:
		return errMissing("step")
	case p.URI == "":
		return errMissing("uri")
	case p.SHA256 == "":
		return errMissing("sha256")
	case !isHex(p.SHA256, 64):
		return reject(ReasonBadValue, "sha256 is not 64 hex digits")
	case p.CreatedAt.IsZero():
		return errMissing("created_at")
	}
	return nil
}

func (v raw) metrics() (map[string]float64, error) {
	o, ok := v.object()
	if !ok {
		return nil, reject(ReasonBadType, "metrics must be an object, is %.64s", v)
	}
	m := map[string]float64{}
	err := o.each(func(field string, v raw) (err error) {
		m[field], err = v.number("metrics", ReasonBadValue)
		return err
	})
	return m, err
}
