//go:build kafka

package kafka

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// record is one line of what kcat -J prints.
type record struct {
	Topic     string   `json:"topic"`
	Partition int32    `json:"partition"`
	Offset    int64    `json:"offset"`
	Key       string   `json:"key"`
	Payload   string   `json:"payload"`
	Headers   []string `json:"headers"` // name, value, name, value …
}

// header returns the value of a header, empty when there is none.
func (r record) header(name string) string {
	for i := 0; i+1 < len(r.Headers); i += 2 {
		if r.Headers[i] == name {
			return r.Headers[i+1]
		}
	}
	return ""
}

// message is one record for kcat to produce.
type message struct {
	key   string
	value string // without a tab and a newline
}

// produce is send for tests that cannot go on without it.
func (b *broker) produce(t *testing.T, topic string, messages []message) {
	t.Helper()
	if err := b.send(topic, messages); err != nil {
		t.Fatal(err)
	}
}

// send writes messages in their order with kcat, keyed and partitioned as the README says, and waits for all acknowledgements.
func (b *broker) send(topic string, messages []message) error {
	var lines bytes.Buffer
	for _, m := range messages {
		fmt.Fprintf(&lines, "%s\t%s\n", m.key, m.value)
	}
	cmd := exec.Command("kcat", "-P", "-b", b.Address, "-t", topic, "-K", "\t",
		"-X", "topic.partitioner=murmur2_random", "-X", "topic.acks=all", "-X", "enable.idempotence=true")
	cmd.Stdin = &lines
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kcat -P -t %s: %w\n%s", topic, err, said)
	}
	return nil
}

// consume reads a topic from its beginning to its present end with kcat, committed records only.
func (b *broker) consume(t *testing.T, topic string) []record {
	t.Helper()
	cmd := exec.Command("kcat", "-C", "-b", b.Address, "-t", topic, "-o", "beginning", "-e", "-J",
		"-X", "isolation.level=read_committed")
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("kcat -C -t %s: %v\n%s", topic, err, said.String())
	}
	var records []record
	for decoder := json.NewDecoder(bytes.NewReader(out)); decoder.More(); {
		var r record
		if err := decoder.Decode(&r); err != nil {
			t.Fatalf("reading what kcat printed of %s: %v", topic, err)
		}
		records = append(records, r)
	}
	return records
}
