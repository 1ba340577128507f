// Package consumer is Kafka in and out: one fetch loop per partition that feeds a [Handler], a relay per partition
// that sends the outbox and trims it after the broker's acknowledgement, and the topics' checks.
//
//	topic ──► Partition.Run ──► Handler.Handle(records, next)     offsets only rise; a gap is an error by name
//	Outbox ──► Relay.Run ──► topics of the roles ──► OnAck, Trim   in order, for ever retried, once by id
//
// It is built on kafka-go's Transport and its protocol messages; the traps of that library which this package codes
// around are listed in DESIGN.md.
package consumer
