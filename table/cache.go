package table

import "sync"

// rowCache keeps the encoded rows used last by the writer of a partition. Values are immutable, so readers share them.
type rowCache struct {
	mu       sync.Mutex // guards all
	limit    int
	at       map[string]int
	nodes    []cached // nodes[0] is the ring's root: its next is the newest, its previous the oldest
	released []int
}

type cached struct {
	user           string
	value          []byte
	previous, next int
}

func newRowCache(limit int) *rowCache {
	return &rowCache{limit: limit, at: map[string]int{}, nodes: make([]cached, 1)}
}

// get returns a user's value, nil if it is not cached, and makes it the newest.
func (c *rowCache) get(user string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, ok := c.at[user]
	if !ok {
		return nil
	}
	c.unlink(i)
	c.link(i)
	return c.nodes[i].value
}

// peek is get without the touch.
func (c *rowCache) peek(user string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i, ok := c.at[user]; ok {
		return c.nodes[i].value
	}
	return nil
}

func (c *rowCache) put(user string, value []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i, ok := c.at[user]; ok {
		c.nodes[i].value = value
		c.unlink(i)
		c.link(i)
		return
	}
	if len(c.at) >= c.limit {
		c.drop(c.nodes[0].previous)
	}
	i := len(c.nodes)
	if n := len(c.released); n > 0 {
		i, c.released = c.released[n-1], c.released[:n-1]
	} else {
		c.nodes = append(c.nodes, cached{})
	}
	c.nodes[i] = cached{user: user, value: value}
	c.at[user] = i
	c.link(i)
}

func (c *rowCache) remove(user string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i, ok := c.at[user]; ok {
		c.drop(i)
	}
}

func (c *rowCache) drop(i int) {
	c.unlink(i)
	delete(c.at, c.nodes[i].user)
	c.nodes[i] = cached{}
	c.released = append(c.released, i)
}

func (c *rowCache) unlink(i int) {
	n := c.nodes[i]
	c.nodes[n.previous].next = n.next
	c.nodes[n.next].previous = n.previous
}

func (c *rowCache) link(i int) {
	first := c.nodes[0].next
	c.nodes[i].previous, c.nodes[i].next = 0, first
	c.nodes[first].previous = i
	c.nodes[0].next = i
}
