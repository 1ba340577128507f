package schemas

import (
	"encoding/base64"
	"math"
	"time"
)

// MaxOutput bounds, in bytes, the value of a record that the service itself writes (generated, vectors, prior).
const MaxOutput = 8 << 20

// Triggers of a generated image.
const (
	TriggerRequest  = "request"
	TriggerFeedback = "feedback"
)

// Image is a generated picture, inline (Data) or by reference (URI); SHA256 is of the encoded bytes either way.
type Image struct {
	MediaType string `json:"media_type"`
	Width     int    `json:"width"`
	Height    int    `json:"height"`
	SHA256    string `json:"sha256"`         // 64 hex digits
	Size      int64  `json:"size,omitempty"` // of the encoded bytes; 0 in records of before it was written
	Data      []byte `json:"data,omitempty"` // standard base64 in JSON
	URI       string `json:"uri,omitempty"`
}

// Cause is an event of a user that an image is owed to.
type Cause struct {
	ItemID string  `json:"item_id"`
	Offset int64   `json:"offset"` // of the event, in the user's partition of feedback
	Share  float64 `json:"share"`  // of the attention that the prior paid to the user's window, 0..1
}

// Why a record has no image though one was wanted.
const (
	NoImageDecode   = "decode_failed" // the decoder failed, as often as it was tried
	NoImageStore    = "store_failed"  // the bucket refused it, as often as it was tried
	NoImageWithheld = "withheld"      // by the decoder's safety checker
)

// NoImage says why a record has no image though one was wanted.
type NoImage struct {
	Reason  string `json:"reason"` // one of those above, or of a later version
	Message string `json:"message"`
}

// Generated is one record of the topic generated, key = UserID: one image or embedding with where it comes from.
type Generated struct {
	ID           string    // 32 hex digits, [ID] of Source
	UserID       string    //
	RequestID    string    // "" when feedback caused it
	Trigger      string    // request or feedback
	Embedding    []float32 // [dim], in the catalogue's own scale
	Image        *Image    // nil without a decoder, where none was asked for, and with NoImage
	NoImage      *NoImage  // nil with an image, and where none was wanted
	Score        *float64  // the ranker's, nil without one
	Candidates   int       // how many it was chosen from, 0 for the only one
	Candidate    int       // which of them it is, from 0; see [CandidateSeed]
	Because      []Cause   // what it is owed to most, the greatest share first; nil where nobody asked
	Seed         uint64    // 0..2^53
	Guidance     float64   //
	Steps        int       // denoiser evaluations of the conditional half
	PriorVersion string    //
	EventsFolded uint64    // of this user, when it was made
	AsOf         Position  // last feedback folded for this user; offset -1 when there is none
	Source       Source    // the record that caused it
	CreatedAt    time.Time //
	CausedAt     time.Time // Source's Kafka timestamp, in milliseconds; zero for unknown
}

type generatedJSON struct {
	ID           string   `json:"id"`
	UserID       string   `json:"user_id"`
	RequestID    string   `json:"request_id,omitempty"`
	Trigger      string   `json:"trigger"`
	Embedding    string   `json:"embedding_f32"`
	Dim          int      `json:"dim"`
	Image        *Image   `json:"image,omitempty"`
	NoImage      *NoImage `json:"no_image,omitempty"`
	Score        *float64 `json:"score,omitempty"`
	Candidates   int      `json:"candidates,omitempty"`
	Candidate    int      `json:"candidate,omitempty"`
	Because      []Cause  `json:"because,omitempty"`
	Seed         uint64   `json:"seed"`
	Guidance     float64  `json:"guidance"`
	Steps        int      `json:"steps"`
	PriorVersion string   `json:"prior_version"`
	EventsFolded uint64   `json:"events_folded"`
	AsOf         Position `json:"as_of"`
	Source       Source   `json:"source"`
	CreatedAt    string   `json:"created_at"`
	CausedAt     string   `json:"caused_at,omitempty"`
}

// MarshalJSON writes the wire form: embedding_f32 in base64 with dim, times in UTC.
func (g Generated) MarshalJSON() ([]byte, error) {
	caused := ""
	if !g.CausedAt.IsZero() {
		caused = g.CausedAt.UTC().Format(time.RFC3339Nano)
	}
	return encode(generatedJSON{
		g.ID, g.UserID, g.RequestID, g.Trigger, encodeF32(g.Embedding), len(g.Embedding), g.Image, g.NoImage, g.Score, g.Candidates, g.Candidate, g.Because,
		g.Seed, g.Guidance, g.Steps, g.PriorVersion, g.EventsFolded, g.AsOf, g.Source, g.CreatedAt.UTC().Format(time.RFC3339Nano), caused,
	})
}

