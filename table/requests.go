package table

import (
	"cmp"
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
// the intents written. Requests that another state has answered (BeginRequests) are only remembered. ErrStale as in Fold.
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

// BeginRequests is the first word on a partition of the requests topic: first is the offset to read next, answered the one below which all
// requests and dead letters were answered and sent by another state that had the partition. What lies between is read for its request ids
// alone, so that none of them is answered under another id later. ErrStale when the topic is followed already.
func (t *Table) BeginRequests(topic string, partition int32, first, answered int64) error {
	p, err := t.part(partition)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	err = t.update(p, func(c *change) error {
		if _, followed, err := readOffset(c.txn, topic, partition); err != nil || followed {
			return cmp.Or(err, ErrStale)
		}
		if answered > first {
			if err := c.set(offsetKey(topic+answeredSuffix, partition), reached{next: answered, last: -1}.encode()); err != nil {
				return err
			}
		}
		return c.set(offsetKey(topic, partition), reached{next: first, last: -1}.encode())
	})
	if err != nil {
		return fmt.Errorf("beginning %s[%d] at %d: %w", topic, partition, first, err)
	}
	return nil
}

// answeredSuffix marks the position below which another state has answered.
const answeredSuffix = "@answered"

// answered returns the offset below which requests are only remembered, and forgets it once it is behind next.
func (c *change) answered(topic string, next int64) (int64, error) {
	r, some, err := readOffset(c.txn, topic+answeredSuffix, c.p.id)
	if err != nil || !some {
		return 0, err
	}
	if next >= r.next {
		err = c.delete(offsetKey(topic+answeredSuffix, c.p.id))
	}
	return r.next, err
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
	answered, err := c.answered(topic, next)
	if err != nil {
		return nil, err
	}
	var out []Intent
	for i := range asked {
		a := &asked[i]
		if a.Offset < answered {
			if a.Request != nil && !c.p.askedBeforeForget(a) {
				if _, err := c.asked(a.Request.UserID, a.Request.RequestID); err != nil {
					return nil, fmt.Errorf("record at %d: %w", a.Offset, err)
				}
			}
			continue
		}
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
		RequestID: r.RequestID, Count: r.Count, Rating: r.Rating, Seed: r.Seed, Guidance: r.Guidance, Images: r.Images, After: r.After, Candidates: r.Candidates, Explain: r.Explain,
		Source: source, At: a.Time.UTC().Truncate(time.Millisecond),
	}
	return in, true, c.admit(in, 0)
}
