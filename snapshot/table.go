package snapshot

import (
	"context"
	"errors"
	"io"

	"rebeca/table"
)

// OfTable is the source of a live table. checkpoint is Source.Checkpoint; nil means that there is no prior.
func OfTable(t *table.Table, checkpoint func() (Checkpoint, bool, error)) Source {
	return tableSource{t, checkpoint, nil}
}

// OfPartitions is the source of some partitions of a live table, to hand them over: without the prior, which is learned from all.
func OfPartitions(t *table.Table, partitions []int32) Source { return tableSource{t, nil, partitions} }

// IntoTable is the Load that makes a table of a snapshot. Dir of o is ignored; the rest must fit the snapshot, by the
// rules of table.Open, whose errors it returns.
func IntoTable(o table.Options) Load {
	return func(_ context.Context, dir string, _ Manifest, next func() (key, value []byte, err error)) error {
		o.Dir = dir
		return table.Load(o, func() (key, value []byte, ok bool, err error) {
			key, value, err = next()
			if errors.Is(err, io.EOF) {
				return nil, nil, false, nil
			}
			return key, value, err == nil, err
		})
	}
}

type tableSource struct {
	table      *table.Table
	checkpoint func() (Checkpoint, bool, error)
	only       []int32 // none for all
}

func (s tableSource) Checkpoint() (Checkpoint, bool, error) {
	if s.checkpoint == nil {
		return Checkpoint{}, false, nil
	}
	return s.checkpoint()
}

// Export syncs after the read timestamp is taken: a power cut must not leave the table behind its own snapshot.
func (s tableSource) Export(fn func(Cut) error) error {
	return s.table.Export(func(c table.Cut) error {
		c = c.Of(s.only)
		if err := s.table.Sync(); err != nil {
			return err
		}
		dim, err := vectorDim(c)
		if err != nil {
			return err
		}
		return fn(tableCut{c, Layout{Dim: c.Dim(), Partitions: c.Partitions(), VectorDim: dim, Users: int64(s.table.UserCount())}})
	})
}

// vectorDim is the length of the first vector in key order, 0 where there is none.
func vectorDim(c table.Cut) (dim int, err error) {
	found := errors.New("found")
	if err := c.Each("v/", func(_, _ []byte) error { return found }); !errors.Is(err, found) {
		return 0, err
	}
	err = c.Users(func(_ table.Row, v *table.Vector) error {
		if v == nil {
			return nil
		}
		dim = len(v.Values)
		return found
	})
	if errors.Is(err, found) {
		err = nil
	}
	return dim, err
}

type tableCut struct {
	cut    table.Cut
	layout Layout
}

func (c tableCut) Layout() Layout { return c.layout }

func (c tableCut) Each(fn func(key, value []byte) error) error { return c.cut.Each("", fn) }

func (c tableCut) Offsets() ([]Offset, error) {
	positions, err := c.cut.Positions()
	out := make([]Offset, len(positions))
	for i, p := range positions {
		out[i] = Offset(p)
	}
	return out, err
}

func (c tableCut) Users(fn func(User) error) error {
	var window []Entry
	return c.cut.Users(func(r table.Row, v *table.Vector) error {
		window = window[:0]
		for _, e := range r.Window {
			window = append(window, Entry{
				ItemID: e.ItemID, Class: e.Class.String(), Kind: string(e.Kind),
				OccurredAt: e.OccurredAt, Offset: e.Offset, Older: e.Older,
			})
		}
		u := User{
			Partition: r.Partition, UserID: r.UserID, Events: r.Events, Positives: r.Positives, Negatives: r.Negatives, Window: window,
		}
		if v != nil {
			u.Vector, u.PriorVersion = v.Values, v.PriorVersion
		}
		return fn(u)
	})
}
