package eval

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"time"

	"rebeca/internal/meter"
	"rebeca/online"
)

// rivals are other ways to learn the same stream, by the same batches, rates and solver.
type rivals struct {
	recipe   Recipe
	house    *house
	log      *slog.Logger
	progress io.Writer

	diary   *diary
	online  *vectors
	all     []online.Example // the stream, for who learns it afterwards
	offline []*vectors
	windows []*afterwards
}

// rivalEpochs are the passes over the whole stream that learned vectors are given afterwards; the first is as many examples of events as
// the service takes, whose birth has examples of nobody's besides.
var rivalEpochs = []int{8, 13, 51}

// windowEpochs are those that the window prior is given; 51 would take some ten times as long as the service does.
const windowEpochs = 13

func newRivals(r Recipe, h *house, o Options) (*rivals, error) {
	v := &rivals{recipe: r, house: h, log: o.Logger, progress: o.Progress, diary: newDiary(h)}
	steps := h.world.Shape.Events * r.Train.Steps / r.Train.Round
	var err error
	v.online, err = newVectors("vectors_online", r, v.diary, max(1, steps))
	return v, err
}

// born keeps the version that is born of the catalogue: rivals with windows begin with it too, and need not be born again.
func (v *rivals) born(c *Rebeca) error {
	if c.version.URI == "" {
		return nil
	}
	dir := v.nursery()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making a directory for the version that is born: %w", err)
	}
	file, err := os.ReadFile(c.version.URI)
	if err != nil {
		return fmt.Errorf("keeping the version that is born: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, filepath.Base(c.version.URI)), file, 0o644); err != nil {
		return fmt.Errorf("keeping the version that is born: %w", err)
	}
	return nil
}

func (v *rivals) nursery() string { return filepath.Join(v.house.dir, "born") }

// learn takes the events that the service has just learned.
func (v *rivals) learn(events []online.Example) error {
	v.all = append(v.all, events...)
	return v.online.read(v.diary.write(events))
}

// study has those learn who go through the stream when it is over; spent, birth and whole are what the service's learning took.
func (v *rivals) study(ctx context.Context, spent Spent, birth, whole time.Duration) error {
	if len(v.diary.lives) == 0 {
		return nil
	}
	lessons := len(v.diary.epoch(v.recipe.Prior.Targets, random(0, usePerson, 0)))
	steps := (lessons + v.recipe.Prior.Contexts - 1) / v.recipe.Prior.Contexts
	for _, epochs := range rivalEpochs {
		planned := float64(steps * epochs)
		if err := v.goOver(ctx, fmt.Sprintf("vectors_%d", epochs), func(l *vectors) float64 { return float64(l.spent.Steps) / planned }); err != nil {
			return err
		}
	}
	// As many examples as the service takes of events and of pseudo-users together.
	if spent.Examples == 0 {
		return nil // the service learned nothing: there is nothing to be equal to
	}
	if err := v.goOver(ctx, "vectors_equal", func(l *vectors) float64 { return float64(l.spent.Examples) / float64(spent.Examples) }); err != nil {
		return err
	}
	// The one row that a clock has a say in: how many steps it takes differs between equal runs.
	if err := v.goOver(ctx, "vectors_seconds", func(l *vectors) float64 { return l.took.Seconds() / whole.Seconds() }); err != nil {
		return err
	}
	return v.goOverWindows(ctx, spent, birth)
}

// goOverWindows has the window prior learn the finished table: as long as the service did, for more epochs after the same birth, and, never
// born, as many examples of events as the service has of events and pseudo-users.
func (v *rivals) goOverWindows(ctx context.Context, spent Spent, birth time.Duration) error {
	more := v.recipe
	batch := more.Prior.Contexts * more.Prior.Targets
	more.Train.Steps, more.Train.Round = windowEpochs, batch
	unborn := v.recipe
	unborn.Train.BirthSteps, unborn.Train.PseudoShare = 0, 0
	unborn.Train.Steps, unborn.Train.Round = max(1, int(math.Round(float64(spent.Examples)/float64(len(v.all))))), batch
	unborn.Train.FirstSteps = max(1, unborn.Train.Steps*unborn.Train.FirstEvents/batch) // of as many epochs as the others
	for _, way := range []struct {
		name   string
		recipe Recipe
		born   bool
	}{{"window_offline", v.recipe, true}, {fmt.Sprintf("window_%d", windowEpochs), more, true}, {"window_equal", unborn, false}} {
		l := &afterwards{name: way.name}
		if way.born {
			l.took = birth
		}
		v.windows = append(v.windows, l)
		start := time.Now()
		if err := v.windowed(ctx, l, way.recipe, way.born); err != nil {
			return fmt.Errorf("%s: %w", way.name, err)
		}
		l.took += time.Since(start)
	}
	return nil
}

// goOver trains learned vectors on the whole stream until done.
func (v *rivals) goOver(ctx context.Context, name string, done func(*vectors) float64) error {
	l, err := newVectors(name, v.recipe, v.diary, 1)
	if err != nil {
		return err
	}
	v.offline = append(v.offline, l)
	progress := meter.New(v.progress, name, 1000)
	defer progress.Done()
	return l.study(ctx, progress, func() float64 { return done(l) })
}

// windowed trains the window prior on the finished table, each step on random people of the end.
func (v *rivals) windowed(ctx context.Context, l *afterwards, r Recipe, born bool) (err error) {
	h := *v.house
	r.Train.FreshShare, r.Train.MaxLag = 0, math.MaxInt64
	h.dir = filepath.Join(h.dir, l.name) // checkpoints of its own
	if born {
		if err := os.CopyFS(filepath.Join(h.dir, "prior"), os.DirFS(v.nursery())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if l.Rebeca, err = newRebeca(r, &h, v.log); err != nil {
		return err
	}
	if err := l.Begin(ctx); err != nil {
		return err
	}
	if err := l.Learn(ctx, v.all); err != nil {
		return err
	}
	return l.Rest(ctx)
}

// contestants are those who can be asked now.
func (v *rivals) contestants() (out []Contestant) {
	out = append(out, v.online)
	if len(v.windows) == 0 {
		return out
	}
	for _, l := range v.offline {
		out = append(out, l)
	}
	out = append(out, fitted{v.offline[len(rivalEpochs)-1], v.recipe})
	for _, l := range v.windows {
		out = append(out, l)
	}
	return out
}

// afterwards is the service's own way over a stream that is over.
type afterwards struct {
	*Rebeca
	name string
	took time.Duration
}

// Name implements [Contestant].
func (a *afterwards) Name() string { return a.name }

// RivalSpent is what a rival's learning cost.
type RivalSpent struct {
	Of string `json:"of"`
	Spent
}

// tell writes what the rivals cost into the report.
func (v *rivals) tell(r *Report) {
	for _, l := range append([]*vectors{v.online}, v.offline...) {
		r.Rivals = append(r.Rivals, RivalSpent{l.name, l.spent})
		r.spend("learn_"+l.name, l.took)
	}
	for _, l := range v.windows {
		r.Rivals = append(r.Rivals, RivalSpent{l.name, l.Spent()})
		r.spend("learn_"+l.name, l.took)
	}
}

func (v *rivals) close() error {
	errs := []error{v.online.close()}
	for _, l := range v.offline {
		errs = append(errs, l.close())
	}
	for _, l := range v.windows {
		if l.Rebeca != nil {
			errs = append(errs, l.Close())
		}
	}
	return errors.Join(errs...)
}
