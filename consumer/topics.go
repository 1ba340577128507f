package consumer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
)

// topicTimeout bounds how long new topics may be without leaders.
const topicTimeout = 30 * time.Second

// Topic is a topic as it must be.
type Topic struct {
	Name       string
	Partitions int
	Compacted  bool              // cleanup.policy compact, else delete
	Config     map[string]string // further settings for a new topic; those of one that exists are its operator's
}

func (t Topic) policy() string {
	if t.Compacted {
		return "compact"
	}
	return "delete"
}

// found is a topic as it is.
type found struct {
	partitions int
	policy     string
	led        bool // every partition has a leader
}

// EnsureTopics makes the topics that are missing and returns their names once every partition has a leader. If one that
// exists has another number of partitions or another clean-up policy, it makes none and says which, what it has and
// what is wanted. replication 0 leaves the factor to the broker. Calling it again changes nothing.
func EnsureTopics(ctx context.Context, c *Client, want []Topic, replication int) (created []string, err error) {
	have, err := c.describeTopics(ctx, want)
	if err != nil {
		return nil, err
	}
	if err := compare(want, have, false); err != nil {
		return nil, err
	}
	var missing []kafka.TopicConfig
	for _, t := range want {
		if _, ok := have[t.Name]; !ok {
			missing = append(missing, t.creation(replication))
		}
	}
	if len(missing) > 0 {
		if created, err = c.createTopics(ctx, missing); err != nil {
			return created, err
		}
	}
	return created, c.awaitTopics(ctx, want)
}

// CheckTopics returns nil if all topics exist as they must be, else one line that names each that does not.
func CheckTopics(ctx context.Context, c *Client, want []Topic) error {
	have, err := c.describeTopics(ctx, want)
	if err != nil {
		return err
	}
	return compare(want, have, true)
}

func (t Topic) creation(replication int) kafka.TopicConfig {
	if replication <= 0 {
		replication = -1
	}
	config := kafka.TopicConfig{Topic: t.Name, NumPartitions: t.Partitions, ReplicationFactor: replication}
	config.ConfigEntries = append(config.ConfigEntries, kafka.ConfigEntry{ConfigName: "cleanup.policy", ConfigValue: t.policy()})
	for _, name := range slices.Sorted(maps.Keys(t.Config)) {
		config.ConfigEntries = append(config.ConfigEntries, kafka.ConfigEntry{ConfigName: name, ConfigValue: t.Config[name]})
	}
	return config
}

// compare lists what differs in one line.
func compare(want []Topic, have map[string]found, all bool) error {
	var wrong, missing []string
	for _, t := range want {
		h, ok := have[t.Name]
		switch {
		case !ok:
			missing = append(missing, t.Name)
		case h.partitions != t.Partitions:
			wrong = append(wrong, fmt.Sprintf("topic %s has %d partitions, want %d", t.Name, h.partitions, t.Partitions))
		case h.policy != t.policy():
			wrong = append(wrong, fmt.Sprintf("topic %s has cleanup.policy %s, want %s", t.Name, h.policy, t.policy()))
		}
	}
	if all && len(missing) > 0 {
		wrong = append(wrong, fmt.Sprintf("missing topics: %s (rebeca topics create makes them)", strings.Join(missing, ", ")))
	}
	if len(wrong) == 0 {
		return nil
	}
	return errors.New(strings.Join(wrong, "; "))
}

// describeTopics asks the broker, not the cache, for the topics; those that do not exist are left out.
func (c *Client) describeTopics(ctx context.Context, topics []Topic) (map[string]found, error) {
	have, err := c.layoutOf(ctx, topics)
	if err != nil || len(have) == 0 {
		return have, err
	}
	req := &kafka.DescribeConfigsRequest{}
	for name := range have {
		req.Resources = append(req.Resources, kafka.DescribeConfigRequestResource{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: name, ConfigNames: []string{"cleanup.policy"},
		})
	}
	resp, err := c.kafka.DescribeConfigs(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("reading the topics' settings: %w", c.explain(err))
	}
	for _, r := range resp.Resources {
		if r.Error != nil {
			return nil, fmt.Errorf("reading the settings of topic %s: %w", r.ResourceName, r.Error)
		}
		for _, e := range r.ConfigEntries {
			if e.ConfigName == "cleanup.policy" {
				f := have[r.ResourceName]
				f.policy = e.ConfigValue
				have[r.ResourceName] = f
			}
		}
	}
	return have, nil
}

func (c *Client) layoutOf(ctx context.Context, topics []Topic) (map[string]found, error) {
	names := make([]string, len(topics))
	for i, t := range topics {
		names[i] = t.Name
	}
	c.refresh(true) // the Transport answers from its cache
	resp, err := c.kafka.Metadata(ctx, &kafka.MetadataRequest{Topics: names})
	if err != nil {
		return nil, fmt.Errorf("reading the topics' layout: %w", c.explain(err))
	}
	have := map[string]found{}
	for _, t := range resp.Topics {
		if errors.Is(t.Error, kafka.UnknownTopicOrPartition) {
			continue
		}
		if t.Error != nil && !Retriable(t.Error) {
			return nil, fmt.Errorf("reading the layout of topic %s: %w", t.Name, t.Error)
		}
		f := found{partitions: len(t.Partitions), led: t.Error == nil}
		for _, p := range t.Partitions {
			f.led = f.led && p.Error == nil && p.Leader.Host != ""
		}
		have[t.Name] = f
	}
	return have, nil
}

// createTopics leaves a topic that someone else has just made to the check that follows.
func (c *Client) createTopics(ctx context.Context, topics []kafka.TopicConfig) (created []string, err error) {
	resp, err := c.kafka.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: topics})
	if err != nil {
		return nil, fmt.Errorf("making topics: %w", c.explain(err))
	}
	var failed []string
	for _, t := range topics {
		switch err := resp.Errors[t.Topic]; {
		case err == nil:
			created = append(created, t.Topic)
		case !errors.Is(err, kafka.TopicAlreadyExists):
			failed = append(failed, fmt.Sprintf("making topic %s: %v", t.Topic, err))
		}
	}
	if failed != nil {
		return created, errors.New(strings.Join(failed, "; "))
	}
	return created, nil
}

// awaitTopics returns when all topics are as they must be and led.
func (c *Client) awaitTopics(ctx context.Context, want []Topic) error {
	ctx, cancel := context.WithTimeout(ctx, topicTimeout)
	defer cancel()
	for {
		have, err := c.describeTopics(ctx, want)
		if err == nil {
			err = compare(want, have, true)
		}
		led := err == nil
		for _, h := range have {
			led = led && h.led
		}
		if led {
			return nil
		}
		if sleep(ctx, 100*time.Millisecond) != nil {
			if err == nil {
				err = errors.New("partitions without a leader")
			}
			return fmt.Errorf("waiting for the topics: %w", err)
		}
	}
}
