package rebeca

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"slices"

	"rebeca/table"
)

// Diff compares the users of two states one by one, in the order of their keys,
// and holds no more than one of each at a time. A state that is in use is asked
// through the service that holds it.
type Diff struct {
	Config Config
	A, B   string // state directories
	Logger *slog.Logger
}

// UserDiff is a user who is not the same in both states.
type UserDiff struct {
	UserID    string `json:"user_id"`
	Partition int32  `json:"partition"`
	// Only is the state that alone has the user, a or b.
	Only string `json:"only,omitempty"`
	// What differs for a user of both.
	Counts bool `json:"counts"`
	Window bool `json:"window"`
	Vector bool `json:"vector"` // both have one, and of the same prior
	// Later says that one state has folded an event of the user that the other
	// has not come to: of such a user nothing is said about the rules.
	Later bool       `json:"later"`
	A     *DiffCount `json:"a,omitempty"`
	B     *DiffCount `json:"b,omitempty"`
	// Entries of the windows that only one of them has.
	OnlyInA int `json:"only_in_a"`
	OnlyInB int `json:"only_in_b"`
}

// DiffCount is what is counted of a user.
type DiffCount struct {
	Events    uint64 `json:"events"`
	Positives uint64 `json:"positives"`
	Negatives uint64 `json:"negatives"`
	Entries   int    `json:"entries"` // of the window
}

// DiffTotals sums a comparison up. Users are counted as different once for each
// thing that differs.
type DiffTotals struct {
	UsersA  int `json:"users_a"`
	UsersB  int `json:"users_b"`
	Same    int `json:"same"`
	OnlyA   int `json:"only_a"`
	OnlyB   int `json:"only_b"`
	Counts  int `json:"counts"`
	Windows int `json:"windows"`
	Vectors int `json:"vectors"`
	Later   int `json:"later"` // of those that differ
	// Uncompared have no vector in one state, or vectors of two priors.
	Uncompared int               `json:"vectors_not_compared"`
	OffsetsA   []InspectedFolded `json:"offsets_a"`
	OffsetsB   []InspectedFolded `json:"offsets_b"`
}

// Run tells each user who differs, in the order of keys: by partition, then id.
func (d *Diff) Run(ctx context.Context, tell func(UserDiff) error) (sum DiffTotals, err error) {
	a, err := d.open(ctx, d.A)
	if err != nil {
		return sum, fmt.Errorf("--a: %w", err)
	}
	defer func() { err = errors.Join(err, a.close()) }()
	b, err := d.open(ctx, d.B)
	if err != nil {
		return sum, fmt.Errorf("--b: %w", err)
	}
	defer func() { err = errors.Join(err, b.close()) }()
	sum.OffsetsA, sum.OffsetsB = a.offsets, b.offsets
	c := comparison{a: a, b: b, sum: &sum}
	return sum, c.run(ctx, tell)
}

// side is one of two states, as a stream of users.
type side struct {
	offsets []InspectedFolded
	users   iter.Seq2[InspectedUser, error]
	close   func() error
}

// next of a partition; -1 where nothing of it was folded.
func (s *side) next(partition int32) int64 {
	for _, o := range s.offsets {
		if o.Partition == partition {
			return o.Next
		}
	}
	return -1
}

// open opens the state in a directory, or asks for it the service that has it
// open.
func (d *Diff) open(ctx context.Context, dir string) (*side, error) {
	c := d.Config.at(dir)
	if !exists(dir) {
		return nil, fmt.Errorf("%w: there is no %s", ErrNoState, dir)
	}
	t, err := c.OpenTable(d.Logger)
	switch {
	case err == nil:
		return d.local(t)
	case !errors.Is(err, table.ErrLocked):
		return nil, err
	}
	if own, perr := samePath(dir, d.Config.State.Dir); perr != nil || !own {
		return nil, errors.Join(err, perr)
	}
	return d.running(ctx)
}

func (d *Diff) local(t *table.Table) (*side, error) {
	s := &side{close: t.Close}
	for p := range t.Partitions() {
		next, _, ok, err := t.Offset(d.Config.Kafka.Topics.Feedback, p)
		if err != nil {
			return nil, errors.Join(err, t.Close())
		}
		if ok {
			s.offsets = append(s.offsets, InspectedFolded{p, next})
		}
	}
	s.users = func(yield func(InspectedUser, error) bool) {
		err := t.Export(func(c table.Cut) error {
			return c.Users(func(r table.Row, v *table.Vector) error {
				if !yield(inspected(r, v), nil) {
					return errEnough
				}
				return nil
			})
		})
		if err != nil && !errors.Is(err, errEnough) {
			yield(InspectedUser{}, err)
		}
	}
	return s, nil
}

// errEnough ends a scan whose reader has ended.
var errEnough = errors.New("enough")

