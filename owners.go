package rebeca

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"rebeca/consumer"
	"rebeca/table"
)

// Owner is who owns a partition, as it stands in the group.
type Owner struct {
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"` // folded up to, as of the last commit
	State     string `json:"state"`  // "" while nobody owns it
	Epoch     uint64 `json:"epoch"`
	Since     string `json:"since,omitempty"` // RFC 3339
	Heard     string `json:"heard,omitempty"` // of the last commit, by the owner's clock
	Released  bool   `json:"released"`        // the owner ended in an orderly way
	URL       string `json:"url,omitempty"`
}

// String is one line for people.
func (o Owner) String() string {
	if o.State == "" {
		return fmt.Sprintf("%d: nobody's", o.Partition)
	}
	text := fmt.Sprintf("%d: state %s since %s, epoch %d, folded to %d, last heard of %s", o.Partition, o.State, o.Since, o.Epoch, o.Offset, o.Heard)
	if o.URL != "" {
		text += " at " + o.URL
	}
	if o.Released {
		text += ", released"
	}
	return text
}

// Owners reads who owns each partition of the configured topics.
func Owners(ctx context.Context, c Config) ([]Owner, error) {
	client, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	all := Config{Kafka: c.Kafka}.static()
	committed, err := client.Committed(ctx, c.groupName(), c.Kafka.Topics.Feedback, all)
	if err != nil {
		return nil, err
	}
	out := make([]Owner, len(all))
	for i, p := range all {
		out[i] = ownerOf(p, committed[p])
	}
	return out, nil
}

func ownerOf(partition int32, at consumer.Committed) Owner {
	o := Owner{Partition: partition, Offset: at.Offset}
	if c := at.Claim; c != nil {
		o.State, o.Epoch, o.Released, o.URL = c.State, c.Epoch, c.Released, c.URL
		o.Since, o.Heard = c.Since.Format(time.RFC3339), c.At.Format(time.RFC3339)
	}
	return o
}

// dial returns a client to brokers that answer; the caller closes it.
func (c Config) dial(ctx context.Context) (*consumer.Client, error) {
	client, err := c.NewClient()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := client.Ping(ctx); err != nil {
		client.Close()
		return nil, fmt.Errorf("kafka.brokers: %w", err)
	}
	return client, nil
}

// TakePartitions claims partitions for the configuration's state, which is
// made when there is none, with an epoch above that of whoever owns them: for
// an owner that is lost. The state folds them from its own offset, or from the
// beginning of the log. It says what it did, or would do in a dry run. The
// service on the state must be stopped: [table.ErrLocked].
func TakePartitions(ctx context.Context, c Config, partitions Partitions, dryRun bool) (done []string, err error) {
	client, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	committed, err := client.Committed(ctx, c.groupName(), c.Kafka.Topics.Feedback, partitions)
	if err != nil {
		return nil, err
	}
	if dryRun {
		for _, p := range partitions {
			done = append(done, "take "+ownerOf(p, committed[p]).String())
		}
		return done, nil
	}
	t, err := c.openState(c.TableOptions(slog.New(slog.DiscardHandler)))
	if errors.Is(err, table.ErrLocked) {
		return nil, fmt.Errorf("%w: stop the service first", err)
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	for _, p := range partitions {
		line, err := take(t, p, committed[p].Claim, c.Kafka.Topics.Items)
		if err != nil {
			return done, err
		}
		done = append(done, line)
	}
	return done, nil
}

func take(t *table.Table, partition int32, found *consumer.Claim, items string) (string, error) {
	local, _, err := t.ClaimOf(partition)
	if err != nil {
		return "", err
	}
	if local.Partial {
		return "", fmt.Errorf("partition %d was restored by halves: run `rebeca snapshot restore` again", partition)
	}
	epoch := max(local.Epoch, 1)
	if found != nil { // another state's, or of a copy of this directory that was opened later
		epoch = max(local.Epoch, found.Epoch+1)
	}
	if err := t.Claim(partition, table.Claim{Epoch: epoch, Since: time.Now()}, items); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d: claimed by state %s with epoch %d", partition, t.State(), epoch), nil
}
