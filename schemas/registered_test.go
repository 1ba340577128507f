package schemas

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/bufbuild/protocompile"
	"github.com/hamba/avro/v2"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"
)

// book is a registry in memory.
type book map[uint32]*Schema

func (b book) lookup(id uint32) (*Schema, error) {
	if s := b[id]; s != nil {
		return s, nil
	}
	return nil, reject(ReasonUnknownSchema, "no schema %d", id)
}

// registered has plain JSON under 1 and the shipped schemas from 10 on: Avro, then Protobuf.
var registered = func() book {
	b := book{1: must(Compile(Definition{Type: TypeJSON}))}
	for i, topic := range inputTopics {
		b[uint32(10+i)] = must(Compile(Definition{Text: shipped(topic + ".avsc")}))
		b[uint32(20+i)] = must(Compile(Definition{Type: TypeProtobuf, Text: shipped(topic + ".proto")}))
	}
	return b
}()

var inputTopics = []string{"feedback", "items", "requests"}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func shipped(name string) string { return string(must(fs.ReadFile(Files, name))) }

func idOf(topic string, first uint32) uint32 {
	for i, name := range inputTopics {
		if name == topic {
			return first + uint32(i)
		}
	}
	panic("no topic " + topic)
}

// members returns the members of a record as an encoder takes them; ok is false where a schema has no room for them.
func members(text string) (m map[string]any, ok bool) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if d.Decode(&m) != nil {
		return nil, false
	}
	return m, true
}

// avroWriter encodes by hamba/avro, which reads nothing in the code under test.
func avroWriter(testing.TB) func(topic, text string) ([]Header, []byte, bool) {
	return func(topic, text string) ([]Header, []byte, bool) {
		m, ok := members(text)
		if !ok {
			return nil, nil, false
		}
		record := map[string]any{"value": nil, "embedding": nil, "embedding_f32": nil, "uri": nil, "attributes": nil, "rating": nil,
			"seed": nil, "guidance": nil, "images": nil, "after": nil, "candidates": nil, "explain": nil}
		for name, v := range m {
			switch name {
			case "occurred_at":
				at := must(time.Parse(time.RFC3339Nano, v.(string)))
				if !at.Truncate(time.Microsecond).Equal(at) {
					return nil, nil, false
				}
				v = at
			case "value", "guidance":
				if v != nil {
					v = must(v.(json.Number).Float64())
				}
			case "count", "candidates":
				v = int(must(v.(json.Number).Int64()))
			case "seed":
				v = must(v.(json.Number).Int64())
			case "embedding_f32":
				v = must(base64.StdEncoding.DecodeString(v.(string)))
			case "embedding":
				var e []float32
				for _, x := range v.([]any) {
					e = append(e, float32(must(x.(json.Number).Float64())))
				}
				v = e
			case "after":
				at := v.(map[string]any)
				v = map[string]any{"rebeca.v1.Position": map[string]any{
					"partition": int(must(at["partition"].(json.Number).Int64())), "offset": must(at["offset"].(json.Number).Int64())}}
			case "attributes":
				return nil, nil, false // the shipped schema has texts alone
			}
			record[name] = v
		}
		b, err := avro.Marshal(avro.MustParse(shipped(topic+".avsc")), record)
		return nil, Frame(idOf(topic, 10), b), err == nil
	}
}

// protobufWriter encodes what protojson reads by the shipped schema.
func protobufWriter(testing.TB) func(topic, text string) ([]Header, []byte, bool) {
	return func(topic, text string) ([]Header, []byte, bool) {
		if strings.Contains(text, `"count":0`) {
			return nil, nil, false // as good as absent
		}
		compiler := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
			Accessor: protocompile.SourceAccessorFromMap(map[string]string{"s.proto": shipped(topic + ".proto")})})}
		m := dynamicpb.NewMessage(must(compiler.Compile(context.Background(), "s.proto"))[0].Messages().Get(0))
		if (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal([]byte(text), m) != nil {
			return nil, nil, false
		}
		return nil, Frame(idOf(topic, 20), append([]byte{0}, must(proto.Marshal(m))...)), true
	}
}

