package consumer

import (
	"context"
	"fmt"
	"time"

	"rebeca/table"
)

// transaction is what one transaction of a relay holds.
type transaction struct {
	relay    *Relay
	landed   []landed
	tooLarge uint64 // messages that their topic refused
	dropped  uint64 // of those, what the dead letters refused too
}

// landed are messages of the outbox and the position behind them in the topic that took them; the zero position where none did.
type landed struct {
	out    []table.Outgoing
	behind table.Position
}

// transact sends messages in one transaction, tells of them once it is committed, and trims them. After any other end than a commit it
// returns errAgain, having waited: what became of the messages is in doubt.
func (r *Relay) transact(ctx context.Context, out []table.Outgoing) error {
	groups := byRole(out)
	topics := make([]string, len(groups))
	for i, g := range groups {
		topic, ok := r.Topics[g[0].Role]
		if !ok {
			return fmt.Errorf("the outbox of partition %d holds a message of role %q, which has no topic", r.Partition, g[0].Role)
		}
		topics[i] = topic
	}
	t := &transaction{relay: r}
	err := r.txn.add(ctx, topics...)
	for i := 0; err == nil && i < len(groups); i++ {
		err = t.sendGroup(ctx, topics[i], groups[i])
	}
	if err == nil {
		err = r.txn.commit(ctx)
	}
	if err != nil {
		r.settled = false
		r.retries.Add(1)
		return r.waitOut(ctx, err)
	}
	r.heard(nil)
	r.wait = 0
	return t.committed()
}

// sendGroup sends messages of one role in batches.
func (t *transaction) sendGroup(ctx context.Context, topic string, group []table.Outgoing) error {
	msgs := make([]Message, len(group))
	for i, m := range group {
		msgs[i] = Message{Key: m.Key, Value: m.Value, Headers: m.Headers}
	}
	for len(msgs) > 0 {
		n := firstBatch(msgs)
		if err := t.send(ctx, topic, msgs[:n], group[:n]); err != nil {
			return err
		}
		msgs, group = msgs[n:], group[n:]
	}
	return nil
}

// send sends one batch, or what of it is not too large.
func (t *transaction) send(ctx context.Context, topic string, msgs []Message, out []table.Outgoing) error {
	r := t.relay
	base, err := r.txn.append(ctx, topic, msgs)
	switch {
	case err == nil:
		t.lands(out, table.Position{Topic: topic, Partition: r.Partition, Next: base + int64(len(msgs))})
		return nil
	case !tooLarge(err):
		return err
	case len(msgs) == 1:
		return t.giveUp(ctx, topic, msgs[0], out)
	}
	// One of them is; halving finds it and keeps the order.
	half := len(msgs) / 2
	if err := t.send(ctx, topic, msgs[:half], out[:half]); err != nil {
		return err
	}
	return t.send(ctx, topic, msgs[half:], out[half:])
}

// lands notes what a topic took.
func (t *transaction) lands(out []table.Outgoing, behind table.Position) {
	if n := len(t.landed); n > 0 && t.landed[n-1].behind.Topic == behind.Topic {
		last := &t.landed[n-1]
		last.out, last.behind = append(last.out[:len(last.out):len(last.out)], out...), behind
		return
	}
	t.landed = append(t.landed, landed{out, behind})
}

// giveUp sends a message that its topic refused to the dead letters, or drops it if those refused it.
func (t *transaction) giveUp(ctx context.Context, topic string, m Message, out []table.Outgoing) error {
	r := t.relay
	t.tooLarge++
	log := r.Logger.With("topic", topic, "partition", r.Partition, "id", header(m, "ce_id"), "bytes", m.size())
	dead, ok := r.Topics[table.RoleDeadletter]
	if !ok || out[0].Role == table.RoleDeadletter || topic == dead {
		t.dropped++
		log.Error("message is too large for its topic and is dropped; raise the topic's max.message.bytes")
		t.lands(out, table.Position{})
		return nil
	}
	log.Warn("message is too large for its topic and goes to the dead letters; raise the topic's max.message.bytes")
	if err := r.txn.add(ctx, dead); err != nil {
		return err
	}
	return t.send(ctx, dead, []Message{buried(m, topic)}, out)
}

// committed tells of what was taken and trims the outbox.
func (t *transaction) committed() error {
	r, at := t.relay, time.Now()
	r.tooLarge.Add(t.tooLarge)
	r.dropped.Add(t.dropped)
	for _, l := range t.landed {
		if r.OnAck != nil && l.behind.Topic != "" {
			r.OnAck(l.out, at)
		}
		if err := r.Outbox.Trim(r.Partition, l.out, l.behind); err != nil {
			return fmt.Errorf("trimming the outbox of partition %d: %w", r.Partition, err)
		}
		r.inHand.Add(-int64(len(l.out)))
	}
	return nil
}
