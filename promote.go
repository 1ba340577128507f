package rebeca

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rebeca/consumer"
	"rebeca/table"
)

// Promotion puts the state of another directory in the place of the
// configuration's: facts and catalogue become the other's, all else goes on as it
// was (see [table.Table.Succeed]). The other is a finished replay's, or one that
// an earlier promotion set aside.
type Promotion struct {
	Config Config // its rules must be the other state's
	From   string
	// Connect makes the client that is needed where the states are not folded
	// equally far.
	Connect func() (*consumer.Client, error)
	Logger  *slog.Logger // required
}

// Promoted says what a promotion did, or would do in a dry run.
type Promoted struct {
	From  string `json:"from"`
	Into  string `json:"into"`
	Aside string `json:"aside"` // where the replaced state is, as a state directory; "" in a dry run
	// Folded are the parts of the log that one of the states lacked.
	Folded []Caught `json:"folded"`
	Keys   int      `json:"keys"` // taken over, at least: told in steps
}

// Caught is a part of the log that one state folds to be as far as the other.
type Caught struct {
	State string `json:"state"` // promoted or replaced
	Topic string `json:"topic"`
	Span
}

// Names in state.dir while a promotion changes them.
const (
	promotedName = "table.promoted" // complete, and to become the table
	asidePrefix  = "replaced-"
)

// Run promotes. The service must be stopped. A state that lacks a part of the
// log folds it first: the replaced one as the service would have, with its
// intents and dead letters, the promoted one as a replay. Until both are equally
// far and all is written nothing has changed that the service would see; an
// interrupted call is to be repeated, and one that has begun to rename is finished by
// whatever opens the state next.
func (p *Promotion) Run(ctx context.Context, dryRun bool) (done Promoted, err error) {
	c := p.Config
	done = Promoted{From: p.From, Into: c.State.Dir, Folded: []Caught{}}
	if record, there, err := readReplay(p.From); err != nil {
		return done, err
	} else if there && !record.Finished {
		return done, fmt.Errorf("the replay into %s is not finished: run it again, with --from %s --to %s", p.From, record.From, record.To)
	}
	if !exists(c.State.Dir) {
		return done, p.nothing()
	}
	unlock, err := c.lockState()
	if err != nil {
		return done, err
	}
	defer unlock()
	finished, err := c.renamePromoted()
	if err != nil {
		return done, err
	}
	if finished != "" && !exists(c.at(p.From).tableDir()) {
		done.Aside = finished
		return done, p.tidy()
	}
	pair, err := p.open()
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, pair.close()) }()
	if done.Folded, err = pair.behind(); err != nil || dryRun {
		return done, err
	}
	if err := p.align(ctx, pair, done.Folded); err != nil {
		return done, err
	}
	if err := ctx.Err(); err != nil {
		return done, err
	}
	topics := []string{c.Kafka.Topics.Feedback, c.Kafka.Topics.Items}
	if err := pair.fresh.Succeed(pair.old, topics, func(n int) { done.Keys = n }); err != nil {
		return done, err
	}
	if err := pair.close(); err != nil {
		return done, err
	}
	if done.Aside, err = p.swap(); err != nil {
		return done, err
	}
	return done, nil
}

// statePair is the state to be replaced and the one to take its place.
type statePair struct {
	config     Config
	old, fresh *table.Table
}

func (s *statePair) close() error {
	var errs []error
	for _, t := range []*table.Table{s.old, s.fresh} {
		if t != nil {
			errs = append(errs, t.Close()) // the second of two calls changes nothing
		}
	}
	return errors.Join(errs...)
}

