package eval

import (
	"errors"
	"fmt"
	"io"

	"rebeca/dataset"
	"rebeca/schemas"
)

// Recording is a catalogue and what people did with it, in order, as files tell it. What they truly like nobody knows.
type Recording struct {
	Name    string
	Bad     int // rows passed over
	Unknown int // events about items that are not in the catalogue, passed over
	Resent  int // events that came before, passed over

	world *World
	acts  []act
}

// Reading says how files are read.
type Reading struct {
	Items, Events string // see [dataset.OpenItems] and [dataset.OpenEvents]
	Skip          bool   // pass over broken rows instead of failing
	OnBad         func(error)
	Seed          uint64
}

// Read reads the files. The first item sets the dimension; of items of one id the last counts. Events keep the order of the file. A broken
// row is a *[dataset.RowError] unless Skip is set; a file without an item is an error.
func (r Reading) Read() (*Recording, error) {
	rec := &Recording{world: &World{Shape: Shape{Name: "files"}, Seed: r.Seed}}
	at := map[string]int{}
	if err := each(r, r.Items, rec, dataset.OpenItems, func(f *dataset.Reader) error {
		item, err := f.Item(rec.world.Dim)
		if err != nil {
			return err
		}
		rec.world.Dim = len(item.Embedding)
		if i, again := at[item.ItemID]; again {
			rec.world.Items[i] = item.Embedding
			return nil
		}
		at[item.ItemID] = len(rec.world.Items)
		rec.world.Items = append(rec.world.Items, item.Embedding)
		return nil
	}); err != nil {
		return nil, err
	}
	if len(rec.world.Items) == 0 {
		return nil, fmt.Errorf("%s holds no item", r.Items)
	}
	persons, seen := map[string]int{}, map[string]bool{}
	if err := each(r, r.Events, rec, dataset.OpenEvents, func(f *dataset.Reader) error {
		e, err := f.Event()
		if err != nil {
			return err
		}
		item, known := at[e.ItemID]
		switch key := e.UserID + "\x00" + e.EventID; {
		case !known:
			rec.Unknown++
		case seen[key]:
			rec.Resent++
		default:
			seen[key] = true
			if _, here := persons[e.UserID]; !here {
				persons[e.UserID] = len(persons)
			}
			rec.add(persons[e.UserID], e, item)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	s := &rec.world.Shape
	s.Items, s.People, s.Events, s.Dim = len(rec.world.Items), len(persons), len(rec.acts), rec.world.Dim
	return rec, nil
}

func (rec *Recording) add(person int, e schemas.Feedback, item int) {
	rec.acts = append(rec.acts, act{e.UserID, Event{Person: person, Item: item, Kind: e.Kind, Value: e.Value}})
}

// Dim is the length of the embeddings.
func (rec *Recording) Dim() int { return rec.world.Dim }

// each calls next until the file ends.
func each(r Reading, path string, rec *Recording, open func(string) (*dataset.Reader, error), next func(*dataset.Reader) error) error {
	f, err := open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		err := next(f)
		var row *dataset.RowError
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.As(err, &row) && r.Skip:
			rec.Bad++
			if r.OnBad != nil {
				r.OnBad(err)
			}
		case err != nil:
			return err
		}
	}
}
