package table

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"rebeca/schemas"
)

// Record is one record of the feedback topic, judged: exactly one of Feedback, Forget and Dead is set. Key and Value are only read.
type Record struct {
	Offset      int64
	Time        time.Time // Kafka timestamp
	Key, Value  []byte
	Headers     []schemas.Header // the producer's; a dead letter keeps them
	Fingerprint uint64
	Feedback    *schemas.Feedback
	Forget      bool // a null value: forget the user of the key
	Dead        *schemas.Rejection
}

// Batch is a run of one partition of the feedback topic. Every key belongs to the partition.
type Batch struct {
	Topic       string
	Partition   int32
	Records     []Record  // offsets rise
	Next        int64     // offset to read next, above every record's
	FreshAfter  time.Time // records whose Kafka timestamp or occurred_at is older make no intent: imported history makes no images
	IntentCount int       // images wanted per intent; 0 makes none
}

// Folded says what a batch did.
type Folded struct {
	Next         int64 // as stored
	Events       int   // distinct events folded
	Duplicates   int   // resends
	Forgotten    int   // events of forgotten users, dropped
	Dead         int
	Users        []string // users whose row changed and who are still there, each once
	Intents      []Intent // written and waiting
	Superseded   []uint64 // intents of earlier batches that newer feedback replaced, or whose user was forgotten
	DeadByReason map[schemas.Reason]int

	gone []string // users forgotten
}

func (b *Batch) check() error {
	for i := range b.Records {
		r := &b.Records[i]
		if r.Offset > max48 {
			return fmt.Errorf("offset %d exceeds %d", r.Offset, int64(max48))
		}
		if r.Dead != nil || r.Forget {
			continue
		}
		f := r.Feedback
		if f == nil || kindCode(f.Kind) == 0 || len(f.UserID) > schemas.MaxID || len(f.ItemID) > schemas.MaxID {
			panic(fmt.Sprintf("table: record at offset %d was not judged", r.Offset))
		}
	}
	return checkOffsets(b.Records, b.Next, func(r *Record) int64 { return r.Offset })
}

