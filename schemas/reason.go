package schemas

import "fmt"

// Reason names a class of refusal. The names are stable: producers, dashboards and alerts match on them.
type Reason string

// Reasons of refusal. Each comment says what the producer must change.
const (
	// ReasonBadJSON: the value is not one JSON object in UTF-8 (NaN and Infinity are not JSON). Send valid JSON.
	ReasonBadJSON Reason = "bad_json"
	// ReasonBadType: a known field holds another JSON type than the schema says, such as a string for a number.
	ReasonBadType Reason = "bad_type"
	// ReasonMissingField: a required field is absent, null or an empty string. Send it.
	ReasonMissingField Reason = "missing_field"
	// ReasonEmptyKey: the record has no key. Set the Kafka key to user_id (items: item_id).
	ReasonEmptyKey Reason = "empty_key"
	// ReasonKeyMismatch: the key's bytes differ from user_id (items: item_id). Use the same string for both.
	ReasonKeyMismatch Reason = "key_mismatch"
	// ReasonWrongPartition: the key does not hash to the partition it came in. Partition by murmur2, Java's default.
	ReasonWrongPartition Reason = "wrong_partition"
	// ReasonBadID: an id is longer than [MaxID] bytes or holds control characters or U+FFFD. Use another id.
	ReasonBadID Reason = "bad_id"
	// ReasonUnknownKind: kind is none of [Kinds]. Map the event to one of them or do not send it.
	ReasonUnknownKind Reason = "unknown_kind"
	// ReasonBadValue: value does not suit the kind: a rating outside 1..5 or without value, a view of negative seconds.
	ReasonBadValue Reason = "bad_value"
	// ReasonBadTime: occurred_at is not RFC 3339, lies before 2000, or more than a day ahead of the record's timestamp.
	ReasonBadTime Reason = "bad_time"
	// ReasonTooLarge: the value exceeds [MaxValue] bytes. Send less; images do not belong into these topics.
	ReasonTooLarge Reason = "too_large"
	// ReasonBadEmbedding: not exactly one of embedding and embedding_f32, another dimension than the catalogue's, bad
	// base64, or a number that is not finite as float32.
	ReasonBadEmbedding Reason = "bad_embedding"
	// ReasonBadCount: count is not a whole number in 1..[MaxCount]. Split larger wishes into several requests.
	ReasonBadCount Reason = "bad_count"
	// ReasonBadRating: a request's rating is neither like nor dislike.
	ReasonBadRating Reason = "bad_rating"
	// ReasonBadGuidance: guidance is not in (0, [MaxGuidance]].
	ReasonBadGuidance Reason = "bad_guidance"
	// ReasonBadSeed: seed is not a whole number in 0..2^53.
	ReasonBadSeed Reason = "bad_seed"
	// ReasonBadAfter: after names a negative offset, or a partition that is negative or not the user's own.
	ReasonBadAfter Reason = "bad_after"
	// ReasonNoDecoder: images were asked for and the service has no decoder. Ask with images: false or name one.
	ReasonNoDecoder Reason = "no_decoder"
	// ReasonBadCloudEvent: the envelope of a CloudEvent cannot be read: another specversion than 1.0, no data or twice, data that is
	// not JSON, or a structured mode other than application/cloudevents+json.
	ReasonBadCloudEvent Reason = "bad_cloudevent"
	// ReasonUnknownSchema: the registry knows no schema by the id within the value. Register it, where the service looks.
	ReasonUnknownSchema Reason = "unknown_schema"
	// ReasonBadSchema: the registered schema cannot be used: it does not compile, or is no record. Register a better one.
	ReasonBadSchema Reason = "bad_schema"
	// ReasonBadEncoding: the bytes are not Avro or Protobuf of the schema that they name.
	ReasonBadEncoding Reason = "bad_encoding"
	// ReasonRedriven: the record has been redriven from the dead letters again and again and is refused still; the message
	// has the reason. Mend its producer, or edit it before it is redriven.
	ReasonRedriven Reason = "redriven"
)

// Reasons lists every reason in the order of their declaration, for pre-declared metrics and documentation.
func Reasons() []Reason {
	return []Reason{
		ReasonBadJSON, ReasonBadType, ReasonMissingField, ReasonEmptyKey, ReasonKeyMismatch, ReasonWrongPartition,
		ReasonBadID, ReasonUnknownKind, ReasonBadValue, ReasonBadTime, ReasonTooLarge, ReasonBadEmbedding,
		ReasonBadCount, ReasonBadRating, ReasonBadGuidance, ReasonBadSeed, ReasonBadAfter, ReasonNoDecoder,
		ReasonBadCloudEvent, ReasonUnknownSchema, ReasonBadSchema, ReasonBadEncoding, ReasonRedriven,
	}
}

// Rejection is the error of every decoder: a stable reason and a message for people, which names the field and quotes
// at most 64 bytes of what came.
type Rejection struct {
	Reason   Reason
	Message  string
	Attempts int // how often the record has been redriven from the dead letters
}

// Error returns "reason: message".
func (r *Rejection) Error() string { return string(r.Reason) + ": " + r.Message }

func reject(reason Reason, format string, args ...any) error {
	return &Rejection{Reason: reason, Message: fmt.Sprintf(format, args...)}
}
