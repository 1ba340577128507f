package rebeca

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rebeca/consumer"
	"rebeca/schemas"
	"rebeca/table"
)

// Redrive sends dead letters to the topics they came from, with their key and
// into the partition that it belongs to. A letter whose record would be a dead
// letter again stays; so does one that was redriven before, or has come back
// maxRedrives times. Which were sent is remembered in state.dir, so the same call goes
// on after an interruption; a crash between sending and remembering sends one
// batch again, which the fold knows by its event ids.
type Redrive struct {
	DeadLetters                    // their filter chooses, unless At does
	At          []schemas.Position // these letters alone
	// Edit is a command of the shell that gets a value and gives the new one;
	// "" changes nothing. A null value, which forgets a user, is not edited.
	Edit string
	// Force sends what would come back as well, and what was sent before.
	Force bool
	// Skip leaves a letter whose edit fails and goes on, instead of ending there.
	Skip   bool
	DryRun bool
	Tell   func(Redriven) // of every letter, in order within a batch; nil: nobody
}

// Redriven is what became of a dead letter.
type Redriven struct {
	Partition int32  `json:"partition"` // of the dead-letter topic
	Offset    int64  `json:"offset"`
	Reason    string `json:"reason"`
	Topic     string `json:"topic"` // it came from, and goes to
	// Left says why it stays; "" for one that is sent, to the place To, or in a
	// dry run would be.
	Left string            `json:"left,omitempty"`
	To   *schemas.Position `json:"to,omitempty"`
}

// RedriveResult sums a call up.
type RedriveResult struct {
	Redriven int  `json:"redriven"` // or to be, in a dry run
	Left     int  `json:"left"`
	DryRun   bool `json:"dry_run"`
}

// redriveBatch letters, or redriveBytes of them, are sent and remembered together.
const (
	redriveBatch = 500
	redriveBytes = 4 << 20
)

// redriving is a call under way.
type redriving struct {
	*Redrive
	judge  *worker
	before map[string]bool // names of letters that were sent
	batch  []copied
	bytes  int
	res    RedriveResult
}

// copied is a letter and the message that it becomes.
type copied struct {
	letter    DeadLetter
	partition int32
	message   consumer.Message
}

// Run sends the chosen letters.
func (r *Redrive) Run(ctx context.Context) (RedriveResult, error) {
	c := r.Config
	run := redriving{Redrive: r, res: RedriveResult{DryRun: r.DryRun}}
	run.judge = &worker{topics: c.Kafka.Topics, dim: c.Prior.Dim, partitions: c.Kafka.Partitions, decodes: c.Decoder.Manifest != "none"}
	var err error
	if run.judge.registry, err = c.newRegistry(slog.New(slog.DiscardHandler)); err != nil {
		return run.res, err
	}
	if run.before, err = r.remembered(); err != nil {
		return run.res, err
	}
	each := func(l DeadLetter) error { return run.letter(ctx, l) }
	if len(r.At) == 0 {
		err = r.Each(ctx, each)
	}
	for _, at := range r.At {
		var l DeadLetter
		if l, err = r.Get(ctx, at); err == nil {
			err = each(l)
		}
		if err != nil {
			break
		}
	}
	// What came before a letter that failed is sent all the same.
	return run.res, errors.Join(run.send(ctx), err)
}

// letter decides about one letter.
func (r *redriving) letter(ctx context.Context, l DeadLetter) error {
	if why := r.stays(l); why != "" {
		r.leave(l, why)
		return nil
	}
	c, err := r.copy(ctx, l)
	if err != nil {
		err = fmt.Errorf("editing the dead letter %d:%d: %w", l.Partition, l.Offset, err)
		if !r.Skip || ctx.Err() != nil {
			return err
		}
		r.leave(l, err.Error())
		return nil
	}
	dead, err := r.rejects(ctx, c)
	if err != nil {
		return err
	}
	if dead != nil && !r.Force {
		r.leave(l, "would come back: "+dead.Error())
		return nil
	}
	r.batch = append(r.batch, c)
	if r.bytes += len(c.message.Value); len(r.batch) < redriveBatch && r.bytes < redriveBytes {
		return nil
	}
	return r.send(ctx)
}

