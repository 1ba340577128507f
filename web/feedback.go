package web

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"rebeca/schemas"
)

// Bounds of one call of POST /v1/feedback.
const (
	maxBody    = 4 << 20
	maxRecords = 1000
)

// FeedbackResult says what became of one record. Partition and Offset are set once it is accepted.
type FeedbackResult struct {
	EventID   string `json:"event_id,omitempty"`
	Partition *int32 `json:"partition,omitempty"`
	Offset    *int64 `json:"offset,omitempty"`
	Status    string `json:"status"` // accepted, rejected
	Reason    string `json:"reason,omitempty"`
	Message   string `json:"message,omitempty"`
}

type feedbackAnswer struct {
	Results []FeedbackResult `json:"results"`
	Error   *Error           `json:"error,omitempty"` // set when no record was accepted
}

// postFeedback answers each record of the body for itself: 202 if any was accepted, 400 if all were
// refused, 503 if the broker took none of the valid ones.
func (s *Server) postFeedback(w http.ResponseWriter, r *http.Request) {
	raws, err := readRecords(w, r)
	if err != nil {
		writeError(w, asError(err, CodeBadRequest))
		return
	}
	results := make([]FeedbackResult, len(raws))
	valid, at := s.parseFeedback(raws, results)
	var down *Error
	if len(valid) > 0 {
		down = s.produceFeedback(r, valid, at, results)
	}
	for i := range results {
		s.metrics.records.WithLabelValues(resultLabel(results[i])).Inc()
	}
	answer := feedbackAnswer{Results: results}
	if anyAccepted(results) {
		writeJSON(w, http.StatusAccepted, answer)
		return
	}
	answer.Error = down
	if down == nil {
		answer.Error = &Error{Code: Code(results[0].Reason), Message: "no record was accepted; the first: " + results[0].Message}
	}
	writeJSON(w, answer.Error.Code.status(), answer)
}

// readRecords takes the body apart: one object, or {"records": […]}.
func readRecords(w http.ResponseWriter, r *http.Request) ([]json.RawMessage, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil || fields == nil {
		return nil, &Error{Code: Code(schemas.ReasonBadJSON), Message: "the body must be a feedback object or {\"records\": […]}"}
	}
	list, batch := fields["records"]
	if !batch {
		return []json.RawMessage{body}, nil
	}
	var raws []json.RawMessage
	if err := json.Unmarshal(list, &raws); err != nil {
		return nil, &Error{Code: Code(schemas.ReasonBadType), Message: "records must be an array of feedback objects"}
	}
	switch {
	case len(raws) == 0:
		return nil, &Error{Code: Code(schemas.ReasonMissingField), Message: "records is empty"}
	case len(raws) > maxRecords:
		return nil, &Error{Code: CodeTooLarge, Message: "more than 1,000 records: send them in several calls"}
	}
	return raws, nil
}

// parseFeedback fills in what the caller may leave out, writes the refusals into results and
// returns the valid records with their index there.
func (s *Server) parseFeedback(raws []json.RawMessage, results []FeedbackResult) (valid []schemas.Feedback, at []int) {
	now := time.Now().UTC()
	for i, raw := range raws {
		raw, eventID := complete(raw, now)
		results[i].EventID = eventID
		f, err := schemas.ParseFeedback(raw, now)
		if err != nil {
			refuse(&results[i], asError(err, Code(schemas.ReasonBadJSON)))
			continue
		}
		results[i].EventID = f.EventID
		valid, at = append(valid, f), append(at, i)
	}
	return valid, at
}

// complete adds event_id and occurred_at where they are absent or null. What is not an object stays
// as it is: the decoder says what is wrong with it. The id is returned if it can be read.
func complete(raw json.RawMessage, now time.Time) (json.RawMessage, string) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil || fields == nil {
		return raw, ""
	}
	changed := false
	fill := func(name, value string) {
		if v, ok := fields[name]; !ok || bytes.Equal(v, []byte("null")) {
			fields[name], _ = json.Marshal(value) // a string cannot fail
			changed = true
		}
	}
	fill("event_id", newEventID(now))
	fill("occurred_at", now.Format(time.RFC3339Nano))
	var id string
	_ = json.Unmarshal(fields["event_id"], &id) // another type is the decoder's to refuse
	if !changed {
		return raw, id
	}
	whole, err := json.Marshal(fields)
	if err != nil {
		return raw, id
	}
	return whole, id
}

// produceFeedback writes the places, or why there is none, into results. It returns the error that
// kept every record out, nil if one came through.
func (s *Server) produceFeedback(r *http.Request, valid []schemas.Feedback, at []int, results []FeedbackResult) *Error {
	places, errs := s.o.Producer.Feedback(r.Context(), valid)
	var first *Error
	accepted := 0
	for k, i := range at {
		if err := errs[k]; err != nil {
			known := asError(err, CodeBrokerUnavailable)
			if first == nil {
				first = known
			}
			refuse(&results[i], known)
			continue
		}
		accepted++
		results[i].Status = "accepted"
		results[i].Partition, results[i].Offset = &places[k].Partition, &places[k].Offset
	}
	if accepted > 0 {
		return nil
	}
	return first
}

func refuse(r *FeedbackResult, err *Error) {
	r.Status, r.Reason, r.Message = "rejected", string(err.Code), err.Message
}

func anyAccepted(results []FeedbackResult) bool {
	for _, r := range results {
		if r.Status == "accepted" {
			return true
		}
	}
	return false
}

func resultLabel(r FeedbackResult) string {
	if r.Status == "accepted" {
		return r.Status
	}
	return r.Reason
}
