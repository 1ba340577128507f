package schemas

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// recordTime is the Kafka timestamp of the records in these tests.
var recordTime = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// decoders decode a topic's value with the key that the value itself names.
var decoders = map[string]func(value []byte) (any, error){
	"feedback":  func(v []byte) (any, error) { return ParseFeedback(v, recordTime) },
	"items":     func(v []byte) (any, error) { return ParseItem(v, 0) },
	"requests":  func(v []byte) (any, error) { return ParseRequest(v) },
	"generated": func(v []byte) (any, error) { return DecodeGenerated(v) },
	"vectors":   func(v []byte) (any, error) { return DecodeVector(v) },
	"prior":     func(v []byte) (any, error) { return DecodePriorVersion(v) },
}

// compiled are the schemas by topic, compiled once with formats asserted.
var compiled = sync.OnceValue(func() map[string]*jsonschema.Schema {
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	out := map[string]*jsonschema.Schema{}
	for topic := range decoders {
		name := topic + ".schema.json"
		text, err := fs.ReadFile(Files, name)
		if err != nil {
			panic(err)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			panic(err)
		}
		if err := c.AddResource(name, doc); err != nil {
			panic(err)
		}
		out[topic] = c.MustCompile(name)
	}
	return out
})

// valid reports whether a value satisfies its topic's schema.
func valid(topic string, value []byte) bool {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(value))
	return err == nil && compiled()[topic].Validate(doc) == nil
}

const (
	feedbackOK = `{"event_id":"e1","user_id":"u1","item_id":"i1","kind":"like","occurred_at":"2026-03-01T11:59:58.123Z"}`
	itemOK     = `{"item_id":"i1","embedding":[0.5,-1,2e-3]}`
	requestOK  = `{"request_id":"r1","user_id":"u1","count":3}`
	vectorOK   = `{"user_id":"u1","vector_f32":"AACAPwAAAEA=","prior_version":"3-abcd","events_folded":7}`
	priorOK    = `{"version":"3-abcd","number":3,"step":512,"uri":"file:///p/3.safetensors","sha256":"` + hex64 + `","metrics":{"loss":0.5},"created_at":"2026-03-01T12:00:00Z"}`
	hex64      = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	generated  = `{"id":"` + "0123456789abcdef0123456789abcdef" + `","user_id":"u1","trigger":"feedback","embedding_f32":"AACAPwAAAEA=","dim":2,` +
		`"seed":9007199254740992,"guidance":4,"steps":8,"prior_version":"3-abcd","events_folded":7,` +
		`"as_of":{"partition":1,"offset":41},"source":{"topic":"feedback","partition":1,"offset":41},"created_at":"2026-03-01T12:00:00Z"}`
)

var bases = map[string]string{
	"feedback": feedbackOK, "items": itemOK, "requests": requestOK, "generated": generated, "vectors": vectorOK, "prior": priorOK,
}

// with returns a base value with members set, or removed by the value "-", given as name, JSON, name, JSON, …
func with(topic string, members ...string) string {
	var m map[string]json.RawMessage
	if err := json.Unmarshal([]byte(bases[topic]), &m); err != nil {
		panic(err)
	}
	for i := 0; i < len(members); i += 2 {
		if members[i+1] == "-" {
			delete(m, members[i])
		} else {
			m[members[i]] = json.RawMessage(members[i+1])
		}
	}
	out, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return string(out)
}

