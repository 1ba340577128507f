package main

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// person is what was sent of a user: what their row must say.
type person struct{ events, positives, negatives int64 }

// sender makes events and counts them, apart from all that the service does.
type sender struct {
	client *kgo.Client
	rng    *rand.Rand
	users  *rand.Zipf
	items  int
	people map[string]person
	noise  []byte // padding is cut from it, and does not compress
	pad    int
	sent   int64
	asked  int // requests
	failed chan error
}

func newSender(p plan, broker string) (*sender, error) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(broker), kgo.ProducerLinger(5*time.Millisecond), kgo.MaxBufferedRecords(20_000),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), // murmur2, as Java's
	)
	if err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(7, 7))
	noise := make([]byte, 1<<20)
	for i := range noise {
		noise[i] = 'a' + byte(rng.IntN(26))
	}
	return &sender{
		client: client, rng: rng, noise: noise, pad: p.padding, users: rand.NewZipf(rng, 1.1, 200, uint64(p.users-1)), items: p.items, people: map[string]person{},
		failed: make(chan error, 1),
	}, nil
}

func (s *sender) send(ctx context.Context, topic, key string, value []byte) {
	s.client.Produce(ctx, &kgo.Record{Topic: topic, Key: []byte(key), Value: value}, func(_ *kgo.Record, err error) {
		if err != nil {
			select {
			case s.failed <- err:
			default:
			}
		}
	})
}

// catalogue sends items around four corners.
func (s *sender) catalogue(ctx context.Context) {
	for i := range s.items {
		raw := make([]byte, 0, 4*dim)
		for d := range dim {
			v := float32(s.rng.NormFloat64() * .3)
			if d == i%4 {
				v += 2
			}
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
		}
		id := fmt.Sprintf("item-%d", i)
		s.send(ctx, "items", id, fmt.Appendf(nil, `{"item_id":%q,"embedding_f32":%q}`, id, base64.StdEncoding.EncodeToString(raw)))
	}
}

// event sends one event of somebody.
func (s *sender) event(ctx context.Context, now time.Time) {
	user, item := s.users.Uint64(), s.rng.IntN(s.items)
	name := fmt.Sprintf("user-%d", user)
	p := s.people[name]
	kind := "skip"
	p.events++
	if int(user)%4 == item%4 {
		kind = "like"
		p.positives++
	} else {
		p.negatives++
	}
	s.people[name] = p
	s.sent++
	at := s.rng.IntN(len(s.noise) - s.pad)
	s.send(ctx, "feedback", name, fmt.Appendf(nil, `{"event_id":"e%d","user_id":%q,"item_id":"item-%d","kind":%q,"occurred_at":%q,"padding":%q}`,
		s.sent, name, item, kind, now.UTC().Format(time.RFC3339Nano), s.noise[at:at+s.pad]))
}

// ask requests one image for somebody.
func (s *sender) ask(ctx context.Context) {
	s.asked++
	user := fmt.Sprintf("user-%d", s.users.Uint64())
	s.send(ctx, "requests", user, fmt.Appendf(nil, `{"request_id":"r%d","user_id":%q,"count":1}`, s.asked, user))
}

// flood sends rate events and one request a second.
func (s *sender) flood(ctx context.Context, rate int, d time.Duration) error {
	start, before := time.Now(), s.sent
	asked := s.asked
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for now := start; now.Sub(start) < d; {
		due := int64(now.Sub(start).Seconds() * float64(rate))
		// A machine that stood still does not get it all at once.
		for n := min(due-(s.sent-before), int64(rate/4)); n > 0; n-- {
			s.event(ctx, now)
		}
		if s.asked-asked < int(now.Sub(start).Seconds()) {
			s.ask(ctx)
		}
		select {
		case err := <-s.failed:
			return fmt.Errorf("sending: %w", err)
		case <-ctx.Done():
			return ctx.Err()
		case now = <-tick.C:
		}
	}
	return s.flush(ctx)
}

func (s *sender) flush(ctx context.Context) error {
	if err := s.client.Flush(ctx); err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	select {
	case err := <-s.failed:
		return fmt.Errorf("sending: %w", err)
	default:
		return nil
	}
}