// stays says why a letter is not to be sent, before it is looked into.
func (r *redriving) stays(l DeadLetter) string {
	t := r.Config.Kafka.Topics
	switch {
	case !l.ours:
		return "its headers do not say where it came from"
	case !slices.Contains([]string{t.Feedback, t.Requests, t.Items}, l.Topic):
		return fmt.Sprintf("topic %s is none that this configuration reads", l.Topic)
	case r.Force:
		return ""
	case l.Topic == t.Feedback && l.Record.Value == nil:
		return "forgets a user, and would now forget what came since as well (--force sends it)"
	case l.Reason == string(schemas.ReasonRedriven) || l.Attempts >= maxRedrives:
		return fmt.Sprintf("has come back %d times (--force sends it)", l.Attempts)
	case r.before[l.name()]:
		return "was redriven before (--force sends it again)"
	}
	return ""
}

// name of a letter for ever: the topic may be made anew, so its time belongs to it.
func (l DeadLetter) name() string {
	return fmt.Sprintf("%d:%d:%d", l.Partition, l.Offset, l.Time.UnixMilli())
}

// copy makes the message that a letter becomes. Headers that are not ours are
// the producer's, and stay.
func (r *redriving) copy(ctx context.Context, l DeadLetter) (c copied, err error) {
	value := l.Record.Value
	if r.Edit != "" && value != nil {
		if value, err = r.edit(ctx, l); err != nil {
			return c, err
		}
		if err := sameIdentity(l.Record.Value, value); err != nil && l.Reason != string(schemas.ReasonBadID) {
			return c, err
		}
	}
	c = copied{letter: l, partition: schemas.Partition(l.Record.Key, r.Config.Kafka.Partitions)}
	c.message = consumer.Message{Key: l.Record.Key, Value: value, Time: time.Now().Truncate(time.Millisecond)}
	for _, h := range l.Record.Headers {
		if !strings.HasPrefix(h.Key, "rebeca-") {
			c.message.Headers = append(c.message.Headers, h)
		}
	}
	c.message.Headers = append(c.message.Headers, schemas.Header{Key: table.HeaderAttempt, Value: fmt.Append(nil, l.Attempts+1)})
	return c, nil
}

// edit runs the command on a letter's value.
func (r *redriving) edit(ctx context.Context, l DeadLetter) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "sh", "-c", r.Edit)
	cmd.WaitDelay = time.Second // for what the shell leaves running
	cmd.Env = append(os.Environ(), "REBECA_REASON="+l.Reason, "REBECA_MESSAGE="+strings.ReplaceAll(l.Message, "\x00", ""),
		"REBECA_TOPIC="+l.Topic, "REBECA_KEY="+strings.ReplaceAll(l.Key, "\x00", ""))
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(l.Record.Value), &out, &errs
	if err := cmd.Run(); err != nil {
		said := strings.Join(strings.Fields(errs.String()), " ")
		return nil, fmt.Errorf("%q: %w: %.500s", r.Edit, err, said)
	}
	if len(bytes.TrimSpace(out.Bytes())) == 0 {
		return nil, fmt.Errorf("%q gave no value", r.Edit)
	}
	return out.Bytes(), nil
}

// sameIdentity refuses an edit that makes another event of one that could be
// told before: sent twice, it would count twice.
func sameIdentity(old, edited []byte) error {
	var a, b struct {
		EventID   any `json:"event_id"`
		RequestID any `json:"request_id"`
	}
	if json.Unmarshal(old, &a) != nil || json.Unmarshal(edited, &b) != nil {
		return nil
	}
	for _, id := range []struct {
		name     string
		old, new any
	}{{"event_id", a.EventID, b.EventID}, {"request_id", a.RequestID, b.RequestID}} {
		was, ok := id.old.(string)
		if ok && was != "" && len(was) <= schemas.MaxID && id.new != id.old {
			return fmt.Errorf("it changes %s from %q to %v: resends are known by it", id.name, was, id.new)
		}
	}
	return nil
}

