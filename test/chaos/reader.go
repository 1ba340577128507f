package main

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// readLimit bounds one reading of all topics.
const readLimit = time.Minute

// reader reads topics by another client library than the service's, at read_committed, and goes on where it was.
type reader struct {
	broker     string
	partitions int
	next       map[string][]int64 // by topic and partition
}

func newReader(broker string, partitions int) *reader {
	return &reader{broker: broker, partitions: partitions, next: map[string][]int64{}}
}

// read calls fn with every committed record of the topics up to their ends now, in order within a partition.
func (r *reader) read(ctx context.Context, topics []string, fn func(*kgo.Record)) error {
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	from := map[string]map[int32]kgo.Offset{}
	for _, topic := range topics {
		if r.next[topic] == nil {
			r.next[topic] = make([]int64, r.partitions)
		}
		from[topic] = map[int32]kgo.Offset{}
		for p, at := range r.next[topic] {
			from[topic][int32(p)] = kgo.NewOffset().At(at)
		}
	}
	// Markers are records too: without them the end of a transaction would never be reached.
	cl, err := kgo.NewClient(kgo.SeedBrokers(r.broker), direct(r.broker), kgo.ConsumePartitions(from), kgo.KeepControlRecords(),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(100*time.Millisecond))
	if err != nil {
		return err
	}
	defer cl.Close()
	ends, err := stableEnds(ctx, cl, from)
	if err != nil {
		return fmt.Errorf("reading the ends of the topics: %w", err)
	}
	for !r.reached(ends) {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("reading the topics: %w", err)
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			r.next[rec.Topic][rec.Partition] = rec.Offset + 1
			if !rec.Attrs.IsControl() {
				fn(rec)
			}
		})
	}
	return nil
}

func (r *reader) reached(ends map[string]map[int32]int64) bool {
	for topic, partitions := range ends {
		for p, end := range partitions {
			if r.next[topic][p] < end {
				return false
			}
		}
	}
	return true
}

// stableEnds returns the offsets behind the last committed records.
func stableEnds(ctx context.Context, cl *kgo.Client, of map[string]map[int32]kgo.Offset) (map[string]map[int32]int64, error) {
	request := kmsg.NewPtrListOffsetsRequest()
	request.IsolationLevel = 1
	for topic, partitions := range of {
		t := kmsg.NewListOffsetsRequestTopic()
		t.Topic = topic
		for p := range partitions {
			part := kmsg.NewListOffsetsRequestTopicPartition()
			part.Partition, part.Timestamp = p, -1
			t.Partitions = append(t.Partitions, part)
		}
		request.Topics = append(request.Topics, t)
	}
	response, err := request.RequestWith(ctx, cl)
	if err != nil {
		return nil, err
	}
	ends := map[string]map[int32]int64{}
	for _, t := range response.Topics {
		ends[t.Topic] = map[int32]int64{}
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return nil, fmt.Errorf("%s[%d]: %w", t.Topic, p.Partition, err)
			}
			ends[t.Topic][p.Partition] = p.Offset
		}
	}
	return ends, nil
}