// UnmarshalJSON is [DecodeGenerated].
func (g *Generated) UnmarshalJSON(value []byte) (err error) {
	*g, err = DecodeGenerated(value)
	return err
}

// Encode returns the record's value.
func (g Generated) Encode() ([]byte, error) { return g.MarshalJSON() }

// DecodeGenerated decodes and checks a record. Errors are *[Rejection].
func DecodeGenerated(value []byte) (Generated, error) {
	var s generatedScan
	o, err := openObject(value, MaxOutput)
	if err != nil {
		return Generated{}, err
	}
	if err := o.each(s.set); err != nil {
		return Generated{}, err
	}
	return s.Generated, s.check()
}

// each calls set for every member that is not null.
func (o *object) each(set func(field string, v raw) error) error {
	for {
		key, v, ok := o.next()
		if !ok {
			return nil
		}
		if v.null() {
			continue
		}
		if err := set(string(key), v); err != nil {
			return err
		}
	}
}

// generatedScan remembers which of the fields without a telling zero were there.
type generatedScan struct {
	Generated
	dim  int64
	seen map[string]bool
}

func (s *generatedScan) set(field string, v raw) (err error) {
	if s.seen == nil {
		s.seen = make(map[string]bool, 16)
	}
	s.seen[field] = true
	var n int64
	switch field {
	case "id":
		s.ID, err = v.text(field)
	case "user_id":
		s.UserID, err = v.text(field)
	case "request_id":
		s.RequestID, err = v.text(field)
	case "trigger":
		s.Trigger, err = v.text(field)
	case "embedding_f32":
		s.Embedding, err = v.base64F32(field)
	case "dim":
		s.dim, err = v.integer(field, ReasonBadEmbedding, 1, MaxOutput)
	case "image":
		s.Image, err = v.image()
	case "no_image":
		s.NoImage, err = v.noImage()
	case "score":
		s.Score, err = v.optionalNumber(field, ReasonBadValue)
	case "candidates":
		n, err = v.integer(field, ReasonBadValue, 2, math.MaxInt32)
		s.Candidates = int(n)
	case "candidate":
		n, err = v.integer(field, ReasonBadValue, 0, math.MaxInt32)
		s.Candidate = int(n)
	case "because":
		s.Because, err = v.causes()
	case "seed":
		n, err = v.integer(field, ReasonBadSeed, 0, MaxSeed)
		s.Seed = uint64(n)
	case "guidance":
		s.Guidance, err = v.number(field, ReasonBadGuidance)
	case "steps":
		n, err = v.integer(field, ReasonBadValue, 0, math.MaxInt32)
		s.Steps = int(n)
	case "prior_version":
		s.PriorVersion, err = v.text(field)
	case "events_folded":
		n, err = v.integer(field, ReasonBadValue, 0, math.MaxInt64)
		s.EventsFolded = uint64(n)
	case "as_of":
		s.AsOf, err = v.asOf()
	case "source":
		s.Source, err = v.source()
	case "created_at":
		s.CreatedAt, err = v.time(field)
	case "caused_at":
		s.CausedAt, err = v.time(field)
	}
	return err
}

func (s *generatedScan) check() error {
	for _, id := range [...]struct{ field, value string }{{"id", s.ID}, {"user_id", s.UserID}, {"prior_version", s.PriorVersion}} {
		if err := checkID(id.field, id.value); err != nil {
			return err
		}
	}
	for _, field := range [...]string{"trigger", "embedding_f32", "dim", "seed", "guidance", "steps", "events_folded", "as_of", "source", "created_at"} {
		if !s.seen[field] {
			return errMissing(field)
		}
	}
	if s.RequestID != "" {
		if err := checkID("request_id", s.RequestID); err != nil {
			return err
		}
	}
	switch {
	case s.Trigger != TriggerRequest && s.Trigger != TriggerFeedback:
		return reject(ReasonBadValue, "trigger must be request or feedback, is %.64q", s.Trigger)
	case s.Guidance < 0:
		return reject(ReasonBadGuidance, "guidance %v is negative", s.Guidance)
	case s.CreatedAt.IsZero():
		return errMissing("created_at")
	case s.seen["caused_at"] && s.CausedAt.IsZero():
		return errMissing("caused_at")
	case s.Image != nil && s.NoImage != nil:
		return reject(ReasonBadValue, "image and no_image are both there")
	}
	return checkFloats("embedding_f32", s.Embedding, int(s.dim))
}