// Fold applies a batch: rows, the next offset, the fingerprint of the last record, intents and dead letters move in one transaction. The
// facts do not depend on how the log is cut into batches. A batch that would exceed what Badger takes (full rows of some 2,000 users at the
// default rules, dead letters of many megabytes) is applied as several, each complete in itself with its own next offset. ErrStale: the
// records, or some of them, have been folded before; nothing was done.
//
// Per user at most one intent that feedback caused waits: the newest cause's. One that was begun stays beside it.
func (t *Table) Fold(b Batch) (Folded, error) {
	p, err := t.part(b.Partition)
	if err == nil {
		err = b.check()
	}
	if err != nil {
		return Folded{}, fmt.Errorf("folding %s[%d]: %w", b.Topic, b.Partition, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	out, err := t.foldPart(p, &b)
	if err == nil && out.Next < b.Next {
		err = t.foldRest(p, b, &out)
	}
	if err != nil {
		return out, fmt.Errorf("folding %s[%d]: %w", b.Topic, b.Partition, err)
	}
	return out, nil
}

// foldRest folds what one transaction did not take of a batch.
func (t *Table) foldRest(p *partition, b Batch, out *Folded) error {
	for out.Next < b.Next {
		b.Records = b.after(out.Next)
		part, err := t.foldPart(p, &b)
		if err != nil {
			return err
		}
		out.merge(&part)
	}
	return nil
}

// after returns the records at or above an offset.
func (b *Batch) after(offset int64) []Record {
	n, _ := slices.BinarySearchFunc(b.Records, offset, func(r Record, o int64) int { return cmp.Compare(r.Offset, o) })
	return b.Records[n:]
}

func firstOffset(b *Batch) int64 {
	if len(b.Records) == 0 {
		return b.Next
	}
	return b.Records[0].Offset
}

// folding is one transaction of Fold.
type folding struct {
	*change
	batch *Batch
	out   *Folded
	users *drafts
	spent int64 // see cost
}

// draft is a user while a batch is folded.
type draft struct {
	user    string
	row     patch
	had     bool    // there is a row in the table
	changed bool    // the table must be written
	counted bool    // the row is in what the transaction takes
	cause   *Record // the newest fresh event
}

// drafts are the users of a transaction by name and in the order of their first record. What a transaction needs bounds them; they are
// kept from one to the next for their memory.
type drafts struct {
	at  map[string]*draft
	all []*draft // the first n are in use
	n   int
}

func newDrafts() drafts { return drafts{at: map[string]*draft{}} }

func (s *drafts) used() []*draft { return s.all[:s.n] }

func (s *drafts) add(user string) *draft {
	if s.n == len(s.all) {
		s.all = append(s.all, &draft{})
	}
	d := s.all[s.n]
	s.n++
	d.user = user
	s.at[user] = d
	return d
}

// clear forgets all users; a draft would hold on to the batch.
func (s *drafts) clear() {
	for _, d := range s.used() {
		*d = draft{}
	}
	clear(s.at)
	s.n = 0
}

// foldPart folds as many records as one transaction takes, one at least.
func (t *Table) foldPart(p *partition, b *Batch) (Folded, error) {
	var out Folded
	err := t.update(p, func(c *change) error {
		out = Folded{}
		at, err := c.position(b.Topic, b.Partition, firstOffset(b))
		if err != nil {
			return err
		}
		f := folding{change: c, batch: b, out: &out, users: &p.drafts}
		defer f.users.clear()
		n, err := f.records(b.Records)
		if err != nil {
			return err
		}
		if out.Next = b.Next; n < len(b.Records) {
			out.Next = b.Records[n-1].Offset + 1
		}
		last := lastApplied(b.Records[:n], func(r *Record) applied { return applied{r.Offset, r.Fingerprint} })
		if err := c.move(b.Topic, b.Partition, at, out.Next, last); err != nil {
			return err
		}
		return f.finish()
	})
	if err != nil {
		return Folded{}, fmt.Errorf("from %d: %w", firstOffset(b), err)
	}
	return out, nil
}

// records folds records until the transaction is full and returns how many. A forget goes alone: it deletes what a user has.
func (f *folding) records(records []Record) (n int, err error) {
	for i := range records {
		r := &records[i]
		forget := r.Forget && r.Dead == nil
		if forget && i > 0 {
			return i, nil
		}
		full, err := f.record(r, i > 0)
		switch {
		case err != nil:
			return 0, fmt.Errorf("record at %d: %w", r.Offset, err)
		case full:
			return i, nil
		case forget:
			return i + 1, nil
		}
	}
	return len(records), nil
}

// record folds one record. full is true when the transaction has no room for it and nothing was done; it is asked for where mayEnd is set.
func (f *folding) record(r *Record, mayEnd bool) (full bool, err error) {
	switch {
	case r.Dead != nil:
		if !f.spend(buryCost(r.Key, r.Value, r.Headers, r.Dead)) && mayEnd {
			return true, nil
		}
		return false, f.deadLetter(r)
	case r.Forget:
		return false, f.forget(r)
	}
	if f.p.wasForgotten(r.Feedback) {
		f.out.Forgotten++
		return false, nil
	}
	d, err := f.draft(r.Feedback.UserID)
	if err != nil {
		return false, err
	}
	if !f.spend(f.cost(d, r)) && mayEnd {
		return true, nil
	}
	f.fold(d, r)
	return false, nil
}

func (f *folding) deadLetter(r *Record) error {
	f.out.Dead++
	if f.out.DeadByReason == nil {
		f.out.DeadByReason = map[schemas.Reason]int{}
	}
	f.out.DeadByReason[r.Dead.Reason]++
	return f.bury(f.source(r), r.Key, r.Value, r.Headers, r.Dead)
}

// fold folds a feedback into its user's row.
func (f *folding) fold(d *draft, r *Record) {
	if !d.row.fold(&f.t.options.Rules, r.Feedback, r.Offset, f.p.items) {
		f.out.Duplicates++
		return
	}
	f.out.Events++
	d.changed = true
	if fresh := f.batch.FreshAfter; !r.Time.Before(fresh) && !r.Feedback.OccurredAt.Before(fresh) {
		d.cause = r
	}
}

func (f *folding) source(r *Record) schemas.Source {
	return schemas.Source{Topic: f.batch.Topic, Partition: f.batch.Partition, Offset: r.Offset}
}

// draft returns the user's draft, read from the table at its first use.
func (f *folding) draft(user string) (*draft, error) {
	if d := f.users.at[user]; d != nil {
		return d, nil
	}
	b, err := f.t.rowValue(f.txn, f.p, user)
	if err != nil {
		return nil, err
	}
	d := f.users.add(user)
	d.had = b != nil
	d.row.open(b)
	return d, nil
}

// stored is a row as a transaction wrote it.
type stored struct {
	user  string
	value []byte
	born  bool // the user's first
}

// finish writes rows and intents.
func (f *folding) finish() error {
	rows := make([]stored, 0, f.users.n)
	f.out.Users = make([]string, 0, f.users.n)
	for _, d := range f.users.used() {
		if !d.changed {
			continue
		}
		value := d.row.value()
		if err := f.set(userKey(prefixRow, f.p.id, d.user), value); err != nil {
			return err
		}
		rows = append(rows, stored{d.user, value, !d.had})
		f.out.Users = append(f.out.Users, d.user)
		if d.cause != nil && f.batch.IntentCount > 0 {
			if err := f.intend(d); err != nil {
				return err
			}
		}
	}
	f.then(func() {
		for _, r := range rows {
			f.p.rows.put(r.user, r.value)
			f.p.stale.mark(r.user)
			if r.born {
				f.t.users.add(r.user)
			}
		}
	})
	return nil
}

// intend writes the intent of a user's newest event in place of the one that waits.
func (f *folding) intend(d *draft) error {
	if err := f.replace(f.p.waiting.superseded(d.user)); err != nil {
		return err
	}
	source := f.source(d.cause)
	in := Intent{
		Partition: f.p.id, Seq: f.next(), ID: schemas.ID(source, 0), UserID: d.user, Trigger: schemas.TriggerFeedback,
		Count: f.batch.IntentCount, Source: source, At: d.cause.Time.UTC().Truncate(time.Millisecond),
	}
	f.out.Intents = append(f.out.Intents, in)
	return f.admit(in, 0)
}

func (f *folding) replace(seqs []uint64) error {
	for _, seq := range seqs {
		if err := f.dismiss(seq); err != nil {
			return err
		}
	}
	f.out.Superseded = append(f.out.Superseded, seqs...)
	return nil
}

// merge adds what a later part of a batch did. An intent of an earlier part that it replaced was never seen by anybody.
func (f *Folded) merge(part *Folded) {
	f.Next = part.Next
	f.Events += part.Events
	f.Duplicates += part.Duplicates
	f.Forgotten += part.Forgotten
	f.Dead += part.Dead
	if f.DeadByReason == nil {
		f.DeadByReason = map[schemas.Reason]int{}
	}
	for reason, n := range part.DeadByReason {
		f.DeadByReason[reason] += n
	}
	changed := make(map[string]bool, len(part.Users))
	for _, user := range append(part.Users, part.gone...) {
		changed[user] = true
	}
	f.Users = slices.DeleteFunc(f.Users, func(u string) bool { return changed[u] })
	f.Users = append(f.Users, part.Users...)
	replaced := make(map[uint64]bool, len(part.Superseded))
	for _, seq := range part.Superseded {
		replaced[seq] = true
	}
	f.Intents = slices.DeleteFunc(f.Intents, func(in Intent) bool {
		unseen := replaced[in.Seq]
		delete(replaced, in.Seq)
		return unseen
	})
	for _, seq := range part.Superseded {
		if replaced[seq] {
			f.Superseded = append(f.Superseded, seq)
		}
	}
	f.Intents = append(f.Intents, part.Intents...)
}
