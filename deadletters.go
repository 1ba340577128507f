package rebeca

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"rebeca/consumer"
	"rebeca/schemas"
	"rebeca/table"
)

// DeadLetters reads the dead-letter topic, beside a service or without one.
type DeadLetters struct {
	Config Config
	Client *consumer.Client
	Filter LetterFilter
}

// LetterFilter chooses dead letters; its zero value chooses all.
type LetterFilter struct {
	Reasons []schemas.Reason // one of these; none: any
	Topic   string           // the source topic's name; "": any
	// Since and Until bound when the dead letter was written, the former
	// included; zero: not.
	Since, Until time.Time
}

// Validate names a reason that there is not.
func (f LetterFilter) Validate() error {
	for _, r := range f.Reasons {
		if !slices.Contains(schemas.Reasons(), r) {
			return fmt.Errorf("%q is none of %v", r, schemas.Reasons())
		}
	}
	return nil
}

// DeadLetter is a record that could not be used, where it is now and where it
// came from.
type DeadLetter struct {
	Partition int32     `json:"partition"` // of the dead-letter topic
	Offset    int64     `json:"offset"`
	Time      time.Time `json:"time"`
	Reason    string    `json:"reason"` // "" for a record that no service of ours wrote
	Message   string    `json:"message"`
	// The record that it was.
	Topic           string `json:"topic"`
	SourcePartition int32  `json:"source_partition"`
	SourceOffset    int64  `json:"source_offset"`
	Key             string `json:"key"`
	Bytes           int    `json:"bytes"`    // of the value
	Attempts        int    `json:"attempts"` // how often it has been redriven

	Record consumer.Record `json:"-"` // as it is on the dead-letter topic
	ours   bool            // the headers are whole
}

// letter reads a record of the dead-letter topic. Headers that are not ours
// leave their fields zero.
func letter(r consumer.Record) DeadLetter {
	l := DeadLetter{
		Partition: r.Partition, Offset: r.Offset, Time: r.Time.UTC(), Key: string(r.Key), Bytes: len(r.Value), Attempts: attempts(r), Record: r,
	}
	l.Reason, l.Message, l.Topic = header(r, table.HeaderReason), header(r, table.HeaderMessage), header(r, table.HeaderTopic)
	partition, perr := strconv.ParseInt(header(r, table.HeaderPartition), 10, 32)
	offset, oerr := strconv.ParseInt(header(r, table.HeaderOffset), 10, 64)
	if l.ours = l.Reason != "" && l.Topic != "" && perr == nil && oerr == nil; l.ours {
		l.SourcePartition, l.SourceOffset = int32(partition), offset
	}
	return l
}

func header(r consumer.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

func (f LetterFilter) has(l DeadLetter) bool {
	return (len(f.Reasons) == 0 || slices.Contains(f.Reasons, schemas.Reason(l.Reason))) &&
		(f.Topic == "" || f.Topic == l.Topic) &&
		(f.Since.IsZero() || !l.Time.Before(f.Since)) && (f.Until.IsZero() || l.Time.Before(f.Until))
}

// Each calls fn for the dead letters that the filter chooses, of those that are
// there at the call: by partition, then offset. It ends with fn's error.
func (d *DeadLetters) Each(ctx context.Context, fn func(DeadLetter) error) error {
	topic, err := d.topic(ctx)
	if err != nil {
		return err
	}
	for p := range int32(d.Config.Kafka.Partitions) {
		_, end, err := d.Client.Offsets(ctx, topic, p)
		if err != nil {
			return err
		}
		part := consumer.Partition{Client: d.Client, Topic: topic, ID: p, Start: consumer.Earliest}
		part.Handler = handler(func(_ context.Context, records []consumer.Record, _ int64) error {
			for _, r := range records {
				if l := letter(r); d.Filter.has(l) {
					if err := fn(l); err != nil {
						return letterError{err}
					}
				}
			}
			return nil
		})
		if err := part.RunTo(ctx, end); err != nil {
			var own letterError
			if errors.As(err, &own) {
				return own.error
			}
			return fmt.Errorf("reading the dead letters: %w", err)
		}
	}
	return nil
}

// letterError is an error of whoever is handed the letters.
type letterError struct{ error }

// Get returns the dead letter at a place.
func (d *DeadLetters) Get(ctx context.Context, at schemas.Position) (l DeadLetter, err error) {
	topic, err := d.topic(ctx)
	if err != nil {
		return l, err
	}
	if n := d.Config.Kafka.Partitions; at.Partition < 0 || int(at.Partition) >= n {
		return l, fmt.Errorf("%s has no partition %d: they are 0 to %d", topic, at.Partition, n-1)
	}
	first, end, err := d.Client.Offsets(ctx, topic, at.Partition)
	if err != nil {
		return l, err
	}
	if at.Offset < first || at.Offset >= end {
		return l, fmt.Errorf("%s[%d] holds offsets %d to %d, not %d", topic, at.Partition, first, end-1, at.Offset)
	}
	found := false
	part := consumer.Partition{Client: d.Client, Topic: topic, ID: at.Partition, Start: at.Offset}
	part.Handler = handler(func(_ context.Context, records []consumer.Record, _ int64) error {
		for _, r := range records {
			l, found = letter(r), true
		}
		return nil
	})
	if err := part.RunTo(ctx, at.Offset+1); err != nil {
		return l, fmt.Errorf("reading a dead letter: %w", err)
	}
	if !found {
		return l, fmt.Errorf("%s[%d] holds no record at %d: a transaction's marker stands there", topic, at.Partition, at.Offset)
	}
	return l, nil
}

// topic returns the dead-letter topic's name once it is as it must be.
func (d *DeadLetters) topic(ctx context.Context) (string, error) {
	name := d.Config.Kafka.Topics.DeadLetter
	i := slices.IndexFunc(d.Config.WantedTopics(), func(t consumer.Topic) bool { return t.Name == name })
	return name, consumer.CheckTopics(ctx, d.Client, d.Config.WantedTopics()[i:i+1])
}

// maxRedrives is how often a record may come back before its dead letters are
// of class [schemas.ReasonRedriven], which stay where they are.
const maxRedrives = 3

// attempts reads how often a record was redriven; what is not a number counts as one attempt, so
// that nothing that was redriven passes for new.
func attempts(r consumer.Record) int {
	text := header(r, table.HeaderAttempt)
	if text == "" {
		return 0
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 1
	}
	return n
}

// again marks the dead letter of a record that was redriven; dead may be nil.
func again(r consumer.Record, dead *schemas.Rejection) *schemas.Rejection {
	n := attempts(r)
	if dead == nil || n == 0 {
		return dead
	}
	marked := *dead
	if marked.Attempts = n; n >= maxRedrives {
		marked.Reason, marked.Message = schemas.ReasonRedriven, fmt.Sprintf("after %d attempts: %s", n, dead.Error())
	}
	return &marked
}
