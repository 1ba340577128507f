package schemas

import (
	"strings"
	"time"
)

// Content is what a record says, in whatever encoding it came: the JSON text of its data, and of a CloudEvent what stands in for
// fields that its data leaves out. Its methods judge it by the same rules as plain JSON, so the encoding changes no fact.
type Content struct {
	json []byte
	// Of a CloudEvent, as it came and unchecked; "" elsewhere.
	id, source, time string
}

// Open finds the data of a record on items, feedback or requests:
//
//   - a content-type of application/cloudevents+json is a CloudEvent in structured mode, its value the event;
//   - a header ce_specversion makes it one in binary mode, its value the data;
//   - anything else is the data itself.
//
// Data that begins with byte 0 is framed for a schema registry and read by its schema, where lookup is not nil; all else is JSON.
// A null value has another meaning in these topics and is the caller's to see. Errors are *[Rejection], or lookup's own.
func Open(headers []Header, value []byte, lookup Lookup) (Content, error) {
	c, err := unwrap(headers, value)
	if err == nil && framed(c.json) {
		c.json, err = unframe(c.json, lookup)
	}
	return c, err
}

// unwrap takes the data out of its envelope.
func unwrap(headers []Header, value []byte) (Content, error) {
	if len(headers) == 0 {
		return Content{json: value}, nil
	}
	e := envelope(headers)
	switch media := mediaType(e.contentType); {
	case media == "application/cloudevents+json":
		return openStructured(value)
	case strings.HasPrefix(media, "application/cloudevents"):
		return Content{}, reject(ReasonBadCloudEvent, "content-type %.64q: of structured events and batches only application/cloudevents+json is read", e.contentType)
	case e.version == nil:
		return Content{json: value}, nil
	}
	return e.open(value)
}

// Feedback decodes and checks the content of a record on feedback, as [DecodeFeedback] does. A CloudEvent whose data has no event_id
// is named by its source and id, which together are unique; one whose data has no occurred_at happened at its time.
func (c Content) Feedback(key []byte, recordTime time.Time) (Feedback, error) {
	if len(key) == 0 {
		return Feedback{}, errEmptyKey()
	}
	f, err := scanFeedback(c.json)
	if err != nil {
		return Feedback{}, err
	}
	if f.EventID == "" {
		f.EventID = c.eventID()
	}
	if f.OccurredAt.IsZero() && c.time != "" {
		if f.OccurredAt, err = parseTime("the event's time", c.time); err != nil {
			return Feedback{}, err
		}
	}
	if err := f.Validate(recordTime); err != nil {
		return Feedback{}, err
	}
	return f, checkKey(key, "user_id", f.UserID)
}

// eventID joins source and id by a space, which no source may hold: two sources that count alike stay apart.
func (c Content) eventID() string {
	if c.id == "" || c.source == "" {
		return ""
	}
	return c.source + " " + c.id
}

// Item decodes and checks the content of a record on items, as [DecodeItem] does.
func (c Content) Item(key []byte, dim int) (Item, error) { return DecodeItem(key, c.json, dim) }

// Request decodes and checks the content of a record on requests, as [DecodeRequest] does.
func (c Content) Request(key []byte) (Request, error) { return DecodeRequest(key, c.json) }
