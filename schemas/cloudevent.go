package schemas

import (
	"encoding/base64"
	"strings"
	"time"
)

// cloudEvents is the one version of CloudEvents that there is: 1.0.1 and 1.0.2 write it too.
const cloudEvents = "1.0"

// event is a CloudEvent's attributes, as far as they are read. Of an attribute that stands twice the last one counts, as in JSON.
type event struct {
	version, id, source, time []byte // nil when absent
	contentType               string // of the data; "" when absent
}

// envelope reads the headers of CloudEvents' Kafka binding; content-type is also the mark of structured mode.
func envelope(headers []Header) (e event) {
	for _, h := range headers {
		switch h.Key {
		case "ce_specversion":
			e.version = append([]byte{}, h.Value...) // not nil, even when empty
		case "ce_id":
			e.id = h.Value
		case "ce_source":
			e.source = h.Value
		case "ce_time":
			e.time = h.Value
		case "content-type":
			e.contentType = string(h.Value)
		}
	}
	return e
}

// open reads the data of an event. Of its attributes only those are checked that say how to read it: the id, the source and the time
// of an event whose data has its own are nobody's concern.
func (e event) open(data []byte) (Content, error) {
	if string(e.version) != cloudEvents {
		return Content{}, reject(ReasonBadCloudEvent, "specversion is %.64q, want %q", e.version, cloudEvents)
	}
	if !isJSON(e.contentType) && !framed(data) { // what is framed says itself what it is
		return Content{}, reject(ReasonBadCloudEvent, "data of type %.64q is not JSON", e.contentType)
	}
	if strings.ContainsRune(string(e.source), ' ') {
		return Content{}, reject(ReasonBadCloudEvent, "source %.64q is not a URI reference: it holds a space", e.source)
	}
	return Content{json: data, id: string(e.id), source: string(e.source), time: string(e.time)}, nil
}

// openStructured reads an event that is a JSON object with its data in a member.
func openStructured(value []byte) (Content, error) {
	o, err := openObject(value, MaxValue)
	if err != nil {
		return Content{}, err
	}
	e := event{version: []byte{}}
	var data []byte
	from := "" // the member that holds the data
	for {
		key, v, ok := o.next()
		if !ok {
			break
		}
		if v.null() {
			continue
		}
		switch name := string(key); name {
		case "specversion":
			err = v.attribute(name, &e.version)
		case "id":
			err = v.attribute(name, &e.id)
		case "source":
			err = v.attribute(name, &e.source)
		case "time":
			err = v.attribute(name, &e.time)
		case "datacontenttype":
			e.contentType, err = v.text(name)
		case "data", "data_base64":
			if from != "" && from != name {
				return Content{}, reject(ReasonBadCloudEvent, "both data and data_base64 are given")
			}
			from = name
			if data = v; name == "data_base64" {
				data, err = v.base64(name)
			}
		}
		if err != nil {
			return Content{}, err
		}
	}
	if from == "" {
		return Content{}, reject(ReasonBadCloudEvent, "the event has no data")
	}
	return e.open(data)
}

func (v raw) attribute(name string, to *[]byte) error {
	s, err := v.text(name)
	*to = []byte(s)
	return err
}

func (v raw) base64(field string) ([]byte, error) {
	s, err := v.text(field)
	if err != nil {
		return nil, err
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return nil, reject(ReasonBadCloudEvent, "%s is not standard base64", field)
	}
	return b, nil
}

// mediaType returns a content type without its parameters, in lower case.
func mediaType(contentType string) string {
	media, _, _ := strings.Cut(contentType, ";")
	return strings.ToLower(strings.TrimSpace(media))
}

// isJSON reports whether data of a content type is JSON text, which it also is when none is given.
func isJSON(contentType string) bool {
	media := mediaType(contentType)
	return media == "" || media == "application/json" || media == "text/json" || strings.HasSuffix(media, "+json")
}

// CloudEvent returns the headers of CloudEvents' Kafka binding in binary mode: the value is the data. typ is such as
// "rebeca.generated.v1", source a URI reference naming the service.
func CloudEvent(typ, id, source string, at time.Time, contentType string) []Header {
	return []Header{
		{"ce_specversion", []byte(cloudEvents)},
		{"ce_id", []byte(id)},
		{"ce_type", []byte(typ)},
		{"ce_source", []byte(source)},
		{"ce_time", []byte(at.UTC().Format(time.RFC3339Nano))},
		{"content-type", []byte(contentType)},
	}
}
