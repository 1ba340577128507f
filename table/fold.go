package table

import (
	"slices"

	"rebeca/prior"
	"rebeca/schemas"
)

// entry is one event of a window. Its item is an interned id.
type entry struct {
	item   uint32
	kind   uint8 // code of the kind
	class  prior.Class
	at     int64 // occurred_at, milliseconds since 1970
	offset int64
	hash   uint64 // of the event id
}

// row is what the table keeps of a user. Every list is in order of arrival, the oldest first.
type row struct {
	events, positives, negatives uint64
	last                         int64 // offset of the last event folded
	newest                       []entry
	older                        []entry  // strong likes that left newest and stayed in the reservoir
	seen                         []uint64 // hashes of the last distinct event ids
}

// fold folds one feedback and reports whether it was new. A resend changes nothing. It is the whole definition of the facts: nothing
// but the rules, the row, the feedback and its offset enters.
func (r *row) fold(rules *Rules, f *schemas.Feedback, offset int64, items *interner) bool {
	hash := schemas.EventHash(f.EventID)
	if slices.Contains(r.seen, hash) {
		return false
	}
	if len(r.seen) >= rules.Dedupe {
		r.seen = append(r.seen[:0], r.seen[len(r.seen)-rules.Dedupe+1:]...)
	}
	r.seen = append(r.seen, hash)
	r.events++
	r.last = offset
	if f.Kind == schemas.KindUndo {
		if item, ok := items.find(f.ItemID); ok {
			r.undo(item)
		}
		return true
	}
	class := rules.Classes.of(f.Kind, f.Value)
	if class == prior.ClassNone {
		return true
	}
	if class.Positive() {
		r.positives++
	} else {
		r.negatives++
	}
	r.push(rules, entry{
		item: items.intern(f.ItemID), kind: kindCode(f.Kind), class: class, at: f.OccurredAt.UnixMilli(), offset: offset, hash: hash,
	})
	return true
}

// undo removes the entries of an item. What the reservoir gave up for them does not come back.
func (r *row) undo(item uint32) {
	same := func(e entry) bool { return e.item == item }
	r.newest = slices.DeleteFunc(r.newest, same)
	r.older = slices.DeleteFunc(r.older, same)
}

// push enters an event in the window. The entry that leaves the newest part stays as an older like if it is a strong one and its hash is
// among the smallest: each like that ever left has the same chance, and no clock and no random number is needed.
func (r *row) push(rules *Rules, e entry) {
	r.newest = append(r.newest, e)
	for len(r.newest) > rules.Newest {
		left := r.newest[0]
		r.newest = append(r.newest[:0], r.newest[1:]...)
		if left.class == prior.StrongPositive {
			r.older = append(r.older, left)
		}
	}
	for len(r.older) > rules.Liked {
		out := 0
		for i, o := range r.older {
			if o.hash >= r.older[out].hash { // of equal hashes the newer leaves
				out = i
			}
		}
		r.older = slices.Delete(r.older, out, out+1)
	}
}
