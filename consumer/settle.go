package consumer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rebeca/table"
)

// settle reads what the output topics hold behind the last acknowledged record that the outbox knows of, so that nothing is sent that is
// there: at the start (a crash between acknowledgement and trim, a restored snapshot) and after a request whose answer did not come.
// Vectors are left out: their topic is compacted and the last record of a user wins.
func (r *Relay) settle(ctx context.Context) error {
	for _, role := range []string{table.RoleGenerated, table.RoleDeadletter} {
		topic, ok := r.Topics[role]
		if !ok {
			continue
		}
		if err := r.readBack(ctx, role, topic); err != nil {
			return err
		}
	}
	r.settled = true
	return nil
}

// readBack hands the records of a topic from the stored position to its present end to the outbox.
func (r *Relay) readBack(ctx context.Context, role, topic string) error {
	from, _, stored, err := r.Outbox.Offset(topic, r.Partition)
	if err != nil {
		return fmt.Errorf("reading how far %s[%d] is known: %w", topic, r.Partition, err)
	}
	first, end, err := r.bounds(ctx, topic)
	if err != nil {
		return err
	}
	if from > end {
		r.Logger.Warn("output topic was truncated or made anew", "topic", topic, "partition", r.Partition, "known", from, "end", end)
	}
	if !stored || from < first || from > end {
		from = first
	}
	b := back{relay: r, role: role, end: end}
	if from == end {
		return b.note(nil, end)
	}
	r.Logger.Info("reading what an output topic holds already", "topic", topic, "partition", r.Partition, "from", from, "end", end)
	ctx, b.reached = context.WithCancel(ctx)
	defer b.reached()
	p := Partition{Client: r.Client, Topic: topic, ID: r.Partition, Start: from, Handler: &b, Logger: r.Logger}
	err = p.Run(ctx)
	var gap *GapError
	switch {
	case errors.As(err, &gap): // retention has moved the first record meanwhile
		return errAgain
	case err != nil || b.done:
		return err
	}
	return ctx.Err()
}

// bounds asks for the first offset and the end of a topic until a broker answers.
func (r *Relay) bounds(ctx context.Context, topic string) (first, end int64, err error) {
	for wait := backoffMin; ; wait = min(2*wait, backoffMax) {
		first, end, err := r.Client.Offsets(ctx, topic, r.Partition)
		if err == nil {
			return first, end, nil
		}
		if ctx.Err() == nil {
			r.heard(err)
		}
		if err := sleep(ctx, wait); err != nil {
			return 0, 0, err
		}
	}
}

// back is the handler that reads a topic back until its end.
type back struct {
	relay   *Relay
	role    string
	end     int64
	reached context.CancelFunc
	done    bool
}

// Handle implements [Handler].
func (b *back) Handle(_ context.Context, records []Record, next int64) error {
	found := make([]table.Message, len(records))
	for i, r := range records {
		found[i] = table.Message{Role: b.role, Key: r.Key, Value: r.Value, Headers: r.Headers}
	}
	if err := b.note(found, next); err != nil {
		return err
	}
	if b.done = next >= b.end; b.done {
		b.reached()
	}
	return nil
}

// note tells the outbox what was found below next, and whoever waits for it of what was thought to be unsent.
func (b *back) note(found []table.Message, next int64) error {
	r := b.relay
	at := table.Position{Topic: r.Topics[b.role], Partition: r.Partition, Next: next}
	there, err := r.Outbox.Sent(r.Partition, found, at)
	if err != nil {
		return err
	}
	if len(there) > 0 && r.OnAck != nil {
		r.OnAck(there, time.Now())
	}
	return nil
}
