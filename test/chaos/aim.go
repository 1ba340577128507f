package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// aimLimit bounds the wait for a moment that may not come.
const aimLimit = 2 * time.Second

// aim kills a service at a moment that matters on the way of a dead letter or an image: it is folded and not sent, appended and not
// committed, committed and the service does not know it, or has just heard of it.
func (c *chaos) aim(ctx context.Context, n *node) error {
	if !n.ready || !n.up() {
		c.killService(n)
		return nil
	}
	topic, cause := topicDeadLetter, c.stream.poison
	if c.chance(30) {
		topic, cause = topicGenerated, c.stream.delight
	}
	c.calm()
	defer c.calm()
	c.figures["kills_aimed"]++
	switch moment := c.rng.IntN(4); moment {
	case 0:
		// Its fetches are under way and are answered; what it sends after them does not arrive before it is dead.
		c.log("aim at %s: folded and not sent, %s", n.name, topic)
		c.disturb()
		c.tree.proxy.hold(toBroker)
		cause(n.owns[c.rng.IntN(len(n.owns))])
		c.untilUnsent(ctx, n, topic)
	default:
		c.log("aim at %s: moment %d, %s", n.name, moment, topic)
		level := kgo.ReadUncommitted()
		if moment == 2 {
			level = kgo.ReadCommitted()
		}
		w, err := c.watch(ctx, topic, level)
		if err != nil {
			return err
		}
		defer w.Close()
		cause(n.owns[c.rng.IntN(len(n.owns))])
		limited, cancel := context.WithTimeout(ctx, aimLimit)
		defer cancel()
		w.PollRecords(limited, 1)
		if moment == 3 {
			// The answer to the commit is lost.
			c.disturb()
			c.tree.proxy.hold(toService)
			c.sleep(ctx, c.between(20*time.Millisecond, 300*time.Millisecond))
		}
	}
	c.killService(n)
	return nil
}

// untilUnsent waits until something for a topic lies in the service's outbox.
func (c *chaos) untilUnsent(ctx context.Context, n *node, topic string) {
	limited, cancel := context.WithTimeout(ctx, aimLimit)
	defer cancel()
	for limited.Err() == nil {
		body, err := n.get(limited, "/v1/inspect/outbox")
		if err != nil || strings.Contains(string(body), `"kind":"`+topic+`"`) {
			return
		}
		c.sleep(limited, 5*time.Millisecond)
	}
}

// watch reads a topic from its end on.
func (c *chaos) watch(ctx context.Context, topic string, level kgo.IsolationLevel) (*kgo.Client, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.tree.address), direct(c.tree.address), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()), kgo.FetchIsolationLevel(level), kgo.FetchMaxWait(50*time.Millisecond))
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	cl.PollFetches(limited) // finds the end; what it meets there is the stream's
	return cl, nil
}

// poison writes a record that becomes a dead letter, beside the stream.
func (w *stream) poison(partition int32) {
	m := w.memberOf(partition)
	w.send(topicFeedback, partition, m.name, fmt.Appendf(nil, "poison %s-%d", w.run, w.aimed.Add(1)), time.Now())
}

// delight writes an event that asks for an image, beside the stream.
func (w *stream) delight(partition int32) {
	m, now := w.memberOf(partition), time.Now()
	w.send(topicFeedback, partition, m.name, encode(map[string]any{
		"event_id": fmt.Sprintf("%s-a%d", w.run, w.aimed.Add(1)), "user_id": m.name, "item_id": itemName(0), "kind": "like",
		"occurred_at": now.UTC().Format(time.RFC3339Nano),
	}), now)
}

// memberOf returns a user of a partition.
func (w *stream) memberOf(partition int32) *member {
	for _, m := range w.members {
		if m.partition == partition {
			return m
		}
	}
	panic(fmt.Sprintf("chaos: no user is in partition %d", partition))
}
