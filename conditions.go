package rebeca

import (
	"container/list"
	"slices"

	"rebeca/prior"
)

// conditionBytes bounds the memory of [conditions]: some thousands of full
// windows of 16 dimensions, a hundred of 1024.
const conditionBytes = 64 << 20

// windowEncoder is the part of [prior.Model] that conditions need.
type windowEncoder interface {
	Encode([]prior.Context) ([]*prior.Condition, error)
}

// conditions keeps the encoded windows of users for the chunks of a large
// request, a further request and the vector that follow: a window is encoded
// once by each version. It is kept under its user and found by its content, so
// an item that comes later, an undo or a user who is forgotten and comes back
// cannot be answered with what was. Not safe for concurrent use.
type conditions struct {
	limit  int // bytes
	of     windowEncoder
	used   int
	byUser map[string]*list.Element // of *encodedWindow
	recent *list.List               // the last one used first
}

type encodedWindow struct {
	user    string
	context prior.Context
	cond    *prior.Condition
}

func newConditions(limit int) *conditions { return &conditions{limit: limit} }

// encode returns the condition of each context, in order, and how many had to
// be encoded by m. The contexts become its own to read.
func (c *conditions) encode(m windowEncoder, users []string, contexts []prior.Context) (conds []*prior.Condition, encoded int, err error) {
	if c.of != m { // conditions belong to the version that encoded them
		c.of, c.used, c.byUser, c.recent = m, 0, map[string]*list.Element{}, list.New()
	}
	conds = make([]*prior.Condition, len(contexts))
	var missing []int
	var windows []prior.Context
	for i, user := range users {
		if e := c.byUser[user]; e != nil && sameContext(e.Value.(*encodedWindow).context, contexts[i]) {
			c.recent.MoveToFront(e)
			conds[i] = e.Value.(*encodedWindow).cond
			continue
		}
		missing, windows = append(missing, i), append(windows, contexts[i])
	}
	if len(missing) == 0 {
		return conds, 0, nil
	}
	fresh, err := m.Encode(windows)
	if err != nil {
		return nil, 0, err
	}
	for k, i := range missing {
		conds[i] = fresh[k]
		c.keep(&encodedWindow{users[i], contexts[i], fresh[k]})
	}
	return conds, len(missing), nil
}

// keep puts w in the place of what its user had and drops what was not used for
// longest beyond the limit.
func (c *conditions) keep(w *encodedWindow) {
	if old := c.byUser[w.user]; old != nil {
		c.drop(old)
	}
	c.byUser[w.user] = c.recent.PushFront(w)
	for c.used += w.bytes(); c.used > c.limit; {
		c.drop(c.recent.Back())
	}
}

func (c *conditions) drop(e *list.Element) {
	w := c.recent.Remove(e).(*encodedWindow)
	delete(c.byUser, w.user)
	c.used -= w.bytes()
}

// bytes counts a window's embeddings as if it alone held them.
func (w *encodedWindow) bytes() int {
	n := len(w.user) + w.cond.Bytes()
	for _, e := range w.context {
		n += 64 + 4*len(e.Item)
	}
	return n
}

func sameContext(a, b prior.Context) bool {
	return slices.EqualFunc(a, b, func(x, y prior.Entry) bool {
		return x.Class == y.Class && x.Older == y.Older && slices.Equal(x.Item, y.Item)
	})
}
