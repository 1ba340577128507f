package web

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"rebeca/schemas"
)

// Code names an error for programs; the names are stable. Besides these the door answers with the
// reasons of package schemas (bad_json, missing_field, bad_count, …), all 400.
type Code string

// The codes of the door.
const (
	CodeBadRequest        Code = "bad_request"        // 400: a parameter or the body's outer form is wrong
	CodeUnauthorized      Code = "unauthorized"       // 401: the bearer token is missing or wrong
	CodeForbidden         Code = "forbidden"          // 403: from another site, or under a foreign host name
	CodeNotFound          Code = "not_found"          // 404: no such route or item
	CodeUnknownUser       Code = "unknown_user"       // 404: nothing is known of this user
	CodeMethodNotAllowed  Code = "method_not_allowed" // 405
	CodeTooLarge          Code = "too_large"          // 413: more than 4 MiB or 1,000 records
	CodeNotOwner          Code = "not_owner"          // 421: another worker owns the user
	CodeNoPrior           Code = "no_prior"           // 503: nothing has been learned yet
	CodeNoDecoder         Code = "no_decoder"         // 400: images asked of a service that makes embeddings only
	CodeBadAfter          Code = "bad_after"          // 400: not a position of the user's own partition
	CodeBrokerUnavailable Code = "broker_unavailable" // 503: Kafka does not answer
	CodeDiskLow           Code = "disk_low"           // 503: the state's disk has too little room, the intake is paused
	CodeBusy              Code = "busy"               // 503: too many event streams are open
	CodeNotReady          Code = "not_ready"          // 503: /readyz while starting or cut off
	CodeAfterTimeout      Code = "after_timeout"      // 504: the feedback named in after was not folded in time
	CodeGenerateTimeout   Code = "generate_timeout"   // 504: the images were not published in time
	CodeBucket            Code = "bucket_unavailable" // 503: the bucket of images does not answer, or holds other bytes
	CodeInternal          Code = "internal"           // 500: a fault of this service
)

// status is the HTTP status of a code: 400 for the reasons of package schemas.
func (c Code) status() int {
	switch c {
	case CodeUnauthorized:
		return http.StatusUnauthorized
	case CodeForbidden:
		return http.StatusForbidden
	case CodeNotFound, CodeUnknownUser:
		return http.StatusNotFound
	case CodeMethodNotAllowed:
		return http.StatusMethodNotAllowed
	case CodeTooLarge:
		return http.StatusRequestEntityTooLarge
	case CodeNotOwner:
		return http.StatusMisdirectedRequest
	case CodeNoPrior, CodeBrokerUnavailable, CodeDiskLow, CodeBusy, CodeNotReady, CodeBucket:
		return http.StatusServiceUnavailable
	case CodeAfterTimeout, CodeGenerateTimeout:
		return http.StatusGatewayTimeout
	case CodeInternal:
		return http.StatusInternalServerError
	}
	return http.StatusBadRequest
}

// Error is an answer other than success. A backend returns one to choose the code; Message is shown
// to the caller and says what to do next where there is something to do.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	Owner   string `json:"-"` // of not_owner: URL of the worker to ask, "" where it is not known; it stands beside the error
}

func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// asError turns any error into one that can be answered; otherwise names what is not recognised.
func asError(err error, otherwise Code) *Error {
	var known *Error
	var rejected *schemas.Rejection
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &rejected):
		return &Error{Code: Code(rejected.Reason), Message: rejected.Message}
	case errors.As(err, &long):
		return &Error{Code: CodeTooLarge, Message: "the body is larger than 4 MiB: send fewer records at a time"}
	case errors.Is(err, context.DeadlineExceeded) && otherwise == CodeInternal:
		return &Error{Code: CodeGenerateTimeout, Message: err.Error()}
	}
	return &Error{Code: otherwise, Message: err.Error()}
}

// writeError answers with the one error shape.
func writeError(w http.ResponseWriter, err *Error) {
	writeJSON(w, err.Code.status(), struct {
		Error *Error `json:"error"`
		Owner string `json:"owner,omitempty"`
	}{err, err.Owner})
}

// writeJSON answers with a JSON body; the value must be encodable.
func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error":{"code":"internal","message":"the answer could not be encoded"}}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // the client left: nobody to tell
}
