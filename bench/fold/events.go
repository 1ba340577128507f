package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"rebeca/consumer"
	"rebeca/internal/figures"
	"rebeca/internal/meter"
	"rebeca/schemas"
)

const (
	partitions = 4
	items      = 50_000
	// resent is how many events come a second time, one in so many, within the next nearby events.
	resent = 100
	nearby = 200

	feedbackTopic = "feedback"
	crowdTopic    = "crowd"
)

// source makes events of skewed users: JSON of about 200 bytes with fields that the fold has no use for, as events have.
type source struct {
	rng      *rand.Rand
	users    *rand.Zipf
	items    *rand.Zipf
	everyone int // users below it come first, one event each, in their order
	n        int
	recent   []message // what may be sent again
	// distinct events made, and those sent again
	distinct, again int
}

type message struct {
	partition int32
	consumer.Message
}

func newSource(seed uint64, users, everyone int) *source {
	rng := rand.New(rand.NewPCG(seed, 1))
	return &source{
		rng: rng, users: rand.NewZipf(rng, 1.1, 50, uint64(users-1)), items: rand.NewZipf(rng, 1.1, 500, items-1), everyone: everyone,
	}
}

var kinds = []string{"rating", "rating", "rating", "rating", "like", "like", "click", "view", "skip", "dislike"}

// next returns the next event as of a moment.
func (s *source) next(now time.Time) message {
	if len(s.recent) == nearby && s.rng.IntN(resent) == 0 {
		s.again++
		m := s.recent[s.rng.IntN(nearby)]
		m.Time = now
		return m
	}
	user := int(s.users.Uint64())
	if s.n < s.everyone {
		user = s.n
	}
	s.n++
	s.distinct++
	m := s.event(fmt.Sprintf("user-%07d", user), now)
	if len(s.recent) < nearby {
		s.recent = append(s.recent, m)
	} else {
		s.recent[s.n%nearby] = m
	}
	return m
}

func (s *source) event(user string, now time.Time) message {
	kind, value := kinds[s.rng.IntN(len(kinds))], ""
	switch kind {
	case "rating":
		value = fmt.Sprintf(`,"value":%d`, 1+s.rng.IntN(5))
	case "view":
		value = fmt.Sprintf(`,"value":%.1f`, 40*s.rng.Float64())
	}
	text := fmt.Appendf(nil, `{"event_id":"%08x-%04x-7%03x-a%03x-%012x","user_id":%q,"item_id":"item-%06d","kind":%q%s,"occurred_at":%q,"source":"app","session":"%08x"}`,
		uint32(now.Unix()), s.rng.IntN(1<<16), s.rng.IntN(1<<12), s.rng.IntN(1<<12), s.rng.Int64N(1<<48), user, s.items.Uint64(), kind, value,
		now.UTC().Format("2006-01-02T15:04:05.000Z"), s.rng.Uint32())
	return message{schemas.Partition([]byte(user), partitions), consumer.Message{Key: []byte(user), Value: text, Time: now}}
}

// produce makes the topics and fills the log of the comparison.
func (b *bench) produce() (figures.Figures, error) {
	s := newSource(1, b.users, 0)
	if err := b.newTopics(feedbackTopic); err != nil {
		return nil, err
	}
	bytes, rate, err := b.fill(feedbackTopic, s, b.events)
	if err != nil {
		return nil, err
	}
	return figures.Figures{
		"events": float64(b.events), "users": float64(b.users), "distinct_events": float64(s.distinct), "resends": float64(s.again),
		"event_bytes": float64(bytes) / float64(b.events), "partitions": partitions, "produce_events_per_s": rate,
	}, nil
}

// fill appends n events of s to a topic.
func (b *bench) fill(topic string, s *source, n int) (bytes int, rate float64, err error) {
	client, err := consumer.NewClient(consumer.Options{Brokers: []string{b.broker.Address}, ClientID: "bench-fold"})
	if err != nil {
		return 0, 0, err
	}
	defer client.Close()
	show := meter.New(os.Stderr, "events produced", int64(n))
	defer show.Done()
	start, chunk := time.Now(), 20_000
	for done := 0; done < n; done += chunk {
		batches := make([][]consumer.Message, partitions)
		for range min(chunk, n-done) {
			m := s.next(time.Now())
			bytes += len(m.Value)
			batches[m.partition] = append(batches[m.partition], m.Message)
		}
		if err := send(client, topic, batches); err != nil {
			return 0, 0, err
		}
		show.Set(int64(min(done+chunk, n)))
	}
	return bytes, float64(n) / time.Since(start).Seconds(), nil
}

// send appends to all partitions at once and waits for the broker's acknowledgements.
func send(client *consumer.Client, topic string, batches [][]consumer.Message) error {
	group, ctx := errgroup.WithContext(context.Background())
	for p, batch := range batches {
		group.Go(func() error {
			_, err := client.Produce(ctx, topic, int32(p), batch)
			return err
		})
	}
	return group.Wait()
}
