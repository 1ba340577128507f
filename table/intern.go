package table

import (
	"fmt"
	"strings"
	"sync"
)

// interner numbers the item ids of one partition's windows in order of their first entry. The numbers are part of the facts.
type interner struct {
	index map[string]uint32 // guarded by the partition's lock: only its writer asks

	mu  sync.RWMutex // guards ids, which readers ask for; only the partition's writer changes them
	ids []string
}

func newInterner() *interner { return &interner{index: map[string]uint32{}} }

func (n *interner) find(id string) (uint32, bool) {
	i, ok := n.index[id]
	return i, ok
}

func (n *interner) intern(id string) uint32 {
	if i, ok := n.index[id]; ok {
		return i
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	i := uint32(len(n.ids))
	id = strings.Clone(id) // it may be part of a larger text
	n.ids = append(n.ids, id)
	n.index[id] = i
	return i
}

func (n *interner) len() int {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return len(n.ids)
}

// truncate forgets the numbers from n on: those of a transaction that did not commit, so no reader can have met them.
func (n *interner) truncate(size int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, id := range n.ids[size:] {
		delete(n.index, id)
	}
	n.ids = n.ids[:size]
}

// names returns the ids by number. The slice is append-only: what a reader got stays as it is.
func (n *interner) names() []string {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.ids
}

func (n *interner) load(i uint32, id string) error {
	if int(i) != len(n.ids) {
		return fmt.Errorf("%w: item number %d where %d was due", ErrCorrupt, i, len(n.ids))
	}
	n.ids = append(n.ids, id)
	n.index[id] = i
	return nil
}
