// Package schemas holds the wire records of every topic: Go types, strict decoders with stable reasons for refusal,
// encoders, the JSON Schema files that other languages read, and the few functions that must give the same answer
// everywhere for ever (partitioner, ids, seeds, event hashes).
//
// A decoder is strict on what it reads and deaf to what it does not know: unknown fields are ignored, never an error,
// and field names are case-sensitive. A null counts as absent. Every refusal is a *[Rejection] whose [Reason] is part
// of the contract with producers; it becomes a header of the dead letter and the `reason` of an HTTP answer.
//
// A record on items, feedback or requests may also come as a CloudEvent, see [Open]. What its data says counts before what the envelope
// says, and of the envelope only what is needed is checked, so that no good event is lost for an attribute that nobody reads.
//
// Where the caller has a schema registry, values framed for one are Avro, Protobuf or JSON of the schema that they name, see [Lookup].
// Fields are found by their names. They are written down as the JSON text of the same record, which the one set of rules then judges. Of
// Protobuf, a field without presence that holds its default counts as absent, except within a message. Of Avro, timestamp-millis and
// timestamp-micros are moments.
//
// The package imports nothing else of the module.
package schemas
