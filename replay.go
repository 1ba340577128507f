package rebeca

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"rebeca/consumer"
	"rebeca/table"
	"rebeca/web"
)

// Replay folds a part of the log into a state directory of its own, by the
// same code as the service, beside one that may be running: it makes no intents
// and sends nothing, dead letters are only counted. Where it ends is decided when
// it begins. The same call goes on after an interruption; once finished, with
// `latest` as its end, it goes on to the new end.
type Replay struct {
	// Config says where the log is and by which rules it is folded (see
	// [Config.WithRules]).
	Config   Config
	Client   *consumer.Client
	From, To Bound  // of the feedback topic; items are always listed whole
	Into     string // absent, empty, or of the same replay; becomes a state directory
	// Progress is told, from one goroutine, how many offsets this run has
	// passed and how many it will; nil: nobody.
	Progress func(done, total int64)
	Logger   *slog.Logger // required
}

// ReplayPlan is what a replay is to fold.
type ReplayPlan struct {
	Into     string `json:"into"`
	Resumed  bool   `json:"resumed"`  // of an earlier run's state
	Finished bool   `json:"finished"` // nothing is left to fold
	Feedback []Span `json:"feedback"`
	Items    []Span `json:"items"`
	Left     int64  `json:"left"` // offsets still to be passed
}

// ReplayResult says what a replay did. The counts are of this run.
type ReplayResult struct {
	ReplayPlan
	Events      uint64            `json:"events"`
	Duplicates  uint64            `json:"duplicates"`
	Forgotten   uint64            `json:"forgotten"`
	DeadLetters map[string]uint64 `json:"deadletters"` // by reason, of both topics; not sent
	Users       int               `json:"users"`
	SHA256      string            `json:"sha256"` // of the facts, as `inspect digest` prints it
	Seconds     float64           `json:"seconds"`
}

// replayFile is what a replay remembers of itself in its directory.
const replayFile = "replay.json"

// replayRecord is the content of replayFile.
type replayRecord struct {
	Format   int         `json:"format"`
	From     string      `json:"from"`
	To       string      `json:"to"`
	Topics   [2]string   `json:"topics"` // feedback and items
	Dim      int         `json:"dim"`
	Rules    table.Rules `json:"rules"`
	Feedback []Span      `json:"feedback"`
	Items    []Span      `json:"items"`
	Finished bool        `json:"finished"`
}

// WithRules returns the configuration with the rules of the fold, the keys
// window, dedupe and classes, taken from YAML; what it leaves out stays. Any
// other key is an error.
func (c Config) WithRules(b []byte) (Config, error) {
	rules := struct {
		Window  WindowConfig  `yaml:"window"`
		Dedupe  DedupeConfig  `yaml:"dedupe"`
		Classes ClassesConfig `yaml:"classes"`
	}{c.Window, c.Dedupe, c.Classes}
	if err := decodeStrict(b, &rules); err != nil {
		return c, err
	}
	c.Window, c.Dedupe, c.Classes = rules.Window, rules.Dedupe, rules.Classes
	return c, c.Validate()
}

// at is the configuration of the state in another directory.
func (c Config) at(dir string) Config {
	c.State.Dir = dir
	return c
}

// Plan says what Run would fold, and makes nothing.
func (r *Replay) Plan(ctx context.Context) (ReplayPlan, error) {
	plan, _, err := r.plan(ctx)
	return plan, err
}

// Run folds what is left and returns when all of it is durable. With ctx it
// ends early, with an error that says how to go on.
func (r *Replay) Run(ctx context.Context) (res ReplayResult, err error) {
	started := time.Now()
	plan, record, err := r.plan(ctx)
	if err != nil {
		return res, err
	}
	res.ReplayPlan = plan
	// The file comes first: a state directory without it is nobody's to fold into.
	record.Finished = false
	if err := record.write(r.Into); err != nil {
		return res, err
	}
	o := r.Config.at(r.Into).TableOptions(r.Logger)
	o.Silent = true
	t, err := openInto(o)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	reg := prometheus.NewRegistry()
	w := replayer(r.Config, t, newMetrics(reg), r.Logger)
	if w.registry, err = r.Config.newRegistry(r.Logger); err != nil {
		return res, err
	}
	if err := r.fold(ctx, w, record, plan.Left); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: the same call goes on from here", err)
		}
		return res, fmt.Errorf("replaying into %s: %w", r.Into, err)
	}
	if err := res.count(t, w.metrics, reg); err != nil {
		return res, err
	}
	if err := t.Sync(); err != nil {
		return res, err
	}
	record.Finished = true
	res.Seconds = time.Since(started).Seconds()
	return res, record.write(r.Into)
}