// TestRegistered reads values by schemas of producers' own.
func TestRegistered(t *testing.T) {
	const avroOwn = `{"type":"record","name":"E","fields":[{"name":"junk","type":{"type":"array","items":{"type":"map","values":"bytes"}}},
		{"name":"user_id","type":{"type":"enum","name":"U","symbols":["u1","u2"]}},{"name":"event_id","type":["null","string"]},
		{"name":"occurred_at","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"value","type":["double","null"]},
		{"name":"item_id","type":"string"},{"name":"kind","type":"string"}]}`
	own := avro.MustParse(avroOwn)
	record := func(pairs ...any) []byte {
		m := map[string]any{"junk": []map[string][]byte{{"user_id": {1, 2}}, {}}, "user_id": "u1", "event_id": "e1", "item_id": `a"\` + "é",
			"kind": "view", "occurred_at": recordTime, "value": 2.5}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i].(string)] = pairs[i+1]
		}
		return must(avro.Marshal(own, m))
	}
	book := book{
		1: must(Compile(Definition{Text: avroOwn})),
		2: must(Compile(Definition{Text: `{"type":"record","name":"Z","fields":[{"name":"value","type":{"type":"array","items":"null"}}]}`})),
		6: must(Compile(Definition{Text: `{"type":"record","name":"Z","fields":[{"name":"junk","type":{"type":"array","items":"null"}}]}`})),
		3: must(Compile(Definition{Text: `{"type":"record","name":"R","fields":[{"name":"attributes","type":["null","R"]}]}`})),
		4: must(Compile(Definition{Text: `["Base"]`, References: []Reference{{"Base", `{"type":"record","name":"Base","fields":[{"name":"user_id","type":"string"}]}`}}})),
		5: must(Compile(Definition{Type: TypeProtobuf, Text: `syntax="proto3"; import "base.proto"; message A {} message B { message C { Base kind = 1; google.protobuf.DoubleValue value = 2; string user_id = 3; } } import "google/protobuf/wrappers.proto";`,
			References: []Reference{{"base.proto", `syntax="proto3"; message Base { int64 n = 1; }`}}})),
	}
	for _, c := range []struct {
		name  string
		value []byte
		want  string // JSON, or the reason behind "! "
	}{
		{"own fields", Frame(1, record()), `{"user_id":"u1","event_id":"e1","occurred_at":"2026-03-01T12:00:00Z","value":2.5,"item_id":"a\"\\é","kind":"view"}`},
		{"nulls", Frame(1, record("value", nil, "event_id", nil)), `{"user_id":"u1","event_id":null,"occurred_at":"2026-03-01T12:00:00Z","value":null,"item_id":"a\"\\é","kind":"view"}`},
		{"NaN", Frame(1, record("value", math.NaN())), `{"user_id":"u1","event_id":"e1","occurred_at":"2026-03-01T12:00:00Z","value":1e999,"item_id":"a\"\\é","kind":"view"}`},
		{"control characters", Frame(1, record("kind", "a\n\x01")), `{"user_id":"u1","event_id":"e1","occurred_at":"2026-03-01T12:00:00Z","value":2.5,"item_id":"a\"\\é","kind":"a\u000a\u0001"}`},
		{"not UTF-8", Frame(1, record("kind", "\xff")), "! bad_encoding"},
		{"cut", Frame(1, record()[:9]), "! bad_encoding"},
		{"too long", Frame(1, append(record(), 0)), "! bad_encoding"},
		{"no id", []byte{0, 0, 0}, "! bad_encoding"},
		{"unknown id", Frame(77, record()), "! unknown_schema"},
		{"too large", Frame(1, make([]byte, MaxValue)), "! too_large"},
		{"an array of a billion nulls", Frame(2, []byte{0x80, 0xa8, 0xd6, 0xb9, 0x07, 0}), "! too_large"},
		{"a billion nulls in a field that is passed over", Frame(6, []byte{0x80, 0xa8, 0xd6, 0xb9, 0x07, 0}), "! bad_encoding"},
		{"a count below all counts", Frame(2, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0}), "! bad_encoding"},
		{"a tower of records", Frame(3, bytes.Repeat([]byte{2}, 1<<19)), "! bad_encoding"},
		{"a union of one that is referred to", Frame(4, []byte{0, 4, 'u', '1'}), `{"user_id":"u1"}`},
		{"a nested message, with a reference", Frame(5, []byte{4, 2, 0, 0x0a, 0, 0x12, 0, 0x1a, 1, 'u'}), `{"kind":{"n":0},"value":0,"user_id":"u"}`},
		{"the first message", Frame(5, []byte{0}), `{}`},
		{"no such message", Frame(5, []byte{2, 4}), "! bad_encoding"},
		{"broken tags", Frame(5, []byte{0, 0xff}), "! bad_encoding"},
		{"broken text", Frame(5, []byte{4, 2, 0, 0x1a, 1, 0xff}), "! bad_encoding"},
	} {
		content, err := Open(nil, c.value, book.lookup)
		got := string(content.json)
		if err != nil {
			got = "! " + string(reasonOf(t, err))
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s (%v)", c.name, got, c.want, err)
		}
	}
	if _, err := Open(nil, Frame(1, record()), nil); err == nil || reasonOf(t, err) != ReasonBadJSON || !strings.Contains(err.Error(), "registry.url") {
		t.Errorf("framed and no registry: %v", err)
	}
	down := errors.New("connection refused")
	if _, err := Open(nil, Frame(1, record()), func(uint32) (*Schema, error) { return nil, down }); err != down {
		t.Errorf("a registry that is away: %v", err)
	}
}

func TestCompileRefuses(t *testing.T) {
	for name, d := range map[string]Definition{
		"no Avro": {Text: "{"}, "a string": {Text: `"string"`}, "a union with one": {Text: `["null",{"type":"record","name":"A","fields":[]}]`},
		"an absent reference": {Text: `{"type":"record","name":"A","fields":[{"name":"b","type":"B"}]}`},
		"no Protobuf":         {Type: TypeProtobuf, Text: "message {"}, "no message": {Type: TypeProtobuf, Text: `syntax="proto3";`},
		"an absent import": {Type: TypeProtobuf, Text: `syntax="proto3"; import "x.proto"; message A {}`}, "a type": {Type: "THRIFT"},
	} {
		if _, err := Compile(d); err == nil || reasonOf(t, err) != ReasonBadSchema {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzAvro(f *testing.F)     { fuzzFramed(f, 10) }
func FuzzProtobuf(f *testing.F) { fuzzFramed(f, 20) }

// fuzzFramed holds payloads of the shipped schemas to: no panic, refusals are listed, and what is read is valid JSON. Of Avro, hamba/avro
// must read what we do.
func fuzzFramed(f *testing.F, first uint32) {
	for _, topic := range inputTopics {
		write := avroWriter(f)
		if first == 20 {
			write = protobufWriter(f)
		}
		_, value, ok := write(topic, bases[topic])
		if !ok {
			f.Fatalf("no seed of %s", topic)
		}
		f.Add(idOf(topic, 0), value[5:])
	}
	f.Fuzz(func(t *testing.T, topic uint32, payload []byte) {
		topic %= 3
		c, err := Open(nil, Frame(first+topic, payload), registered.lookup)
		if err != nil {
			reasonOf(t, err)
			return
		}
		if !json.Valid(c.json) {
			t.Fatalf("%q is not JSON", c.json)
		}
		if first == 10 {
			var twin any
			if err := avro.Unmarshal(avro.MustParse(shipped(inputTopics[topic]+".avsc")), payload, &twin); err != nil {
				t.Errorf("hamba/avro does not read %x: %v", payload, err)
			}
		}
		key := []byte("u1")
		for _, err := range []error{second(c.Feedback(key, recordTime)), second(c.Item(key, 0)), second(c.Request(key))} {
			reasonOf(t, err)
		}
	})
}

func second[T any](_ T, err error) error { return err }
