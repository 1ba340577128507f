package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"
)

// What the schemas and the design say of records, written a second time: nothing here is the service's code.

// Topics, by their default names.
const (
	topicItems      = "items"
	topicFeedback   = "feedback"
	topicRequests   = "requests"
	topicGenerated  = "generated"
	topicVectors    = "vectors"
	topicDeadLetter = "deadletter"
)

// source is a record that caused something.
type source struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

// outputID is the id of the index-th output of a record.
func outputID(s source, index int) string {
	h := sha256.New()
	h.Write(append([]byte(s.Topic), 0))
	_ = binary.Write(h, binary.BigEndian, struct {
		Partition     uint32
		Offset, Index uint64
	}{uint32(s.Partition), uint64(s.Offset), uint64(index)})
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// eventHash is the hash of an event id, by which the reservoir chooses.
func eventHash(id string) uint64 {
	sum := sha256.Sum256([]byte(id))
	return binary.BigEndian.Uint64(sum[:])
}

// ringHash is FNV-1a over the hashes of event ids.
func ringHash(ids []string) string {
	h := fnv.New64a()
	for _, id := range ids {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], eventHash(id))
		h.Write(b[:])
	}
	return fmt.Sprintf("%016x", h.Sum64())
}

// seedOf is the seed of an output whose cause names none.
func seedOf(id string) uint64 {
	sum := sha256.Sum256([]byte("seed\x00" + id))
	return binary.BigEndian.Uint64(sum[:]) >> 11
}

// partitionOf is the partition of a key under Java's default partitioner.
func partitionOf(key []byte, partitions int) int32 {
	const m = 0x5bd1e995
	h := uint32(0x9747b28c) ^ uint32(len(key))
	rest := key
	for len(rest) >= 4 {
		k := binary.LittleEndian.Uint32(rest) * m
		k = (k ^ k>>24) * m
		h = (h * m) ^ k
		rest = rest[4:]
	}
	for i := len(rest) - 1; i >= 0; i-- {
		h ^= uint32(rest[i]) << (8 * i)
	}
	if len(rest) > 0 {
		h *= m
	}
	h = (h ^ h>>13) * m
	h ^= h >> 15
	return int32(h&math.MaxInt32) % int32(partitions)
}

// record is a record of a topic as the judges see it.
type record struct {
	source
	time       time.Time
	key, value []byte
}

// event is an accepted record of the feedback topic.
type event struct {
	id, user, item, kind string
	value                *float64
	at                   time.Time
}

// wish is an accepted record of the requests topic.
type wish struct {
	id, user string
	count    int
	seed     *uint64
}

// object is a record's value by its fields; null fields are left out. reason says why it is none.
func object(value []byte) (fields map[string]json.RawMessage, reason string) {
	if len(value) > 1<<20 {
		return nil, "too_large"
	}
	if !utf8.Valid(value) || json.Unmarshal(value, &fields) != nil || fields == nil {
		return nil, "bad_json"
	}
	for name, v := range fields {
		if string(v) == "null" {
			delete(fields, name)
		}
	}
	return fields, ""
}

// id reads a field that must be an id.
func id(fields map[string]json.RawMessage, name string) (s, reason string) {
	v, ok := fields[name]
	if !ok {
		return "", "missing_field"
	}
	if json.Unmarshal(v, &s) != nil {
		return "", "bad_type"
	}
	switch {
	case s == "":
		return "", "missing_field"
	case len(s) > 256 || bytes.ContainsFunc([]byte(s), func(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError }):
		return "", "bad_id"
	}
	return s, ""
}

// number reads a field that may be a number.
func number(fields map[string]json.RawMessage, name string) (x *float64, reason string) {
	v, ok := fields[name]
	if ok && json.Unmarshal(v, &x) != nil {
		return nil, "bad_type"
	}
	return x, ""
}

// misplaced says why a record's key is wrong where it is.
func misplaced(r record, partitions int) string {
	switch {
	case len(r.key) == 0:
		return "empty_key"
	case partitionOf(r.key, partitions) != r.Partition:
		return "wrong_partition"
	}
	return ""
}

var kinds = []string{"like", "dislike", "click", "view", "rating", "skip", "share", "save", "hide", "undo"}