func (p *Promotion) open() (*statePair, error) {
	c := p.Config
	pair := &statePair{config: c}
	from := c.at(p.From).TableOptions(p.Logger)
	if !exists(from.Dir) {
		return nil, fmt.Errorf("%w in %s: `rebeca replay --into %s` makes one", ErrNoState, p.From, p.From)
	}
	if !exists(c.tableDir()) {
		return nil, p.nothing()
	}
	old := c.TableOptions(p.Logger)
	old.AnyRules = true
	var err error
	switch pair.old, err = table.Open(old); {
	case errors.Is(err, table.ErrLocked):
		return nil, fmt.Errorf("state.dir: %w: stop the service first", err)
	case err != nil:
		return nil, fmt.Errorf("state.dir: %w", err)
	}
	switch pair.fresh, err = table.Open(from); {
	case errors.Is(err, table.ErrRules):
		err = fmt.Errorf("%w: put the rules of %s into the configuration first, so that the service can go on by them", err, p.From)
	case errors.Is(err, table.ErrLocked):
		err = fmt.Errorf("%w: let the replay finish first", err)
	}
	if err != nil {
		return nil, errors.Join(err, pair.close())
	}
	return pair, nil
}

func (p *Promotion) nothing() error {
	return fmt.Errorf("%w in state.dir %s that could be replaced: `rebeca serve` makes one of the log", ErrNoState, p.Config.State.Dir)
}

// behind lists what each state lacks of what the other has folded.
func (s *statePair) behind() ([]Caught, error) {
	out := []Caught{}
	for _, topic := range []string{s.config.Kafka.Topics.Feedback, s.config.Kafka.Topics.Items} {
		for p := range int32(s.config.Kafka.Partitions) {
			there, _, _, err := s.old.Offset(topic, p)
			if err != nil {
				return nil, err
			}
			here, _, _, err := s.fresh.Offset(topic, p)
			if err != nil {
				return nil, err
			}
			switch {
			case here < there:
				out = append(out, Caught{"promoted", topic, Span{p, here, there}})
			case here > there:
				out = append(out, Caught{"replaced", topic, Span{p, there, here}})
			}
		}
	}
	return out, nil
}

// align folds what either state lacks.
func (p *Promotion) align(ctx context.Context, pair *statePair, parts []Caught) error {
	if len(parts) == 0 {
		return nil
	}
	client, err := p.Connect()
	if err != nil {
		return err
	}
	defer client.Close()
	c := p.Config
	var passed atomic.Int64
	promoted := replayer(c, pair.fresh, newMetrics(prometheus.NewRegistry()), p.Logger)
	replaced := replayer(c, pair.old, newMetrics(prometheus.NewRegistry()), p.Logger)
	replaced.generate, replaced.samples = c.Generate, c.has(RoleWorker)
	if promoted.registry, err = c.newRegistry(p.Logger); err != nil {
		return err
	}
	replaced.registry = promoted.registry
	for _, part := range parts {
		w := promoted
		if part.State == "replaced" {
			w = replaced
		}
		_, end, err := client.Offsets(ctx, part.Topic, part.Partition)
		if err != nil {
			return err
		}
		if end < part.To {
			return fmt.Errorf("%s[%d] ends at %d and a state is at %d: the topic was truncated or made anew", part.Topic, part.Partition, end, part.To)
		}
		if err := w.catchUp(ctx, logFold{config: c.Kafka, client: client, table: w.table, passed: &passed, log: p.Logger}, part); err != nil {
			return fmt.Errorf("folding what the %s state lacks: %w", part.State, err)
		}
	}
	return nil
}

// catchUp folds what the worker's state lacks. Where the dead letters of items
// are this state's to send, those below are sent first: what follows moves their
// position.
func (w *worker) catchUp(ctx context.Context, f logFold, part Caught) error {
	if part.Topic != w.topics.Items {
		return f.span(ctx, part.Topic, part.Span, w.foldFeedback(part.Partition))
	}
	ours, err := w.buries(part.Partition)
	if err == nil && ours {
		err = w.buryBehind(ctx, f.client, part.Partition, nil)
	}
	if err != nil {
		return err
	}
	return f.span(ctx, part.Topic, part.Span, w.listItems(part.Partition, ours))
}

