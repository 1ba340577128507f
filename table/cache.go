package table

import (
	"strings"
	"sync"
)

// rowCache keeps the encoded rows used last by the writers. A user is of one partition, so the name is enough. Values are immutable, so readers share them.
type rowCache struct {
	mu       sync.Mutex // guards all
	limit    int        // bytes
	bytes    int
	at       map[string]int
	nodes    []cached // nodes[0] is the ring's root: its next is the newest, its previous the oldest
	released []int
}

type cached struct {
	user           string
	value          []byte
	previous, next int
}

// cachedOverhead is about what a cached row costs beside its user and value: a node and a place in the map.
const cachedOverhead = 112

func (n *cached) cost() int { return cachedOverhead + len(n.user) + cap(n.value) }

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

// put makes a value the user's and the newest, and drops the oldest until the limit is kept; the newest stays in any case.
func (c *rowCache) put(user string, value []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i, ok := c.at[user]; ok {
		c.bytes += cap(value) - cap(c.nodes[i].value)
		c.nodes[i].value = value
		c.unlink(i)
		c.link(i)
	} else {
		c.add(user, value)
	}
	for c.bytes > c.limit && len(c.at) > 1 {
		c.drop(c.nodes[0].previous)
	}
}

func (c *rowCache) add(user string, value []byte) {
	i := len(c.nodes)
	if n := len(c.released); n > 0 {
		i, c.released = c.released[n-1], c.released[:n-1]
	} else {
		c.nodes = append(c.nodes, cached{})
	}
	user = strings.Clone(user) // it may be part of a larger text
	c.nodes[i] = cached{user: user, value: value}
	c.at[user] = i
	c.bytes += c.nodes[i].cost()
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
	c.bytes -= c.nodes[i].cost()
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