// rejects judges a message as the service will.
func (r *redriving) rejects(ctx context.Context, c copied) (*schemas.Rejection, error) {
	record := consumer.Record{
		Topic: c.letter.Topic, Partition: c.partition, Time: c.message.Time, Key: c.message.Key, Value: c.message.Value, Headers: c.message.Headers,
	}
	switch t := r.Config.Kafka.Topics; c.letter.Topic {
	case t.Feedback:
		j, err := judge(ctx, record, r.Config.Kafka.Partitions, r.judge.registry, new(schemas.Feedback))
		return j.Dead, err
	case t.Requests:
		j, err := r.judge.judgeRequest(ctx, record)
		return j.Dead, err
	}
	j, err := r.judge.judgeItem(ctx, record)
	return j.Dead, err
}

func (r *redriving) leave(l DeadLetter, why string) {
	r.res.Left++
	r.tell(l, why, nil)
}

func (r *redriving) tell(l DeadLetter, left string, to *schemas.Position) {
	if r.Tell != nil {
		r.Tell(Redriven{Partition: l.Partition, Offset: l.Offset, Reason: l.Reason, Topic: l.Topic, Left: left, To: to})
	}
}

// send produces the batch, topic by topic and partition by partition, and
// remembers what was acknowledged.
func (r *redriving) send(ctx context.Context) error {
	batch := r.batch
	r.batch, r.bytes = nil, 0
	if r.DryRun {
		for _, c := range batch {
			r.res.Redriven++
			r.tell(c.letter, "", nil)
		}
		return nil
	}
	for len(batch) > 0 {
		topic, partition := batch[0].letter.Topic, batch[0].partition
		var rest, part []copied
		var messages []consumer.Message
		for _, c := range batch {
			if c.letter.Topic != topic || c.partition != partition {
				rest = append(rest, c)
				continue
			}
			part, messages = append(part, c), append(messages, c.message)
		}
		offsets, err := r.Client.ProduceEach(ctx, topic, partition, messages)
		if err := errors.Join(r.remember(part[:len(offsets)], offsets), err); err != nil {
			return fmt.Errorf("redriving to %s: %w", topic, err)
		}
		batch = rest
	}
	return nil
}

// redrivenFile remembers in state.dir what was sent, a JSON line each.
const redrivenFile = "redriven.jsonl"

// redrivenLine is a line of it.
type redrivenLine struct {
	Letter string    `json:"letter"` // its name
	Reason string    `json:"reason"`
	Topic  string    `json:"topic"`
	To     string    `json:"to"` // partition/offset
	At     time.Time `json:"at"`
}

func (r *Redrive) remembered() (map[string]bool, error) {
	file := filepath.Join(r.Config.State.Dir, redrivenFile)
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("state.dir: %w", err)
	}
	defer f.Close()
	before := map[string]bool{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var l redrivenLine
		if json.Unmarshal(lines.Bytes(), &l) == nil { // a crash may have cut the last one
			before[l.Letter] = true
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	return before, nil
}

// remember appends what was sent, durably, and tells of it.
func (r *redriving) remember(sent []copied, offsets []int64) error {
	var b []byte
	for i, c := range sent {
		to := schemas.Position{Partition: c.partition, Offset: offsets[i]}
		line, err := json.Marshal(redrivenLine{c.letter.name(), c.letter.Reason, c.letter.Topic, to.String(), time.Now().UTC()})
		if err != nil {
			return err
		}
		b = append(append(b, line...), '\n')
	}
	if err := os.MkdirAll(r.Config.State.Dir, 0o755); err != nil {
		return fmt.Errorf("state.dir: %w", err)
	}
	if err := appendDurably(filepath.Join(r.Config.State.Dir, redrivenFile), b); err != nil {
		return fmt.Errorf("remembering what was redriven: %w", err)
	}
	for i, c := range sent {
		r.res.Redriven++
		r.tell(c.letter, "", &schemas.Position{Partition: c.partition, Offset: offsets[i]})
	}
	return nil
}

// appendDurably appends whole lines, also to one that a crash cut short.
func appendDurably(file string, lines []byte) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	if info, err := f.Stat(); err == nil && info.Size() > 0 {
		var last [1]byte
		if _, err := f.ReadAt(last[:], info.Size()-1); err == nil && last[0] != '\n' {
			lines = append([]byte("\n"), lines...)
		}
	}
	_, err = f.Write(lines)
	return errors.Join(err, f.Sync(), f.Close())
}
