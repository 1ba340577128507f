package table

import (
	"fmt"
	"time"

	"rebeca/schemas"
)

// Asked is one record of the requests topic, judged: exactly one of Request and Dead is set.
type Asked struct {
	Offset     int64
	Time       time.Time // Kafka timestamp
	Key, Value []byte
	Headers    []schemas.Header // the producer's; a dead letter keeps them
	Request    *schemas.Request
	Dead       *schemas.Rejection

	Fingerprint uint64
}

// Accept turns requests into intents, one each, and moves the offset of the topic's partition with them in one transaction (several where
// dead letters exceed one). Requests are never superseded. One whose request id is among the user's last 128 makes no intent. It returns
// the intents written. ErrStale as in Fold.
func (t *Table) Accept(topic string, partition int32, asked []Asked, next int64) ([]Intent, error) {
	p, err := t.part(partition)
	if err == nil {
		err = checkOffsets(asked, next, func(a *Asked) int64 { return a.Offset })
	}
	if err != nil {
		return nil, fmt.Errorf("accepting %s[%d]: %w", topic, partition, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []Intent
	for {
		n := fit(asked, t.budget, func(a *Asked) int64 {
			if a.Dead != nil {
				return buryCost(a.Key, a.Value, a.Headers, a.Dead)
			}
			return 8*maxRequests + 3*int64(len(a.Key)) + 1024
		})
		part, to := asked[:n], next
		if n < len(asked) {
			to = part[n-1].Offset + 1
		}
		var written []Intent
		if err := t.update(p, func(c *change) (err error) {
			written, err = c.accept(topic, part, to)
			return err
		}); err != nil {
			return out, fmt.Errorf("accepting %s[%d]: %w", topic, partition, err)
		}
		out = append(out, written...)
		if asked = asked[n:]; len(asked) == 0 {
			return out, nil
		}
	}
}

func (c *change) accept(topic string, asked []Asked, next int64) ([]Intent, error) {
	first := next
	if len(asked) > 0 {
		first = asked[0].Offset
	}
	last := lastApplied(asked, func(a *Asked) applied { return applied{a.Offset, a.Fingerprint} })
	if err := c.advance(topic, c.p.id, first, next, last); err != nil {
		return nil, err
	}
	var out []Intent
	for i := range asked {
		a := &asked[i]
		source := schemas.Source{Topic: topic, Partition: c.p.id, Offset: a.Offset}
		if a.Dead != nil {
			if err := c.bury(source, a.Key, a.Value, a.Headers, a.Dead); err != nil {
				return nil, err
			}
			continue
		}
		in, ok, err := c.request(source, a)
		if err != nil {
			return nil, fmt.Errorf("record at %d: %w", a.Offset, err)
		}
		if ok {
			out = append(out, in)
		}
	}
	return out, nil
}

func (c *change) request(source schemas.Source, a *Asked) (Intent, bool, error) {
	r := a.Request
	if r == nil || len(r.UserID) > schemas.MaxID || r.Count < 1 {
		panic(fmt.Sprintf("table: request at offset %d was not judged", a.Offset))
	}
	before, err := c.asked(r.UserID, r.RequestID)
	if err != nil || before {
		return Intent{}, false, err
	}
	in := Intent{
		Partition: c.p.id, Seq: c.next(), ID: schemas.ID(source, 0), UserID: r.UserID, Trigger: schemas.TriggerRequest,
		RequestID: r.RequestID, Count: r.Count, Rating: r.Rating, Seed: r.Seed, Guidance: r.Guidance, Images: r.Images, After: r.After,
		Source: source, At: a.Time.UTC().Truncate(time.Millisecond),
	}
	return in, true, c.admit(in, 0)
}
