package consumer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
)

// Claim says which state owns a partition. It stands as JSON in the metadata of the partition's committed offset, where every worker of
// the group can read it and only a member, or anybody while there is none, can write it.
type Claim struct {
	State    string    `json:"state"`         // id of the state directory
	Epoch    uint64    `json:"epoch"`         // rises with every change of the owner
	Writer   uint64    `json:"writer"`        // how often the state was opened: of two copies of a directory the later opened one has the higher
	Since    time.Time `json:"since"`         // when the state took the partition
	At       time.Time `json:"at"`            // by the owner's clock; renewed with every commit
	Released bool      `json:"released"`      // the owner ended in an orderly way
	URL      string    `json:"url,omitempty"` // where the owner is to be asked
}

// Committed is a partition's place in a group: the offset to be read next, and the claim to the partition; a nil claim leaves the
// metadata empty.
type Committed struct {
	Offset int64
	Claim  *Claim
}

// Membership is the right by which offsets are committed. The zero Generation and Member stand for nobody's: the group must have no members.
type Membership struct {
	Group      string
	Generation int32 // of a member
	Member     string
}

// decodeClaim returns nil for metadata that is not a claim: another tool has committed there, which claims nothing.
func decodeClaim(metadata string) *Claim {
	var c Claim
	if err := json.Unmarshal([]byte(metadata), &c); err != nil || c.State == "" {
		return nil
	}
	return &c
}

// Committed returns what stands in a group for partitions of a topic. Those without an offset are left out.
func (c *Client) Committed(ctx context.Context, group, topic string, partitions []int32) (map[int32]Committed, error) {
	ids := make([]int, len(partitions))
	for i, p := range partitions {
		ids[i] = int(p)
	}
	resp, err := c.kafka.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: ids}})
	if err == nil {
		err = resp.Error
	}
	if errors.Is(err, kafka.GroupIdNotFound) {
		return nil, nil // nothing was ever committed; Apache Kafka answers without an error
	}
	if err != nil {
		c.refresh(false)
		return nil, fmt.Errorf("reading the offsets of group %s: %w", group, c.explain(err))
	}
	out := map[int32]Committed{}
	for _, p := range resp.Topics[topic] {
		if p.Error != nil {
			return nil, fmt.Errorf("reading the offset of %s[%d] of group %s: %w", topic, p.Partition, group, p.Error)
		}
		if p.CommittedOffset >= 0 {
			out[int32(p.Partition)] = Committed{Offset: p.CommittedOffset, Claim: decodeClaim(p.Metadata)}
		}
	}
	return out, nil
}

// Commit writes offsets, and claims with them. Partitions are written one by one: an error speaks of the first that failed, others may have
// been written. A group with members refuses whoever is not one of them.
func (c *Client) Commit(ctx context.Context, as Membership, offsets map[string]map[int32]Committed) error {
	topics := make(map[string][]kafka.OffsetCommit, len(offsets))
	for topic, partitions := range offsets {
		for p, at := range partitions {
			o := kafka.OffsetCommit{Partition: int(p), Offset: at.Offset}
			if at.Claim != nil {
				b, err := json.Marshal(at.Claim)
				if err != nil {
					panic("consumer: encoding a claim: " + err.Error())
				}
				o.Metadata = string(b)
			}
			topics[topic] = append(topics[topic], o)
		}
	}
	req := &kafka.OffsetCommitRequest{GroupID: as.Group, GenerationID: -1, Topics: topics}
	if as.Member != "" {
		req.GenerationID, req.MemberID = int(as.Generation), as.Member
	}
	resp, err := c.kafka.OffsetCommit(ctx, req)
	if err != nil {
		c.refresh(false)
		return fmt.Errorf("committing offsets of group %s: %w", as.Group, c.explain(err))
	}
	for topic, partitions := range resp.Topics {
		for _, p := range partitions {
			if p.Error != nil {
				return fmt.Errorf("committing the offset of %s[%d] for group %s: %w", topic, p.Partition, as.Group, explainCommit(p.Error))
			}
		}
	}
	return nil
}

// explainCommit says what the broker's refusal means to somebody who is not a member.
func explainCommit(err error) error {
	if errors.Is(err, kafka.UnknownMemberId) {
		return fmt.Errorf("the group has members, and this process is none of them: static partitions and members cannot share a group (%w)", err)
	}
	return err
}