// replayer is a worker that folds and lists and has nobody to tell. What it
// makes of the log are facts and the catalogue; a silent table drops the rest.
func replayer(c Config, t *table.Table, m *metrics, log *slog.Logger) *worker {
	return &worker{
		topics: c.Kafka.Topics, generate: GenerateConfig{MaxAge: c.Generate.MaxAge}, dim: c.Prior.Dim, partitions: c.Kafka.Partitions,
		samples: true, table: t, progress: newProgress(c.Kafka.Partitions),
		door: &door{subscribers: map[chan web.Event]struct{}{}}, metrics: m, log: log,
	}
}

// plan finds out what is left of a replay that is there, or lays a new one out.
func (r *Replay) plan(ctx context.Context) (plan ReplayPlan, record replayRecord, err error) {
	t := r.Config.Kafka.Topics
	record = replayRecord{
		Format: 1, From: r.From.text, To: r.To.text, Topics: [2]string{t.Feedback, t.Items}, Dim: r.Config.Prior.Dim, Rules: r.Config.rules(),
	}
	old, there, err := r.existing()
	if err != nil {
		return plan, record, err
	}
	if there {
		if what := record.differs(old); what != "" {
			return plan, record, fmt.Errorf("--into: %s holds a replay with another %s: give the same, or another directory", r.Into, what)
		}
	}
	if there && !(old.Finished && r.To.text == boundLatest) {
		record = old
	} else if err := r.layOut(ctx, &record, old); err != nil {
		return plan, record, err
	}
	plan = ReplayPlan{Into: r.Into, Resumed: there, Feedback: record.Feedback, Items: record.Items}
	plan.Left = length(record.Feedback) + length(record.Items)
	if there {
		if plan.Left, err = r.left(record); err != nil {
			return plan, record, err
		}
	}
	plan.Finished = plan.Left == 0
	return plan, record, nil
}

// layOut resolves the ends of a new replay, or the new end of one that is
// finished and follows the log.
func (r *Replay) layOut(ctx context.Context, record *replayRecord, old replayRecord) (err error) {
	n := r.Config.Kafka.Partitions
	if record.Feedback, err = spans(ctx, r.Client, record.Topics[0], n, r.From, r.To); err != nil {
		return err
	}
	items, err := extents(ctx, r.Client, record.Topics[1], n)
	if err != nil {
		return err
	}
	for p, e := range items {
		record.Items = append(record.Items, Span{Partition: int32(p), From: e.first, To: e.end})
	}
	for p := range old.Feedback { // begun where it began
		record.Feedback[p].From, record.Items[p].From = old.Feedback[p].From, old.Items[p].From
	}
	return nil
}

// existing reads the record of a replay in the directory, which must hold one
// or nothing.
func (r *Replay) existing() (old replayRecord, there bool, err error) {
	if same, err := samePath(r.Into, r.Config.State.Dir); err != nil || same {
		return old, false, errors.Join(err, errors.New("--into: is state.dir itself: a replay has a directory of its own"))
	}
	if old, there, err = readReplay(r.Into); err != nil || there {
		return old, there, err
	}
	switch files, err := os.ReadDir(r.Into); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return old, false, fmt.Errorf("--into: %w", err)
	case len(files) > 0:
		return old, false, fmt.Errorf("--into: %s is not empty and holds no replay", r.Into)
	}
	return old, false, nil
}

func samePath(a, b string) (bool, error) {
	a, err := filepath.Abs(a)
	if err != nil {
		return false, err
	}
	b, err = filepath.Abs(b)
	return a == b, err
}

// differs names the argument in which a replay is not the one that is there.
func (r replayRecord) differs(old replayRecord) string {
	switch {
	case r.From != old.From:
		return "--from, " + old.From
	case r.To != old.To:
		return "--to, " + old.To
	case r.Topics != old.Topics:
		return fmt.Sprintf("pair of topics, %s and %s", old.Topics[0], old.Topics[1])
	case r.Dim != old.Dim:
		return fmt.Sprintf("prior.dim, %d", old.Dim)
	case r.Rules != old.Rules:
		return "set of rules"
	}
	return ""
}

