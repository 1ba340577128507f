package web

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// getImage answers with a generated picture. Its name is that of its bytes, so it never changes and who has it need not ask again.
func (s *Server) getImage(w http.ResponseWriter, r *http.Request) {
	sum := r.PathValue("sha256")
	if len(sum) != 64 || strings.Trim(sum, "0123456789abcdef") != "" {
		writeError(w, &Error{Code: CodeBadRequest, Message: fmt.Sprintf("%.80q is not a SHA-256: 64 hex digits, lower case", sum)})
		return
	}
	data, mediaType, ok, err := s.o.Stored.Image(r.Context(), sum)
	switch {
	case err != nil:
		writeError(w, asError(err, CodeInternal))
		return
	case !ok:
		writeError(w, &Error{Code: CodeNotFound, Message: "no such image here: small ones are in their records alone, old ones are deleted"})
		return
	}
	h := w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("ETag", `"`+sum+`"`)
	h.Set("Cache-Control", "private, max-age=31536000, immutable") // private: it is one person's
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}