// swap moves the promoted state into state.dir, where it is complete under
// promotedName, and puts it in place.
func (p *Promotion) swap() (aside string, err error) {
	c := p.Config
	err = os.Rename(c.at(p.From).tableDir(), filepath.Join(c.State.Dir, promotedName))
	if errors.Is(err, syscall.EXDEV) {
		return "", fmt.Errorf("%s is on another file system than state.dir: move it below %s and promote it from there", p.From, filepath.Dir(c.State.Dir))
	}
	if err == nil {
		err = errors.Join(syncDir(c.State.Dir), syncDir(p.From))
	}
	if err != nil {
		return "", fmt.Errorf("moving the promoted state: %w", err)
	}
	if aside, err = c.putInPlace(); err != nil {
		return "", err
	}
	return aside, p.tidy()
}

// tidy removes what is left of the replay, and its directory unless others'
// files are there.
func (p *Promotion) tidy() error {
	if err := os.Remove(filepath.Join(p.From, replayFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the state is promoted; removing what is left of its replay: %w", err)
	}
	_ = os.Remove(p.From) // refused where it is not empty
	return nil
}

// putInPlace makes the state under promotedName the table and keeps the one it
// replaces. Killed at any point, it goes on when it is called again.
func (c Config) putInPlace() (aside string, err error) {
	if exists(c.tableDir()) {
		aside = filepath.Join(c.State.Dir, asidePrefix+time.Now().UTC().Format("20060102T150405.000"))
		if err := os.Mkdir(aside, 0o755); err != nil {
			return "", fmt.Errorf("setting the replaced state aside: %w", err)
		}
		if err := os.Rename(c.tableDir(), filepath.Join(aside, filepath.Base(c.tableDir()))); err != nil {
			return "", fmt.Errorf("setting the replaced state aside: %w", err)
		}
		if err := errors.Join(syncDir(aside), syncDir(c.State.Dir)); err != nil {
			return "", fmt.Errorf("setting the replaced state aside: %w", err)
		}
	}
	if err := os.Rename(filepath.Join(c.State.Dir, promotedName), c.tableDir()); err != nil {
		return "", fmt.Errorf("putting the promoted state in place: %w", err)
	}
	return aside, syncDir(c.State.Dir)
}

// renamePromoted finishes a promotion that was killed while it renamed and
// returns where the replaced state is; "" when there was nothing to finish. The
// state directory is locked.
func (c Config) renamePromoted() (aside string, err error) {
	if !exists(filepath.Join(c.State.Dir, promotedName)) {
		return "", nil
	}
	aside, err = c.putInPlace()
	if err == nil && aside == "" { // it was set aside before the kill
		found, _ := filepath.Glob(filepath.Join(c.State.Dir, asidePrefix+"*")) // the pattern is well-formed
		if len(found) > 0 {
			aside = found[len(found)-1]
		}
	}
	return aside, err
}

// finishPromotion is renamePromoted for readers of a directory that may not be
// there.
func (c Config) finishPromotion() error {
	if !exists(filepath.Join(c.State.Dir, promotedName)) {
		return nil
	}
	unlock, err := c.lockState()
	if err != nil {
		return err
	}
	defer unlock()
	_, err = c.renamePromoted()
	return err
}

// openState opens the table, after finishing a promotion that was killed, and
// not while one is under way.
func (c Config) openState(o table.Options) (*table.Table, error) {
	unlock, err := c.lockState()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if _, err := c.renamePromoted(); err != nil {
		return nil, fmt.Errorf("state.dir: %w", err)
	}
	t, err := table.Open(o)
	if err != nil {
		return nil, fmt.Errorf("state.dir: %w", err)
	}
	return t, nil
}

// lockState keeps promotions and openings of the state apart. The table has a
// lock of its own, which goes with its directory when that is renamed.
func (c Config) lockState() (unlock func(), err error) {
	if err := os.MkdirAll(c.State.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("state.dir: %w", err)
	}
	d, err := os.Open(c.State.Dir)
	if err != nil {
		return nil, fmt.Errorf("state.dir: %w", err)
	}
	err = syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = fmt.Errorf("%w: another verb opens or promotes %s: try again when it has ended", table.ErrLocked, c.State.Dir)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("state.dir: %w", err), d.Close())
	}
	return func() { _ = d.Close() }, nil // closing gives the lock back
}