// left counts the offsets that the state in the directory has not passed.
func (r *Replay) left(record replayRecord) (n int64, err error) {
	o := r.Config.at(r.Into).TableOptions(r.Logger)
	if !exists(o.Dir) {
		return length(record.Feedback) + length(record.Items), nil
	}
	t, err := openInto(o)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	for i, set := range [][]Span{record.Feedback, record.Items} {
		for _, s := range set {
			next, _, _, err := t.Offset(record.Topics[i], s.Partition)
			if err != nil {
				return 0, err
			}
			n += s.To - max(s.From, next)
		}
	}
	return n, nil
}

func openInto(o table.Options) (*table.Table, error) {
	t, err := table.Open(o)
	if errors.Is(err, table.ErrLocked) {
		return nil, fmt.Errorf("--into: %w: another replay writes there", err)
	}
	if err != nil {
		return nil, fmt.Errorf("--into: %w", err)
	}
	return t, nil
}

// write makes the record durable in the directory.
func (r replayRecord) write(dir string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("--into: %w", err)
	}
	if err := writeDurably(filepath.Join(dir, replayFile), append(b, '\n')); err != nil {
		return fmt.Errorf("--into: %w", err)
	}
	return nil
}

// writeDurably replaces a file whole or not at all.
func writeDurably(file string, b []byte) error {
	tmp := file + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, file); err != nil {
		return err
	}
	return syncDir(filepath.Dir(file))
}

// syncDir makes names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// fold runs both topics of all partitions to their ends.
func (r *Replay) fold(ctx context.Context, w *worker, record replayRecord, left int64) error {
	var passed atomic.Int64
	stop := r.tell(&passed, left)
	defer stop()
	f := logFold{config: r.Config.Kafka, client: r.Client, table: w.table, passed: &passed, log: r.Logger}
	group, ctx := errgroup.WithContext(ctx)
	for i, set := range [][]Span{record.Feedback, record.Items} {
		for _, s := range set {
			h := w.foldFeedback(s.Partition)
			if i == 1 {
				h = w.listItems(s.Partition, false)
			}
			group.Go(func() error { return f.span(ctx, record.Topics[i], s, h) })
		}
	}
	return group.Wait()
}

// tell reports progress until the function it returns is called.
func (r *Replay) tell(passed *atomic.Int64, left int64) (stop func()) {
	if r.Progress == nil {
		return func() {}
	}
	r.Progress(0, left)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = every(ctx, 100*time.Millisecond, func() { r.Progress(passed.Load(), left) }) // it ends with its context, and well
	}()
	return func() {
		cancel()
		<-done
		r.Progress(passed.Load(), left)
	}
}

// count fills in what was done.
func (r *ReplayResult) count(t *table.Table, m *metrics, reg *prometheus.Registry) (err error) {
	r.Events, r.Duplicates, r.Users = m.eventsN.Load(), m.duplicatesN.Load(), t.UserCount()
	r.Finished, r.Left = true, 0
	r.DeadLetters = map[string]uint64{}
	families, err := reg.Gather()
	if err != nil {
		return fmt.Errorf("counting what was replayed: %w", err)
	}
	for _, f := range families {
		for _, s := range f.GetMetric() {
			n := uint64(s.GetCounter().GetValue())
			switch f.GetName() {
			case "rebeca_forgotten_total":
				r.Forgotten = n
			case "rebeca_deadletters_total":
				if n > 0 {
					r.DeadLetters[s.GetLabel()[0].GetValue()] = n
				}
			}
		}
	}
	r.SHA256, err = t.Digest()
	return err
}

// readReplay reads what a replay remembers of itself in a directory.
func readReplay(dir string) (record replayRecord, there bool, err error) {
	file := filepath.Join(dir, replayFile)
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return record, false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &record)
	}
	if err == nil && record.Format != 1 {
		err = fmt.Errorf("it is of format %d, this program reads 1", record.Format)
	}
	if err != nil {
		return record, true, fmt.Errorf("reading the replay's %s: %w", file, err)
	}
	return record, true, nil
}