// asOf reads a position whose offset may be -1.
func (v raw) asOf() (p Position, err error) {
	o, ok := v.object()
	if !ok {
		return p, reject(ReasonBadType, "as_of must be an object, is %.64s", v)
	}
	seen := 0
	err = o.each(func(field string, v raw) (err error) {
		var n int64
		switch field {
		case "partition":
			n, err = v.integer("as_of.partition", ReasonBadValue, 0, math.MaxInt32)
			p.Partition = int32(n)
			seen |= placePartition
		case "offset":
			p.Offset, err = v.integer("as_of.offset", ReasonBadValue, -1, math.MaxInt64)
			seen |= placeOffset
		}
		return err
	})
	if err == nil && seen != placeBoth {
		err = errMissing("as_of.partition or .offset")
	}
	return p, err
}

// causes reads the list of because; an empty one is nil.
func (v raw) causes() (out []Cause, err error) {
	if v[0] != '[' {
		return nil, reject(ReasonBadType, "because must be an array, is %.64s", v)
	}
	err = v.elements(func(v raw) error {
		o, ok := v.object()
		if !ok {
			return reject(ReasonBadType, "because holds %.64s, not an object", v)
		}
		var c Cause
		seen := 0
		if err := o.each(func(field string, v raw) (err error) {
			switch field {
			case "item_id":
				seen |= 1
				if c.ItemID, err = v.text("because.item_id"); err == nil {
					err = checkID("because.item_id", c.ItemID)
				}
			case "offset":
				seen |= 2
				c.Offset, err = v.integer("because.offset", ReasonBadValue, 0, math.MaxInt64)
			case "share":
				seen |= 4
				c.Share, err = v.number("because.share", ReasonBadValue)
			}
			return err
		}); err != nil {
			return err
		}
		switch {
		case seen != 1|2|4:
			return errMissing("because.item_id, .offset or .share")
		case !(c.Share >= 0 && c.Share <= 1):
			return reject(ReasonBadValue, "because.share %v is no share in [0, 1]", c.Share)
		}
		out = append(out, c)
		return nil
	})
	return out, err
}

func (v raw) source() (Source, error) {
	s, seen, err := v.place("source", ReasonBadValue)
	if err != nil {
		return s, err
	}
	if seen != placeBoth|placeTopic || s.Topic == "" {
		return s, errMissing("source.topic, .partition or .offset")
	}
	return s, nil
}

func (v raw) image() (*Image, error) {
	o, ok := v.object()
	if !ok {
		return nil, reject(ReasonBadType, "image must be an object, is %.64s", v)
	}
	var m Image
	if err := o.each(m.set); err != nil {
		return nil, err
	}
	switch {
	case m.MediaType == "":
		return nil, errMissing("image.media_type")
	case m.Width == 0 || m.Height == 0:
		return nil, errMissing("image.width or .height")
	case !isHex(m.SHA256, 64):
		return nil, reject(ReasonBadValue, "image.sha256 is not 64 hex digits")
	case (len(m.Data) == 0) == (m.URI == ""):
		return nil, reject(ReasonBadValue, "image must have exactly one of data and uri")
	}
	return &m, nil
}

func (v raw) noImage() (*NoImage, error) {
	o, ok := v.object()
	if !ok {
		return nil, reject(ReasonBadType, "no_image must be an object, is %.64s", v)
	}
	var n NoImage
	err := o.each(func(field string, v raw) (err error) {
		switch field {
		case "reason":
			n.Reason, err = v.text("no_image.reason")
		case "message":
			n.Message, err = v.text("no_image.message")
		}
		return err
	})
	if err == nil && n.Reason == "" {
		err = errMissing("no_image.reason")
	}
	return &n, err
}

func (m *Image) set(field string, v raw) (err error) {
	var n int64
	switch field {
	case "media_type":
		m.MediaType, err = v.text("image.media_type")
	case "width":
		n, err = v.integer("image.width", ReasonBadValue, 1, 1<<20)
		m.Width = int(n)
	case "height":
		n, err = v.integer("image.height", ReasonBadValue, 1, 1<<20)
		m.Height = int(n)
	case "size":
		m.Size, err = v.integer("image.size", ReasonBadValue, 1, math.MaxInt64)
	case "sha256":
		m.SHA256, err = v.text("image.sha256")
	case "uri":
		m.URI, err = v.text("image.uri")
	case "data":
		var s string
		if s, err = v.text("image.data"); err != nil {
			return err
		}
		m.Data, err = base64.StdEncoding.DecodeString(s)
		if err != nil || base64.StdEncoding.EncodedLen(len(m.Data)) != len(s) {
			return reject(ReasonBadValue, "image.data is not standard base64")
		}
	}
	return err
}

func isHex(s string, n int) bool {
	if len(s) != n {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
