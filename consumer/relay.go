package consumer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"rebeca/schemas"
	"rebeca/table"
)

const (
	relayBatch = 500
	// relayIdle is when a relay looks at the outbox although nobody notified it.
	relayIdle = time.Second
)

// Outbox is where a relay takes messages from. *table.Table is one.
type Outbox interface {
	Outbox(partition int32, after uint64, limit int) ([]table.Outgoing, error)
	Trim(partition int32, out []table.Outgoing, behind table.Position) error
	Notify(partition int32) <-chan struct{}
	// Offset returns the position behind the last acknowledged record of an output topic; ok is false before the first.
	Offset(topic string, partition int32) (next int64, fingerprint uint64, ok bool, err error)
	// Sent takes in records that an output topic holds below a position and returns those that were still in the outbox.
	Sent(partition int32, found []table.Message, behind table.Position) (trimmed []table.Outgoing, err error)
}

// Relay sends the outbox of one partition, each message to the same partition of its role's topic: keys and partitioner
// are the same on all of them. Within a topic messages leave in the order of the outbox. Set the fields, then Run once.
type Relay struct {
	Client    *Client
	Outbox    Outbox
	Partition int32
	Topics    map[string]string                 // by role
	OnAck     func([]table.Outgoing, time.Time) // called after the broker's acknowledgement, before the trim; may be nil
	Logger    *slog.Logger                      // nil discards

	settled bool          // what the topics hold is known; Run's own
	wait    time.Duration // before the next attempt; Run's own

	inHand   atomic.Int64
	retries  atomic.Uint64
	tooLarge atomic.Uint64
	dropped  atomic.Uint64

	mu   sync.Mutex
	lost error // guarded by mu; why the broker does not take messages, nil while it does
}

// RelayStats counts what became of messages since Run began.
type RelayStats struct {
	Depth    int    // messages read from the outbox and not yet acknowledged
	Retries  uint64 // batches sent again
	TooLarge uint64 // messages that their topic refused for their size
	Dropped  uint64 // of those, the ones that the dead letters refused too
}

