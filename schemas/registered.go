package schemas

import (
	"encoding/binary"
	"fmt"
)

// Types of schemas, as registries name them; an empty one is Avro.
const (
	TypeAvro     = "AVRO"
	TypeProtobuf = "PROTOBUF"
	TypeJSON     = "JSON"
)

// Definition is a schema as a registry holds it.
type Definition struct {
	Type string
	Text string
	// References are the schemas that the text names, and those that they name, each before who needs it.
	References []Reference
}

// Reference is the text of a schema under the name that others know it by: an Avro full name, the path of a Protobuf import.
type Reference struct{ Name, Text string }

// Schema reads the payloads of one registered schema. It is safe for concurrent use.
type Schema struct {
	// read returns the payload as the JSON text of the same record. Errors are *Rejection.
	read func(payload []byte) ([]byte, error)
}

// Lookup returns the schema that a registry knows by an id. A *[Rejection] says that there is none, or none that can be used; any other
// error, that this could not be found out, and [Open] returns it as it is.
type Lookup func(id uint32) (*Schema, error)

// Compile makes a definition ready to read by. Errors are *[Rejection] of [ReasonBadSchema].
func Compile(d Definition) (*Schema, error) {
	var s Schema
	var err error
	switch d.Type {
	case TypeAvro, "":
		s.read, err = compileAvro(d)
	case TypeProtobuf:
		s.read, err = compileProtobuf(d)
	case TypeJSON:
		s.read = func(payload []byte) ([]byte, error) { return payload, nil }
	default:
		err = fmt.Errorf("its type %.64q is none of %s, %s, %s", d.Type, TypeAvro, TypeProtobuf, TypeJSON)
	}
	if err != nil {
		return nil, reject(ReasonBadSchema, "%.300s", oneLine(err.Error()))
	}
	return &s, nil
}

// magic begins a value in the wire format of Confluent's serializers: it, the schema's id (u32 big-endian), the payload.
const magic = 0

// framed reports whether a value is in that format: JSON never begins so.
func framed(value []byte) bool { return len(value) > 0 && value[0] == magic }

// unframe returns a framed value as JSON text.
func unframe(value []byte, lookup Lookup) ([]byte, error) {
	if lookup == nil {
		return nil, reject(ReasonBadJSON, "value begins with byte 0, as framed Avro and Protobuf do: they are read where registry.url is set")
	}
	if len(value) > MaxValue {
		return nil, reject(ReasonTooLarge, "value of %d bytes exceeds %d", len(value), MaxValue)
	}
	if len(value) < 5 {
		return nil, reject(ReasonBadEncoding, "a framed value of %d bytes holds no schema id", len(value))
	}
	schema, err := lookup(binary.BigEndian.Uint32(value[1:]))
	if err != nil {
		return nil, err
	}
	return schema.read(value[5:])
}

// Frame returns a payload in the wire format. A Protobuf payload begins with its message's indexes; the first message of a file is one
// byte 0.
func Frame(id uint32, payload []byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{magic}, id)
	return append(b, payload...)
}
