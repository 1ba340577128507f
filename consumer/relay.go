package consumer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
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
// are the same on all of them. It sends in transactions, so a reader at read_committed sees each message once. Within a topic messages
// leave in the order of the outbox. Set the fields, then Run once.
type Relay struct {
	Client    *Client
	Outbox    Outbox
	Partition int32
	// TransactionalID is the same for whoever owns the partition and no other partition's: by it a new owner fences the old one.
	TransactionalID string
	Topics          map[string]string // by role
	// Own is asked before the relay fences whoever sent before it, at the start and after every request whose outcome is in doubt. An
	// error that is [ErrNotOwner] ends Run, any other is waited out. nil means that the partition is always its own.
	Own func(context.Context) error
	// OnAck is called after the commit of a transaction and before the trim, once for each topic in it; may be nil. A reader at
	// read_committed sees the messages a few milliseconds after it.
	OnAck  func([]table.Outgoing, time.Time)
	Logger *slog.Logger // nil discards

	txnTimeout time.Duration // shorter in tests; 0 means txnTimeout

	txn     *txn          // Run's own
	settled bool          // the partition is ours and what its topics hold is known; Run's own
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
	Depth    int    // messages read from the outbox and not yet committed
	Retries  uint64 // transactions whose outcome was in doubt, or that the broker refused, and whose messages were looked at again
	TooLarge uint64 // messages that their topic refused for their size
	Dropped  uint64 // of those, the ones that the dead letters refused too
}

// Run sends until ctx ends, which returns nil, or the outbox fails, which returns its error, or another owner has the partition, which
// returns an error that is [ErrNotOwner]. Before it sends anything, and after every transaction whose outcome is in doubt, it fences
// all that was sent under its transactional id, reads what the topics of generated records and dead letters hold behind the last
// acknowledged one, and does not send that again. A broker that is away is waited for. A message that is too large for its topic goes
// to the dead letters with its reason, and is dropped and logged if it is too large for those as well: it never holds up others.
func (r *Relay) Run(ctx context.Context) error {
	if r.TransactionalID == "" {
		panic("consumer: a relay without a transactional id")
	}
	if r.Logger == nil {
		r.Logger = slog.New(slog.DiscardHandler)
	}
	r.txn = &txn{client: r.Client, id: r.TransactionalID, partition: r.Partition, timeout: cmp.Or(r.txnTimeout, txnTimeout)}
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

// Connected reports whether the last transaction was committed, and the error if not.
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
		empty, err := r.step(ctx)
		switch {
		case errors.Is(err, errAgain):
		case err != nil || empty:
			return err
		}
	}
	return ctx.Err()
}

// step makes sure of the partition, then sends the front of the outbox in one transaction.
func (r *Relay) step(ctx context.Context) (empty bool, err error) {
	if !r.settled || r.txn.spent() {
		if err := r.takeOver(ctx); err != nil {
			return false, err
		}
	}
	out, err := r.Outbox.Outbox(r.Partition, 0, relayBatch)
	if err != nil {
		return false, fmt.Errorf("reading the outbox of partition %d: %w", r.Partition, err)
	}
	if len(out) == 0 {
		// The topics were read to their end and nothing is unsent: what failed before is over.
		r.heard(nil)
		r.inHand.Store(0) // a commit in doubt that took effect leaves a count that nothing else takes down
		return true, nil
	}
	r.inHand.Store(int64(len(out)))
	return false, r.transact(ctx, out)
}

// takeOver makes sure that nobody but this relay sends, now and later, and that what was sent is known.
func (r *Relay) takeOver(ctx context.Context) error {
	r.settled = false
	if r.Own != nil {
		if err := r.Own(ctx); err != nil {
			return r.waitOut(ctx, fmt.Errorf("asking who owns partition %d: %w", r.Partition, err))
		}
	}
	var err error
	if r.Own == nil { // the epoch is all that tells of another owner
		err = r.txn.superseded(ctx, slices.Collect(maps.Values(r.Topics)))
	}
	if err == nil {
		err = r.txn.open(ctx)
	}
	if err != nil {
		return r.waitOut(ctx, err)
	}
	return r.settle(ctx)
}

// waitOut waits before the next attempt and returns errAgain, unless nothing may follow. Errors that no repetition mends, such as a
// missing right, are waited out too: an operator mends them, and nothing may be lost meanwhile.
func (r *Relay) waitOut(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	// A newer epoch is doubt where Own can be asked: a broker that was killed gives one too.
	var fenced *FencedError
	if errors.Is(err, ErrNotOwner) && (r.Own == nil || !errors.As(err, &fenced)) {
		return err
	}
	r.heard(r.Client.explain(err))
	r.wait = min(max(2*r.wait, backoffMin), backoffMax)
	if err := sleep(ctx, r.wait); err != nil {
		return err
	}
	return errAgain
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

// heard notes how the last transaction went and logs only what changed.
func (r *Relay) heard(err error) {
	r.mu.Lock()
	changed := (err == nil) != (r.lost == nil)
	r.lost = err
	r.mu.Unlock()
	switch {
	case !changed:
	case err != nil:
		r.Logger.Warn("messages cannot be sent; trying again", "partition", r.Partition, "err", err)
	default:
		r.Logger.Info("messages are sent again", "partition", r.Partition)
	}
}
