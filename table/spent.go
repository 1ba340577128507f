package table

// What a transaction of Fold takes of what Badger allows, at most, in bytes: rows are written at its end only. Every key written costs more
// than a node of Badger's skip list, by which it bounds their number, so that bound is kept as well.
const (
	// keyCost is what Badger counts for an entry beside key and value, and what our keys have beside their names.
	keyCost = 64
	// intentCost is an intent, and the deletion of the one it replaces, without the user's name.
	intentCost = 512
)

// spend adds what a record costs and reports whether the transaction has room for it.
func (f *folding) spend(cost int64) bool {
	f.spent += cost
	return f.spent <= f.t.budget
}

// cost is what folding a feedback into a user's draft adds: an entry, an id and perhaps a new item, and for the first of a batch the row
// and an intent.
func (f *folding) cost(d *draft, r *Record) int64 {
	cost := entrySize + hashSize + int64(len(r.Feedback.ItemID)) + keyCost
	if d.counted {
		return cost
	}
	d.counted = true
	cost += int64(len(d.row.b)+len(d.user)) + keyCost
	if f.batch.IntentCount > 0 {
		cost += intentCost + 4*int64(len(d.user))
	}
	return cost
}
