package eval

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
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
	window  *Rebeca
	took    time.Duration // of window
}

// rivalEpochs are the passes over the whole stream that learned vectors are given afterwards; the first is as many examples of events as
// the service takes, whose birth has examples of nobody's besides.
var rivalEpochs = []int{8, 13, 51}

func newRivals(r Recipe, h *house, o Options) (*rivals, error) {
	v := &rivals{recipe: r, house: h, log: o.Logger, progress: o.Progress, diary: newDiary(h)}
	steps := h.world.Shape.Events * r.Train.Steps / r.Train.Round
	var err error
	v.online, err = newVectors("vectors_online", r, v.diary, max(1, steps))
	return v, err
}

// learn takes the events that the service has just learned.
func (v *rivals) learn(events []online.Example) error {
	v.all = append(v.all, events...)
	return v.online.read(v.diary.write(events))
}

// study has those learn who go through the stream when it is over; seconds is what the service took for learning.
func (v *rivals) study(ctx context.Context, seconds time.Duration) error {
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
	// The one row that a clock has a say in: how many steps it takes differs between equal runs.
	if err := v.goOver(ctx, "vectors_seconds", func(l *vectors) float64 { return l.took.Seconds() / seconds.Seconds() }); err != nil {
		return err
	}
	return v.windowed(ctx)
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

// windowed trains the window prior on the finished table: as many steps as the service took, each on random people of the end.
func (v *rivals) windowed(ctx context.Context) (err error) {
	r, h := v.recipe, *v.house
	r.Train.FreshShare, r.Train.MaxLag = 0, math.MaxInt64
	h.dir = filepath.Join(h.dir, "offline") // checkpoints of its own
	start := time.Now()
	if v.window, err = newRebeca(r, &h, v.log); err != nil {
		return err
	}
	if err := v.window.Begin(ctx); err != nil {
		return err
	}
	if err := v.window.Learn(ctx, v.all); err != nil {
		return err
	}
	err = v.window.Rest(ctx)
	v.took = time.Since(start)
	return err
}

// contestants are those who can be asked now.
func (v *rivals) contestants() (out []Contestant) {
	out = append(out, v.online)
	if v.window == nil {
		return out
	}
	for _, l := range v.offline {
		out = append(out, l)
	}
	return append(out, fitted{v.offline[len(rivalEpochs)-1], v.recipe}, afterwards{v.window})
}

// afterwards is the service's own way over a stream that is over.
type afterwards struct{ *Rebeca }

// Name implements [Contestant].
func (a afterwards) Name() string { return "window_offline" }

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
	if v.window != nil {
		r.Rivals = append(r.Rivals, RivalSpent{afterwards{v.window}.Name(), v.window.Spent()})
		r.spend("learn_"+afterwards{v.window}.Name(), v.took)
	}
}

func (v *rivals) close() error {
	errs := []error{v.online.close()}
	for _, l := range v.offline {
		errs = append(errs, l.close())
	}
	if v.window != nil {
		errs = append(errs, v.window.Close())
	}
	return errors.Join(errs...)
}