// judgeFeedback reads a record of the feedback topic that has a value.
func judgeFeedback(r record) (e event, reason string) {
	fields, reason := object(r.value)
	if reason != "" {
		return e, reason
	}
	for _, f := range []struct {
		name string
		into *string
	}{{"event_id", &e.id}, {"user_id", &e.user}, {"item_id", &e.item}, {"kind", &e.kind}} {
		if *f.into, reason = id(fields, f.name); reason != "" {
			return e, reason
		}
	}
	if !slices.Contains(kinds, e.kind) {
		return e, "unknown_kind"
	}
	if e.value, reason = number(fields, "value"); reason != "" {
		return e, reason
	}
	switch v := e.value; {
	case e.kind == "rating" && (v == nil || *v < 1 || *v > 5), e.kind == "view" && v != nil && *v < 0:
		return e, "bad_value"
	}
	at, reason := id(fields, "occurred_at")
	if reason != "" {
		return e, reason
	}
	var err error
	if e.at, err = time.Parse(time.RFC3339Nano, at); err != nil || e.at.Year() < 2000 || e.at.Sub(r.time) > 24*time.Hour {
		return e, "bad_time"
	}
	if e.user != string(r.key) {
		return e, "key_mismatch"
	}
	return e, ""
}

// judgeRequest reads a record of the requests topic, for a service without a decoder.
func judgeRequest(r record) (w wish, reason string) {
	fields, reason := object(r.value)
	if reason != "" {
		return w, reason
	}
	if w.id, reason = id(fields, "request_id"); reason != "" {
		return w, reason
	}
	if w.user, reason = id(fields, "user_id"); reason != "" {
		return w, reason
	}
	count, reason := number(fields, "count")
	switch {
	case reason != "":
		return w, reason
	case count == nil:
		return w, "missing_field"
	case *count != math.Trunc(*count) || *count < 1 || *count > 1000:
		return w, "bad_count"
	}
	w.count = int(*count)
	if v, ok := fields["rating"]; ok && !slices.Contains([]string{`"like"`, `"dislike"`, `""`}, string(v)) {
		return w, "bad_rating"
	}
	if g, reason := number(fields, "guidance"); reason != "" {
		return w, reason
	} else if g != nil && !(*g > 0 && *g <= 20) {
		return w, "bad_guidance"
	}
	if v, ok := fields["seed"]; ok {
		seed, err := strconv.ParseUint(string(v), 10, 64)
		if err != nil || seed > 1<<53 {
			return w, "bad_seed"
		}
		w.seed = &seed
	}
	if w.user != string(r.key) {
		return w, "key_mismatch"
	}
	if string(fields["images"]) == "true" {
		return w, "no_decoder"
	}
	if v, ok := fields["after"]; ok {
		var after source
		if json.Unmarshal(v, &after) != nil || after.Offset < 0 || after.Partition != r.Partition {
			return w, "bad_after"
		}
	}
	return w, ""
}

// judgeItem reads a record of the catalogue that has a value.
func judgeItem(r record, dim int) (reason string) {
	fields, reason := object(r.value)
	if reason != "" {
		return reason
	}
	item, reason := id(fields, "item_id")
	if reason != "" {
		return reason
	}
	numbers, isList := fields["embedding"]
	text, isText := fields["embedding_f32"]
	var e []float32
	switch {
	case !isList && !isText:
		return "missing_field"
	case isList && isText:
		return "bad_embedding"
	case isList:
		if json.Unmarshal(numbers, &e) != nil {
			return "bad_embedding"
		}
	default:
		if e = floats(text); e == nil {
			return "bad_embedding"
		}
	}
	if len(e) != dim || slices.ContainsFunc(e, func(x float32) bool { return x-x != 0 }) {
		return "bad_embedding"
	}
	if item != string(r.key) {
		return "key_mismatch"
	}
	return ""
}

// floats reads a JSON string of base64 of little-endian float32; nil when it is none.
func floats(text json.RawMessage) []float32 {
	var s string
	if json.Unmarshal(text, &s) != nil {
		return nil
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil || len(b)%4 != 0 {
		return nil
	}
	out := make([]float32, len(b)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return out
}
