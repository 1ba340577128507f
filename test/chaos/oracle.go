package main

import (
	"bytes"
	"context"
	"encoding/json"
	"hash/crc32"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// oracle is what the log says must be there: a plain fold, one record after the other, and the outputs as a reader at
// read_committed sees them.
type oracle struct {
	rules      rules
	partitions int
	dim        int
	maxAge     time.Duration // of feedback that asks for an image
	perEvent   int           // images of an event
	log        *reader
	round      int
	moved      bool // a state went on from a snapshot

	people  map[string]*person
	causes  map[source]cause
	open    map[source]bool // requests whose answers are not all seen
	rotten  map[source]letter
	outputs map[string]output
	vectors map[string]*vector // nil: taken back
	letters map[source]letter
	seen    map[source]uint32  // checksums of this round's records, for what the producer was told
	ever    map[[2]string]bool // user and id of all requests
	records int
	events  int     // distinct events that were folded
	faults  []fault // found while reading
}

// cause is an accepted record that may lead to outputs.
type cause struct {
	user, request string
	images        int
	seed          *uint64
	round         int
	repeated      bool // a request whose id was answered already
}

// letter is a dead letter, or what it must be.
type letter struct {
	reason string
	sum    uint32 // of key and value
}

// output is a record of the topic generated.
type output struct {
	ID      string `json:"id"`
	User    string `json:"user_id"`
	Request string `json:"request_id"`
	Trigger string `json:"trigger"`
	Dim     int    `json:"dim"`
	Seed    uint64 `json:"seed"`
	Events  uint64 `json:"events_folded"`
	AsOf    struct {
		Partition int32 `json:"partition"`
		Offset    int64 `json:"offset"`
	} `json:"as_of"`
	Source    source          `json:"source"`
	Embedding json.RawMessage `json:"embedding_f32"`
}

// vector is the last record of a user on the topic vectors.
type vector struct {
	User    string          `json:"user_id"`
	Vector  json.RawMessage `json:"vector_f32"`
	Version string          `json:"prior_version"`
	Events  uint64          `json:"events_folded"`
}

func newOracle(broker string, s settings) *oracle {
	return &oracle{
		rules: s.rules, partitions: s.partitions, dim: s.dim, maxAge: s.maxAge, perEvent: s.perEvent, log: newReader(broker, s.partitions),
		people: map[string]*person{}, causes: map[source]cause{}, open: map[source]bool{}, rotten: map[source]letter{},
		outputs: map[string]output{}, vectors: map[string]*vector{}, letters: map[source]letter{},
		ever: map[[2]string]bool{},
	}
}

// readInputs folds what the input topics hold now. The log must be at rest.
func (o *oracle) readInputs(ctx context.Context) error {
	o.seen = map[source]uint32{}
	return o.log.read(ctx, []string{topicFeedback, topicRequests, topicItems}, func(rec *kgo.Record) {
		r := record{source{rec.Topic, rec.Partition, rec.Offset}, rec.Timestamp, rec.Key, rec.Value}
		o.seen[r.source] = checksum(rec.Key, rec.Value)
		o.records++
		reason := ""
		switch rec.Topic {
		case topicFeedback:
			reason = o.feedback(r)
		case topicRequests:
			reason = o.request(r)
		case topicItems:
			if len(r.key) == 0 {
				reason = "empty_key"
			} else if len(r.value) > 0 {
				reason = judgeItem(r, o.dim)
			}
		}
		if reason != "" {
			o.rotten[r.source] = letter{reason, checksum(r.key, r.value)}
		}
	})
}

func checksum(key, value []byte) uint32 {
	return crc32.Update(crc32.ChecksumIEEE(key), crc32.IEEETable, value)
}

func (o *oracle) person(user string) *person {
	p := o.people[user]
	if p == nil {
		p = &person{}
		o.people[user] = p
	}
	return p
}

func (o *oracle) feedback(r record) (reason string) {
	if reason := misplaced(r, o.partitions); reason != "" {
		return reason
	}
	if r.value == nil {
		o.person(string(r.key)).forget(r.time, o.round)
		return ""
	}
	e, reason := judgeFeedback(r)
	if reason != "" {
		return reason
	}
	p := o.person(e.user)
	if !p.fold(o.rules, e, r.Offset) {
		return ""
	}
	o.events++
	if oldest := time.Now().Add(-o.maxAge); r.time.After(oldest) && e.at.After(oldest) {
		p.lastFresh = &r.source
		o.causes[r.source] = cause{user: e.user, images: o.perEvent, round: o.round}
	}
	return ""
}

func (o *oracle) request(r record) (reason string) {
	if reason := misplaced(r, o.partitions); reason != "" {
		return reason
	}
	w, reason := judgeRequest(r)
	if reason != "" {
		return reason
	}
	p := o.person(w.user)
	again := remember(&p.asked, w.id, o.rules.requests)
	o.causes[r.source] = cause{user: w.user, request: w.id, images: w.count, seed: w.seed, round: o.round, repeated: again}
	// Whether a forget had its turn before an earlier request of this id cannot be told.
	if doubtful := p.forgotten > 0 && o.ever[[2]string{w.user, w.id}]; !again && !doubtful {
		o.open[r.source] = true
	}
	o.ever[[2]string{w.user, w.id}] = true
	return ""
}

// readOutputs takes in what the output topics hold now.
func (o *oracle) readOutputs(ctx context.Context) error {
	return o.log.read(ctx, []string{topicGenerated, topicDeadLetter, topicVectors}, func(rec *kgo.Record) {
		switch rec.Topic {
		case topicGenerated:
			o.generated(rec)
		case topicVectors:
			o.vector(rec)
		case topicDeadLetter:
			o.letter(rec)
		}
	})
}

func (o *oracle) generated(rec *kgo.Record) {
	var g output
	if err := json.Unmarshal(rec.Value, &g); err != nil {
		o.fault(unexpected, "generated[%d] at %d: %v", rec.Partition, rec.Offset, err)
		return
	}
	if first, ok := o.outputs[g.ID]; ok {
		o.fault(duplicate, "id %s of %q stands twice, again in generated[%d] at %d; as of %d, then %d; %+v",
			g.ID, g.User, rec.Partition, rec.Offset, first.AsOf.Offset, g.AsOf.Offset, g.Source)
		return
	}
	embedding := floats(g.Embedding)
	g.Embedding = nil
	o.outputs[g.ID] = g
	if why := o.objection(g, embedding); why != "" {
		o.fault(unexpected, "generated[%d] at %d: %s: %+v", rec.Partition, rec.Offset, why, g)
	}
	if string(rec.Key) != g.User || partitionOf(rec.Key, o.partitions) != rec.Partition || header(rec, "ce_id") != g.ID {
		o.fault(unexpected, "generated[%d] at %d: key %q, ce_id %q: %+v", rec.Partition, rec.Offset, rec.Key, header(rec, "ce_id"), g)
	}
}

// objection says why an output must not be; "" when it may. Its cause has been read: outputs are read after inputs.
func (o *oracle) objection(g output, embedding []float32) string {
	c, ok := o.causes[g.Source]
	switch {
	case !ok:
		return "nothing in the log asks for it"
	case c.repeated && o.person(c.user).forgotten == 0:
		return "its request id was answered before"
	case c.user != g.User || c.request != g.Request || (g.Trigger == "request") != (g.Source.Topic == topicRequests):
		return "it is not what its source asks for"
	case len(embedding) != o.dim || g.Dim != o.dim:
		return "it has another dimension"
	case g.Source.Topic == topicFeedback && g.AsOf.Offset < g.Source.Offset:
		return "it does not know of its cause"
	}
	index := -1
	for k := range c.images {
		if outputID(g.Source, k) == g.ID {
			index = k
		}
	}
	switch {
	case index < 0:
		return "its id is not made from its source"
	case c.seed == nil && g.Seed != seedOf(g.ID), c.seed != nil && index == 0 && g.Seed != *c.seed:
		return "its seed is not made from its id"
	}
	return o.misread(g)
}

// misread says that an output counts events that were not there or leaves out some that it says it knows.
func (o *oracle) misread(g output) string {
	p := o.person(g.User)
	if p.forgotten > 0 {
		return "" // which life it saw cannot be told
	}
	known := uint64(0)
	for _, at := range p.accepted {
		if at <= g.AsOf.Offset {
			known++
		}
	}
	if g.Events < known || g.Events > p.events {
		return "it knows " + strconv.FormatUint(g.Events, 10) + " events of at least " + strconv.FormatUint(known, 10)
	}
	return ""
}

func (o *oracle) vector(rec *kgo.Record) {
	user := string(rec.Key)
	if len(rec.Value) == 0 {
		o.vectors[user] = nil
		return
	}
	v := new(vector)
	if err := json.Unmarshal(rec.Value, v); err != nil || v.User != user || partitionOf(rec.Key, o.partitions) != rec.Partition {
		o.fault(wrongVector, "vectors[%d] at %d is not a vector of %q: %v", rec.Partition, rec.Offset, user, err)
		return
	}
	o.vectors[user] = v
}

func (o *oracle) letter(rec *kgo.Record) {
	partition, err := strconv.ParseInt(header(rec, "rebeca-partition"), 10, 32)
	offset, err2 := strconv.ParseInt(header(rec, "rebeca-offset"), 10, 64)
	from := source{header(rec, "rebeca-topic"), int32(partition), offset}
	got := letter{header(rec, "rebeca-reason"), checksum(rec.Key, rec.Value)}
	want, ok := o.rotten[from]
	switch _, twice := o.letters[from]; {
	case err != nil || err2 != nil || !ok:
		o.fault(wrongLetter, "deadletter[%d] at %d: nothing at %+v is rotten (%s, %.80q)", rec.Partition, rec.Offset, from, got.reason, rec.Value)
	case twice:
		o.fault(wrongLetter, "the dead letter of %+v (%s) stands twice, again in deadletter[%d] at %d", from, got.reason, rec.Partition, rec.Offset)
	case got != want:
		o.fault(wrongLetter, "the dead letter of %+v is %+v, the log says %+v (%.200q)", from, got, want, rec.Value)
	}
	o.letters[from] = got
}

func header(rec *kgo.Record, key string) string {
	for _, h := range rec.Headers {
		if h.Key == key {
			return string(bytes.Clone(h.Value))
		}
	}
	return ""
}
