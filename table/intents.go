package table

import (
	"cmp"
	"slices"
	"time"

	"rebeca/schemas"
)

// Intent is something still to be generated. It lives from the fold of its cause until its results are in the outbox.
type Intent struct {
	Partition int32
	Seq       uint64 // its name within the partition, from 1, rising
	ID        string // schemas.ID(Source, 0)
	UserID    string
	Trigger   string // schemas.TriggerRequest or schemas.TriggerFeedback
	RequestID string // "" for feedback
	Count     int    // images wanted
	Rating    string
	Seed      *uint64
	Guidance  *float64
	Images    *bool
	After     *schemas.Position
	// Candidates for each image, and whether to explain it; nil: the service's default.
	Candidates *int
	Explain    *bool
	Source     schemas.Source // the record that caused it
	At         time.Time      // Kafka timestamp of the cause, UTC, in milliseconds
}

// waiting is the intents of a partition.
type waiting struct {
	intents  map[uint64]*pending
	feedback map[string][]uint64 // intents of a user that feedback caused
}

type pending struct {
	Intent
	done   int // results in the outbox already
	flying bool
}

func newWaiting() waiting {
	return waiting{intents: map[uint64]*pending{}, feedback: map[string][]uint64{}}
}

// add enters an intent or updates its progress; it reports whether it is new.
func (w *waiting) add(in Intent, done int) bool {
	if p := w.intents[in.Seq]; p != nil {
		p.done = done
		return false
	}
	w.intents[in.Seq] = &pending{Intent: in, done: done}
	if in.Trigger == schemas.TriggerFeedback {
		w.feedback[in.UserID] = append(w.feedback[in.UserID], in.Seq)
	}
	return true
}

func (w *waiting) remove(seq uint64) bool {
	p := w.intents[seq]
	if p == nil {
		return false
	}
	delete(w.intents, seq)
	if p.Trigger != schemas.TriggerFeedback {
		return true
	}
	rest := slices.DeleteFunc(w.feedback[p.UserID], func(s uint64) bool { return s == seq })
	if len(rest) == 0 {
		delete(w.feedback, p.UserID)
	} else {
		w.feedback[p.UserID] = rest
	}
	return true
}

// firstRequest returns the lowest offset of a topic whose request waits.
func (w *waiting) firstRequest(topic string) (offset int64, some bool) {
	for _, p := range w.intents {
		if p.Source.Topic == topic && (!some || p.Source.Offset < offset) {
			offset, some = p.Source.Offset, true
		}
	}
	return offset, some
}

// superseded returns the intents of a user that newer feedback replaces: those that feedback caused and nobody works on.
func (w *waiting) superseded(user string) []uint64 {
	var out []uint64
	for _, seq := range w.feedback[user] {
		if !w.intents[seq].flying {
			out = append(out, seq)
		}
	}
	return out
}

// of returns all intents of a user.
func (w *waiting) of(user string) []uint64 {
	var out []uint64
	for seq, p := range w.intents {
		if p.UserID == user {
			out = append(out, seq)
		}
	}
	slices.Sort(out)
	return out
}

// Intents returns the intents of a partition that wait, by sequence number. Those begun are left out; after Open none is.
func (t *Table) Intents(partition int32) ([]Intent, error) { return t.intentsOf(partition, false) }

// Begun returns the intents of a partition that are being worked on, by sequence number.
func (t *Table) Begun(partition int32) ([]Intent, error) { return t.intentsOf(partition, true) }

func (t *Table) intentsOf(partition int32, flying bool) ([]Intent, error) {
	p, err := t.part(partition)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []Intent
	for _, w := range p.waiting.intents {
		if w.flying == flying {
			out = append(out, w.Intent)
		}
	}
	slices.SortFunc(out, func(a, b Intent) int { return cmp.Compare(a.Seq, b.Seq) })
	return out, nil
}

// Begin says that intents are being worked on: newer feedback no longer supersedes them. It lasts until Complete, Release or the end of
// the process. Unknown ones (superseded, forgotten) are passed over; their completion will be dropped.
func (t *Table) Begin(partition int32, seqs []uint64) { t.fly(partition, seqs, true) }

// Release gives intents back after an attempt that failed.
func (t *Table) Release(partition int32, seqs []uint64) { t.fly(partition, seqs, false) }

func (t *Table) fly(partition int32, seqs []uint64, flying bool) {
	p, err := t.part(partition)
	if err != nil {
		panic("table: " + err.Error())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, seq := range seqs {
		if w := p.waiting.intents[seq]; w != nil {
			w.flying = flying
		}
	}
}

// Depths returns how many intents and how many messages are there, over all partitions.
func (t *Table) Depths() (intents, messages int) {
	for _, p := range t.partitions {
		intents += int(p.intents.Load())
		messages += int(p.messages.Load())
	}
	return intents, messages
}