// running asks for the offsets first: the users that follow are at least so far.
func (d *Diff) running(ctx context.Context) (*side, error) {
	s := &side{}
	offsets, err := askRunning(ctx, d.Config, "GET", "/v1/inspect/offsets")
	if err != nil {
		return nil, err
	}
	defer offsets.Close()
	for o, err := range jsonLines[InspectedOffset](offsets) {
		if err != nil {
			return nil, err
		}
		if o.Topic == d.Config.Kafka.Topics.Feedback {
			s.offsets = append(s.offsets, InspectedFolded{o.Partition, o.Next})
		}
	}
	users, err := askRunning(ctx, d.Config, "GET", "/v1/inspect/users")
	if err != nil {
		return nil, err
	}
	s.users, s.close = jsonLines[InspectedUser](users), users.Close
	return s, nil
}

// jsonLines reads the running service's JSON lines.
func jsonLines[T any](r io.Reader) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		dec := json.NewDecoder(r)
		for {
			var v T
			err := dec.Decode(&v)
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				err = fmt.Errorf("reading the running service's answer: %w", err)
			}
			if !yield(v, err) || err != nil {
				return
			}
		}
	}
}

// comparison walks two streams side by side.
type comparison struct {
	a, b *side
	sum  *DiffTotals
}

func (c *comparison) run(ctx context.Context, tell func(UserDiff) error) error {
	nextA, stopA := iter.Pull2(c.a.users)
	defer stopA()
	nextB, stopB := iter.Pull2(c.b.users)
	defer stopB()
	a, errA, okA := nextA()
	b, errB, okB := nextB()
	for okA || okB {
		if err := errors.Join(errA, errB, ctx.Err()); err != nil {
			return err
		}
		order := compareUsers(a, b)
		var u *UserDiff
		switch {
		case !okB || okA && order < 0:
			u = c.alone(a, "a")
		case !okA || order > 0:
			u = c.alone(b, "b")
		default:
			u = c.both(a, b)
		}
		if u != nil {
			if err := tell(*u); err != nil {
				return err
			}
		}
		forA, forB := okA && (!okB || order <= 0), okB && (!okA || order >= 0)
		if forA {
			c.sum.UsersA++
			a, errA, okA = nextA()
		}
		if forB {
			c.sum.UsersB++
			b, errB, okB = nextB()
		}
	}
	return ctx.Err()
}

// compareUsers is the order of keys.
func compareUsers(a, b InspectedUser) int {
	return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.UserID, b.UserID))
}

func counted(u InspectedUser) *DiffCount {
	return &DiffCount{Events: u.Events, Positives: u.Positives, Negatives: u.Negatives, Entries: len(u.LastEvents) + len(u.OlderLikes)}
}

// alone is a user of one state.
func (c *comparison) alone(u InspectedUser, where string) *UserDiff {
	d := &UserDiff{UserID: u.UserID, Partition: u.Partition, Only: where}
	other := c.b
	if n := counted(u); where == "a" {
		d.A, d.OnlyInA = n, n.Entries
		c.sum.OnlyA++
	} else {
		d.B, d.OnlyInB = n, n.Entries
		c.sum.OnlyB++
		other = c.a
	}
	d.Later = u.LastOffset >= other.next(u.Partition)
	c.later(d)
	return d
}

func (c *comparison) later(d *UserDiff) {
	if d.Later {
		c.sum.Later++
	}
}

// both compares a user of both states; nil when nothing differs.
func (c *comparison) both(a, b InspectedUser) *UserDiff {
	d := &UserDiff{UserID: a.UserID, Partition: a.Partition, A: counted(a), B: counted(b)}
	d.Counts = a.Events != b.Events || a.Positives != b.Positives || a.Negatives != b.Negatives
	d.OnlyInA, d.OnlyInB = missing(a, b), missing(b, a)
	d.Window = !slices.Equal(a.LastEvents, b.LastEvents) || !slices.Equal(a.OlderLikes, b.OlderLikes)
	if comparable := a.VectorHash != nil && b.VectorHash != nil && *a.Prior == *b.Prior; comparable {
		d.Vector = *a.VectorHash != *b.VectorHash
	} else {
		c.sum.Uncompared++
	}
	for _, w := range []struct {
		differs bool
		n       *int
	}{{d.Counts, &c.sum.Counts}, {d.Window, &c.sum.Windows}, {d.Vector, &c.sum.Vectors}} {
		if w.differs {
			*w.n++
		}
	}
	if !d.Counts && !d.Window && !d.Vector {
		c.sum.Same++
		return nil
	}
	d.Later = a.LastOffset >= c.b.next(a.Partition) || b.LastOffset >= c.a.next(b.Partition)
	c.later(d)
	return d
}

// missing counts the entries of a's window that b's does not have in the same
// part.
func missing(a, b InspectedUser) (n int) {
	for _, part := range [][2][]InspectedEvent{{a.LastEvents, b.LastEvents}, {a.OlderLikes, b.OlderLikes}} {
		for _, e := range part[0] {
			if !slices.Contains(part[1], e) {
				n++
			}
		}
	}
	return n
}
