// Package kafka tests the built binary against a real Apache Kafka, with kcat as the producer and the consumer that others would
// use. The tests carry the build tag kafka, since they need Java 17, Maven and kcat; `make test-kafka` runs them.
package kafka
