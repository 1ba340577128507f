package table

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// The cache holds what a list with the newest in front would.
func TestRowCacheIsLRU(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 5).Draw(t, "limit") // rows: all cost the same here
		c := newRowCache(limit * (&cached{user: "u0", value: make([]byte, 8)}).cost())
		var order []string
		values := map[string]string{}
		for i := range rapid.IntRange(0, 100).Draw(t, "steps") {
			user := fmt.Sprint("u", rapid.IntRange(0, 7).Draw(t, "user"))
			at := slices.Index(order, user)
			without := func() []string {
				return slices.DeleteFunc(slices.Clone(order), func(u string) bool { return u == user })
			}
			switch rapid.SampledFrom([]string{"get", "peek", "put", "remove"}).Draw(t, "do") {
			case "get":
				got := c.get(user)
				if (got != nil) != (at >= 0) || at >= 0 && string(got) != values[user] {
					t.Fatalf("get %s: %q of %v", user, got, order)
				}
				if at >= 0 {
					order = append([]string{user}, without()...)
				}
			case "peek":
				if got := c.peek(user); (got != nil) != (at >= 0) {
					t.Fatalf("peek %s: %q of %v", user, got, order)
				}
			case "put":
				values[user] = fmt.Sprintf("%08d", i)
				c.put(user, append(make([]byte, 0, 8), values[user]...))
				order = append([]string{user}, without()...)
				order = order[:min(len(order), limit)]
			case "remove":
				c.remove(user)
				order = without()
			}
			if len(c.at) != len(order) || len(c.nodes) > limit+2 {
				t.Fatalf("%d cached in %d nodes, want %v", len(c.at), len(c.nodes), order)
			}
			if c.bytes != len(order)*(cachedOverhead+2+8) {
				t.Fatalf("%d bytes counted for %d rows", c.bytes, len(order))
			}
		}
	})
}

// Rows of any sizes together keep to the limit, and a single one larger than it is kept.
func TestRowCacheIsBoundedInBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const limit = 2000
		c := newRowCache(limit)
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			user, size := fmt.Sprint("u", rapid.IntRange(0, 30).Draw(t, "user")), rapid.IntRange(1, 2*limit).Draw(t, "size")
			c.put(user, make([]byte, size))
			if c.peek(user) == nil {
				t.Fatal("the newest is not there")
			}
			sum := 0
			for u, i := range c.at {
				sum += cachedOverhead + len(u) + cap(c.nodes[i].value)
			}
			if sum != c.bytes || sum > limit && len(c.at) > 1 {
				t.Fatalf("%d rows of %d bytes, %d counted", len(c.at), sum, c.bytes)
			}
		}
	})
}