// TestDecodersAndSchemasAgree holds every case against the decoder and the JSON Schema. want is the reason, "" for
// accepted; schemaSilent marks refusals that a value's schema cannot tell.
func TestDecodersAndSchemasAgree(t *testing.T) {
	long := `"` + strings.Repeat("x", 257) + `"`
	fits := `"` + strings.Repeat("x", 256) + `"`
	cases := []struct {
		topic, name, value string
		want               Reason
		schemaSilent       bool
	}{
		{topic: "feedback", name: "base", value: feedbackOK},
		{topic: "feedback", name: "spaces", value: " \n\t{ \"kind\" : \"like\" ,\r\"event_id\":\"e\",\"user_id\":\"u\",\"item_id\":\"i\",\"occurred_at\":\"2026-03-01T00:00:00Z\" } \n"},
		{topic: "feedback", name: "escapes", value: with("feedback", "user_id", `"\u00fc\"\\\/\ud83d\ude00"`, `user_\u0069d2`, `1`)},
		{topic: "feedback", name: "unknown fields", value: with("feedback", "session", `{"a":[1,{"user_id":"no"},"}"],"b":null}`, "x", "[]", "y", "1e3", "z", "true")},
		{topic: "feedback", name: "null value", value: with("feedback", "value", "null")},
		{topic: "feedback", name: "value of a like", value: with("feedback", "value", "-3.5")},
		{topic: "feedback", name: "offset time", value: with("feedback", "occurred_at", `"2026-03-01T11:59:58.123456789+02:00"`)},
		{topic: "feedback", name: "longest id", value: with("feedback", "user_id", fits)},
		{topic: "feedback", name: "not JSON", value: `{"event_id":`, want: ReasonBadJSON},
		{topic: "feedback", name: "empty", value: ``, want: ReasonBadJSON},
		{topic: "feedback", name: "NaN", value: strings.Replace(with("feedback", "value", "0"), ":0", ":NaN", 1), want: ReasonBadJSON},
		{topic: "feedback", name: "two values", value: feedbackOK + feedbackOK, want: ReasonBadJSON},
		{topic: "feedback", name: "array", value: "[" + feedbackOK + "]", want: ReasonBadJSON},
		{topic: "feedback", name: "string", value: `"like"`, want: ReasonBadJSON},
		{topic: "feedback", name: "null", value: `null`, want: ReasonBadJSON},
		{topic: "feedback", name: "not UTF-8", value: strings.Replace(feedbackOK, `"u1"`, "\"u\xff\"", 1), want: ReasonBadJSON},
		{topic: "feedback", name: "no event_id", value: with("feedback", "event_id", "-"), want: ReasonMissingField},
		{topic: "feedback", name: "null user_id", value: with("feedback", "user_id", "null"), want: ReasonMissingField},
		{topic: "feedback", name: "empty item_id", value: with("feedback", "item_id", `""`), want: ReasonMissingField},
		{topic: "feedback", name: "no kind", value: with("feedback", "kind", "-"), want: ReasonMissingField},
		{topic: "feedback", name: "no occurred_at", value: with("feedback", "occurred_at", "-"), want: ReasonMissingField},
		{topic: "feedback", name: "other case of a name", value: strings.Replace(feedbackOK, "user_id", "USER_ID", 1), want: ReasonMissingField},
		{topic: "feedback", name: "numeric user_id", value: with("feedback", "user_id", "17"), want: ReasonBadType},
		{topic: "feedback", name: "numeric time", value: with("feedback", "occurred_at", "1767225600"), want: ReasonBadType},
		{topic: "feedback", name: "value as text", value: with("feedback", "value", `"5"`), want: ReasonBadType},
		{topic: "feedback", name: "kind as list", value: with("feedback", "kind", `["like"]`), want: ReasonBadType},
		{topic: "feedback", name: "long id", value: with("feedback", "event_id", long), want: ReasonBadID},
		{topic: "feedback", name: "control character", value: with("feedback", "item_id", `"a\nb"`), want: ReasonBadID},
		{topic: "feedback", name: "lone surrogate", value: with("feedback", "item_id", `"a\ud800"`), want: ReasonBadID},
		{topic: "feedback", name: "C1 control", value: with("feedback", "item_id", "\"a\u0085\""), want: ReasonBadID},
		{topic: "feedback", name: "unknown kind", value: with("feedback", "kind", `"love"`), want: ReasonUnknownKind},
		{topic: "feedback", name: "kind in capitals", value: with("feedback", "kind", `"LIKE"`), want: ReasonUnknownKind},
		{topic: "feedback", name: "rating 1", value: with("feedback", "kind", `"rating"`, "value", "1")},
		{topic: "feedback", name: "rating 5.0", value: with("feedback", "kind", `"rating"`, "value", "5.0")},
		{topic: "feedback", name: "rating 3.5", value: with("feedback", "kind", `"rating"`, "value", "35e-1")},
		{topic: "feedback", name: "rating 0", value: with("feedback", "kind", `"rating"`, "value", "0"), want: ReasonBadValue},
		{topic: "feedback", name: "rating 5.01", value: with("feedback", "kind", `"rating"`, "value", "5.01"), want: ReasonBadValue},
		{topic: "feedback", name: "rating without value", value: with("feedback", "kind", `"rating"`), want: ReasonBadValue},
		{topic: "feedback", name: "rating null", value: with("feedback", "kind", `"rating"`, "value", "null"), want: ReasonBadValue},
		{topic: "feedback", name: "view", value: with("feedback", "kind", `"view"`, "value", "0")},
		{topic: "feedback", name: "view without value", value: with("feedback", "kind", `"view"`)},
		{topic: "feedback", name: "negative view", value: with("feedback", "kind", `"view"`, "value", "-0.1"), want: ReasonBadValue},
		{topic: "feedback", name: "value beyond float64", value: with("feedback", "value", "1e400"), want: ReasonBadValue},
		{topic: "feedback", name: "time without zone", value: with("feedback", "occurred_at", `"2026-03-01T11:59:58"`), want: ReasonBadTime},
		{topic: "feedback", name: "date alone", value: with("feedback", "occurred_at", `"2026-03-01"`), want: ReasonBadTime},
		{topic: "feedback", name: "time with a space", value: with("feedback", "occurred_at", `"2026-03-01 11:59:58Z"`), want: ReasonBadTime},
		{topic: "feedback", name: "30 February", value: with("feedback", "occurred_at", `"2026-02-30T11:59:58Z"`), want: ReasonBadTime},
		{topic: "feedback", name: "lower case t", value: with("feedback", "occurred_at", `"2026-03-01t11:59:58z"`), want: ReasonBadTime},
		{topic: "feedback", name: "short hour", value: with("feedback", "occurred_at", `"2026-03-01T1:59:58Z"`), want: ReasonBadTime},
		{topic: "feedback", name: "comma", value: with("feedback", "occurred_at", `"2026-03-01T11:59:58,5Z"`), want: ReasonBadTime},
		{topic: "feedback", name: "zone of 24 hours", value: with("feedback", "occurred_at", `"2026-03-01T11:59:58+24:00"`), want: ReasonBadTime},
		{topic: "feedback", name: "leap second", value: with("feedback", "occurred_at", `"2016-12-31T23:59:60Z"`), want: ReasonBadTime, schemaSilent: true},
		{topic: "feedback", name: "1970", value: with("feedback", "occurred_at", `"1970-01-01T00:00:00Z"`), want: ReasonBadTime, schemaSilent: true},
		{topic: "feedback", name: "last of 1999", value: with("feedback", "occurred_at", `"1999-12-31T23:59:59.999Z"`), want: ReasonBadTime, schemaSilent: true},
		{topic: "feedback", name: "first of 2000", value: with("feedback", "occurred_at", `"2000-01-01T00:00:00Z"`)},
		{topic: "feedback", name: "a day ahead", value: with("feedback", "occurred_at", `"2026-03-02T12:00:00Z"`)},
		{topic: "feedback", name: "more than a day ahead", value: with("feedback", "occurred_at", `"2026-03-02T12:00:00.001Z"`), want: ReasonBadTime, schemaSilent: true},
		{topic: "feedback", name: "2100", value: with("feedback", "occurred_at", `"2100-01-01T00:00:00Z"`), want: ReasonBadTime, schemaSilent: true},

		{topic: "items", name: "base", value: itemOK},
		{topic: "items", name: "base64", value: with("items", "embedding", "-", "embedding_f32", `"AACAPwAAAEA="`)},
		{topic: "items", name: "null beside", value: with("items", "embedding_f32", "null", "uri", "null", "attributes", "null")},
		{topic: "items", name: "all", value: with("items", "uri", `"s3://b/k"`, "attributes", `{"a":{"b":[1, 2]}}`, "title", `"x"`)},
		{topic: "items", name: "spaces in the array", value: with("items", "embedding", "[ 1 ,\n2 , -3E+1 ]")},
		{topic: "items", name: "largest float32", value: with("items", "embedding", "[3.4028234663852886e38]")},
		{topic: "items", name: "no id", value: with("items", "item_id", "-"), want: ReasonMissingField},
		{topic: "items", name: "no embedding", value: with("items", "embedding", "-"), want: ReasonMissingField},
		{topic: "items", name: "null embedding", value: with("items", "embedding", "null"), want: ReasonMissingField},
		{topic: "items", name: "both", value: with("items", "embedding_f32", `"AACAPwAAAEA="`), want: ReasonBadEmbedding},
		{topic: "items", name: "empty", value: with("items", "embedding", "[]"), want: ReasonBadEmbedding},
		{topic: "items", name: "beyond float32", value: with("items", "embedding", "[1e39]"), want: ReasonBadEmbedding},
		{topic: "items", name: "beyond float64", value: with("items", "embedding", "[1e999]"), want: ReasonBadEmbedding},
		{topic: "items", name: "text in the array", value: with("items", "embedding", `[1,"2"]`), want: ReasonBadType},
		{topic: "items", name: "null in the array", value: with("items", "embedding", `[1,null]`), want: ReasonBadType},
		{topic: "items", name: "array in the array", value: with("items", "embedding", `[[1]]`), want: ReasonBadType},
		{topic: "items", name: "object", value: with("items", "embedding", `{"0":1}`), want: ReasonBadType},
		{topic: "items", name: "empty base64", value: with("items", "embedding", "-", "embedding_f32", `""`), want: ReasonBadEmbedding},
		{topic: "items", name: "unpadded base64", value: with("items", "embedding", "-", "embedding_f32", `"AACAPwAAAEA"`), want: ReasonBadEmbedding},
		{topic: "items", name: "URL base64", value: with("items", "embedding", "-", "embedding_f32", `"__-_Pw=="`), want: ReasonBadEmbedding},
		{topic: "items", name: "line in base64", value: with("items", "embedding", "-", "embedding_f32", `"AACAPwAA\nAEA="`), want: ReasonBadEmbedding},
		{topic: "items", name: "five bytes", value: with("items", "embedding", "-", "embedding_f32", `"AACAPwA="`), want: ReasonBadEmbedding, schemaSilent: true},
		{topic: "items", name: "NaN bits", value: with("items", "embedding", "-", "embedding_f32", `"AADAfw=="`), want: ReasonBadEmbedding, schemaSilent: true},
		{topic: "items", name: "Inf bits", value: with("items", "embedding", "-", "embedding_f32", `"AACAfw=="`), want: ReasonBadEmbedding, schemaSilent: true},
		{topic: "items", name: "attributes as text", value: with("items", "attributes", `"a"`), want: ReasonBadType},

		{topic: "requests", name: "base", value: requestOK},
		{topic: "requests", name: "all", value: with("requests", "rating", `"dislike"`, "seed", "9007199254740992", "guidance", "20", "images", "false", "after", `{"partition":2147483647,"offset":9223372036854775807,"x":1}`, "candidates", "16", "explain", "true")},
		{topic: "requests", name: "nulls", value: with("requests", "rating", "null", "seed", "null", "guidance", "null", "images", "null", "after", "null", "candidates", "null", "explain", "null")},
		{topic: "requests", name: "count 1000.0", value: with("requests", "count", "1000.0")},
		{topic: "requests", name: "count 1e2", value: with("requests", "count", "1e2")},
		{topic: "requests", name: "empty rating", value: with("requests", "rating", `""`)},
		{topic: "requests", name: "no count", value: with("requests", "count", "-"), want: ReasonMissingField},
		{topic: "requests", name: "null count", value: with("requests", "count", "null"), want: ReasonMissingField},
		{topic: "requests", name: "count 0", value: with("requests", "count", "0"), want: ReasonBadCount},
		{topic: "requests", name: "count 1001", value: with("requests", "count", "1001"), want: ReasonBadCount},
		{topic: "requests", name: "count 2.5", value: with("requests", "count", "2.5"), want: ReasonBadCount},
		{topic: "requests", name: "count 1e30", value: with("requests", "count", "1e30"), want: ReasonBadCount},
		{topic: "requests", name: "count as text", value: with("requests", "count", `"3"`), want: ReasonBadType},
		{topic: "requests", name: "no request_id", value: with("requests", "request_id", "-"), want: ReasonMissingField},
		{topic: "requests", name: "rating", value: with("requests", "rating", `"love"`), want: ReasonBadRating},
		{topic: "requests", name: "seed -1", value: with("requests", "seed", "-1"), want: ReasonBadSeed},
		{topic: "requests", name: "seed 2^53+1", value: with("requests", "seed", "9007199254740993"), want: ReasonBadSeed},
		{topic: "requests", name: "seed 2^64", value: with("requests", "seed", "18446744073709551616"), want: ReasonBadSeed},
		{topic: "requests", name: "seed .5", value: with("requests", "seed", "0.5"), want: ReasonBadSeed},
		{topic: "requests", name: "guidance 0", value: with("requests", "guidance", "0"), want: ReasonBadGuidance},
		{topic: "requests", name: "guidance 20.5", value: with("requests", "guidance", "20.5"), want: ReasonBadGuidance},
		{topic: "requests", name: "guidance 1e999", value: with("requests", "guidance", "1e999"), want: ReasonBadGuidance},
		{topic: "requests", name: "images as number", value: with("requests", "images", "1"), want: ReasonBadType},
		{topic: "requests", name: "candidates 0", value: with("requests", "candidates", "0"), want: ReasonBadValue},
		{topic: "requests", name: "candidates 17", value: with("requests", "candidates", "17"), want: ReasonBadValue},
		{topic: "requests", name: "candidates as text", value: with("requests", "candidates", `"4"`), want: ReasonBadType},
		{topic: "requests", name: "explain as number", value: with("requests", "explain", "3"), want: ReasonBadType},
		{topic: "requests", name: "after without offset", value: with("requests", "after", `{"partition":1}`), want: ReasonMissingField},
		{topic: "requests", name: "after with null offset", value: with("requests", "after", `{"partition":1,"offset":null}`), want: ReasonMissingField},
		{topic: "requests", name: "after negative", value: with("requests", "after", `{"partition":1,"offset":-1}`), want: ReasonBadAfter},
		{topic: "requests", name: "after partition 2^31", value: with("requests", "after", `{"partition":2147483648,"offset":1}`), want: ReasonBadAfter},
		{topic: "requests", name: "after as number", value: with("requests", "after", `7`), want: ReasonBadType},

		{topic: "generated", name: "base", value: generated},
		{topic: "generated", name: "request", value: with("generated", "trigger", `"request"`, "request_id", `"r1"`, "score", "0.25")},
		{topic: "generated", name: "nothing folded", value: with("generated", "as_of", `{"partition":0,"offset":-1}`, "events_folded", "0")},
		{topic: "generated", name: "image", value: with("generated", "image", `{"media_type":"image/png","width":64,"height":64,"sha256":"`+hex64+`","data":"iVBORw=="}`)},
		{topic: "generated", name: "image elsewhere", value: with("generated", "image", `{"media_type":"image/png","width":64,"height":64,"sha256":"`+hex64+`","uri":"s3://b/k"}`)},
		{topic: "generated", name: "image nowhere", value: with("generated", "image", `{"media_type":"image/png","width":64,"height":64,"sha256":"`+hex64+`"}`), want: ReasonBadValue},
		{topic: "generated", name: "because", value: with("generated", "candidates", "4", "candidate", "3", "because", `[{"item_id":"i","offset":0,"share":1},{"item_id":"j","offset":7,"share":0.25,"x":[]}]`)},
		{topic: "generated", name: "because of nothing", value: with("generated", "candidates", "null", "because", "[]")},
		{topic: "generated", name: "because null", value: with("generated", "because", "null")},
		{topic: "generated", name: "because as object", value: with("generated", "because", `{"item_id":"i","offset":0,"share":1}`), want: ReasonBadType},
		{topic: "generated", name: "because of a number", value: with("generated", "because", `[1]`), want: ReasonBadType},
		{topic: "generated", name: "because of more than all", value: with("generated", "because", `[{"item_id":"i","offset":0,"share":1.5}]`), want: ReasonBadValue},
		{topic: "generated", name: "because before the log", value: with("generated", "because", `[{"item_id":"i","offset":-1,"share":0.5}]`), want: ReasonBadValue},
		{topic: "generated", name: "because without item", value: with("generated", "because", `[{"offset":1,"share":0.5}]`), want: ReasonMissingField},
		{topic: "generated", name: "because without share", value: with("generated", "because", `[{"item_id":"i","offset":1}]`), want: ReasonMissingField},
		{topic: "generated", name: "because of no item", value: with("generated", "because", `[{"item_id":"","offset":1,"share":0.5}]`), want: ReasonMissingField},
		{topic: "generated", name: "candidate -1", value: with("generated", "candidate", "-1"), want: ReasonBadValue},
		{topic: "generated", name: "chosen from one", value: with("generated", "candidates", "1"), want: ReasonBadValue},
		{topic: "generated", name: "image with its size", value: with("generated", "image", `{"media_type":"image/jpeg","width":64,"height":64,"sha256":"`+hex64+`","size":300000,"uri":"s3://b/k"}`)},
		{topic: "generated", name: "image of no size", value: with("generated", "image", `{"media_type":"image/png","width":64,"height":64,"sha256":"`+hex64+`","size":0,"uri":"u"}`), want: ReasonBadValue},
		{topic: "generated", name: "no image", value: with("generated", "no_image", `{"reason":"decode_failed","message":"row 0"}`)},
		{topic: "generated", name: "no image and no reason", value: with("generated", "no_image", `{"message":"row 0"}`), want: ReasonMissingField},
		{topic: "generated", name: "no image in words", value: with("generated", "no_image", `"none"`), want: ReasonBadType},
		{topic: "generated", name: "image and none", value: with("generated", "no_image", `{"reason":"withheld"}`, "image", `{"media_type":"image/png","width":64,"height":64,"sha256":"`+hex64+`","uri":"u"}`), want: ReasonBadValue},
		{topic: "generated", name: "image twice", value: with("generated", "image", `{"media_type":"image/png","width":64,"height":64,"sha256":"`+hex64+`","uri":"s3://b/k","data":"iVBORw=="}`), want: ReasonBadValue},
		{topic: "generated", name: "image without width", value: with("generated", "image", `{"media_type":"image/png","height":64,"sha256":"`+hex64+`","uri":"u"}`), want: ReasonMissingField},
		{topic: "generated", name: "image with a short hash", value: with("generated", "image", `{"media_type":"image/png","width":64,"height":64,"sha256":"ab","uri":"u"}`), want: ReasonBadValue},
		{topic: "generated", name: "image of bad base64", value: with("generated", "image", `{"media_type":"image/png","width":64,"height":64,"sha256":"`+hex64+`","data":"iVBO*w=="}`), want: ReasonBadValue},
		{topic: "generated", name: "trigger", value: with("generated", "trigger", `"cron"`), want: ReasonBadValue},
		{topic: "generated", name: "no seed", value: with("generated", "seed", "-"), want: ReasonMissingField},
		{topic: "generated", name: "no as_of", value: with("generated", "as_of", "-"), want: ReasonMissingField},
		{topic: "generated", name: "source without topic", value: with("generated", "source", `{"partition":1,"offset":41}`), want: ReasonMissingField},
		{topic: "generated", name: "other dimension", value: with("generated", "dim", "3"), want: ReasonBadEmbedding, schemaSilent: true},
		{topic: "generated", name: "as_of -2", value: with("generated", "as_of", `{"partition":0,"offset":-2}`), want: ReasonBadValue},
		{topic: "generated", name: "negative guidance", value: with("generated", "guidance", "-1"), want: ReasonBadGuidance},
		{topic: "generated", name: "negative guidance for a request", value: with("generated", "request_id", `"r"`, "guidance", "-1"), want: ReasonBadGuidance},
		{topic: "generated", name: "steps .5", value: with("generated", "steps", "7.5"), want: ReasonBadValue},
		{topic: "generated", name: "yesterday", value: with("generated", "created_at", `"yesterday"`), want: ReasonBadTime},

		{topic: "vectors", name: "base", value: vectorOK},
		{topic: "vectors", name: "no version", value: with("vectors", "prior_version", "-"), want: ReasonMissingField},
		{topic: "vectors", name: "no count", value: with("vectors", "events_folded", "-"), want: ReasonMissingField},
		{topic: "vectors", name: "negative count", value: with("vectors", "events_folded", "-1"), want: ReasonBadValue},
		{topic: "vectors", name: "no vector", value: with("vectors", "vector_f32", `""`), want: ReasonBadEmbedding},

		{topic: "prior", name: "base", value: priorOK},
		{topic: "prior", name: "no metrics", value: with("prior", "metrics", "-")},
		{topic: "prior", name: "null metric", value: with("prior", "metrics", `{"guard":null}`)},
		{topic: "prior", name: "number 0", value: with("prior", "number", "0"), want: ReasonBadValue},
		{topic: "prior", name: "no step", value: with("prior", "step", "-"), want: ReasonMissingField},
		{topic: "prior", name: "empty uri", value: with("prior", "uri", `""`), want: ReasonMissingField},
		{topic: "prior", name: "hash in capitals", value: with("prior", "sha256", `"`+strings.ToUpper(hex64)+`"`), want: ReasonBadValue},
		{topic: "prior", name: "metric as text", value: with("prior", "metrics", `{"loss":"low"}`), want: ReasonBadType},
		{topic: "prior", name: "metrics as list", value: with("prior", "metrics", `[1]`), want: ReasonBadType},
	}
	covered := map[Reason]bool{}
	for _, c := range cases {
		t.Run(c.topic+"/"+c.name, func(t *testing.T) {
			_, err := decoders[c.topic]([]byte(c.value))
			covered[c.want] = true
			if got := reasonOf(t, err); got != c.want {
				t.Errorf("decoder: %v, want reason %q\n%s", err, c.want, c.value)
			}
			if got, want := valid(c.topic, []byte(c.value)), c.want == "" || c.schemaSilent; got != want {
				t.Errorf("schema: valid is %t, want %t\n%s", got, want, c.value)
			}
		})
	}
	for _, r := range Reasons() {
		switch r {
		case ReasonWrongPartition, ReasonNoDecoder, ReasonRedriven, ReasonBadCloudEvent, ReasonUnknownSchema, ReasonBadSchema,
			ReasonBadEncoding, ReasonEmptyKey, ReasonKeyMismatch, ReasonTooLarge:
			continue // not of a value, or tested below
		}
		if !covered[r] {
			t.Errorf("no case ends in %s", r)
		}
	}
}

