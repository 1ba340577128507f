package schemas

import "math"

// Limits of requests.
const (
	MaxCount      = 1000
	MaxGuidance   = 20
	MaxCandidates = 16
	MaxSeed       = 1 << 53 // the last whole number that every JSON reader keeps
)

// Ratings of a request.
const (
	RatingLike    = "like"
	RatingDislike = "dislike"
)

// Position is a place in a partition of feedback.
type Position struct {
	Partition int32 `json:"partition"`
	Offset    int64 `json:"offset"`
}

// Source is the record that caused an output.
type Source struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

// Request is one record of the topic requests, key = UserID.
type Request struct {
	RequestID string    `json:"request_id"`
	UserID    string    `json:"user_id"`
	Count     int       `json:"count"`              // 1..MaxCount
	Rating    string    `json:"rating,omitempty"`   // like, dislike; "" means like
	Seed      *uint64   `json:"seed,omitempty"`     // 0..2^53; nil derives one from the id
	Guidance  *float64  `json:"guidance,omitempty"` // (0, MaxGuidance]; 1 is the plain model; nil the service's default
	Images    *bool     `json:"images,omitempty"`   // nil: whether the service has a decoder
	After     *Position `json:"after,omitempty"`    // wait until this feedback of the user is folded
	// Candidates is how many are drawn for each image, 1..MaxCandidates, of which the best is given; nil: the service's default, and 1
	// where Seed is there or Guidance is 1.
	Candidates *int  `json:"candidates,omitempty"`
	Explain    *bool `json:"explain,omitempty"` // say which likes each image is owed to; nil: the service's default
}

// Encode returns the record's value.
func (r Request) Encode() ([]byte, error) { return encode(r) }

// DecodeRequest decodes and checks a record. Errors are *[Rejection].
func DecodeRequest(key, value []byte) (Request, error) {
	if len(key) == 0 {
		return Request{}, errEmptyKey()
	}
	r, err := ParseRequest(value)
	if err != nil {
		return Request{}, err
	}
	return r, checkKey(key, "user_id", r.UserID)
}

// ParseRequest is [DecodeRequest] for a value that has no key yet.
func ParseRequest(value []byte) (Request, error) {
	r, err := ScanRequest(value)
	if err != nil {
		return Request{}, err
	}
	if err := r.Validate(); err != nil {
		return Request{}, err
	}
	return r, nil
}

// ScanRequest reads the fields that are there and checks their types and ranges, not that any is there: an HTTP body
// leaves out what its path says. [Request.Validate] does the rest.
func ScanRequest(value []byte) (r Request, err error) {
	o, err := openObject(value, MaxValue)
	if err != nil {
		return r, err
	}
	for {
		key, v, ok := o.next()
		if !ok {
			return r, nil
		}
		if v.null() {
			continue
		}
		if err := r.set(string(key), v); err != nil {
			return r, err
		}
	}
}

func (r *Request) set(field string, v raw) (err error) {
	switch field {
	case "request_id":
		r.RequestID, err = v.text(field)
	case "user_id":
		r.UserID, err = v.text(field)
	case "count":
		var n int64
		n, err = v.integer(field, ReasonBadCount, 1, MaxCount)
		r.Count = int(n)
	case "rating":
		r.Rating, err = v.text(field)
	case "seed":
		var n int64
		n, err = v.integer(field, ReasonBadSeed, 0, MaxSeed)
		seed := uint64(n)
		r.Seed = &seed
	case "guidance":
		r.Guidance, err = v.optionalNumber(field, ReasonBadGuidance)
	case "images":
		var b bool
		b, err = v.boolean(field)
		r.Images = &b
	case "candidates":
		var n int64
		n, err = v.integer(field, ReasonBadValue, 1, MaxCandidates)
		candidates := int(n)
		r.Candidates = &candidates
	case "explain":
		var b bool
		b, err = v.boolean(field)
		r.Explain = &b
	case "after":
		var p Position
		p, err = v.position(field, ReasonBadAfter)
		r.After = &p
	}
	return err
}

// Validate checks a request that was not decoded but built. Errors are *[Rejection].
func (r Request) Validate() error {
	if err := checkID("request_id", r.RequestID); err != nil {
		return err
	}
	if err := checkID("user_id", r.UserID); err != nil {
		return err
	}
	switch {
	case r.Count == 0:
		return errMissing("count")
	case r.Count < 1 || r.Count > MaxCount:
		return reject(ReasonBadCount, "count must be a whole number in 1..%d, is %d", MaxCount, r.Count)
	case r.Rating != "" && r.Rating != RatingLike && r.Rating != RatingDislike:
		return reject(ReasonBadRating, "rating must be like or dislike, is %.64q", r.Rating)
	case r.Seed != nil && *r.Seed > MaxSeed:
		return reject(ReasonBadSeed, "seed %d exceeds 2^53", *r.Seed)
	case r.Guidance != nil && !(*r.Guidance > 0 && *r.Guidance <= MaxGuidance):
		return reject(ReasonBadGuidance, "guidance must be in (0, %d], is %v", MaxGuidance, *r.Guidance)
	case r.Candidates != nil && (*r.Candidates < 1 || *r.Candidates > MaxCandidates):
		return reject(ReasonBadValue, "candidates must be a whole number in 1..%d, is %d", MaxCandidates, *r.Candidates)
	case r.After != nil && (r.After.Partition < 0 || r.After.Offset < 0):
		return reject(ReasonBadAfter, "after %v is negative", *r.After)
	}
	return nil
}

// position reads {partition, offset}; both are required and not negative.
func (v raw) position(field string, reason Reason) (Position, error) {
	s, seen, err := v.place(field, reason)
	if err != nil {
		return Position{}, err
	}
	if seen&placeBoth != placeBoth {
		return Position{}, errMissing(field + ".partition or .offset")
	}
	return Position{s.Partition, s.Offset}, nil
}

const (
	placePartition = 1 << iota
	placeOffset
	placeTopic
	placeBoth = placePartition | placeOffset
)

// place reads the members of a position or source and says which were there.
func (v raw) place(field string, reason Reason) (s Source, seen int, err error) {
	o, ok := v.object()
	if !ok {
		return s, 0, reject(ReasonBadType, "%s must be an object, is %.64s", field, v)
	}
	for {
		key, v, ok := o.next()
		if !ok {
			return s, seen, nil
		}
		if v.null() {
			continue
		}
		var n int64
		switch string(key) {
		case "partition":
			n, err = v.integer(field+".partition", reason, 0, math.MaxInt32)
			s.Partition = int32(n)
			seen |= placePartition
		case "offset":
			s.Offset, err = v.integer(field+".offset", reason, 0, math.MaxInt64)
			seen |= placeOffset
		case "topic":
			s.Topic, err = v.text(field + ".topic")
			seen |= placeTopic
		}
		if err != nil {
			return s, seen, err
		}
	}
}
