package rebeca

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rebeca/consumer"
	"rebeca/schemas"
	"rebeca/table"
)

// Forgotten says where the record stands that forgets a user, as JSON.
type Forgotten struct {
	UserID    string `json:"user_id"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    *int64 `json:"offset"` // null in a dry run
	Folded    bool   `json:"folded"` // the state is known to have folded it
}

// ErrUserID means that no user can have the id.
var ErrUserID = errors.New("no user can have this id")

// PlanForget returns where the record that forgets a user goes.
func PlanForget(c Config, user string) (Forgotten, error) {
	if user == "" || len(user) > schemas.MaxID {
		return Forgotten{}, fmt.Errorf("%w: it has %d bytes, 1 to %d are possible", ErrUserID, len(user), schemas.MaxID)
	}
	return Forgotten{
		UserID: user, Topic: c.Kafka.Topics.Feedback, Partition: schemas.Partition([]byte(user), c.Kafka.Partitions),
	}, nil
}

// Forget writes the null record on the user's key: whoever folds the log, now
// or in a later replay, forgets the user there.
func Forget(ctx context.Context, client *consumer.Client, c Config, user string) (Forgotten, error) {
	f, err := PlanForget(c, user)
	if err != nil {
		return f, err
	}
	offset, err := client.Produce(ctx, f.Topic, f.Partition, []consumer.Message{{Key: []byte(user), Time: time.Now()}})
	if err != nil {
		return f, fmt.Errorf("forgetting %q: %w", user, err)
	}
	f.Offset = &offset
	return f, nil
}

// ErrNobodyFolds means that no service runs on the state.
var ErrNobodyFolds = errors.New("no service runs on this state")

// forgetPoll is how often a running service is asked how far it is.
const forgetPoll = 200 * time.Millisecond

// AwaitFold waits until the state has folded the record that forgets a user.
// It asks the service that runs on the state; where none does and the state
// is not that far, it returns [ErrNobodyFolds] at once. ctx bounds the wait.
func AwaitFold(ctx context.Context, c Config, f *Forgotten, log *slog.Logger) error {
	for {
		next, running, err := foldedUpTo(ctx, c, f, log)
		if err != nil {
			return fmt.Errorf("waiting for the fold: %w", err)
		}
		if next > *f.Offset {
			f.Folded = true
			return nil
		}
		if !running {
			return fmt.Errorf("waiting for the fold: %w: the next one that is started forgets the user", ErrNobodyFolds)
		}
		select {
		case <-time.After(forgetPoll):
		case <-ctx.Done():
			return fmt.Errorf("waiting for the fold: %s[%d] is folded up to %d, the record is at %d: %w", f.Topic, f.Partition, next, *f.Offset, ctx.Err())
		}
	}
}

// foldedUpTo returns the next offset of the user's partition.
func foldedUpTo(ctx context.Context, c Config, f *Forgotten, log *slog.Logger) (next int64, running bool, err error) {
	t, err := c.OpenTable(log)
	switch {
	case errors.Is(err, ErrNoState):
		return 0, false, nil
	case errors.Is(err, table.ErrLocked):
		var out bytes.Buffer
		if err := InspectRunning(ctx, c, "offsets", &out); err != nil {
			return 0, true, err
		}
		next, err = offsetOf(&out, f)
		return next, true, err
	case err != nil:
		return 0, false, err
	}
	defer t.Close()
	next, _, _, err = t.Offset(f.Topic, f.Partition)
	return next, false, err
}

func offsetOf(lines *bytes.Buffer, f *Forgotten) (int64, error) {
	for s := bufio.NewScanner(lines); s.Scan(); {
		var o InspectedOffset
		if err := json.Unmarshal(s.Bytes(), &o); err != nil {
			return 0, fmt.Errorf("reading the running service's answer: %w", err)
		}
		if o.Topic == f.Topic && o.Partition == f.Partition {
			return o.Next, nil
		}
	}
	return 0, nil
}

// eraseForgotten cleans the state's files of forgotten users, now and then.
// It is one run at a time and done again where it was stopped.
func (s *Service) eraseForgotten(ctx context.Context) error {
	period := s.config.State.EraseEvery
	if period == 0 {
		return nil
	}
	return every(ctx, period, func() {
		if s.table.ErasePending() == 0 || s.guard.room(s.table.Size()) != nil {
			return // a rewrite needs room for a second copy
		}
		start := time.Now()
		switch done, err := s.table.Erase(ctx); {
		case ctx.Err() != nil:
		case err != nil:
			s.log.Warn("cleaning the state's files of forgotten users; trying again", "err", err)
		default:
			s.log.Info("cleaned the state's files of forgotten users", "users", done.Users, "pending", done.Pending, "took", time.Since(start))
		}
	})
}

// erasureGauge is the number of users whose erasure is pending.
func (s *Service) erasureGauge() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "rebeca_erase_pending", Help: "Forgotten users that the state's files may still hold something of.",
	}, func() float64 { return float64(s.table.ErasePending()) })
}
