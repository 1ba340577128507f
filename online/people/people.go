// Package people reads the table of users as the trainer does.
package people

import (
	"rebeca/online"
	"rebeca/table"
)

// Table adapts a table to the trainer's [online.Source]; its other methods stay within reach.
type Table struct{ *table.Table }

// User implements [online.Source].
func (t Table) User(id string) (online.User, bool, error) {
	row, ok, err := t.Table.User(id)
	u := online.User{Events: row.Events, Window: make([]online.Entry, len(row.Window))}
	for i, e := range row.Window {
		u.Window[i] = online.Entry{ItemID: e.ItemID, Class: e.Class, Offset: e.Offset, EventHash: e.EventHash, Older: e.Older}
	}
	return u, ok, err
}

// Catalogue implements [online.Source].
func (t Table) Catalogue() online.Catalogue { return t.Table.Catalogue() }
