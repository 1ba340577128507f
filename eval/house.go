package eval

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"rebeca/online"
	"rebeca/prior"
	"rebeca/schemas"
	"rebeca/table"
)

// house is the service's table in a temporary directory, with a world's catalogue in it.
type house struct {
	*table.Table
	world *World
	rules table.Rules
	dir   string
	ids   []string       // of items
	at    map[string]int // index of an item by id
	next  int64          // offset
}

const (
	itemsTopic, feedbackTopic = "items", "feedback"
	// listed is how many items go into the table in one transaction.
	listed = 500
)

// epoch is when the stream begins: worlds have no clock.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func openHouse(w *World, rules table.Rules) (h *house, err error) {
	h = &house{world: w, rules: rules, at: make(map[string]int, len(w.Items))}
	if h.dir, err = os.MkdirTemp("", "rebeca-eval-"); err != nil {
		return nil, fmt.Errorf("making a directory for the table: %w", err)
	}
	if h.Table, err = table.Open(table.Options{Dir: h.dir, Partitions: 1, Dim: w.Dim, Rules: rules}); err != nil {
		return nil, errors.Join(err, os.RemoveAll(h.dir))
	}
	if err := h.stock(); err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

// stock lists the world's catalogue.
func (h *house) stock() error {
	var items []table.Listed
	for i, e := range h.world.Items {
		id := fmt.Sprintf("item-%06d", i)
		h.ids = append(h.ids, id)
		h.at[id] = i
		items = append(items, table.Listed{Offset: int64(i), Time: epoch, Item: &schemas.Item{ItemID: id, Embedding: e}})
		if len(items) == listed || i == len(h.world.Items)-1 {
			if err := h.List(itemsTopic, 0, items, int64(i)+1); err != nil {
				return err
			}
			items = items[:0]
		}
	}
	return nil
}

// act is one event of a user of the table.
type act struct {
	user  string
	event Event
}

// feedback is the record of an act at an offset.
func feedback(a act, h *house, offset int64) schemas.Feedback {
	return schemas.Feedback{
		EventID: fmt.Sprintf("%s-%d", h.world.Shape.Name, offset), UserID: a.user, ItemID: a.item(h),
		Kind: a.event.Kind, Value: a.event.Value, OccurredAt: epoch.Add(time.Duration(offset) * time.Second),
	}
}

// item is the id of what the user was shown.
func (a act) item(h *house) string {
	if a.event.made != "" {
		return a.event.made
	}
	return h.ids[a.event.Item]
}

// fold folds acts and returns them as the trainer takes them.
func (h *house) fold(acts []act) ([]online.Example, error) {
	if len(acts) == 0 {
		return nil, nil
	}
	records, examples := make([]table.Record, len(acts)), make([]online.Example, len(acts))
	for i, a := range acts {
		f := feedback(a, h, h.next)
		records[i] = table.Record{Offset: h.next, Time: f.OccurredAt, Key: []byte(a.user), Feedback: &f}
		examples[i] = online.Example{
			Offset: h.next, UserID: f.UserID, ItemID: f.ItemID, Class: h.rules.Classes.Of(f),
			EventHash: schemas.EventHash(f.EventID), At: f.OccurredAt,
		}
		h.next++
	}
	_, err := h.Fold(table.Batch{Topic: feedbackTopic, Records: records, Next: h.next})
	return examples, err
}

// Subject is a person at a moment, as a [Contestant] may know them and, in Person, as they truly are.
type Subject struct {
	User    string        // as the table knows them
	Index   int           // of World.People; -1 for a visitor, whom nobody trained on
	Window  []Seen        // newest first, then the older likes
	Context prior.Context // the same as the prior reads it
	Person  Person        // the truth

	// What an oracle may expect of such people: the chance per event that they change all tastes, and the share of those who never do.
	Hazard, Settled float64

	posterior posterior // filled in by the first oracle that asks
}

// Seen is an entry of a window.
type Seen struct {
	Item  int // index into World.Items
	Kind  schemas.Kind
	Class prior.Class
	Older bool
}

// Likes lists the items of the window that are strong positives; nil without one.
func (s *Subject) Likes() (items []int) {
	for _, e := range s.Window {
		if e.Class == prior.StrongPositive {
			items = append(items, e.Item)
		}
	}
	return items
}

// leaveOut drops what the window says of an item, of this embedding and index: it would be the answer to what comes next.
func (s *Subject) leaveOut(embedding []float32, item int) {
	s.Context = slices.DeleteFunc(s.Context, func(e prior.Entry) bool { return slices.Equal(e.Item, embedding) })
	s.Window = slices.DeleteFunc(s.Window, func(e Seen) bool { return e.Item == item })
}

// subject reads a user; one without events has an empty window.
func (h *house) subject(user string, index int, p Person) (Subject, error) {
	row, _, err := h.User(user)
	if err != nil {
		return Subject{}, err
	}
	s := Subject{User: user, Index: index, Person: p, Hazard: h.world.Shape.Hazard, Settled: h.world.Shape.Settled}
	s.Person.Liked = slices.Clone(p.Liked)
	s.Context, _ = h.Context(row)
	for _, e := range row.Window {
		s.Window = append(s.Window, Seen{Item: h.at[e.ItemID], Kind: e.Kind, Class: e.Class, Older: e.Older})
	}
	return s, nil
}

func (h *house) close() error {
	return errors.Join(h.Close(), os.RemoveAll(h.dir))
}