// Run sends until ctx ends, which returns nil, or the outbox fails, which returns its error. Before it sends anything, and
// after every request whose outcome is in doubt, it reads what the topics of generated records and dead letters hold
// behind the last acknowledged one, and does not send that again. A broker that is away is waited for. A message that is
// too large for its topic goes to the dead letters with its reason, and is dropped and logged if it is too large for
// those as well: it never holds up others.
func (r *Relay) Run(ctx context.Context) error {
	if r.Logger == nil {
		r.Logger = slog.New(slog.DiscardHandler)
	}
	notify := r.Outbox.Notify(r.Partition)
	idle := time.NewTicker(relayIdle)
	defer idle.Stop()
	for {
		if err := r.drain(ctx); err != nil {
			return orEnded(ctx, err)
		}
		select {
		case <-notify:
		case <-idle.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Stats returns the counts so far.
func (r *Relay) Stats() RelayStats {
	return RelayStats{
		Depth: int(r.inHand.Load()), Retries: r.retries.Load(), TooLarge: r.tooLarge.Load(), Dropped: r.dropped.Load(),
	}
}

// Connected reports whether the last batch was taken, and the error if not.
func (r *Relay) Connected() (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lost == nil, r.lost
}

// errAgain says that an attempt failed and was waited out.
var errAgain = errors.New("to be sent again")

// drain sends until the outbox is empty. It reads from the front each time: what was sent is trimmed.
func (r *Relay) drain(ctx context.Context) error {
	for ctx.Err() == nil {
		if !r.settled {
			switch err := r.settle(ctx); {
			case errors.Is(err, errAgain):
				continue
			case err != nil:
				return err
			}
		}
		out, err := r.Outbox.Outbox(r.Partition, 0, relayBatch)
		if err != nil {
			return fmt.Errorf("reading the outbox of partition %d: %w", r.Partition, err)
		}
		if len(out) == 0 {
			// The topics were read to their end and nothing is unsent: what failed before is over.
			r.heard("", nil)
			return nil
		}
		r.inHand.Store(int64(len(out)))
		if err := r.sendAll(ctx, out); err != nil && !errors.Is(err, errAgain) {
			return err
		}
	}
	return ctx.Err()
}

func (r *Relay) sendAll(ctx context.Context, out []table.Outgoing) error {
	for _, group := range byRole(out) {
		if err := r.sendGroup(ctx, group); err != nil {
			return err
		}
	}
	return nil
}

// byRole parts messages by role and keeps their order.
func byRole(out []table.Outgoing) [][]table.Outgoing {
	index, groups := map[string]int{}, [][]table.Outgoing(nil)
	for _, m := range out {
		i, ok := index[m.Role]
		if !ok {
			i = len(groups)
			index[m.Role] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], m)
	}
	return groups
}

// sendGroup sends messages of one role in batches.
func (r *Relay) sendGroup(ctx context.Context, group []table.Outgoing) error {
	topic, ok := r.Topics[group[0].Role]
	if !ok {
		return fmt.Errorf("the outbox of partition %d holds a message of role %q, which has no topic", r.Partition, group[0].Role)
	}
	msgs := make([]Message, len(group))
	for i, m := range group {
		msgs[i] = Message{Key: m.Key, Value: m.Value, Headers: m.Headers}
	}
	for len(msgs) > 0 {
		n := firstBatch(msgs)
		if err := r.send(ctx, topic, msgs[:n], group[:n]); err != nil {
			return err
		}
		msgs, group = msgs[n:], group[n:]
	}
	return nil
}

// send sends one batch. Unless the broker takes it or says that it never will, it returns errAgain: what became of the
// batch is in doubt.
func (r *Relay) send(ctx context.Context, topic string, msgs []Message, out []table.Outgoing) error {
	base, err := r.Client.produceOnce(ctx, topic, r.Partition, msgs)
	if err == nil {
		r.heard(topic, nil)
		r.wait = 0
		return r.acknowledged(out, table.Position{Topic: topic, Partition: r.Partition, Next: base + int64(len(msgs))})
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case tooLarge(err) && len(msgs) > 1:
		// One of them is; halving finds it and keeps the order.
		half := len(msgs) / 2
		if err := r.send(ctx, topic, msgs[:half], out[:half]); err != nil {
			return err
		}
		return r.send(ctx, topic, msgs[half:], out[half:])
	case tooLarge(err):
		return r.giveUp(ctx, topic, msgs[0], out)
	}
	// Errors that no repetition mends, such as a missing right, are waited out too: an operator mends them, and
	// nothing may be lost meanwhile.
	r.heard(topic, r.Client.explain(err))
	r.retries.Add(1)
	r.settled = false
	r.wait = min(max(2*r.wait, backoffMin), backoffMax)
	if err := sleep(ctx, r.wait); err != nil {
		return err
	}
	return errAgain
}

func (r *Relay) acknowledged(out []table.Outgoing, behind table.Position) error {
	if r.OnAck != nil {
		r.OnAck(out, time.Now())
	}
	return r.trim(out, behind)
}

func (r *Relay) trim(out []table.Outgoing, behind table.Position) error {
	if err := r.Outbox.Trim(r.Partition, out, behind); err != nil {
		return fmt.Errorf("trimming the outbox of partition %d: %w", r.Partition, err)
	}
	r.inHand.Add(-int64(len(out)))
	return nil
}

// giveUp sends a message that its topic refused to the dead letters, or drops it if those refused it.
func (r *Relay) giveUp(ctx context.Context, topic string, m Message, out []table.Outgoing) error {
	r.tooLarge.Add(1)
	log := r.Logger.With("topic", topic, "partition", r.Partition, "id", header(m, "ce_id"), "bytes", m.size())
	dead, ok := r.Topics[table.RoleDeadletter]
	if !ok || out[0].Role == table.RoleDeadletter || topic == dead {
		r.dropped.Add(1)
		log.Error("message is too large for its topic and is dropped; raise the topic's max.message.bytes")
		return r.trim(out, table.Position{})
	}
	log.Warn("message is too large for its topic and goes to the dead letters; raise the topic's max.message.bytes")
	return r.send(ctx, dead, []Message{buried(m, topic)}, out)
}

// buried is a message as a dead letter.
func buried(m Message, topic string) Message {
	m.Headers = append(m.Headers[:len(m.Headers):len(m.Headers)],
		schemas.Header{Key: table.HeaderReason, Value: []byte(schemas.ReasonTooLarge)},
		schemas.Header{Key: table.HeaderMessage, Value: fmt.Appendf(nil, "%d bytes are too large for topic %s", m.size(), topic)},
		schemas.Header{Key: table.HeaderTopic, Value: []byte(topic)},
	)
	return m
}

func header(m Message, key string) string {
	for _, h := range m.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// heard notes how the last batch went and logs only what changed.
func (r *Relay) heard(topic string, err error) {
	r.mu.Lock()
	changed := (err == nil) != (r.lost == nil)
	r.lost = err
	r.mu.Unlock()
	switch {
	case !changed:
	case err != nil:
		r.Logger.Warn("messages cannot be sent; trying again", "topic", topic, "partition", r.Partition, "err", err)
	default:
		r.Logger.Info("messages are sent again", "topic", topic, "partition", r.Partition)
	}
}
