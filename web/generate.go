package web

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"rebeca/schemas"
)

// itemsAnswer holds records as they are published on `generated`.
type itemsAnswer struct {
	Items []json.RawMessage `json:"items"`
}

// postGenerate produces a request and answers with its records once they are published. A request id
// that has been answered before is answered from memory, so a client may repeat a call it lost.
func (s *Server) postGenerate(w http.ResponseWriter, r *http.Request) {
	request, repeatable, err := s.readRequest(w, r)
	if err != nil {
		writeError(w, asError(err, CodeBadRequest))
		return
	}
	items, err := s.generate(r.Context(), request, repeatable)
	if err != nil {
		writeError(w, asError(err, CodeInternal))
		return
	}
	writeJSON(w, http.StatusOK, itemsAnswer{items})
}

// readRequest reads and checks a request; repeatable says that the caller named
// it, so that it may have been answered before.
func (s *Server) readRequest(w http.ResponseWriter, r *http.Request) (request schemas.Request, repeatable bool, err error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return request, false, err
	}
	request, err = schemas.ScanRequest(body)
	if err != nil {
		return request, repeatable, err
	}
	user := r.PathValue("id")
	if request.UserID != "" && request.UserID != user {
		return request, repeatable, &Error{Code: Code(schemas.ReasonKeyMismatch), Message: fmt.Sprintf("user_id %.64q is not the user of the path", request.UserID)}
	}
	request.UserID = user
	if repeatable = request.RequestID != ""; !repeatable {
		request.RequestID = newEventID(time.Now())
	}
	if err := request.Validate(); err != nil {
		return request, repeatable, err
	}
	if request.Images != nil && *request.Images && !s.o.Images {
		return request, repeatable, &Error{Code: CodeNoDecoder, Message: "this service makes embeddings only: name a decoder in its configuration, or ask with images: false"}
	}
	if a := request.After; a != nil && s.o.Partitions > 0 {
		if own := schemas.Partition([]byte(user), s.o.Partitions); a.Partition != own {
			return request, repeatable, &Error{Code: CodeBadAfter, Message: fmt.Sprintf("after.partition is %d, this user's feedback is in %d", a.Partition, own)}
		}
	}
	return request, repeatable, nil
}

// generate answers from memory where the caller repeats a request id, whatever
// the count says now, else by a new request.
func (s *Server) generate(ctx context.Context, request schemas.Request, repeatable bool) ([]json.RawMessage, error) {
	if repeatable {
		items, ok, err := s.o.Results.Recall(ctx, request.UserID, request.RequestID)
		if err != nil || ok {
			return items, err
		}
	}
	if _, err := s.o.Producer.Request(ctx, request); err != nil {
		return nil, asError(err, CodeBrokerUnavailable)
	}
	if repeatable { // it may have been answered between the two
		items, ok, err := s.o.Results.Recall(ctx, request.UserID, request.RequestID)
		if err != nil || ok {
			return items, err
		}
	}
	waiting, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	items, err := s.o.Results.Await(waiting, request.UserID, request.RequestID, request.Count)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, s.lateError(request)
	}
	return items, err
}

func (s *Server) lateError(request schemas.Request) *Error {
	again := fmt.Sprintf("ask again with request_id %q", request.RequestID)
	if a := request.After; a != nil && !s.o.Results.Reached(*a) {
		return &Error{Code: CodeAfterTimeout, Message: fmt.Sprintf("feedback %d/%d was not folded within %s: %s", a.Partition, a.Offset, s.o.Timeout, again)}
	}
	return &Error{Code: CodeGenerateTimeout, Message: fmt.Sprintf("the images were not published within %s: %s", s.o.Timeout, again)}
}

// newEventID is a UUID of version 7 (RFC 9562): ids of one client sort by time.
func newEventID(now time.Time) string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(now.UnixMilli()))
	copy(b[:6], ms[2:])
	b[6] = b[6]&0x0f | 0x70
	b[8] = b[8]&0x3f | 0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
