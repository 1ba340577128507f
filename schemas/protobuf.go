package schemas

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// compileProtobuf compiles the text of a .proto file. Nothing is generated and nothing registered: fields are found by their names.
func compileProtobuf(d Definition) (func([]byte) ([]byte, error), error) {
	const name = "rebeca/registered.proto"
	files := map[string]string{name: d.Text}
	for _, r := range d.References {
		files[r.Name] = r.Text
	}
	compiler := protocompile.Compiler{Resolver: protocompile.WithStandardImports(
		&protocompile.SourceResolver{Accessor: protocompile.SourceAccessorFromMap(files)})}
	compiled, err := compiler.Compile(context.Background(), name)
	if err != nil {
		return nil, fmt.Errorf("compiling the Protobuf schema: %w", err)
	}
	file := compiled[0]
	if file.Messages().Len() == 0 {
		return nil, fmt.Errorf("a Protobuf schema without a message")
	}
	return func(payload []byte) ([]byte, error) { return readProtobuf(file, payload) }, nil
}

func readProtobuf(file protoreflect.FileDescriptor, payload []byte) ([]byte, error) {
	descriptor, payload, err := messageOf(file, payload)
	if err != nil {
		return nil, err
	}
	known, err := knownFields(descriptor, payload)
	if err != nil {
		return nil, err
	}
	m := dynamicpb.NewMessage(descriptor)
	options := proto.UnmarshalOptions{AllowPartial: true, DiscardUnknown: true, RecursionLimit: maxDepth}
	if err := options.Unmarshal(known, m); err != nil {
		return nil, reject(ReasonBadEncoding, "the bytes are not Protobuf of their schema: %.200s", oneLine(err.Error()))
	}
	t := protoText{text{b: make([]byte, 0, 2*len(payload)+64)}}
	if err := t.message(m, true); err != nil {
		return nil, err
	}
	return t.whole()
}

// messageOf reads the indexes that lead to a message in its file, zigzag varints behind their number; no index means the first message.
func messageOf(file protoreflect.FileDescriptor, payload []byte) (protoreflect.MessageDescriptor, []byte, error) {
	next := func() (int, bool) {
		n, size := binary.Varint(payload)
		if size <= 0 || n < 0 || n > maxValues {
			return 0, false
		}
		payload = payload[size:]
		return int(n), true
	}
	depth, ok := next()
	if !ok || depth > maxDepth {
		return nil, nil, reject(ReasonBadEncoding, "no indexes of a Protobuf message")
	}
	if depth == 0 {
		return file.Messages().Get(0), payload, nil
	}
	var found protoreflect.MessageDescriptor
	for among := file.Messages(); depth > 0; depth-- {
		i, ok := next()
		if !ok || i >= among.Len() {
			return nil, nil, reject(ReasonBadEncoding, "the indexes name no message of the Protobuf schema")
		}
		found = among.Get(i)
		among = found.Messages()
	}
	return found, payload, nil
}

// knownFields leaves out the fields that we do not read before any memory is spent on them.
func knownFields(descriptor protoreflect.MessageDescriptor, payload []byte) ([]byte, error) {
	known := make([]byte, 0, len(payload))
	for len(payload) > 0 {
		number, _, n := protowire.ConsumeField(payload)
		if n < 0 {
			return nil, reject(ReasonBadEncoding, "the bytes are not Protobuf: %.200s", oneLine(protowire.ParseError(n).Error()))
		}
		if f := descriptor.Fields().ByNumber(number); f != nil && inputField(string(f.Name())) {
			known = append(known, payload[:n]...)
		}
		payload = payload[n:]
	}
	return known, nil
}

// protoText writes messages as JSON. It is not protojson's mapping: fields keep their names, 64-bit numbers stay numbers.
type protoText struct{ text }

// message writes the fields that are set. Within another message also those of no presence that hold their default: the message is there,
// so partition 0 is meant.
func (t *protoText) message(m protoreflect.Message, outer bool) error {
	fields := m.Descriptor().Fields()
	t.put("{")
	for i := range fields.Len() {
		f := fields.Get(i)
		if !m.Has(f) && (outer || f.HasPresence() || f.Cardinality() == protoreflect.Repeated) {
			continue
		}
		if outer {
			t.field = string(f.Name())
		}
		err := t.key(string(f.Name()))
		if err == nil {
			err = t.value(f, m.Get(f))
		}
		if err != nil {
			return err
		}
	}
	t.put("}")
	return t.fits()
}

func (t *protoText) value(f protoreflect.FieldDescriptor, v protoreflect.Value) error {
	switch {
	case f.IsMap():
		return t.entries(f.MapValue(), v.Map())
	case f.IsList():
		list := v.List()
		t.put("[")
		for i := range list.Len() {
			t.separate()
			if err := t.single(f, list.Get(i)); err != nil {
				return err
			}
		}
		t.put("]")
		return t.fits()
	}
	return t.single(f, v)
}

// entries writes a map, which has no order of its own, in that of its keys.
func (t *protoText) entries(f protoreflect.FieldDescriptor, m protoreflect.Map) error {
	var keys []protoreflect.MapKey
	m.Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
		keys = append(keys, k)
		return true
	})
	slices.SortFunc(keys, func(a, b protoreflect.MapKey) int { return strings.Compare(a.String(), b.String()) })
	t.put("{")
	for _, k := range keys {
		err := t.key(k.String())
		if err == nil {
			err = t.single(f, m.Get(k))
		}
		if err != nil {
			return err
		}
	}
	t.put("}")
	return nil
}

func (t *protoText) single(f protoreflect.FieldDescriptor, v protoreflect.Value) error {
	switch f.Kind() {
	case protoreflect.StringKind:
		return t.string(v.String())
	case protoreflect.BytesKind:
		t.bytes(v.Bytes())
	case protoreflect.BoolKind:
		t.boolean(v.Bool())
	case protoreflect.EnumKind:
		return t.enum(f.Enum(), v.Enum())
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		t.number(v.Float())
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return t.nested(v.Message())
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind, protoreflect.Fixed32Kind, protoreflect.Fixed64Kind:
		t.put(fmt.Sprint(v.Uint()))
	default:
		t.integer(v.Int())
	}
	return nil
}

func (t *protoText) enum(e protoreflect.EnumDescriptor, n protoreflect.EnumNumber) error {
	if known := e.Values().ByNumber(n); known != nil {
		return t.string(string(known.Name()))
	}
	t.integer(int64(n))
	return nil
}

// nested writes Google's own messages as what they stand for.
func (t *protoText) nested(m protoreflect.Message) error {
	name, ours := strings.CutPrefix(string(m.Descriptor().FullName()), "google.protobuf.")
	switch {
	case !ours:
		return t.message(m, false)
	case name != "Value" && name != "ListValue" && strings.HasSuffix(name, "Value"):
		f := m.Descriptor().Fields().ByNumber(1)
		return t.single(f, m.Get(f))
	}
	b, err := protojson.Marshal(m.Interface())
	if err != nil {
		return reject(ReasonBadEncoding, "%s: %.200s", t.field, oneLine(err.Error()))
	}
	t.put(string(b))
	return t.fits()
}
