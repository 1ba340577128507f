package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"rebeca/consumer"
)

// outputs is what the topic generated holds.
type outputs struct {
	ids       int            // distinct
	duplicate int            // records whose id was there before
	answers   map[string]int // by request id
}

// readOutputs reads the committed records of the topic generated.
func readOutputs(ctx context.Context, broker string) (out outputs, err error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ConsumeTopics("generated"), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return out, err
	}
	defer client.Close()
	left, err := ends(ctx, broker)
	if err != nil {
		return out, err
	}
	seen := map[string]bool{}
	out.answers = map[string]int{}
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return out, fmt.Errorf("reading generated: %w", err)
		}
		for _, r := range fetches.Records() {
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
			if r.Attrs.IsControl() {
				continue
			}
			var g struct {
				ID      string
				Request string `json:"request_id"`
			}
			if err := json.Unmarshal(r.Value, &g); err != nil {
				return out, fmt.Errorf("reading a record of generated: %w", err)
			}
			if seen[g.ID] {
				out.duplicate++
			}
			seen[g.ID] = true
			if g.Request != "" {
				out.answers[g.Request]++
			}
		}
	}
	out.ids = len(seen)
	return out, nil
}

// ends returns the ends of the partitions of generated that hold something.
func ends(ctx context.Context, broker string) (map[int32]int64, error) {
	client, err := consumer.NewClient(consumer.Options{Brokers: []string{broker}, ClientID: "overload"})
	if err != nil {
		return nil, err
	}
	defer client.Close()
	out := map[int32]int64{}
	for p := range int32(partitions) {
		_, end, err := client.Offsets(ctx, "generated", p)
		if err != nil {
			return nil, fmt.Errorf("reading the end of generated[%d]: %w", p, err)
		}
		if end > 0 {
			out[p] = end
		}
	}
	return out, nil
}
