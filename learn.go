package rebeca

import (
	"context"

	"rebeca/consumer"
	"rebeca/online"
	"rebeca/schemas"
	"rebeca/table"
)

// learner feeds the trainer: it reads feedback by the trainer's own cursor,
// waits until the table has folded what it read, and hands the events over. So
// a restart repeats exactly what the last checkpoint had not seen.
type learner struct {
	partitions int
	rules      table.Rules
	registry   *registry // nil without one
	progress   *progress
	trainer    *online.Trainer
}

// feed is the handler of a feedback partition on the trainer's side.
func (l *learner) feed(partition int32) handler {
	return func(ctx context.Context, records []consumer.Record, next int64) error {
		if err := l.progress.wait(ctx, partition, next); err != nil {
			return err
		}
		examples := make([]online.Example, len(records), len(records)+1)
		for i, r := range records {
			// A record that teaches nothing still moves the cursor.
			examples[i] = online.Example{Partition: partition, Offset: r.Offset, At: r.Time}
			judged, err := judge(ctx, r, l.partitions, l.registry, new(schemas.Feedback))
			if err != nil {
				return err
			}
			if f := judged.Feedback; f != nil {
				examples[i].UserID, examples[i].ItemID = f.UserID, f.ItemID
				examples[i].Class, examples[i].EventHash = l.rules.Classes.Of(*f), schemas.EventHash(f.EventID)
			}
		}
		if n := len(records); n == 0 || records[n-1].Offset < next-1 {
			// Markers and records that are gone lie before next: they move the cursor too.
			examples = append(examples, online.Example{Partition: partition, Offset: next - 1})
		}
		return l.trainer.Push(ctx, examples)
	}
}
