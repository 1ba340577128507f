package schemas

import "embed"

// Files holds the JSON Schemas (draft 2020-12) of the topics' values: items, feedback, requests, generated, vectors
// and prior, each as <topic>.schema.json. They say all that a value alone can tell; what needs the key, the record's
// timestamp or the service's configuration is checked by the decoders only. Of items, feedback and requests it also holds an Avro schema,
// <topic>.avsc, and a Protobuf schema, <topic>.proto, for producers to register; others with fields of these names are read as well.
// codec.schema.json is that of a decoder's or encoder's manifest, a file.
//
//go:embed *.schema.json *.avsc *.proto
var Files embed.FS
