// Package eval measures how well the service learns: in worlds whose truth is known it runs the real table, the real trainer and
// the real sampler in process, once through the events in order, and scores what people are given against what they truly like.
//
// A [World] is a catalogue, people and the law of their answers; a [Stream] plays it. A [Contestant] answers for people; the
// service ([Rebeca]), the controls that learn nothing and the oracles that know the world are all contestants, scored by one
// yardstick side by side. [Run] leads them through the stream and returns a [Report].
package eval
