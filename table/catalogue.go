package table

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"rebeca/schemas"
)

// Catalogue is the items in memory. It is safe for concurrent use; an embedding got from it never changes.
type Catalogue struct {
	dim int

	mu       sync.RWMutex // guards what follows
	at       map[string]int
	blocks   [][]float32  // of blockItems embeddings each; an embedding keeps its place until its block is let go
	used     int          // places given out
	gone     map[int]bool // places whose item was replaced or deleted
	revision uint64
	sorted   []listed // in id order, nil when out of date; never changed once made
}

type listed struct {
	id        string
	embedding []float32
}

const blockItems = 1024

func newCatalogue(dim int) *Catalogue {
	return &Catalogue{dim: dim, at: map[string]int{}, gone: map[int]bool{}}
}

// Get returns the embedding of an item, [dim], read only.
func (c *Catalogue) Get(id string) ([]float32, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	i, ok := c.at[id]
	if !ok {
		return nil, false
	}
	return c.place(i), true
}

// Len returns the number of items.
func (c *Catalogue) Len() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.at)
}

// Dim returns the length of an embedding.
func (c *Catalogue) Dim() int { return c.dim }

// Revision rises with every change.
func (c *Catalogue) Revision() uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.revision
}

// Each calls fn for every item in id order, as of one moment, until it returns false. fn may call the catalogue.
func (c *Catalogue) Each(fn func(id string, embedding []float32) bool) {
	for _, l := range c.list() {
		if !fn(l.id, l.embedding) {
			return
		}
	}
}

func (c *Catalogue) list() []listed {
	c.mu.RLock()
	sorted := c.sorted
	c.mu.RUnlock()
	if sorted != nil {
		return sorted
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sorted == nil {
		c.sorted = make([]listed, 0, len(c.at))
		for id, i := range c.at {
			c.sorted = append(c.sorted, listed{id, c.place(i)})
		}
		slices.SortFunc(c.sorted, func(a, b listed) int {
			if a.id < b.id {
				return -1
			}
			return 1
		})
	}
	return c.sorted
}

func (c *Catalogue) place(i int) []float32 {
	from := i % blockItems * c.dim
	return c.blocks[i/blockItems][from : from+c.dim : from+c.dim]
}

// apply puts items in and takes them out; a nil embedding takes out. Places are never written twice, so what readers hold stays.
func (c *Catalogue) apply(changes []listed) {
	if len(changes) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range changes {
		if l.embedding == nil {
			c.leave(l.id)
			delete(c.at, l.id)
			continue
		}
		c.put(l.id, l.embedding)
	}
	c.revision++
	c.sorted = nil
	if c.used > 2*len(c.at)+blockItems {
		c.compact()
	}
}

// leave notes the place of an item that is about to be replaced or deleted.
func (c *Catalogue) leave(id string) {
	if i, ok := c.at[id]; ok {
		c.gone[i] = true
	}
}

// Blocks returns the embeddings of all items as they lie in memory, as of one moment: blocks of rows, [rows, dim] row-major, and which
// places, rows of all blocks counted one after another, hold no item any more. All of it never changes; revision is that of the moment.
func (c *Catalogue) Blocks() (blocks [][]float32, gone map[int]bool, revision uint64) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for i, b := range c.blocks {
		if rows := min(c.used-i*blockItems, blockItems); rows > 0 {
			blocks = append(blocks, b[:rows*c.dim:rows*c.dim])
		}
	}
	return blocks, maps.Clone(c.gone), c.revision
}

func (c *Catalogue) put(id string, embedding []float32) {
	c.leave(id)
	if c.used == len(c.blocks)*blockItems {
		c.blocks = append(c.blocks, make([]float32, blockItems*c.dim))
	}
	copy(c.place(c.used), embedding)
	c.at[id] = c.used
	c.used++
}

// compact copies the items to new blocks, which lets go of those replaced and deleted.
func (c *Catalogue) compact() {
	kept := make([]listed, 0, len(c.at))
	for id, i := range c.at {
		kept = append(kept, listed{id, c.place(i)})
	}
	c.blocks, c.used = nil, 0
	clear(c.at)
	clear(c.gone)
	for _, l := range kept {
		c.put(l.id, l.embedding)
	}
}

// Listed is one record of the items topic, judged: exactly one of Item, Delete and Dead is set.
type Listed struct {
	Offset     int64
	Time       time.Time // Kafka timestamp
	Key, Value []byte
	Headers    []schemas.Header // the producer's; a dead letter keeps them
	Item       *schemas.Item    // its embedding has the table's dimension
	Delete     bool             // a null value: the item of the key goes
	Dead       *schemas.Rejection

	Fingerprint uint64
}

// List applies items to the catalogue and moves the offset of the topic's partition in one transaction (several where they exceed one).
// The items topic may have any number of partitions. ErrStale as in Fold.
func (t *Table) List(topic string, partition int32, items []Listed, next int64) error {
	if partition < 0 {
		panic(fmt.Sprintf("table: partition %d", partition))
	}
	err := checkOffsets(items, next, func(l *Listed) int64 { return l.Offset })
	if err != nil {
		return fmt.Errorf("listing %s[%d]: %w", topic, partition, err)
	}
	p := t.partitions[partition%t.options.Partitions]
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		n := fit(items, t.budget, func(l *Listed) int64 {
			if l.Dead != nil {
				return buryCost(l.Key, l.Value, l.Headers, l.Dead)
			}
			return int64(len(l.Key)+4*t.options.Dim) + 512
		})
		part, to := items[:n], next
		if n < len(items) {
			to = part[n-1].Offset + 1
		}
		if err := t.update(p, func(c *change) error { return c.list(topic, partition, part, to) }); err != nil {
			return fmt.Errorf("listing %s[%d]: %w", topic, partition, err)
		}
		if items = items[n:]; len(items) == 0 {
			return nil
		}
	}
}

func (c *change) list(topic string, partition int32, items []Listed, next int64) error {
	first := next
	if len(items) > 0 {
		first = items[0].Offset
	}
	last := lastApplied(items, func(l *Listed) applied { return applied{l.Offset, l.Fingerprint} })
	if err := c.advance(topic, partition, first, next, last); err != nil {
		return err
	}
	var changes []listed
	for i := range items {
		l := &items[i]
		var err error
		switch {
		case l.Dead != nil:
			err = c.bury(schemas.Source{Topic: topic, Partition: partition, Offset: l.Offset}, l.Key, l.Value, l.Headers, l.Dead)
		case l.Delete:
			if len(l.Key) > schemas.MaxID {
				break // there is no such item
			}
			err = c.delete(itemKey(string(l.Key)))
			changes = append(changes, listed{id: string(l.Key)})
		default:
			if l.Item == nil || len(l.Item.Embedding) != c.t.options.Dim || len(l.Item.ItemID) > schemas.MaxID {
				panic(fmt.Sprintf("table: item at offset %d was not judged", l.Offset))
			}
			err = c.set(itemKey(l.Item.ItemID), encodeItem(l.Item.URI, l.Item.Embedding))
			changes = append(changes, listed{l.Item.ItemID, l.Item.Embedding})
		}
		if err != nil {
			return fmt.Errorf("record at %d: %w", l.Offset, err)
		}
	}
	c.then(func() { c.t.catalogue.apply(changes) })
	return nil
}