// reasonOf returns the reason of a decoder's error, which must be one of the listed, in one line.
func reasonOf(t *testing.T, err error) Reason {
	t.Helper()
	if err == nil {
		return ""
	}
	var r *Rejection
	if !errors.As(err, &r) {
		t.Fatalf("%v (%T) is no rejection", err, err)
	}
	known := false
	for _, listed := range Reasons() {
		known = known || listed == r.Reason
	}
	if !known || r.Message == "" || strings.ContainsAny(r.Message, "\n\r") || len(r.Message) > 500 {
		t.Errorf("rejection %q: %q", r.Reason, r.Message)
	}
	return r.Reason
}

func TestEveryKindIsAcceptedByDecoderAndSchema(t *testing.T) {
	for _, k := range Kinds() {
		v := with("feedback", "kind", fmt.Sprintf("%q", k), "value", "3")
		f, err := ParseFeedback([]byte(v), recordTime)
		if err != nil || f.Kind != k || !valid("feedback", []byte(v)) {
			t.Errorf("%s: %v, schema %t", k, err, valid("feedback", []byte(v)))
		}
	}
}

func TestKeys(t *testing.T) {
	for name, decode := range map[string]func(key []byte) error{
		"feedback": func(k []byte) error { _, err := DecodeFeedback(k, []byte(feedbackOK), recordTime); return err },
		"requests": func(k []byte) error { _, err := DecodeRequest(k, []byte(requestOK)); return err },
		"items":    func(k []byte) error { _, err := DecodeItem(k, []byte(itemOK), 3); return err },
	} {
		right := map[string]string{"feedback": "u1", "requests": "u1", "items": "i1"}[name]
		for key, want := range map[string]Reason{right: "", "": ReasonEmptyKey, "u2": ReasonKeyMismatch, right + "\xff": ReasonKeyMismatch} {
			if got := reasonOf(t, decode([]byte(key))); got != want {
				t.Errorf("%s with key %q: %q, want %q", name, key, got, want)
			}
		}
		if got := reasonOf(t, decode(nil)); got != ReasonEmptyKey {
			t.Errorf("%s without a key: %q", name, got)
		}
	}
}

