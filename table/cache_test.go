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
		limit := rapid.IntRange(1, 5).Draw(t, "limit")
		c := newRowCache(limit)
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
				values[user] = fmt.Sprint("v", i)
				c.put(user, []byte(values[user]))
				order = append([]string{user}, without()...)
				order = order[:min(len(order), limit)]
			case "remove":
				c.remove(user)
				order = without()
			}
			if len(c.at) != len(order) || len(c.nodes) > limit+1 {
				t.Fatalf("%d cached in %d nodes, want %v", len(c.at), len(c.nodes), order)
			}
		}
	})
}