func TestLargeValues(t *testing.T) {
	pad := func(topic string, n int) []byte {
		v := with(topic, "pad", `""`)
		return []byte(strings.Replace(v, `"pad":"`, `"pad":"`+strings.Repeat("x", n-len(v)), 1))
	}
	for topic, limit := range map[string]int{
		"feedback": MaxValue, "items": MaxValue, "requests": MaxValue, "generated": MaxOutput, "vectors": MaxOutput, "prior": MaxOutput,
	} {
		if _, err := decoders[topic](pad(topic, limit)); err != nil {
			t.Errorf("%s of %d bytes: %v", topic, limit, err)
		}
		_, err := decoders[topic](pad(topic, limit+1))
		if got := reasonOf(t, err); got != ReasonTooLarge {
			t.Errorf("%s of %d bytes: %v", topic, limit+1, err)
		}
	}
}

func TestDimension(t *testing.T) {
	for dim, want := range map[int]Reason{0: "", 3: "", 2: ReasonBadEmbedding, 4: ReasonBadEmbedding} {
		_, err := DecodeItem([]byte("i1"), []byte(itemOK), dim)
		if got := reasonOf(t, err); got != want {
			t.Errorf("dimension %d: %v, want %q", dim, err, want)
		}
	}
}

// The last of two equal names counts, as with other JSON readers; names within nested objects do not.
func TestRepeatedNames(t *testing.T) {
	f, err := ParseFeedback([]byte(strings.Replace(feedbackOK, `{`, `{"user_id":"first","x":{"user_id":"inner"},`, 1)), recordTime)
	if err != nil || f.UserID != "u1" {
		t.Errorf("user %q, %v", f.UserID, err)
	}
	f, err = ParseFeedback([]byte(with("feedback", "user_id", "-", `user\u005fid`, `"x"`)), recordTime)
	if err == nil {
		t.Errorf("a name that was escaped twice was read: %+v", f)
	}
	escaped := strings.Replace(feedbackOK, `"user_id"`, `"user\u005fid"`, 1)
	if f, err := ParseFeedback([]byte(escaped), recordTime); err != nil || f.UserID != "u1" {
		t.Errorf("an escaped name: user %q, %v", f.UserID, err)
	}
}

func TestRejectionQuotesLittle(t *testing.T) {
	secret := strings.Repeat("s", 10_000)
	for _, v := range []string{with("feedback", "kind", `"`+secret+`"`), with("feedback", "user_id", "["+`"`+secret+`"]`), secret, with("feedback", "occurred_at", `"`+secret+`"`)} {
		_, err := ParseFeedback([]byte(v), recordTime)
		if err == nil || len(err.Error()) > 300 {
			t.Errorf("error of %d bytes: %.80v", len(fmt.Sprint(err)), err)
		}
	}
}

func TestMarshalerIsTheWireForm(t *testing.T) {
	for topic, base := range bases {
		v, err := decoders[topic]([]byte(base))
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal([]any{v})
		if err != nil {
			t.Fatal(err)
		}
		if !valid(topic, b[1:len(b)-1]) {
			t.Errorf("%s marshals to %s", topic, b)
		}
	}
	var back struct{ G Generated }
	if err := json.Unmarshal([]byte(`{"G":`+generated+`}`), &back); err != nil || len(back.G.Embedding) != 2 {
		t.Errorf("unmarshalled %+v, %v", back.G, err)
	}
}
